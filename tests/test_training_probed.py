"""`whatstuck train --run`: the training probes itself where it saves."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import whatstuck
from whatstuck import WhatStuckError
from whatstuck.cli import app

PROBE = {"players": 3, "rows": 3, "eval_rows": 16, "probe_budget": None}


def settings(base: Path, rows: Path, folder: Path, **others: Any) -> dict[str, Any]:
    found = {
        "model": str(base),
        "data": str(rows),
        "out": str(folder / "out"),
        "run": str(folder / "run"),
        "probe": PROBE,
        "heldout": 16,
        "max_steps": 4,
        "save_steps": 4,
        "eval_rows": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "use_cpu": True,
    }
    return found | others


@pytest.fixture(scope="module")
def probed(tiny_base: Path, tiny_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    whatstuck.train(settings(tiny_base, tiny_rows, folder))
    return folder


def test_it_probes_where_it_saves(probed: Path) -> None:
    run = whatstuck.load_run(probed / "run")
    assert run.steps == [0, 1, 2, 4]
    section = run.manifest["track"]
    names = [Path(entry["path"]).name for entry in section["checkpoints"][1:]]
    assert names == ["checkpoint-1", "checkpoint-2", "checkpoint-4"]
    assert section["data"]["assumed"] is False
    assert section["live"]["kept"] in {None, f"kept/checkpoint-{run.verdict['keep_step']}"}
    state = json.loads((probed / "out" / "checkpoint-4" / "trainer_state.json").read_text(encoding="utf-8"))
    assert [e["step"] for e in state["log_history"] if "eval_whatstuck_rho_emerged" in e] == [1, 2, 4]


def test_a_later_track_does_not_take_our_signals_for_metrics(probed: Path, tiny_base: Path, tmp_path: Path) -> None:
    run = whatstuck.track(
        tiny_base, probed / "out", probed / "out" / "heldout.jsonl", tmp_path / "run", players=3, rows=2, eval_rows=8
    )
    assert [name for name in run.manifest["track"]["trainer_state"] if "whatstuck" in name] == []


def test_a_finished_training_is_left_alone_and_its_page_finished(
    probed: Path, tiny_base: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    (probed / "run" / "verdict.json").unlink()
    whatstuck.train(settings(tiny_base, tiny_rows, probed))
    assert whatstuck.load_run(probed / "run").verdict["decision"] in {"keep", "cannot tell"}
    with pytest.raises(WhatStuckError, match="cannot be probed any more"):
        whatstuck.train(settings(tiny_base, tiny_rows, probed, run=str(tmp_path / "other")))


def test_the_rule_may_end_it(tiny_base: Path, tiny_rows: Path, tmp_path: Path) -> None:
    from whatstuck.stopping import FixedEpochs

    probe = {**PROBE, "stop": True, "rule": FixedEpochs(0.1)}
    out = whatstuck.train(settings(tiny_base, tiny_rows, tmp_path, probe=probe))
    assert whatstuck.load_run(tmp_path / "run").manifest["track"]["live"]["stopped_at"] == 2
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-0", "checkpoint-1", "checkpoint-2"]


def test_from_the_command_line(tiny_base: Path, tiny_rows: Path, tmp_path: Path) -> None:
    config = settings(tiny_base, tiny_rows, tmp_path)
    del config["run"]
    (tmp_path / "sft.yaml").write_text(json.dumps(config), encoding="utf-8")
    arguments = ["train", "--config", str(tmp_path / "sft.yaml"), "--run", str(tmp_path / "run"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["keep_step"] == whatstuck.load_run(tmp_path / "run").verdict["keep_step"]
    assert Path(found["report"]).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": None}, "probe needs a run folder"),
        ({"heldout": 0}, "cannot be probed"),
        ({"probe": {"data": "x"}}, "probe: "),
        ({"probe": {"player": 3}}, "did you mean players"),
    ],
)
def test_wrong_settings_are_refused(
    changes: dict[str, Any], message: str, tiny_base: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(WhatStuckError, match=message):
        whatstuck.train(settings(tiny_base, tiny_rows, tmp_path, **changes))
