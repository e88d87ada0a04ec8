"""What `track` left in a run folder, as plain data: all that the page needs, read once, every NaN turned into None.

The page does no statistics, so this is a reader and nothing else. It does not import torch: a run can be looked at
on a machine that could never have made it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from whatstuck.errors import WhatStuckError
from whatstuck.report.files import read_columns, read_json, read_records
from whatstuck.report.metrics import Metrics, known, read_metrics
from whatstuck.report.naming import model_parts

FORMAT_VERSION = 1
SETS = ("removed", "preserved", "emerged")


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


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder as `track` left it, read.

    Attributes:
        track: The section `track` of run.json.
        steps: Steps of the checkpoints, ascending.
        effects: Per step that is compared (`before`, `after`) and row id, the interactions of the main setting.
        range_floors: Per step of those with ranges, the half width of the range of what is not listed.
        heldout_rows: Number of held-out rows per half.
    """

    name: str
    track: Mapping[str, Any]
    verdict: Mapping[str, Any]
    steps: tuple[int, ...]
    rows: tuple[Row, ...]
    metrics: Metrics
    effects: Mapping[int, Mapping[str, tuple[Effect, ...]]]
    range_floors: Mapping[int, float]
    heldout_rows: Mapping[str, int]

    @property
    def model(self) -> str:
        """Name of the model under study, without the hash of a converted file."""
        return model_parts(str(self.track["model"]["name"]))[0]

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
        return whole_number(self.verdict.get("keep_step"))

    @property
    def after(self) -> int:
        """The checkpoint that single prompts are compared at: the kept one, else the last."""
        return _compared(self.kept, self.steps)

    @property
    def live(self) -> Mapping[str, Any]:
        """What a run made while training says about that; empty for checkpoints probed afterwards."""
        return self.track.get("live") or {}

    @property
    def stopped(self) -> int | None:
        """The step at which the rule stopped the training itself."""
        return whole_number(self.live.get("stopped_at"))

    @property
    def stop(self) -> int | None:
        """The step at which the deciding rule stopped the training, or would have."""
        return self.stopped if self.stopped is not None else whole_number(self.verdict.get("stop_step"))

    @property
    def upper_bounds(self) -> tuple[str, ...]:
        """Among the models that gamma was measured against: the model itself, trained with another seed."""
        entries = self.track.get("baselines") or []
        return tuple(str(entry.get("name")) for entry in entries if entry.get("role") == "upper bound")

    def checkpoint(self, step: int | None) -> Mapping[str, Any]:
        """What run.json says of a checkpoint; empty where it says nothing."""
        return next((entry for entry in self.track["checkpoints"] if entry.get("step") == step), {})

    def saved(self, step: int | None) -> bool:
        """Whether a step has a checkpoint; those probed while training may have none."""
        return bool(self.checkpoint(step).get("path", "not recorded"))

    @property
    def players(self) -> int:
        """The largest number of players of a row."""
        return max((len(row.players) for row in self.rows), default=0)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        WhatStuckError: If the folder or the file is missing, damaged or of another version.
    """
    if not folder.is_dir():
        raise WhatStuckError(f"{folder} is not a folder: give the run folder that `whatstuck track --out` wrote")
    manifest = read_json(folder / "run.json")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise WhatStuckError(
            f"{folder / 'run.json'} has format_version {manifest.get('format_version')!r}, this version reads "
            f"{FORMAT_VERSION}: use the whatstuck that wrote it"
        )
    return manifest


def read_run(folder: Path) -> Run:
    """Read what `track` left in a run folder.

    Args:
        folder: The run folder, as docs/run-folder.md describes it.

    Raises:
        WhatStuckError: If the folder, or a file that the page cannot do without, is missing or damaged.
    """
    manifest = read_manifest(folder)
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
    verdict = read_json(folder / "verdict.json")
    metrics = read_metrics(folder / "metrics.parquet", model)
    compared = {steps[0], _compared(whole_number(verdict.get("keep_step")), steps)}
    parts = {
        step: _effects(folder / "interactions" / model / f"step-{step:06d}.parquet", metrics.setting)
        for step in sorted(compared)
    }
    return Run(
        name=folder.resolve().name,
        track=track,
        verdict=verdict,
        steps=steps,
        rows=_rows(folder / "rows.parquet"),
        metrics=metrics,
        effects={step: effects for step, (effects, _) in parts.items()},
        range_floors={step: floor for step, (_, floor) in parts.items() if floor is not None},
        heldout_rows=_heldout_rows(folder / "heldout"),
    )


def _compared(kept: int | None, steps: tuple[int, ...]) -> int:
    """Step 0 against itself would show nothing, so a kept step 0 is compared with the end."""
    return kept if kept in steps[1:] else steps[-1]


def whole_number(value: Any) -> int | None:
    """The number where it is a whole one (a step), else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


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
        for record in read_records(path, columns)
    )


def _effects(path: Path, setting: str) -> tuple[dict[str, tuple[Effect, ...]], float | None]:
    """Interactions by row id, and their range floor; empty where the part is not there (left out for sharing, say)."""
    if not path.exists():
        return {}, None
    table = read_columns(path, ["row_id", "setting", "kind", "mask", "order", "value", "low", "high"])
    by_row: dict[str, list[Effect]] = {}
    for record in table.to_pylist():
        value = known(record["value"])
        if record["setting"] == setting and value is not None:
            low, high = known(record["low"]), known(record["high"])
            effect = Effect(record["kind"], record["mask"], record["order"], value, low, high)
            by_row.setdefault(record["row_id"], []).append(effect)
    about = json.loads((table.schema.metadata or {}).get(b"whatstuck", b"{}")).get(setting) or {}
    return {row_id: tuple(effects) for row_id, effects in by_row.items()}, known(about.get("range_floor"))


def _heldout_rows(folder: Path) -> dict[str, int]:
    parts = sorted(folder.glob("step-*.parquet"))
    if not parts:
        return {}
    counted = pc.value_counts(read_columns(parts[-1], ["half"]).column("half").combine_chunks())
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}
