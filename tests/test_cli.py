"""The verbs from the shell: help by example, one JSON line, one line per mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import whatstuck
from whatstuck import demo


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "whatstuck", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("verb", ["train", "track", "report", "demo"])
def test_help_explains_by_example(verb: str) -> None:
    result = call(verb, "--help")
    assert result.returncode == 0
    assert f"whatstuck {verb} " in result.stdout.replace("Usage: whatstuck", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["track", "--model", "x", "--out", "y", "--data", "z"], "--checkpoints is missing"),
        (["track", "--model", "nowhere", "--out", "y", "--data", "z", "--checkpoints", "c"], "no model 'nowhere'"),
        (["track", "--config", "absent.yaml"], "cannot be read"),
        (["report", "absent"], "absent"),
        (["train", "--model", "nowhere", "--data", "absent.jsonl", "--out", "y"], "no model 'nowhere'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "whatstuck", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not result.stdout
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_in_the_config_is_named(tmp_path: Path) -> None:
    config = tmp_path / "track.yaml"
    config.write_text("model: x\ncheckpoints: [c]\ndata: d\nout: o\nplayer: 6\n")
    result = call("track", "--config", config)
    assert result.returncode == 2
    assert "'player' is no setting of track: did you mean players?" in result.stderr


def test_config_dry_run_track_and_report(tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tmp_path: Path) -> None:
    config = tmp_path / "track.yaml"
    config.write_text(
        f"model: {tiny_base}\ncheckpoints: ['{tiny_run}/checkpoint-8']\ndata: {tiny_heldout}\nplayers: 4\n"
    )
    out = tmp_path / "run"
    planned = call("track", "--config", config, "--out", out, "--rows", 2, "--dry-run", "--json")
    cost = json.loads(planned.stdout)
    assert cost["masked_prompts"] == 2 * 2 * 16
    assert cost["tokens_shared"] < cost["tokens_plain"]
    assert not out.exists()
    tracked = call("track", "--config", config, "--out", out, "--rows", 2, "--json")
    assert tracked.returncode == 0, tracked.stderr
    assert len(tracked.stdout.splitlines()) == 1
    assert json.loads(tracked.stdout)["report"] == str(out / "report.html")
    page = (out / "report.html").read_text(encoding="utf-8")
    (out / "report.html").unlink()
    assert call("report", out).returncode == 0
    assert (out / "report.html").read_text(encoding="utf-8") == page
    words = [player["text"] for row in whatstuck.load_run(out).rows.to_pylist() for player in row["players"]]
    assert any(word in page for word in words)
    assert call("report", out, "--no-text").returncode == 0
    shared = (out / "report.html").read_text(encoding="utf-8")
    for row in whatstuck.load_run(out).rows.to_pylist():
        assert row["prompt"][20:60] not in shared


def test_the_demo_end_to_end_on_a_tiny_model(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo itself, with another model and fewer steps: rows, training, tracking, page."""
    monkeypatch.setattr(demo, "MODEL", str(tiny_base))
    monkeypatch.setattr(demo, "STEPS", 4)
    monkeypatch.setattr(demo, "TRAIN_ROWS", 40)
    monkeypatch.setattr(demo, "PROBE", demo.PROBE | {"players": 4, "rows": 3})
    run = demo.run_demo(tmp_path / "demo")
    assert run.steps == [0, 1, 2, 4]
    assert run.verdict["keep_step"] in run.steps
    assert run.report.stat().st_size < 2_000_000
    assert demo.run_demo(tmp_path / "demo").verdict == run.verdict
    assert run.manifest["track"]["data"]["assumed"] is False
    assert not run.manifest["track"]["warnings"]
    trained_on = whatstuck.track(
        tiny_base, tmp_path / "demo" / "training", tmp_path / "demo" / "rows.jsonl", tmp_path / "run", players=4, rows=3
    )
    assert trained_on.manifest["track"]["data"]["split"] == "train"


def test_the_demo_shows_the_stored_run(tmp_path: Path) -> None:
    for _ in range(2):  # it is there already
        run = demo.show_frozen_prompts(tmp_path)
    arms = run.manifest["generalize"]["verdict"]["arms"]
    assert set(arms) == {"frozen", "diverse"}
    assert arms["diverse"]["verdict"] == "follows instructions"
    page = run.report.read_text(encoding="utf-8")
    assert "A stored run" in page
    assert str(Path.home()) not in page + (run.path / "run.json").read_text(encoding="utf-8")
    assert run.generalization.num_rows == len(run.manifest["generalize"]["task"]["variants"]) * 2 * 8  # arms, steps
