"""The statistics of what is certain: set sizes from certain to possible, ratios of the certain part, mass bounds.

They stand beside those of the point values in the same table. The ranges are bounds, not errors of sampling; each
bound has an interval over rows of its own.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics import nulls
from whatstuck.dynamics.categories import Categories
from whatstuck.dynamics.certainty import CertainCategories, Kleene, Ranges, categorize_ranges, row_bounds
from whatstuck.dynamics.estimates import Estimates
from whatstuck.dynamics.gamma import Gamma
from whatstuck.dynamics.records import NO_NULL, Null, Recorder

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SETS = ("all", "removed", "preserved", "emerged")
SHRUNK = "removed_minus_emerged"


class CertainMetrics:
    """Computes them for a sequence of checkpoints into a recorder.

    Args:
        steps: Step of each checkpoint, the first at step 0.
        effects: Point values `(rows, 2, 2^n)` per checkpoint.
        ranges: Their ranges.
        recorder: Where the statistics go.
        estimates: Intervals and nulls over the same rows.
    """

    def __init__(
        self,
        steps: Sequence[int],
        effects: Sequence[Floats],
        ranges: Sequence[Ranges],
        recorder: Recorder,
        estimates: Estimates,
    ) -> None:
        self.steps = steps
        self.effects = effects
        self.ranges = ranges
        self.recorder = recorder
        self.estimates = estimates

    def masses(self) -> None:
        """The least and the most mass of each set, and of removed minus emerged."""
        for index, step in enumerate(self.steps):
            shrunk = np.abs(self.effects[0]) - np.abs(self.effects[index])
            self.recorder.add(step, "mass", SHRUNK, self.estimates.mean(shrunk.sum((1, 2))))
            bounds = _bounds(self.ranges[0], self.ranges[index])
            chance = _mismatched_bounds(self.ranges[0], self.ranges[index])
            for metric in ("mass_least", "mass_most"):
                for subset, column in bounds[metric].items():
                    name = SHRUNK if subset == "shrunk" else subset
                    null = chance.get((metric, subset), NO_NULL)
                    self.recorder.add(step, metric, name, self.estimates.mean(column), null=null)

    def sets(
        self,
        categories: Sequence[Categories],
        thresholds: Sequence[float],
        baselines: Mapping[str, Floats],
        **where: Any,
    ) -> None:
        """Sizes of the certain and the possible part of each set, and the ratios of the certain part.

        Args:
            categories: The sets of the point values, per checkpoint.
            thresholds: tau of each checkpoint, in log-odds.
            baselines: By name, the certain signs of another model's salient interactions; rows that it was not
                probed on are NaN.
            where: Rule and threshold constant, for the recorder.
        """
        history = categorize_ranges(self.ranges, thresholds)
        for index, (point, certain) in enumerate(zip(categories, history, strict=True)):
            self._widths(index, point.all, where)
            for subset in SETS:
                null = _count_nulls(subset, index, history)
                self._part(index, subset, getattr(point, subset), getattr(certain, subset), null, where)
                for name, signs in baselines.items():
                    self._gamma(index, subset, getattr(certain, subset).certain, name, signs, where)

    def _widths(self, index: int, members: Bools, where: dict[str, Any]) -> None:
        width = np.where(members, self.ranges[index].high - self.ranges[index].low, 0.0).sum((1, 2))
        if np.isfinite(width).all():
            value = self.estimates.ratio(width, members.sum((1, 2)).astype(np.float64))
            self.recorder.add(self.steps[index], "range_width", "all", value, **where)

    def _part(
        self, index: int, subset: str, point: Bools, part: Kleene, null: Mapping[str, Null], where: dict[str, Any]
    ) -> None:
        step, estimates = self.steps[index], self.estimates
        sizes = {name: getattr(part, name).sum((1, 2)).astype(np.float64) for name in ("certain", "possible")}
        for name, size in sizes.items():
            chance = null.get(name, NO_NULL)
            self.recorder.add(step, "count", f"{subset}_{name}", estimates.mean(size), null=chance, **where)
        share = estimates.ratio(sizes["certain"], point.sum((1, 2)).astype(np.float64))
        self.recorder.add(step, "certain_share", subset, share, **where)
        strength = self._strength(index, subset, part.certain)
        name = f"{subset}_certain"
        for metric, signed in (
            ("strength_positive", np.maximum(strength, 0)),
            ("strength_negative", np.minimum(strength, 0)),
        ):
            self.recorder.add(step, metric, name, estimates.mean(signed.sum((1, 2))), **where)
        self.recorder.add(step, "rho", name, estimates.rho(strength), null=estimates.rho_null(strength), **where)
        if subset != "all":
            value = estimates.contribution(strength, part.certain)
            chance = estimates.contribution_null(strength, part.certain)
            self.recorder.add(step, "contribution", name, value, null=chance, **where)

    def _strength(self, index: int, subset: str, members: Bools) -> Floats:
        return np.where(members, self.effects[0 if subset == "removed" else index], 0.0)

    def _gamma(
        self, index: int, subset: str, members: Bools, baseline: str, signs: Floats, where: dict[str, Any]
    ) -> None:
        """Shared is only what the other model certainly has: gamma of the certain part is a lower bound."""
        known: Bools = ~np.isnan(signs[:, 0, 0])
        gamma = Gamma(self._strength(index, subset, members), np.nan_to_num(signs), known)
        value = self.estimates.ratio(gamma.shared, gamma.total)
        order = np.bitwise_count(np.arange(signs.shape[2])).astype(np.int64)
        for null in (gamma.mismatched_rows(), gamma.stratified(order, seed=self.estimates.seed)):
            self.recorder.add(
                self.steps[index], "gamma", f"{subset}_certain", value, baseline=baseline, null=null, **where
            )


def _bounds(before: Ranges, after: Ranges) -> dict[str, dict[str, Floats]]:
    """Per row, by metric and set."""
    least, most = row_bounds(before, after)
    return {"mass_least": least, "mass_most": most}


def _mismatched_bounds(before: Ranges, after: Ranges) -> dict[tuple[str, str], Null]:
    """Null of the bounds: the ranges at step 0 are those of another row."""
    draws: dict[tuple[str, str], list[float]] = {}
    for pairing in nulls.mismatched(len(before.low)):
        bounds = _bounds(before[pairing], after)
        for metric in ("mass_least", "mass_most"):
            for subset, column in bounds[metric].items():
                if subset in SETS[1:]:
                    draws.setdefault((metric, subset), []).append(float(column.mean()))
    return {key: ("mismatched_row", *nulls.summary(_finite(values))) for key, values in draws.items()}


def _finite(values: Sequence[float]) -> Floats:
    found = np.array(values)
    return np.where(np.isfinite(found), found, np.nan)


def _count_nulls(subset: str, index: int, history: Sequence[CertainCategories]) -> dict[str, Null]:
    """Null of both counts: salience at step 0 is that of another row."""
    if subset == "all":
        return {}
    base, now = history[0].all, history[index].all
    # salient at every checkpoint between step 0 and now
    everything = Kleene(np.ones_like(base.certain), np.ones_like(base.certain))
    survivors = reduce(and_, (entry.all for entry in history[1:index]), everything)
    draws: dict[str, list[float]] = {"certain": [], "possible": []}
    for pairing in nulls.mismatched(len(base.certain)):
        other = Kleene(base.certain[pairing], base.possible[pairing])
        before = other & survivors
        part = {"removed": other & ~now, "preserved": before & now, "emerged": now & ~before}[subset]
        for name, values in draws.items():
            values.append(float(getattr(part, name).sum() / len(base.certain)))
    return {name: ("mismatched_row", *nulls.summary(np.array(values))) for name, values in draws.items()}
