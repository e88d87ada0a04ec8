"""`whatstuck generalize`, whole: a small model that was trained on a toy task, resumed, extended, refused."""

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
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import helpers
import toy_task
import whatstuck
from whatstuck import WhatStuckError
from whatstuck.cli import app
from whatstuck.generalization.generalizing import generalize
from whatstuck.generalization.planning import plan
from whatstuck.generalization.schemas import GENERALIZATION, REPLIES
from whatstuck.generalization.settings import GeneralizeSettings
from whatstuck.runs import read_table, table_metadata

NAMES = [variant.name for variant in toy_task.feelings().variants]


def settings_of(base: Path, out: Path, **others: Any) -> GeneralizeSettings:
    given = {"model": str(base), "task": "feelings", "out": out, "items": 24, "device": "cpu", **others}
    return GeneralizeSettings.read(**given)


def ask(base: Path, checkpoints: Path | str, out: Path, **others: Any) -> Path:
    return generalize(settings_of(base, out, checkpoints=str(checkpoints), **others))


def two(run: Path) -> str:
    return str(run / "checkpoint-[28]")


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ask(tiny_base, two(tiny_run), tmp_path_factory.mktemp("generalize") / "run")


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def tables(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def records(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_table(folder / "generalization.parquet").to_pylist()
    return found


def section(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = manifest["generalize"]
    return found


def test_every_cell_has_a_row_and_every_reply_a_part(finished: Path) -> None:
    table = read_table(finished / "generalization.parquet")
    assert table.schema.remove_metadata().equals(GENERALIZATION)
    rows = table.to_pylist()
    assert [(row["step"], row["variant"]) for row in rows] == [(step, name) for step in (0, 2, 8) for name in NAMES]
    for row in rows:
        assert (row["task"], row["arm"], row["decoding"], row["items"]) == ("feelings", "sft", "greedy", 24)
        assert 0 <= row["low"] <= row["success"] <= row["high"] <= 1
        assert row["unsolvable"] > 0
        part = read_table(finished / "generalization" / "sft" / f"step-{row['step']:06d}" / f"{row['variant']}.parquet")
        assert part.schema.remove_metadata().equals(REPLIES)
        assert part.num_rows == 24
        assert sum(part["success"].to_pylist()) == round(24 * row["success"])
    assert [row["kind"] for row in rows[:4]] == ["training", "instruction", "harder", "fake"]
    assert (finished / "report.html").is_file()


def test_the_manifest_says_what_was_asked_of_whom(finished: Path, tiny_base: Path) -> None:
    about = section(finished)
    assert about["settings"]["seed"] == 0
    assert about["unseen"] is True
    assert about["failures"] == {}
    assert "items" not in about["settings"]
    assert about["task"]["variants"][3]["shown"]["pairs"][0] == ["glad", "sad"]
    assert about["task"]["variants"][3]["scored"]["pairs"][0] == ["glad", "glad"]
    arm = about["arms"]["sft"]
    assert [entry["kind"] for entry in arm["checkpoints"]] == ["base", "adapter", "adapter"]
    assert arm["model"]["path"] == str(tiny_base)
    assert about["verdict"]["sentences"]
    assert about["verdict"]["arms"]["sft"]["step"] == 8


def test_a_second_call_finds_everything_done(
    copied: Path, tiny_base: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tables(copied)
    monkeypatch.setattr("whatstuck.generalization.generalizing.CheckpointedModel", None)
    ask(tiny_base, two(tiny_run), copied)
    ask(tiny_base, two(tiny_run), copied, items=5)  # fewer are there already
    assert tables(copied) == before


def test_an_extended_run_is_the_same_as_one_made_at_once(
    finished: Path, tiny_base: Path, tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ask(tiny_base, tiny_run / "checkpoint-2", out, variants=["ID"], items=7)
    assert [(row["step"], row["variant"], row["items"]) for row in records(out)] == [(0, "ID", 7), (2, "ID", 7)]
    ask(tiny_base, tiny_run / "checkpoint-8", out, variants=["Fake"])
    seen = [(row["step"], row["variant"], row["items"]) for row in records(out)]
    assert seen == [(0, "ID", 7), (0, "Fake", 24), (2, "ID", 7), (8, "Fake", 24)]  # only what the call names
    ask(tiny_base, two(tiny_run), out)
    assert tables(out) == tables(finished)


def test_a_killed_call_goes_on_to_the_same_tables(finished: Path, tiny_base: Path, tiny_run: Path) -> None:
    out = finished.parent / "killed"
    code = (
        "import sys; from pathlib import Path; from test_generalize import ask; "
        "ask(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tiny_base), two(tiny_run), str(out)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("generalization/sft/*/*.parquet"))) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "generalization.parquet").exists()
    ask(tiny_base, two(tiny_run), out)
    assert tables(out) == tables(finished)


def test_another_arm_stands_beside_the_first_and_borrows_the_base(
    copied: Path, tiny_base: Path, tiny_full_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whatstuck.generalization import generalizing

    asked: list[tuple[int, str]] = []
    real = generalizing.Generalizing._ask_one

    def noted(self: Any, model: Any, checkpoint: Any, variant: Any, progress: Any) -> None:
        asked.append((checkpoint.step, variant.name))
        real(self, model, checkpoint, variant, progress)

    monkeypatch.setattr(generalizing.Generalizing, "_ask_one", noted)
    before = records(copied)
    ask(tiny_base, tiny_full_run / "checkpoint-32", copied, arm="full")
    assert asked == [(32, name) for name in NAMES]
    rows = records(copied)
    assert repr(rows[: len(before)]) == repr(before)  # NaN where nothing is known, which equals nothing
    assert [(row["arm"], row["step"]) for row in rows[len(before) :]] == [("full", s) for s in (0, 32) for _ in NAMES]
    assert list(section(copied)["arms"]) == ["sft", "full"]
    assert list(section(copied)["verdict"]["arms"]) == ["sft", "full"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"seed": 1}, "seed: 0 before, 1 now"),
        ({"temperature": 0.5}, "temperature: None before, 0.5 now"),
        ({"options": {"padding": 2}}, "options: "),
        ({"chat_template": "never"}, "chat_template: 'auto' before, 'never' now"),
        ({"thought": True}, "thought of arm 'sft': False before, True now"),
        ({"task": "counting"}, r"about another task \(feelings, not counting\)"),
    ],
)
def test_a_changed_setting_is_refused_by_its_name(
    copied: Path, tiny_base: Path, tiny_run: Path, others: dict[str, Any], message: str
) -> None:
    before = tables(copied)
    with pytest.raises(WhatStuckError, match=message):
        ask(tiny_base, two(tiny_run), copied, **others)
    assert tables(copied) == before


def test_another_training_or_model_in_one_arm_is_refused(
    copied: Path, tiny_base: Path, tiny_run: Path, tiny_full_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(WhatStuckError, match=r"training in arm 'sft' \(step 8 differ\): give it another --arm"):
        ask(tiny_base, tiny_full_run / "checkpoint-8", copied)
    shutil.copytree(tiny_full_run / "checkpoint-32", tmp_path / "other-base")
    with pytest.raises(WhatStuckError, match="the model"):
        ask(tmp_path / "other-base", two(tiny_run), copied)


def test_a_task_that_asks_otherwise_is_refused(
    copied: Path, tiny_base: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_task.ScenePrompt, "render", lambda _self, item, _shown: f"Please! {item.prompt}")
    with pytest.raises(WhatStuckError, match="its prompts or replies were changed"):
        ask(tiny_base, two(tiny_run), copied)


def test_a_checkpoint_that_diverged_can_be_left_out(tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / "checkpoint-8", tmp_path / "out" / "checkpoint-8")
    broken = tmp_path / "out" / "checkpoint-9"
    shutil.copytree(tiny_run / "checkpoint-8", broken)
    weights = load_file(broken / "adapter_model.safetensors")
    save_file({name: value * float("nan") for name, value in weights.items()}, broken / "adapter_model.safetensors")
    out = tmp_path / "run"
    with pytest.raises(WhatStuckError, match="NaN"):
        ask(tiny_base, tmp_path / "out", out, variants=["ID"], items=6)
    assert 9 in [entry["step"] for entry in section(out)["arms"]["sft"]["checkpoints"]]
    ask(tiny_base, tmp_path / "out" / "checkpoint-8", out, variants=["ID"], items=6)
    assert [row["step"] for row in records(out)] == [0, 8]
    assert [entry["step"] for entry in section(out)["arms"]["sft"]["checkpoints"]] == [0, 8]
    # what takes its place is another checkpoint, and not refused for that
    shutil.rmtree(broken)
    shutil.copytree(tiny_run / "checkpoint-2", broken)
    ask(tiny_base, broken, out, variants=["ID"], items=6)
    assert [row["step"] for row in records(out)] == [0, 8, 9]


def test_a_variant_that_does_not_fit_any_more_can_be_left_out(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whatstuck.generalization import preparing

    out = tmp_path / "run"
    generalize(settings_of(tiny_base, out, variants=["ID", "Long"], items=5))

    def refuse(cell: Any, *_: Any) -> None:
        if cell.variant.name == "Long":
            raise WhatStuckError("variant Long: too long")

    monkeypatch.setattr(preparing, "check_context", refuse)
    with pytest.raises(WhatStuckError, match="variant Long: too long"):
        generalize(settings_of(tiny_base, out, variants=["ID", "Long"], items=8))
    generalize(settings_of(tiny_base, out, variants=["ID"], items=8))
    assert [(row["variant"], row["items"]) for row in records(out)] == [("ID", 8), ("Long", 5)]
    assert section(out)["arms"]["sft"]["variants"] == ["ID", "Long"]


def test_a_variant_without_items_is_refused_only_where_it_is_wanted(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = toy_task.Scenes.pose
    monkeypatch.setattr(toy_task.Scenes, "pose", lambda *all_: real(*all_) if all_[2] == all_[3] else None)
    out = tmp_path / "run"
    generalize(settings_of(tiny_base, out, variants=["ID", "Other"], items=5))
    assert [row["variant"] for row in records(out)] == ["ID", "Other"]
    for variants in (None, ["Fake"]):
        with pytest.raises(
            WhatStuckError, match=r"^variant Fake: no item .* or leave Fake out with --variants$"
        ) as error:
            generalize(settings_of(tiny_base, out, variants=variants, items=5))
        assert "\n" not in str(error.value)
    assert [row["variant"] for row in records(out)] == ["ID", "Other"]


def test_checkpoints_that_are_gone_keep_what_they_said(copied: Path, tiny_base: Path, tiny_run: Path) -> None:
    manifest = json.loads((copied / "run.json").read_text(encoding="utf-8"))
    entry = manifest["generalize"]["arms"]["sft"]["checkpoints"][1]
    entry["path"] = str(copied / "gone" / "checkpoint-2")
    (copied / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    (copied / "generalization" / "sft" / "step-000002" / "Fake.parquet").unlink()
    ask(tiny_base, tiny_run / "checkpoint-8", copied)
    assert [row["variant"] for row in records(copied) if row["step"] == 2] == NAMES[:-1]
    assert section(copied)["arms"]["sft"]["checkpoints"][1] == entry


def test_draws_are_a_table_of_their_own(tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = ask(tiny_base, tiny_run / "checkpoint-8", tmp_path / "run", variants="ID,Fake", items=12, temperature=0.5)
    rows = records(out)
    assert [row["decoding"] for row in rows] == ["greedy", "temperature 0.5"] * 4
    part = read_table(out / "generalization" / "sft" / "step-000008" / "ID.parquet")
    assert part["sample"].to_pylist() == [-1] * 12 + [0] * 12
    assert table_metadata(part)["identity"]["settings"]["temperature"] == 0.5


def test_the_base_alone_and_checkpoint_0_in_its_place(tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = generalize(settings_of(tiny_base, tmp_path / "base", variants=["ID"], items=6))
    assert [row["step"] for row in records(out)] == [0]
    shutil.copytree(tiny_run / "checkpoint-1", tmp_path / "out" / "checkpoint-0")
    other = ask(tiny_base, tmp_path / "out", tmp_path / "run", variants=["ID"], items=6)
    assert section(other)["arms"]["sft"]["checkpoints"][0]["kind"] == "adapter"


def test_a_failing_check_is_counted_in_the_table(tiny_base: Path, tmp_path: Path) -> None:
    out = generalize(settings_of(tiny_base, tmp_path / "run", variants=["ID"], options={"broken": True}))
    (row,) = records(out)
    assert row["failed"] > 0
    assert row["timed_out"] > 0
    said = section(out)["failures"]
    assert "TimeoutError" in said
    assert sum(count for text, count in said.items() if text.startswith("ZeroDivisionError: ")) >= row["failed"]
    generalize(settings_of(tiny_base, out, variants=["ID"], items=6, options={"broken": True}))
    assert section(out)["failures"] == said  # they belong to parts, and are not counted again


def test_failures_of_a_guarded_checker_and_what_was_trained(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "def judge(row, answer):\n    if answer == row['gold']:\n        return True\n"
        "    raise LookupError(f\"nothing about {row['gold']}\\nand more\")\n",
        encoding="utf-8",
    )
    rows = helpers.rows(6, seed=5)
    items = "".join(f"  - {json.dumps({'ask': row['prompt'], 'label': row['completion']})}\n" for row in rows)
    template = "answer: label\ntemplates: {training: '{ask}', polite: 'Please. {ask}'}\nchecker: judge.py:judge\n"
    (tmp_path / "mine.yaml").write_text(f"items:\n{items}{template}", encoding="utf-8")
    out = generalize(settings_of(tiny_base, tmp_path / "run", task=str(tmp_path / "mine.yaml"), items=6))
    assert all(
        text.startswith("LookupError: nothing about ") and "more" not in text for text in section(out)["failures"]
    )
    assert sum(section(out)["failures"].values()) >= 12
    assert section(out)["verdict"]["arms"]["sft"]["verdict"] == "cannot tell"  # nothing is known of the model
    assert section(out)["unseen"] is False
    train = "".join(json.dumps({"ask": row["prompt"], "label": row["completion"]}) + "\n" for row in rows[:2])
    (tmp_path / "train.jsonl").write_text(train, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(f"items:\n{items}{template}train: train.jsonl\n", encoding="utf-8")
    out = generalize(settings_of(tiny_base, tmp_path / "known", task=str(tmp_path / "mine.yaml"), items=6))
    assert section(out)["unseen"] is True


def test_episodes_of_the_verb(tiny_base: Path, tmp_path: Path) -> None:
    out = generalize(settings_of(tiny_base, tmp_path / "run", task="counting", episodes=True, items=6))
    (row,) = records(out)
    assert row["success"] == 0.0
    assert section(out)["settings"]["episodes"] is True


def test_it_joins_a_run_of_another_verb(tiny_base: Path, tiny_run: Path, tiny_rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    whatstuck.track(tiny_base, tiny_run / "checkpoint-8", tiny_rows, out, rows=2, players=3, device="cpu")
    before = tables(out)
    ask(tiny_base, tiny_run / "checkpoint-8", out, variants=["ID"], items=6)
    after = tables(out)
    assert before.items() <= after.items()
    manifest = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert {"track", "generalize"} <= set(manifest)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Does it survive other wording" in page
    assert "Which checkpoint to keep" in page


# --- bad input


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"task": "chess"}, "unknown task 'chess': use .*feelings"),
        ({"variants": ["ID", "Rhymed"]}, "feelings has no variant 'Rhymed': it has ID, Other, Long, Fake"),
        ({"options": {"colour": 3}}, "'colour' is no option of the task feelings: it has padding"),
        ({"options": {"paddings": 3}}, "'paddings' is no option of the task feelings: did you mean padding."),
        ({"episodes": True}, "the task feelings has no turns: leave --episodes out"),
        ({"checkpoints": "nothing-*"}, "no checkpoint matches"),
        ({"options": {"padding": 40}}, "variant Long: a prompt of .* do not fit the model's context of 256"),
        ({"model": "nowhere"}, "no model 'nowhere' here"),
        ({"task": "missing.yaml"}, "missing.yaml"),
    ],
)
def test_bad_input_is_one_line(tiny_base: Path, tmp_path: Path, others: dict[str, Any], message: str) -> None:
    given = {"model": str(tiny_base), "task": "feelings", "out": tmp_path / "run", "device": "cpu", **others}
    with pytest.raises(WhatStuckError, match=message) as caught:
        generalize(GeneralizeSettings.read(**given))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "^give either --task or --template-variants$"),
        ({"task": "feelings", "template_variants": ["a"]}, "give either --task or --template-variants"),
        ({"task": "feelings", "training_wording": "a"}, "belongs to --template-variants"),
        ({"task": "mine.yaml", "options": {"a": 1}}, "a file holds its own"),
        ({"task": "feelings", "options": ["cards"]}, "give options as name=value"),
        ({"task": "feelings", "arm": "a/b"}, "use letters, digits"),
        ({"task": "feelings", "items": 0}, "--items: .*greater than or equal to 1"),
        ({"task": "feelings", "temperature": 0}, "--temperature: .*greater than 0"),
        ({"task": "feelings", "item": 3}, "'item' is no setting of generalize: did you mean items"),
        ({"task": "feelings", "variants": []}, "--variants"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(WhatStuckError, match=message):
        GeneralizeSettings.read(model="m", out="run", **given)


def test_options_are_read_as_yaml() -> None:
    settings = GeneralizeSettings.read(model="m", out="run", task="t", options=["cards=3", "thought=true", "a=b"])
    assert settings.options == {"cards": 3, "thought": True, "a": "b"}


def test_a_name_that_is_no_file_is_refused(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from whatstuck.generalization import choosing

    task = toy_task.feelings()
    odd = replace(task, variants=(replace(task.variants[0], name="a/b"),))
    monkeypatch.setattr(choosing, "make_task", lambda *_, **__: odd)
    with pytest.raises(WhatStuckError, match="variant name 'a/b' cannot be a file name"):
        generalize(settings_of(tiny_base, tmp_path / "run"))


# --- the command line


def test_the_verb_speaks_and_plans(tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = [
        "generalize",
        "--model",
        str(tiny_base),
        "--checkpoints",
        str(tiny_run / "checkpoint-8"),
        "--device",
        "cpu",
    ]
    flags += ["--task", "feelings", "--variants", "ID,Fake", "--items", "8", "--out", str(out)]
    planned = CliRunner().invoke(app, [*flags, "--dry-run", "--json"])
    assert planned.exit_code == 0, planned.output
    found = json.loads(planned.stdout)
    assert (found["variants"], found["checkpoints"], found["replies"]) == (["ID", "Fake"], [0, 8], 32)
    assert found["seconds"] > 0
    assert not out.exists()
    done = CliRunner().invoke(app, [*flags, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["arms"]["sft"]["step"] == 8
    again = CliRunner().invoke(app, flags)
    assert again.exit_code == 0
    assert "Report: " in again.stdout
    wrong = CliRunner().invoke(app, [*flags, "--seed", "4"])
    assert wrong.exit_code == 2
    assert wrong.stderr.count("\n") == 1


def test_settings_come_from_a_file(tiny_base: Path, tmp_path: Path) -> None:
    config = tmp_path / "g.yaml"
    out = tmp_path / "run"
    lines = [f"model: {tiny_base}", "task: feelings", "variants: [ID]", "items: 5", f"out: {out}"]
    config.write_text("\n".join([*lines, "options: {padding: 1}", "device: cpu"]), encoding="utf-8")
    done = CliRunner().invoke(app, ["generalize", "--config", str(config), "--items", "6"])
    assert done.exit_code == 0, done.output
    assert records(out)[0]["items"] == 6


def test_a_plan_counts_draws_too(tiny_base: Path, tmp_path: Path) -> None:
    planned = plan(settings_of(tiny_base, tmp_path / "run", temperature=1.0, variants=["ID"]))
    assert planned["replies"] == 48
    assert planned["unsolvable"]["ID"] > 0
    assert planned["longest_reply"] == 4
    assert planned["memory_gb"] > 0


def test_a_plan_leaves_out_what_is_there_and_says_it_in_words(tiny_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    generalize(settings_of(tiny_base, out, variants=["ID"]))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    whole = settings_of(tiny_base, out, variants=["ID", "Fake"], arm="another")
    planned = plan(whole)  # the untouched model was asked in the other arm
    assert (planned["replies"], planned["replies_there"]) == (48, 24)
    assert planned["seconds"] > 0
    assert plan(settings_of(tiny_base, out, variants=["ID"]))["seconds"] == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    flags = ["generalize", "--model", str(tiny_base), "--task", "feelings", "--out", str(out), "--items", "24"]
    said = CliRunner().invoke(app, [*flags, "--variants", "ID,Fake", "--device", "cpu", "--dry-run"])
    assert said.exit_code == 0, said.output
    assert "variants: ID, Fake\n" in said.stdout
    assert "[" not in said.stdout
