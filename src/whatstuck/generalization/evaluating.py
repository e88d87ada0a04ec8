"""How a model does on one variant of a task: its replies, and what they are worth."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.generalization.cells import (
    GREEDY,
    UNCHECKED,
    Cell,
    Record,
    check_context,
    dealt,
    read_reply,
    warn_of_failures,
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
        _, score = read_reply(cell, item, reply.text)
        other, chance = partners[index], None
        if other is not None and score.outcome not in UNCHECKED:
            _, there = read_reply(cell, cell.items[other], reply.text)
            chance = None if there.outcome in UNCHECKED else there.success
        records.append(
            {"item": index, "content": key, "sample": sample, "prompt": question.prompt, "reply": reply.text}
            | {"valid": float(score.valid), "success": score.success, "outcome": score.outcome, "chance": chance}
            | {"cut": reply.cut}
        )
    return records
