"""Answers of a model to many rows, block by block: what a killed call has asked is not asked again."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from transformers import PreTrainedModel

from whatstuck.progress import Task
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.verdicts.asking import Asked
from whatstuck.runs import content_hash, read_table, table_metadata, write_table

BLOCK = 64
"""Rows that are asked before what they answered is written."""

_SCHEMA = pa.schema([("row_id", pa.string()), ("answers", pa.string())])
Found = TypeVar("Found", Asked, BaseAnswers)


def in_blocks(
    folder: Path,
    rows: Sequence[TrainingRow],
    opened: Callable[[], AbstractContextManager[PreTrainedModel]],
    work: Callable[[PreTrainedModel, Sequence[TrainingRow], Task], list[Found]],
    kind: type[Found],
    *,
    identity: Mapping[str, Any],
    what: str,
) -> dict[str, Found]:
    """Ask rows block by block.

    Args:
        folder: Where the blocks are.
        rows: The rows, in an order that is the same at every call.
        opened: Gives the model; called once, and only if something is missing.
        work: Asks some of them; what a row answers must not depend on the rows beside it. It may leave rows out.
        kind: What it returns.
        identity: What the answers depend on; a block of another identity is asked again.
        what: What is done, for the progress.

    Returns:
        Row id to answers.
    """
    found: dict[str, Found] = {}
    written = set()
    model: PreTrainedModel | None = None
    with Task(what, len(rows)) as task, ExitStack() as stack:
        for number, start in enumerate(range(0, len(rows), BLOCK)):
            some = rows[start : start + BLOCK]
            path = folder / f"block-{number:04d}.parquet"
            written.add(path)
            about = {**identity, "row_ids": content_hash([row.row_id for row in some])}
            if path.exists() and table_metadata(table := read_table(path)) == about:
                answers = [kind(**json.loads(text)) for text in table["answers"].to_pylist()]
                task.advance(len(some), free=True)
            else:
                model = stack.enter_context(opened()) if model is None else model
                answers = work(model, some, task)
                records = [{"row_id": one.row_id, "answers": json.dumps(asdict(one))} for one in answers]
                write_table(path, pa.Table.from_pylist(records, schema=_SCHEMA), about)
            found |= {one.row_id: one for one in answers}
    for left in set(folder.glob("block-*.parquet")) - written:  # of a call that asked more
        left.unlink()
    return found
