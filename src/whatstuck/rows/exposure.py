"""When each training row was last learned, and how often: batches matched to rows by what is in them.

No trainer says which rows a step held, and their samplers differ. So a batch is looked at as it enters the model: its
tokens without padding are those of a row. Rows are known by a hash of their tokens, for the ids that a trainer's
dataset has are often not those of the user's file. Rows of equal tokens cannot be told apart: they share their counts.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from whatstuck.rows.trajectories import TrainedRow
from whatstuck.runs import read_table, write_table

FILE_NAME = "exposures.parquet"
"""In the folder of a checkpoint."""

_SCHEMA = pa.schema(
    [("row_id", pa.string()), ("tokens", pa.string()), ("exposures", pa.int64()), ("last_exposure_step", pa.int64())]
)

Counts = dict[str, tuple[int, int]]
"""Per hash of tokens: how often it was learned, and the step at which it was last; missing: never."""


def tokens_hash(ids: Sequence[int]) -> str:
    """Hash of a row's tokens: 16 bytes as hex."""
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=16).hexdigest()


class Exposures:
    """Counts of one process of a training.

    Attributes:
        known: Whether every batch so far was recognized; if not, nothing is known.

    Args:
        rows: The rows as the trainer feeds them.
    """

    def __init__(self, rows: Sequence[TrainedRow]) -> None:
        self.known = True
        self._rows = {tokens_hash(row.tokens.ids) for row in rows}
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
            key = tokens_hash(tokens)
            if key not in self._rows:
                self.known = False
                return
            self._counts[key] = (self._counts.get(key, (0, 0))[0] + 1, step)

    def taken(self) -> Counts | None:
        """The counts of this process so far; None if they are not known."""
        return dict(self._counts) if self.known else None

    def go_on_from(self, counts: Counts | None) -> None:
        """Go on from what was counted before an interruption; None: nothing is known."""
        if counts is None or not counts.keys() <= self._rows:
            self.known = False
            return
        self._counts = dict(counts)


def together(parts: Iterable[Counts | None]) -> Counts | None:
    """The counts of several processes; None if one does not know."""
    found: Counts = {}
    for part in parts:
        if part is None:
            return None
        for key, (times, last) in part.items():
            before = found.get(key, (0, 0))
            found[key] = (before[0] + times, max(before[1], last))
    return found


def by_row(rows: Sequence[TrainedRow], counts: Counts | None) -> dict[str, tuple[int, int]] | None:
    """Counts by row id; rows of equal tokens get equal shares, and the first of them what is left over.

    Args:
        rows: The rows, with what was fed of each.
        counts: By hash of what was fed; None: not known.
    """
    if counts is None:
        return None
    keys = [tokens_hash(row.tokens.ids) for row in rows]
    many, copies = Counter(keys), Counter[str]()
    found = {}
    for row, key in zip(rows, keys, strict=True):
        times, last = counts.get(key, (0, 0))
        share = times // many[key] + (copies[key] < times % many[key])
        copies[key] += 1
        if share:
            found[row.row_id] = (share, last)
    return found


def with_exposures(table: pa.Table, counts: Mapping[str, tuple[int, int]] | None) -> pa.Table:
    """A table of trajectories with its two columns of exposures.

    Args:
        table: The table.
        counts: By row id, how often it was learned, and the step at which it was last; missing: never. None: it is not
            known, and the columns are null.
    """
    ids = table["row_id"].to_pylist()
    times = [None if counts is None else counts.get(row_id, (0, 0))[0] for row_id in ids]
    last = [None if counts is None or row_id not in counts else counts[row_id][1] for row_id in ids]
    for name, values in (("exposures", times), ("last_exposure_step", last)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.int64()))
    return table


def write_exposures(folder: Path, rows: Sequence[TrainedRow], counts: Counts) -> None:
    """Put the counts into the folder of a checkpoint."""
    records = [{"row_id": row.row_id, "tokens": tokens_hash(row.tokens.ids)} for row in rows]
    empty = pa.Table.from_pylist(records, schema=_SCHEMA)
    write_table(folder / FILE_NAME, with_exposures(empty, by_row(rows, counts)))


def read_exposures(folder: Path) -> Counts | None:
    """The counts in the folder of a checkpoint, if there are any; a row that was not learned stands there with 0."""
    if not (folder / FILE_NAME).exists():
        return None
    records = read_table(folder / FILE_NAME).to_pylist()
    return together({row["tokens"]: (row["exposures"], row["last_exposure_step"] or 0)} for row in records)


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
