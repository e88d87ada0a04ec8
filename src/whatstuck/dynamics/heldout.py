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
import torch
from transformers import PreTrainedModel

from whatstuck.interactions.coalitions import accepted_options
from whatstuck.runs import read_table, table_metadata

BATCH_SIZE = 16

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


@torch.inference_mode()
def evaluate(model: PreTrainedModel, rows: Sequence[ScoredRow], pad_token_id: int) -> pa.Table:
    """Teacher-forced loss of each row's completion, and whether greedy decoding would give it.

    Rows are padded on the left, so that all completions end together and only the logits of the longest completion
    are ever made.

    Args:
        model: A causal language model in eval mode.
        rows: The rows; scored in batches of similar length, returned in their own order.
        pad_token_id: Any token id; padding is masked out.

    Returns:
        A table of `SCHEMA`: `nll` is the mean over completion tokens, in nats.
    """
    by_length = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt_ids) + len(rows[i].target_ids), i))
    results: dict[int, dict[str, Any]] = {}
    for start in range(0, len(rows), BATCH_SIZE):
        members = by_length[start : start + BATCH_SIZE]
        for i, (nll, correct) in zip(members, _batch(model, [rows[i] for i in members], pad_token_id), strict=True):
            results[i] = {
                "row_id": rows[i].row_id,
                "half": half_of(rows[i].row_id),
                "nll": nll,
                "tokens": len(rows[i].target_ids),
                "correct": correct,
            }
    return pa.Table.from_pylist([results[i] for i in range(len(rows))], schema=SCHEMA)


def _batch(model: PreTrainedModel, rows: Sequence[ScoredRow], pad_token_id: int) -> list[tuple[float, bool]]:
    sequences = [row.prompt_ids + row.target_ids for row in rows]
    width = max(map(len, sequences))
    ids = torch.full((len(rows), width), pad_token_id)
    mask = torch.zeros_like(ids)
    for index, sequence in enumerate(sequences):
        ids[index, width - len(sequence) :] = torch.tensor(sequence)
        mask[index, width - len(sequence) :] = 1
    keep = max(len(row.target_ids) for row in rows) + 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    options = accepted_options(model, position_ids=positions, logits_to_keep=keep)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits[:, -keep:]
    results = []
    for index, row in enumerate(rows):
        predicted = logits[index, -len(row.target_ids) - 1 : -1].double()  # (m, vocabulary)
        target = torch.tensor(row.target_ids, device=predicted.device)
        nll = predicted.logsumexp(-1) - predicted.gather(-1, target[:, None]).squeeze(-1)
        results.append((float(nll.mean()), bool((predicted.argmax(-1) == target).all())))
    return results
