"""The statistics of the made-up run in fake_run.py: what metrics.parquet would hold for its interactions."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from whatstuck.dynamics.categories import categorize
from whatstuck.dynamics.certainty import Kleene, Ranges, categorize_ranges, mass_bounds

SETTING = "paper kappa=0.05*step"
MODEL = "tiny-base"
BASELINE = "other-model"
SECOND = "third-model"
UPPER = "another seed"
NAN = float("nan")
FLOOR = 1e-4
SHRUNK = "removed_minus_emerged"
CHANGED = ("removed", "preserved", "emerged")


@dataclass
class FakeMetrics:
    """What to write, with a knob for each case that the page must survive."""

    steps: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64)
    rows: int = 20
    players: int = 6
    keep: int | None = 32
    heldout: bool = True
    baseline: bool = True
    several: bool = False  # a second baseline, both pooled, each left out, and the same model with another seed
    live: bool = False  # probed while training: half of the steps have no checkpoint
    old: bool = False  # as a run of before there were rules that stop
    stop: int | None = None  # where the deciding rule says stop
    stopped: bool = False  # and it did
    unknown: bool = False  # every statistic NaN
    certainty: bool = True  # without: as a run of before there were ranges
    looseness: float = 1.0  # how wide the ranges are
    dtype: str = "float32"
    warnings: tuple[str, ...] = ("the adapter names another base model: /home/me/models/base",)
    texts: dict[int, tuple[str, list[str], str]] = field(default_factory=dict)  # row -> prompt, words, answer
    seed: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.records: list[dict[str, Any]] = []

    def _nan(self, record: dict[str, Any]) -> dict[str, Any]:
        numbers = ("value", "low", "high", "null_mean", "null_low", "null_high")
        return {**record, **dict.fromkeys(numbers, NAN)} if self.unknown else record

    def _add(self, step: int, metric: str, subset: str, value: float, spread: float = 0.0, **more: Any) -> None:
        tau, null = more.pop("tau", None), more.pop("null", ("", NAN, NAN))
        low = float(value - spread)
        low = max(low, 0.0) if metric in ("count", "mass", "heldout_accuracy") and subset != SHRUNK else low
        self.records.append(
            {
                "model": MODEL,
                "step": step,
                "metric": metric,
                "set": subset,
                "kind": more.pop("kind", "both"),
                "order": more.pop("order", 0),
                "threshold_rule": more.pop("rule", "none"),
                "baseline": more.pop("baseline", ""),
                "setting": SETTING if tau is None else f"{SETTING} tau={tau:g}",
                "value": float(value),
                "low": low if self.rows > 1 else NAN,
                "high": float(value + spread) if self.rows > 1 else NAN,
                "null_kind": null[0],
                "null_mean": null[1],
                "null_low": max(null[1] - null[2], 0.0) if metric == "mass" else null[1] - null[2],
                "null_high": null[1] + null[2],
                **more,
            }
        )

    def _mean(self, step: int, metric: str, subset: str, column: np.ndarray, **more: Any) -> None:
        spread = 1.96 * column.std(ddof=1) / np.sqrt(len(column)) if len(column) > 1 else 0.0
        self._add(step, metric, subset, column.mean(), spread, **more)

    def _statistics(self, effects: list[np.ndarray]) -> None:
        scales = [np.abs(effect.sum((1, 2))) for effect in effects]
        before: dict[str, np.ndarray] = {}
        for index, step in enumerate(self.steps):
            base, now = effects[0], effects[index]
            self._mean(step, "scale", "all", scales[index])
            self._add(step, "gap", "all", 0.002, 0.002)
            parts = _masses(base, now)
            previous = _masses(effects[max(index - 1, 0)], now)
            gain = float((base * now).sum() / (base**2).sum())
            scaled = _masses(base * gain, now)
            for subset in CHANGED:
                total = parts[subset].sum((1, 2))
                self._mean(step, "mass", subset, total, null=("mismatched_row", total.mean() * 0.8, 0.1))
                self._mean(step, "mass_gain", subset, scaled[subset].sum((1, 2)))
                self._mean(step, "mass_previous", subset, previous[subset].sum((1, 2)))
                if index and subset != "preserved":
                    self._mean(step, "mass_change", subset, total - before[subset])
                before[subset] = total
            self._add(
                step, "cosine", "all", float((base * now).sum() / np.sqrt((base**2).sum() * (now**2).sum())), 0.05
            )
            self._add(step, "gain", "all", gain, 0.06)
            self._add(step, "high_order_share", "all", 0.21 + 0.02 * index, 0.04)
            self._ratios(step, "none", {"all": np.abs(now), **parts}, now)
        for tau in (0.003, 0.01, 0.03, 0.1, 0.3):
            for rule in ("relative", "fixed"):
                self._sets(effects, [scale.mean() for scale in scales], rule, tau)
        self._add(0, "noise_floor", "all", 2.1e-5)
        self._add(0, "salient_from_noise", "all", 0.05, 0.05, rule="fixed", tau=0.03)
        self._add(0, "salient_flipped_by_noise", "all", 0.1, 0.1, rule="fixed", tau=0.03)

    def _sets(self, effects: list[np.ndarray], scales: list[float], rule: str, tau: float) -> None:
        preserved = None
        for index, step in enumerate(self.steps):
            effect = effects[index]
            now = np.abs(effect) > tau * scales[index if rule == "relative" else 0]
            base = np.abs(effects[0]) > tau * scales[0]
            preserved = now if preserved is None else preserved & now
            members = {
                "all": now,
                "removed": base & ~now,
                "preserved": preserved,
                "emerged": now & ~preserved,
                "reappeared": now & ~preserved & base,
                "sign_changed": preserved & (np.sign(effect) != np.sign(effects[0])),
            }
            where = {"rule": rule, "tau": tau}
            for subset, member in members.items():
                strength = np.where(member, effects[0] if subset == "removed" else effect, 0.0)
                self._by_order(step, "count", subset, member.astype(float), where)
                self._by_order(step, "strength_positive", subset, np.maximum(strength, 0), where)
                self._by_order(step, "strength_negative", subset, np.minimum(strength, 0), where)
            if tau == 0.03:
                self._ratios(
                    step, rule, {name: np.where(members[name], np.abs(effect), 0) for name in ("all", *CHANGED)}, effect
                )

    def _by_order(self, step: int, metric: str, subset: str, values: np.ndarray, where: dict[str, Any]) -> None:
        self._mean(step, metric, subset, values.sum((1, 2)), **where)
        if where["tau"] == 0.03:
            order = np.bitwise_count(np.arange(values.shape[2]))
            for wanted in range(1, self.players + 1):
                self._mean(step, metric, subset, values[:, :, order == wanted].sum((1, 2)), order=wanted, **where)

    def _ratios(self, step: int, rule: str, strengths: dict[str, np.ndarray], signed: np.ndarray) -> None:
        where = {"rule": rule} if rule == "none" else {"rule": rule, "tau": 0.03}
        for subset, strength in strengths.items():
            total = strength.sum()
            rho = float(np.abs((np.sign(signed) * strength).sum((1, 2))).sum() / total) if total else NAN
            self._add(step, "rho", subset, rho, 0.06, null=("sign_flip", 0.2, 0.04), **where)
            if self.baseline:
                for kind, level in (("mismatched_row", 0.18), ("order_stratified", 0.24)):
                    for name, more in self._baselines().items():
                        shared = 0.3 + 0.15 * (subset == "preserved") + more * (1 + step / 64) if total else NAN
                        null = (kind, level, 0.05)
                        self._add(step, "gamma", subset, shared, 0.05, null=null, baseline=name, **where)
            if rule != "none":
                for metric in ("sufficiency_ce", "sufficiency_ce_bias"):
                    self._add(step, metric, subset, 0.6, 0.1, null=("empty_set", float(np.log(2)), 0.0), **where)
                if subset != "all":
                    self._add(step, "contribution", subset, 0.05, 0.02, null=("sign_flip", 0.0, 0.02), **where)

    def _baselines(self) -> dict[str, float]:
        """What stands in the column `baseline`, and by how much more it shares."""
        if not self.several:
            return {BASELINE: 0.0} if self.old else {BASELINE: 0.0, "pooled": 0.0}
        one, other = f"pooled without {SECOND}", f"pooled without {BASELINE}"
        return {BASELINE: -0.04, SECOND: 0.08, "pooled": 0.02, one: -0.04, other: 0.08, UPPER: 0.2}

    def _certain(self, effects: list[np.ndarray], ranges: list[Ranges]) -> None:
        for step, effect, around in zip(self.steps, effects, ranges, strict=True):
            bounds = mass_bounds(ranges[0], around)
            for metric, parts in (("mass_least", bounds.least), ("mass_most", bounds.most)):
                for subset, part in parts.items():
                    name = SHRUNK if subset == "shrunk" else subset
                    null = ("mismatched_row", 1.0, 0.1) if subset in CHANGED else ("", NAN, NAN)
                    self._mean(step, metric, name, part.sum((1, 2)), null=null)
            shrunk = np.abs(effects[0]) - np.abs(effect)
            self._mean(step, "mass", SHRUNK, shrunk.sum((1, 2)))
        scales = [np.abs(effect.sum((1, 2))).mean() for effect in effects]
        for rule in ("relative", "fixed"):
            taus = [0.03 * (scale if rule == "relative" else scales[0]) for scale in scales]
            point = categorize(effects, taus)
            for index, sets in enumerate(categorize_ranges(ranges, taus)):
                step, where = self.steps[index], {"rule": rule, "tau": 0.03}
                salient = point[index].all
                width = (ranges[index].high - ranges[index].low)[salient].mean() if salient.any() else NAN
                self._add(step, "range_width", "all", width, 0.02, **where)
                for subset in ("all", *CHANGED):
                    three: Kleene = getattr(sets, subset)
                    found = getattr(point[index], subset).sum()
                    share = three.certain.sum() / found if found else NAN
                    self._add(step, "certain_share", subset, share, 0.05, **where)
                    for name in ("certain", "possible"):
                        column = getattr(three, name).sum((1, 2)).astype(float)
                        self._mean(step, "count", f"{subset}_{name}", column, **where)
                    self._add(step, "rho", f"{subset}_certain", 0.3, 0.06, null=("sign_flip", 0.2, 0.04), **where)


def _masses(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    kept = np.where(np.sign(before) == np.sign(after), np.minimum(np.abs(before), np.abs(after)), 0.0)
    return {"removed": np.abs(before) - kept, "preserved": kept, "emerged": np.abs(after) - kept}
