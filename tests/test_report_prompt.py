"""One prompt taken apart: which rows and interactions are shown, and what is said of each."""

from pathlib import Path

import pytest

from fake_run import FakeRun
from whatstuck.report.reading import Run, read_run
from whatstuck.report.sections import prompt as prompt_section


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun().write(tmp_path_factory.mktemp("run") / "demo")


def test_the_row_that_changed_most_comes_first(folder: Path) -> None:
    run = read_run(folder)

    def change(run: Run, row_id: str) -> float:
        value = {step: {(e.kind, e.mask): e.value for e in run.effects[step][row_id]} for step in (0, 32)}
        return sum(abs(value[32].get(key, 0) - value[0].get(key, 0)) for key in value[0].keys() | value[32].keys())

    expected = sorted(run.rows, key=lambda row: -change(run, row.row_id))[:3]
    shown = prompt_section.build(run, text=True)["rows"]
    assert [row["title"] for row in shown] == [f"Row {row.source_index + 1} of the data" for row in expected]


def test_every_effect_shown_is_in_the_tables(folder: Path) -> None:
    run = read_run(folder)
    tau = 0.03 * (run.metrics.series("scale")[0].value or 0)
    rows = {f"Row {row.source_index + 1} of the data": row.row_id for row in run.rows}
    for shown in prompt_section.build(run, text=True)["rows"]:
        salient = {
            (effect.kind, effect.mask)
            for step in (0, 32)
            for effect in run.effects[step][rows[shown["title"]]]
            if abs(effect.value) > tau
        }
        assert len(shown["effects"]) == min(8, len(salient))
        assert shown["left_out"] == len(salient) - len(shown["effects"])


@pytest.mark.parametrize(
    ("before", "after", "category"),
    [
        (1.0, 0.0, "removed"),
        (0.0, 1.0, "emerged"),
        (1.0, 2.0, "preserved"),
        (-1.0, -0.2, "preserved"),
        (1.0, -1.0, "sign_changed"),
        (0.1, 0.1, ""),
    ],
)
def test_membership_of_one_interaction(before: float, after: float, category: str) -> None:
    assert prompt_section.categorize(before, after, 0.1, 0.1) == category


def test_players_outside_the_prompt_are_not_marked(folder: Path) -> None:
    row = read_run(folder).rows[0]
    broken = type(row)("id", "short text", "a", ((0, 5, "short"), (3, 7, "overlaps"), (6, 99, "outside")), 0)
    assert prompt_section.highlighted(broken) == "<mark><bdi>short</bdi><sup>1</sup></mark> text"


def test_a_long_prompt_is_shortened_but_keeps_its_players() -> None:
    row = prompt_section.Row("id", "a" * 5000 + " word " + "b" * 5000, "x", ((5001, 5005, "word"),), 0)
    shown = prompt_section.highlighted(row)
    assert len(shown) < 2000
    assert "<mark><bdi>word</bdi><sup>1</sup></mark>" in shown
