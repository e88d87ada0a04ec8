"""Interactions on disk: value tables in, one Parquet part per checkpoint out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from whatstuck.dynamics.metrics import Probe
from whatstuck.interactions.extraction import extract_interactions
from whatstuck.runs import (
    content_hash,
    file_hash,
    read_table,
    read_tensors,
    step_name,
    step_of,
    table_metadata,
    write_table,
)

PERTURBED = " noise-perturbed"
PERTURBED_ROWS = 4

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
        share: kappa as a share of the scale, mean |v(N) - v(empty)| over rows.
        scale: `step`: the scale of the checkpoint itself; `base`: that of step 0.
    """

    share: float
    scale: str

    @property
    def name(self) -> str:
        """Name in the `setting` column.

        >>> Setting(0.05, "step").name
        'paper kappa=0.05*step'
        """
        return f"paper kappa={self.share:g}*{self.scale}"


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
    inputs = content_hash([tables.digest, [setting.name for setting in settings], base_scale, ids, seed])
    if path.exists() and table_metadata(read_table(path)).get("inputs") == inputs:
        return False
    parts: list[pa.Table] = []
    metadata: dict[str, Any] = {"inputs": inputs}
    for index, setting in enumerate(settings):
        kappa = setting.share * (tables.scale if setting.scale == "step" else base_scale)
        parts.append(_extract(tables.values, ids, setting.name, kappa, metadata))
        if not index:  # how far does noise of the measured size move the main setting?
            some = slice(0, PERTURBED_ROWS)
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(tables.values[some].shape, generator=generator, dtype=torch.float64)
            perturbed = tables.values[some] + tables.noise_floor * noise
            parts.append(_extract(perturbed, ids[some], setting.name + PERTURBED, kappa, metadata))
    write_table(path, pa.concat_tables(parts), metadata)
    return True


def _extract(values: torch.Tensor, ids: Sequence[str], name: str, kappa: float, metadata: dict[str, Any]) -> pa.Table:
    found = extract_interactions(values, mode="paper", noise_bound=kappa)
    metadata[name] = {"kappa": kappa, "gap": found.gap.tolist(), "violation": found.violation.tolist()}
    columns = []
    for kind, effects in (("and", found.and_), ("or", found.or_)):
        row, mask = effects.numpy().nonzero()
        columns.append(
            pa.table(
                {
                    "row_id": pa.array([ids[index] for index in row.tolist()], pa.string()),
                    "setting": pa.array([name] * len(row), pa.string()),
                    "kind": pa.array([kind] * len(row), pa.string()),
                    "mask": mask.astype(np.int64),
                    "order": np.bitwise_count(mask).astype(np.int64),
                    "value": effects.numpy()[row, mask],
                    "low": np.full(len(row), np.nan),
                    "high": np.full(len(row), np.nan),
                },
                schema=SCHEMA,
            )
        )
    return pa.concat_tables(columns)


def effects_of(table: pa.Table, setting: str, row_ids: Mapping[str, int], rows: int, players: int) -> Floats:
    """Dense interactions of one setting: float64 `(rows, 2, 2^n)`, AND before OR.

    Args:
        table: An interactions table.
        setting: The setting to read.
        row_ids: Position of each row id in the result.
        rows: Number of rows of the result.
        players: Number of players n.
    """
    dense = np.zeros((rows, 2, 1 << players))
    chosen = table.filter(pc.equal(table["setting"], setting))
    row = np.array([row_ids[row_id] for row_id in chosen["row_id"].to_pylist()], dtype=np.int64)
    kind = np.array([kind == "or" for kind in chosen["kind"].to_pylist()], dtype=np.int64)
    dense[row, kind, chosen["mask"].to_numpy()] = chosen["value"].to_numpy()
    return dense


def read_probe(values: ValueTables, table: pa.Table, setting: str, row_ids: Sequence[str], players: int) -> Probe:
    """The interactions of one step for the metrics; rows that this model was not probed on are NaN."""
    rows = len(row_ids)
    positions = {row_id: index for index, row_id in enumerate(row_ids)}
    effects = effects_of(table, setting, positions, rows, players)
    full, empty = np.full(rows, np.nan), np.full(rows, np.nan)
    full[values.row_index] = values.values[:, -1].numpy()
    empty[values.row_index] = values.values[:, 0].numpy()
    effects[np.isnan(full)] = np.nan
    return Probe(values.step, effects, full, empty)
