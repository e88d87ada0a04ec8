"""metrics.parquet for the page: statistics by name and step, every NaN turned into None."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whatstuck.report.files import read_records

MAIN_TAU = 0.03
POOLED, WITHOUT = "pooled", "pooled without "  # names in the column `baseline` that are no model's

_TAU = re.compile(r"^(.*?) ?\btau=([0-9.eE+-]+)$")
_NOISE = " noise-perturbed"


@dataclass(frozen=True, slots=True)
class Stat:
    """One statistic: value, 95 % interval and null; None where it is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None
    null_kind: str = ""
    null_mean: float | None = None
    null_low: float | None = None
    null_high: float | None = None


Key = tuple[str, str, str, int, str, float | None, str]


@dataclass(slots=True)
class Metrics:
    """metrics.parquet of the model under study, for one extraction setting."""

    setting: str = ""
    other_settings: tuple[str, ...] = ()
    _cells: dict[Key, dict[int, list[Stat]]] = field(default_factory=dict)

    def series(
        self,
        metric: str,
        subset: str = "all",
        *,
        kind: str = "both",
        order: int = 0,
        rule: str = "none",
        tau: float = MAIN_TAU,
        baseline: str = "",
        null: str = "",
    ) -> dict[int, Stat]:
        """A statistic by step, steps ascending; only those whose value is known.

        The names are those of the columns of metrics.parquet. `tau` counts under a threshold rule only; `null` says
        which of several nulls to bring along, the first one if empty.
        """
        where = (metric, subset, kind, order, rule, None if rule == "none" else tau, baseline)
        found: dict[int, Stat] = {}
        for step, stats in sorted(self._cells.get(where, {}).items()):
            fitting = [stat for stat in stats if not null or stat.null_kind == null]
            if fitting and fitting[0].value is not None:
                found[step] = fitting[0]
        return found

    def everywhere(self, metric: str) -> list[Stat]:
        """Every known value of a metric, whatever its set, rule or step."""
        cells = (cell for key, cell in self._cells.items() if key[0] == metric)
        return [stat for cell in cells for stats in cell.values() for stat in stats if stat.value is not None]

    def taus(self, rule: str) -> list[float]:
        """The threshold constants c for which counts were taken."""
        found = {key[5] for key in self._cells if key[0] == "count" and key[4] == rule and key[5] is not None}
        return sorted(found)

    def baselines(self) -> list[str]:
        """The models that gamma was measured against, each by itself."""
        return [name for name in self._gammas() if name != POOLED and not name.startswith(WITHOUT)]

    def left_out(self) -> list[str]:
        """The models without which the pool of baselines was measured again."""
        return [name.removeprefix(WITHOUT) for name in self._gammas() if name.startswith(WITHOUT)]

    def _gammas(self) -> list[str]:
        return sorted({key[6] for key in self._cells if key[0] == "gamma" and key[6]})


def known(value: Any) -> float | None:
    """The number, or None where there is none."""
    return float(value) if value is not None and math.isfinite(value) else None


def _split_tau(setting: str) -> tuple[str, float | None]:
    """Extraction setting and the constant c of its threshold.

    >>> _split_tau("paper kappa=0.05*step tau=0.03")
    ('paper kappa=0.05*step', 0.03)
    >>> _split_tau("paper kappa=0.05*step")
    ('paper kappa=0.05*step', None)
    """
    match = _TAU.match(setting)
    return (match[1], float(match[2])) if match else (setting, None)


def read_metrics(path: Path, model: str) -> Metrics:
    """Statistics of a model, under the first extraction setting in the file.

    Raises:
        WhatStuckError: If the file is missing or damaged.
    """
    numbers = ["value", "low", "high", "null_mean", "null_low", "null_high"]
    names = ["model", "step", "metric", "set", "kind", "order", "threshold_rule", "baseline", "setting", "null_kind"]
    records = [record for record in read_records(path, names + numbers) if record["model"] == model]
    settings = _settings(record["setting"] for record in records)
    metrics = Metrics(setting=settings[0] if settings else "", other_settings=tuple(settings[1:]))
    for record in records:
        setting, tau = _split_tau(record["setting"] or "")
        if setting not in ("", metrics.setting):
            continue
        key: Key = (
            record["metric"],
            record["set"],
            record["kind"],
            record["order"],
            record["threshold_rule"],
            tau,
            record["baseline"] or "",
        )
        value, low, high, *null = (known(record[name]) for name in numbers)
        stat = Stat(value, low, high, record["null_kind"] or "", *null)
        metrics._cells.setdefault(key, {}).setdefault(record["step"], []).append(stat)  # noqa: SLF001 - its only writer
    return metrics


def _settings(names: Iterable[str | None]) -> list[str]:
    """Extraction settings in order of appearance; the first is the one that the page shows."""
    plain = (_split_tau(name or "")[0] for name in names)
    return [name for name in dict.fromkeys(plain) if name and not name.endswith(_NOISE)]
