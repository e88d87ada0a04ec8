"""The page of rows that did not stick: alone or beside the rest, whole without a script, and the same with one."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_rows import CAUSES, FakeRows
from fake_run import FakeRun
from page_reader import Reader
from whatstuck.errors import WhatStuckError
from whatstuck.report import make_page, reading_rows, write_report
from whatstuck.report.causes import NAMES, bar, titled
from whatstuck.report.packing import longest_text, packed
from whatstuck.report.reading import read_manifest
from whatstuck.report.reading_rows import Moment, RowsRun, read_rows_run
from whatstuck.report.row_views import View, views
from whatstuck.report.sections import rows as section
from whatstuck.report.sparkline import Sparkline
from whatstuck.rows.schemas import UNLEARNED, VERDICTS
from whatstuck.rows.trajectories import SCHEMA

HOSTILE = "</script><script>alert('x')</script>"
TREATED = ("data_conflict", "more_training")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRows(rows=200, treated=TREATED).write(tmp_path_factory.mktemp("run") / "demo")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return make_page(folder)


def read(folder: Path) -> RowsRun:
    return read_rows_run(folder, read_manifest(folder))


def packed_in(page: str) -> dict[str, Any]:
    """The rows as the script gets them."""
    found = re.search(r'<script type="application/json" id="rows-data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


# --- which parts a page has


def test_a_run_of_rows_alone_has_its_page(folder: Path, page: str) -> None:
    reader = Reader(page)
    verdicts = pq.read_table(folder / "verdicts.parquet")["verdict"].to_pylist()
    lost = verdicts.count("unlearned") + verdicts.count("unstable")
    assert [a["id"] for tag, a in reader.tags if tag == "section"] == ["rows", "interventions"]
    assert reader.headings[0] == f"{lost} of 200 rows did not stick"
    assert reader.count("h1") == 1
    assert "tiny-base" in reader.text
    assert "arXiv 2604.10079" in reader.text
    assert "2605.17967" not in reader.text


def test_both_parts_stand_on_one_page(tmp_path: Path) -> None:
    both = Reader(make_page(FakeRows().write(FakeRun().write(tmp_path / "run"))))
    names = [a["id"] for tag, a in both.tags if tag == "section"]
    assert names == ["verdict", "changes", "ratios", "prompt", "rows", "trust"]
    assert both.headings[0] == "Keep step 32"
    assert both.count("h1") == 1
    assert "Rows that did not stick" in both.headings
    assert "arXiv 2605.17967" in both.text
    assert "arXiv 2604.10079" in both.text
    ids = [a["id"] for _, a in both.tags if a.get("id")]
    assert len(ids) == len(set(ids))


def test_a_run_of_track_alone_has_nothing_of_rows(tmp_path: Path) -> None:
    page = make_page(FakeRun().write(tmp_path / "run"))
    assert "rows-list" not in page
    assert ".stuck" not in page  # nor its style


def test_the_page_asks_for_nothing(folder: Path, page: str) -> None:
    assert write_report(folder).stat().st_size < 1_000_000
    for tag, attributes in Reader(page).tags:
        for name in ("src", "href", "action", "data", "srcset", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, name, value)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "http" not in page
    assert make_page(folder) == page


def test_an_unfinished_part_does_not_hide_the_finished_one(tmp_path: Path) -> None:
    both = FakeRows().write(FakeRun().write(tmp_path / "run"))
    (both / "verdict.json").unlink()
    rows_only = Reader(make_page(both))
    assert [a["id"] for tag, a in rows_only.tags if tag == "section"] == ["rows"]
    assert "What whatstuck track began in this run is not finished" in rows_only.text

    killed = FakeRows().write(FakeRun().write(tmp_path / "killed"))
    for unfinished in (_summary_gone, _summary_null):
        unfinished(killed)
        track_only = Reader(make_page(killed))
        assert track_only.headings[0] == "Keep step 32"
        assert "rows" not in [a["id"] for tag, a in track_only.tags if tag == "section"]
        assert "What whatstuck rows began in this run is not finished" in track_only.text

    (killed / "verdict.json").unlink()
    with pytest.raises(WhatStuckError, match=r"verdict\.json is missing"):
        make_page(killed)


# --- what is said


def test_the_numbers_are_those_of_the_folder(folder: Path, page: str) -> None:
    run, text = read(folder), Reader(page).text
    table = pq.read_table(folder / "unlearned.parquet").to_pylist()
    for cause in CAUSES:
        count = sum(row["cause"] == cause for row in table)
        assert run.causes[cause].rows == count
        assert f"{NAMES[cause]} {count}" in text
    assert run.not_learned == len(table)
    assert sum(run.paper_causes.values()) == len(table)
    assert f"Unlearned {100 * run.summary['share_unlearned'][0]:.0f} %" in text
    share, low, high = (round(100 * value) for value in run.summary["share_not_learned"])
    assert f"Did not stick {share} % {low} to {high} %" in text
    unlearned = sum(row["verdict"] == "unlearned" for row in table)
    split = (unlearned, len(table) - unlearned, 200 - len(table))
    assert "{} unlearned (never right), {} unstable (right now and then), {} learned".format(*split) in text
    assert f"did not stick ({len(table)})" in text
    assert len(packed_in(page)["rows"]) == len(table)


def test_what_stayed_wrong_while_the_score_went_up(folder: Path, page: str) -> None:
    run = read(folder)
    verdicts = {row["row_id"]: row["verdict"] for row in pq.read_table(folder / "verdicts.parquet").to_pylist()}
    steps = {
        step: pq.read_table(folder / "trajectories" / f"step-{step:06d}.parquet").to_pylist() for step in run.steps
    }
    ever_right: set[str] = set()
    lost = {row for row, verdict in verdicts.items() if verdict == "unlearned"}
    for step, records in steps.items():
        right = {record["row_id"] for record in records if record["correct"]}
        ever_right |= right
        assert run.accuracy[step].value == pytest.approx(len(right) / len(records))
        assert run.stayed[step].value == pytest.approx(len(lost - ever_right) / len(lost))
        assert run.stayed[step].low <= run.stayed[step].value <= run.stayed[step].high  # type: ignore[operator] # known
    assert "the score went up, these same rows stayed wrong." in Reader(page).text
    assert "rows-stayed-t" in page


def test_a_row_with_a_gap_is_not_said_to_have_been_wrong_all_along(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    before = read(folder)
    lost = next(row["row_id"] for row in before.found if row["verdict"] == "unlearned")
    path = copy / "trajectories" / "step-000040.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter([row != lost for row in table["row_id"].to_pylist()]), path)
    after = read(copy)
    assert after.moments[lost][2] is None
    assert len(after.moments[lost]) == 6
    count = sum(row["verdict"] == "unlearned" for row in before.found)
    was_wrong = all(moment is not None and not moment.right for moment in before.moments[lost])
    assert after.stayed[160].value == pytest.approx(
        (round((before.stayed[160].value or 0) * count) - was_wrong) / (count - 1)
    )


def test_only_checkpoints_of_this_run_are_shown(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    # of an earlier call with other checkpoints: all rows wrong at 10, and a model that is better at 500
    records = pq.read_table(copy / "trajectories" / "step-000160.parquet").to_pylist()
    for step, correct in ((10, False), (500, True)):
        table = pa.Table.from_pylist([record | {"correct": correct} for record in records], schema=SCHEMA)
        pq.write_table(table, copy / "trajectories" / f"step-{step:06d}.parquet")
    before, after = read(folder), read(copy)
    assert after.steps == before.steps == (0, 20, 40, 80, 120, 160)
    assert (after.accuracy, after.stayed, after.moments) == (before.accuracy, before.stayed, before.moments)


def test_a_trajectory_that_was_left_out_for_sharing_is_no_error(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    (copy / "trajectories" / "step-000040.parquet").unlink()
    assert read(copy).steps == (0, 20, 80, 120, 160)


def test_what_the_screen_missed_makes_it_at_least_so_many(tmp_path: Path) -> None:
    FakeRows(rows=100, summary={"share_not_learned": [0.9, 0.8, 1.0]}).write(tmp_path / "run")
    run = read(tmp_path / "run")
    assert Reader(make_page(tmp_path / "run")).headings[0] == f"At least {run.not_learned} of 100 rows did not stick"


def test_rows_that_could_not_be_asked_count_neither_way(tmp_path: Path) -> None:
    why, long = "the right option is found without the question", "prompt and answer are longer than the context"
    fake = FakeRows(rows=100, prompts={3: "a prompt of no end"}, unasked={3: long, 4: why, 5: why})
    run = read(fake.write(tmp_path / "run"))
    page = make_page(tmp_path / "run")
    text, data = Reader(page).text, packed_in(page)
    assert run.judged == 97
    assert run.not_learned == len(run.found)
    assert Reader(page).headings[0] == f"{run.not_learned} of 97 rows did not stick"
    assert f"3 more rows could not be asked and count neither way: {why} (2) and {long} (1)." in text
    assert f"{97 - run.not_learned} learned" in text
    assert "could not be asked (3)" in text
    unasked = views(run, text=True, longest=100)[len(run.found) :]
    assert [view.verdict for view in unasked] == ["not_asked"] * 3
    assert unasked[0].slots["outcome"] == f"It could not be asked: {long}."
    assert unasked[0].slots["prompt"] == "a prompt of no end"
    assert (unasked[0].slots["verdict"], unasked[0].slots["short"], unasked[0].items["evidence"]) == (
        "not asked",
        "",
        [],
    )
    assert unasked[0].paths["line"]
    assert len(data["rows"]) == run.not_learned + 3
    plain = page[: page.index('<template id="row-template"')]
    assert plain.count('<details class="stuck ') == run.not_learned < section.PAGE  # they are shown where asked for
    assert not re.search(r"\b(nan|None)\b", text)


def test_rows_that_could_not_be_asked_are_listed_where_nothing_else_is(tmp_path: Path) -> None:
    fake = FakeRows(rows=5, learned=1.0, unasked={1: "it is too long"})
    page = make_page(fake.write(tmp_path / "some"))
    assert Reader(page).headings[0] == "All 4 rows that could be asked stuck"
    assert page[: page.index('<template id="row-template"')].count('<details class="stuck not_asked"') == 1
    assert '<option value="not_asked" selected>' in page
    assert "Why" not in Reader(page).headings
    assert "1 more row could not be asked and counts neither way: it is too long (1)." in Reader(page).text
    page = make_page(FakeRows(rows=2, unasked={0: "it is too long", 1: ""}).write(tmp_path / "none"))
    assert Reader(page).headings[0] == "No row could be asked"
    assert "2 rows could not be asked and count neither way" in Reader(page).text
    assert "no reason is given (1)" in Reader(page).text


def test_the_papers_order_is_not_known_without_the_untouched_model(tmp_path: Path) -> None:
    folder = FakeRows(rows=60, paper_known=False).write(tmp_path / "run")
    run, text = read(folder), Reader(make_page(folder)).text
    assert (run.paper_causes, run.paper_unknown) == ({}, run.not_learned)
    assert "What the order of tests that the paper prints would say is not known" in text
    table = pq.read_table(folder / "unlearned.parquet").to_pylist()
    table[0]["paper_cause"] = "forgotten"
    pq.write_table(pa.Table.from_pylist(table, schema=UNLEARNED), folder / "unlearned.parquet")
    text = Reader(make_page(folder)).text
    assert "not known where the untouched model was not asked" in text
    assert f"IV 1 not known {run.not_learned - 1}" in text


def test_what_was_not_measured_is_neither_absent_nor_unexplained(tmp_path: Path) -> None:
    page = make_page(FakeRows(rows=200, measured=False).write(tmp_path / "run"))
    text = Reader(page).text
    assert "II · base model believes otherwise was not measured. No base model was given." in text
    assert "no cause found, but not everything was measured" in text
    assert "No test speaks for any of these." not in text  # no row had all of its tests
    assert "base model lacks the knowledge not measured" in text


def test_the_bar_gives_unmeasured_rows_a_box_of_their_own() -> None:
    boxes = {box.style: (box.count, box.percent) for box in bar({"forgotten": 6, "unexplained": 1}, unmeasured=3)}
    assert boxes["forgotten"] == (6, "60 %")
    assert boxes["unexplained"] == (1, "10 %")
    assert boxes["unmeasured"] == (3, "30 %")
    assert "unmeasured" not in {box.style for box in bar({"unexplained": 4})}
    assert all(box.percent == "not known" for box in bar({}))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (FakeRows(summary={"miss_rate": None}), "Missed by the screen not known"),
        (FakeRows(summary={"share_unlearned": [0.2, None, None]}), "Unlearned 20 % no interval"),
        (FakeRows(summary={"converged": None}), "Whether the training had come to rest is not known."),
        (FakeRows(learned=1.0), "All 40 rows stuck"),
        (FakeRows(rows=1, learned=0.0), "of 1 row did not stick"),
        (FakeRows(warnings=(HOSTILE,)), HOSTILE),
    ],
)
def test_special_cases_are_said(tmp_path: Path, case: FakeRows, said: str) -> None:
    assert said in Reader(make_page(case.write(tmp_path / "run"))).text


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize(
    "case",
    [
        FakeRows(),
        FakeRows(steps=()),
        FakeRows(steps=(7,)),
        FakeRows(steps=tuple(range(0, 1000, 10))),
        FakeRows(learned=1.0),
        FakeRows(rows=1, learned=0.0),
        FakeRows(rows=1, unasked={0: "it is too long"}),
        FakeRows(measured=False, treated=CAUSES),
    ],
    ids=[
        "usual",
        "no trajectories",
        "one checkpoint",
        "many checkpoints",
        "all learned",
        "one row",
        "not asked",
        "all treated",
    ],
)
def test_every_run_gives_a_whole_page_without_nan(tmp_path: Path, case: FakeRows, *, text: bool) -> None:
    reader = Reader(make_page(case.write(tmp_path / "run"), text=text))
    assert not re.search(r"\b(nan|inf|None|undefined)\b", reader.text)
    for _, attributes in reader.tags:
        assert not any(re.search(r"\b(nan|inf|None)\b", value or "") for value in attributes.values())


# --- row by row


def test_a_row_says_what_the_tables_say(folder: Path) -> None:
    run = read(folder)
    shown = views(run, text=True, longest=1000)
    assert len(shown) == len(run.found)
    for view, row in zip(shown, run.found, strict=True):
        assert view.slots["prompt"] == row["prompt"]
        assert view.slots["gold"] == row["gold"]
        assert view.slots["answer"] == row["greedy"]
        assert view.slots["place"] == f"Row {row['source_index'] + 1}"
        assert view.slots["outcome"].startswith(f"{row['right']} of 16 answers right: ")
        assert f"last at step {row['last_exposure_step']}." in view.slots["history"]
        assert [item.slots["name"] for item in view.items["evidence"]] == [titled(cause) for cause in CAUSES[:-1]]
        present = [item.slots["name"] for item in view.items["evidence"] if item.style == "present"]
        assert present == ([] if row["cause"] == "unexplained" else [titled(row["cause"])])
        for item, neighbour in zip(view.items["neighbours"], row["neighbours"], strict=True):
            assert item.slots["name"] == f"Row {int(neighbour['row_id'][4:]) + 1}"
            assert item.slots["gold"] == neighbour["gold"]


def test_a_choice_is_told_from_drawn_answers(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    lost = read(folder).found[0]["row_id"]
    records = pq.read_table(copy / "verdicts.parquet").to_pylist()
    choice = {"form": "choices", "samples": 0, "rate": 0.3, "rate_low": 0.2, "rate_high": 0.4, "letters": 0.25}
    records = [record | choice if record["row_id"] == lost else record for record in records]
    pq.write_table(pa.Table.from_pylist(records, schema=VERDICTS), copy / "verdicts.parquet")
    slots = views(read(copy), text=True, longest=1000)[0].slots
    assert slots["short"] == "30 %"
    assert slots["outcome"] == (
        "Of the answers put before it, the right one has a probability of 30 % (20 to 40). The likeliest answer is "
        "wrong. Asked for its letter, 25 %."
    )


def test_the_packed_rows_are_the_views(folder: Path, page: str) -> None:
    data = packed_in(page)

    def text(place: Any) -> str:
        first, *numbers = place if isinstance(place, list) else [place]
        parts = data["texts"][first].split(data["gap"])
        assert len(numbers) in (0, len(parts) - 1)
        return parts[0] + "".join(number + part for number, part in zip(numbers, parts[1:], strict=True))

    shown = views(read(folder), text=True, longest=4000)
    assert len(data["rows"]) == len(shown) > section.PAGE
    assert len(data["texts"]) == len(set(data["texts"]))
    for row, view in zip(data["rows"], shown, strict=True):
        cause, verdict, slots, paths, lists, sorts = row
        assert text(cause) == view.cause
        assert text(verdict) == view.verdict
        assert {n: text(place) for n, place in zip(data["slots"], slots, strict=True)} == view.slots
        assert {n: d for n, d in zip(data["paths"], paths, strict=True) if d} == view.paths
        for name, lines in zip(data["lists"], lists, strict=True):
            found = [[text(place) for place in data["lines"][line]] for line in lines]
            assert found == [[i.style, *(i.slots[s] for s in data["items"][name])] for i in view.items[name]]
        assert sorts == list(view.sorts)


def test_the_first_rows_are_plain_html_with_all_that_they_say(folder: Path, page: str) -> None:
    before_script = page[: page.index('<template id="row-template"')]
    assert before_script.count('<details class="stuck ') == section.PAGE
    plain = Reader(page).text
    for view in views(read(folder), text=True, longest=4000)[: section.PAGE]:
        for said in (view.slots["prompt"], view.slots["history"], view.items["evidence"][0].slots["sentence"]):
            assert " ".join(said.split()) in plain


def test_a_sparkline_stays_in_its_picture_and_keeps_the_ends() -> None:
    steps = tuple(range(0, 1000, 10))
    line = Sparkline(steps)
    moments = [Moment(float(step % 70), right=step > 500) for step in steps]
    moments[3] = Moment(None, right=None)
    paths = line.paths(moments, seen=500)
    numbers = [int(number) for number in re.findall(r"\d+", " ".join((paths["line"], paths["right"], paths["wrong"])))]
    assert max(numbers) <= 120
    points = re.findall(r"[ML](\d+) (\d+)", paths["line"])
    assert len(points) <= 16
    assert points[-1][0] == "116"
    assert len(re.findall("h0", paths["right"] + paths["wrong"])) == len(points)
    assert line.paths([None] * 100, seen=None) == {}
    assert "seen" not in line.paths(moments, seen=5000)
    assert Sparkline(()).paths((), seen=3) == {}


def test_very_many_rows_are_cut_to_the_most_severe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = read(folder)
    monkeypatch.setattr(reading_rows, "MOST_ROWS", 10)
    page = make_page(folder)
    assert len(packed_in(page)["rows"]) == 10
    assert f"The page holds the 10 most severe of {everything.not_learned} rows" in Reader(page).text
    assert read(folder).causes == everything.causes
    assert read(folder).stayed == everything.stayed


@pytest.mark.slow
def test_ten_thousand_rows_stay_a_page(tmp_path: Path) -> None:
    folder = FakeRows(rows=10_000, learned=0.0, words=40, steps=(0, 20, 40, 60, 80, 100)).write(tmp_path / "run")
    page = make_page(folder)
    assert len(packed_in(page)["rows"]) == 10_000
    assert len(page.encode()) < 8_000_000
    assert page.count("<details") < 100


def test_long_texts_are_cut_to_what_fits() -> None:
    def rows(letter: str, count: int) -> list[dict[str, Any]]:
        others = {"gold": "g", "greedy": "a", "top_wrong": None}
        return [{"prompt": f"{index:5}" + letter * 5000, **others} for index in range(count)]

    assert longest_text(rows("a", 1)) == 4000
    assert longest_text(rows("a", 2400)) == 1000
    assert longest_text(rows("語", 2400)) == 250
    assert longest_text(rows("語", 20_000)) == 120  # the least that is shown, though it is above the room
    assert longest_text(rows("a", 1) * 2400) == 4000  # each text is there once


# --- texts


def test_no_text_of_data_is_markup(tmp_path: Path) -> None:
    words = (HOSTILE, "<!--<script>", "line\u2028end", "&lt;", "שלום")
    texts = {index: f"{words[index % len(words)]} {index}" for index in range(60)}
    run = FakeRows(rows=60, learned=0.2, prompts=texts, gold=texts, treated=TREATED).write(tmp_path / "run")
    page = make_page(run)
    reader = Reader(page)
    assert reader.count("script") == 3  # the data, what shows them, and the page's own
    assert HOSTILE not in page
    assert "<!--" not in page
    assert "\u2028" not in page[page.index('id="rows-data"') :]
    assert HOSTILE in reader.text
    assert "שלום" in reader.text
    assert any(HOSTILE in text for text in packed_in(page)["texts"])


def test_markup_in_run_json_is_escaped(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    manifest = json.loads((copy / "run.json").read_text())
    manifest["rows"] |= {"settings": {HOSTILE: {HOSTILE: HOSTILE}}, "model": {"name": HOSTILE}}
    manifest["rows"]["summary"] |= {"statements": [HOSTILE], "not_measured": {HOSTILE: HOSTILE}}
    manifest["interventions"]["data_conflict"] |= {"verdict": HOSTILE, "sentences": [HOSTILE]}
    manifest["interventions"]["data_conflict"]["arms"][HOSTILE] = {"recovery": [0.1, 0.0, 0.2]}
    (copy / "run.json").write_text(json.dumps(manifest))
    page = make_page(copy)
    assert HOSTILE not in page
    assert Reader(page).text.count(HOSTILE) >= 7


def test_without_text_no_word_of_the_rows_is_left(tmp_path: Path) -> None:
    every = range(40)
    fake = FakeRows(prompts=dict.fromkeys(every, "Zanzibar quokka"), gold=dict.fromkeys(every, "bananarama"))
    folder = fake.write(tmp_path / "run")
    shown, hidden = make_page(folder), make_page(folder, text=False)
    assert "Zanzibar" in shown
    assert "bananarama" in shown
    for secret in ("Zanzibar", "quokka", "bananarama", "row-0", "keep one answer", "No row that is similar"):
        assert secret not in hidden
    assert "Texts are left out of this page" in hidden
    assert len(packed_in(hidden)["rows"]) == len(packed_in(shown)["rows"])


def test_folders_stay_private_and_an_instruction_is_text(tmp_path: Path) -> None:
    own = {
        "instruction": "Sort these secret letters.",
        "checker": "/home/me/private/checks.py:agree",
        "judge": "C:\\private\\judge.py:differ",
        "labels": "/home/me/private/labels.txt",
    }
    warning = "/home/me/private/out/checkpoint-4 was trained on /home/me/private/base, and/or another"
    folder = FakeRows(settings=own, warnings=(warning,)).write(FakeRun().write(tmp_path / "run"))
    manifest = json.loads((folder / "run.json").read_text())
    manifest["track"]["settings"] |= own
    manifest["track"]["warnings"] = [warning]
    (folder / "run.json").write_text(json.dumps(manifest))
    shown, hidden = make_page(folder), make_page(folder, text=False)
    assert shown.count("Sort these secret letters.") == 2
    assert "secret" not in hidden
    for page in (shown, hidden):
        assert "private" not in page
        for name in ("checks.py:agree", "judge.py:differ", "labels.txt"):
            assert Reader(page).text.count(name) == 2
        assert Reader(page).text.count("checkpoint-4 was trained on base, and/or another") == 2


# --- interventions


def test_interventions_show_arms_and_verdict(folder: Path, page: str) -> None:
    text = Reader(page).text
    result = json.loads((folder / "run.json").read_text())["interventions"]["data_conflict"]
    assert result["arms"]["data_conflict"]["recovery"][0] == 0.7
    assert page.count('class="outcome fine"') == len(TREATED)
    assert "60 rows, 3 seeds per arm; against the best arm without a treatment p = 4 × 10⁻⁴, q = 0.0012" in text
    assert "treated, own wording: 70 % (62 to 80)" in text
    assert "treated, other wordings: 56 % (46 to 70)" in text
    assert "treated as II What base_conflict did." in text
    assert "sham treatment, other wordings" not in text
    assert "sham treatment, own wording: 10 % (2 to 20)" in text
    assert "50 % (31 to 66)" in text
    assert "recovery-more_training-t" in page
    assert "recovery-forgotten-t" not in page


def test_an_intervention_with_little_known_is_shown_as_that(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    manifest = json.loads((copy / "run.json").read_text())
    bare = {"verdict": "inconclusive", "effect": [None, None, None], "specificity": None, "arms": {"rerun": {}}}
    manifest["interventions"] = {"forgotten": bare}
    manifest["interventions"]["data_conflict"] = {"quick": {}, "sentences": ["5 of 8 rows are back."]}
    (copy / "run.json").write_text(json.dumps(manifest))
    text = Reader(make_page(copy)).text
    assert "quick probes only" in text
    assert "5 of 8 rows are back." in text
    assert "inconclusive" in text
    assert "Effect not known" in text
    assert "Specificity" not in text


# --- broken folders


def _summary_gone(folder: Path) -> None:
    manifest = json.loads((folder / "run.json").read_text())
    del manifest["rows"]["summary"]
    (folder / "run.json").write_text(json.dumps(manifest))


def _summary_null(folder: Path) -> None:
    """As a call that was killed leaves it."""
    manifest = json.loads((folder / "run.json").read_text())
    manifest["rows"]["summary"] = None
    (folder / "run.json").write_text(json.dumps(manifest))


def _few_verdicts(folder: Path) -> None:
    path = folder / "verdicts.parquet"
    pq.write_table(pq.read_table(path).slice(0, 1), path)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (_summary_gone, "no complete section `rows`"),
        (_summary_null, "no complete section `rows`"),
        (_few_verdicts, "names rows that verdicts.parquet lacks"),
        (lambda folder: (folder / "verdicts.parquet").unlink(), "verdicts.parquet is missing"),
        (lambda folder: (folder / "unlearned.parquet").write_bytes(b"PAR1"), "unlearned.parquet is damaged"),
        (lambda folder: (folder / "run.json").write_text('{"format_version": 1}'), "no complete section `track`"),
    ],
)
def test_a_broken_folder_is_one_clear_line(
    folder: Path, tmp_path: Path, breaks: Callable[[Path], object], message: str
) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    breaks(broken)
    with pytest.raises(WhatStuckError, match=re.escape(message)) as error:
        make_page(broken)
    assert "\n" not in str(error.value)


# --- in a browser

PROBE = """
<script>addEventListener("load", () => {
  const rows = () => [...document.querySelectorAll("#rows-list > .stuck")];
  const form = document.getElementById("rows-find"), said = () => document.getElementById("rows-count").textContent;
  const set = (name, value) => { form.elements[name].value = value; form.dispatchEvent(new Event("input")); };
  const places = () => rows().map((row) => row.querySelector("[data-slot=place]").textContent);
  const now = rows().map((row) => row.outerHTML);
  const result = { same: JSON.stringify(before) === JSON.stringify(now), shown: !form.hidden };
  document.getElementById("rows-on").click(); result.second = [said(), rows().length];
  set("sort", "1"); result.file = places(); set("sort", "0");
  set("cause", "forgotten"); result.cause = [said(), [...new Set(rows().map((row) => row.className))]];
  set("cause", "");
  set("verdict", "unstable"); result.verdict = said(); set("verdict", "");
  set("verdict", "not_asked"); result.unasked = [said(), ...places()]; set("verdict", "");
  set("words", "HAYSTACK"); result.words = places(); set("words", "no such words"); result.none = said();
  const out = document.createElement("pre");
  out.id = "result";
  out.textContent = JSON.stringify(result);
  document.body.append(out);
});</script></body>"""


def test_the_script_shows_the_same_rows_and_finds_them(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed, so the script of the page cannot be run")
    prompts = {7: f"a needle in the haystack {HOSTILE}", 8: "plain"}
    fake = FakeRows(rows=122, learned=0.0, prompts=prompts, unasked={120: "it is too long", 121: "it is too long"})
    folder = fake.write(tmp_path / "run")
    run = read(folder)
    plain = "[...document.querySelectorAll('#rows-list > .stuck')].map((row) => row.outerHTML)"
    kept = f"<script>const before = {plain};</script>"
    page = make_page(folder).replace("<script>\nconst PAGE", f"{kept}<script>\nconst PAGE").replace("</body>", PROBE)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    command += [f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r'<pre id="result">(.*)</pre>', done.stdout)
    assert found
    result = json.loads(found[1])
    forgotten, unstable = run.causes["forgotten"].rows, sum(row["verdict"] == "unstable" for row in run.found)
    assert result == {
        "same": True,
        "shown": True,
        "second": ["51 to 100 of 120", 50],
        "file": [f"Row {place}" for place in range(1, 51)],
        "cause": [f"1 to {forgotten} of {forgotten}", ["stuck forgotten"]],
        "verdict": f"1 to {unstable} of {unstable}",
        "unasked": ["1 to 2 of 2", "Row 121", "Row 122"],
        "words": ["Row 8"],
        "none": "No row fits.",
    }


def test_packing_nothing() -> None:
    assert packed([]) == {
        "slots": [],
        "paths": [],
        "lists": [],
        "items": {},
        "gap": "\ue000",
        "rows": [],
        "lines": [],
        "texts": [""],
    }


def test_a_text_that_holds_the_gap_is_left_alone() -> None:
    texts = ["a 1,234.5 b 6", "a 7 b 8", "gap \ue000 and 9", ""]
    found = packed([View("c", "v", {"prompt": text}, {}, {}, ()) for text in texts])
    assert found["texts"] == ["", "c", "v", "a \ue000 b \ue000", "gap \ue000 and 9"]
    assert [row[2] for row in found["rows"]] == [[(3, "1,234.5", "6")], [(3, "7", "8")], [4], [0]]
