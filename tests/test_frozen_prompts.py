"""The experiment on frozen prompts: its task, its arms, and what it reports."""

import dataclasses
import functools
import importlib
import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from whatstuck.generalization.arms import make_arm
from whatstuck.generalization.cells import Asking, make_cell
from whatstuck.generalization.tasks.micro_points import FACES, Hand, micro_points
from whatstuck.training.objectives import find_objective

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TASK = micro_points()


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = (
        "micro_model",
        "frozen_micro",
        "frozen_evaluation",
        "frozen_prompts",
        "frozen_reinforced",
        "frozen_curated",
        "frozen_interactions",
        "frozen_tables",
    )
    return {name: importlib.import_module(name) for name in names}


# --- the base and the training


def test_pretraining_holds_no_hand_with_a_face_card_to_solve(scripts: dict[str, ModuleType]) -> None:
    micro = scripts["micro_model"]
    tokenizer = micro.micro_tokenizer()
    solved = looked_up = 0
    for prompt, completion in itertools.islice(micro.pretraining(tokenizer, 0), 400):
        words, reply = tokenizer.convert_ids_to_tokens(prompt), tokenizer.convert_ids_to_tokens(completion)
        assert reply[-1] == "<eos>"
        assert "<mask>" not in words + reply
        if "T=" in words:
            solved += 1
            assert not set(words[words.index(":") :]) & set(FACES)
        else:
            looked_up += 1
            meanings = {words[i].removesuffix("="): words[i + 1] for i in range(0, 6, 2)}
            assert reply[:-1] == [meanings.get(card, card) for card in words[words.index(":") + 1 : -1]]
    assert min(solved, looked_up) > 150


def test_an_arm_is_trained_evaluated_and_not_done_again(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    micro, arms, evaluation = (scripts[name] for name in ("micro_model", "frozen_micro", "frozen_evaluation"))
    micro.BATCH, before = 8, micro.BATCH
    arms.BATCH = 8
    try:
        out = arms.train_arm(tmp_path, "diverse", seed=3, strength=2, steps=3)
        stamp = (out / "checkpoint-3" / "model.safetensors").stat().st_mtime_ns
        assert arms.train_arm(tmp_path, "diverse", seed=3, strength=2, steps=3) == out
        assert (out / "checkpoint-3" / "model.safetensors").stat().st_mtime_ns == stamp
    finally:
        micro.BATCH = arms.BATCH = before
    base = tmp_path / "base-seed3-steps2"
    first = (base / "model.safetensors").read_bytes()
    assert (out / "checkpoint-0" / "model.safetensors").read_bytes() == first
    evaluation.ITEMS = evaluation.CURVE_ITEMS = 8
    part = tmp_path / "part.jsonl"
    rows = evaluation.evaluate_arm(part, base, out, TASK, arm="diverse", about={"seed": 3})
    stamp = part.stat().st_mtime_ns
    again = evaluation.evaluate_arm(part, base, out, TASK, arm="diverse", about={"seed": 3})
    assert part.stat().st_mtime_ns == stamp
    assert json.dumps(rows) == json.dumps(again)  # NaN is not equal to itself
    assert {row["step"] for row in rows} == {0, 3}
    line = evaluation.line_of(again)
    assert set(line["arms"]["diverse"]) == {variant.name for variant in TASK.variants}
    json.dumps(line)


@pytest.mark.parametrize("name", ["sft", "dft", "sed", "eaft", "asft", "kl", "l2"])
def test_every_objective_learns(scripts: dict[str, ModuleType], name: str) -> None:
    micro, arms = scripts["micro_model"], scripts["frozen_micro"]
    tokenizer = micro.micro_tokenizer()
    model = micro.micro_model(tokenizer, 0)
    examples = list(itertools.islice(micro.pretraining(tokenizer, 0), 64))
    micro.BATCH, before = 64, micro.BATCH
    try:
        first = likelihood(micro, model, examples)
        objective = find_objective(name, arms.OBJECTIVES.get(name, {}) | ({"tau": 0.9} if name == "sed" else {}))
        micro.fit(model, itertools.cycle(examples), 15, objective=objective)
    finally:
        micro.BATCH = before
    assert likelihood(micro, model, examples) > first + 0.2


def likelihood(micro: ModuleType, model: torch.nn.Module, examples: list[object]) -> float:
    """Mean log-probability of what is to be learned."""
    ids, labels = micro._batch(examples)
    with torch.no_grad():
        logits = micro._logits(model, ids, labels)
    return -torch.nn.functional.cross_entropy(logits, labels[:, 1:][labels[:, 1:] >= 0]).item()


# --- what is said


def cells(arm: str, step: int, **success: float) -> list[dict[str, object]]:
    columns = ("success", "low", "high", "validity", "validity_low", "validity_high", "old")
    return [
        {"arm": arm, "variant": name.replace("_", "-"), "step": step} | dict.fromkeys(columns, value)
        for name, value in success.items()
    ]


FOLLOWED = {"ID": 0.4, "All_5": 0.7, "All_7": 0.6, "6_9_7": 0.3, "Fake": 0.0}
COLLAPSED = {"ID": 0.99, "All_5": 0.1, "All_7": 0.0, "6_9_7": 0.2, "Fake": 0.8}
CURED = {"ID": 0.97, "All_5": 0.95, "All_7": 0.93, "6_9_7": 0.9, "Fake": 0.0}


def test_the_pattern_is_told_from_its_absence(scripts: dict[str, ModuleType]) -> None:
    signature = scripts["frozen_prompts"].signature

    def failing(early: dict[str, float], frozen: dict[str, float], diverse: dict[str, float]) -> list[str]:
        rows = cells("frozen", 0, **early) + cells("frozen", 9, **frozen)
        found = signature(rows + cells("diverse", 0, **early) + cells("diverse", 9, **diverse))
        assert len(found) == 7
        return [name for name, holds in found.items() if not holds]

    assert failing(FOLLOWED, COLLAPSED, CURED) == []
    assert failing(FOLLOWED, COLLAPSED | {"6_9_7": 0.3}, CURED | {"All_7": 0.85}) == [
        "frozen_collapses",
        "diverse_follows",
    ]
    # a model that never followed has nothing to lose
    assert failing(dict.fromkeys(FOLLOWED, 0.05), COLLAPSED, CURED) == ["frozen_follows_early"]
    only = signature(cells("frozen", 0, **FOLLOWED) + cells("frozen", 9, **COLLAPSED))
    assert only["frozen_collapses"] is True
    assert only["diverse_learns"] is None


def test_a_part_that_was_made_of_something_else_is_made_again(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    micro, arms, evaluation = (scripts[name] for name in ("micro_model", "frozen_micro", "frozen_evaluation"))
    micro.BATCH = arms.BATCH = 8
    try:
        out = arms.train_arm(tmp_path, "frozen", seed=4, strength=1, steps=1)
        with pytest.raises(SystemExit, match="other settings"):
            arms.train_arm(tmp_path, "frozen", seed=4, strength=1, steps=2)
    finally:
        micro.BATCH = arms.BATCH = 128
    evaluation.ITEMS, evaluation.CURVE_ITEMS = 4, 2
    about = {"seed": 4}
    base, part = tmp_path / "base-seed4-steps1", tmp_path / "part.jsonl"
    first = evaluation.evaluate_arm(part, base, out, TASK, arm="frozen", about=about)
    evaluation.ITEMS = 6
    second = evaluation.evaluate_arm(part, base, out, TASK, arm="frozen", about=about)
    assert {row["items"] for row in first} == {4}
    assert {row["items"] for row in second} == {6}


def test_what_a_checkpoint_was_asked_is_not_asked_again(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    micro, arms, evaluation = (scripts[name] for name in ("micro_model", "frozen_micro", "frozen_evaluation"))
    micro.BATCH = arms.BATCH = 8
    try:
        out = arms.train_arm(tmp_path, "frozen", seed=6, strength=1, steps=2)
    finally:
        micro.BATCH = arms.BATCH = 128
    evaluation.ITEMS, evaluation.CURVE_ITEMS = 8, 4
    base, task = tmp_path / "base-seed6-steps1", dataclasses.replace(TASK, variants=TASK.variants[:2])
    whole = evaluation.evaluate_arm(tmp_path / "parts" / "a.jsonl", base, out, task, arm="frozen", about={"seed": 6})
    shutil.rmtree(out / "checkpoint-0")
    asked = []
    real = evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate", lambda *given: asked.append(given) or real(*given))
    for name in ("b", "c"):
        part = tmp_path / "parts" / f"{name}.jsonl"
        rows = evaluation.evaluate_arm(part, base, out, task, arm="frozen", about={"seed": 6})
        assert json.dumps(rows) == json.dumps(whole)
    assert len(asked) == len(task.variants)  # the last step was asked before, and now the base


@pytest.mark.parametrize("method", ["grpo", "adaback"])
def test_an_arm_is_reinforced_from_its_own_checkpoint(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    micro, arms, reinforced = (scripts[name] for name in ("micro_model", "frozen_micro", "frozen_reinforced"))
    for module, name, value in (
        (micro, "BATCH", 8),
        (arms, "BATCH", 8),
        (reinforced, "ITEMS", 16),
        (reinforced, "train_arm", functools.partial(arms.train_arm, steps=reinforced.WARM)),
    ):
        monkeypatch.setattr(module, name, value)
    out = reinforced.reinforce_arm(tmp_path, "diverse", method, seed=5, strength=1, steps=1)
    warm = tmp_path / "seed5-base1-diverse" / f"checkpoint-{reinforced.WARM}"
    base, begun, last = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "base-seed5-steps1", warm, out / "checkpoint-1")
    )
    moved = max(float((last[name] - begun[name]).abs().max()) for name in begun)
    assert moved < 3e-4 < max(float((begun[name] - base[name]).abs().max()) for name in begun)


def test_rows_are_chosen_by_difficulty_and_as_many_by_chance(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    micro, arms, reinforced, curated = (
        scripts[name] for name in ("micro_model", "frozen_micro", "frozen_reinforced", "frozen_curated")
    )
    trained: list[list[object]] = []

    def first_half(data: Path, out: Path, *, checkpoint: Path, **_: object) -> None:
        """No model that is trained within seconds gets a row right, so that none would be kept."""
        assert (checkpoint / "model.safetensors").exists()
        lines = data.read_text(encoding="utf-8").splitlines()
        out.write_text("\n".join(lines[: len(lines) // 2]), encoding="utf-8")

    def watched(model: object, examples: Iterator[object], steps: int, *more: object) -> None:
        trained.append(list(itertools.islice(examples, 24)))
        micro.fit(model, iter(trained[-1]), steps, *more)

    for module, name, value in (
        (micro, "BATCH", 8),
        (arms, "BATCH", 8),
        (reinforced, "train_arm", functools.partial(arms.train_arm, steps=reinforced.WARM)),
        (curated, "ROWS", 24),
        (curated, "curate", first_half),
    ):
        monkeypatch.setattr(module, name, value)
    curated.warm_up(tmp_path, "frozen", seed=5, strength=1)
    monkeypatch.setattr(arms, "fit", watched)
    for selection in curated.SELECTIONS:
        out = curated.select_arm(tmp_path, "frozen", selection, seed=5, strength=1, steps=3)
        assert (out / "checkpoint-3" / "model.safetensors").exists()
        assert curated.select_arm(tmp_path, "frozen", selection, seed=5, strength=1, steps=3) == out
    tokenizer = micro.micro_tokenizer()
    rows = make_arm(TASK, "frozen", 24, seed=5).rows
    every = [micro.encode(tokenizer, row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows]
    chosen, by_chance = ([found[:12] for found in (one, one[12:])] for one in trained)
    for epochs, expected in ((chosen, sorted(every[:12])), (by_chance, sorted(by_chance[0]))):
        assert all(sorted(epoch) == expected for epoch in epochs)  # the same rows again
        assert epochs[0] != epochs[1]  # in another order
    assert sorted(by_chance[0]) != sorted(every[:12])


def test_an_arm_whose_mappings_cannot_be_drawn_is_not_reinforced(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="the arm k4 is not reinforced: use frozen, diverse"):
        scripts["frozen_reinforced"].reinforce_arm(tmp_path, "k4", "grpo", seed=0, strength=0)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_a_line_per_base_and_objective(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = scripts["frozen_prompts"]
    for module, name, value in (
        (scripts["micro_model"], "BATCH", 8),
        (scripts["frozen_micro"], "BATCH", 8),
        (scripts["frozen_evaluation"], "ITEMS", 4),
        (scripts["frozen_evaluation"], "CURVE_ITEMS", 2),
        (prompts, "train_arm", functools.partial(scripts["frozen_micro"].train_arm, steps=2)),
        (prompts, "micro_points", lambda: dataclasses.replace(TASK, variants=TASK.variants[:4])),
        (prompts, "signature", lambda rows: {"rows": len(rows)}),
    ):
        monkeypatch.setattr(module, name, value)
    asked = ["--tier", "0", "--seed", "7", "--bases", "0", "--objectives", "sft", "eaft", "--workers", "1", "--json"]
    monkeypatch.setattr("sys.argv", ["frozen_prompts.py", *asked, "--out", str(tmp_path)])
    prompts.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["seed"], line["base"], line["objective"]) for line in lines] == [(7, 0, "sft"), (7, 0, "eaft")]
    for line in lines:
        assert list(line["arms"]) == ["frozen", "diverse"]
        for arm in line["arms"].values():
            assert list(arm) == ["ID", "All-5", "All-7", "6-9-7"]
            assert all(len(cell["at_step_0"]) == 2 and len(cell["success"]) == 3 for cell in arm.values())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--bases", "17"], "invalid choice: 17"),
        (["--objectives", "ppo"], "invalid choice: 'ppo'"),
        (["--tier", "1", "--objectives", "dft"], "--bases and --objectives are of tier 0"),
        (["--tier", "1", "--seed", "7"], "tier 1 has no such arm or seed"),
    ],
)
def test_what_is_not_run_is_refused(
    scripts: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["frozen_prompts.py", *asked])
    with pytest.raises(SystemExit) as caught:
        scripts["frozen_prompts"].main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_limit_that_cuts_the_right_reply_is_refused(scripts: dict[str, ModuleType]) -> None:
    evaluation, tokenizer = scripts["frozen_evaluation"], scripts["micro_model"].micro_tokenizer()
    short = dataclasses.replace(TASK, max_new_tokens=9)
    cell = make_cell(short, short.variants[0], Asking(items=4), tokenizer)
    with pytest.raises(ValueError, match="takes up to"):
        evaluation.check_room(cell, tokenizer)
    for variant, thought in itertools.product(TASK.variants, (False, True)):
        evaluation.check_room(make_cell(TASK, variant, Asking(items=40, thought=thought), tokenizer), tokenizer)


def test_shares_of_interactions_by_word(scripts: dict[str, ModuleType]) -> None:
    """One hand whose only interaction is its card with its value, one whose only one is the target."""
    strength = torch.zeros(2, 128).numpy()
    strength[0, 0b0010001] = 2.0  # value of J and card 1
    strength[1, 0b0001000] = 2.0
    found = scripts["frozen_interactions"].shares(strength, [0, 0], seed=0)
    assert found["own"][0] == found["any"][0] == found["card"][0] == found["both"][0] == 0.5
    assert found["null"][0] == pytest.approx(1.5 / 7, abs=1e-4)  # two players of the first, one of the second
    assert found["own"][1] == 0
    assert found["own"][2] == 1


def test_players_are_the_words_that_carry_meaning(scripts: dict[str, ModuleType]) -> None:
    text = TASK.prompts["training"].render(Hand(("K", "3", "J"), 4), TASK.training)
    words = [text[start:end] for start, end in scripts["frozen_interactions"].players(text)]
    assert words == ["10", "10", "10", "4", "K", "3", "J"]


def test_tables_are_the_same_from_what_was_kept(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(0)
    (tmp_path / "parts").mkdir()
    kinds = [(arm, "sft") for arm in ("frozen", "diverse", "k4", "thought")] + [("frozen", "l2"), ("diverse", "grpo")]
    for (arm, objective), seed in itertools.product(kinds, (0, 1)):
        rows = [
            {"task": TASK.name, "base": 150, "arm": arm, "objective": objective, "variant": variant.name, "tier": 0}
            | {"seed": seed, "step": step, "items": 300}
            | {name: round(rng.random(), 4) for name in scripts["frozen_tables"]._NUMBERS}
            | {"old": float("nan") if variant.kind == "training" else 0.5}
            for step in (0, 20, 800)
            for variant in TASK.variants
        ]
        text = "".join(json.dumps(line) + "\n" for line in ({"identity": arm}, *rows))
        (tmp_path / "parts" / f"{arm}-{objective}-{seed}.jsonl").write_text(text, encoding="utf-8")
    kept = tmp_path / "kept"
    said = []
    for asked in ([str(tmp_path), "--keep", str(kept)], [str(kept)]):
        monkeypatch.setattr("sys.argv", ["frozen_tables.py", *asked])
        scripts["frozen_tables"].main()
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "| frozen, base 150 | 2 | " in said[0]
    assert "| 150 | 1 | " in said[0]
    assert "nan" not in said[0]
    assert re.findall("^### (.*)", said[0], re.MULTILINE) == [
        "Strength of the base",
        "The frozen arm over steps",
        "How many mappings are enough",
        "With a thought",
        "What is minimized, or rewarded, on the arm frozen",
        "What is minimized, or rewarded, on the arm diverse",
    ]
    for name in ("k4", "thought", "frozen, l2", "diverse, grpo"):
        assert f"\n| {name} | 2 | " in said[0]


# --- the experiment itself, with fewer steps


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["frozen", "diverse"])
def test_frozen_prompts_unlearn_to_read_and_diverse_ones_do_not(
    scripts: dict[str, ModuleType], tmp_path: Path, arm: str
) -> None:
    """Tier 0 with 240 steps instead of 800: the pattern is there, far from every bound (dev/LOG.md)."""
    evaluation = scripts["frozen_evaluation"]
    evaluation.ITEMS = evaluation.CURVE_ITEMS = 100
    out = scripts["frozen_micro"].train_arm(tmp_path, arm, seed=0, strength=150, steps=240)
    base = tmp_path / "base-seed0-steps150"
    rows = evaluation.evaluate_arm(tmp_path / "part.jsonl", base, out, TASK, arm=arm, about={"seed": 0})
    first, last = ({row["variant"]: row for row in rows if row["step"] == step} for step in (0, 240))
    assert first["All-5"]["validity"] > 0.3  # the base follows the mapping in part: there is something to lose
    assert 0.1 < first["ID"]["validity"] < 0.6
    assert last["ID"]["success"] > 0.85
    if arm == "frozen":
        early = [row["validity"] for row in rows if row["variant"] == "All-5" and row["step"] < 240]
        assert max(early) > 0.5
        assert last["6-9-7"]["validity"] < 0.2
        assert last["Fake-8"]["success"] > 0.4
    else:
        assert last["6-9-7"]["success"] > 0.75
        assert last["All-5"]["success"] > 0.75
        assert last["Fake-8"]["success"] < 0.1
