"""Where it is known from what the trainer fed: our own training folder, a TRL configuration, or nothing.

The first two are run again; the third is an assumption, and everything that rests on it says so.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Row, read_rows
from whatstuck.datasets.tables import open_table
from whatstuck.dynamics.teacher_forcing import TokenRow
from whatstuck.errors import WhatStuckError
from whatstuck.files import file_hash
from whatstuck.models import positions_of
from whatstuck.rows.feeding.rerun import columns_of, fed_by_trl
from whatstuck.rows.trajectories import trained_rows
from whatstuck.settings import read_yaml
from whatstuck.training._data import prepare
from whatstuck.training.config import TrainConfig, trl_fields
from whatstuck.training.sft import RECORD

logger = logging.getLogger(__name__)

_OF_THE_ORDER = {"order", "resample", "resample_every", "resample_spared"}  # settings that say nothing about a row


@dataclass(frozen=True, slots=True)
class Source:
    """Where a training is described.

    Attributes:
        kind: `whatstuck` (a folder of `whatstuck train`), `trl` (a YAML of TRL's names), or `assumed`.
        path: The folder or file.
        config: The settings found there.
    """

    kind: Literal["whatstuck", "trl", "assumed"]
    path: Path | None
    config: Mapping[str, Any]

    @property
    def _name(self) -> str:
        """Without the folders above it: pages are shared."""
        return self.path.name if self.path is not None else ""

    @property
    def sentence(self) -> str:
        """What is known, for a reader."""
        if self.kind == "whatstuck":
            return f"the training that is recorded in “{self._name}” was prepared again, exactly as it was fed"
        if self.kind == "trl":
            return f"TRL prepared the rows again with the settings of “{self._name}”"
        return "nothing says how the rows were fed: they are taken to have been fed whole, as they are asked"


@dataclass(frozen=True, slots=True)
class Feed:
    """What was fed.

    Attributes:
        rows: The training rows, without those that were held out.
        fed: By row id, what the trainer learned; rows that it left out are missing. Empty where it is assumed only.
    """

    rows: list[Row]
    fed: dict[str, TokenRow]


def find_source(training: Path | None, checkpoints: Sequence[Path]) -> Source:
    """Where the training is described.

    Args:
        training: A folder of `whatstuck train`, or a YAML of TRL's names; None looks for such a folder beside the
            checkpoints.
        checkpoints: Folders of the checkpoints.

    Raises:
        WhatStuckError: If what is given describes no training.
    """
    if training is not None and training.is_file():
        config = read_yaml(training)
        if not config.keys() & trl_fields().keys():
            raise WhatStuckError(f"{training} names no setting of TRL's SFTConfig: give the YAML of the training")
        return Source("trl", training, config)
    folders = [training] if training is not None else sorted({checkpoint.parent for checkpoint in checkpoints})
    for folder in folders:
        if (folder / RECORD).exists():
            return Source("whatstuck", folder, json.loads((folder / RECORD).read_text(encoding="utf-8")))
    if training is not None:
        raise WhatStuckError(
            f"{training} says nothing about a training: give a folder of `whatstuck train`, or a YAML with the "
            "settings of TRL's SFTConfig"
        )
    return Source("assumed", None, {})


def feed_of(
    source: Source,
    data: Path,
    tokenizer: PreTrainedTokenizerBase,
    base: Path,
    *,
    shape: Mapping[str, Any],
) -> Feed:
    """What was fed of a data file.

    Args:
        source: Where the training is described.
        data: The file that was trained on.
        tokenizer: Tokenizer of the model.
        base: Folder of the model.
        shape: Arguments of `read_rows`: columns, labels, instruction.

    Raises:
        WhatStuckError: If the file is not the one that was trained on, or its rows cannot be prepared.
    """
    if source.kind == "whatstuck":
        return _as_we_fed(source, data, tokenizer, base)
    whole = read_rows(data, split="train", **shape)
    rows = [row for row in whole if row.split == "train"]
    if not rows:
        raise WhatStuckError(f"{data}: all rows say that they were held out; give the rows that were trained on")
    if source.kind == "trl":
        records = _records(data, whole, shape)
        _refuse_unread_answers(rows, records, source.config)
        return Feed(rows, fed_by_trl(source.config, records, tokenizer))
    return Feed(rows, {})


def _as_we_fed(source: Source, data: Path, tokenizer: PreTrainedTokenizerBase, base: Path) -> Feed:
    record = source.config
    if file_hash(data) != record["data_sha256"]:
        raise WhatStuckError(
            f"{data} is not the file that {source.path} was trained on ({record['data']}): give that one as --data"
        )
    settings = {name: value for name, value in record["settings"].items() if name not in _OF_THE_ORDER}
    if record.get("eval_data_sha256"):  # held-out rows came from a file of their own
        marked = any(row.split == "heldout" for row in read_rows(data, split="train", **reading(settings)))
        settings["heldout"] = None if marked else 0
    config = TrainConfig(**{**settings, "model": str(base), "data": data, "out": Path(str(source.path))})
    prepared = prepare(config, tokenizer, positions=positions_of(base))
    heldout = {row.row_id for row in prepared.heldout}
    rows = read_rows(data, split="train", limit=config.limit, **reading(settings))
    return Feed([row for row in rows if row.split == "train" and row.row_id not in heldout], _tokens(prepared.train))


def _refuse_unread_answers(
    rows: Sequence[Row], records: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> None:
    """TRL takes `text` and passes a label by: then the script that made whole texts of both is not in the file."""
    columns = columns_of(config)
    read = [" ".join(_strings([record[name] for name in columns & record.keys()])) for record in records]
    if rows and not any(row.completion.strip() in text for row, text in zip(rows, read, strict=True)):
        names = ", ".join(sorted(columns & {name for record in records for name in record}))
        raise WhatStuckError(
            f"what TRL reads of these rows ({names or 'no column'}) holds none of their answers: give them as your "
            "script hands them to TRL (messages, prompt and completion, or whole texts)"
        )


def _strings(value: Any) -> list[str]:
    """All texts in a nested value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def reading(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that say how a data file is read."""
    return {name: settings.get(name) for name in ("columns", "labels", "instruction")}


def _tokens(records: Sequence[Mapping[str, Any]]) -> dict[str, TokenRow]:
    return {row.row_id: row.tokens for row in trained_rows(records)}


def _records(data: Path, rows: Sequence[Row], shape: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The training rows as the file has them: that is what the user's script gives to TRL."""
    table = open_table(data, columns=shape.get("columns"), split="train")
    return [
        {name: value for name, value in record.items() if value is not None} | {"row_id": row.row_id}
        for row, (_, record) in zip(rows, table.records, strict=True)
        if row.split == "train"
    ]
