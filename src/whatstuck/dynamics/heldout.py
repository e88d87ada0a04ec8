"""Loss and exact match on held-out rows, one plain pass per checkpoint.

This is what the verdict rests on until an interaction signal has earned it. The rows are split in two by a hash
of their id: one half may choose the checkpoint, the other only reports on the choice.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel

from whatstuck.dynamics.teacher_forcing import TokenRow, score_tokens
from whatstuck.runs import read_table, table_metadata

SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("half", pa.string()),
        ("nll", pa.float64()),
        ("tokens", pa.int64()),
        ("correct", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A held-out row as tokens."""

    row_id: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]


def half_of(row_id: str) -> str:
    """Which half a row belongs to, for good: `select` may choose the checkpoint, `confirm` never does."""
    return ("select", "confirm")[hashlib.sha256(row_id.encode()).digest()[0] % 2]


def is_current(path: Path, rows: Sequence[ScoredRow], identity: Mapping[str, Any]) -> bool:
    """Whether a part holds exactly these rows, scored by this very model."""
    if not rows:
        return True
    if not path.exists():
        return False
    table = read_table(path)
    return table_metadata(table) == identity and table["row_id"].to_pylist() == [row.row_id for row in rows]


def evaluate(model: PreTrainedModel, rows: Sequence[ScoredRow], pad_token_id: int) -> pa.Table:
    """Teacher-forced loss of each row's completion, and whether greedy decoding would give it.

    Args:
        model: A causal language model in eval mode.
        rows: The rows.
        pad_token_id: Any token id; padding is masked out.

    Returns:
        A table of `SCHEMA`, in the order of the rows: `nll` is the mean over completion tokens, in nats.
    """
    tokens = [
        TokenRow(ids := row.prompt_ids + row.target_ids, tuple(range(len(row.prompt_ids), len(ids)))) for row in rows
    ]
    found = [
        {
            "row_id": row.row_id,
            "half": half_of(row.row_id),
            "nll": scores.nll,
            "tokens": len(row.target_ids),
            "correct": scores.correct,
        }
        for row, scores in zip(rows, score_tokens(model, tokens, pad_token_id), strict=True)
    ]
    return pa.Table.from_pylist(found, schema=SCHEMA)
