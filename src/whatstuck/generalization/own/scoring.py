"""When a reply to a user's row is right.

Fixed rules, so that success means the same at every checkpoint. `exact` compares the first line of the reply,
normalized as in `rows` (case, spaces, punctuation around it): the whole line must be the answer, since a model that
was trained to answer does just that. `number` compares the last number of the reply. A pattern's first group (the whole
match where there is none) is compared as in `exact`. A function gets the columns of the row, with the right answer
under `gold`, and the reply.

A reply is valid if it gives an answer, and, where a mapping is scored by one of the first three, if that is one of the
words of that mapping. Of `exact`, a reply that begins with the answer and goes on is called `longer`; it is not right,
since what follows may take the answer back, and where there are words it is none of them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from whatstuck.datasets import Message, Row
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.own.checking import Guard
from whatstuck.generalization.own.rows import OwnRow
from whatstuck.generalization.task import LONGER, NO_ANSWER, Score
from whatstuck.rows.verdicts.answers import find_checker, normalized

Same = Callable[[str, str], bool]

RIGHT = Score(valid=True, success=True, outcome="right")
WRONG = Score(valid=True, success=False, outcome="wrong")
OTHER_WORD = Score(valid=False, success=False, outcome="other_word")

_CONTAINS = find_checker("contains")
_DECIMALS = re.compile(r"[.,]\d")


def same_text(answer: str, gold: str) -> bool:
    """Whether two answers are the same text, normalized."""
    return normalized(answer) == normalized(gold)


def same_number(answer: str, gold: str) -> bool:
    """Whether the last numbers of two texts are equal; False where one has none."""
    return find_checker("number")(_row_of(gold), answer)


def gold_of(row: OwnRow, scored: InstructionMapping) -> str:
    """The right answer to a row under a mapping."""
    return scored[row.label] if scored.pairs else row.label


def first_line(text: str) -> str:
    """The first line that is not blank; empty where all are."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def compare(found: str, right: Sequence[str], words: Sequence[str], same: Same) -> Score:
    """Score an answer against the right one.

    Args:
        found: The answer.
        right: The right one, perhaps in several words.
        words: All answers that are valid; any is where there are none.
        same: Whether two are the same.
    """
    if any(same(found, gold) for gold in right):
        return RIGHT
    return OTHER_WORD if words and not any(same(found, word) for word in words) else WRONG


def contains(text: str, words: str) -> bool:
    """Whether a text holds these words, whole and normalized."""
    return _CONTAINS(_row_of(words), text)


def goes_on(reply: str, answers: Sequence[str]) -> bool:
    """Whether a reply begins with just one of the answers, as whole words, and says more; normalized.

    >>> [goes_on(reply, ["no", "yes"]) for reply in ("Yes, they do", "**No** way", "yes.", "nothing", "I say no")]
    [True, True, False, False, False]
    """
    text = normalized(reply)
    return sum(_begins(text, answer) for answer in {normalized(answer) for answer in answers}) == 1


def _begins(text: str, answer: str) -> bool:
    more = text[len(answer) :] if text.startswith(answer) else ""
    # with the next character, which shows whether the word ends there; 1.5 does not begin with 1
    return bool(more) and not _DECIMALS.match(more) and contains(text[: len(answer) + 1], answer)


def _row_of(gold: str) -> Row:
    return Row("", (Message("user", "?"),), gold, 0, "train")


@dataclass(frozen=True)
class ReplyParser:
    """The reply itself, without the prefill: what to look for in it is the scorer's."""

    prefill: str

    def parse(self, reply: str) -> str | None:
        """The reply; None where it is blank."""
        return reply.removeprefix(self.prefill).strip() or None


@dataclass(frozen=True)
class OwnScorer:
    """Scores by one of our checkers, or by a guarded one of the user's.

    Attributes:
        same: Whether two answers are the same: as text, or as numbers.
        guard: The user's pattern or function; None for our checkers.
        judges: Whether the guard says what is right; otherwise it finds the answer.
        also: For mappings that prompts do not show: another one whose words are right as well.
    """

    same: Same = same_text
    guard: Guard | None = None
    judges: bool = False
    also: Mapping[InstructionMapping, InstructionMapping] = field(default_factory=dict)

    def score(self, item: OwnRow, scored: InstructionMapping, answer: str) -> Score:
        """Score a reply; a check that failed is neither valid nor right."""
        gold = gold_of(item, scored)
        found: str | None = answer
        if self.guard is not None:
            checked = self.guard(self.told(item, gold), answer)
            if checked.failure is not None:
                return Score(valid=False, success=False, outcome=checked.failure)
            if self.judges:
                return RIGHT if checked.found is True else WRONG
            found = checked.found if isinstance(checked.found, str) else None
        elif self.same is same_number:
            found = answer if same_number(answer, answer) else None  # no number equals itself where there is none
        elif "\n" not in gold:
            found = first_line(answer)
        if found is None or not found.strip():
            return NO_ANSWER
        asked = [scored, *([self.also[scored]] if scored in self.also else [])]
        right = [gold_of(item, mapping) for mapping in asked]
        words = [word for mapping in asked for word in mapping.meanings]
        score = compare(found, right, words, self.same)
        exact = self.guard is None and self.same is same_text
        unlike = score is (OTHER_WORD if words else WRONG)
        return replace(score, outcome=LONGER) if exact and unlike and goes_on(found, words or right) else score

    def told(self, item: OwnRow, gold: str) -> dict[str, Any]:
        """What the guard is told of a row."""
        return {**item.columns, "gold": gold} if self.judges else {}
