"""The statistics of a run: identities that must hold between them, on random interactions."""

import math
from typing import Any

import numpy as np
import pytest

from whatstuck.dynamics.gamma import Gamma, PooledGamma, shared_fraction
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


def probe_without_a_row(seed: int) -> Probe:
    other = probe(0, seed)
    for values in (other.effects, other.full, other.empty):
        values[3] = math.nan
    return other


BASELINES = {"one": 3, "two": 4, "another seed": 5}


@pytest.fixture(scope="module")
def several() -> list[dict[str, Any]]:
    """Three probes, two baselines, one of which does not know a row, and the upper bound."""
    recorder = Recorder("model", "x")
    baselines = {
        name: probe_without_a_row(seed) if name == "two" else probe(0, seed) for name, seed in BASELINES.items()
    }
    Metrics([probe(0, 0), probe(4, 1), probe(16, 2, growth=5.0)], PLAYERS, recorder, seed=0).compute(baselines)
    rows: list[dict[str, Any]] = recorder.table().to_pylist()
    return rows


def gamma_of(records: list[dict[str, Any]], baseline: str, subset: str = "emerged", **wanted: Any) -> dict[str, Any]:
    wanted = {"step": 16, "null_kind": "order_stratified"} | wanted
    return pick(records, metric="gamma", set=subset, baseline=baseline, **wanted)


def test_signals_of_one_step_are_the_numbers_of_all_steps(several: list[dict[str, Any]]) -> None:
    """Two probes are enough, whatever lies between them."""
    recorder = Recorder("model", "x")
    baselines = {
        name: probe_without_a_row(seed) if name == "two" else probe(0, seed) for name, seed in BASELINES.items()
    }
    Metrics([probe(0, 0), probe(16, 2, growth=5.0)], PLAYERS, recorder, seed=0).signals(1, baselines)
    names = ("metric", "set", "kind", "order", "threshold_rule", "baseline", "setting", "null_kind", "step")
    numbers = ("value", "low", "high", "null_mean", "null_low", "null_high")
    full = {tuple(row[name] for name in names): [row[name] for name in numbers] for row in several}
    for row in recorder.rows:
        expected = full[tuple(row[name] for name in names)]
        assert [row[name] for name in numbers] == pytest.approx(expected, rel=1e-12, nan_ok=True), row
    found = {(row["metric"], row["set"], row["baseline"]) for row in recorder.rows}
    assert {row["threshold_rule"] for row in recorder.rows} == {"none"}
    pooled = {"pooled", "pooled without one", "pooled without two"}
    assert found >= {("gamma", "emerged", name) for name in {*BASELINES, *pooled}}
    assert found >= {("rho", "emerged", ""), ("mass", "emerged", ""), ("cosine", "all", ""), ("scale", "all", "")}


def test_pooled_gamma_is_what_is_shared_over_what_could_be(several: list[dict[str, Any]]) -> None:
    """By hand, with the totals of each model; the upper bound is in no pool."""
    metrics = Metrics([probe(0, 0), probe(16, 2, growth=5.0)], PLAYERS, Recorder("model", "x"), seed=0)
    emerged, now = metrics.masses[1].emerged, metrics.effects[1]
    shared = total = 0.0
    for other in (probe(0, 3), probe_without_a_row(4)):
        known = ~np.isnan(other.full)
        theirs = np.nan_to_num(other.effects)
        scale = np.abs(now[known]).sum() / np.abs(theirs).sum()
        part = np.minimum(np.divide(np.abs(theirs) * scale, np.abs(now), out=np.zeros_like(now), where=now != 0), 1.0)
        same = np.sign(theirs) == np.sign(emerged)
        shared += np.abs(emerged * part * same)[known].sum()
        total += np.abs(emerged)[known].sum()
    assert gamma_of(several, "pooled")["value"] == pytest.approx(shared / total)
    assert gamma_of(several, "pooled without one") == gamma_of(several, "two") | {"baseline": "pooled without one"}
    assert gamma_of(several, "pooled")["value"] != gamma_of(several, "another seed")["value"]


def test_one_baseline_is_its_own_pool(records: list[dict[str, Any]]) -> None:
    gammas = [row for row in records if row["metric"] == "gamma"]
    assert {row["baseline"] for row in gammas} == {"other", "pooled"}
    alone, pooled = (
        [row | {"baseline": ""} for row in gammas if row["baseline"] == name] for name in ("other", "pooled")
    )
    assert repr(alone) == repr(pooled)  # NaN equals no NaN


def test_the_nulls_of_a_pool_are_drawn_jointly() -> None:
    """Two equal models say no more than one: the pool has the null of one, as wide as before."""
    ours, theirs = probe(4, 1), probe(0, 3)
    known = np.ones(ROWS, dtype=bool)
    order = Orders(PLAYERS).order

    def gamma() -> Gamma:
        return Gamma(
            ours.effects,
            theirs.effects,
            known,
            lambda other: shared_fraction(ours.effects, other, known),
        )

    alone, twice = PooledGamma([gamma()]), PooledGamma([gamma(), gamma()])
    assert twice.mismatched_rows()[1:] == pytest.approx(alone.mismatched_rows()[1:])
    assert twice.stratified(order, seed=0)[1:] == pytest.approx(alone.stratified(order, seed=0)[1:])
    assert twice.shared.sum() / twice.total.sum() == pytest.approx(alone.shared.sum() / alone.total.sum())


def test_the_excess_of_emerged_mass_is_paired_by_row(records: list[dict[str, Any]]) -> None:
    """It is mass less its null, and its interval is not that of the mass."""
    mass = pick(records, metric="mass", set="emerged", step=16)
    excess = pick(records, metric="mass_excess", set="emerged", step=16)
    assert excess["value"] == pytest.approx(mass["value"] - mass["null_mean"])
    assert excess["high"] - excess["low"] < 0.2 * (mass["high"] - mass["low"])
    assert excess["null_mean"] == pytest.approx(0, abs=1e-9)


def test_a_base_that_is_remembered_leaves_less_to_emerge_than_a_strangers() -> None:
    """Twice the same with noise: far below zero; something new on every row: about zero."""
    first, other = probe(0, 0), probe(4, 1)
    remembered = Probe(4, 1.5 * first.effects, first.full, first.empty)
    excesses = []
    for now in (remembered, other):
        recorder = Recorder("model", "x")
        Metrics([first, now], PLAYERS, recorder, seed=0).signals(1, {})
        excesses.append(pick(recorder.rows, metric="mass_excess", set="emerged"))
    base_mass = np.abs(first.effects).sum((1, 2)).mean()
    assert excesses[0]["high"] < -0.5 * base_mass
    assert excesses[1]["null_low"] < excesses[1]["value"] < -0.1 * excesses[0]["value"]


def test_a_pool_with_a_model_that_knows_one_row_has_no_mismatched_null() -> None:
    ours, theirs = probe(4, 1), probe(0, 3)
    every, one = np.ones(ROWS, dtype=bool), np.arange(ROWS) == 2
    pool = PooledGamma([Gamma(ours.effects, np.sign(theirs.effects), rows) for rows in (every, one)])
    assert all(math.isnan(value) for value in pool.mismatched_rows()[1:])
    assert not math.isnan(pool.stratified(Orders(PLAYERS).order, seed=0)[1])
