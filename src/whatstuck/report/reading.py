"""The run folder as plain data: all that the page needs, read once, with every NaN turned into None.

The page does no statistics, so this is a reader and nothing else. It does not import torch: a run can be looked at
on a machine that could never have made it.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from whatstuck.errors import WhatStuckError

FORMAT_VERSION = 1
MAIN_TAU = 0.03
SETS = ("removed", "preserved", "emerged")

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


@dataclass(frozen=True, slots=True)
class Effect:
    """One interaction of one row: `kind` is `and` or `or`, bit i of `mask` is player i, `value` in log-odds."""

    kind: str
    mask: int
    order: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One probed row; `players` are (start, end, text), character spans in `prompt`."""

    row_id: str
    prompt: str
    target: str
    players: tuple[tuple[int, int, str], ...]
    source_index: int


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

        Args:
            null: Which of several nulls to bring along; the first one if empty.
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
        """The models that gamma was measured against."""
        return sorted({key[6] for key in self._cells if key[0] == "gamma" and key[6]})


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, read.

    Attributes:
        track: The section `track` of run.json.
        steps: Steps of the checkpoints, ascending.
        effects: Per step that is compared (`before`, `after`) and row id, the interactions of the main setting.
        heldout_rows: Number of held-out rows per half.
    """

    name: str
    track: Mapping[str, Any]
    verdict: Mapping[str, Any]
    steps: tuple[int, ...]
    rows: tuple[Row, ...]
    metrics: Metrics
    effects: Mapping[int, Mapping[str, tuple[Effect, ...]]]
    heldout_rows: Mapping[str, int]

    @property
    def before(self) -> int:
        """The first checkpoint, normally the untouched model."""
        return self.steps[0]

    @property
    def last(self) -> int:
        """The last checkpoint."""
        return self.steps[-1]

    @property
    def kept(self) -> int | None:
        """The checkpoint to keep, where the verdict names one."""
        return _whole(self.verdict.get("keep_step"))

    @property
    def after(self) -> int:
        """The checkpoint that single prompts are compared at: the kept one, else the last."""
        return _compared(self.kept, self.steps)

    @property
    def players(self) -> int:
        """The largest number of players of a row."""
        return max((len(row.players) for row in self.rows), default=0)


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Args:
        folder: The run folder, as docs/run-folder.md describes it.

    Raises:
        WhatStuckError: If the folder, or a file that the page cannot do without, is missing or damaged.
    """
    if not folder.is_dir():
        raise WhatStuckError(f"{folder} is not a folder: give the run folder that `whatstuck track --out` wrote")
    manifest = _json(folder / "run.json")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise WhatStuckError(
            f"{folder / 'run.json'} has format_version {manifest.get('format_version')!r}, this version reads "
            f"{FORMAT_VERSION}: use the whatstuck that wrote it"
        )
    try:
        track = manifest["track"]
        model = str(track["model"]["name"])
        steps = tuple(sorted({int(checkpoint["step"]) for checkpoint in track["checkpoints"]}))
    except (KeyError, TypeError, ValueError) as error:
        raise WhatStuckError(
            f"{folder / 'run.json'} has no complete section `track` ({error!r}): run `whatstuck track` again"
        ) from error
    if not steps:
        raise WhatStuckError(f"{folder / 'run.json'} lists no checkpoints: run `whatstuck track` again")
    verdict = _json(folder / "verdict.json")
    metrics = _metrics(folder / "metrics.parquet", model)
    compared = {steps[0], _compared(_whole(verdict.get("keep_step")), steps)}
    return Run(
        name=folder.resolve().name,
        track=track,
        verdict=verdict,
        steps=steps,
        rows=_rows(folder / "rows.parquet"),
        metrics=metrics,
        effects={
            step: _effects(folder / "interactions" / model / f"step-{step:06d}.parquet", metrics.setting)
            for step in sorted(compared)
        },
        heldout_rows=_heldout_rows(folder / "heldout"),
    )


def _compared(kept: int | None, steps: tuple[int, ...]) -> int:
    """Step 0 against itself would show nothing, so a kept step 0 is compared with the end."""
    return kept if kept in steps[1:] else steps[-1]


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WhatStuckError(
            f"{path} is missing: not a run folder, or not finished; run `whatstuck track` again with the same --out"
        ) from error
    except (OSError, ValueError) as error:
        raise WhatStuckError(f"{path} cannot be read as JSON ({error}): run `whatstuck track` again") from error
    if not isinstance(content, dict):
        raise WhatStuckError(f"{path} holds no JSON object: run `whatstuck track` again")
    return content


def _table(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except FileNotFoundError as error:
        raise WhatStuckError(
            f"{path} is missing: the run is not finished; run `whatstuck track` again with the same --out"
        ) from error
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise WhatStuckError(
            f"{path} is damaged or of another version ({reason}): delete it, run `whatstuck track` again"
        ) from error


def _records(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    # pyarrow skips unknown names silently when some are found, so ask for each
    table = _table(path, columns)
    missing = sorted(set(columns) - set(table.column_names))
    if missing:
        raise WhatStuckError(
            f"{path} lacks the columns {', '.join(missing)}: it was written by another version; run `whatstuck track` again"
        )
    records: list[dict[str, Any]] = table.to_pylist()
    return records


def _known(value: Any) -> float | None:
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


def _metrics(path: Path, model: str) -> Metrics:
    numbers = ["value", "low", "high", "null_mean", "null_low", "null_high"]
    names = ["model", "step", "metric", "set", "kind", "order", "threshold_rule", "baseline", "setting", "null_kind"]
    records = [record for record in _records(path, names + numbers) if record["model"] == model]
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
        value, low, high, *null = (_known(record[name]) for name in numbers)
        stat = Stat(value, low, high, record["null_kind"] or "", *null)
        metrics._cells.setdefault(key, {}).setdefault(record["step"], []).append(stat)  # noqa: SLF001 - its only writer
    return metrics


def _settings(names: Iterable[str | None]) -> list[str]:
    """Extraction settings in order of appearance; the first is the one that the page shows."""
    plain = (_split_tau(name or "")[0] for name in names)
    return [name for name in dict.fromkeys(plain) if name and not name.endswith(_NOISE)]


def _rows(path: Path) -> tuple[Row, ...]:
    columns = ["row_id", "prompt", "target_text", "players", "source_index"]
    return tuple(
        Row(
            row_id=record["row_id"],
            prompt=record["prompt"],
            target=record["target_text"],
            players=tuple((player["start"], player["end"], player["text"]) for player in record["players"] or ()),
            source_index=record["source_index"],
        )
        for record in _records(path, columns)
    )


def _effects(path: Path, setting: str) -> dict[str, tuple[Effect, ...]]:
    """Interactions by row id; empty where the part is not there (left out for sharing, say)."""
    if not path.exists():
        return {}
    by_row: dict[str, list[Effect]] = {}
    for record in _records(path, ["row_id", "setting", "kind", "mask", "order", "value", "low", "high"]):
        value = _known(record["value"])
        if record["setting"] == setting and value is not None:
            low, high = _known(record["low"]), _known(record["high"])
            effect = Effect(record["kind"], record["mask"], record["order"], value, low, high)
            by_row.setdefault(record["row_id"], []).append(effect)
    return {row_id: tuple(effects) for row_id, effects in by_row.items()}


def _heldout_rows(folder: Path) -> dict[str, int]:
    parts = sorted(folder.glob("step-*.parquet"))
    if not parts:
        return {}
    counted = pc.value_counts(_table(parts[-1], ["half"]).column("half").combine_chunks())
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}
