"""Every statistic of a run, with its interval over rows and its null.

The paper's headline flips with the threshold rule, so each set statistic stands under a tau that grows with the
output's range (`relative`), under the tau of step 0 (`fixed`), along a curve over tau, and without any tau
(`none`: masses). What holds under one rule only is not a finding.

Pooled ratios are sums of numerators over sums of denominators, row by row, so that effects never cancel across
rows. Removed interactions carry their strength at step 0, all others that of their own step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics import nulls
from whatstuck.dynamics.categories import Categories, Masses, categorize, common_gain, masses
from whatstuck.dynamics.certain_metrics import CertainMetrics
from whatstuck.dynamics.certainty import Ranges
from whatstuck.dynamics.estimates import Estimates
from whatstuck.dynamics.gamma import Gamma, PooledGamma, pools, shared_fraction
from whatstuck.dynamics.records import NAN, NO_NULL, Null, Orders, Recorder

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAIN_TAU = 0.03
TAU_CURVE = (0.003, 0.01, 0.03, 0.1, 0.3)
HIGH_ORDER = 4
SETS = tuple(entry.name for entry in fields(Categories))
MAIN_SETS = ("all", "removed", "preserved", "emerged")
CHANGED_SETS = ("removed", "preserved", "emerged")


@dataclass(frozen=True, slots=True)
class Probe:
    """The interactions of one model at one step, for all probed rows.

    Attributes:
        step: Optimizer step of the checkpoint.
        effects: Interactions, float64 `(rows, 2, 2^n)`, AND before OR; NaN rows were not probed.
        full: v(N), float64 `(rows,)`.
        empty: v(empty), float64 `(rows,)`.
        ranges: The ranges of the interactions; None where they were not computed.
    """

    step: int
    effects: Floats
    full: Floats
    empty: Floats
    ranges: Ranges | None = None

    @property
    def scale(self) -> float:
        """Mean |v(N) - v(empty)| over rows: the range of the output, in log-odds."""
        return float(np.nanmean(np.abs(self.full - self.empty)))


class Metrics:
    """Computes the statistics of a sequence of checkpoints into a recorder.

    Args:
        probes: The model under study, in order of steps, the first at step 0.
        players: Number of players n.
        recorder: Where the statistics go.
        seed: Seed of bootstrap and nulls.
        one_token: Whether v are the log-odds of one token; those of several are no cross-entropy.

    Raises:
        ValueError: If a row is missing at a step: unknown is not removed.
    """

    def __init__(
        self, probes: Sequence[Probe], players: int, recorder: Recorder, *, seed: int, one_token: bool = True
    ) -> None:
        if any(np.isnan(probe.full).any() for probe in probes):
            raise ValueError("every row must be known at every step of the model under study")
        self.probes = probes
        self.one_token = one_token
        self.orders = Orders(players)
        self.recorder = recorder
        self.seed = seed
        self.rows = len(probes[0].full)
        self.estimates = Estimates(self.rows, seed=seed)
        self.bootstrap = self.estimates.bootstrap
        self.effects = [probe.effects for probe in probes]
        self.masses = [masses(self.effects[0], effect) for effect in self.effects]
        self.categories: dict[str, list[Categories]] = {}
        for rule in ("relative", "fixed"):
            self.categories[rule] = categorize(self.effects, self._thresholds(rule, MAIN_TAU))

    def signals(self, index: int, baselines: dict[str, Probe]) -> None:
        """What stop rules read of one checkpoint: the statistics of `compute` that need no threshold and no order.

        None of them depends on the checkpoints between step 0 and this one, so two probes are enough to have them.
        """
        self._ranges(index)
        self._masses(index, whole=True)
        self._thresholdless(index)
        self._gammas(index, baselines, ())

    def compute(self, baselines: dict[str, Probe]) -> None:
        """All statistics, those against each baseline model and against all of them together included."""
        for index in range(len(self.probes)):
            self._ranges(index)
            self._masses(index)
            self._thresholdless(index)
            for rule in ("relative", "fixed"):
                self._sets(index, rule)
                self._set_ratios(index, rule)
            self._gammas(index, baselines, ("relative", "fixed"))
        for tau in TAU_CURVE:
            if tau != MAIN_TAU:
                self._curve(tau)
        self._certain(baselines)

    # --- parts

    def _thresholds(self, rule: str, tau: float) -> list[float]:
        base = self.probes[0].scale
        return [tau * (probe.scale if rule == "relative" else base) for probe in self.probes]

    def _strength_of(self, index: int, subset: str) -> Floats:
        """Removed interactions are gone: their strength is that of step 0."""
        return self.effects[0] if subset == "removed" else self.effects[index]

    def _ranges(self, index: int) -> None:
        probe = self.probes[index]
        self.recorder.add(probe.step, "scale", "all", self.estimates.mean(np.abs(probe.full - probe.empty)))
        # log(1 + exp(-v)) is the cross-entropy of the target when v are its log-odds
        if self.one_token:
            self.recorder.add(probe.step, "sufficiency_ce", "table", self.estimates.mean(np.logaddexp(0, -probe.full)))

    def _by_order(
        self, index: int, metric: str, subset: str, sums: Floats, *, null: Null | None = None, **where: Any
    ) -> None:
        """Record `(rows, 3, n + 1)` sums as means per kind and order; the null belongs to their total."""
        value, low, high = self.bootstrap.ratio(sums.reshape(self.rows, -1))
        for flat, kind, order in self.orders.cells():
            if null is not None and kind == "both" and order == 0:
                where["null"] = null
            triple = (value[flat], low[flat], high[flat])
            self.recorder.add(self.probes[index].step, metric, subset, triple, kind=kind, order=order, **where)
            where.pop("null", None)

    def _masses(self, index: int, *, whole: bool = False) -> None:
        """Masses, by kind and order or as a `whole`, and how alike the interactions are to those of step 0."""
        now = self.masses[index]
        first = self.effects[0]
        step = self.probes[index].step
        strangers = nulls.mismatched_masses(first, self.effects[index])
        for subset in MAIN_SETS:
            null = ("mismatched_row", *nulls.summary(strangers[subset].mean(1))) if subset in strangers else NO_NULL
            strength = np.abs(self._mass(index, subset))
            if whole:
                self.recorder.add(step, "mass", subset, self.estimates.mean(strength.sum((1, 2))), null=null)
            else:
                self._by_order(index, "mass", subset, self.orders.sums(strength), null=null)
        # paired by row: mass differs more between rows than from what a stranger's base gives
        chance = strangers["emerged"]
        excess = np.abs(now.emerged).sum((1, 2)) - (chance.mean(0) if len(chance) else NAN)
        null = ("mismatched_row", *nulls.summary(chance.mean(1) - chance.mean() if len(chance) else chance))
        self.recorder.add(step, "mass_excess", "emerged", self.estimates.mean(excess), null=null)
        self.recorder.add(step, "cosine", "all", self.estimates.cosine(first, self.effects[index]))
        if whole:
            return
        gain = common_gain(first, self.effects[index])
        _, low, high = self.estimates.ratio((first * self.effects[index]).sum((1, 2)), (first**2).sum((1, 2)))
        self.recorder.add(step, "gain", "all", (gain, low, high))
        scaled = masses(first * gain, self.effects[index])
        previous = masses(self.effects[max(index - 1, 0)], self.effects[index])
        for subset in CHANGED_SETS:
            for metric, parts in (("mass_gain", scaled), ("mass_previous", previous)):
                total = np.abs(getattr(parts, subset)).sum((1, 2))
                self.recorder.add(step, metric, subset, self.estimates.mean(total))
        for subset in ("removed", "emerged"):
            if index:
                before = np.abs(getattr(self.masses[index - 1], subset)).sum((1, 2))
                change = np.abs(getattr(now, subset)).sum((1, 2)) - before
                self.recorder.add(step, "mass_change", subset, self.estimates.mean(change))

    def _thresholdless(self, index: int) -> None:
        step = self.probes[index].step
        for subset in MAIN_SETS:
            mass = self._mass(index, subset)
            self.recorder.add(step, "rho", subset, self.estimates.rho(mass), null=self.estimates.rho_null(mass))
        high = self.orders.order >= HIGH_ORDER
        for subset in ("all", "emerged"):
            strength = np.abs(self._mass(index, subset))
            share = self.estimates.ratio(strength[:, :, high].sum((1, 2)), strength.sum((1, 2)))
            self.recorder.add(step, "high_order_share", subset, share)

    def _mass(self, index: int, subset: str) -> Floats:
        parts: Masses = self.masses[index]
        return self.effects[index] if subset == "all" else getattr(parts, subset)

    def _sets(self, index: int, rule: str) -> None:
        """Counts and signed strengths by kind and order."""
        now = self.categories[rule][index]
        base = self.categories[rule][0].all
        # salient at every checkpoint after step 0, whatever it was at step 0
        later = [categories.all for categories in self.categories[rule][1 : index + 1]]
        survivors = np.logical_and.reduce(later) if later else base
        where: dict[str, Any] = {"rule": rule, "tau": MAIN_TAU}
        for subset in SETS:
            members: Bools = getattr(now, subset)
            null = nulls.count_null(subset, base, now.all, survivors) if subset in CHANGED_SETS else None
            counts = self.orders.sums(members.astype(np.float64))
            self._by_order(index, "count", subset, counts, null=null, **where)
            strength = np.where(members, self._strength_of(index, subset), 0.0)
            positive, negative = np.maximum(strength, 0), np.minimum(strength, 0)
            self._by_order(index, "strength_positive", subset, self.orders.sums(positive), **where)
            self._by_order(index, "strength_negative", subset, self.orders.sums(negative), **where)

    def _set_ratios(self, index: int, rule: str) -> None:
        """rho, contribution and sufficiency of each set."""
        now, probe = self.categories[rule][index], self.probes[index]
        for subset in MAIN_SETS:
            members: Bools = getattr(now, subset)
            strength = np.where(members, self._strength_of(index, subset), 0.0)
            where: dict[str, Any] = {"rule": rule, "tau": MAIN_TAU}
            self.recorder.add(
                probe.step, "rho", subset, self.estimates.rho(strength), null=self.estimates.rho_null(strength), **where
            )
            if subset != "all":
                value = self.estimates.contribution(strength, members)
                null = self.estimates.contribution_null(strength, members)
                self.recorder.add(probe.step, "contribution", subset, value, null=null, **where)
            if not self.one_token:
                continue
            # an empty set predicts log-odds 0, whose cross-entropy is log 2 (without the bias)
            bias = self.probes[0].empty if subset == "removed" else probe.empty
            for metric, shift in (("sufficiency_ce", np.zeros_like(bias)), ("sufficiency_ce_bias", bias)):
                value = self.estimates.mean(np.logaddexp(0, -(strength.sum((1, 2)) + shift)))
                nothing = float(np.logaddexp(0, -shift).mean())
                empty = ("empty_set", nothing, nothing, nothing)
                self.recorder.add(probe.step, metric, subset, value, null=empty, **where)

    def _gammas(self, index: int, baselines: dict[str, Probe], rules: Sequence[str]) -> None:
        """Generalizability gamma of each mass and of each set, against each other model and against pools of them."""
        for subset in MAIN_SETS:
            for rule in ("none", *rules):
                gammas = {name: self._gamma(index, subset, rule, other) for name, other in baselines.items()}
                pooled = {name: PooledGamma([gammas[one] for one in some]) for name, some in pools([*gammas]).items()}
                where: dict[str, Any] = {} if rule == "none" else {"rule": rule, "tau": MAIN_TAU}
                for name, gamma in (gammas | pooled).items():
                    value = self.estimates.ratio(gamma.shared, gamma.total)
                    for null in (gamma.mismatched_rows(), gamma.stratified(self.orders.order, seed=self.seed)):
                        step = self.probes[index].step
                        self.recorder.add(step, "gamma", subset, value, baseline=name, null=null, **where)

    def _gamma(self, index: int, subset: str, rule: str, other: Probe) -> Gamma:
        known = ~np.isnan(other.full)
        effects = np.nan_to_num(other.effects)
        ours = self._strength_of(index, subset)
        if rule == "none":
            return Gamma(self._mass(index, subset), effects, known, partial(shared_fraction, ours, known=known))
        salient = np.where(np.abs(effects) > MAIN_TAU * other.scale, np.sign(effects), 0.0)
        members = getattr(self.categories[rule][index], subset)
        return Gamma(np.where(members, ours, 0.0), salient, known)

    def _curve(self, tau: float) -> None:
        """Counts and strengths along other thresholds."""
        for rule in ("relative", "fixed"):
            for index, now in enumerate(categorize(self.effects, self._thresholds(rule, tau))):
                step = self.probes[index].step
                for subset in MAIN_SETS:
                    members: Bools = getattr(now, subset)
                    strength = np.where(members, self._strength_of(index, subset), 0.0)
                    for metric, quantity in (
                        ("count", members.astype(np.float64)),
                        ("strength_positive", np.maximum(strength, 0)),
                        ("strength_negative", np.minimum(strength, 0)),
                    ):
                        value = self.estimates.mean(quantity.sum((1, 2)))
                        self.recorder.add(step, metric, subset, value, rule=rule, tau=tau)

    def _certain(self, baselines: dict[str, Probe]) -> None:
        """What is certain, where the ranges of every checkpoint are known."""
        ranges = [probe.ranges for probe in self.probes if probe.ranges is not None]
        if len(ranges) < len(self.probes):
            return
        certain = CertainMetrics(
            [probe.step for probe in self.probes], self.effects, ranges, self.recorder, self.estimates
        )
        certain.masses()
        signs = {
            name: np.where(np.isnan(probe.effects), np.nan, probe.ranges.certain_signs(MAIN_TAU * probe.scale))
            for name, probe in baselines.items()
            if probe.ranges is not None
        }
        for rule in ("relative", "fixed"):
            thresholds = self._thresholds(rule, MAIN_TAU)
            certain.sets(self.categories[rule], thresholds, signs, rule=rule, tau=MAIN_TAU)
