"""What the trainer is fed: rows as token ids, with labels on their completions alone.

The rows go through the same `render` and `target_ids` that probing uses, and reach TRL as tokens. Given text, TRL
would tokenize with special tokens, so a template that writes BOS would get a second one, and prompt and completion
together, so that tokens could melt across the border. Then the model would not be trained on what is probed.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Message, Row, read_rows, render, target_ids
from whatstuck.datasets.turns import TurnEnds
from whatstuck.errors import WhatStuckError
from whatstuck.training._tokens import holds_tokens, read_order, read_tokens
from whatstuck.training.config import TrainConfig

_SHARE = 0.1
_AT_MOST = 500


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows of one training.

    Attributes:
        train: Encoded rows to train on: `row_id`, `input_ids`, `labels` (-100 on the prompt).
        evaluation: Encoded rows for `eval_loss`.
        heldout: All rows set aside, in random order, so that the first ones are a fair sample.
        left_out: Reason to the number of rows that are neither trained on nor held out for it.
        order: Ids of the rows to train in their order, where that is given.
    """

    train: list[dict[str, Any]]
    evaluation: list[dict[str, Any]]
    heldout: list[Row]
    left_out: Mapping[str, int]
    order: list[str] | None = None

    @property
    def draws(self) -> int:
        """Rows that are drawn in what the trainer takes for an epoch."""
        return len(self.train if self.order is None else self.order)


def prepare(config: TrainConfig, tokenizer: PreTrainedTokenizerBase, *, positions: int | None) -> Prepared:
    """Read, split and encode the rows.

    Args:
        config: The settings.
        tokenizer: Tokenizer of the model.
        positions: Tokens that the model can read at once, where it has a limit.

    Raises:
        WhatStuckError: If a file is bad, or no row is left to train on.
    """
    longest = min((limit for limit in (config.max_length, positions) if limit is not None), default=None)
    left_out: Counter[str] = Counter()

    def fitting(encoded: list[dict[str, Any]], reason: str) -> list[dict[str, Any]]:
        kept = [row for row in encoded if longest is None or len(row["input_ids"]) <= longest]
        if len(kept) < len(encoded):
            left_out[reason] += len(encoded) - len(kept)
        return kept

    heldout: list[Row] = []
    if holds_tokens(config.data):
        train = read_tokens(config.data)
        watched = [] if config.eval_data is None else read_tokens(config.eval_data)
    else:
        encoder = Encoder(tokenizer, config.chat_template)
        rows, heldout = _split(config, left_out)
        train = [encoder(row) for row in rows]
        watched = [encoder(row) for row in heldout[: config.eval_rows]]
    encoded = fitting(train, f"training rows longer than {longest} tokens")
    if not encoded:
        raise WhatStuckError(
            f"{config.data}: no row is left to train on ({len(train)} rows, {len(heldout)} held out, longest allowed "
            f"{longest} tokens): raise max_length or lower heldout"
        )
    evaluation = fitting(watched, f"eval_loss rows longer than {longest} tokens")
    order = None if config.order is None else read_order(config.order, (row["row_id"] for row in encoded))
    return Prepared(encoded, evaluation, heldout, dict(left_out), order)


class Encoder:
    """Turns rows into what TRL takes: prompt tokens as track sees them, then completion and end of turn.

    Args:
        tokenizer: Tokenizer of the model.
        chat_template: `auto` or `never`, as for `render`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat_template: str) -> None:
        self._tokenizer = tokenizer
        self._chat_template = chat_template
        self._turn_end = TurnEnds(tokenizer, chat_template)

    def __call__(self, row: Row) -> dict[str, Any]:
        """Encode one row: `row_id`, `input_ids`, and `labels` that are -100 on the prompt."""
        rendered = render(row, self._tokenizer, chat_template=self._chat_template)
        prompt: list[int] = self._tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
        end: list[int] = self._tokenizer(self._turn_end(row), add_special_tokens=False)["input_ids"]
        learned = target_ids(rendered, self._tokenizer) + end
        return {"row_id": row.row_id, "input_ids": prompt + learned, "labels": [-100] * len(prompt) + learned}


# --- held-out rows


def _split(config: TrainConfig, left_out: Counter[str]) -> tuple[list[Row], list[Row]]:
    """Rows to train on in file order, and rows to hold out in random order."""
    shape: dict[str, Any] = {
        "columns": config.columns,
        "labels": config.labels,
        "instruction": config.instruction,
    }
    rows = read_rows(config.data, split="train", limit=config.limit, **shape)
    if config.eval_data is not None:
        rows = [row for row in rows if row.split == "train"]
        given = read_rows(config.eval_data, split="heldout", **shape)
        return rows, _shuffled(_unseen(given, rows, left_out), config.seed)
    marked = [row for row in rows if row.split == "heldout"]
    if not marked:
        return _set_aside(rows, _count(config, len(rows)), config.seed)
    if config.heldout is not None:
        raise WhatStuckError(
            f"rows of {config.data} say themselves that they are held out: leave the setting heldout out"
        )
    train = [row for row in rows if row.split == "train"]
    return train, _shuffled(_unseen(marked, train, left_out), config.seed)


def _count(config: TrainConfig, rows: int) -> int:
    """Number of rows to set aside."""
    if config.heldout is None:
        return min(round(_SHARE * rows), _AT_MOST)
    return round(config.heldout * rows) if 0 < config.heldout < 1 else int(config.heldout)


def _set_aside(rows: Sequence[Row], count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Hold out whole groups of rows with the same prompt, by hash, as long as they fit into `count`."""
    groups: dict[tuple[Message, ...], list[Row]] = {}
    for row in _shuffled(rows, seed):
        groups.setdefault(row.messages, []).append(row)
    heldout: list[Row] = []
    for group in groups.values():
        if len(heldout) + len(group) <= count:
            heldout += group
    if count and not heldout:
        raise WhatStuckError(f"no prompt has {count} rows or fewer to hold out: raise heldout, or give eval_data")
    taken = {row.row_id for row in heldout}
    train = [row for row in rows if row.row_id not in taken]
    return train, [replace(row, split="heldout") for row in heldout]


def _shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    """Rows in an order that depends on seed and prompts alone; rows with one prompt stay together."""

    def key(row: Row) -> bytes:
        text = repr([seed, [(message.role, message.content) for message in row.messages]])
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    return sorted(rows, key=key)


def _unseen(heldout: Sequence[Row], train: Sequence[Row], left_out: Counter[str]) -> list[Row]:
    """Held-out rows whose prompt is not trained on."""
    prompts = {row.messages for row in train}
    kept = [replace(row, split="heldout") for row in heldout if row.messages not in prompts]
    if not kept:
        raise WhatStuckError("every held-out row has a prompt that is also trained on: give other rows in eval_data")
    if len(kept) < len(heldout):
        left_out["held-out rows whose prompt is trained on"] = len(heldout) - len(kept)
    return kept
