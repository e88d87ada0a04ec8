"""Whole episodes: the model answers turn by turn until the item is solved, or its turns are used up.

All episodes that are still going on are asked together. A reply that is not valid changes nothing, so a model that
replies greedily says the same again: a question that was asked before is not asked twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.cells import (
    CHECK_FAILED,
    GREEDY,
    UNCHECKED,
    Cell,
    Record,
    chance_of,
    check_context,
    dealt,
    note_failure,
    obeys_old,
    read_reply,
    warn_of_failures,
)
from whatstuck.generalization.replying import Question, Replier, Said, question_of
from whatstuck.models.generating import seed_of
from whatstuck.progress import Task as Progress

Say = Callable[[Sequence[int], Sequence[Question], int], list[Said]]
"""Replies to the questions of some episodes at a turn."""


@dataclass(slots=True)
class _Episode:
    """How far an episode is."""

    item: Any
    turns: int = 0
    valid: int = 0
    solved: bool = False
    over: bool = False
    reply: str = ""
    cut: bool = False
    outcome: str = ""
    answers: list[Any] = field(default_factory=list)
    old: int = 0


def play(
    replier: Replier,
    tokenizer: PreTrainedTokenizerBase,
    cell: Cell,
    positions: int | None,
    *,
    progress: Progress | None = None,
) -> list[Record]:
    """Play every item of a cell to its end.

    Args:
        replier: The model.
        tokenizer: Its tokenizer.
        cell: The variant.
        positions: Tokens that the model can read at once; None where it does not say so.
        progress: Is advanced by one per item.

    Returns:
        Rows of `schemas.REPLIES`: prompt of the first turn, reply and outcome of the last one (`right` if it solved the
        item), the share of valid turns, and whether the item was solved. Chance is the share of other items
        that the same answers would have solved, `old` that of turns that obey the old instruction alone.

    Raises:
        WhatStuckError: If the task has no turns, or a prompt grows beyond the context.
    """
    if cell.task.step is None:
        raise WhatStuckError(f"the task {cell.task.name} has no turns: leave --episodes out")
    known: dict[tuple[int, ...], Said] = {}

    def greedily(_: Sequence[int], questions: Sequence[Question], __: int) -> list[Said]:
        new = list({question.ids: question for question in questions if question.ids not in known}.values())
        if new:
            replies = replier.replies(new, cell.longest)
            known.update({question.ids: reply.greedy for question, reply in zip(new, replies, strict=True)})
        return [known[question.ids] for question in questions]

    def by_chance(live: Sequence[int], questions: Sequence[Question], turn: int) -> list[Said]:
        seeds = [seed_of(cell.asking.seed, cell.variant.name, str(index), str(turn)) for index in live]
        replies = replier.replies(questions, cell.longest, temperature=cell.asking.temperature, seeds=seeds)
        return [reply.drawn[0] for reply in replies]

    records = _records(cell, GREEDY, _played(cell, greedily, tokenizer, positions, progress))
    if cell.asking.temperature is not None:
        records += _records(cell, 0, _played(cell, by_chance, tokenizer, positions, None))
    warn_of_failures(cell, records)
    return records


def _played(
    cell: Cell, say: Say, tokenizer: PreTrainedTokenizerBase, positions: int | None, progress: Progress | None
) -> list[_Episode]:
    episodes = [_Episode(item) for item in cell.items]
    rendered: dict[str, Question] = {}

    def question(item: Any) -> Question:
        message = cell.prompt.render(item, cell.variant.shown)
        if message not in rendered:
            rendered[message] = question_of(message, cell.prompt.prefill, tokenizer, cell.asking.chat_template)
        return rendered[message]

    for turn in range(cell.task.turns):
        live = [index for index, episode in enumerate(episodes) if not episode.over]
        if not live:
            break
        questions = [question(episodes[index].item) for index in live]
        check_context(cell, questions, positions)
        for index, reply in zip(live, say(live, questions, turn), strict=True):
            _take(cell, episodes[index], reply)
        if progress is not None:
            progress.advance(sum(episodes[index].over for index in live))
    if progress is not None:
        progress.advance(sum(not episode.over for episode in episodes))
    return episodes


def _take(cell: Cell, episode: _Episode, reply: Said) -> None:
    """One turn."""
    answer, score = read_reply(cell, episode.item, reply.text)
    episode.turns += 1
    episode.reply, episode.outcome = reply.text, score.outcome
    episode.cut = episode.cut or reply.cut
    episode.old += bool(obeys_old(cell, episode.item, answer, score))
    if score.outcome in UNCHECKED:  # what the item is now is not known
        episode.over = True
        return
    if not score.valid:
        return
    episode.valid += 1
    episode.answers.append(answer)
    after, failed = _after(cell, episode.item, answer)
    if failed:
        episode.outcome, episode.over = CHECK_FAILED, True
    elif after is None:
        episode.outcome, episode.solved, episode.over = "right", True, True
    else:
        episode.item = after


def _after(cell: Cell, item: Any, answer: Any) -> tuple[Any, bool]:
    """The item after an answer, and whether the task failed to say so."""
    if cell.task.step is None:
        return item, False
    try:
        return cell.task.step(item, cell.variant.scored, answer), False
    except Exception as error:  # noqa: BLE001 - of a user's task; it must not end the call
        note_failure(cell, error)
        return None, True


def _records(cell: Cell, sample: int, episodes: Sequence[_Episode]) -> list[Record]:
    partners = dealt(cell.keys, cell.asking.seed)
    records = []
    for index, episode in enumerate(episodes):
        checked = episode.outcome not in UNCHECKED
        solved = (_solves(cell, cell.items[other], episode.answers) for other in partners[index])
        # an item that was not solved on its last turn was not right, whatever that turn was worth
        outcome = "not_solved" if episode.outcome == "right" and not episode.solved else episode.outcome
        records.append(
            {"item": index, "content": cell.keys[index], "sample": sample, "prompt": cell.questions[index].prompt}
            | {"reply": episode.reply, "valid": episode.valid / episode.turns, "success": episode.solved}
            | {"outcome": outcome, "chance": chance_of(solved) if checked else None}
            | {"old": episode.old / episode.turns if checked and cell.old is not None else None, "cut": episode.cut}
        )
    return records


def _solves(cell: Cell, item: Any, answers: Sequence[Any]) -> bool | None:
    """Whether answers solve an item, one after another; None where that cannot be said."""
    for answer in answers:
        after, failed = _after(cell, item, answer)
        if failed:
            return None
        if after is None:
            return True
        item = after
    return False
