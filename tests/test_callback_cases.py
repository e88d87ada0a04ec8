"""A training that is probed, where something is odd: what is refused, what is said, and that nothing is lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import whatstuck
from live_training import PROBE, Rows, make_trainer
from test_callback import values
from whatstuck import WhatStuckCallback, WhatStuckError
from whatstuck.datasets import read_rows
from whatstuck.dynamics.summarizing import finish
from whatstuck.live.overlap import overlap_with_training
from whatstuck.live.record import Record
from whatstuck.runs import RunFolder
from whatstuck.stopping import EndOfRemoval, Oracle


def test_another_training_in_the_folder_is_refused_and_nothing_is_lost(
    live: Any, tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(live[2], folder)
    before = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    probe = WhatStuckCallback(tiny_heldout, folder, steps=[1, 2, 4, 6], **PROBE)
    trainer = make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], learning_rate=1e-4)
    with pytest.raises(WhatStuckError, match=r"another training \(learning_rate: 0.003 before, 0.0001 now\)"):
        trainer.train()
    assert {path: path.read_bytes() for path in folder.rglob("*.parquet")} == before
    with pytest.raises(WhatStuckError, match="made in a training"):
        whatstuck.track(tiny_base, live[3], tiny_heldout, folder)


def test_a_diverged_step_is_said_and_an_earlier_one_is_kept(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", steps=[1, 2, 3, 4, 5, 6], stop=True, **PROBE)
    trainer = make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], save_strategy="steps", save_steps=1)
    original = trainer.training_step

    def training_step(*args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == 3:
            with torch.no_grad():
                next(p for p in trainer.model.parameters() if p.requires_grad).fill_(torch.nan)
        return original(*args, **kwargs)

    trainer.training_step = training_step
    trainer.train()
    assert trainer.state.global_step == 4
    run = whatstuck.load_run(tmp_path / "run")
    assert run.manifest["track"]["diverged"] == [4]
    assert run.verdict["keep_step"] in {1, 2, 3}
    assert "diverged at step 4" in run.verdict["reason"]
    assert "diverged" in run.manifest["track"]["live"]["log"][-2]


def test_no_row_that_can_be_probed_ends_it_before_the_first_step(
    tiny_base: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.jsonl"
    short.write_text(json.dumps({"prompt": "Why?", "completion": "So."}) + "\n", encoding="utf-8")
    for budget in (None, 0.05):
        settings = PROBE | {"probe_budget": budget}
        trainer = make_trainer(
            tiny_base, tiny_rows, tmp_path / "out", [WhatStuckCallback(short, tmp_path / "run", **settings)]
        )
        with pytest.raises(WhatStuckError, match="no row can be probed"):
            trainer.train()
        assert trainer.state.global_step == 0


def test_training_rows_only_give_no_verdict(tiny_base: Path, tiny_rows: Path, tmp_path: Path) -> None:
    probe = WhatStuckCallback(tiny_rows, tmp_path / "run", steps=[1, 6], split="train", **PROBE)
    make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe]).train()
    run = whatstuck.load_run(tmp_path / "run")
    assert run.verdict["decision"] == "cannot tell"
    assert any("training rows" in warning for warning in run.manifest["track"]["warnings"])


def test_a_probe_that_fails_does_not_cost_the_training(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", steps=[1, 2, 4], **PROBE)
    trainer = make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe])

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    def on_step_begin(*_: Any, **__: Any) -> None:
        if trainer.state.global_step == 1:
            monkeypatch.setattr("whatstuck.live.parts.write_values", full)

    monkeypatch.setattr(probe, "on_step_begin", on_step_begin)
    trainer.train()
    assert trainer.state.global_step == 6
    assert probe.failure == "no space left on device"
    run = whatstuck.load_run(tmp_path / "run")
    assert run.steps == [0, 1]
    assert any("no space left" in warning for warning in run.manifest["track"]["warnings"])


def test_rows_that_are_trained_on_and_another_template_are_noticed(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    def section(name: str, data: Path, **settings: Any) -> dict[str, Any]:
        probe = WhatStuckCallback(data, tmp_path / name, steps=[1], **PROBE, **settings)
        make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], max_steps=1).train()
        found: dict[str, Any] = whatstuck.load_run(tmp_path / name).manifest["track"]
        return found

    seen = section("seen", tiny_rows)
    assert "64 of 64 rows to probe are trained on: give rows" in seen["warnings"][0]
    assert seen["data"]["trained_on"] == 32
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(tiny_rows.read_text(encoding="utf-8") + tiny_heldout.read_text(encoding="utf-8"), encoding="utf-8")
    partly = section("partly", mixed)
    assert "64 of 96 rows to probe are trained on: they are left out" in partly["warnings"][0]
    assert partly["data"]["trained_on"] == 0
    assert np.array_equal(values(tmp_path / "partly", 1).shape, (4, 16))
    assert any(
        "chat template may differ" in w for w in section("plain", tiny_heldout, chat_template="never")["warnings"]
    )


def test_rows_that_are_tensors_are_compared_as_numbers(tiny_base: Path, tiny_rows: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_base)
    tensors = [{"input_ids": torch.tensor(row["input_ids"])} for row in Rows(tokenizer, tiny_rows)]
    found = overlap_with_training(read_rows(tiny_rows), tokenizer, "auto", tensors)
    assert len(found.trained or ()) == 64
    assert not found.none


def test_held_out_rows_are_known_to_be_held_out(live: Any) -> None:
    section = whatstuck.load_run(live[2]).manifest["track"]
    assert section["data"]["assumed"] is False
    assert section["warnings"] == []


@pytest.mark.parametrize("way", ["records", "dataset"])
def test_rows_may_be_in_memory(way: str, tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in tiny_heldout.read_text(encoding="utf-8").splitlines()]
    data: Any = records
    if way == "dataset":
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_list(records)
    tables = []
    for name, rows in (("file", tiny_heldout), (way, data)):
        probe = WhatStuckCallback(rows, tmp_path / name, steps=[1], **PROBE)
        make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], max_steps=1).train()
        assert probe.failure is None
        tables.append(values(tmp_path / name, 1))
    assert np.array_equal(*tables)


def gamma_of(run: whatstuck.Run, baseline: str, step: int) -> float:
    wanted = ("gamma", "emerged", step, baseline, "none")
    names = ("metric", "set", "step", "baseline", "threshold_rule")
    return next(float(row["value"]) for row in run.metrics.to_pylist() if tuple(row[name] for name in names) == wanted)


def test_a_baseline_gives_gamma_at_every_probe(
    tiny_base: Path, tiny_full_run: Path, tiny_run: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    others = {"baseline": [str(tiny_full_run / "checkpoint-32")], "upper_bound": tiny_run / "checkpoint-8"}
    probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", steps=[1, 4], **PROBE, **others)
    trainer = make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe])
    probe.attach(trainer)
    trainer.train()
    assert probe.failure is None
    logged = {entry["step"]: entry for entry in trainer.state.log_history if "eval_whatstuck_gamma_emerged" in entry}
    assert sorted(logged) == [1, 4]
    run = whatstuck.load_run(tmp_path / "run")
    assert logged[4]["eval_whatstuck_gamma_emerged"] == pytest.approx(gamma_of(run, "checkpoint-32", 4))
    assert logged[4]["eval_whatstuck_gamma_emerged"] == pytest.approx(gamma_of(run, "pooled", 4))
    roles = {entry["name"]: entry["role"] for entry in run.manifest["track"]["baselines"]}
    assert roles == {"checkpoint-32": "baseline", "another seed": "upper bound"}
    assert np.isfinite(gamma_of(run, "another seed", 4))


def test_a_budget_is_kept_in_the_manifest_and_the_log(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", probe_budget=0.5, rows=6, players=5)
    trainer = make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], max_steps=24)
    trainer.train()
    assert probe.failure is None
    live = whatstuck.load_run(tmp_path / "run").manifest["track"]["live"]
    assert {0, 1, 2, 4, 8, 16, 24} <= set(live["plan"]["steps"])
    assert live["plan"]["settled"]
    assert live["plan"]["rows"] <= 6
    assert len(live["log"]) == 3  # the choice, the late probes, what it took
    assert whatstuck.load_run(tmp_path / "run").steps == live["plan"]["steps"]


def test_no_step_at_all(tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path) -> None:
    probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", **PROBE)
    trainer = make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], max_steps=-1, num_train_epochs=0)
    trainer.train()
    assert probe.failure is None
    run = whatstuck.load_run(tmp_path / "run")
    assert run.steps == [0]
    assert run.verdict["decision"] == "cannot tell"


def test_evaluation_at_every_step_costs_no_probe_more(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", steps=[2], **PROBE)
    trainer = make_trainer(
        tiny_base, tiny_rows, tmp_path / "out", [probe], evaluate_on=tiny_heldout, eval_strategy="steps", eval_steps=1
    )
    probe.attach(trainer)
    trainer.train()
    run = whatstuck.load_run(tmp_path / "run")
    assert run.steps == [0, 2]
    assert [step for step, _ in run.manifest["track"]["trainer_state"]["eval_loss"]] == [1, 2, 3, 4, 5, 6]


def test_a_killed_training_does_not_block_its_folder_and_can_be_shown(live: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(live[2], folder)
    verdict = (folder / "verdict.json").read_bytes()
    for name in ("verdict.json", "metrics.parquet", "report.html"):
        (folder / name).unlink()
    finish(RunFolder(folder))
    assert (folder / "verdict.json").read_bytes() == verdict
    assert (folder / "report.html").exists()


def killed_at(trainer: Any, step: int) -> None:
    """Train until a step begins, and break off there."""
    original = trainer.training_step

    def training_step(*args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == step:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    trainer.training_step = training_step
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


@pytest.fixture
def begin(tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path) -> Callable[..., Any]:
    """A function that makes a probed training in one folder, saving every second step."""

    def make(*, probe: dict[str, Any] | None = None, **arguments: Any) -> Any:
        callback = WhatStuckCallback(tiny_heldout, tmp_path / "run", **PROBE | {"steps": [1, 2, 4, 6]} | (probe or {}))
        saving = {"save_strategy": "steps", "save_steps": 2}
        return make_trainer(tiny_base, tiny_rows, tmp_path / "out", [callback], **saving | arguments), callback

    return make


def test_a_longer_training_is_probed_to_its_end(begin: Callable[..., Any], tmp_path: Path) -> None:
    begin(probe={"steps": None})[0].train()
    longer, callback = begin(probe={"steps": None}, max_steps=12)
    longer.train(resume_from_checkpoint=True)
    assert callback.failure is None
    run = whatstuck.load_run(tmp_path / "run")
    assert run.steps[-1] == 12
    assert set(run.steps) >= {0, 1, 2, 4, 8, 12}


def test_a_resumed_training_is_not_taken_for_another(begin: Callable[..., Any], tmp_path: Path) -> None:
    begin()[0].train()
    before = sorted(path.name for path in (tmp_path / "run").rglob("step-*"))
    other, _ = begin(learning_rate=1e-4)
    with pytest.raises(WhatStuckError, match="another training"):
        other.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    assert sorted(path.name for path in (tmp_path / "run").rglob("step-*")) == before


def test_other_rows_to_probe_are_refused(
    begin: Callable[..., Any], tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    begin()[0].train()
    fewer = tmp_path / "fewer.jsonl"
    lines = tiny_heldout.read_text(encoding="utf-8").splitlines(keepends=True)
    fewer.write_text("".join(lines[:-1]), encoding="utf-8")
    probe = WhatStuckCallback(fewer, tmp_path / "run", **PROBE, steps=[1, 2, 4, 6])
    saving = {"save_strategy": "steps", "save_steps": 2}
    with pytest.raises(WhatStuckError, match="other rows to probe"):
        make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], **saving).train(resume_from_checkpoint=True)
    assert whatstuck.load_run(tmp_path / "run").steps == [0, 1, 2, 4, 6]


def test_a_budgeted_training_can_go_on_before_its_late_steps_are_chosen(
    begin: Callable[..., Any], tmp_path: Path
) -> None:
    asked = {"steps": None, "probe_budget": 0.5}
    killed_at(begin(probe=asked, max_steps=24)[0], 7)
    resumed, callback = begin(probe=asked, max_steps=24)
    resumed.train(resume_from_checkpoint=True)
    assert callback.failure is None
    run = whatstuck.load_run(tmp_path / "run")
    assert {0, 1, 2, 4, 8, 16, 24} <= set(run.steps)
    assert run.manifest["track"]["live"]["plan"]["settled"]


def test_a_training_that_starts_anew_protects_its_checkpoint_again(begin: Callable[..., Any], tmp_path: Path) -> None:
    for _ in range(2):
        begin()[0].train()
        run = whatstuck.load_run(tmp_path / "run")
        kept = [path.name for path in (tmp_path / "run" / "kept").iterdir()]
        assert kept == [f"checkpoint-{run.verdict['keep_step']}"]
        assert run.manifest["track"]["live"]["kept"] == f"kept/{kept[0]}"


def test_a_full_disk_does_not_cost_the_training(begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, callback = begin()
    original = Record.save

    def full(record: Record) -> None:
        if trainer.state.global_step >= 2:
            raise OSError("no space left on device")
        original(record)

    monkeypatch.setattr(Record, "save", full)
    trainer.train()
    assert trainer.state.global_step == 6
    assert callback.failure == "no space left on device"


def test_a_model_that_begins_with_nan_is_refused(begin: Callable[..., Any]) -> None:
    trainer, _ = begin()
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(WhatStuckError, match="untouched model gives NaN"):
        trainer.train()


def test_the_precision_of_the_process_is_given_back(begin: Callable[..., Any], tiny_full_run: Path) -> None:
    torch.set_float32_matmul_precision("high")
    try:
        begin(probe={"baseline": [str(tiny_full_run / "checkpoint-8")], "steps": [1]}, max_steps=1)[0].train()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_best_metric_that_never_comes_is_refused_and_one_that_is_missing_never_best(
    begin: Callable[..., Any], tiny_heldout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = {"evaluate_on": tiny_heldout, "eval_strategy": "steps", "eval_steps": 2}
    for name in ("eval_whatstuck_nothing", "whatstuck_gamma_emerged"):
        with pytest.raises(WhatStuckError, match="give one of eval_whatstuck_heldout_loss"):
            begin(metric_for_best_model=name, **evaluated)[0].train()
    trainer, callback = begin(metric_for_best_model="whatstuck_rho_emerged", greater_is_better=True, **evaluated)
    monkeypatch.setattr(callback, "_probe", lambda *_: setattr(callback, "failure", "it broke"))
    trainer.train()
    assert trainer.state.global_step == 6
    assert trainer.state.best_metric is None or not np.isfinite(trainer.state.best_metric)


def test_a_folder_that_is_being_written_is_refused(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    with RunFolder(tmp_path / "run").writing():
        probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", steps=[1], **PROBE)
        with pytest.raises(WhatStuckError, match="another process is writing"):
            make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe]).train()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probe_budget": 0}, "probe_budget is 0"),
        ({"steps": []}, "steps is"),
        ({"steps": [1.5]}, "steps is"),
        ({"device": "cpu"}, "'device' is a setting of `whatstuck track`"),
        ({"player": 3}, "did you mean players"),
        ({"players": 1}, "--players"),
        ({"rule": "patience"}, "there is no rule 'patience': give one of 'held-out loss"),
        ({"rule": EndOfRemoval("fixed")}, "cannot be followed in a training"),
        ({"rule": Oracle()}, "rows that never choose"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WhatStuckError, match=message):
        WhatStuckCallback(tmp_path / "rows.jsonl", tmp_path / "run", **settings)
