"""Interactions on disk: value tables in, one Parquet part per checkpoint out.

Nearly every coefficient has a range that is not zero, so ranges would make a part many times as large. They are
rounded outwards to a grid (they stay bounds, and compress well), and a coefficient that is 0 with a range within one
grid step is left out: reading puts that range back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from whatstuck.dynamics.certainty import Ranges
from whatstuck.files import file_hash
from whatstuck.interactions.extraction import DEFAULT_TILT, Interactions, extract_interactions
from whatstuck.runs import (
    content_hash,
    read_table,
    read_tensors,
    step_name,
    step_of,
    table_metadata,
    write_table,
)

PERTURBED = " noise-perturbed"
PERTURBED_ROWS = 4
RANGE_SHARE = 0.1
"""Rounding moves the least and the most mass of a row by no more than this share of the scale."""

SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("setting", pa.string()),
        ("kind", pa.string()),
        ("mask", pa.int64()),
        ("order", pa.int64()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Setting:
    """How interactions are extracted.

    Attributes:
        share: The noise bound kappa of mode `paper`, or the misfit of mode `robust`, as a share of the scale, which is
            mean |v(N) - v(empty)| over rows.
        scale: `step`: the scale of the checkpoint itself; `base`: that of step 0.
        mode: `robust` or `paper`.
        tilt: Order tilt of mode `robust`: how much dearer an interaction gets per word, and OR than AND.
        certainty: Whether the range of each interaction is computed too. Values do not depend on it, so it is no
            part of the name.
    """

    share: float
    scale: str
    mode: str = "paper"
    tilt: tuple[float, float] = DEFAULT_TILT
    certainty: bool = False

    @property
    def name(self) -> str:
        """Name in the `setting` column.

        >>> Setting(0.05, "step").name
        'paper kappa=0.05*step'
        >>> Setting(0.1, "step", mode="robust").name
        'robust misfit=0.1*step tilt=0.002,0.0005'
        """
        if self.mode == "paper":
            return f"paper kappa={self.share:g}*{self.scale}"
        return f"{self.mode} misfit={self.share:g}*{self.scale} tilt={self.tilt[0]:g},{self.tilt[1]:g}"

    def options(self, scale: float) -> dict[str, Any]:
        """Options of `extract_interactions`, given the scale in log-odds."""
        size = self.share * scale
        if self.mode == "paper":
            return {"mode": "paper", "noise_bound": size}
        return {"mode": self.mode, "misfit": size, "order_tilt": self.tilt}


def settings_of(numbers: Mapping[str, Any]) -> list[Setting]:
    """The extraction settings that the settings of `track` ask for, the main one first.

    Args:
        numbers: Section `settings` of run.json. What it does not name is what runs did before it existed: mode
            `paper`, no ranges.
    """
    modes = numbers.get("mode", "paper")
    per_word, per_or = numbers.get("order_tilt") or DEFAULT_TILT
    return [
        Setting(
            share,
            numbers["noise_scale"],
            mode=mode,
            tilt=(per_word, per_or),
            certainty=bool(numbers.get("certainty", False)),
        )
        for mode in ([modes] if isinstance(modes, str) else modes)
        for share in numbers["noise_bound" if mode == "paper" else "misfit"]
    ]


@dataclass(frozen=True, slots=True)
class ValueTables:
    """The value tables of one model at one step, as read from the run.

    Attributes:
        step: The step.
        values: Float64 `(rows, 2^n)`.
        row_index: Index of each table in rows.parquet.
        noise_floor: Root mean square of the numerical noise of v, in log-odds.
        digest: Hash of the file.
    """

    step: int
    values: torch.Tensor
    row_index: list[int]
    noise_floor: float
    digest: str

    @classmethod
    def read(cls, path: Path) -> "ValueTables":
        """Read one values file."""
        tensors, metadata = read_tensors(path)
        return cls(
            step_of(path),
            tensors["values"],
            tensors["row_index"].tolist(),
            float(metadata["noise_floor"]),
            file_hash(path),
        )

    @property
    def scale(self) -> float:
        """Mean |v(N) - v(empty)| over rows."""
        return float((self.values[:, -1] - self.values[:, 0]).abs().mean())


def explain(
    folder: Path, tables: ValueTables, row_ids: Sequence[str], settings: Sequence[Setting], base_scale: float, seed: int
) -> bool:
    """Extract the interactions of one step into `folder`, unless the part is there for these very inputs.

    Args:
        folder: `interactions/MODEL` of the run.
        tables: The value tables.
        row_ids: Row id of each index in rows.parquet.
        settings: Extraction settings; all are stored.
        base_scale: Scale of step 0.
        seed: Seed of the noise that perturbs the first rows.

    Returns:
        Whether it was computed.
    """
    path = folder / step_name(tables.step, "parquet")
    ids = [row_ids[index] for index in tables.row_index]
    asked = [[setting.name, setting.certainty] if setting.certainty else setting.name for setting in settings]
    inputs = content_hash([tables.digest, asked, base_scale, ids, seed])
    if path.exists() and table_metadata(read_table(path)).get("inputs") == inputs:
        return False
    parts: list[pa.Table] = []
    metadata: dict[str, Any] = {"inputs": inputs}
    for index, setting in enumerate(settings):
        scale = tables.scale if setting.scale == "step" else base_scale
        parts.append(_extract(tables.values, ids, setting, scale, metadata, noise=tables.noise_floor))
        if not index:  # how far does noise of the measured size move the main setting?
            some = slice(0, PERTURBED_ROWS)
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(tables.values[some].shape, generator=generator, dtype=torch.float64)
            perturbed = tables.values[some] + tables.noise_floor * noise
            parts.append(
                _extract(perturbed, ids[some], replace(setting, certainty=False), scale, metadata, suffix=PERTURBED)
            )
    write_table(path, pa.concat_tables(parts), metadata)
    return True


def _extract(
    values: torch.Tensor,
    ids: Sequence[str],
    setting: Setting,
    scale: float,
    metadata: dict[str, Any],
    *,
    noise: float = 0.0,
    suffix: str = "",
) -> pa.Table:
    found = extract_interactions(
        values, **setting.options(scale), certainty=setting.certainty, noise_floor=noise if setting.certainty else 0.0
    )
    name = setting.name + suffix
    metadata[name] = {
        "kappa" if setting.mode == "paper" else "misfit": setting.share * scale,
        "gap": found.gap.tolist(),
        # NaN where the mode has no bound to violate; JSON has none
        "violation": [value if np.isfinite(value) else None for value in found.violation.tolist()],
    }
    effects, ranges = dense(found, ranged=setting.certainty)
    grid = 0.0
    if ranges is not None:
        grid = RANGE_SHARE * scale / effects[0].size
        metadata[name]["range_floor"] = grid
        for end in ("low", "high"):
            metadata[name][f"strength_{end}"] = getattr(found, f"strength_{end}").tolist()
        ranges = _rounded_outwards(ranges, grid)
    return _table(ids, name, effects, ranges, grid)


def dense(found: Interactions, *, ranged: bool) -> tuple[Floats, Ranges | None]:
    """Interactions as the metrics take them: float64 `(rows, 2, 2^n)`, AND before OR, and their ranges if asked."""

    def stacked(end: str) -> Floats:
        table: Floats = torch.stack([getattr(found, f"{kind}_{end}") for kind in ("and", "or")], dim=1).numpy()
        return table

    return stacked(""), Ranges(stacked("low"), stacked("high")) if ranged else None


def _rounded_outwards(ranges: Ranges, grid: float) -> Ranges:
    if not grid:
        return ranges
    return Ranges(np.floor(ranges.low / grid) * grid, np.ceil(ranges.high / grid) * grid)


def _table(ids: Sequence[str], name: str, effects: Floats, ranges: Ranges | None, grid: float) -> pa.Table:
    """One row for each coefficient `(rows, 2, 2^n)` that is not zero, or need not be."""
    stored = effects != 0
    if ranges is None:
        unknown = np.full_like(effects, np.nan)
        ranges = Ranges(unknown, unknown)
    else:
        stored |= ~(ranges.most <= grid)
    kind, row, mask = stored.swapaxes(0, 1).nonzero()  # AND before OR
    return pa.table(
        {
            "row_id": pa.array([ids[index] for index in row.tolist()], pa.string()),
            "setting": pa.array([name] * len(row), pa.string()),
            "kind": pa.array([("and", "or")[index] for index in kind.tolist()], pa.string()),
            "mask": mask.astype(np.int64),
            "order": np.bitwise_count(mask).astype(np.int64),
            "value": effects[row, kind, mask],
            "low": ranges.low[row, kind, mask],
            "high": ranges.high[row, kind, mask],
        },
        schema=SCHEMA,
    )
