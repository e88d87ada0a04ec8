"""Did the treatment help, more than the controls, and only it: statistics from `interventions.parquet` alone.

All arms are resampled alike (see `panels.py`), so every difference is paired. The best control is chosen anew inside of
every draw; chosen once, it would be there by luck in part, and its interval would not know.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
import pyarrow as pa

from whatstuck.errors import require
from whatstuck.rows.interventions.panels import Floats, Panel, Triple
from whatstuck.rows.interventions.phases import CONTROLS, RERUN

ORIGINAL = "original"
NAN: Triple = (math.nan, math.nan, math.nan)
_RESAMPLES = 2000
_POWER = 0.8
_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """The treatment against one other arm, on the same rows.

    Attributes:
        arm: The other arm.
        difference: Recovery of the treatment less that of the arm.
        only_treated: Rows that are right in most seeds of the treatment and not of the arm.
        only_other: The other way round.
        p_value: Exact McNemar test of these two; NaN without rows.
        q_value: The same after Benjamini-Hochberg over all comparisons of a table.
    """

    arm: str
    difference: Triple
    only_treated: int
    only_other: int
    p_value: float
    q_value: float = math.nan


@dataclass(frozen=True, slots=True)
class ArmOutcome:
    """What one arm did to the rows of a cause.

    Attributes:
        recovery: Share of the unlearned rows that are learned now.
        paraphrases: The same, asked in other words.
        collateral: Share of the learned rows that are not learned any more.
        rows: Unlearned rows.
        seeds: Trainings.
    """

    recovery: Triple
    paraphrases: Triple
    collateral: Triple
    rows: int
    seeds: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What the interventions say about one cause.

    Attributes:
        cause: The cause.
        verdict: `supported`: the treatment beats the best control, by interval and by exact test (q < 0.05), and other
            causes' treatments; `contradicted`: another arm beats it; else `inconclusive` (arXiv 2604.10079 has no such
            test; design).
        effect: Recovery of the treatment less that of the best control.
        specificity: Less the mean of other causes' treatments; NaN without any.
        lead: Less the best of all other arms.
        collateral: Learned rows lost, less those that a plain re-run loses.
        removed: Recovery of the rows that the treatment took out of the training; not part of the effect.
        given_up: Share of the learned rows that it took out which are not learned any more; not part of the collateral.
        arms: Arm to what it did.
        comparisons: The treatment against every other arm.
        rows_for_power: Rows that it takes to see this effect with 80 % power; NaN if there is none.
    """

    cause: str
    verdict: Literal["supported", "contradicted", "inconclusive"]
    effect: Triple
    specificity: Triple
    lead: Triple
    collateral: Triple
    removed: Triple
    given_up: Triple
    arms: dict[str, ArmOutcome]
    comparisons: tuple[Comparison, ...] = field(default=())
    rows_for_power: float = math.nan


def effects(table: pa.Table, *, seed: int = 0, resamples: int = _RESAMPLES) -> dict[str, Effect]:
    """Statistics of every cause.

    Args:
        table: A table of `whatstuck.rows.schemas.INTERVENTIONS`.
        seed: Seed of the bootstrap.
        resamples: Number of draws.

    Returns:
        Cause to effect, in the order of the table.

    Raises:
        MissingExtraError: If scipy is not installed.
    """
    records = table.to_pylist()
    found = {
        cause: _effect(cause, [record for record in records if record["cause"] == cause], seed, resamples)
        for cause in dict.fromkeys(record["cause"] for record in records)
    }
    tests = [(cause, index) for cause, effect in found.items() for index in range(len(effect.comparisons))]
    adjusted = benjamini_hochberg([found[cause].comparisons[index].p_value for cause, index in tests])
    q_values = dict(zip(tests, adjusted, strict=True))
    for cause, effect in found.items():
        comparisons = tuple(
            replace(comparison, q_value=q_values[cause, index]) for index, comparison in enumerate(effect.comparisons)
        )
        found[cause] = judged(replace(effect, comparisons=comparisons))
    return found


def recovery_matrix(table: pa.Table, *, wording: str = ORIGINAL, seed: int = 0) -> dict[tuple[str, str], Triple]:
    """Recovery of the rows of each cause in each arm.

    Args:
        table: A table of `whatstuck.rows.schemas.INTERVENTIONS`.
        wording: `original`, or the name of a paraphrase.
        seed: Seed of the bootstrap.

    Returns:
        (cause, arm) to value, low and high, over the rows that no arm removed.
    """
    records = [record for record in table.to_pylist() if record["wording"] == wording]
    matrix: dict[tuple[str, str], Triple] = {}
    for cause in dict.fromkeys(record["cause"] for record in records):
        panel = Panel([record for record in records if record["cause"] == cause], "unlearned", seed, _RESAMPLES)
        matrix |= {(cause, arm): panel.share(arm) for arm in panel.arms}
    return matrix


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values; NaN stays NaN and is no test."""
    stats = require("scipy.stats", "rows")
    known = [p for p in p_values if not math.isnan(p)]
    adjusted = iter(stats.false_discovery_control(known).tolist() if known else [])
    return [p if math.isnan(p) else float(next(adjusted)) for p in p_values]


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of two counts of rows that are right in one arm only."""
    if not only_first + only_second:
        return 1.0
    return float(require("scipy.stats", "rows").binomtest(only_first, only_first + only_second).pvalue)


def rows_for_power(control: float, treated: float) -> float:
    """Rows per arm that show a difference of two shares with 80 % power at 5 %, two-sided.

    >>> round(rows_for_power(0.1, 0.3)), round(rows_for_power(0.2, 0.35)), round(rows_for_power(0.3, 0.4))
    (62, 138, 356)
    """
    if math.isnan(control) or math.isnan(treated) or control == treated:
        return math.nan
    normal = NormalDist()
    mean = (control + treated) / 2
    spread = normal.inv_cdf(1 - _SIGNIFICANT / 2) * math.sqrt(2 * mean * (1 - mean))
    spread += normal.inv_cdf(_POWER) * math.sqrt(control * (1 - control) + treated * (1 - treated))
    return math.ceil((spread / (treated - control)) ** 2)


def _effect(cause: str, records: Sequence[dict[str, object]], seed: int, resamples: int) -> Effect:
    asked = [record for record in records if record["wording"] == ORIGINAL]
    panel = Panel(asked, "unlearned", seed, resamples)
    learned = Panel(asked, "learned", seed, resamples)
    reworded = Panel([r for r in records if r["wording"] != ORIGINAL], "unlearned", seed, resamples)
    ours = [r for r in asked if r["arm"] == cause]
    removed, given_up = (Panel(ours, role, seed, resamples) for role in ("removed", "removed_learned"))
    treated = panel.mean(cause)
    means = {arm: panel.mean(arm) for arm in panel.arms if arm != cause}
    controls = [mean for arm, mean in means.items() if arm in CONTROLS]
    others = [mean for arm, mean in means.items() if arm not in CONTROLS]
    effect = panel.estimate(treated - np.max(controls, axis=0)) if controls else NAN
    specificity = panel.estimate(treated - np.mean(others, axis=0)) if others else NAN
    lead = panel.estimate(treated - np.max([*means.values()], axis=0)) if means else NAN
    lost = learned.estimate(learned.mean(RERUN) - learned.mean(cause))
    outcomes = {
        arm: ArmOutcome(
            recovery=panel.share(arm),
            paraphrases=reworded.share(arm),
            collateral=learned.share(arm, lost=True),
            rows=panel.rows,
            seeds=panel.seeds,
        )
        for arm in dict.fromkeys([*panel.arms, *learned.arms])
    }
    return Effect(
        cause=cause,
        verdict="inconclusive",  # until the q-values are known
        effect=effect,
        specificity=specificity,
        lead=lead,
        collateral=lost,
        removed=removed.share(cause),
        given_up=given_up.share(cause, lost=True),
        arms=outcomes,
        comparisons=tuple(_compared(panel, cause, arm, treated - mean) for arm, mean in means.items()),
        rows_for_power=rows_for_power(float(np.max(controls, axis=0)[0]), float(treated[0])) if controls else math.nan,
    )


def judged(effect: Effect) -> Effect:
    """The effect with its verdict.

    The intervals must exclude zero, and the exact test must agree: of a few rows a bootstrap is too sure. NaN compares
    as false, so what is not known decides nothing.
    """
    best = strongest(effect, CONTROLS)
    rival = strongest(effect, [one.arm for one in effect.comparisons])
    verdict: Literal["supported", "contradicted", "inconclusive"] = "inconclusive"
    if best is not None and beats(effect.effect, best) and effect.specificity[1] > 0:
        verdict = "supported"
    elif effect.lead[2] < 0 and rival is not None and rival.q_value < _SIGNIFICANT:
        verdict = "contradicted"
    return replace(effect, verdict=verdict)


def beats(effect: Triple, control: Comparison) -> bool:
    """Whether the treatment is better than the best control, by interval and by exact test."""
    return effect[1] > 0 and control.q_value < _SIGNIFICANT


def strongest(effect: Effect, arms: Collection[str]) -> Comparison | None:
    """The comparison with the one of some arms that recovers most; None if none was run."""
    there = [one for one in effect.comparisons if one.arm in arms]
    return max(there, key=lambda one: effect.arms[one.arm].recovery[0], default=None)


def _compared(panel: Panel, cause: str, arm: str, difference: Floats) -> Comparison:
    if cause not in panel.arms or not panel.rows:
        return Comparison(arm, NAN, 0, 0, math.nan)
    ours, theirs = panel.mostly(cause), panel.mostly(arm)
    first, second = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return Comparison(arm, panel.estimate(difference), first, second, mcnemar(first, second))
