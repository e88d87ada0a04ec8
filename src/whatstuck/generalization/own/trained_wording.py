"""Which of several wordings is that of the training, where the call does not say so.

The run knows it, if it was begun; else the record of a training beside the checkpoints, if one of the wordings has its
rows. Otherwise it is the first, which must be said: a wrong guess turns the whole comparison round.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whatstuck.datasets import Row, read_rows
from whatstuck.errors import WhatStuckError
from whatstuck.files import file_hash
from whatstuck.generalization.own.rows import content_key
from whatstuck.training.sft import RECORD

_ALIKE = 0.5
"""Share of the rows of the best file, or of the training, that must be in common; and of what they have in common, from
which on another file may be the training's as well."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Rows that a training was given.

    Attributes:
        name: Name of their file.
        keys: `content_key` of each prompt.
        set_aside: Of those that were held out of it.
    """

    name: str
    keys: frozenset[str]
    set_aside: frozenset[str] = frozenset()

    @property
    def learned(self) -> frozenset[str]:
        """Keys of the prompts that were learned."""
        return self.keys - self.set_aside


def recorded_rows(folders: Sequence[Path], wordings: Mapping[Path, Sequence[Row]]) -> TrainingRows | None:
    """The rows of the training that a folder of checkpoints has a record of; None where that is not known.

    Args:
        folders: Where checkpoints are.
        wordings: Rows of known files, of which the training may have used one: its own may be gone.
    """
    for folder in sorted(set(folders)):
        record = _read_record(folder / RECORD)
        if record is None:
            continue
        data = Path(str(record["data"]))
        hashes = {file_hash(file): rows for file, rows in wordings.items()}
        rows = hashes.get(str(record.get("data_sha256")))
        if rows is None:
            rows = _rows(data) if data.is_file() and file_hash(data) == record.get("data_sha256") else []
        if rows:
            return TrainingRows(data.name, _keys(rows), _keys(_rows(folder / "heldout.jsonl")))
    return None


def choose(
    wordings: Mapping[Path, Sequence[Row]], training: TrainingRows | None, begun: Path | None, first: str
) -> tuple[Path, str, bool]:
    """The wording of the training.

    Args:
        wordings: Rows of each file.
        training: What is known of the rows that were trained on.
        begun: The one that the run was begun with, if it was.
        first: What the first of the files is: `by name`, or `given`.

    Returns:
        The file, why it is the one, and whether that is sure.
    """
    found = [] if training is None else _wordings_of(training, wordings)
    one, *_ = [*found, *wordings]
    if begun is not None and begun != one:
        other = f", though the training has the rows of {one.name}" if found and begun not in found else ""
        return begun, f"this run was begun with it{other}", not other
    if training is not None and len(found) == 1:
        return one, f"it has the rows of the training ({training.name})", True
    among = " of those whose rows the training has" if found else ""
    why = f"taken because it is the first {first}{among}; name another with --training-wording"
    return one, why, False


def _wordings_of(training: TrainingRows, wordings: Mapping[Path, Sequence[Row]]) -> list[Path]:
    """The file that has most rows of the training, and those that have nearly as many: it may have all wordings."""
    keys = {file: _keys(rows) for file, rows in wordings.items()}
    counts = {file: len(training.keys & of_file) for file, of_file in keys.items()}
    best = max(counts, key=lambda file: counts[file])
    if not counts[best] or counts[best] < _ALIKE * min(len(training.keys), len(keys[best])):
        return []  # a few prompts may be in common by chance
    return [file for file, count in counts.items() if count >= _ALIKE * counts[best]]


def _read_record(file: Path) -> dict[str, Any] | None:
    """None where there is none, or it is damaged: it is no more than a help."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "data" in found else None


def _rows(file: Path) -> list[Row]:
    if not file.is_file():
        return []
    try:
        return read_rows(file)
    except WhatStuckError as error:  # as of a table whose columns the training was told
        _log.info("the rows of the training cannot be read: %s", error)
        return []


def _keys(rows: Sequence[Row]) -> frozenset[str]:
    return frozenset(content_key([row.content]) for row in rows)
