"""Arms of data: the same contents in the same order, and nothing but the mapping and the thought between them."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from whatstuck.datasets import read_rows
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.arms import ARMS, fixed_mappings, make_arm, write_arm
from whatstuck.generalization.drawing import draw_items, side
from whatstuck.generalization.mapping import NO_MAPPING, InstructionMapping
from whatstuck.generalization.registry import make_task, task, task_names
from whatstuck.generalization.task import Task

SOKOBAN = make_task("sokoban")
POINTS = make_task("general-points")
TASKS = {"sokoban": {}, "general-points": {}, "micro-points": {}}
COUNT = 300


class Thoughtless:
    """Writes the same reply with and without a thought."""

    def __init__(self, demonstrator: Any) -> None:
        self.demonstrator = demonstrator

    def reply(self, item: Any, shown: InstructionMapping, *, thought: bool) -> str:
        del thought
        return str(self.demonstrator.reply(item, shown, thought=False))


def made(name: str, arm: str, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    found = make_arm(make_task(name, **options), arm, COUNT, seed=3)
    return found.rows, found.manifest


@pytest.mark.parametrize("name", ["sokoban", "general-points"])
def test_arms_differ_in_nothing_but_mapping_and_thought(name: str) -> None:
    arms = {arm: made(name, arm, thought="thought" in arm) for arm in ARMS}
    task = make_task(name)
    frozen = arms["frozen"][0]
    for arm, (rows, manifest) in arms.items():
        assert [row["content"] for row in rows] == [row["content"] for row in frozen]
        assert [row["row_id"] for row in rows] == [row["row_id"] for row in frozen]
        assert manifest["contents_sha256"] == arms["frozen"][1]["contents_sha256"]
        assert manifest["rows"] == len(rows) == COUNT
        assert manifest["arm"] == arm
        assert manifest["thought"] == ("thought" in arm)
        assert sum(mapping["rows"] for mapping in manifest["mappings"]) == COUNT
    assert len({manifest["rows_sha256"] for _, manifest in arms.values()}) == len(arms)
    assert {row["mapping"] for row in frozen} == {task.training.name}
    for answers, thoughts in (("frozen", "thought"), ("diverse", "diverse-thought")):
        for row, other in zip(arms[answers][0], arms[thoughts][0], strict=True):
            assert row["prompt"] == other["prompt"]
            reply, thought = (one["completion"][0]["content"] for one in (row, other))
            assert thought.startswith("<think> ")
            assert thought.endswith(f"</think> {reply}")
    for row, other in zip(frozen, arms["diverse"][0], strict=True):
        assert row["mapping"] != other["mapping"]
        lines = [one["prompt"][0]["content"].splitlines() for one in (row, other)]
        assert sum(line not in lines[1] for line in lines[0]) <= 1  # the line about words, or about faces


@pytest.mark.parametrize("name", TASKS)
def test_what_is_trained_is_right_and_no_test_content(name: str) -> None:
    task = make_task(name)
    for arm in ("frozen", "diverse", "k8"):
        rows, _ = made(name, arm)
        assert {side(row["content"]) for row in rows} == {"train"}
        assert len({row["content"] for row in rows}) > 60
    trained = {row["content"] for row in made(name, "diverse")[0]}
    for variant in task.variants[:4]:
        drawn = draw_items(task.source, 100, split="test", variant=variant, seed=3)
        assert not trained & {task.source.key(content) for content in drawn.contents}


def test_an_example_is_the_same_in_every_arm_but_for_the_mapping() -> None:
    """A hand without a face has the same target in every arm; the others where it can be reached."""
    cards = make_task("general-points", cards=3, target="variable")
    frozen, *others = (make_arm(cards, arm, 200).rows for arm in ("frozen", "diverse", "k4"))
    for rows in others:
        assert [row["content"] for row in rows] == [row["content"] for row in frozen]
        plain = [index for index, row in enumerate(rows) if not {"11", "12", "13"} & set(row["content"].split())]
        assert len(plain) > 50
        assert all(rows[i]["completion"] == frozen[i]["completion"] for i in plain)


def test_every_step_of_a_room_is_an_example() -> None:
    rows, manifest = made("sokoban", "frozen")
    prompts = {row["prompt"][0]["content"] for row in rows}
    drawn = draw_items(SOKOBAN.source, 20, split="train", variant=SOKOBAN.variants[0], seed=3, distinct=False)
    for room in drawn.contents:  # the first rooms drawn are whole in the arm
        for moment in SOKOBAN.source.unroll(room):
            assert SOKOBAN.prompts["training"].render(moment, SOKOBAN.training) in prompts
    assert manifest["contents"] < len(prompts)
    order = [row["content"] for row in rows]
    assert sum(a == b for a, b in pairwise(order)) < COUNT / 10  # steps do not come in a row


def test_an_unsolvable_mapping_is_drawn_again_and_the_hand_stays() -> None:
    frozen, _ = made("general-points", "frozen")
    for arm in ("diverse", "k4", "paper"):
        rows, manifest = made("general-points", arm)
        assert manifest["unsolvable_mappings"] > 0
        assert [row["content"] for row in rows] == [row["content"] for row in frozen]
        for row in rows:
            answer = POINTS.parser.parse(row["completion"][0]["content"])
            assert answer is not None
            assert sorted(row["content"].split()) == sorted(_ranks(row))
    assert made("general-points", "frozen")[1]["unsolvable_mappings"] == 0


def _ranks(row: Mapping[str, Any]) -> list[str]:
    cards = json.loads(row["completion"][0]["content"])["cards"]
    return [{"A": "1", "J": "11", "Q": "12", "K": "13"}.get(card, card) for card in cards]


def test_fixed_mappings_are_nested_and_begin_with_that_of_the_training() -> None:
    lists = {count: fixed_mappings(POINTS, count, seed=5) for count in (1, 2, 4, 8, 100)}
    for fewer, more in ((1, 2), (2, 4), (4, 8), (8, 100)):
        assert lists[more][:fewer] == lists[fewer]
    assert lists[1] == (POINTS.training,)
    assert len({mapping.pairs for mapping in lists[100]}) == 100
    assert fixed_mappings(POINTS, 8, seed=6) != lists[8]
    rows, manifest = made("general-points", "k8")
    assert {row["mapping"] for row in rows} == {mapping.name for mapping in fixed_mappings(POINTS, 8, seed=3)}
    assert made("general-points", "k1")[0] == made("general-points", "frozen")[0]
    assert len(manifest["mappings"]) == 8


def test_the_diverse_arm_holds_no_mapping_of_a_test_nor_that_of_the_training() -> None:
    for name in TASKS:
        task = make_task(name)
        _, manifest = made(name, "diverse")
        meanings = {tuple(mapping["meanings"].values()) for mapping in manifest["mappings"]}
        assert len(meanings) > COUNT / 3
        held_out = {variant.shown.meanings for variant in task.variants if variant.kind == "instruction"}
        assert not meanings & {*held_out, task.training.meanings}


def test_the_papers_list_is_drawn_as_it_stands() -> None:
    rows = make_arm(make_task("micro-points"), "paper", 2000).rows
    shares = Counter(row["mapping"] for row in rows)
    assert len(shares) == 7
    assert 1.5 < shares["8_9_10"] / shares["all_8"] < 2.6  # it stands there twice


def test_the_same_seed_gives_the_same_rows() -> None:
    one, two, other = (make_arm(POINTS, "diverse", 50, seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert one.manifest["contents_sha256"] != other.manifest["contents_sha256"]


def test_arms_are_files_that_trainers_and_we_can_read(tmp_path: Path) -> None:
    path = tmp_path / "diverse.jsonl"
    manifest = write_arm(path, SOKOBAN, "diverse", 40, seed=3)
    assert json.loads((tmp_path / "diverse.manifest.json").read_text(encoding="utf-8")) == manifest
    rows = read_rows(path)
    expected = make_arm(SOKOBAN, "diverse", 40, seed=3).rows
    assert [row.row_id for row in rows] == [row["row_id"] for row in expected]
    assert [row.content for row in rows] == [row["prompt"][0]["content"] for row in expected]
    assert [row.completion for row in rows] == [row["completion"][0]["content"] for row in expected]
    before = path.read_bytes()
    write_arm(path, SOKOBAN, "diverse", 40, seed=3)
    assert path.read_bytes() == before
    with pytest.raises(WhatStuckError, match=r"ends in \.jsonl"):
        write_arm(tmp_path / "arm.json", SOKOBAN, "frozen", 4)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("both", "unknown arm 'both': use frozen"),
        ("k0", "unknown arm 'k0'"),
        ("paper", "sokoban has no fixed list"),
        ("thought", "make the task with thought=True"),
    ],
)
def test_arms_that_cannot_be_are_refused(arm: str, message: str) -> None:
    with pytest.raises(WhatStuckError, match=message):
        make_arm(SOKOBAN, arm, 4)


def test_what_a_task_lacks_is_said() -> None:
    bare = replace(SOKOBAN, random_mapping=None)
    with pytest.raises(WhatStuckError, match="nothing can be mapped in sokoban"):
        make_arm(bare, "diverse", 4)
    with pytest.raises(WhatStuckError, match="nothing can be mapped in sokoban"):
        make_arm(bare, "k2", 4)
    assert len(make_arm(bare, "frozen", 4).rows) == 4
    with pytest.raises(WhatStuckError, match="no solver writes replies for sokoban"):
        make_arm(replace(SOKOBAN, demonstrator=None), "frozen", 4)
    two = replace(SOKOBAN, random_mapping=lambda _: SOKOBAN.variants[1].shown)
    with pytest.raises(WhatStuckError, match="only 2 different mappings"):
        make_arm(two, "k3", 4)
    with pytest.raises(WhatStuckError, match="at least one example"):
        make_arm(SOKOBAN, "frozen", 0)
    with pytest.raises(WhatStuckError, match="make the task with thought=False"):
        make_arm(make_task("sokoban", thought=True), "frozen", 4)


@pytest.mark.parametrize("arm", ["thought", "diverse-thought", "k2-thought", "paper-thought"])
def test_a_thought_that_is_none_makes_no_arm(arm: str) -> None:
    """The rows would be those of another arm."""
    task = make_task("micro-points")
    with pytest.raises(WhatStuckError, match="the same with and without a thought") as caught:
        make_arm(replace(task, demonstrator=Thoughtless(task.demonstrator)), arm, 20)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arm"), [("sokoban", "diverse"), ("general-points", "k4"), ("micro-points", "frozen")]
)
def test_an_arm_knows_the_item_of_every_row(name: str, arm: str) -> None:
    task = make_task(name)
    found = make_arm(task, arm, 40, seed=2)
    assert len(found.posed) == len(found.rows)
    for row, (item, mapping) in zip(found.rows, found.posed, strict=True):
        assert row["prompt"][0]["content"] == task.prompts["training"].render(item, mapping)
        assert row["mapping"] == mapping.name
        answer = task.parser.parse(row["completion"][0]["content"])
        assert task.scorer.score(item, mapping, answer).success


def test_a_hand_that_no_mapping_of_an_arm_solves_is_said() -> None:
    hopeless = replace(POINTS, random_mapping=lambda _: replace(POINTS.training, name="zeros", pairs=_zeros()))
    with pytest.raises(WhatStuckError, match="cannot be solved under any mapping of this arm"):
        make_arm(hopeless, "diverse", 200)


def _zeros() -> tuple[tuple[str, str], ...]:
    return tuple((name, "0") for name in POINTS.training)


# --- the tables of tasks


def test_tasks_are_found_by_name_and_one_decorator_adds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"sokoban", "general-points", "reasoning-gym"} <= set(task_names())
    monkeypatch.setattr("whatstuck.generalization.registry._MAKERS", {})

    @task("coin")
    def coin(*, sides: int = 2) -> Task[Any, Any, Any]:
        return replace(SOKOBAN, name=f"coin of {sides}")

    assert make_task("coin", sides=3).name == "coin of 3"
    with pytest.raises(WhatStuckError, match="unknown task 'dice': use coin"):
        make_task("dice")


# --- reasoning-gym


def gym(**options: Any) -> Task[Any, Any, Any]:
    pytest.importorskip("reasoning_gym")
    return make_task("reasoning-gym", **options)


def test_gym_tasks_are_asked_demonstrated_and_scored() -> None:
    harder = {"min_family_size": 9, "max_family_size": 12}
    task = gym(dataset="family_relationships", config={"max_family_size": 5}, harder=harder)
    assert [variant.name for variant in task.variants] == ["ID", "Harder"]
    sizes = {}
    for variant in task.variants:
        drawn = draw_items(task.source, 30, split="test", variant=variant)
        sizes[variant.name] = {item.entry["metadata"]["family_size"] for item in drawn.items}
        for item in drawn.items:
            assert item.entry["question"] in task.prompts["training"].render(item, NO_MAPPING)
            reply = task.demonstrator.reply(item, NO_MAPPING, thought=False)
            assert task.scorer.score(item, NO_MAPPING, task.parser.parse(reply)).outcome == "right"
            assert task.scorer.score(item, NO_MAPPING, "stranger").outcome == "wrong"
    assert max(sizes["ID"]) <= 5
    assert min(sizes["Harder"]) >= 9
    rows = make_arm(task, "frozen", 50).rows
    assert {side(row["content"]) for row in rows} == {"train"}
    with pytest.raises(WhatStuckError, match="without a solver's thought"):
        make_arm(task, "thought", 1)
    with pytest.raises(WhatStuckError, match="nothing can be mapped"):
        make_arm(task, "diverse", 1)


def test_several_harder_cases_have_their_own_names() -> None:
    task = gym(dataset="chain_sum", harder={"Four": {"min_terms": 4, "max_terms": 4}, "Six": {"min_terms": 6}})
    assert [(variant.name, variant.kind) for variant in task.variants[1:]] == [("Four", "harder"), ("Six", "harder")]
    item = draw_items(task.source, 1, split="test", variant=task.variants[1]).items[0]
    assert item.entry["question"].count("+") + item.entry["question"].count("-") >= 3


def test_gym_settings_that_are_wrong_are_refused() -> None:
    with pytest.raises(WhatStuckError, match="no data set 'families'"):
        gym(dataset="families")
    with pytest.raises(WhatStuckError, match="chain_sum refuses its settings"):
        gym(dataset="chain_sum", config={"terms": 3})
    with pytest.raises(WhatStuckError, match="task 'reasoning-gym'"):
        gym()
