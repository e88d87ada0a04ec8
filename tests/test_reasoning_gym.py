"""Tasks of reasoning-gym: what a model replies may be code to their judges, and must do nothing but be judged."""

import time
from pathlib import Path
from typing import Any

import pytest

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.drawing import draw_items
from whatstuck.generalization.mapping import NO_MAPPING
from whatstuck.generalization.registry import make_task
from whatstuck.generalization.task import Task
from whatstuck.generalization.tasks._gym_judging import LONGEST, is_no_answer
from whatstuck.generalization.tasks.reasoning_gym import GymScorer, Question

pytest.importorskip("reasoning_gym")


@pytest.fixture(scope="module")
def scorer() -> GymScorer:
    """One for all tests, since its process takes seconds to start."""
    return GymScorer()


def first_of(task: Task[Any, Any, Any]) -> Question:
    item: Question = draw_items(task.source, 1, split="test", variant=task.variants[0]).items[0]
    return item


def test_a_reply_is_no_code_that_does_anything(tmp_path: Path, scorer: GymScorer) -> None:
    """Countdown hands a reply to sympy, which knows `open` and `exec`, and runs them."""
    task = make_task("reasoning-gym", dataset="countdown", max_new_tokens=64)
    item, made = first_of(task), tmp_path / "made"
    replies = [
        f"__import__('os').system('touch {made}')",
        f"open('{made}', 'w')",
        f"exec('import os; os.system(\"touch {made}\")')",
        f"exec('import os; os.mkdir(\"{made}\")')",
        f'exec(\'import subprocess; subprocess.run(["touch", "{made}"])\')',
        f'exec(\'import shutil; shutil.copy("{Path(__file__)}", "{made}")\')',
    ]
    for reply in replies:
        answer = task.parser.parse(f"<answer> {reply} </answer>")
        assert not scorer.score(item, NO_MAPPING, answer).success
        assert not made.exists()
    assert scorer.score(item, NO_MAPPING, item.entry["answer"]).outcome == "right"


def test_a_reply_that_takes_forever_to_compute_is_timed_out() -> None:
    item = first_of(make_task("reasoning-gym", dataset="countdown", max_new_tokens=64))
    scorer = GymScorer(time_limit=0.5)
    began = time.monotonic()
    score = scorer.score(item, NO_MAPPING, "9**9**9**9")
    assert (score.outcome, score.valid, score.success) == ("check_timed_out", False, False)
    assert time.monotonic() - began < 20
    assert scorer.score(item, NO_MAPPING, item.entry["answer"]).outcome == "right"  # another worker goes on


def test_what_is_no_answer_is_wrong_before_any_judge_sees_it() -> None:
    assert is_no_answer("().__class__", "5")
    assert is_no_answer("1" * (LONGEST + 1), "5")
    assert not is_no_answer("1" * (LONGEST + 1), "1" * LONGEST)
    item = first_of(make_task("reasoning-gym", dataset="chain_sum", max_new_tokens=64))
    scorer = GymScorer()
    score = scorer.score(item, NO_MAPPING, "1" * (LONGEST + 1))
    assert (score.outcome, score.valid) == ("wrong", True)
    assert scorer.guard is None


@pytest.mark.parametrize("dataset", ["family_relationships", "number_sorting", "sudoku", "spiral_matrix"])
def test_judges_say_what_they_say_here(dataset: str, scorer: GymScorer) -> None:
    """Entries hold tuples and objects, which come through to the other process as they are."""
    from reasoning_gym import create_dataset

    task = make_task("reasoning-gym", dataset=dataset, max_new_tokens=64)
    for item in draw_items(task.source, 3, split="test", variant=task.variants[0]).items:
        here = create_dataset(item.dataset, **item.settings)
        for answer in (str(item.entry["answer"]), "['1', '2']", "1 2 3"):
            right = here.score_answer(answer, item.entry) >= 1
            assert scorer.score(item, NO_MAPPING, answer).success == right


def test_replies_may_be_as_long_as_answers_are() -> None:
    short = make_task("reasoning-gym", dataset="chain_sum")
    assert (short.max_new_tokens, short.longest_thought, short.notes) == (64, 256, ())
    long = make_task("reasoning-gym", dataset="game_of_life")
    answer = len(first_of(long).entry["answer"])
    assert long.longest_thought >= long.max_new_tokens > answer
    assert make_task("reasoning-gym", dataset="futoshiki").notes[0].startswith("Replies are cut off after ")
    given = make_task("reasoning-gym", dataset="chain_sum", max_new_tokens=2000)
    assert (given.max_new_tokens, given.longest_thought) == (2000, 2000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": "abc"}, "max_new_tokens must be a whole number from 1 on, got 'abc'"),
        ({"max_new_tokens": 0}, "got 0"),
        ({"max_new_tokens": 2.5}, "got 2.5"),
        ({"config": "abc"}, "config must name settings of chain_sum, .* got 'abc'"),
        ({"harder": ["a"]}, "harder must name settings"),
        ({"harder": {"a/b": {"min_terms": 3}}}, "the name 'a/b' cannot be that of a file"),
        ({"harder": {"terms": 3}}, "chain_sum refuses its settings"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhatStuckError, match=message) as caught:
        make_task("reasoning-gym", dataset="chain_sum", **options)
    assert "\n" not in str(caught.value)
