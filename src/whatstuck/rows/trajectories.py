"""How every training row is doing at a checkpoint: one teacher-forced pass over what is really learned.

The rows are those that the trainer feeds to the model, tokens and labels, not the user's file: truncated, masked and
dropped rows show as what they are.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel

from whatstuck.dynamics.teacher_forcing import TokenRow, score_tokens
from whatstuck.errors import WhatStuckError

SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("tokens", pa.int64()),
        ("nll", pa.float64()),
        ("token_accuracy", pa.float64()),
        ("smallest_margin", pa.float64()),
        ("mean_margin", pa.float64()),
        ("correct", pa.bool_()),
        ("last_exposure_step", pa.int64()),
        ("exposures", pa.int64()),
    ]
)

_MASKS = ("completion_mask", "assistant_masks")
_PACKED = ("seq_lengths", "position_ids")
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class TrainedRow:
    """A row as the trainer feeds it."""

    row_id: str
    tokens: TokenRow


def trained_rows(dataset: Any) -> list[TrainedRow]:
    """The rows of a prepared training set, with their supervised positions.

    Ids are those of a column `row_id` or `id`, else a hash of tokens and supervised positions; equal ones get `-2`,
    `-3`, ... behind.

    Args:
        dataset: What the trainer learns: `input_ids`, and `labels` or a mask of TRL's; without either, every token is
            supervised.

    Raises:
        WhatStuckError: If it cannot be looked into, or its rows are packed.
    """
    try:
        records: Iterable[Mapping[str, Any]] = [dataset[index] for index in range(len(dataset))]
    except (TypeError, KeyError) as error:
        raise WhatStuckError("the training rows are a stream, so single rows cannot be followed: load them") from error
    taken: dict[str, int] = {}
    rows = []
    for record in records:
        if "input_ids" not in record:
            raise WhatStuckError("the training rows are not tokenized, so what is learned of them is not known")
        if any(name in record for name in _PACKED):
            raise WhatStuckError("the training rows are packed, so single rows cannot be followed: set packing=False")
        ids = tuple(int(token) for token in record["input_ids"])
        predicted = _supervised(record, len(ids))
        given = next((record[key] for key in ("row_id", "id") if record.get(key) not in (None, "")), None)
        name = _hash(ids, predicted) if given is None else str(given)
        taken[name] = count = taken.get(name, 0) + 1
        rows.append(TrainedRow(name if count == 1 else f"{name}-{count}", TokenRow(ids, predicted)))
    return rows


def evaluate_rows(model: PreTrainedModel, rows: Sequence[TrainedRow], pad_token_id: int) -> pa.Table:
    """Loss, accuracy and margins of every row; a row without a supervised token has none.

    Args:
        model: A causal language model in eval mode.
        rows: The rows.
        pad_token_id: Any token id; padding is masked out.

    Returns:
        A table of `SCHEMA`, in the order of the rows. When a row was last learned is not known here: null (see
        `rows.exposure`).
    """
    learned = [row for row in rows if row.tokens.predicted]
    scores = dict(
        zip(
            [row.row_id for row in learned],
            score_tokens(model, [row.tokens for row in learned], pad_token_id),
            strict=True,
        )
    )
    found: list[dict[str, Any]] = []
    for row in rows:
        entry: dict[str, Any] = {"row_id": row.row_id, "tokens": len(row.tokens.predicted)}
        if (score := scores.get(row.row_id)) is not None:
            entry |= {
                "nll": score.nll,
                "token_accuracy": score.accuracy,
                "smallest_margin": score.smallest_margin,
                "mean_margin": score.mean_margin,
                "correct": score.correct,
            }
        found.append(entry)
    return pa.Table.from_pylist(found, schema=SCHEMA)


def _supervised(record: Mapping[str, Any], length: int) -> tuple[int, ...]:
    """Positions of the tokens whose loss is learned; the first has no prediction."""
    labels = record.get("labels")
    if labels is not None:
        return tuple(position for position in range(1, length) if labels[position] != _IGNORED)
    masks = [record[name] for name in _MASKS if record.get(name) is not None]
    return tuple(position for position in range(1, length) if all(mask[position] for mask in masks))


def _hash(ids: tuple[int, ...], predicted: tuple[int, ...]) -> str:
    return hashlib.blake2b(repr((ids, predicted)).encode(), digest_size=8).hexdigest()
