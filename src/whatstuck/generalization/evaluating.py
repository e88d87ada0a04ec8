"""How a model does on one variant of a task: its replies, and what they are worth."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.generalization.cells import (
    GREEDY,
    UNCHECKED,
    Cell,
    Record,
    chance_of,
    check_context,
    dealt,
    obeys_old,
    read_reply,
    warn_of_failures,
    worth,
)
from whatstuck.generalization.episodes import play
from whatstuck.generalization.replying import Replier, Said
from whatstuck.models import positions_in
from whatstuck.models.generating import seed_of
from whatstuck.progress import Task as Progress


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cell: Cell,
    *,
    progress: Progress | None = None,
) -> list[Record]:
    """Ask a model one variant.

    Args:
        model: A causal language model in eval mode.
        tokenizer: Its tokenizer.
        cell: The variant.
        progress: Is advanced by one per item.

    Returns:
        Rows of `schemas.REPLIES`: the greedy reply to every item, then the draws.

    Raises:
        WhatStuckError: If a prompt does not fit the context, or the model gives NaN. A check that fails raises nothing:
            it is the outcome of its row.
    """
    check_context(cell, cell.questions, positions_in(model))
    asking = cell.asking
    replier = Replier(model, tokenizer, chat_template=asking.chat_template, share_prefixes=asking.share_prefixes)
    if asking.episodes:
        return play(replier, tokenizer, cell, positions_in(model), progress=progress)
    seeds = [seed_of(asking.seed, cell.variant.name, str(index)) for index in range(len(cell.items))]
    replies = replier.replies(
        cell.questions, cell.longest, temperature=asking.temperature, seeds=seeds, progress=progress
    )
    records = _records(cell, GREEDY, [reply.greedy for reply in replies])
    if asking.temperature is not None:
        records += _records(cell, 0, [reply.drawn[0] for reply in replies])
    warn_of_failures(cell, records)
    return records


def _records(cell: Cell, sample: int, replies: Sequence[Said]) -> list[Record]:
    records = []
    partners = dealt(cell.keys, cell.asking.seed)
    for index, (item, key, question, reply) in enumerate(
        zip(cell.items, cell.keys, cell.questions, replies, strict=True)
    ):
        answer, score = read_reply(cell, item, reply.text)
        checked = score.outcome not in UNCHECKED
        chance = chance_of(_is_right(cell, other, answer) for other in partners[index]) if checked else None
        records.append(
            {"item": index, "content": key, "sample": sample, "prompt": question.prompt, "reply": reply.text}
            | {"valid": float(score.valid), "success": score.success, "outcome": score.outcome, "chance": chance}
            | {"old": obeys_old(cell, item, answer, score), "cut": reply.cut}
        )
    return records


def _is_right(cell: Cell, other: int, answer: Any) -> bool | None:
    """Whether an answer is right for another item of the cell; None where that cannot be checked."""
    score = worth(cell, cell.items[other], answer)
    return None if score.outcome in UNCHECKED else score.success
