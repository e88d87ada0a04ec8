"""What is known of a training up to a step: the signals that rules read, and nothing from later.

Built from the rows of metrics.parquet. A training builds one at every probe, so cutting it costs nothing: `until`
shares the numbers and moves the end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.gamma import POOLED
from whatstuck.dynamics.metrics import MAIN_TAU

__all__ = ["DIFFERENCE", "POOLED", "TRAINER", "History", "Signal"]

TRAINER = "trainer"
"""The set under which a metric that the trainer itself logged is found, such as `("eval_loss", "trainer")`."""
DIFFERENCE = "heldout_loss_difference"

_READ = ("heldout_loss", "heldout_accuracy", DIFFERENCE, "rho", "gamma", "mass", "mass_excess", "cosine", "scale")
_NULLS = {"gamma": "order_stratified"}  # of two nulls the one that a rule reads: it keeps the orders of the other model
_Key = tuple[str, str, str, str, str]  # metric, set, baseline, null kind, threshold rule


@dataclass(frozen=True, slots=True)
class Signal:
    """One statistic at one step, with its interval over rows.

    Attributes:
        value: The statistic, finite.
        low: Lower end of its 95 % interval; NaN where there is none.
        high: Upper end.
        null_mean: What chance alone gives; NaN where there is no null.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    null_mean: float = math.nan

    def excess(self) -> "Signal":
        """The statistic above its null; NaN throughout where there is no null."""
        return Signal(self.value - self.null_mean, self.low - self.null_mean, self.high - self.null_mean, 0.0)


@dataclass(frozen=True, slots=True)
class History:
    """Metrics of one training up to a step.

    Attributes:
        last: The last step that may be seen; None: all of them.
    """

    _series: Mapping[_Key, Mapping[int, Signal]]
    _steps: tuple[int, ...]
    _epochs: Mapping[int, float]
    last: int | None = None

    @classmethod
    def from_metrics(
        cls,
        table: pa.Table,
        setting: str,
        *,
        epochs: Mapping[int, float] | None = None,
        trainer: Mapping[str, Sequence[tuple[int, float]]] | None = None,
        last: int | None = None,
    ) -> Self:
        """Read a metrics table.

        Args:
            table: The run's metrics, or a part of them, in the schema of metrics.parquet.
            setting: The extraction setting to look at.
            epochs: Step to epoch, where known.
            trainer: Metrics that the trainer logged: name to (step, value). Only probed steps count: what was
                measured at a step that was not probed cannot be kept.
            last: Leave out everything after this step.
        """
        series: dict[_Key, dict[int, Signal]] = {}
        for row in _rows(table, setting):
            signal = Signal(row["value"], row["low"], row["high"], row["null_mean"])
            key = (row["metric"], row["set"], row["baseline"], row["null_kind"], row["threshold_rule"])
            series.setdefault(key, {})[row["step"]] = signal
        steps = sorted({step for values in series.values() for step in values})
        for name, pairs in (trainer or {}).items():
            values = {step: Signal(value) for step, value in pairs if step in steps and math.isfinite(value)}
            series[name, TRAINER, "", "", "none"] = values
        ordered = {key: dict(sorted(values.items())) for key, values in series.items()}
        return cls(ordered, tuple(steps), dict(epochs or {}), last)

    @property
    def steps(self) -> list[int]:
        """Probed steps, ascending; one of which nothing finite is known (the training diverged) is none."""
        return [step for step in self._steps if self._is_seen(step)]

    @property
    def epochs(self) -> dict[int, float]:
        """Step to epoch, where known."""
        return {step: epoch for step, epoch in sorted(self._epochs.items()) if self._is_seen(step)}

    def until(self, step: int) -> Self:
        """The same, as it was known at a step."""
        return replace(self, last=step if self.last is None else min(step, self.last))

    def series(
        self, metric: str, subset: str, baseline: str = "", *, null: str | None = None, threshold: str = "none"
    ) -> dict[int, Signal]:
        """A statistic by step, steps ascending; steps where it is not finite are absent.

        Args:
            metric: Name of the metric, as in metrics.parquet, all kinds and orders together.
            subset: Name of the set; `trainer` for what the trainer logged.
            baseline: The other model of gamma; `pooled` for all of them.
            null: Which null to bring along; None: the only one, of gamma `order_stratified`.
            threshold: The threshold rule, `none`, `relative` or `fixed`; the latter two at the main tau.
        """
        wanted = _NULLS.get(metric) if null is None else null
        for (name, of, other, kind, rule), values in self._series.items():
            if (name, of, other, rule) == (metric, subset, baseline, threshold) and wanted in (None, kind):
                return {step: signal for step, signal in values.items() if self._is_seen(step)}
        return {}

    def _is_seen(self, step: int) -> bool:
        return self.last is None or step <= self.last


def _rows(table: pa.Table, setting: str) -> list[dict[str, Any]]:
    """The finite statistics that rules read: without a threshold, and the number of salient interactions."""
    whole = (pc.field("kind") == "both") & (pc.field("order") == 0) & pc.is_finite(pc.field("value"))
    plain = pc.field("metric").isin(_READ) & (pc.field("threshold_rule") == "none") & (pc.field("setting") == setting)
    salient = (
        (pc.field("metric") == "count")
        & (pc.field("set") == "all")
        & (pc.field("setting") == f"{setting} tau={MAIN_TAU:g}")
    )
    rows: list[dict[str, Any]] = table.filter(whole & (plain | salient)).to_pylist()
    return rows
