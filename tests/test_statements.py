"""A sentence is certain only where it holds in every near-optimal explanation."""

from typing import Any

import pyarrow as pa
import pytest

from whatstuck.dynamics.certain_metrics import SHRUNK
from whatstuck.dynamics.circumstances import Training
from whatstuck.dynamics.heldout import SCHEMA
from whatstuck.dynamics.records import Recorder
from whatstuck.dynamics.statements import statements
from whatstuck.dynamics.verdict import decide, record_heldout

SETTING = "robust misfit=0.1*step tilt=0.2,0.05"
Three = tuple[float, float, float]


def recorded(removed: Three, emerged: Three, *, interval: float = 0.1) -> Recorder:
    """Numbers under the fixed threshold at step 8: certain, found and possible, with an interval around each."""
    recorder = Recorder("model", SETTING)
    for side, three in (("removed", removed), ("emerged", emerged)):
        for suffix, value in zip(("_certain", "", "_possible"), three, strict=True):
            triple = (value, value - interval, value + interval)
            recorder.add(8, "count", side + suffix, triple, rule="fixed", tau=0.03)
    return recorder


def said(recorder: Recorder) -> str:
    return statements(recorder.table(), SETTING)[-1]


@pytest.mark.parametrize(
    ("removed", "emerged", "interval", "expected"),
    [
        ((10, 12, 15), (3, 5, 8), 0.1, "That more was removed is certain."),
        ((3, 5, 8), (10, 12, 15), 0.1, "That more emerged is certain."),
        ((10, 12, 15), (3, 5, 11), 0.1, "Which of the two is more is not certain."),  # the possible ones reach beyond
        ((10, 12, 15), (3, 5, 8), 1.5, "Which of the two is more is not certain."),  # other rows might
        ((2, 30, 40), (2, 5, 8), 0.1, "Which of the two is more is not certain."),  # found is not certain
    ],
)
def test_numbers_need_the_certain_of_one_beyond_the_possible_of_the_other(
    removed: Three, emerged: Three, interval: float, expected: str
) -> None:
    sentence = said(recorded(removed, emerged, interval=interval))
    assert sentence.endswith(expected)
    assert f"{removed[1]} removed ({removed[0]} certain, {removed[2]} possible)" in sentence
    assert f"{emerged[1]} emerged ({emerged[0]} certain, {emerged[2]} possible)" in sentence


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (0.5, 3.0, "That more was removed is certain."),
        (-3.0, -0.5, "That more emerged is certain."),
        (-0.5, 3.0, "Which of the two is more is not certain."),
        (-3.0, -0.05, "Which of the two is more is not certain."),  # its interval reaches above 0
        (0.05, 3.0, "Which of the two is more is not certain."),  # its interval reaches below 0
    ],
)
def test_masses_are_compared_by_their_difference(least: float, most: float, expected: str) -> None:
    recorder = Recorder("model", SETTING)
    for metric, value in (("mass", 1.0), ("mass_least", 0.0), ("mass_most", 9.0)):
        for side in ("removed", "emerged"):
            recorder.add(8, metric, side, (value, value - 0.1, value + 0.1))
    recorder.add(8, "mass_least", SHRUNK, (least, least - 0.1, least + 0.1))
    recorder.add(8, "mass_most", SHRUNK, (most, most - 0.1, most + 0.1))
    sentence = said(recorder)
    assert sentence.endswith(expected)
    assert "1 removed (0 at least, 9 at most)" in sentence


def test_bounds_that_are_not_known_are_not_numbers() -> None:
    recorder = Recorder("model", SETTING)
    for metric, value in (("mass", 1.0), ("mass_least", 0.0), ("mass_most", float("nan"))):
        for side in ("removed", "emerged", SHRUNK):
            recorder.add(8, metric, side, (value, value, value))
    assert "1 removed, without bounds" in said(recorder)
    assert said(recorder).endswith("not certain.")


def test_without_ranges_it_says_so() -> None:
    recorder = Recorder("model", SETTING)
    for side in ("removed", "emerged"):
        recorder.add(8, "count", side, (5.0, 4.0, 6.0), rule="fixed", tau=0.03)
    assert said(recorder).startswith("Which single interactions are certain was not computed")


def verdict_of(recorder: Recorder, *, heldout: bool) -> dict[str, Any]:
    losses = {
        step: pa.Table.from_pylist(
            [
                {"row_id": str(row), "half": "select", "nll": level + row % 3, "tokens": 1, "correct": False}
                for row in range(30)
            ],
            schema=SCHEMA,
        )
        for step, level in ((0, 2.0), (8, 1.0))
    }
    found = losses if heldout else {}
    record_heldout(found, recorder, seed=0)
    recorder.add(0, "scale", "all", (1.0, 1.0, 1.0))
    metrics = recorder.table()
    return decide(Training(found), metrics, statements(metrics, SETTING), setting=SETTING, seed=0)


@pytest.mark.parametrize("heldout", [True, False])
def test_no_interaction_raises_the_confidence_of_the_verdict(*, heldout: bool) -> None:
    """Neither by what was found nor by what is certain: only held-out loss earns confidence."""
    open_, found, certain = (
        verdict_of(recorded(removed, (1, 1, 1)), heldout=heldout) for removed in ((0, 1, 40), (0, 40, 40), (40, 40, 40))
    )
    assert certain["signals"]["statements"][-1].endswith("That more was removed is certain.")
    for key in ("keep_step", "decision", "confidence", "reason"):
        assert open_[key] == found[key] == certain[key]
    assert found["confidence"] == ("high" if heldout else "low")
