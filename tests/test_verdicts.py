"""Which rows are asked, what their answers amount to, and what that says of all rows."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import helpers
from asked_rows import made
from whatstuck.errors import WhatStuckError
from whatstuck.models import load_model, load_tokenizer
from whatstuck.models.generating import seed_of
from whatstuck.progress import Task
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import PAPER_CHOICE, Thresholds
from whatstuck.rows.verdicts import replies
from whatstuck.rows.verdicts.answers import find_checker
from whatstuck.rows.verdicts.asking import Asked, ask
from whatstuck.rows.verdicts.intervals import wilson
from whatstuck.rows.verdicts.replies import Question, Respondent
from whatstuck.rows.verdicts.rule import judge, miss_rate, share_unlearned
from whatstuck.rows.verdicts.screening import screen

DEFAULT = Thresholds()
CHECK = find_checker("auto")


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PreTrainedModel:
    return load_model(tiny_base)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def rows(tokenizer: PreTrainedTokenizerBase) -> list[TrainingRow]:
    """Rows of the fine-tuning rule: the base model, trained on the world, knows some and not others."""
    return [made(tokenizer, row["prompt"], row["completion"]) for row in helpers.rows(24, seed=21)]


# --- the screen


def test_screen_says_why() -> None:
    ids = [f"r{i}" for i in range(100)]
    nll = [0.1 + 0.001 * i for i in range(100)]  # median 0.1495, MAD 0.025
    accuracy: list[float | None] = [1.0] * 100
    nll[99], accuracy[3], accuracy[4], accuracy[5] = 0.2001, 0.89, None, math.nan
    small = Thresholds(audit_least=0)
    found = screen(ids, nll, accuracy, [1] * 100, small, not_trained={"r7", "r3"}, seed=0)
    assert [i for i, why in enumerate(found) if why == "not_trained"] == [3, 7]
    assert [i for i, why in enumerate(found) if why == "screen"] == [4, 5, 99]
    assert found.count("audit") == 5  # a twentieth of 95, rounded up
    assert screen(ids, nll, accuracy, [1] * 100, DEFAULT, not_trained={"r7", "r3"}, seed=0).count("audit") == 30
    assert screen(ids, [None, *nll[1:]], accuracy, [1] * 100, DEFAULT, seed=0)[0] == "screen"


def test_screen_where_most_rows_have_one_loss() -> None:
    """The median absolute deviation is zero: rounding alone must not make every other row stand out."""
    nll = [0.1] * 60 + [0.1 + 1e-9] * 37 + [3.0, 4.0, 5.0]
    found = screen([str(i) for i in range(100)], nll, [1.0] * 100, [1] * 100, Thresholds(audit_share=0.0), seed=0)
    assert [i for i, why in enumerate(found) if why] == [97, 98, 99]
    assert screen(["a", "b"], [0.0, 0.0], [1.0, 1.0], [1, 1], Thresholds(audit_share=0.0), seed=0) == ["", ""]


def test_a_short_answer_that_is_unlikely_as_a_whole_is_asked() -> None:
    """Most rows are unsure, so none of them stands out; of long answers the whole says nothing."""
    ids, quiet = [f"r{i}" for i in range(20)], Thresholds(audit_share=0.0)
    for tokens, probability, why in ((3, 0.7, "screen"), (3, 0.85, ""), (40, 0.2, "")):
        nll = [-math.log(probability) / tokens] * 20
        assert set(screen(ids, nll, [1.0] * 20, [tokens] * 20, quiet, seed=0)) == {why}
    off = quiet.model_copy(update={"screen_likely": 0.0})
    assert set(screen(ids, [1.0] * 20, [1.0] * 20, [3] * 20, off, seed=0)) == {""}


def test_audit_depends_on_seed_and_ids_alone() -> None:
    ids = [f"r{i}" for i in range(200)]
    first = screen(ids, [0.1] * 200, [1.0] * 200, [1] * 200, DEFAULT, seed=1)
    back = screen(ids[::-1], [0.1] * 200, [1.0] * 200, [1] * 200, DEFAULT, seed=1)[::-1]
    assert first == back
    assert first.count("audit") == 30
    assert screen(ids * 4, [0.1] * 800, [1.0] * 800, [1] * 800, DEFAULT, seed=1).count("audit") == 40
    assert screen(ids, [0.1] * 200, [1.0] * 200, [1] * 200, DEFAULT, seed=2) != first
    assert screen(["a"], [0.1], [1.0], [1], DEFAULT, seed=1) == ["audit"]  # all, if so few are left
    assert screen([], [], [], [], DEFAULT, seed=1) == []
    assert screen(["a"], [math.nan], [1.0], [1], DEFAULT, seed=1) == ["screen"]


# --- the rule


def generated(right: int, samples: int, *, greedy: bool, first: int) -> Asked:
    rate = wilson(right, samples)
    return Asked("r", "generated", samples, right, first, greedy, rate.value, rate.low, rate.high)


@pytest.mark.parametrize(
    ("right", "samples", "first", "greedy", "verdict", "paper"),
    [
        (0, 16, 0, False, "unlearned", True),
        (0, 16, 0, True, "unstable", True),
        (1, 16, 0, False, "unstable", True),  # the paper's rule stops before it
        (1, 16, 1, False, "unstable", False),
        (2, 5, 2, True, "unstable", False),
        (4, 5, 4, True, "learned", False),
        (5, 5, 5, False, "unstable", False),  # the most likely answer is wrong
        (3, 5, 3, True, "unstable", False),
        (13, 16, 1, True, "learned", False),
    ],
)
def test_verdicts_of_draws(right: int, samples: int, first: int, greedy: bool, verdict: str, paper: bool) -> None:  # noqa: FBT001 - cases
    judged = judge(generated(right, samples, greedy=greedy, first=first), DEFAULT)
    assert (judged.verdict, judged.paper_unlearned) == (verdict, paper)


@pytest.mark.parametrize(
    ("p", "greedy", "verdict", "paper"),
    [
        (0.05, False, "unlearned", True),
        (0.1289, False, "unlearned", True),
        (0.1295, False, "unstable", False),  # (1 - p)^5 is 0.5 at 0.1294
        (0.25, False, "unstable", False),
        (0.7, True, "unstable", False),
        (0.81, True, "learned", False),
    ],
)
def test_verdicts_of_choices(p: float, greedy: bool, verdict: str, paper: bool) -> None:  # noqa: FBT001 - cases
    judged = judge(Asked("r", "choices", greedy_right=greedy, rate=p, rate_low=p, rate_high=p, letters=p), DEFAULT)
    assert (judged.verdict, judged.paper_unlearned) == (verdict, paper)


def test_what_is_recited_is_learned_whatever_the_choice_says() -> None:
    """The paper's rule looks at the letters alone, which may be at chance for an answer that is known by heart."""
    recited = Asked("r", "choices", greedy_right=True, rate=0.6, recited=True, letters=0.1)
    assert judge(recited, DEFAULT).verdict == "learned"
    assert judge(recited, DEFAULT).paper_unlearned is True
    assert judge(replace(recited, rate=math.nan, letters=math.nan), DEFAULT).verdict == "learned"
    assert judge(replace(recited, recited=False), DEFAULT).verdict == "unstable"
    unlearned = judge(replace(recited, rate=0.1, recited=False, greedy_right=False, letters=math.nan), DEFAULT)
    assert (unlearned.verdict, unlearned.paper_unlearned) == ("unlearned", None)


def test_one_number_stands_for_five_wrong_letters() -> None:
    assert 0.129 < PAPER_CHOICE < 0.1295
    assert DEFAULT.choice_unlearned == PAPER_CHOICE
    edge = Asked("r", "choices", greedy_right=False, rate=0.1292, letters=0.1292)
    judged = judge(edge, DEFAULT)
    assert (judged.verdict, judged.paper_unlearned) == ("unlearned", True)


def test_what_could_not_be_asked_has_no_verdict_but_a_reason() -> None:
    judged = judge(Asked("r", "choices", unavailable="too long"), DEFAULT)
    assert (judged.verdict, judged.paper_unlearned, judged.reason) == ("not_asked", None, "too long")


@pytest.mark.parametrize(("p", "flagged"), [(0.05, 0.774), (0.129, 0.5), (0.25, 0.237), (0.4, 0.078), (0.7, 0.002)])
def test_the_papers_rule_flags_what_it_should(p: float, flagged: float) -> None:
    """(1 - p)^5, as a share of simulated rows: what five draws say of a row that is right with probability p."""
    draws = np.random.default_rng(5).random((20_000, 5)) < p
    judged = [
        judge(generated(int(row.sum()), 5, greedy=True, first=int(row.sum())), DEFAULT).paper_unlearned for row in draws
    ]
    assert np.mean(judged) == pytest.approx(flagged, abs=0.012)


def test_intervals() -> None:
    assert [round(wilson(0, n).high, 3) for n in (5, 10, 16, 20)] == [0.434, 0.278, 0.194, 0.161]
    assert (wilson(0, 5).low, wilson(5, 5).high) == (0.0, 1.0)
    both = wilson(3, 10), wilson(7, 10)
    assert both[0].low == pytest.approx(1 - both[1].high)
    assert math.isnan(miss_rate([]).value)
    assert miss_rate([True, False, False, False]).value == 0.25


def test_share_of_all_rows() -> None:
    # 30 asked for a reason, 12 of them unlearned; 1 of 20 in the audit; 150 passed over
    found = share_unlearned([True] * 12 + [False] * 18, [True] + [False] * 19, 150)
    assert found.value == pytest.approx((12 + 1 + 150 / 20) / 200)
    missed = miss_rate([True] + [False] * 19)
    assert (found.low, found.high) == pytest.approx(((13 + 150 * missed.low) / 200, (13 + 150 * missed.high) / 200))
    known = share_unlearned([True, False], [], 0)
    assert (known.value, known.low, known.high) == (0.5, 0.5, 0.5)
    blind = share_unlearned([True, False], [], 2)
    assert math.isnan(blind.value)
    assert (blind.low, blind.high) == (0.25, 0.75)
    assert math.isnan(share_unlearned([], [], 0).value)


def test_the_interval_of_the_share_holds_the_truth() -> None:
    random = np.random.default_rng(6)
    inside = 0
    for _ in range(300):
        missed = random.random(1000) < 0.08  # of the rows that pass the screen
        audited = random.permutation(missed)[:50]
        share = share_unlearned([True] * 40, list(audited), 950)
        inside += share.low <= (40 + missed.sum()) / 1040 <= share.high
    assert inside / 300 > 0.93


# --- asking


def test_two_stages_equal_one(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    two = ask(model, tokenizer, rows, CHECK, DEFAULT, seed=3)
    one = ask(model, tokenizer, rows, CHECK, Thresholds(first_samples=16), seed=3)
    five = ask(model, tokenizer, rows, CHECK, Thresholds(samples=5), seed=3)
    assert {asked.samples for asked in two} == {5, 16}
    for row, staged, whole, few in zip(rows, two, one, five, strict=True):
        assert staged.row_id == row.row_id
        assert staged.first_right == few.right == few.first_right
        assert (staged.greedy, staged.greedy_right) == (whole.greedy, whole.greedy_right)
        if few.right <= 1:
            assert replace(staged, first_right=None) == replace(whole, first_right=None)
        else:
            assert staged == few
    assert len({judge(asked, DEFAULT).verdict for asked in two}) == 3


def test_a_rows_answers_do_not_depend_on_the_rows_beside_it(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    together = ask(model, tokenizer, rows, CHECK, DEFAULT, seed=3)
    assert [ask(model, tokenizer, [row], CHECK, DEFAULT, seed=3)[0] for row in rows[:4]] == together[:4]
    assert ask(model, tokenizer, rows, CHECK, DEFAULT, seed=4) != together
    assert ask(model, tokenizer, [], CHECK, DEFAULT, seed=3) == []


def test_rates_are_those_of_the_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    """An answer is right with the probability of the gold and then the end; the bound is four standard errors."""
    many = Thresholds(samples=3000, first_samples=3000, temperature=1.0)
    for row, asked in zip(rows[:3], ask(model, tokenizer, rows[:3], CHECK, many, seed=0), strict=True):
        ids = torch.tensor([[*row.prompt_ids, *row.target_ids]])
        with torch.inference_mode():
            logs = model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 :].double().log_softmax(-1)
        p = math.exp(sum(float(logs[i, token]) for i, token in enumerate((*row.target_ids, 3))))
        assert asked.rate == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 3000) + 1e-3)
        assert asked.rate_low < asked.rate < asked.rate_high


def test_the_most_frequent_wrong_answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    respondent = Respondent(model, tokenizer, "auto")
    for row, asked in zip(rows, ask(model, tokenizer, rows, CHECK, Thresholds(first_samples=16), seed=3), strict=True):
        question = Question(row.row, row.prompt_ids, len(row.target_ids), seed_of(3, row.row_id))
        [reply] = respondent.replies([question], samples=16, temperature=0.7)
        wrong = Counter(text for text in reply.drawn if text != row.row.completion)
        assert asked.right == 16 - wrong.total()
        assert asked.greedy == reply.greedy
        assert asked.greedy_right == (reply.greedy == row.row.completion)
        assert wrong[asked.top_wrong] == max(wrong.values(), default=0) == 16 * asked.top_wrong_share


def test_rows_longer_than_the_context_are_not_asked(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    long = made(tokenizer, "word " * 300, "glad")
    with Task("asking", 3) as progress:
        first, asked, last = ask(model, tokenizer, [rows[0], long, rows[1]], CHECK, DEFAULT, seed=3, progress=progress)
        assert progress._done == 3
    assert "longer than the context" in asked.unavailable
    assert math.isnan(asked.rate)
    assert [first, last] == ask(model, tokenizer, rows[:2], CHECK, DEFAULT, seed=3)
    endless = made(tokenizer, "word " * 300, "a long answer of several words")
    [asked] = ask(model, tokenizer, [endless], CHECK, Thresholds(longest_answer=2), others=rows, seed=3)
    assert "longer than the context" in asked.unavailable


def test_a_judge_hears_long_answers_in_the_models_own_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """A worked solution is right in many wordings; without a judge of wordings it is a choice."""
    long = made(tokenizer, "How does Mara feel?", "glad " * 40)
    file = tmp_path / "judge.py"
    file.write_text("def lenient(row, answer): return True\n", encoding="utf-8")
    for name, form, right in (
        (f"{file}:lenient", "generated", 5),
        ("contains", "generated", 0),
        ("exact", "choices", 0),
    ):
        [asked] = ask(model, tokenizer, [long], find_checker(name), DEFAULT, others=[long], seed=3)
        assert (asked.form, asked.right) == (form, right)
    short = Thresholds(longest_verifiable=20)
    [asked] = ask(model, tokenizer, [long], find_checker("contains"), short, others=[long], seed=3)
    assert asked.form == "choices"


def test_a_failing_judge_names_the_row(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow], tmp_path: Path
) -> None:
    file = tmp_path / "judge.py"
    file.write_text("def fails(row, answer): return {}[answer]\n", encoding="utf-8")
    with pytest.raises(WhatStuckError, match=f"row {rows[0].row_id}: KeyError"):
        ask(model, tokenizer, rows[:2], find_checker(f"{file}:fails"), DEFAULT, seed=3)


# --- where an answer ends


def test_ends_of_answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    respondent = Respondent(model, tokenizer, "auto")
    plain = Respondent(model, tokenizer, "never")
    row, two_lines = (made(tokenizer, "How?", text).row for text in ("glad", "glad\nsad"))
    breaks = {token for token in range(len(tokenizer)) if "\n" in tokenizer.decode([token])}
    assert breaks
    assert respondent._stops(row) == {3}
    assert plain._stops(row) == {3, *breaks}
    assert plain._stops(two_lines) == {3}

    def said(text: str, stopped_by: int | None) -> replies.Continuation:
        return replies.Continuation(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), stopped_by)

    line = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    assert plain._text(row, said(" glad", line)) == "glad"
    assert plain._text(row, said(" glad\nmore", None)) == "glad"
    assert plain._text(two_lines, said(" glad\nsad", 3)) == "glad\nsad"
    assert respondent._text(row, said("glad\nmore", 3)) == "glad\nmore"


def test_an_end_of_turn_of_several_tokens_is_found_in_the_text(model: PreTrainedModel, tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    tokenizer.chat_template = helpers.CHAT_TEMPLATE.replace("eos_token if", "' ###' if")
    respondent = Respondent(model, tokenizer, "auto")
    row = made(tokenizer, "How?", "glad").row
    ids = tuple(tokenizer("glad ### and so on", add_special_tokens=False)["input_ids"])
    assert respondent._text(row, replies.Continuation(ids, None)) == "glad"


def test_plain_rows_end_at_a_line_break(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    plain = [
        made(tokenizer, row["prompt"], row["completion"], chat_template="never") for row in helpers.rows(6, seed=22)
    ]
    for row, asked in zip(
        plain, ask(model, tokenizer, plain, CHECK, DEFAULT, seed=0, chat_template="never"), strict=True
    ):
        assert row.rendered.target_text == f" {row.row.completion}"
        assert asked.greedy in helpers.FEELINGS
