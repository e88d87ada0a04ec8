"""Success and validity of an arm's checkpoints on every variant, in one small file per arm.

Curves take 50 items a cell; the first and the last step take 300, and only they are reported. No checkpoint is ever
chosen by a column that is reported. A part knows what it was made of, and is made again where that has changed. So
does what a checkpoint was asked: the base, which many arms begin with, is asked once, and a killed call loses one
checkpoint at most.
"""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from whatstuck.files import whole
from whatstuck.generalization.cells import Asking, Cell, make_cell
from whatstuck.generalization.evaluating import evaluate
from whatstuck.generalization.schemas import GENERALIZATION
from whatstuck.generalization.statistics import cell_rows
from whatstuck.generalization.task import Task
from whatstuck.models import CheckpointedModel, find_checkpoints, fingerprint, load_tokenizer, usable_device

ITEMS = 300
CURVE_ITEMS = 50

Row = dict[str, Any]

logger = logging.getLogger(__name__)


def evaluate_arm(
    part: Path,
    base: Path,
    checkpoints: Path,
    task: Task[Any, Any, Any],
    *,
    arm: str,
    about: Row,
    asking: Asking | None = None,
) -> list[Row]:
    """Evaluate all checkpoints of an arm, unless that is done.

    Args:
        part: File of the result.
        base: The model before fine-tuning.
        checkpoints: Folder of `checkpoint-N`.
        task: The task, as the arm was trained: with thoughts or without.
        arm: Its name.
        about: What else the rows should say, such as the seed of the training; items are the same for all.
        asking: How it is asked; 300 items, the most likely reply.

    Returns:
        Rows of `schemas.GENERALIZATION`, with what else was given.
    """
    tokenizer = load_tokenizer(base)
    found = find_checkpoints([str(checkpoints)])
    asking = replace(asking or Asking(), items=ITEMS, thought="thought" in arm)
    cells = [make_cell(task, variant, asking, tokenizer) for variant in task.variants]
    identity = {
        "items": [ITEMS, CURVE_ITEMS],
        "columns": GENERALIZATION.names,
        "asked": _hash(cells),
        "checkpoints": {str(checkpoint.step): fingerprint(checkpoint.path) for checkpoint in found},
        "about": about,
    }
    if (kept := _read(part, identity)) is not None:
        return kept
    for cell in cells:
        check_room(cell, tokenizer)
    models = CheckpointedModel(base, device=usable_device("auto"), dtype=torch.float32)
    steps = {checkpoint.step: checkpoint for checkpoint in found}
    rows: list[Row] = []
    for step in sorted({0, *steps}):
        checkpoint = steps.get(step)
        asked = cells if step in (0, max(steps)) else [cell.some(CURVE_ITEMS) for cell in cells]
        weights = [fingerprint(base)] if checkpoint is None else [fingerprint(base), fingerprint(checkpoint.path)]
        one = {"weights": weights, "columns": GENERALIZATION.names, "asked": _hash(asked)}
        kept_at = part.parents[1] / "asked" / f"{hashlib.sha256(json.dumps(one).encode()).hexdigest()[:16]}.jsonl"
        of_step = _read(kept_at, one)
        if of_step is None:
            with models.at(checkpoint) as model:
                of_step = [_ask(model, tokenizer, cell) for cell in asked]
            _write(kept_at, one, of_step)
        rows += [row | {"arm": arm, "step": step} | about for row in of_step]
    _write(part, identity, rows)
    return rows


def _ask(model: Any, tokenizer: Any, cell: Cell) -> Row:
    records = evaluate(model, tokenizer, cell)
    (row,) = cell_rows(records, task=cell.task.name, arm="", variant=cell.variant, step=0, unsolvable=cell.unsolvable)
    return rounded(row)


def _hash(cells: Sequence[Cell]) -> str:
    """Of what is asked; not of the scorer: delete parts and `asked` where that has changed."""
    return hashlib.sha256(repr([(cell.questions, cell.items, cell.longest) for cell in cells]).encode()).hexdigest()


def _read(part: Path, identity: Row) -> list[Row] | None:
    """What is kept in a part; None where there is none, or one of something else."""
    if not part.exists():
        return None
    first, *lines = part.read_text(encoding="utf-8").splitlines()
    if json.loads(first) == json.loads(json.dumps(identity)):
        return [json.loads(line) for line in lines]
    logger.warning("%s was made of something else, and is made again", part)
    return None


def _write(part: Path, identity: Row, rows: Sequence[Row]) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    with whole(part) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in (identity, *rows)), encoding="utf-8")


def check_room(cell: Cell, tokenizer: Any) -> None:
    """See that the right reply to every item, with the token that ends it, is no longer than replies may be.

    Raises:
        ValueError: If one is: it would count against the model.
    """
    demonstrator = cell.task.demonstrator
    if demonstrator is None:
        return
    prefill = len(cell.prompt.prefill)
    for item in cell.items:
        reply = demonstrator.reply(item, cell.variant.scored, thought=cell.asking.thought)[prefill:]
        needed = len(tokenizer(f" {reply}", add_special_tokens=False)["input_ids"]) + 2
        if needed > cell.longest:
            raise ValueError(f"{cell.variant.name}: {reply!r} takes up to {needed} tokens of {cell.longest}")


def rounded(row: Row) -> Row:
    """Numbers to four places."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def line_of(rows: Sequence[Row], **about: Any) -> dict[str, Any]:
    """Per arm and variant, success, validity and what obeys the old instruction; the first two at step 0 as well."""
    last = max(row["step"] for row in rows)
    return about | {
        "last_step": last,
        "arms": {
            arm: {
                row["variant"]: {
                    "success": [row["success"], row["low"], row["high"]],
                    "validity": [row["validity"], row["validity_low"], row["validity_high"]],
                    "obeys_old": None if math.isnan(row["old"]) else row["old"],
                    "at_step_0": [_first(rows, row)["success"], _first(rows, row)["validity"]],
                }
                for row in rows
                if row["arm"] == arm and row["step"] == last
            }
            for arm in dict.fromkeys(row["arm"] for row in rows)
        },
    }


def _first(rows: Sequence[Row], of: Row) -> Row:
    return next(row for row in rows if (row["arm"], row["variant"], row["step"]) == (of["arm"], of["variant"], 0))
