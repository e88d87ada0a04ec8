"""When each training row was last learned, and how often: batches matched to rows by what is in them.

No trainer says which rows a step held, and their samplers differ. So a batch is looked at as it enters the model:
its tokens without padding are those of a row.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from whatstuck.rows.trajectories import TrainedRow
from whatstuck.runs import read_table, write_table

FILE_NAME = "exposures.parquet"
"""In the folder of a checkpoint."""

_SCHEMA = pa.schema([("row_id", pa.string()), ("exposures", pa.int64()), ("last_exposure_step", pa.int64())])

Counts = dict[str, tuple[int, int]]
"""Per row id: how often it was learned, and the step at which it was last."""


class Exposures:
    """Counts of one training.

    Attributes:
        known: Whether every batch so far was recognized; if not, nothing is known.

    Args:
        rows: The rows as the trainer feeds them. Rows with equal tokens cannot be told apart; they take turns.
    """

    def __init__(self, rows: Sequence[TrainedRow]) -> None:
        self.known = True
        self._ids = [row.row_id for row in rows]
        self._by_tokens: dict[tuple[int, ...], list[str]] = {}
        for row in rows:
            self._by_tokens.setdefault(row.tokens.ids, []).append(row.row_id)
        self._counts: Counts = {}

    def see(self, batch: Mapping[str, Any], step: int) -> None:
        """Count a batch.

        Args:
            batch: What the model is given: `input_ids` (b, t), and `attention_mask`, or `position_ids` where several
                rows stand in one line without padding.
            step: The optimizer step that it belongs to, from 1 on.
        """
        ids = batch.get("input_ids")
        if not isinstance(ids, torch.Tensor):
            self.known = False
            return
        for tokens in _rows_of(ids, batch.get("attention_mask"), batch.get("position_ids")):
            same = self._by_tokens.get(tokens)
            if same is None:
                self.known = False
                return
            row_id = min(same, key=lambda name: self._counts.get(name, (0, 0))[0])
            self._counts[row_id] = (self._counts.get(row_id, (0, 0))[0] + 1, step)

    def taken(self) -> Counts | None:
        """The counts of this process so far; None if they are not known."""
        return dict(self._counts) if self.known else None

    def go_on_from(self, table: pa.Table | None) -> None:
        """Go on from what was counted before an interruption; None: nothing is known."""
        if table is None or set(table["row_id"].to_pylist()) != set(self._ids):
            self.known = False
            return
        self._counts = {
            row["row_id"]: (row["exposures"], row["last_exposure_step"])
            for row in table.to_pylist()
            if row["exposures"]
        }


def together(parts: Iterable[Counts | None]) -> Counts | None:
    """The counts of several processes."""
    found: Counts = {}
    for part in parts:
        if part is None:
            return None
        for row_id, (times, last) in part.items():
            before = found.get(row_id, (0, 0))
            found[row_id] = (before[0] + times, max(before[1], last))
    return found


def with_exposures(table: pa.Table, counts: Counts | None) -> pa.Table:
    """A table of trajectories with its two columns of exposures; null where they are not known."""
    ids = table["row_id"].to_pylist()
    times = [None if counts is None else counts.get(row_id, (0, 0))[0] for row_id in ids]
    last = [None if counts is None or row_id not in counts else counts[row_id][1] for row_id in ids]
    for name, values in (("exposures", times), ("last_exposure_step", last)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.int64()))
    return table


def write_exposures(folder: Path, rows: Sequence[TrainedRow], counts: Counts) -> None:
    """Put the counts into the folder of a checkpoint."""
    empty = pa.Table.from_pylist([{"row_id": row.row_id} for row in rows], schema=_SCHEMA)
    write_table(folder / FILE_NAME, with_exposures(empty, counts))


def read_exposures(folder: Path) -> pa.Table | None:
    """The counts in the folder of a checkpoint, if there are any."""
    return read_table(folder / FILE_NAME) if (folder / FILE_NAME).exists() else None


def counts_of(table: pa.Table | None) -> Counts | None:
    """The counts in a table."""
    if table is None:
        return None
    return {
        row["row_id"]: (row["exposures"], row["last_exposure_step"]) for row in table.to_pylist() if row["exposures"]
    }


def _rows_of(ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None) -> Iterable[tuple[int, ...]]:
    lines = ids.tolist()
    if mask is not None and mask.dim() == 2:  # noqa: PLR2004 - (b, t)
        for line, kept in zip(lines, mask.tolist(), strict=True):
            yield tuple(token for token, keep in zip(line, kept, strict=True) if keep)
        return
    starts = None if positions is None else positions.tolist()
    for index, line in enumerate(lines):
        begins = [0] if starts is None else [at for at, position in enumerate(starts[index]) if position == 0]
        for first, end in zip(begins, [*begins[1:], len(line)], strict=True):
            yield tuple(line[first:end])
