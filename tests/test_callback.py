"""A training that is probed: what it writes, what it leaves untouched, and what it decides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import TrainingArguments

import whatstuck
from live_training import PROBE, losses, make_trainer, weights
from whatstuck import WhatStuckCallback
from whatstuck.stopping import Decision, History

# transformers 5 renamed it
CHECKPOINTING = (
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)


def values(folder: Path, step: int) -> np.ndarray:
    (file,) = folder.glob(f"values/*/step-{step:06d}.safetensors")
    with safe_open(file, framework="np") as tensors:
        table: np.ndarray = tensors.get_tensor("values")
    return table


def parts(folder: Path) -> dict[str, bytes]:
    """Every table of a run, byte by byte; but metrics, which knows the paths of the checkpoints."""
    files = [path for path in folder.glob("**/*step-*") if path.parent.name != "kept"] + [folder / "rows.parquet"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_it_writes_the_run_folder_of_track(live: Any) -> None:
    run = whatstuck.load_run(live[2])
    assert run.steps == [0, 1, 2, 4, 6]
    assert run.report.exists()
    assert run.verdict["decision"] in {"keep", "cannot tell"}
    assert {"rho", "mass", "heldout_loss"} <= set(run.metrics["metric"].to_pylist())
    section = run.manifest["track"]
    assert [entry["path"] is None for entry in section["checkpoints"][1:]] == [True, False, False, False]
    assert section["live"]["share"] > 0
    assert section["trainer_state"]["eval_loss"]


def test_the_losses_are_the_same_to_the_last_bit(
    live: Any, tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    plain = make_trainer(
        tiny_base, tiny_rows, tmp_path / "out", evaluate_on=tiny_heldout,
        save_strategy="steps", save_steps=2, save_total_limit=1, eval_strategy="steps", eval_steps=2,
    )  # fmt: skip
    plain.train()
    trainer = live[0]
    assert losses(trainer) == losses(plain)
    for name, weight in weights(plain).items():
        assert torch.equal(weight, trainer.model.state_dict()[name]), name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_full_fine_tuning_is_untouched_too(
    precision: str, tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"lora": False, "bf16": precision == "bf16", CHECKPOINTING: True}
    plain = make_trainer(tiny_base, tiny_rows, tmp_path / "plain", **arguments)
    plain.train()
    probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", steps=[1, 3, 6], **PROBE)
    probed = make_trainer(
        tiny_base, tiny_rows, tmp_path / "out", [probe], **arguments, save_strategy="steps", save_steps=3
    )
    probe.attach(probed)
    probed.train()
    assert probe.failure is None
    assert losses(probed) == losses(plain)
    run = whatstuck.load_run(tmp_path / "run")
    again = whatstuck.track(
        tiny_base, tmp_path / "out", tiny_heldout, tmp_path / "again", players=4, rows=4, eval_rows=32, seed=3
    )
    assert run.rows.equals(again.rows)
    for step in (0, 3, 6):  # scored in fp32, whatever the training computes in
        assert np.allclose(values(run.path, step), values(again.path, step), rtol=0, atol=1e-4)


def test_live_and_tracked_probes_of_an_adapter_agree(
    live: Any, tiny_base: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    _, _, folder, out = live
    checkpoints = list(out.glob("checkpoint-*"))
    assert len(checkpoints) == 1  # save_total_limit
    again = whatstuck.track(
        tiny_base, checkpoints, tiny_heldout, tmp_path / "again", players=4, rows=4, eval_rows=32, seed=3
    )
    for step in (0, 6):
        assert np.allclose(values(folder, step), values(again.path, step), rtol=0, atol=1e-4)
    ours, theirs = (
        {
            (row["metric"], row["set"]): row["value"]
            for row in run.metrics.to_pylist()
            if row["step"] == 6 and row["metric"] == "heldout_loss"
        }
        for run in (whatstuck.load_run(folder), again)
    )
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_kept_checkpoint_outlives_the_trainers_limit(live: Any) -> None:
    _, _, folder, out = live
    run = whatstuck.load_run(folder)
    keep = run.verdict["keep_step"]
    assert keep in {2, 4, 6}
    kept = list((folder / "kept").iterdir())
    assert [path.name for path in kept] == [f"checkpoint-{keep}"]
    assert (kept[0] / "adapter_model.safetensors").exists()
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-6"]


def test_signals_reach_the_trainers_log(live: Any) -> None:
    history = live[0].state.log_history
    logged = {entry["step"]: entry for entry in history if "eval_whatstuck_rho_emerged" in entry}
    assert sorted(logged) == [1, 2, 4, 6]
    found = {
        row["step"]: row
        for row in whatstuck.load_run(live[2]).metrics.to_pylist()
        if (row["metric"], row["set"], row["threshold_rule"], row["kind"], row["order"])
        == ("rho", "emerged", "none", "both", 0)
    }
    for step, entry in logged.items():
        assert entry["eval_whatstuck_rho_emerged"] == pytest.approx(found[step]["value"])
        assert entry["eval_whatstuck_rho_emerged_null"] == pytest.approx(found[step]["null_mean"])
        assert entry["eval_whatstuck_rho_emerged_low"] == pytest.approx(found[step]["low"])


class StopAt:
    """A rule that stops at a step and keeps the one before."""

    name, kind = "stop at a step", "plain"

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, history: History) -> Decision:
        now = history.steps[-1]
        return Decision("stop" if now >= self.step else "keep", max(s for s in history.steps if s <= 2), f"step {now}")


@pytest.mark.parametrize("asked", [True, False])
def test_the_rule_stops_the_training_only_if_asked(
    *, asked: bool, tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", steps=[1, 2, 4], stop=asked, rule=StopAt(4), **PROBE)
    trainer = make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe])
    trainer.train()
    assert trainer.state.global_step == (4 if asked else 6)
    run = whatstuck.load_run(tmp_path / "run")
    assert run.manifest["track"]["live"]["stopped_at"] == (4 if asked else None)
    found = {name: run.verdict[name] for name in ("rule", "keep_step", "stop_step", "confidence")}
    assert found == {"rule": "stop at a step", "keep_step": 2, "stop_step": 4, "confidence": "low"}


def test_a_signal_can_be_the_metric_for_the_best_model(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    probe = WhatStuckCallback(tiny_heldout, tmp_path / "run", steps=[1], **PROBE)
    trainer = make_trainer(
        tiny_base, tiny_rows, tmp_path / "out", [probe], evaluate_on=tiny_heldout,
        eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        metric_for_best_model="eval_whatstuck_heldout_loss", greater_is_better=False, load_best_model_at_end=True,
    )  # fmt: skip
    probe.attach(trainer)
    trainer.train()
    assert probe.failure is None
    run = whatstuck.load_run(tmp_path / "run")
    assert run.steps == [0, 1, 2, 4, 6]
    found = {
        row["step"]: row["value"]
        for row in run.metrics.to_pylist()
        if (row["metric"], row["set"]) == ("heldout_loss", "select")
    }
    assert trainer.state.best_metric == pytest.approx(min(found[step] for step in (2, 4, 6)))


@pytest.mark.parametrize("lora", [True, False])
def test_a_resumed_training_decides_the_same(
    *, lora: bool, tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    def training(name: str, **arguments: Any) -> Any:
        probe = WhatStuckCallback(tiny_heldout, tmp_path / name / "run", steps=[1, 2, 4, 6], **PROBE)
        trainer = make_trainer(
            tiny_base,
            tiny_rows,
            tmp_path / name / "out",
            [probe],
            lora=lora,
            save_strategy="steps",
            save_steps=3,
            **arguments,
        )
        return trainer, probe

    whole, _ = training("whole")
    whole.train()

    class Killed(KeyboardInterrupt):
        pass

    broken, _ = training("broken")
    original = broken.training_step

    def training_step(*args: Any, **kwargs: Any) -> Any:
        if broken.state.global_step == 5:
            raise Killed
        return original(*args, **kwargs)

    broken.training_step = training_step
    with pytest.raises(Killed):
        broken.train()
    assert (tmp_path / "broken" / "run" / "heldout" / "step-000004.parquet").exists()
    resumed, probe = training("broken")
    resumed.train(resume_from_checkpoint=True)
    assert probe.failure is None
    first, second = (whatstuck.load_run(tmp_path / name / "run") for name in ("whole", "broken"))
    assert losses(whole) == losses(resumed)
    assert first.steps == second.steps
    assert parts(first.path) == parts(second.path)
    assert first.to_pandas("metrics").equals(second.to_pandas("metrics"))
    assert first.verdict == second.verdict
