"""Rows that are tokens already, and the order in which they are trained: for trainings that repeat another one.

To repeat a training with one thing changed, what is fed must be the same token by token, whoever made the tokens, and
the order must be known in advance. So both can be given as files instead of being made here.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.files import whole

IGNORED = -100


def write_tokens(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows of `row_id`, `input_ids` and `labels` (-100 where nothing is learned) as JSONL."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps({name: record[name] for name in ("row_id", "input_ids", "labels")}) + "\n")


def holds_tokens(path: Path) -> bool:
    """Whether a file is one of `write_tokens`, by its first line."""
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline()
    try:
        record = json.loads(first)
    except ValueError:
        return False
    return isinstance(record, dict) and "input_ids" in record and "labels" in record


def read_tokens(path: Path) -> list[dict[str, Any]]:
    """Rows of `write_tokens`.

    Raises:
        WhatStuckError: Naming the first bad line.
    """
    records: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                ids, labels = record["input_ids"], record["labels"]
                name = str(record["row_id"])
            except (ValueError, KeyError, TypeError) as error:
                raise WhatStuckError(
                    f"{path.name} line {number}: not a row of tokens: give row_id, input_ids and labels"
                ) from error
            if len(ids) != len(labels) or not ids:
                raise WhatStuckError(f"{path.name} line {number}: give as many labels as input_ids, and one or more")
            records.append({"row_id": name, "input_ids": ids, "labels": labels})
    return records


def write_order(ids: Sequence[str], path: Path) -> None:
    """Write an order as a JSON list of row ids."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(list(ids)) + "\n", encoding="utf-8")


def read_order(path: Path, known: Iterable[str]) -> list[str]:
    """The ids of `write_order`.

    Args:
        path: The file.
        known: Ids of the rows that are there to be trained.

    Raises:
        WhatStuckError: If it is no such list, or names rows that are not there.
    """
    try:
        order = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WhatStuckError(f"{path} cannot be read as a JSON list of row ids: write one") from error
    if not isinstance(order, list) or not order:
        raise WhatStuckError(f"{path} must hold a JSON list of row ids, one or more")
    there = set(known)
    missing = [name for name in order if name not in there]
    if missing:
        raise WhatStuckError(
            f"{path} names {len(set(missing))} rows that are not trained, such as {missing[0]!r}: take them out, or "
            "raise max_length"
        )
    return [str(name) for name in order]
