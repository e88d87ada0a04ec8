"""`whatstuck rows` on a real small training with planted faults: what it finds, and what it does with bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import helpers
import whatstuck
from live_training import make_trainer
from whatstuck import WhatStuckError
from whatstuck.cli import app
from whatstuck.rows.schemas import UNLEARNED, VERDICTS
from whatstuck.rows.thresholds import Thresholds

STEPS = 48
QUICK = Thresholds(base_prompts=1, base_shots=1, base_samples=4)


def planted() -> list[dict[str, str]]:
    """Rows of the rule, two of them with a second answer, one too long, and one that is not Latin."""
    good = [{"row_id": f"good-{i}", **row} for i, row in enumerate(helpers.rows(40, seed=12))]
    opposed = [{**good[i], "row_id": f"opposed-{i}", "completion": "furious"} for i in range(4)]
    long = {"row_id": "long", "prompt": " ".join(["the old farmer waited"] * 20), "completion": "zebra"}
    other = {"row_id": "other", "prompt": "Маша нашла кольцо. Как она?", "completion": "рада"}
    return [*good, *opposed, long, other]


def settings(base: Path, folder: Path) -> dict[str, Any]:
    return {
        "model": str(base),
        "data": str(folder / "train.jsonl"),
        "out": str(folder / "out"),
        "heldout": 0,
        "max_steps": STEPS,
        "save_steps": STEPS,
        "max_length": 90,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "use_cpu": True,
    }


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    helpers.write_jsonl(folder / "train.jsonl", planted())
    whatstuck.train(settings(tiny_base, folder))
    return folder


def find(base: Path, folder: Path, out: Path, **others: Any) -> whatstuck.Run:
    given = {"thresholds": QUICK, **others}
    return whatstuck.find_unlearned(base, folder / "out", folder / "train.jsonl", out, **given)


@pytest.fixture(scope="module")
def run(tiny_base: Path, trained: Path) -> whatstuck.Run:
    return find(tiny_base, trained, trained / "run")


def by_id(run: whatstuck.Run) -> dict[str, dict[str, Any]]:
    return {row["row_id"]: row for row in run.verdicts.to_pylist()}


def test_every_row_has_a_verdict_and_every_unlearned_one_a_cause(run: whatstuck.Run) -> None:
    assert run.verdicts.schema.remove_metadata().equals(VERDICTS)
    assert run.unlearned.schema.remove_metadata().equals(UNLEARNED)
    verdicts = by_id(run)
    assert list(verdicts) == [row["row_id"] for row in planted()]
    not_learned = {row_id for row_id, row in verdicts.items() if row["verdict"] != "learned"}
    assert set(run.unlearned["row_id"].to_pylist()) == not_learned
    summary = run.manifest["rows"]["summary"]
    assert summary["rows"] == 46
    assert summary["learned"] + summary["unstable"] + summary["unlearned"] == 46
    assert sum(summary["causes"].values()) == len(not_learned)
    assert 0 < summary["learned"] < 46


def test_the_planted_faults_are_named(run: whatstuck.Run) -> None:
    causes = {row["row_id"]: row for row in run.unlearned.to_pylist()}
    assert causes["long"]["cause"] == "not_trained"
    assert any("left this row out" in entry["sentence"] for entry in causes["long"]["evidence"])
    verdicts = by_id(run)
    for i in range(4):  # each pair has one prompt, so at most one of the two is answered
        pair = (f"good-{i}", f"opposed-{i}")
        lost = [row_id for row_id in pair if verdicts[row_id]["verdict"] != "learned"]
        assert lost
        for row_id in lost:
            assert causes[row_id]["cause"] == "data_conflict"
            other = pair[1 - pair.index(row_id)]
            assert [neighbour["row_id"] for neighbour in causes[row_id]["neighbours"]] == [other]


def test_exposures_are_those_of_the_training(run: whatstuck.Run) -> None:
    verdicts = by_id(run)
    assert verdicts["long"]["exposures"] == 0
    assert sum(row["exposures"] for row in verdicts.values()) == pytest.approx(
        STEPS * 8, abs=40
    )  # last batches are short
    first = run.trajectories(0).to_pylist()
    assert {row["exposures"] for row in first} == {0}


def test_the_page_and_the_export_are_there(run: whatstuck.Run) -> None:
    page = run.report.read_text(encoding="utf-8")
    assert "did not stick" in page
    assert "рада" in page or by_id(run)["other"]["verdict"] == "learned"
    records = [json.loads(line) for line in (run.path / "unlearned.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["id"] for record in records] == run.unlearned["row_id"].to_pylist()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".parquet", ".jsonl")
    }


def test_a_second_call_finds_everything_done(
    run: whatstuck.Run, tiny_base: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(run.path)
    monkeypatch.setattr("whatstuck.rows.finding.CheckpointedModel", None)
    find(tiny_base, trained, run.path)
    assert files(run.path) == before


def test_a_killed_call_goes_on_to_the_same_tables(run: whatstuck.Run, tiny_base: Path, trained: Path) -> None:
    out = trained / "killed"
    code = (
        "import whatstuck, sys; from pathlib import Path; from test_rows import find; "
        "find(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tiny_base), str(trained), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "trajectories").is_dir() or len(list((out / "trajectories").glob("step-*"))) < 3:
        assert process.poll() is None or process.returncode == 0
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(WhatStuckError, match="not finished"):
        _ = whatstuck.load_run(out).unlearned
    find(tiny_base, trained, out)
    assert files(out) == files(run.path)


def test_changed_settings_are_refused_by_name(run: whatstuck.Run, tiny_base: Path, trained: Path) -> None:
    with pytest.raises(WhatStuckError, match="checker: 'auto' before, 'exact' now"):
        find(tiny_base, trained, run.path, checker="exact")


def test_other_rows_in_the_same_run_are_refused(
    run: whatstuck.Run, tiny_base: Path, trained: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained / "out" / "checkpoint-1", other / f"checkpoint-{STEPS}")
    with pytest.raises(WhatStuckError, match=f"step {STEPS} differ"):
        whatstuck.find_unlearned(
            tiny_base, other, trained / "train.jsonl", run.path, training=trained / "out", thresholds=QUICK
        )


def test_a_callback_knows_the_rows_by_what_is_in_them(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    """Its dataset has no ids, so it names rows otherwise than the file does."""
    probe = whatstuck.WhatStuckCallback(
        tiny_heldout, tmp_path / "live", steps=[4, 8], probe_budget=None, players=3, rows=2, eval_rows=8,
        trajectories=True,
    )  # fmt: skip
    saving = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], **saving).train()
    assert probe.failure is None
    settings = tmp_path / "sft.yaml"
    settings.write_text("max_length: 200\n", encoding="utf-8")
    data = tmp_path / "train.jsonl"  # as this trainer's rows were made: the chat template, and the end behind it
    lines = [json.loads(line) for line in tiny_rows.read_text(encoding="utf-8").splitlines()]
    turns = [("user", "prompt"), ("assistant", "completion")]
    data.write_text(
        "".join(
            json.dumps({"messages": [{"role": role, "content": line[key]} for role, key in turns]}) + "\n"
            for line in lines
        ),
        encoding="utf-8",
    )
    run = whatstuck.find_unlearned(
        tiny_base, tmp_path / "out", data, tmp_path / "live", training=settings, thresholds=QUICK, probe_base=False
    )
    assert sum(run.verdicts["exposures"].to_pylist()) == 64
    assert "not_trained" not in run.manifest["rows"]["summary"]["causes"]
    assert run.manifest["track"]["live"]


def test_few_checkpoints_and_no_base_are_not_measured(tiny_base: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for step in (1, STEPS):
        shutil.copytree(trained / "out" / f"checkpoint-{step}", out / f"checkpoint-{step}")
        (out / f"checkpoint-{step}" / "exposures.parquet").unlink()
    run = whatstuck.find_unlearned(tiny_base, out, trained / "train.jsonl", tmp_path / "run", probe_base=False)
    assert run.manifest["rows"]["training"]["source"] == "assumed"
    missing = run.manifest["rows"]["summary"]["not_measured"]
    assert {"forgotten", "base_conflict", "knowledge_missing", "not_trained"} <= missing.keys()
    statuses = {(e["cause"], e["status"]) for row in run.unlearned.to_pylist() for e in row["evidence"]}
    assert ("forgotten", "not_measured") in statuses
    assert ("forgotten", "absent") not in statuses


def test_other_data_than_was_trained_on_is_refused(
    tiny_base: Path, trained: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(WhatStuckError, match="is not the file that"):
        whatstuck.find_unlearned(tiny_base, trained / "out", tiny_rows, tmp_path / "run")
    with pytest.raises(WhatStuckError, match="no checkpoint after step 0"):
        whatstuck.find_unlearned(tiny_base, trained / "out" / "checkpoint-0", trained / "train.jsonl", tmp_path / "run")


def test_the_command_line(run: whatstuck.Run, tiny_base: Path, trained: Path, tmp_path: Path) -> None:
    config = tmp_path / "rows.yaml"
    config.write_text(json.dumps({"thresholds": QUICK.model_dump()}), encoding="utf-8")
    arguments = ["rows", "--config", str(config), "--model", str(tiny_base), "--data", str(trained / "train.jsonl")]
    arguments += ["--checkpoints", str(trained / "out" / "checkpoint-*"), "--out", str(run.path)]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert "of 46 rows did not stick" in said.stdout
    line = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(line.stdout)["rows"] == 46
    plan = CliRunner().invoke(app, [*arguments, "--dry-run", "--json"])
    assert json.loads(plan.stdout)["not_trained"] == 1
    wrong = CliRunner().invoke(app, [*arguments, "--checker", "nobody"])
    assert wrong.exit_code == 2
    assert "unknown checker" in wrong.output


def test_an_empty_answer_is_one_line(tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text('{"prompt": "a b", "completion": " "}\n', encoding="utf-8")
    with pytest.raises(WhatStuckError, match="line 1: the completion is empty"):
        whatstuck.find_unlearned(tiny_base, tiny_run, data, tmp_path / "run")
