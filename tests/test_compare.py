"""Runs side by side: what is shared, what the one kept and the other lost, and the page that says so."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import whatstuck
from page_reader import Reader
from whatstuck import WhatStuckError
from whatstuck.dynamics.comparing import compare_runs
from whatstuck.report.comparison import render_comparison
from whatstuck.report.reading import read_run
from whatstuck.report.rules import rule_table
from whatstuck.runs import read_tensors, write_tensors

SETTINGS: dict[str, Any] = {"players": 4, "rows": 6, "seed": 3, "eval_rows": 24}

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def lora(tiny_base: Path, tiny_run: Path, tiny_heldout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoints = [tiny_run / "checkpoint-8", tiny_run / "checkpoint-32"]
    return whatstuck.track(
        tiny_base, checkpoints, tiny_heldout, tmp_path_factory.mktemp("runs") / "lora", **SETTINGS
    ).path


@pytest.fixture(scope="module")
def full(tiny_base: Path, tiny_full_run: Path, tiny_heldout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whatstuck.track(
        tiny_base, tiny_full_run, tiny_heldout, tmp_path_factory.mktemp("runs") / "full", **SETTINGS
    ).path


@pytest.fixture(scope="module")
def wider(tiny_base: Path, tiny_full_run: Path, tiny_heldout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of `full` again, probed on more rows."""
    out, last = tmp_path_factory.mktemp("runs") / "wider", tiny_full_run / "checkpoint-32"
    return whatstuck.track(tiny_base, last, tiny_heldout, out, **SETTINGS | {"rows": 12}).path


def copied(run: Path, folder: Path) -> Path:
    return shutil.copytree(run, folder, ignore=shutil.ignore_patterns(".lock"))


def edited(path: Path, edit: Edit) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def with_manifest(run: Path, folder: Path, edit: Edit) -> Path:
    new = copied(run, folder)
    edited(new / "run.json", lambda content: edit(content["track"]))
    return new


def with_rows(run: Path, folder: Path, edit: Edit) -> Path:
    new = copied(run, folder)
    table = pq.read_table(new / "rows.parquet")
    records = table.to_pylist()
    for record in records:
        edit(record)
    pq.write_table(pa.Table.from_pylist(records, schema=table.schema), new / "rows.parquet")
    return new


def with_part(part: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.read_table(part)
    pq.write_table(edit(table).replace_schema_metadata(table.schema.metadata), part)


def interactions_of(run: Path, step: int) -> Path:
    (part,) = (run / "interactions").glob(f"*/step-{step:06d}.parquet")
    return part


def pair_of(*runs: Path) -> dict[str, Any]:
    (pair,) = compare_runs(runs)["pairs"]
    return pair  # type: ignore[no-any-return] # JSON


def scaled(run: Path, factor: float) -> None:
    """Step 0 of another model: every value and interaction times a factor."""
    part = interactions_of(run, 0)
    column = pq.read_schema(part).get_field_index("value")
    with_part(part, lambda table: table.set_column(column, "value", pc.multiply(table["value"], factor)))
    (values,) = (run / "values").glob("*/step-000000.safetensors")
    tensors, metadata = read_tensors(values)
    write_tensors(values, tensors | {"values": tensors["values"] * factor}, metadata)


# --- real runs


def test_the_parts_agree_with_the_masses_of_each_run(lora: Path, full: Path) -> None:
    found = compare_runs([lora, full])
    (pair,) = found["pairs"]
    assert pair["rows"] == 6
    assert pair["base"] == {"same": True, "difference": 0.0, "difference_mass": 0.0, "why": ""}
    since = {name: part["value"] for name, part in pair["since"].items()}
    for side, run in zip(("a", "b"), found["runs"], strict=True):
        assert run["step"] == run["keep_step"]
        recorded = {
            row["set"]: row["value"]
            for row in whatstuck.load_run({"a": lora, "b": full}[side]).metrics.to_pylist()
            if (row["metric"], row["kind"], row["order"], row["step"]) == ("mass", "both", 0, run["step"])
        }
        assert since["kept_both"] + since[f"kept_{side}"] == pytest.approx(recorded["preserved"])
        assert since["emerged_both"] + since[f"emerged_{side}"] == pytest.approx(recorded["emerged"])
        assert since["base"] == pytest.approx(recorded["removed"] + recorded["preserved"])
        assert pair["present"][side]["value"] == pytest.approx(recorded["all"])
    assert since["difference_kept"] == pytest.approx(since["kept_a"] - since["kept_b"])
    assert since["lost_both"] > 0
    assert since["emerged_both"] > 0
    for part in (*pair["since"].values(), *pair["present"].values()):
        assert part["low"] <= part["value"] <= part["high"]


def test_heldout_differences_are_paired_and_of_rows_that_chose_nothing(lora: Path, full: Path) -> None:
    found = compare_runs([lora, full])
    heldout, tables = found["pairs"][0]["heldout"], []
    for path, run in zip((lora, full), found["runs"], strict=True):
        table = pq.read_table(path / "heldout" / f"step-{run['step']:06d}.parquet")
        tables.append({r["row_id"]: r for r in table.to_pylist() if r["half"] == "confirm"})
    difference = np.array([tables[0][row]["nll"] - tables[1][row]["nll"] for row in tables[0]])
    assert heldout["rows"] == len(difference) > 5
    assert heldout["unit"] == "nats per token"
    assert heldout["loss"]["difference"]["value"] == pytest.approx(difference.mean())
    error = difference.std() / np.sqrt(len(difference))
    assert heldout["loss"]["difference"]["low"] == pytest.approx(difference.mean() - 1.96 * error, abs=0.6 * error)
    assert not heldout["note"]


def test_rows_that_may_have_chosen_are_not_called_innocent(lora: Path, full: Path, tmp_path: Path) -> None:
    def page(run: Path, **verdict: Any) -> str:
        edited(run / "verdict.json", lambda content: content.update(**verdict))
        return Reader(render_comparison(compare_runs([lora, run]))).text

    new = copied(full, tmp_path / "other")
    innocent = page(new)
    assert "had no say in either choice" in innocent
    assert "held-out rows that chose neither step" in innocent
    borrowed = page(new, rule="trainer's eval_loss")
    hindsight = page(new, rule="oracle, loss")
    for text, doubt in (
        (
            borrowed,
            "The step of B was chosen by the trainer's eval_loss; whether that was measured on these rows too is",
        ),
        (hindsight, "The step of B was chosen by these very rows, which flatters it."),
    ):
        assert doubt in text
        assert "had no say" not in text
        assert "chose neither" not in text
        assert "The step of A" not in text
    assert "The step of B" not in page(new, keep_step=None), "nothing chose its last step"

    twice = [lora, copied(full, tmp_path / "x"), copied(full, tmp_path / "y")]
    edited(twice[2] / "verdict.json", lambda content: content.update(rule="trainer's eval_loss"))
    text = Reader(render_comparison(compare_runs(twice))).text
    assert text.count("The step of C was chosen by the trainer's eval_loss") == 1
    assert "had no say in any choice" not in text


def test_a_stop_before_the_kept_step_is_not_called_enough(lora: Path, full: Path, tmp_path: Path) -> None:
    new = copied(full, tmp_path / "early")
    edited(new / "verdict.json", lambda content: content["signals"].update(early_stop=8))
    text = Reader(render_comparison(compare_runs([lora, new]))).text
    assert text.count("its rule would have stopped too early, at step 8") == 1
    assert text.count("nothing says that it should have ended") == 1


def test_a_real_run_says_what_every_step_costs_beside_the_kept_one(lora: Path) -> None:
    run = read_run(lora)
    table = rule_table(run)
    assert table is not None
    costs = {line.keeps: line.cost for _, lines in table.groups for line in lines}
    assert costs[f"step {run.kept}"] == ""
    assert costs["step 0"].startswith(("+", "−"))
    recorded = pq.read_table(lora / "metrics.parquet").to_pylist()
    kept = [row for row in recorded if row["metric"] == "heldout_loss_difference" and row["set"] == "confirm"]
    assert {row["baseline"] for row in kept} == {f"step {run.kept}"}
    assert {row["step"] for row in kept} == {*run.steps} - {run.kept}
    losses = [pq.read_table(lora / "heldout" / f"step-{step:06d}.parquet").to_pylist() for step in (0, run.kept)]
    pairs = [one["nll"] - two["nll"] for one, two in zip(*losses, strict=True) if one["half"] == "confirm"]
    (found,) = (row["value"] for row in kept if row["step"] == 0)
    assert found == pytest.approx(np.mean(pairs))


def test_a_run_and_its_copy_do_not_differ(lora: Path, tmp_path: Path) -> None:
    found = compare_runs([lora, copied(lora, tmp_path / "again")])
    (pair,) = found["pairs"]
    only = ("kept_a", "kept_b", "emerged_a", "emerged_b", "difference_kept", "difference_emerged")
    assert {pair["since"][name][end] for name in only for end in ("value", "low", "high")} == {0.0}
    assert pair["present"]["shared"]["value"] == pytest.approx(1)
    assert pair["heldout"]["loss"]["difference"]["value"] == 0
    assert pair["differing"] == []
    assert found["settings"] == []


def test_another_order_of_the_runs_mirrors_the_numbers(lora: Path, full: Path) -> None:
    one, other = pair_of(lora, full), pair_of(full, lora)
    for name in ("base", "kept_both", "lost_both", "emerged_both"):
        assert one["since"][name]["value"] == pytest.approx(other["since"][name]["value"])
    assert one["since"]["kept_a"]["value"] == pytest.approx(other["since"]["kept_b"]["value"])
    assert one["present"]["shared"]["value"] == pytest.approx(other["present"]["shared"]["value"])
    assert [entry["a"] for entry in one["differing"]] == [entry["b"] for entry in other["differing"]]


def test_the_interactions_that_differ_most_are_those_on_disk(lora: Path, full: Path) -> None:
    entries = pair_of(lora, full)["differing"]
    steps = [run["step"] for run in compare_runs([lora, full])["runs"]]
    rows = {row["row_id"]: row for row in whatstuck.load_run(lora).rows.to_pylist()}
    assert 0 < len(entries) <= 8
    for entry in entries:
        for side, path, step in (("a", lora, steps[0]), ("b", full, steps[1])):
            table = pq.read_table(interactions_of(path, step))
            found = table.filter(
                (pc.field("row_id") == entry["row_id"])
                & (pc.field("kind") == entry["kind"])
                & (pc.field("mask") == entry["mask"])
                & (pc.field("setting") == table["setting"][0].as_py())
            ).to_pylist()
            assert entry[side] == (found[0]["value"] if found else 0.0)
        players = rows[entry["row_id"]]["players"]
        assert entry["words"] == [[players[i]["text"], i + 1] for i in range(4) if entry["mask"] >> i & 1]
        (low_a, high_a), (low_b, high_b) = entry["ranges"]
        assert entry["certain"] == (low_a > high_b or low_b > high_a)


# --- what cannot be compared


def other_words(row: dict[str, Any]) -> None:
    row["players"][0]["text"] = "Nobody"


def fewer_words(row: dict[str, Any]) -> None:
    row["players"] = row["players"][:3]


def other_rows(row: dict[str, Any]) -> None:
    row["row_id"] = f"x{row['row_id']}"


def other_answer(row: dict[str, Any]) -> None:
    row["target_text"] = "other"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (other_words, "No row is shared (6 other words masked)"),
        (fewer_words, "No row is shared: one run masks 4 words of each prompt, the other 3."),
        (other_rows, "No row is shared (12 probed in one run only)"),
        (other_answer, "No row is shared (6 another answer)"),
    ],
)
def test_nothing_shared_is_said_and_the_rest_is_shown(
    lora: Path, full: Path, tmp_path: Path, edit: Edit, why: str
) -> None:
    found = compare_runs([lora, with_rows(full, tmp_path / "other", edit)])
    (pair,) = found["pairs"]
    assert pair["obstacle"].startswith(why)
    assert "since" not in pair
    assert pair["heldout"]["loss"] is not None
    text = Reader(render_comparison(found)).text
    assert why in text
    assert "A keeps step 32, B keeps step 32" in text
    assert "Held-out accuracy" in text


def test_rows_that_are_shared_in_part_are_counted(lora: Path, full: Path, tmp_path: Path) -> None:
    rows = pq.read_table(lora / "rows.parquet")["row_id"].to_pylist()
    changed = with_rows(full, tmp_path / "some", lambda row: other_words(row) if row["row_id"] in rows[:2] else None)
    pair = pair_of(lora, changed)
    assert pair["rows"] == 4
    assert pair["rows_left_out"] == {"other words masked": 2}
    assert pair["since"]["base"]["value"] > 0


def test_a_checkpoint_probed_on_more_rows_does_not_differ_from_itself(full: Path, wider: Path, tmp_path: Path) -> None:
    """The misfit follows from all rows of a run, so what is on disk differs; the shared rows are explained again."""
    found = compare_runs([full, wider])
    (pair,) = found["pairs"]
    assert pair["extracted_again"]
    assert (pair["rows"], pair["rows_left_out"]) == (6, {"probed in one run only": 6})
    assert pair["since"]["difference_emerged"]["value"] == pytest.approx(0, abs=1e-9)
    assert pair["present"]["shared"]["value"] == pytest.approx(1)
    assert pair["base"]["difference"] == pytest.approx(0, abs=1e-9)
    assert pair["present"]["a"]["value"] == pytest.approx(
        pair_of(full, copied(full, tmp_path / "x"))["present"]["a"]["value"]
    )
    assert "explained again by themselves" in Reader(render_comparison(found)).text
    bare = copied(wider, tmp_path / "bare")
    shutil.rmtree(bare / "values")
    on_disk = pair_of(full, bare)
    assert not on_disk["extracted_again"]
    assert on_disk["base"]["same"]
    assert on_disk["base"]["difference"] > 1e-3
    assert abs(on_disk["since"]["difference_emerged"]["value"]) > 1e-3


def test_shared_rows_that_are_explained_again_have_the_ranges_of_the_run(
    lora: Path, wider: Path, tmp_path: Path
) -> None:
    rows = pq.read_table(lora / "rows.parquet")["row_id"].to_pylist()
    changed = with_rows(lora, tmp_path / "some", lambda row: other_words(row) if row["row_id"] == rows[0] else None)
    entries = pair_of(changed, wider)["differing"]
    assert entries
    for entry in entries:
        for (low, high), value in zip(entry["ranges"], (entry["a"], entry["b"]), strict=True):
            assert low <= value <= high


def test_other_extraction_settings_are_not_compared(lora: Path, full: Path, tmp_path: Path) -> None:
    def coarser(track: dict[str, Any]) -> None:
        track["settings"]["misfit"] = [0.1]

    found = compare_runs([lora, with_manifest(full, tmp_path / "coarse", coarser)])
    assert "misfit=0.05" in found["pairs"][0]["obstacle"]
    assert "misfit=0.1" in found["pairs"][0]["obstacle"]
    assert {"name": "misfit", "values": [[0.05], [0.1]]} in found["settings"]

    def whole(track: dict[str, Any]) -> None:
        track["settings"]["whole_target"] = True

    assert "whole answers" in pair_of(lora, with_manifest(full, tmp_path / "whole", whole))["obstacle"]


def test_another_base_leaves_what_both_have_now(lora: Path, full: Path, tmp_path: Path) -> None:
    def stranger(track: dict[str, Any]) -> None:
        track["model"]["fingerprint"] = "0" * 64

    named = with_manifest(full, tmp_path / "named", stranger)
    assert pair_of(lora, named)["base"]["same"]  # another file of the same model: step 0 says the same

    scaled(named, 2.0)
    found = compare_runs([lora, named])
    (pair,) = found["pairs"]
    assert pair["since"] is None
    assert pair["base"]["difference"] == pytest.approx(2 / 3)
    assert pair["present"]["shared"]["value"] == pair_of(lora, full)["present"]["shared"]["value"]
    assert all(entry["base"] is None for entry in pair["differing"])
    assert "They began from other models." in Reader(render_comparison(found)).text


def test_one_model_asked_in_another_way_is_no_common_base(lora: Path, full: Path, tmp_path: Path) -> None:
    def masked(track: dict[str, Any]) -> None:
        track["model"]["mask_token_id"] += 1

    def rendered(row: dict[str, Any]) -> None:
        row["prompt"] += " "

    for new, why in (
        (with_manifest(full, tmp_path / "mask", masked), "another token"),
        (with_rows(full, tmp_path / "prompt", rendered), "written in another way"),
    ):
        scaled(new, 0.5)
        pair = pair_of(lora, new)
        assert why in pair["base"]["why"]
        assert pair["since"] is None


def test_the_same_base_explained_at_another_misfit_is_averaged_and_said(lora: Path, full: Path, tmp_path: Path) -> None:
    def adapted(track: dict[str, Any]) -> None:
        track["model"]["fingerprint"] = "0" * 64  # an adapter that does nothing yet: the values say that it is one

    new = with_manifest(full, tmp_path / "shifted", adapted)
    part = interactions_of(new, 0)
    column = pq.read_schema(part).get_field_index("value")
    with_part(part, lambda table: table.set_column(column, "value", pc.multiply(table["value"], 1.1)))
    found, plain = compare_runs([lora, new]), pair_of(lora, full)
    (pair,) = found["pairs"]
    assert pair["base"]["same"]
    shutil.rmtree(new / "values")
    assert not pair_of(lora, new)["base"]["same"]
    assert pair["base"]["difference"] == pytest.approx(0.1 / 1.05)
    assert pair["since"]["base"]["value"] == pytest.approx(1.05 * plain["since"]["base"]["value"])
    assert "Differences of that size mean nothing" in Reader(render_comparison(found)).text


def test_other_tokenizers_are_compared_on_whole_answers(lora: Path, full: Path, tmp_path: Path) -> None:
    new = copied(full, tmp_path / "tokens")
    for part in (new / "heldout").glob("*.parquet"):
        column = pq.read_schema(part).get_field_index("tokens")
        with_part(part, lambda table, column=column: table.set_column(column, "tokens", pc.add(table["tokens"], 1)))
    heldout, plain = pair_of(lora, new)["heldout"], pair_of(lora, full)["heldout"]
    assert heldout["unit"] == "nats per answer"
    assert heldout["loss"]["b"]["value"] > plain["loss"]["b"]["value"]


def test_no_heldout_rows_and_missing_parts_are_said(lora: Path, full: Path, tmp_path: Path) -> None:
    bare = copied(full, tmp_path / "bare")
    shutil.rmtree(bare / "heldout")
    shutil.rmtree(bare / "interactions")
    pair = pair_of(lora, bare)
    assert pair["heldout"]["note"] == "Held-out loss cannot be compared: no held-out rows to confirm with in bare."
    assert pair["obstacle"] == "The interactions of step 32 of bare are not in its folder."


# --- runs of every kind


def test_a_live_run_without_saved_checkpoints(lora: Path, full: Path, tmp_path: Path) -> None:
    def live(track: dict[str, Any]) -> None:
        for entry in track["checkpoints"][1:]:
            entry |= {"path": None, "kind": "live"}
        track["training"] = {"learning_rate": 0.001}
        track["epochs"] = [[entry["step"], entry["step"] / 4] for entry in track["checkpoints"]]
        track["live"] = {"stopped_at": 32, "budget": 0.05, "rule": "held-out loss", "share": None, "log": []}

    new = with_manifest(full, tmp_path / "live", live)
    edited(new / "verdict.json", lambda verdict: verdict.update(keep_step=None, decision="cannot tell", stop_step=8))
    found = compare_runs([lora, new])
    run = found["runs"][1]
    assert (run["step"], run["keep_step"], run["checkpoint"], run["epoch"]) == (32, None, None, 8.0)
    assert found["pairs"][0]["since"]["base"]["value"] > 0
    text = Reader(render_comparison(found)).text
    for words in ("A keeps step 32, B cannot tell", "not saved, epoch 8", "compared at its last step, 32"):
        assert words in text
    assert "stopped the training at step 32" in text
    assert "training: learning rate" not in [row["name"] for row in found["settings"]]  # known of one run only

    def slower(track: dict[str, Any]) -> None:
        track["training"]["learning_rate"] = 0.0001

    other = with_manifest(new, tmp_path / "slower", slower)
    rows = compare_runs([lora, new, other])["settings"]
    assert {"name": "training: learning rate", "values": [None, 0.001, 0.0001]} in rows


def test_an_instruction_is_text_of_the_rows(lora: Path, full: Path, tmp_path: Path) -> None:
    def instructed(track: dict[str, Any]) -> None:
        track["settings"]["instruction"] = "Sort these secrets."

    other = with_manifest(full, tmp_path / "instructed", instructed)
    assert {"name": "instruction", "values": [None, "Sort these secrets."]} in compare_runs([lora, other])["settings"]
    found = compare_runs([lora, other], text=False)
    assert {"name": "instruction", "values": ["left out", "left out"]} in found["settings"]
    assert "secrets" not in render_comparison(found, text=False)


def test_three_runs_are_compared_in_pairs_under_distinct_names(lora: Path, full: Path, tmp_path: Path) -> None:
    third = copied(full, tmp_path / "other" / "full")
    found = compare_runs([lora, full, third])
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [(0, 1), (0, 2), (1, 2)]
    names = [run["name"] for run in found["runs"]]
    assert names[0] == "lora"
    assert names[2] == "other/full"
    assert len(set(names)) == 3
    read = Reader(render_comparison(found))
    assert "C keeps step 32" in read.headings[0]
    assert "first less second" in read.text
    assert read.texts.count("kept by both") == 3
    one = [text for text in read.texts if "no two runs can be told apart" in text]
    sure = [text for text in read.texts if "is higher than that of" in text]
    assert bool(one) != bool(sure)


def test_gamma_is_that_of_all_baselines_together(lora: Path, full: Path, tmp_path: Path) -> None:
    new = copied(full, tmp_path / "pooled")
    table = pq.read_table(new / "metrics.parquet")
    one = next(row for row in table.to_pylist() if row["metric"] == "rho" and row["set"] == "emerged")
    extra = [
        {**one, "metric": "gamma", "threshold_rule": "none", "baseline": name, "value": value, "step": 32}
        for name, value in (("first", 0.1), ("pooled", 0.2), ("pooled", 0.2), ("second", 0.3))
    ]
    added = pa.Table.from_pylist([*table.to_pylist(), *extra], schema=table.schema)
    pq.write_table(added, new / "metrics.parquet")
    runs = compare_runs([lora, new])["runs"]
    assert "gamma emerged" not in runs[0]["curves"]
    assert [(point["step"], point["value"]) for point in runs[1]["curves"]["gamma emerged"]] == [(32, 0.2)]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run / "verdict.json").unlink(), "is not finished"),
        (lambda run: (run / "metrics.parquet").unlink(), "is missing"),
        (lambda run: (run / "run.json").unlink(), "is not a run folder"),
        (lambda run: (run / "verdict.json").write_text("{", encoding="utf-8"), "is damaged"),
        (lambda run: (run / "run.json").write_text('{"format_version": 1}', encoding="utf-8"), "no section `track`"),
        (lambda run: edited(run / "run.json", lambda content: content["track"].pop("settings")), "is damaged"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused(
    lora: Path, tmp_path: Path, break_it: Callable[[Path], object], message: str
) -> None:
    broken = copied(lora, tmp_path / "broken")
    break_it(broken)
    with pytest.raises(WhatStuckError, match=message) as error:
        compare_runs([lora, broken])
    assert "\n" not in str(error.value)


def test_mistakes_are_one_line(lora: Path, full: Path, tmp_path: Path) -> None:
    with pytest.raises(WhatStuckError, match="two or more run folders, 1 given"):
        whatstuck.compare(str(lora), tmp_path / "x.html")
    with pytest.raises(WhatStuckError, match="is given 2 times"):
        whatstuck.compare([lora, full, lora / ".." / lora.name], tmp_path / "x.html")
    with pytest.raises(WhatStuckError, match="is a folder: give --out a file"):
        whatstuck.compare([lora, full], tmp_path)
    assert not list(tmp_path.iterdir())


# --- the page


def test_the_page_asks_for_nothing_and_is_whole(lora: Path, full: Path, tmp_path: Path) -> None:
    found = whatstuck.compare([whatstuck.load_run(lora), full], tmp_path / "compare.html")
    page = Path(found["page"]).read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [tmp_path / "compare.html"]
    read = Reader(page)
    ids = [attributes["id"] for _, attributes in read.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for name in ("decisions", "pairs", "curves", "settings", "curve-0-t", "bars-0-1-t"):
        assert name in ids
    labelled = [attributes["aria-labelledby"] for _, attributes in read.tags if "aria-labelledby" in attributes]
    assert all(part in ids for label in labelled for part in (label or "").split())
    for _, attributes in read.tags:
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith("#")
    assert "http" not in page
    assert "@import" not in page
    assert str(lora.parent) not in page
    for picture in read.tags:
        for name in ("x", "y", "width", "height", "x1", "x2", "y1", "y2", "cx", "cy"):
            assert -1 <= float(picture[1].get(name) or 0) <= 400


def test_the_page_shows_the_numbers(lora: Path, full: Path) -> None:
    found = compare_runs([lora, full])
    (pair,) = found["pairs"]
    text = Reader(render_comparison(found)).text
    for name in ("base", "kept_both", "lost_both", "emerged_both", "emerged_a"):
        value = pair["since"][name]["value"]
        assert f"{value:.2g}" in text or f"{value:.2f}".rstrip("0").rstrip(".") in text, name
    assert "Held-out loss of" in text
    assert "checkpoints adapter full" in text
    for entry in pair["differing"]:
        assert all(word in text for word, _ in entry["words"])


def test_without_text_no_word_of_a_row_is_left(lora: Path, full: Path, tmp_path: Path) -> None:
    def secret(row: dict[str, Any]) -> None:
        row["target_text"] = "secret"
        for index, player in enumerate(row["players"]):
            player["text"] = f"secret{index}"

    runs = [with_rows(lora, tmp_path / "a", secret), with_rows(full, tmp_path / "b", secret)]
    with_text, found = compare_runs(runs), compare_runs(runs, text=False)
    assert "secret1" in render_comparison(with_text)
    page = render_comparison(found, text=False)
    assert "are left out of this page" in page
    assert "The texts of the rows are left out" in page
    for said in (page, json.dumps(found)):
        assert "secret" not in said
        assert with_text["pairs"][0]["differing"][0]["row_id"] not in said
    assert found["pairs"][0]["differing"]
    assert render_comparison(with_text, text=False) == page


def test_words_and_names_are_no_markup(lora: Path, full: Path, tmp_path: Path) -> None:
    hostile = "<script>alert('x')</script>"

    def edit(row: dict[str, Any]) -> None:
        for player in row["players"]:
            player["text"] = hostile
        row["target_text"] = hostile

    one = with_rows(lora, tmp_path / "a<b>&", edit)
    other = with_rows(full, tmp_path / "c", edit)
    edited(other / "verdict.json", lambda verdict: verdict.update(reason=hostile))
    page = render_comparison(compare_runs([one, other]))
    read = Reader(page)
    assert hostile in read.text
    assert "a<b>&" in read.text
    assert read.count("script") == 1  # our own


def test_the_command_line_writes_the_page_and_prints_the_numbers(lora: Path, full: Path, tmp_path: Path) -> None:
    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "whatstuck", "compare", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    done = call(lora, full, "--json", "--no-text")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {"page": "compare.html", **compare_runs([lora, full], text=False)}
    assert (tmp_path / "compare.html").exists()
    refused = call(lora)
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1


def test_the_page_is_made_without_torch() -> None:
    code = "import sys, whatstuck.report.comparison; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
