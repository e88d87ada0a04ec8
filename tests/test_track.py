"""The main job on a model that was really trained: one run, extended, refused, killed and resumed."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

import whatstuck
from whatstuck import WhatStuckError
from whatstuck.dynamics import heldout
from whatstuck.dynamics.explaining import SCHEMA as INTERACTIONS
from whatstuck.dynamics.heldout import SCHEMA as HELDOUT
from whatstuck.dynamics.records import SCHEMA as METRICS
from whatstuck.dynamics.selecting import SCHEMA as ROWS
from whatstuck.dynamics.summarizing import summarize
from whatstuck.runs import RunFolder

SETTINGS: dict[str, Any] = {"players": 5, "rows": 6, "seed": 3}


@pytest.fixture(scope="module")
def run(tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tmp_path_factory: pytest.TempPathFactory) -> whatstuck.Run:
    out = tmp_path_factory.mktemp("track") / "run"
    return whatstuck.track(tiny_base, tiny_run, tiny_heldout, out, **SETTINGS)


def parts(folder: Path) -> dict[str, bytes]:
    """Every table of a run, byte by byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".parquet", ".safetensors"} and not path.name.startswith(".")
    }


def documented(heading: str) -> list[str]:
    """The words of one section of docs/run-folder.md."""
    text = (Path(__file__).parents[1] / "docs" / "run-folder.md").read_text(encoding="utf-8")
    sections = [part for part in text.split("\n## ") if part.startswith(heading)]
    assert len(sections) == 1, heading
    return re.findall(r"\w+", sections[0])


def values(run: whatstuck.Run, model: str, step: int) -> np.ndarray:
    with safe_open(run.path / "values" / model / f"step-{step:06d}.safetensors", framework="np") as file:
        table: np.ndarray = file.get_tensor("values")
    return table


def test_the_run_folder_is_as_documented(run: whatstuck.Run) -> None:
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    model = run.manifest["track"]["model"]["name"]
    steps = [0, 1, 2, 4, 8, 16, 32]
    expected = {"run.json", ".lock", "rows.parquet", "metrics.parquet", "verdict.json", "report.html"}
    for step in steps:
        expected |= {
            f"values/{model}/step-{step:06d}.safetensors",
            f"interactions/{model}/step-{step:06d}.parquet",
            f"heldout/step-{step:06d}.parquet",
        }
    assert names == expected
    assert run.steps == steps
    assert run.manifest["format_version"] == 1
    assert pq.read_schema(run.path / "rows.parquet").equals(ROWS)
    assert pq.read_schema(run.path / "metrics.parquet").equals(METRICS)
    assert set(documented("rows.parquet")) >= set(ROWS.names)
    assert set(documented("heldout/")) >= set(HELDOUT.names)
    assert set(documented("interactions/")) >= set(INTERACTIONS.names)
    assert set(documented("metrics.parquet")) >= set(METRICS.names)
    assert set(documented("run.json")) >= set(run.manifest["track"])
    assert set(documented("verdict.json")) >= set(run.verdict) | set(run.verdict["signals"])


def test_every_metric_is_documented(run: whatstuck.Run) -> None:
    assert set(documented("metrics.parquet")) >= set(run.metrics["metric"].to_pylist())


def test_values_explain_what_the_model_says(run: whatstuck.Run) -> None:
    """The full coalition's value is the log-odds of the first target token on the whole prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = Path(run.manifest["track"]["model"]["path"])
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    row = run.rows.to_pylist()[0]
    assert all(row["prompt"][player["start"] : player["end"]] == player["text"] for player in row["players"])
    ids = tokenizer(row["prompt"], add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        probabilities = model(ids).logits[0, -1].double().softmax(-1)
    chance = probabilities[row["target_ids"][0]]
    name = run.manifest["track"]["model"]["name"]
    with safe_open(run.path / "values" / name / "step-000000.safetensors", framework="np") as file:
        values, index = file.get_tensor("values"), file.get_tensor("row_index").tolist()
    assert index == list(range(6))
    assert values.shape == (6, 32)
    assert values[0, -1] == pytest.approx(float((chance / (1 - chance)).log()), abs=1e-4)
    assert np.ptp(values[0]) > 0.1


def test_training_changes_the_interactions_and_the_loss(run: whatstuck.Run) -> None:
    rows = run.metrics.to_pylist()
    loss = {row["step"]: row["value"] for row in rows if row["metric"] == "heldout_loss" and row["set"] == "select"}
    assert min(loss, key=lambda step: loss[step]) > 0
    assert run.verdict["decision"] == "keep"
    assert run.verdict["keep_step"] == min(loss, key=lambda step: loss[step])
    assert run.verdict["keep_step"] in run.verdict["signals"]["indistinguishable_steps"]
    cosine = {row["step"]: row["value"] for row in rows if row["metric"] == "cosine"}
    assert cosine[0] == pytest.approx(1)
    assert cosine[32] < 0.95


def test_noise_is_small_and_extraction_certified(run: whatstuck.Run) -> None:
    for row in run.metrics.to_pylist():
        if row["metric"] == "noise_floor":
            assert 0 <= row["value"] < 1e-4
        if row["metric"] == "gap":
            assert row["high"] <= 0.01


def test_a_second_call_computes_nothing(
    run: whatstuck.Run, monkeypatch: pytest.MonkeyPatch, tiny_base: Path, tiny_run: Path, tiny_heldout: Path
) -> None:
    before = parts(run.path)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded again")

    monkeypatch.setattr("whatstuck.dynamics.tracking.CheckpointedModel", never)
    whatstuck.track(tiny_base, tiny_run, tiny_heldout, run.path, **SETTINGS)
    assert parts(run.path) == before


def test_naming_only_what_is_new_extends_a_run(
    tiny_base: Path, tiny_run: Path, tiny_full_run: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    """First some checkpoints and few rows, then other checkpoints, more rows, more held-out rows and a baseline."""
    out, new = tmp_path / "run", tiny_run / "checkpoint-8"
    known = [tiny_run / "checkpoint-2", tiny_run / "checkpoint-32"]
    small = whatstuck.track(tiny_base, known, tiny_heldout, out, eval_rows=20, **SETTINGS | {"rows": 4})
    first = small.rows.to_pylist()
    baseline = [str(tiny_full_run / "checkpoint-32")]
    whatstuck.track(tiny_base, new, tiny_heldout, out, eval_rows=32, **SETTINGS)
    big = whatstuck.track(tiny_base, new, tiny_heldout, out, eval_rows=32, baseline=baseline, **SETTINGS)
    assert big.rows.to_pylist()[:4] == first
    assert big.steps == [0, 2, 8, 32]
    at_once = whatstuck.track(
        tiny_base, [*known, new], tiny_heldout, tmp_path / "at_once", eval_rows=32, baseline=baseline, **SETTINGS
    )
    assert parts(big.path) == parts(at_once.path)
    assert big.verdict == at_once.verdict
    gamma = [row for row in big.metrics.to_pylist() if row["metric"] == "gamma"]
    assert {row["null_kind"] for row in gamma} == {"mismatched_row", "order_stratified"}
    assert all(0 <= row["value"] <= 1 for row in gamma if not math.isnan(row["value"]))


def test_an_upper_bound_is_scored_like_a_baseline_and_is_in_no_pool(
    tiny_base: Path, tiny_run: Path, tiny_full_run: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    """An adapter of another step stands in for one of another seed."""
    out, known, upper = tmp_path / "run", tiny_run / "checkpoint-2", tiny_run / "checkpoint-32"
    baseline = [str(tiny_full_run / "checkpoint-32")]
    run = whatstuck.track(
        tiny_base, known, tiny_heldout, out, baseline=baseline, upper_bound=upper, **SETTINGS | {"rows": 4}
    )
    entries = {entry["name"]: entry for entry in run.manifest["track"]["baselines"]}
    assert entries["another seed"]["role"] == "upper bound"
    assert entries["another seed"]["path"] == str(upper)
    assert entries["another seed"]["fingerprint"] != entries["checkpoint-32"]["fingerprint"]
    assert entries["checkpoint-32"]["role"] == "baseline"
    gamma = {
        row["baseline"]: row["value"]
        for row in run.metrics.to_pylist()
        if row["metric"] == "gamma" and row["set"] == "all" and row["step"] == 2 and row["threshold_rule"] == "none"
    }
    assert set(gamma) == {"another seed", "checkpoint-32", "pooled"}
    assert gamma["pooled"] == gamma["checkpoint-32"]
    model = run.manifest["track"]["model"]["name"]
    assert not np.allclose(values(run, "another seed", 0), values(run, model, 0)), "the adapter was not put on"
    more = whatstuck.track(tiny_base, tiny_run / "checkpoint-8", tiny_heldout, out, **SETTINGS)
    assert len(values(more, "another seed", 0)) == 6, "the upper bound was not taken along"
    with pytest.raises(WhatStuckError, match="has another upper bound"):
        whatstuck.track(tiny_base, known, tiny_heldout, out, upper_bound=tiny_run / "checkpoint-16", **SETTINGS)
    with pytest.raises(WhatStuckError, match="is a checkpoint under study"):
        whatstuck.track(tiny_base, known, tiny_heldout, tmp_path / "x", upper_bound=known, **SETTINGS)
    with pytest.raises(WhatStuckError, match="is no model: it has neither"):
        whatstuck.track(tiny_base, known, tiny_heldout, tmp_path / "x", upper_bound=tmp_path / "no", **SETTINGS)


def test_rules_are_replayed_over_the_run(run: whatstuck.Run) -> None:
    rules = run.verdict["other_rules"]
    assert {rule["kind"] for rule in rules.values()} == {"ours", "evaluation loss", "plain", "hindsight"}
    assert rules["last checkpoint"]["keep_step"] == 32
    assert all(rule["keep_step"] in run.steps for rule in rules.values())
    assert not [name for name in rules if "gamma" in name], "there is no baseline"
    epochs = dict(run.manifest["track"]["epochs"])
    assert sorted(epochs) == [1, 2, 4, 8, 16, 32]
    assert epochs[32] > epochs[1] > 0


def test_a_run_whose_steps_were_not_saved_is_not_extended(
    run: whatstuck.Run, tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(run.path, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock"))
    manifest = json.loads((copied / "run.json").read_text())
    manifest["track"]["checkpoints"][3] |= {"path": None, "kind": "live"}
    (copied / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(WhatStuckError, match="written during a training, and step 4 was not saved"):
        whatstuck.track(tiny_base, tiny_run, tiny_heldout, copied, **SETTINGS)


def test_a_run_of_before_there_were_epochs_and_roles_is_read(run: whatstuck.Run, tmp_path: Path) -> None:
    copied = shutil.copytree(run.path, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock"))
    manifest = json.loads((copied / "run.json").read_text())
    del manifest["track"]["epochs"]
    (copied / "run.json").write_text(json.dumps(manifest))
    summarize(RunFolder(copied), seed=SETTINGS["seed"])
    verdict = whatstuck.load_run(copied).verdict
    assert "1 epoch" not in verdict["other_rules"]
    assert verdict["keep_step"] == run.verdict["keep_step"]


def test_a_checkpoint_that_is_gone_is_missed_only_when_it_is_needed(
    tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    lost = shutil.copytree(tiny_run / "checkpoint-2", tmp_path / "out" / "checkpoint-2")
    run = whatstuck.track(tiny_base, lost, tiny_heldout, tmp_path / "run", **SETTINGS | {"rows": 4})
    shutil.rmtree(lost)
    new = tiny_run / "checkpoint-8"
    again = whatstuck.track(tiny_base, new, tiny_heldout, run.path, **SETTINGS | {"rows": 4})
    assert again.steps == [0, 2, 8]
    with pytest.raises(WhatStuckError, match="step 2 must be scored on more rows, but"):
        whatstuck.track(tiny_base, new, tiny_heldout, run.path, **SETTINGS)


def test_a_checkpoint_that_changed_is_noticed(
    tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    place = tmp_path / "out" / "checkpoint-2"
    shutil.copytree(tiny_run / "checkpoint-2", place)
    run = whatstuck.track(tiny_base, place, tiny_heldout, tmp_path / "run", **SETTINGS)
    losses = run.path / "heldout" / "step-000002.parquet"
    before = pq.read_table(losses)["nll"].to_pylist()
    shutil.rmtree(place)
    shutil.copytree(tiny_run / "checkpoint-32", place)
    with pytest.raises(WhatStuckError, match="the checkpoint changed; delete this file"):
        whatstuck.track(tiny_base, place, tiny_heldout, run.path, **SETTINGS)
    model = run.manifest["track"]["model"]["name"]
    (run.path / "values" / model / "step-000002.safetensors").unlink()
    whatstuck.track(tiny_base, place, tiny_heldout, run.path, **SETTINGS)
    assert pq.read_table(losses)["nll"].to_pylist() != before


def test_a_diverged_checkpoint_is_left_out_and_said_to(
    tiny_base: Path, tiny_full_run: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    out = tmp_path / "out"
    shutil.copytree(tiny_full_run / "checkpoint-8", out / "checkpoint-8")
    shutil.copytree(tiny_full_run / "checkpoint-8", out / "checkpoint-64")
    weights = load_file(out / "checkpoint-64" / "model.safetensors")
    weights["lm_head.weight"] *= float("nan")
    save_file(weights, out / "checkpoint-64" / "model.safetensors", {"format": "pt"})
    run = whatstuck.track(tiny_base, out, tiny_heldout, tmp_path / "run", **SETTINGS)
    assert run.steps == [0, 8]
    assert run.manifest["track"]["diverged"] == [64]
    assert "diverged at step 64" in run.verdict["reason"]


def test_several_noise_bounds_and_whole_targets(
    tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    run = whatstuck.track(
        tiny_base,
        tiny_run / "checkpoint-8",
        tiny_heldout,
        tmp_path,
        mode="paper",
        noise_bound=[0.05, 0.2],
        whole_target=True,
        **SETTINGS,
    )
    settings = {row["setting"].split(" tau=")[0] for row in run.metrics.to_pylist()}
    assert settings == {"paper kappa=0.05*step", "paper kappa=0.2*step"}
    mass = {
        row["setting"]: row["value"]
        for row in run.metrics.to_pylist()
        if (row["metric"], row["set"], row["kind"], row["order"], row["step"]) == ("mass", "all", "both", 0, 8)
    }
    assert mass["paper kappa=0.2*step"] < mass["paper kappa=0.05*step"]
    assert not [row for row in run.metrics.to_pylist() if row["metric"].startswith("sufficiency")]


def test_a_copied_run_goes_on_and_another_data_file_is_refused(
    run: whatstuck.Run, tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(run.path, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock"))
    whatstuck.track(tiny_base, tiny_run, tiny_heldout, copied, **SETTINGS)
    with pytest.raises(WhatStuckError, match=r"6 rows of .* are not in"):
        whatstuck.track(tiny_base, tiny_run, tiny_rows, copied, **SETTINGS)


def test_changed_settings_are_refused_by_name(
    run: whatstuck.Run, tiny_base: Path, tiny_run: Path, tiny_heldout: Path
) -> None:
    with pytest.raises(WhatStuckError, match="seed: 3 before, 4 now"):
        whatstuck.track(tiny_base, tiny_run, tiny_heldout, run.path, **SETTINGS | {"seed": 4})


def test_another_model_is_refused_and_a_known_one_keeps_its_name(
    run: whatstuck.Run, tiny_base: Path, tiny_run: Path, tiny_full_run: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    with pytest.raises(WhatStuckError, match="was made for the model"):
        whatstuck.track(tiny_full_run / "checkpoint-8", tiny_run, tiny_heldout, run.path, **SETTINGS)
    with pytest.raises(WhatStuckError, match="is the model itself"):
        whatstuck.track(tiny_base, tiny_run, tiny_heldout, tmp_path / "x", baseline=[str(tiny_base)], **SETTINGS)
    moved, copied = shutil.copytree(tiny_base, tmp_path / "another-name"), shutil.copytree(run.path, tmp_path / "run")
    whatstuck.track(moved, tiny_run, tiny_heldout, copied, **SETTINGS)
    assert parts(copied) == parts(run.path)


def test_a_foreign_folder_and_a_second_writer_are_refused(run: whatstuck.Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(WhatStuckError, match="not a run folder"), RunFolder(tmp_path).writing():
        pass
    with RunFolder(run.path).writing(), pytest.raises(WhatStuckError, match="another process"):  # noqa: SIM117 - order
        with RunFolder(run.path).writing():
            pass


def test_full_and_sharded_checkpoints(tiny_base: Path, tiny_full_run: Path, tiny_heldout: Path, tmp_path: Path) -> None:
    run = whatstuck.track(tiny_base, tiny_full_run, tiny_heldout, tmp_path / "run", **SETTINGS)
    assert run.steps == [0, 8, 32]
    assert [entry["kind"] for entry in run.manifest["track"]["checkpoints"]] == ["base", "full", "full"]


def test_training_rows_alone_leave_it_to_the_trainers_own_metric(
    tiny_base: Path, tiny_run: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    run = whatstuck.track(tiny_base, tiny_run, tiny_rows, tmp_path / "run", split="train", **SETTINGS)
    assert "training rows" in " ".join(run.manifest["track"]["warnings"])
    assert run.verdict["signals"]["metric"] == "eval_loss"
    assert run.verdict["confidence"] == "low"


def test_without_any_heldout_metric_it_cannot_tell(
    tiny_base: Path, tiny_run: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    for step in (1, 32):
        shutil.copytree(tiny_run / f"checkpoint-{step}", tmp_path / "out" / f"checkpoint-{step}")
        (tmp_path / "out" / f"checkpoint-{step}" / "trainer_state.json").unlink()
    run = whatstuck.track(tiny_base, tmp_path / "out", tiny_rows, tmp_path / "run", split="train", **SETTINGS)
    assert run.verdict["decision"] == "cannot tell"
    assert run.verdict["keep_step"] is None


KILLER = """
import os, signal, sys
from whatstuck import runs
from whatstuck.interactions import prefix_walk

where, count = sys.argv[1], int(sys.argv[2])
left = [count]

def counted(function):
    def call(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

if where == "write":  # after the bytes, before the rename
    os.fsync = counted(os.fsync)
else:
    prefix_walk._outputs = counted(prefix_walk._outputs)
sys.argv = ["whatstuck", *sys.argv[3:]]
from whatstuck.cli import main
main()
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes(
    run: whatstuck.Run, tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    """Five kills, one after the other, on one run: two inside a write, three inside a forward pass."""
    flags = [
        "track",
        "--model",
        tiny_base,
        "--checkpoints",
        tiny_run,
        "--data",
        tiny_heldout,
        "--out",
        tmp_path / "run",
    ]
    flags += ["--players", "5", "--rows", "6", "--seed", "3", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for where, count in (("forward", 20), ("write", 3), ("forward", 61), ("write", 9), ("forward", 7)):
        killed = subprocess.run(
            [sys.executable, "-c", KILLER, where, str(count), *map(str, flags)],
            capture_output=True,
            env=environment,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    finished = subprocess.run(
        [sys.executable, "-m", "whatstuck", *map(str, flags)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["keep_step"] == run.verdict["keep_step"]
    assert parts(tmp_path / "run") == parts(run.path)
    manifests = [RunFolder(folder).manifest()["track"] for folder in (tmp_path / "run", run.path)]
    for manifest in manifests:
        del manifest["started"], manifest["seconds"]
    assert manifests[0] == manifests[1]
    leftovers = [path.name for path in (tmp_path / "run").rglob("*") if path.name.startswith((".tmp", ".step"))]
    assert not leftovers


def test_a_checkpoint_that_is_deleted_meanwhile_is_left_out(
    tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for step in (2, 8):
        shutil.copytree(tiny_run / f"checkpoint-{step}", out / f"checkpoint-{step}")
    evaluate = heldout.evaluate

    def evaluate_and_delete(*arguments: Any) -> Any:
        shutil.rmtree(out / "checkpoint-2", ignore_errors=True)
        return evaluate(*arguments)

    monkeypatch.setattr(heldout, "evaluate", evaluate_and_delete)
    run = whatstuck.track(tiny_base, out, tiny_heldout, tmp_path / "run", players=3, rows=2, eval_rows=8)
    assert run.steps == [0, 8]
    assert [entry["step"] for entry in run.manifest["track"]["checkpoints"]] == [0, 8]
    assert run.verdict["other_rules"]["last checkpoint"]["keep_step"] == 8
