"""The rows of a user's task: columns as text, the label, and a key that says when two rows are the same.

The key is a hash of the columns that the prompts show, less white space and case: what a model could recognize.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whatstuck.datasets import rows_from
from whatstuck.datasets.tables import open_table
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.own.templates import near


@dataclass(frozen=True, slots=True)
class Records:
    """What a data file holds, before anything is asked of it.

    Attributes:
        name: What to call the file in messages.
        found: Pairs of place (such as `line 3`) and columns; at least one.
    """

    name: str
    found: tuple[tuple[str, dict[str, Any]], ...]

    @classmethod
    def read(cls, path: Path) -> "Records":
        """Read JSONL, JSON, CSV, TSV or Parquet.

        Rows of a chat (`messages`, or `conversations`) get the columns `prompt` and `completion`.

        Raises:
            WhatStuckError: If the file is bad or empty.
        """
        table = open_table(path, columns=None, split="heldout")
        return cls.of(table.name, table.records)

    @classmethod
    def of(cls, name: str, records: Iterable[tuple[str, Any]]) -> "Records":
        """Records in memory, with their places."""
        found = []
        for place, record in records:
            if not isinstance(record, dict):
                raise WhatStuckError(f"{name} {place}: expected an object with columns, found {type(record).__name__}")
            try:
                found.append((place, {str(column): value for column, value in record.items()} | _chat(record)))
            except WhatStuckError as error:
                raise WhatStuckError(f"{name} {place}: {error}") from error
        if not found:
            raise WhatStuckError(f"{name}: there are no rows in it")
        return cls(name, tuple(found))

    @property
    def columns(self) -> list[str]:
        """Those of the first record."""
        return list(self.found[0][1])


@dataclass(frozen=True, slots=True, eq=False)
class OwnRow:
    """One row.

    Attributes:
        place: Where it stands, such as `train.csv line 3`.
        columns: What it holds, as it was read; for a user's checker.
        texts: The columns that are text or numbers, as they are written in a prompt.
        label: The right answer, as the file has it.
        key: Hash of what prompts show of it.
    """

    place: str
    columns: Mapping[str, Any]
    texts: Mapping[str, str]
    label: str
    key: str


def make_rows(records: Records, shown: Sequence[str], answer: str, also: Sequence[str] = ()) -> list[OwnRow]:
    """Rows of which every needed column is there.

    Args:
        records: What was read.
        shown: Columns that prompts show.
        answer: Column of the right answer.
        also: Other columns that every row needs.

    Raises:
        WhatStuckError: Naming the first row that lacks one.
    """
    rows = []
    for at, columns in records.found:
        place = f"{records.name} {at}"
        texts = {name: text for name, value in columns.items() if (text := _text(value)) is not None}
        for column in (*shown, answer, *also):
            if column not in columns:
                there = ", ".join(columns) or "none"
                raise WhatStuckError(f"{place}: no column {column!r}{near(column, columns)}; there are {there}")
            if not texts.get(column, "").strip():
                empty = columns[column] is None or column in texts
                found = "nothing" if empty else type(columns[column]).__name__
                raise WhatStuckError(f"{place}: the column {column!r} must be text or a number, found {found}")
        key = content_key(texts[column] for column in shown)
        rows.append(OwnRow(place, columns, texts, texts[answer].strip(), key))
    return rows


def content_key(texts: Iterable[str]) -> str:
    """Hash of texts, whatever their white space and case: 16 hexadecimal digits."""
    plain = [" ".join(text.casefold().split()) for text in texts]
    return hashlib.blake2b(json.dumps(plain).encode(), digest_size=8).hexdigest()


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None  # True is `true`, as in the file


def _chat(record: Mapping[str, Any]) -> dict[str, str]:
    if not isinstance(record.get("messages") or record.get("conversations"), list):
        return {}
    (row,) = rows_from([record])
    if len(row.messages) > 1:
        raise WhatStuckError("a conversation of several messages fits no template: give its texts as columns")
    return {"prompt": row.content, "completion": row.completion}
