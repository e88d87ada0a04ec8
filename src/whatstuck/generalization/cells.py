"""One variant of a task, ready to be asked: the same items for every model; how replies are read and dealt.

`chance` is what the same replies are worth for other items: each is dealt to several items of other contents and
scored there. A reply that suits everything succeeds by chance as well, and says nothing.

`old` tells replies that ignore a new instruction: valid by the training's meanings, and not by those shown.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.drawing import draw_items
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.replying import Question, question_of
from whatstuck.generalization.task import NO_ANSWER, Prompt, Score, Task, Variant
from whatstuck.models.generating import seed_of

logger = logging.getLogger(__name__)

GREEDY = -1
"""Number of the draw that is none."""
CHECK_FAILED = "check_failed"
CHECK_TIMED_OUT = "check_timed_out"
UNCHECKED = frozenset({CHECK_FAILED, CHECK_TIMED_OUT})
"""Outcomes of replies that nothing is known about. They count as neither valid nor right, and are counted."""
DEALS = 16
"""Other items that a reply is dealt to, where there are as many: one alone would make chance a matter of luck."""
_PATIENCE = 3  # other items of a reply that cannot be checked

Record = dict[str, Any]
"""A row of `schemas.REPLIES`."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a task is asked, the same for every variant and every model.

    Attributes:
        items: Items of a variant.
        seed: Of the items, of draws, and of the deal for chance.
        thought: Whether replies hold a thought, and may be longer.
        temperature: Of one more reply to each item, which is drawn; None: only the most likely one.
        episodes: Whole episodes instead of single steps.
        chat_template: `auto` or `never`, as in the training.
        share_prefixes: Compute what prompts begin with in common once; the same up to rounding.
    """

    items: int = 300
    seed: int = 0
    thought: bool = False
    temperature: float | None = None
    episodes: bool = False
    chat_template: str = "auto"
    share_prefixes: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant, ready to be asked.

    Attributes:
        task: The task.
        variant: The variant.
        asking: How it is asked.
        items: Its items.
        keys: Key of the content of each.
        questions: What is asked about each; of episodes, at their first turn.
        unsolvable: Contents that were passed over, since no item could be made of them.
        failures: What checks raised in this process, and how often; see `failures_of`.
    """

    task: Task[Any, Any, Any]
    variant: Variant
    asking: Asking
    items: tuple[Any, ...]
    keys: tuple[str, ...]
    questions: tuple[Question, ...]
    unsolvable: int
    failures: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def prompt(self) -> Prompt[Any]:
        """How items are asked."""
        return prompt_of(self.task, self.variant)

    @property
    def longest(self) -> int:
        """Most tokens of a reply."""
        return self.task.longest_thought if self.asking.thought else self.task.max_new_tokens

    @property
    def old(self) -> InstructionMapping | None:
        """The training's meanings, where the instruction gives others; None where all the same words are valid.

        Labels that swap their words make every reply valid by both: there only Fake tells.
        """
        trained, variant = self.task.training, self.variant
        told = variant.kind in ("instruction", "harder") and set(variant.shown.meanings) != set(trained.meanings)
        return trained if trained.pairs and told else None

    def some(self, count: int) -> "Cell":
        """The same with its first items only."""
        return replace(self, items=self.items[:count], keys=self.keys[:count], questions=self.questions[:count])


def prompt_of(task: Task[Any, Any, Any], variant: Variant) -> Prompt[Any]:
    """How the items of a variant are asked.

    Raises:
        WhatStuckError: If the task has no such wording.
    """
    if variant.wording not in task.prompts:
        raise WhatStuckError(
            f"variant {variant.name} of {task.name} is asked in the wording {variant.wording!r}, which the task has "
            f"not: it has {', '.join(task.prompts)}"
        )
    return task.prompts[variant.wording]


def make_cell(task: Task[Any, Any, Any], variant: Variant, asking: Asking, tokenizer: PreTrainedTokenizerBase) -> Cell:
    """Draw the items of a variant from the test side and render them.

    Args:
        task: The task.
        variant: One of its variants.
        asking: How it is asked.
        tokenizer: The model's.

    Raises:
        WhatStuckError: If no item can be solved under the mappings, or a message cannot be rendered.
    """
    prompt = prompt_of(task, variant)
    drawn = draw_items(task.source, asking.items, split="test", variant=variant, seed=asking.seed)
    questions = tuple(
        question_of(prompt.render(item, variant.shown), prompt.prefill, tokenizer, asking.chat_template)
        for item in drawn.items
    )
    keys = tuple(task.source.key(content) for content in drawn.contents)
    return Cell(task, variant, asking, drawn.items, keys, questions, drawn.unsolvable)


def check_context(cell: Cell, questions: Sequence[Question], positions: int | None) -> None:
    """See that questions fit the context with their replies.

    Args:
        cell: The cell.
        questions: Of the cell, or of a later turn.
        positions: Tokens that the model can read at once; None where it does not say so.

    Raises:
        WhatStuckError: If one does not.
    """
    most = max(len(question.ids) for question in questions)
    if positions is not None and most + cell.longest > positions:
        raise WhatStuckError(
            f"variant {cell.variant.name}: a prompt of {most} tokens and a reply of up to {cell.longest} do not fit "
            f"the model's context of {positions}: leave it out with --variants, or take a model with a longer context"
        )


def read_reply(cell: Cell, item: Any, reply: str) -> tuple[Any, Score]:
    """The answer in a reply, and what it is worth; whatever goes wrong in a parser or scorer is an outcome."""
    try:
        answer = cell.task.parser.parse(reply)
    except Exception as error:  # noqa: BLE001 - as in `worth`
        return None, _unchecked(cell, error)
    return answer, worth(cell, item, answer)


def worth(cell: Cell, item: Any, answer: Any, scored: InstructionMapping | None = None) -> Score:
    """What an answer is worth for an item, by the variant's meanings or by others."""
    if answer is None:
        return NO_ANSWER
    try:
        return cell.task.scorer.score(item, scored or cell.variant.scored, answer)
    except Exception as error:  # noqa: BLE001 - a user's check may raise anything, and must not end the call
        return _unchecked(cell, error)


def _unchecked(cell: Cell, error: Exception) -> Score:
    note_failure(cell, error)
    outcome = CHECK_TIMED_OUT if isinstance(error, TimeoutError) else CHECK_FAILED
    return Score(valid=False, success=False, outcome=outcome)


def obeys_old(cell: Cell, item: Any, answer: Any, score: Score) -> bool | None:
    """Whether an answer is valid by the training's meanings and not by those shown.

    None where that is not asked, or cannot be checked.
    """
    if cell.old is None or score.outcome in UNCHECKED:
        return None
    old = worth(cell, item, answer, cell.old)
    return None if old.outcome in UNCHECKED else old.valid and not score.valid


def chance_of(found: Iterable[bool | None]) -> float | None:
    """The share of other items that a reply is right for, of those that can be checked; None without any.

    They are asked one by one, and no more where some cannot be checked: each may take as long as a check is allowed to.
    """
    known, unknown = [], 0
    for right in found:
        if right is None:
            unknown += 1
        else:
            known.append(right)
        if unknown == _PATIENCE:
            break
    return sum(known) / len(known) if known else None


def note_failure(cell: Cell, error: Exception) -> None:
    """Count what a check raised, by the first line of what it said."""
    logger.debug("variant %s: a check raised %r", cell.variant.name, error)
    said = str(error).splitlines()
    cell.failures[f"{type(error).__name__}: {said[0]}" if said else type(error).__name__] += 1


def failures_of(cell: Cell) -> Counter[str]:
    """What the checks of a cell's task said when they failed, and how often, so far.

    Those that raised here, and those of a worker (`guard.failures` of the scorer), which all cells of a task share.
    Replies that are dealt to other items are checked, too, so there may be more of them than of failed replies.
    """
    guarded = getattr(getattr(cell.task.scorer, "guard", None), "failures", None)
    return cell.failures + Counter(guarded or {})


def dealt(keys: Sequence[str], seed: int) -> list[list[int]]:
    """For each item up to `DEALS` others of other contents: all, where there are no more.

    Args:
        keys: Content of each item.
        seed: Of the deals.

    >>> [sorted(others) for others in dealt(["a", "b", "a", "c"], 0)], dealt(["a", "a"], 0)
    ([[1, 3], [0, 2, 3], [1, 3], [0, 1, 2]], [[], []])
    """
    order = sorted(range(len(keys)), key=lambda i: (seed_of(seed, "deal", keys[i]), keys[i], i))
    partners: list[list[int]] = [[] for _ in keys]
    for place, index in enumerate(order):
        others = [other for other in order[place + 1 :] + order[:place] if keys[other] != keys[index]]
        # of different contents, each item is dealt to as often as any other
        partners[index] = others[:: max(1, len(others) // DEALS)][:DEALS]
    return partners


def warn_of_failures(cell: Cell, records: Sequence[Record]) -> None:
    """Say once per variant how many checks failed."""
    failures = Counter(record["outcome"] for record in records if record["outcome"] in UNCHECKED)
    if failures:
        counts = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in sorted(failures.items()))
        logger.warning("variant %s: of %d replies, %s", cell.variant.name, len(records), counts)
