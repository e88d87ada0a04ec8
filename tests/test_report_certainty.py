"""Certain, found and possible on the page: the numbers of the folder, and no certainty where no range is known."""

import math
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fake_run import FakeRun
from page_reader import Reader
from whatstuck.report import make_page
from whatstuck.report.bars import Part, part_bars
from whatstuck.report.certainty import SHRUNK, Way, block, ways
from whatstuck.report.metrics import Stat
from whatstuck.report.reading import read_run
from whatstuck.report.sections import prompt as prompt_section
from whatstuck.report.sections import ratios
from whatstuck.report.sections.prompt import certainty, reaches
from whatstuck.report.words import number, percent

SETS = ("removed", "preserved", "emerged")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun().write(tmp_path_factory.mktemp("run") / "demo")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return make_page(folder)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun(certainty=False).write(tmp_path_factory.mktemp("old") / "demo")


def values(folder: Path, step: int) -> dict[tuple[str, str, str], float]:
    return {
        (row["metric"], row["set"], row["threshold_rule"]): row["value"]
        for row in pq.read_table(folder / "metrics.parquet").to_pylist()
        if row["step"] == step
        and row["order"] == 0
        and (row["threshold_rule"] == "none" or row["setting"].endswith("tau=0.03"))
    }


def test_the_three_numbers_of_each_set_are_those_of_the_folder(folder: Path, page: str) -> None:
    found, text = values(folder, 64), Reader(page).text
    for subset in SETS:
        least, point, most = (found[metric, subset, "none"] for metric in ("mass_least", "mass", "mass_most"))
        assert least < point < most
        assert f"{number(least)} at least, {number(point)} found, {number(most)} at most" in text
        for rule in ("relative", "fixed"):
            certain, point, possible = (
                found["count", name, rule] for name in (f"{subset}_certain", subset, f"{subset}_possible")
            )
            assert certain <= point <= possible
            assert f"{number(certain)} certain, {number(point)} found, {number(possible)} possible" in text


def test_ratios_of_the_certain_part_stand_under_those_of_the_set(folder: Path, old: Path) -> None:
    lines = ratios.build(read_run(folder), text=True)["rho_table"]
    assert [(line["rule"], line["set"], line["part"]) for line in lines if line["rule"] != "no threshold"] == [
        (f"{rule} threshold", subset, part)
        for rule in ("relative", "fixed")
        for subset in ("all", *SETS)
        for part in ("", "certain")
    ]
    assert {line["value"] for line in lines if line["part"]} == {"30 % (24 to 36)"}
    assert {line["part"] for line in ratios.build(read_run(old), text=True)["rho_table"]} == {""}


def test_trust_gives_the_share_that_is_certain_at_both_steps(folder: Path, page: str) -> None:
    text = Reader(page).text
    for step, name in ((0, "step 0"), (32, "the kept step")):
        found = values(folder, step)
        share, certain, point, possible = (
            found[metric, subset, "fixed"]
            for metric, subset in (
                ("certain_share", "all"),
                ("count", "all_certain"),
                ("count", "all"),
                ("count", "all_possible"),
            )
        )
        assert re.search(rf"{re.escape(percent(share))} \([^)]*\) are certain at {name}", text)
        assert f"({number(certain)} of {number(point)} per row; {number(possible)} are possible)" in text


def test_an_old_run_is_not_taken_to_be_certain(old: Path) -> None:
    run = read_run(old)
    assert ways(run) == []
    assert block(run) == {"figures": [], "sentence": "", "table": []}
    shown = prompt_section.build(run, text=True)
    assert not shown["ranged"]
    assert {effect["certain"] for row in shown["rows"] for effect in row["effects"]} == {""}
    assert {effect["range"] for row in shown["rows"] for effect in row["effects"]} == {""}
    page = make_page(old)
    assert not re.search(r"\d found, ", Reader(page).text)
    assert 'class="how certain"' not in page
    assert 'class="how possible"' not in page


def way(least: tuple[float, float], most: tuple[float, float], **more: Stat) -> Way:
    """Removed and emerged: (removed, emerged) at least and at most, each with an interval of 0.1."""
    sides = ("removed", "emerged")

    def stats(pair: tuple[float, float]) -> dict[str, Stat]:
        return {side: Stat(value, value - 0.1, value + 0.1) for side, value in zip(sides, pair, strict=True)}

    return Way("count", "fixed", "", stats(least) | more, stats(least), stats(most) | more)


@pytest.mark.parametrize(
    ("shown", "larger"),
    [
        (way((5, 1), (9, 4)), "removed"),
        (way((1, 5), (4, 9)), "emerged"),
        (way((5, 1), (9, 5)), ""),
        (way((5, 1), (9, 4.9)), ""),  # the intervals touch
        (way((5, 1), (9, 4), **{SHRUNK: Stat(0.0, -1.0, 1.0)}), ""),  # the difference itself decides
        (way((1, 1), (9, 9), **{SHRUNK: Stat(2.0, 1.0, 3.0)}), "removed"),
        (way((1, 1), (9, 9), **{SHRUNK: Stat(-2.0, -3.0, -1.0)}), "emerged"),
        (way((1, 1), (9, 9), **{SHRUNK: Stat(2.0)}), ""),
    ],
)
def test_larger_for_certain(shown: Way, larger: str) -> None:
    assert shown.larger == larger


@pytest.mark.parametrize(("looseness", "said"), [(0.01, "more emerges"), (30.0, "By no way of counting is it certain")])
def test_what_is_said_follows_the_width_of_the_ranges(tmp_path: Path, looseness: float, said: str) -> None:
    run = read_run(FakeRun(looseness=looseness, steps=(0, 32)).write(tmp_path / "run"))
    assert said in block(run)["sentence"]


def test_bars_are_as_long_as_their_numbers() -> None:
    picture = Reader(
        str(part_bars({"removed": Part(2.0, 4.0, 8.0)}, title="t", name="n", words=("certain", "possible"), top=10.0))
    )
    rects = {attributes["class"]: attributes for tag, attributes in picture.tags if tag == "rect"}
    line = next(attributes for _, attributes in picture.tags if attributes.get("class") == "found")

    def value(rect: str, name: str) -> float:
        return float(rects[rect][name] or "")

    unit = value("bar", "width") / 2.0
    assert value("maybe", "width") == pytest.approx(6.0 * unit, abs=0.2)
    assert value("maybe", "x") == pytest.approx(value("bar", "x") + 2.0 * unit, abs=0.2)
    assert float(line["x1"] or "") == pytest.approx(value("bar", "x") + 4.0 * unit, abs=0.2)
    assert "removed 2 certain, 4 found, 8 possible" in picture.text


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0.5, 0.6), (0.0, 0.05), "certain"),
        ((0.5, 0.6), (0.0, 0.15), "possible"),
        ((-0.6, -0.5), (0.3, 0.4), "certain"),
        ((-0.2, 0.2), (0.3, 0.4), "possible"),
        (None, (0.3, 0.4), ""),
        ((0.3, 0.4), None, ""),
    ],
)
def test_a_category_is_certain_if_both_steps_are(before: Any, after: Any, expected: str) -> None:
    assert certainty((before, after), 0.1) == expected


@pytest.mark.parametrize("end", [0.1, math.nextafter(0.1, 1)])
def test_the_threshold_itself_is_not_beyond_it(end: float) -> None:
    assert reaches((-0.05, end), 0.1) == ("no" if end == 0.1 else "unknown")
    assert reaches((end, 0.2), 0.1) == ("unknown" if end == 0.1 else "yes")


def test_each_interaction_shows_its_range(folder: Path) -> None:
    run = read_run(folder)
    tau = 0.03 * (run.metrics.series("scale")[0].value or 0)
    shown = prompt_section.build(run, text=True)
    assert shown["ranged"]
    marks = set()
    for entry in shown["rows"]:
        row = next(row for row in run.rows if entry["title"] == f"Row {row.source_index + 1} of the data")
        open_ = {
            (effect.kind, effect.mask)
            for step in (0, 32)
            for effect in run.effects[step][row.row_id]
            if effect.low is not None and effect.high is not None and max(effect.high, -effect.low) > tau
        }
        salient = {
            (effect.kind, effect.mask)
            for step in (0, 32)
            for effect in run.effects[step][row.row_id]
            if abs(effect.value) > tau
        }
        assert salient <= open_
        assert entry["others"].split(" ")[0] == str(len(open_ - salient))
        for effect in entry["effects"]:
            marks.add(effect["certain"])
            assert re.fullmatch(r"Range before .+, now .+\.", effect["range"])
            assert effect["figure"].count('class="whisker"') == 2
    assert marks == {"certain", "possible"}
