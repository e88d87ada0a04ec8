"""What a call of `generalize` fixes and says before it asks: longest reply, training wording, what is missing."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import helpers
from test_generalize import NAMES, ask, section, settings_of
from whatstuck import WhatStuckError
from whatstuck.cli import app
from whatstuck.generalization.choosing import find_task
from whatstuck.generalization.generalizing import generalize
from whatstuck.generalization.planning import plan
from whatstuck.generalization.preparing import Material
from whatstuck.generalization.settings import GeneralizeSettings
from whatstuck.runs import read_table, table_metadata

MISSING = "nothing can be compared with the training wording, which is not asked: add ID to --variants"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_the_longest_reply_belongs_to_an_arm(tiny_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    given: dict[str, Any] = {"variants": ["ID"], "items": 6}
    generalize(settings_of(tiny_base, out, **given))
    part = out / "generalization" / "sft" / "step-000000" / "ID.parquet"
    assert max(map(len, read_table(part)["reply"].to_pylist())) > 0
    with pytest.raises(
        WhatStuckError, match=r"\(max_new_tokens of arm 'sft': None before, 1 now\): keep them, or .* another --arm"
    ):
        generalize(settings_of(tiny_base, out, **given, max_new_tokens=1))
    generalize(settings_of(tiny_base, out, **given, max_new_tokens=1, arm="short"))
    short = read_table(out / "generalization" / "short" / "step-000000" / "ID.parquet")
    assert table_metadata(short)["identity"] != table_metadata(read_table(part))["identity"]
    assert set(short["cut"].to_pylist()) == {True}  # asked anew, not borrowed from the other arm
    assert section(out)["arms"]["short"]["settings"] == {"thought": False, "max_new_tokens": 1, "items": 6}
    assert "max_new_tokens" not in section(out)["settings"]
    with pytest.raises(WhatStuckError, match="max_new_tokens of arm 'short': 1 before, None now"):
        generalize(settings_of(tiny_base, out, **given, arm="short"))
    with pytest.raises(WhatStuckError, match=r"--max-new-tokens: .*greater than or equal to 1"):
        settings_of(tiny_base, out, max_new_tokens=0)


def test_arms_of_older_runs_go_on(tiny_base: Path, tmp_path: Path) -> None:
    """They do not know the setting."""
    out = tmp_path / "run"
    generalize(settings_of(tiny_base, out, variants=["ID"], items=6))
    manifest = json.loads((out / "run.json").read_text(encoding="utf-8"))
    del manifest["generalize"]["arms"]["sft"]["settings"]["max_new_tokens"]
    (out / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert Material(settings_of(tiny_base, out, variants=["ID"], items=6)).arm


@pytest.mark.parametrize("thought", [False, True])
def test_the_longest_reply_of_a_call_is_that_of_every_task(tmp_path: Path, *, thought: bool) -> None:
    given = {"model": "m", "out": tmp_path, "task": "feelings", "thought": thought, "max_new_tokens": 77}
    task = find_task(GeneralizeSettings.read(**given))
    assert (task.max_new_tokens, task.longest_thought) == (77, 77)


def test_a_missing_training_wording_is_said_at_once(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    plan(settings_of(tiny_base, out, variants=["Fake"], items=4))
    assert warnings(caplog) == [MISSING]
    caplog.clear()
    Material(settings_of(tiny_base, out, variants=["ID", "Fake"]))
    assert MISSING not in warnings(caplog)
    generalize(settings_of(tiny_base, out, variants=["ID"], items=4))
    caplog.clear()
    Material(settings_of(tiny_base, out, variants=["Fake"], items=4))  # the run holds it
    assert warnings(caplog) == []
    assert MISSING not in section(out)["warnings"]
    assert NAMES[0] == "ID"


@pytest.fixture
def wordings(tmp_path: Path) -> Path:
    """Folder of two files of the same rows, of which the second by name is what was trained."""
    rows = helpers.rows(30, seed=2)
    folder = tmp_path / "prompts"
    folder.mkdir()
    helpers.write_jsonl(folder / "asked.jsonl", [{**row, "prompt": f"Now: {row['prompt']} So?"} for row in rows])
    helpers.write_jsonl(folder / "told.jsonl", rows)
    return folder


@pytest.fixture
def trained(tiny_run: Path, tmp_path: Path) -> Callable[[Path], Path]:
    """Function that makes an output folder of a training on a data file."""

    def make(data: Path) -> Path:
        folder = tmp_path / f"trained on {data.stem}"
        shutil.copytree(tiny_run / "checkpoint-8", folder / "checkpoint-8")
        record = {"data": str(data), "data_sha256": hashlib.sha256(data.read_bytes()).hexdigest()}
        (folder / "whatstuck_train.json").write_text(json.dumps(record), encoding="utf-8")
        return folder

    return make


def test_the_wording_of_the_training_is_found_and_kept(
    tiny_base: Path,
    wordings: Path,
    trained: Callable[[Path], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, told = tmp_path / "run", trained(wordings / "told.jsonl")
    given: dict[str, Any] = {"task": None, "template_variants": str(wordings), "items": 4}
    ask(tiny_base, told, out, **given)
    assert [one["name"] for one in section(out)["task"]["variants"]] == ["training", "asked"]
    assert section(out)["unseen"] is False
    assert section(out)["warnings"][:2] == [
        "The wording of the training is 'told', in told.jsonl: it has the rows of the training (told.jsonl).",
        "30 of 30 rows asked were trained on, in one wording or another.",
    ]
    both = wordings.parent / "both.jsonl"
    both.write_text("".join((wordings / f"{name}.jsonl").read_text("utf-8") for name in ("asked", "told")), "utf-8")
    caplog.clear()
    ask(tiny_base, trained(both), out, **given, arm="diverse")
    assert [one["name"] for one in section(out)["task"]["variants"]] == ["training", "asked"]
    assert not any("taken because" in message for message in warnings(caplog))


def test_a_guessed_wording_is_warned_of_by_a_plan_too(
    tiny_base: Path, wordings: Path, tiny_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = ["generalize", "--model", str(tiny_base), "--checkpoints", str(tiny_run / "checkpoint-8")]
    flags += ["--variants", "told"]
    flags += ["--template-variants", str(wordings), "--out", str(tmp_path / "run"), "--items", "4", "--device", "cpu"]
    said = CliRunner().invoke(app, [*flags, "--max-new-tokens", "3", "--dry-run", "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["longest_reply"] == 3
    guess, missing, *_ = warnings(caplog)
    assert guess.startswith("The wording of the training is 'asked', in asked.jsonl: taken because it is the first by")
    assert missing == MISSING.replace("ID", "training")
