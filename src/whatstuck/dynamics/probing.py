"""From the interactions on disk to the dense arrays that the metrics are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.certainty import Ranges
from whatstuck.dynamics.explaining import ValueTables
from whatstuck.dynamics.metrics import Probe
from whatstuck.runs import table_metadata

Floats = npt.NDArray[np.float64]


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
    chosen, where = _places(table, setting, row_ids)
    dense[where] = chosen["value"].to_numpy()
    return dense


def ranges_of(table: pa.Table, setting: str, row_ids: Mapping[str, int], rows: int, players: int) -> Ranges | None:
    """Ranges of the same interactions, infinite where one is not known; None where none was computed.

    Args:
        table: An interactions table.
        setting: The setting to read.
        row_ids: Position of each row id in the result.
        rows: Number of rows of the result.
        players: Number of players n.
    """
    floor = table_metadata(table).get(setting, {}).get("range_floor")
    if floor is None:
        return None
    order = np.bitwise_count(np.arange(1 << players))
    rest = np.full((2, 1 << players), float(floor))
    rest[0, order == 0] = rest[1, order < 2] = 0.0  # noqa: PLR2004 - an OR of one word is an AND
    low, high = np.repeat(-rest[None], rows, 0), np.repeat(rest[None], rows, 0)
    chosen, where = _places(table, setting, row_ids)
    value = chosen["value"].to_numpy()
    # rounding must not push the value out of its own range
    low[where] = np.minimum(np.nan_to_num(chosen["low"].to_numpy(), nan=-np.inf, neginf=-np.inf), value)
    high[where] = np.maximum(np.nan_to_num(chosen["high"].to_numpy(), nan=np.inf, posinf=np.inf), value)
    return Ranges(low, high)


def _places(table: pa.Table, setting: str, row_ids: Mapping[str, int]) -> tuple[pa.Table, tuple[Any, Any, Any]]:
    """The rows of one setting, and where each belongs in a dense array."""
    chosen = table.filter(pc.equal(table["setting"], setting))
    row = np.array([row_ids[row_id] for row_id in chosen["row_id"].to_pylist()], dtype=np.int64)
    kind = np.array([kind == "or" for kind in chosen["kind"].to_pylist()], dtype=np.int64)
    return chosen, (row, kind, chosen["mask"].to_numpy())


def read_probe(values: ValueTables, table: pa.Table, setting: str, row_ids: Sequence[str], players: int) -> Probe:
    """The interactions of one step for the metrics; rows that this model was not probed on are NaN."""
    rows = len(row_ids)
    positions = {row_id: index for index, row_id in enumerate(row_ids)}
    effects = effects_of(table, setting, positions, rows, players)
    ranges = ranges_of(table, setting, positions, rows, players)
    known = table_metadata(table).get(setting, {})
    if ranges is not None and "strength_low" in known:
        total = np.tile([0.0, np.inf], (rows, 1))
        total[values.row_index] = np.stack([known["strength_low"], known["strength_high"]], axis=1)
        ranges = replace(ranges, total=total)
    full, empty = np.full(rows, np.nan), np.full(rows, np.nan)
    full[values.row_index] = values.values[:, -1].numpy()
    empty[values.row_index] = values.values[:, 0].numpy()
    effects[np.isnan(full)] = np.nan
    return Probe(values.step, effects, full, empty, ranges)
