"""Which rows are probed, and on which words: chosen once, then the same for every checkpoint and model."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Row, render, target_ids
from whatstuck.dynamics.heldout import ScoredRow
from whatstuck.errors import WhatStuckError
from whatstuck.interactions.players import choose_players, place_players, player_tokens

logger = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("split", pa.string()),
        ("prompt", pa.string()),
        ("target_text", pa.string()),
        ("target_ids", pa.list_(pa.int64())),
        ("players", pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64()), ("text", pa.string())]))),
        ("source_index", pa.int64()),
    ]
)

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ProbedRow:
    """A row as one model sees it: rendered prompt, target, and character spans of the players."""

    row_id: str
    prompt: str
    target_ids: tuple[int, ...]
    target_text: str
    players: Spans


def shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    """Rows in an order that depends on each row's id and the seed only, so more rows extend a choice."""
    return sorted(rows, key=lambda row: (hashlib.sha256(f"{seed}:{row.row_id}".encode()).digest(), row.row_id))


class Selection:
    """The chosen rows and their words, by row id, in content coordinates.

    Args:
        rows: All rows of the data.
        tokenizer: Tokenizer of the model under study.
        players: Number of players n.
        seed: Seed of the choice.
        chat_template: `auto` or `never`.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        tokenizer: PreTrainedTokenizerBase,
        *,
        players: int,
        seed: int,
        chat_template: str,
    ) -> None:
        self._rows = {row.row_id: row for row in rows}
        self._order = shuffled(rows, seed)
        self._tokenizer = tokenizer
        self._players = players
        self._seed = seed
        self._chat_template = chat_template
        self.skipped: Counter[str] = Counter()

    def extend(self, chosen: pa.Table | None, count: int) -> pa.Table:
        """The table of probed rows: those chosen before, then more until there are `count`.

        Raises:
            WhatStuckError: If no row can be probed.
        """
        records = chosen.to_pylist() if chosen is not None else []
        taken = {record["row_id"] for record in records}
        for row in self._order:
            if len(records) >= count:
                break
            if row.row_id in taken:
                continue
            probed = self._probe(row)
            if probed is not None:
                records.append(
                    {
                        "row_id": row.row_id,
                        "split": row.split,
                        "prompt": probed.prompt,
                        "target_text": probed.target_text,
                        "target_ids": list(probed.target_ids),
                        "players": [
                            {"start": start, "end": end, "text": probed.prompt[start:end]}
                            for start, end in probed.players
                        ],
                        "source_index": row.source_index,
                    }
                )
        if not records:
            reasons = ", ".join(f"{reason}: {number}" for reason, number in self.skipped.items())
            raise WhatStuckError(f"no row can be probed ({reasons}): try fewer --players, or rows with longer prompts")
        if len(records) < count:
            logger.warning("%d rows can be probed, %d were asked for", len(records), count)
        return pa.Table.from_pylist(records, schema=SCHEMA)

    def _spans(self, row: Row) -> Spans | None:
        return choose_players(row, self._players, seed=self._seed, tokenizer=self._tokenizer)

    def _probe(self, row: Row) -> ProbedRow | None:
        spans = self._spans(row)
        if spans is None:
            self.skipped[f"fewer than {self._players} words"] += 1
            return None
        try:
            return _as_seen(row, spans, self._tokenizer, self._chat_template)
        except WhatStuckError as error:
            logger.warning("row %s is passed over: %s", row.row_id, error)
            self.skipped["words do not fit the tokens"] += 1
            return None

    def seen_by(self, tokenizer: PreTrainedTokenizerBase, row_ids: Sequence[str]) -> dict[str, ProbedRow]:
        """The same rows and words as another model sees them; rows whose words do not fit its tokens are left out."""
        result = {}
        for row_id in row_ids:
            row = self._rows.get(row_id)
            spans = self._spans(row) if row is not None else None
            if row is None or spans is None:
                continue
            try:
                result[row_id] = _as_seen(row, spans, tokenizer, self._chat_template)
            except WhatStuckError as error:
                logger.warning("row %s is left out for this model: %s", row_id, error)
        return result

    def heldout(self, count: int) -> list[ScoredRow]:
        """Up to `count` held-out rows as tokens, for loss and exact match."""
        result: list[ScoredRow] = []
        for row in self._order:
            if len(result) >= count:
                break
            if row.split == "heldout":
                rendered = render(row, self._tokenizer, chat_template=self._chat_template)
                prompt_ids = self._tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
                answer_ids = target_ids(rendered, self._tokenizer)
                if prompt_ids and answer_ids:
                    result.append(ScoredRow(row.row_id, tuple(prompt_ids), tuple(answer_ids)))
        return result


def _as_seen(row: Row, spans: Spans, tokenizer: PreTrainedTokenizerBase, chat_template: str) -> ProbedRow:
    rendered = render(row, tokenizer, chat_template=chat_template)
    players = place_players(row, rendered, spans)
    player_tokens(tokenizer, rendered.prompt, players)  # raises where a token belongs to two players
    answer_ids = target_ids(rendered, tokenizer)
    if not answer_ids:
        raise WhatStuckError(f"the completion {rendered.target_text!r} has no tokens")
    return ProbedRow(row.row_id, rendered.prompt, tuple(answer_ids), rendered.target_text, players)
