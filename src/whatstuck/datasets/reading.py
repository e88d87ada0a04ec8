"""Read and write rows.

Nothing needs to be configured for the shapes that people train on (`shapes.py`) in the files they keep them in
(`tables.py`). A bad file is refused with the first line that is bad; no row is skipped in silence.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from whatstuck.datasets.rows import SPLITS, Message, Row, row_hash
from whatstuck.datasets.shapes import Shape, find_shape, parse_record
from whatstuck.datasets.tables import Table, open_table, read_label_names
from whatstuck.errors import WhatStuckError
from whatstuck.files import whole


def read_rows(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    labels: str | Path | None = None,
    instruction: str | None = None,
    split: str = "heldout",
    limit: int | None = None,
) -> list[Row]:
    r"""Read rows from a data file, whatever shape they have.

    Files: `.jsonl`, `.json` (a list, or an object with one list), `.csv` and `.tsv` with a header line or with
    `columns`, `.parquet`, and folders written by `save_to_disk` of datasets.

    Shapes, the first whose fields are there:

    - `messages`: the last assistant message is the completion.
    - `conversations` with `from` and `value` (sharegpt): the same.
    - `prompt`, `completion`: text, or messages as in TRL's conversational form.
    - `instruction`, perhaps `input` or `context`, and `output` or `response` (alpaca); perhaps `history`.
    - `question`, `answer`.
    - `text`, `labels` or `label`: a classification table; the label is the completion.
    - `text`: already rendered text; it never gets a chat template. Its last word, with the space before it, is
      the completion, and everything before is the prompt.

    Every shape may have: `row_id` or `id`; `players`, a list of `[start, end]` character spans in the last user
    message; `split` (`heldout` or `train`); `system`, a system message. Other fields are ignored. A literal
    end-of-text token (such as `<|endoftext|>`) at the end of a completion is taken off.

    Args:
        path: The file or folder.
        columns: Column names of a CSV or TSV file without a header line, such as `["text", "labels", "id"]`.
        labels: File of label names, one a line; a cell of comma-separated ids becomes the names joined by `", "`.
            Without it, names that a datasets file carries are used, else labels are taken as they are.
        instruction: Text put before every row's last user message, with an empty line between; players never
            come from it.
        split: The split of rows that do not say theirs; also picks the part of a folder that holds several.
        limit: Read only the first rows.

    Returns:
        The rows in file order. Rows that would have the same id get `-2`, `-3`, … behind it, in that order.

    Raises:
        WhatStuckError: If the file is missing, empty, broken or of an unknown kind, or a row is bad; names the
            first bad line (of CSV, TSV and JSONL) or row (counted from 1).
    """
    path = Path(path)
    if split not in SPLITS:
        raise WhatStuckError(f"unknown split {split!r}: use heldout or train")
    if limit is not None and limit < 1:
        raise WhatStuckError(f"limit must be at least 1, got {limit}")
    return _rows_of(open_table(path, columns=columns, split=split), labels, instruction, split, limit)


def rows_from(
    records: Iterable[Mapping[str, Any]],
    *,
    labels: str | Path | None = None,
    instruction: str | None = None,
    split: str = "heldout",
) -> list[Row]:
    """Rows from records in memory: a list of dicts, or a `datasets.Dataset`; otherwise as `read_rows`.

    Raises:
        WhatStuckError: If there are none, or one is bad; names the first bad one (counted from 1).
    """
    features = getattr(records, "features", None) or {}
    named = [names for key in ("labels", "label") if (names := getattr(features.get(key), "names", None))]
    places = ((f"row {index}", record) for index, record in enumerate(records, start=1))
    return _rows_of(Table("the data", places, named[0] if named else None), labels, instruction, split, None)


def _rows_of(
    table: Table, labels: str | Path | None, instruction: str | None, split: str, limit: int | None
) -> list[Row]:
    names = table.class_names if labels is None else read_label_names(Path(labels))
    rows: list[Row] = []
    taken: set[str] = set()
    shape: Shape | None = None
    for place, record in table.records:
        try:
            fields = _fields(record)
            found = find_shape(fields)
            shape = shape or found
            _check_shape(found, shape, labels_given=labels is not None)
            row = _make_row(fields, shape, names, instruction, split, len(rows), taken)
        except WhatStuckError as error:
            raise WhatStuckError(f"{table.name} {place}: {error}") from error
        taken.add(row.row_id)
        rows.append(row)
        if len(rows) == limit:
            break
    if not rows:
        raise WhatStuckError(f"{table.name}: there are no rows in it")
    return rows


def write_rows(rows: Sequence[Row], path: str | Path) -> None:
    """Write rows as JSONL that `read_rows` reads back to equal rows.

    The file has the `messages` shape, so trainers read it too. It appears whole or not at all. (A completion that
    ends in a literal end-of-text token loses it in reading, as always.)

    Args:
        rows: The rows; their ids must differ.
        path: File to write; its name must end in `.jsonl`.

    Raises:
        WhatStuckError: If two rows share an id, or the name ends otherwise.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise WhatStuckError(f"{path.name}: rows are written as JSONL: give a name that ends in .jsonl")
    if len({row.row_id for row in rows}) < len(rows):
        raise WhatStuckError(f"{path.name}: two rows share a row_id: give each its own")
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(_as_record(row), ensure_ascii=False) + "\n" for row in rows)


def _as_record(row: Row) -> dict[str, Any]:
    turns = [*row.messages, Message("assistant", row.completion)]
    record: dict[str, Any] = {
        "row_id": row.row_id,
        "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
        "split": row.split,
        "source_index": row.source_index,
    }
    if row.players is not None:
        record["players"] = [list(span) for span in row.players]
    if row.content_start:
        record["content_start"] = row.content_start
    if row.plain:
        record["plain"] = True
    return record


def _fields(record: object) -> dict[str, Any]:
    """The fields that are there: tables fill the others with nulls."""
    if not isinstance(record, dict):
        raise WhatStuckError(f"a row must be an object with named fields, found {type(record).__name__}")
    return {key: value for key, value in record.items() if value is not None}


def _check_shape(found: Shape, first: Shape, *, labels_given: bool) -> None:
    if found is not first:
        raise WhatStuckError(
            f"the fields of this row are of the shape ({found.name}), those before of ({first.name}): "
            "use one shape a file"
        )
    if labels_given and "label" not in found.name:
        raise WhatStuckError(f"rows of the shape ({found.name}) have no label: leave the label names out")


def _make_row(
    fields: Mapping[str, Any],
    shape: Shape,
    names: Sequence[str] | None,
    instruction: str | None,
    split: str,
    index: int,
    taken: set[str],
) -> Row:
    messages, completion, plain = parse_record(fields, shape, names)
    lead = f"{instruction}\n\n" if instruction and instruction.strip() else ""
    if lead:
        messages = _with_lead(messages, lead)
    given = fields.get("row_id", fields.get("id", ""))
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise WhatStuckError(f"row_id must be text or a whole number, found {type(given).__name__}")
    own_split = fields.get("split")
    return Row(
        row_id=_free_id(str(given) or row_hash(messages, completion), taken),
        messages=messages,
        completion=completion,
        source_index=_whole_number(fields, "source_index", index),
        split=own_split if own_split in SPLITS else split,
        players=_spans(fields["players"], len(lead)) if fields.get("players", "") != "" else None,
        content_start=_whole_number(fields, "content_start", 0) + len(lead),
        plain=plain or fields.get("plain") is True,
    )


def _with_lead(messages: tuple[Message, ...], lead: str) -> tuple[Message, ...]:
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=None)
    return tuple(
        Message(message.role, lead + message.content) if i == last else message for i, message in enumerate(messages)
    )


def _free_id(wanted: str, taken: set[str]) -> str:
    row_id, count = wanted, 1
    while row_id in taken:
        count += 1
        row_id = f"{wanted}-{count}"
    return row_id


def _whole_number(fields: Mapping[str, Any], name: str, default: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)  # from a CSV or TSV cell
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise WhatStuckError(f"{name} must be a whole number from 0 on, found {value!r}")
    return value


def _spans(value: object, shift: int) -> tuple[tuple[int, int], ...]:
    """Players given by hand, sorted by position; CSV and TSV cells hold them as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    if not isinstance(value, list):
        raise WhatStuckError("players must be a list of [start, end] spans")
    spans = []
    for span in value:
        if not isinstance(span, list) or [type(offset) for offset in span] != [int, int]:
            raise WhatStuckError(f"player {span!r} must be a span [start, end] of whole numbers")
        spans.append((span[0] + shift, span[1] + shift))
    return tuple(sorted(spans))
