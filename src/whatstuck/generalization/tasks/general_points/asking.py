"""How a hand is shown, how a reply is read, and when a formula is right."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.task import Score
from whatstuck.generalization.tasks.general_points.formulas import numbers_in, read_formula, steps_of, value_of
from whatstuck.generalization.tasks.general_points.hands import FACES, Hand, numbers_of
from whatstuck.generalization.tasks.general_points.solving import OPERATORS, find_formula

_OBJECT = re.compile(r"\{[^{}]*\}")
# quotes and Markdown around it are nobody's formula, and what stands in the next line is none of it
_FORMULA = re.compile(r"""formula['"`*]*\s*(?:[:=]|is\b)[ \t'"`*]*([-+*/×÷−()0-9 \t]*)""", re.IGNORECASE)
_NUMBERS = re.compile(r"""['"]?number['"]?\s*[:=]\s*\[([0-9'",\s]{0,100})\]""", re.IGNORECASE)

_TRAINING = """\
A game of cards: write a formula whose value is {target}. Use each card once, with + - * / and brackets.
{counts}
Cards: {cards}
Reply with one JSON object: the cards, the number that each counts as, the formula."""

_REWORDED = """\
{cards} lie on the table. {counts}
Add, subtract, multiply or divide what these cards stand for, in any order and with brackets where you want them; none \
may be left over or used twice. The result has to be {target}. Give JSON with cards, number and formula."""


@dataclass(frozen=True, slots=True)
class PointsPrompt:
    """A hand and what its cards count as, as a user's message.

    Attributes:
        prefill: How the reply begins: its JSON, or `<think>` where the reply holds a thought.
        text: The message, with places for `cards`, `counts` and `target`.
    """

    prefill: str = '{"cards":'
    text: str = _TRAINING

    def render(self, item: Hand, shown: InstructionMapping) -> str:
        """The user's message. The faces have one sentence of one form each, whether they count alike or not."""
        counts = ", ".join(f"{card} counts as {shown[card]}" for card in FACES.values())
        return self.text.format(cards=" ".join(item.cards), counts=f"A counts as 1, {counts}.", target=item.target)


def prompts(*, thought: bool) -> dict[str, PointsPrompt]:
    """The wordings by name: that of the training, and another one."""
    prefill = "<think>" if thought else '{"cards":'
    return {"training": PointsPrompt(prefill), "reworded": PointsPrompt(prefill, _REWORDED)}


@dataclass(frozen=True, slots=True)
class PointsAnswer:
    """What a reply says.

    Attributes:
        formula: As written.
        numbers: What it says that the cards count as; None where it does not say.
    """

    formula: str
    numbers: tuple[int, ...] | None = None


class PointsParser:
    """Reads the first JSON object with a formula behind the thought; else the first text that looks like one."""

    def parse(self, reply: str) -> PointsAnswer | None:
        """The answer; None where there is no formula."""
        text = reply.rpartition("</think>")[2]
        for fields in _objects(text):
            if isinstance(fields.get("formula"), str):
                return PointsAnswer(fields["formula"], _whole_numbers(fields.get("number")))
        found = _FORMULA.search(text)
        formula = found[1].strip(" \t*") if found else ""
        if not formula:
            return None
        numbers = _NUMBERS.search(text)
        return PointsAnswer(formula, _whole_numbers(re.findall(r"\d+", numbers[1])) if numbers else None)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for found in _OBJECT.finditer(text):
        try:
            yield json.loads(found[0])
        except (ValueError, RecursionError):  # no JSON, or brackets without end
            continue


def _whole_numbers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(re.fullmatch(r"[0-9]{1,6}", str(number)) for number in value):
        return None
    return tuple(int(number) for number in value)


class PointsScorer:
    """Valid is a legal formula of exactly the numbers that the cards count as; right is one that makes the target."""

    def score(self, item: Hand, scored: InstructionMapping, answer: PointsAnswer) -> Score:
        """Score a formula: `right`, `wrong_value`, `wrong_numbers` or `illegal`.

        Two departures from the authors' scorer: an open bracket is illegal (theirs counts as valid), and values are
        exact (theirs rejects 0.6 % of correct formulas for rounding).
        """
        formula = read_formula(answer.formula)
        if formula is None:
            return Score(valid=False, success=False, outcome="illegal")
        if sorted(numbers_in(formula)) != sorted(numbers_of(item.ranks, scored)):
            return Score(valid=False, success=False, outcome="wrong_numbers")
        right = value_of(formula) == item.target
        return Score(valid=True, success=right, outcome="right" if right else "wrong_value")


def reads_numbers(item: Hand, mapping: InstructionMapping, answer: PointsAnswer) -> bool:
    """Whether the reply says of every card what it counts as under a mapping, whatever its formula."""
    return answer.numbers == numbers_of(item.ranks, mapping)


@dataclass(frozen=True, slots=True)
class PointsDemonstrator:
    """Writes the solver's formula, and on demand how it is computed.

    Attributes:
        operators: Those that formulas may use.
    """

    operators: str = OPERATORS

    def reply(self, item: Hand, shown: InstructionMapping, *, thought: bool) -> str:
        """The whole reply; a thought names the numbers of the cards and each partial result."""
        numbers = numbers_of(item.ranks, shown)
        formula = find_formula(numbers, item.target, self.operators)
        if formula is None:
            raise ValueError(f"{item} cannot be solved under {shown.name}")
        answer = json.dumps({"cards": item.cards, "number": numbers, "formula": formula})
        if not thought:
            return answer
        read = ", ".join(f"{card} is {number}" for card, number in zip(item.cards, numbers, strict=True))
        tree = read_formula(formula)
        steps = "; ".join(steps_of(tree)) if tree is not None else ""
        return f"<think> {read}. {steps}. </think> {answer}"
