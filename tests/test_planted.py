"""The planted benchmark plants what it says, and counts what it should."""

import dataclasses
import importlib
import itertools
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from whatstuck.rows.causes.names import PRECEDENCE

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = (
    "planted_world",
    "planted_plants",
    "planted_training",
    "planted_scores",
    "planted_diagnosis",
    "planted_matrix",
    "planted_causes",
)


@pytest.fixture(scope="module")
def modules() -> Any:
    """The scripts, which are no package."""
    sys.path.insert(0, str(BENCHMARKS))
    yield {name: importlib.import_module(name) for name in NAMES}
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def planting(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["planted_world"]


@pytest.fixture(scope="module")
def plants(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["planted_plants"]


@pytest.fixture(scope="module")
def training(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["planted_training"]


@pytest.fixture(scope="module")
def scores(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["planted_scores"]


@pytest.fixture(scope="module")
def world(plants: ModuleType) -> Any:
    return plants.make_world(3, plants.Sizes(clean=8, planted=8, known=4, exposures=4))


@pytest.fixture(scope="module")
def tiny(modules: dict[str, ModuleType]) -> Any:
    """A whole experiment, far too short to learn anything."""
    causes, planting, training = (modules[name] for name in ("planted_causes", "planted_world", "planted_training"))
    torch.set_num_threads(1)
    recipe = training.Recipe(width=16, layers=1, base_steps=20, base_batch=16)
    it = causes.experiment(3, planting.Sizes(clean=4, planted=4, known=2, exposures=2), recipe)
    causes.confirm(it, recipe)
    return it, recipe


# --- the world


def test_world_depends_on_its_seed_alone(plants: ModuleType, world: Any) -> None:
    assert plants.make_world(3, plants.Sizes(clean=8, planted=8, known=4, exposures=4)) == world
    other = plants.make_world(4, plants.Sizes(clean=8, planted=8, known=4, exposures=4))
    assert not {row.prompt for row in other.rows} & {row.prompt for row in world.rows}


def test_an_entity_belongs_to_one_plant(world: Any) -> None:
    roles: dict[str, set[str]] = {}
    for row in world.rows:
        roles.setdefault(row.fact.entity, set()).add(row.role)
    assert all(len(found) == 1 for found in roles.values())
    planted = {cause for row in world.rows for cause in row.causes}
    assert planted == {*PRECEDENCE, "unexplained"}


def test_conflicting_rows_oppose_each_other_and_agreeing_ones_do_not(world: Any) -> None:
    answers: dict[str, set[str]] = {}
    for row in world.rows:
        answers.setdefault(row.fact.entity, set()).add(row.fact.value)
    for row in world.rows:
        assert len(answers[row.fact.entity]) == (2 if "data_conflict" in row.causes else 1)


@pytest.mark.parametrize("cause", [*PRECEDENCE, "unexplained"])
def test_without_changes_that_plant_only(planting: ModuleType, world: Any, cause: str) -> None:
    cured = planting.without(world, cause, "a")
    before = {row.row_id: row for row in world.rows}
    changed = {row.row_id for row in cured.rows if row != before[row.row_id]}
    gone = before.keys() - {row.row_id for row in cured.rows}
    of_cause = {row_id for row_id, row in before.items() if cause in row.causes}
    regularity = {row_id for row_id, row in before.items() if row.role == "regularity"}
    assert gone == (
        regularity
        if cause == "unexplained"
        else {i for i in of_cause if before[i].side == "b"}
        if cause == "data_conflict"
        else set()
    )
    assert changed <= of_cause
    assert (cured.mentions != world.mentions) == (cause in {"base_conflict", "knowledge_missing"})
    assert cured.words == world.words  # so that tokens and first weights stay


def test_base_conflict_is_cured_by_the_right_value(planting: ModuleType, world: Any) -> None:
    facts = {row.fact for row in world.rows if row.role == "base_conflict"}
    wrong = [mention for mention in world.mentions if mention.plant == "base_conflict"]
    assert facts
    assert not facts & {mention.fact for mention in wrong}
    cured = planting.without(world, "base_conflict")
    told = {mention.fact for mention in cured.mentions if mention.cure is None and mention.plant is None}
    assert facts <= told
    assert not {mention.fact for mention in wrong} & {mention.fact for mention in cured.mentions}


# --- feeding and order


def test_only_plants_fail_gate_0(modules: dict[str, ModuleType], training: ModuleType, world: Any) -> None:
    tokenizer = training.make_tokenizer(world)
    rows = modules["planted_diagnosis"].gated(training.training_rows(world, tokenizer), tokenizer, 128)
    problems = {row.row_id: {test.problem for test in row.not_trained} for row in rows}
    expected = {"cut": {"nothing_supervised"}, "masked": {"answer_masked"}, "dropped": {"dropped"}, "whole": set()}
    for planted in world.rows:
        assert problems[planted.row_id] == expected[planted.feed]
    longest = max(len(row.fed.ids) for row in rows if row.fed is not None)
    assert longest == modules["planted_world"].LONGEST
    assert any(len(row.fed.ids) > 30 and not row.not_trained for row in rows if row.fed is not None)


def test_schedule_keeps_windows_and_places(planting: ModuleType, training: ModuleType, world: Any) -> None:
    order = training.schedule(world, 0)
    by_id = {row.row_id: row for row in world.rows}
    for row_id, count in zip(*np.unique(order, return_counts=True), strict=True):
        assert count == by_id[row_id].exposures
    assert set(order) == {row.row_id for row in world.rows if row.feed != "dropped"}
    early = [place / len(order) for place, row_id in enumerate(order) if by_id[row_id].window == (0.0, 0.1)]
    assert max(early) < 0.3  # early rows are dense there, so their share of the steps is larger than the window
    cured = planting.without(world, "unexplained")
    left = {row.row_id for row in cured.rows}
    assert training.schedule(cured, 0) == [row_id for row_id in order if row_id in left]
    assert training.schedule(world, 1) != order


def test_the_base_model_reads_sentences_behind_each_other(training: ModuleType, world: Any) -> None:
    """As in a few-shot prompt: a line break of the product is the end of a sentence here."""
    tokenizer = training.make_tokenizer(world)
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    alone = training._Sentences(world, tokenizer, training.Recipe()).draw(12, long=False)
    packed = training._packed(alone, pad)
    assert packed[packed != pad].tolist() == alone[alone != pad].tolist()
    assert sorted((packed == end).sum(1)) == [6, 6]
    word = world.words[0]
    assert tokenizer(f"{word}\n{word}")["input_ids"] == tokenizer(f"{word} </s> {word}")["input_ids"]


def test_success_is_exact(training: ModuleType, world: Any) -> None:
    tokenizer = training.make_tokenizer(world)
    model = training.make_model(tokenizer, training.Recipe(width=16, layers=1), 0).eval()
    rows = training.training_rows(world, tokenizer)[:80]  # more than one batch
    found = training.success(model, rows, 0.7)
    for row in (rows[0], rows[-1]):
        ids = torch.tensor([[*row.prompt_ids, *row.target_ids]])
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, -2:].double()
        chance = torch.softmax(logits / 0.7, -1)
        expected = float(chance[0, row.target_ids[0]] * chance[1, tokenizer.eos_token_id])
        greedy = logits.argmax(-1).tolist() == [row.target_ids[0], tokenizer.eos_token_id]
        assert found[row.row_id] == (greedy, pytest.approx(expected, rel=1e-5))


# --- scores


def test_macro_f1_by_hand(scores: ModuleType) -> None:
    named = [
        scores.Named("a", "forgotten", "forgotten"),
        scores.Named("b", "forgotten", "base_conflict"),
        scores.Named("c", "base_conflict", "base_conflict"),
        scores.Named("d", "base_conflict", scores.LEARNED),  # not found: a miss, and no false alarm of any cause
    ]
    # forgotten: one hit of two, none wrong: 2/3; base conflict: one hit, two true, two said: 1/2
    assert float(scores.macro_f1(scores.confusion(named))) == pytest.approx((2 / 3 + 1 / 2) / 2)
    value, low, high = scores.score(named)
    assert low <= value <= high
    assert low < high
    assert float(scores.macro_f1(scores.confusion([]))) != float(scores.macro_f1(scores.confusion([])))  # NaN
    assert all(map(math.isnan, scores.score([])))


def test_rows_of_one_entity_are_drawn_together(scores: ModuleType) -> None:
    one = [scores.Named("x", "forgotten", "forgotten"), scores.Named("y", "base_conflict", "forgotten")]
    many = one * 50
    assert scores.score(many)[1:] == scores.score(one)[1:]
    apart = [dataclasses.replace(row, entity=f"{row.entity}{number}") for number, row in enumerate(many)]
    assert scores.score(apart).high - scores.score(apart).low < scores.score(many).high - scores.score(many).low


def test_majority_names_one_cause(scores: ModuleType) -> None:
    named = [scores.Named(str(i), "forgotten" if i else "base_conflict", "unexplained") for i in range(4)]
    assert {row.said for row in scores.majority(named)} == {"forgotten"}
    assert scores.majority([]) == []


def test_share_is_a_ratio_over_entities(scores: ModuleType) -> None:
    value, low, high = scores.share([True, False, True, True], [True, True, True, False], ["a", "b", "c", "c"])
    assert value == pytest.approx(2 / 3)
    assert low <= value <= high
    assert all(map(math.isnan, scores.share([], [], [])))


# --- all together


def test_a_plant_counts_only_if_it_is_confirmed(modules: dict[str, ModuleType], world: Any) -> None:
    causes = modules["planted_causes"]
    (row,) = itertools.islice((row for row in world.rows if row.role == "forgotten"), 1)
    for lost, again, cured in itertools.product([False, True], repeat=3):
        it = causes.Experiment(
            *(world, None, None, [], None),
            stuck={row.row_id: False},
            lost=frozenset([row.row_id] if lost else []),
            again={row.row_id: again},
            cured={"forgotten": {row.row_id: cured}},
        )
        assert it.confirmed(row) == (lost and not again and cured)
        assert not it.confirmed(dataclasses.replace(row, causes=("forgotten", "base_conflict")))


def test_one_line_says_everything(modules: dict[str, ModuleType], tiny: Any) -> None:
    causes, (it, _) = modules["planted_causes"], tiny
    assert sum(weight.numel() for weight in it.base.parameters()) < 1_000_000
    said = modules["planted_diagnosis"].diagnose(
        it.base, it.tuned.model, it.tuned.tables, it.rows, it.tokenizer, seed=3
    )
    failed = {row.row_id for row in it.rows if row.not_trained}
    assert failed <= said.causes.keys()  # nothing is learned in so few steps
    assert all(said.causes[row_id]["cause"] == "not_trained" for row_id in failed)
    line = json.loads(causes.line_of(causes.report(it, said), 3, 1.0))
    assert {"macro_f1", "low", "high", "baselines", "unexplained", "detection_precision", "detection_recall"} <= set(
        line
    )
    assert set(line["baselines"]) == {"printed_order", "loss_only", "majority"}


def test_the_finished_model_is_seen_at_every_probe(tiny: Any) -> None:
    it, recipe = tiny
    steps = sorted(it.tuned.tables)
    assert steps[0] == 0
    total = sum(row.exposures for row in it.world.rows if row.feed != "dropped")
    assert steps[-1] == math.ceil(total / recipe.batch)
    last = {record["row_id"]: record for record in it.tuned.tables[steps[-1]].to_pylist()}
    for row in it.world.rows:
        assert last[row.row_id]["exposures"] == (0 if row.feed == "dropped" else row.exposures)


def test_runs_are_the_same_again(training: ModuleType, tiny: Any) -> None:
    it, recipe = tiny
    again = training.finetune(it.base, it.world, it.rows, recipe, 3).model
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, it.tuned.model.state_dict()[name], rtol=0, atol=0)


# --- recovery


def test_rows_that_were_left_out_come_back_as_often_as_others(modules: dict[str, ModuleType]) -> None:
    runner = modules["planted_matrix"].SmallRunner(None, {"a": None, "b": None}, {}, {"x": 4}, None)
    rows = runner._with_returned(("a", "b") * 8 + ("x",))
    assert rows.count("x") == 4
    assert [row for row in rows if row != "x"] == ["a", "b"] * 8
    places = [place for place, row in enumerate(rows) if row == "x"]
    assert max(places) - min(places) > 10  # spread, not one after the other
    assert runner._with_returned(("a", "b")) == ("a", "b")


def test_small_runner_trains_what_an_arm_says(modules: dict[str, ModuleType], tiny: Any) -> None:
    it, recipe = tiny
    module = modules["planted_matrix"]
    fed = {row.row_id: row.fed for row in it.rows if row.fed is not None}
    whole = {row.row_id: row.asked for row in it.rows}
    times = {row.row_id: row.exposures for row in it.world.rows}
    runner = module.SmallRunner(it.base, fed, whole, times, recipe)
    order = tuple(modules["planted_training"].schedule(it.world, 3))
    steps = len(order) // recipe.batch
    weights = []
    for arm in (
        module.Arm("rerun", (module.Phase("main", order, steps, "given"),)),
        module.Arm("rerun", (module.Phase("main", order, steps, "given"),)),
        module.Arm("forgotten", (module.Phase("main", order, steps, "shuffled", resample="forgotten"),)),
        module.Arm("not_trained", (module.Phase("main", order, steps, "given"),), whole=frozenset(whole)),
    ):
        with runner.run(arm, 3) as model:
            assert not model.training
            weights.append(torch.cat([weight.flatten() for weight in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert all(not torch.equal(weights[0], other) for other in weights[2:])
    before = torch.cat([weight.flatten() for weight in it.base.parameters()])
    assert not torch.equal(before, weights[0])


def test_matrix_is_a_table(modules: dict[str, ModuleType]) -> None:
    found = {
        ("forgotten", "forgotten"): (0.5, 0.25, 0.75),
        ("forgotten", "rerun"): (0.0, 0.0, 0.0),
        ("more_training", "more_training"): (math.nan, math.nan, math.nan),
    }
    lines = modules["planted_matrix"].matrix_table(found).splitlines()
    assert lines[0] == "| cause \\ arm | forgotten | more_training | rerun |"
    assert lines[2] == "| forgotten | **0.50 [0.25, 0.75]** | – | 0.00 [0.00, 0.00] |"
    assert lines[3] == "| more_training | – | **–** | – |"
