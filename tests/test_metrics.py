"""The statistics of a run: identities that must hold between them, on random interactions."""

import math
from typing import Any

import numpy as np
import pytest

from whatstuck.dynamics.metrics import MAIN_TAU, TAU_CURVE, Metrics, Probe
from whatstuck.dynamics.records import SCHEMA, Orders, Recorder

ROWS, PLAYERS = 10, 5


def probe(step: int, seed: int, growth: float = 1.0) -> Probe:
    generator = np.random.default_rng(seed)
    shape = (ROWS, 2, 1 << PLAYERS)
    effects = growth * generator.laplace(size=shape) * (generator.random(shape) < 0.3)
    effects[:, :, 0] = 0
    effects[:, 1, [1 << player for player in range(PLAYERS)]] = 0
    empty = generator.normal(size=ROWS)
    return Probe(step, effects, empty + effects.sum((1, 2)), empty)


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    recorder = Recorder("model", "paper kappa=0.05*step")
    probes = [probe(0, 0), probe(4, 1), probe(16, 2, growth=5.0)]
    Metrics(probes, PLAYERS, recorder, seed=0).compute({"other": probe(0, 3)})
    rows: list[dict[str, Any]] = recorder.table().to_pylist()
    assert recorder.table().schema == SCHEMA
    return rows


def pick(records: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    wanted = {"kind": "both", "order": 0, "threshold_rule": "none", "baseline": ""} | wanted
    found = [row for row in records if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


@pytest.mark.parametrize("rule", ["relative", "fixed"])
@pytest.mark.parametrize("step", [0, 4, 16])
def test_sets_add_up(records: list[dict[str, Any]], rule: str, step: int) -> None:
    setting = f"paper kappa=0.05*step tau={MAIN_TAU:g}"
    count = {
        name: pick(records, metric="count", set=name, step=step, threshold_rule=rule, setting=setting)["value"]
        for name in ("all", "removed", "preserved", "emerged", "reappeared")
    }
    base = pick(records, metric="count", set="all", step=0, threshold_rule=rule, setting=setting)["value"]
    assert count["preserved"] + count["emerged"] == pytest.approx(count["all"])
    assert count["removed"] + count["preserved"] + count["reappeared"] == pytest.approx(base)


@pytest.mark.parametrize("step", [0, 4, 16])
def test_masses_and_orders_add_up(records: list[dict[str, Any]], step: int) -> None:
    mass = {
        name: pick(records, metric="mass", set=name, step=step) for name in ("all", "removed", "preserved", "emerged")
    }
    base = pick(records, metric="mass", set="all", step=0)["value"]
    assert mass["preserved"]["value"] + mass["emerged"]["value"] == pytest.approx(mass["all"]["value"])
    assert mass["preserved"]["value"] + mass["removed"]["value"] == pytest.approx(base)
    parts = [
        row["value"]
        for row in records
        if row["metric"] == "mass"
        and row["set"] == "all"
        and row["step"] == step
        and row["order"] > 0
        and row["kind"] != "both"
    ]
    assert sum(parts) == pytest.approx(mass["all"]["value"])


def test_every_interval_holds_its_value_and_every_ratio_has_a_null(records: list[dict[str, Any]]) -> None:
    for row in records:
        if not math.isnan(row["value"]):
            assert row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9, row
        if row["metric"] in {"rho", "gamma", "contribution"} and not math.isnan(row["value"]):
            assert not math.isnan(row["null_mean"]), row


def test_empty_sets_are_nan(records: list[dict[str, Any]]) -> None:
    for rule in ("relative", "fixed"):
        for name in ("removed", "emerged"):
            assert math.isnan(pick(records, metric="rho", set=name, step=0, threshold_rule=rule)["value"])


def test_a_relative_threshold_grows_with_the_output(records: list[dict[str, Any]]) -> None:
    """The trap that the fixed rule is there for: five times the range hides what a fixed threshold shows."""
    setting = f"paper kappa=0.05*step tau={MAIN_TAU:g}"
    counts = {
        rule: pick(records, metric="count", set="all", step=16, threshold_rule=rule, setting=setting)["value"]
        for rule in ("relative", "fixed")
    }
    assert counts["relative"] < counts["fixed"]


def test_the_curve_over_tau_falls(records: list[dict[str, Any]]) -> None:
    counts = [
        pick(
            records,
            metric="count",
            set="all",
            step=16,
            threshold_rule="fixed",
            setting=f"paper kappa=0.05*step tau={tau:g}",
        )["value"]
        for tau in TAU_CURVE
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_sufficiency_of_nothing_is_log_two(records: list[dict[str, Any]]) -> None:
    row = pick(records, metric="sufficiency_ce", set="emerged", step=0, threshold_rule="relative")
    assert row["value"] == pytest.approx(math.log(2))
    assert row["null_mean"] == pytest.approx(math.log(2))


def test_orders_sum_by_kind() -> None:
    effects = np.zeros((1, 2, 8))
    effects[0, 0, 0b001], effects[0, 0, 0b111], effects[0, 1, 0b110] = 1.0, 2.0, 4.0
    sums = Orders(3).sums(effects)
    assert sums[0].tolist() == [[3, 1, 0, 2], [4, 0, 4, 0], [7, 1, 4, 2]]
