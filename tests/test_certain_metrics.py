"""Statistics of the certain part: they enclose the point values, and equal them where nothing is open."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from whatstuck.dynamics.certain_metrics import SETS, SHRUNK
from whatstuck.dynamics.certainty import Ranges
from whatstuck.dynamics.metrics import Metrics, Probe
from whatstuck.dynamics.records import Recorder

ROWS, PLAYERS = 8, 4
SETTING = "robust misfit=0.1*step tilt=0.2,0.05"
Records = list[dict[str, Any]]


def probe(step: int, seed: int) -> Probe:
    generator = np.random.default_rng(seed)
    shape = (ROWS, 2, 1 << PLAYERS)
    effects = generator.laplace(size=shape) * (generator.random(shape) < 0.4)
    effects[:, :, 0] = 0
    empty = generator.normal(size=ROWS)
    return Probe(step, effects, empty + effects.sum((1, 2)), empty)


def ranged(found: Probe, width: float) -> Probe:
    generator = np.random.default_rng(found.step + 1)
    below, above = (width * generator.exponential(size=found.effects.shape) for _ in range(2))
    return replace(found, ranges=Ranges(found.effects - below, found.effects + above))


def computed(change: Callable[[Probe], Probe]) -> Records:
    recorder = Recorder("model", SETTING)
    probes = [change(probe(step, step)) for step in (0, 4, 16)]
    Metrics(probes, PLAYERS, recorder, seed=0).compute({"other": change(probe(0, 99))})
    return recorder.rows


@pytest.fixture(scope="module")
def records() -> Records:
    return computed(lambda found: ranged(found, 0.05))


@pytest.fixture(scope="module")
def exact() -> Records:
    return computed(lambda found: ranged(found, 0.0))


def by_place(records: Records, metric: str, *, suffix: str = "") -> dict[tuple[Any, ...], dict[str, Any]]:
    """By step, set (without its suffix), rule, and null."""
    names = {subset + suffix: subset for subset in SETS}
    return {
        (row["step"], names[row["set"]], row["threshold_rule"], row["null_kind"]): row
        for row in records
        if row["metric"] == metric
        and row["set"] in names
        and row["kind"] == "both"
        and row["order"] == 0
        and (row["threshold_rule"] == "none" or row["setting"].endswith("tau=0.03"))
    }


def test_counts_and_masses_are_enclosed(records: Records) -> None:
    certain, found, possible = (by_place(records, "count", suffix=part) for part in ("_certain", "", "_possible"))
    assert len(certain) == len(possible) == 3 * 4 * 2
    assert certain.keys() == found.keys()
    for place, row in found.items():
        assert certain[place]["value"] <= row["value"] <= possible[place]["value"]
    least, mass, most = (by_place(records, name) for name in ("mass_least", "mass", "mass_most"))
    assert least.keys() == mass.keys() == most.keys()
    for place, row in mass.items():
        assert least[place]["value"] <= row["value"] <= most[place]["value"]
    assert any(certain[place]["value"] < possible[place]["value"] for place in found)


def test_shares_say_how_much_of_what_was_found_is_certain(records: Records) -> None:
    certain, found, share = (
        by_place(records, name, suffix=part)
        for name, part in (("count", "_certain"), ("count", ""), ("certain_share", ""))
    )
    counts = {place[:3]: row["value"] for place, row in found.items()}
    sure = {place[:3]: row["value"] for place, row in certain.items()}
    for place, row in share.items():
        if counts[place[:3]]:
            assert row["value"] == pytest.approx(sure[place[:3]] / counts[place[:3]])
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        else:
            assert math.isnan(row["value"])


@pytest.mark.parametrize("metric", ["count", "strength_positive", "strength_negative", "rho", "gamma", "contribution"])
def test_without_anything_open_the_certain_part_is_what_was_found(exact: Records, metric: str) -> None:
    """Values, intervals and nulls alike: the two are computed in different ways."""
    found = by_place(exact, metric)
    parts = ["_certain", "_possible"] if metric == "count" else ["_certain"]
    for part in parts:
        certain = by_place(exact, metric, suffix=part)
        assert certain
        for place, row in certain.items():
            for column in ("value", "low", "high", "null_mean", "null_low", "null_high"):
                assert row[column] == pytest.approx(found[place][column], nan_ok=True), (place, column)


def test_without_anything_open_the_mass_is_known(exact: Records) -> None:
    found = by_place(exact, "mass")
    for metric in ("mass_least", "mass_most"):
        for place, row in by_place(exact, metric).items():
            for column in ("value", "low", "high", "null_mean", "null_low", "null_high"):
                assert row[column] == pytest.approx(found[place][column], nan_ok=True)


def test_removed_minus_emerged_is_bounded_more_tightly_than_its_parts(records: Records) -> None:
    rows = {(row["metric"], row["set"]): row["value"] for row in records if row["step"] == 16 and row["order"] == 0}
    assert rows["mass", SHRUNK] == pytest.approx(rows["mass", "removed"] - rows["mass", "emerged"])
    assert rows["mass_least", "removed"] - rows["mass_most", "emerged"] < rows["mass_least", SHRUNK]
    assert rows["mass_least", SHRUNK] < rows["mass", SHRUNK] < rows["mass_most", SHRUNK]
    assert rows["mass_most", SHRUNK] < rows["mass_most", "removed"] - rows["mass_least", "emerged"]


def test_gamma_of_the_certain_part_counts_what_the_other_model_certainly_has() -> None:
    """The other model's ranges reach over zero everywhere: nothing is certainly shared."""
    recorder = Recorder("model", SETTING)
    other = probe(0, 99)
    open_ = replace(other, ranges=Ranges(-np.abs(other.effects) - 1, np.abs(other.effects) + 1))
    Metrics([ranged(probe(0, 0), 0.0)], PLAYERS, recorder, seed=0).compute({"other": open_})
    gammas = {
        row["set"]: row["value"]
        for row in recorder.rows
        if row["metric"] == "gamma" and row["threshold_rule"] == "fixed"
    }
    assert gammas["all"] > 0
    assert gammas["all_certain"] == 0


def test_a_row_that_the_other_model_does_not_know_is_left_out() -> None:
    recorder = Recorder("model", SETTING)
    other = probe(0, 99)
    other.effects[0], other.full[0], other.empty[0] = np.nan, np.nan, np.nan
    unknown = np.isnan(other.effects)
    around = Ranges(np.where(unknown, -1.0, other.effects), np.where(unknown, 1.0, other.effects))
    Metrics([ranged(probe(0, 0), 0.0)], PLAYERS, recorder, seed=0).compute({"other": replace(other, ranges=around)})
    gammas = by_place(recorder.rows, "gamma")
    for place, row in by_place(recorder.rows, "gamma", suffix="_certain").items():
        assert row["value"] == pytest.approx(gammas[place]["value"], nan_ok=True)


def test_without_ranges_nothing_is_said_to_be_certain(records: Records) -> None:
    plain = computed(lambda found: found)
    assert not [row for row in plain if "certain" in row["set"] or "least" in row["metric"]]

    def some(found: Probe) -> Probe:
        return found if found.step == 4 else ranged(found, 0.1)

    assert len(computed(some)) == len(plain)
    added = len(records) - len(plain)
    assert 0 < added / 3 < 120  # per step: the table must stay small


def test_unbounded_ranges_give_no_bound_rather_than_a_number() -> None:
    def unbounded(found: Probe) -> Probe:
        wide = ranged(found, 0.1)
        assert wide.ranges is not None
        wide.ranges.high[0, 0, 3] = np.inf
        return wide

    rows = computed(unbounded)
    most = by_place(rows, "mass_most")
    assert all(math.isnan(row["value"]) for place, row in most.items() if place[1] == "all")
    assert all(not math.isnan(row["value"]) for row in by_place(rows, "mass_least").values())
    assert not any(math.isinf(row[column]) for row in rows for column in ("value", "low", "high", "null_mean"))
