"""General Points for models of a million parameters: three cards, plus and minus, and a target for each hand.

`J= 10 Q= 10 K= 10 T= 3 : 3 K J ->` asks for `3 10 10 : 3 + 10 - 10`: what each card counts as, then a formula. A model
that is trained from nothing learns it within minutes on one core, so what frozen prompts do can be watched there.
Products are left out: a million parameters did not learn to search through them in the same time (dev/LOG.md).

With a thought the reply holds the whole search: `3 10 10 : 23 3 3 - 17 : 3 + 10 - 10`, the value of every choice of
signs, in a fixed order, before the formula.

Hands of the test are in no training, but their numbers are: under the training's mapping 10, J, Q and K count alike. A
frozen training of 20,000 rows holds numbers and target of 274 of 300 items of ID, 274 of *Fake* and 165 of All-5, and
of none of All-12, Regular, Large and Four. So success there may be a formula known by heart; that the numbers are those
of the instruction cannot.
"""

import itertools
import operator
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.registry import task
from whatstuck.generalization.task import Score, Task, Variant

FACES = ("J", "Q", "K")
LARGEST_TARGET = 99
_RANKS = 10  # numbered cards: 1 to 10
_FORMULA = re.compile(r":\s*(\d+(?:\s*[-+]\s*\d+)*)\s*$")
_TERM = re.compile(r"([-+]?)\s*(\d+)")

Cards = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hand:
    """Cards in the order in which they are shown, and the number to reach."""

    cards: Cards
    target: int


@dataclass(frozen=True, slots=True)
class Sum:
    """A formula: its numbers in order, each with its sign; the first one is positive."""

    numbers: tuple[int, ...]
    signs: tuple[int, ...]


def values_of(cards: Cards, mapping: InstructionMapping) -> tuple[int, ...]:
    """What the cards count as."""
    return tuple(int(mapping[card]) if card in FACES else int(card) for card in cards)


def every_sum(numbers: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """The value of every choice of signs for numbers in that order, plus before minus; the first one stays positive."""
    choices = [(1, *rest) for rest in itertools.product((1, -1), repeat=len(numbers) - 1)]
    return [(sum(map(operator.mul, signs, numbers)), signs) for signs in choices]


def sums(numbers: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """Every target that can be reached with numbers in that order, with the first signs that do."""
    found: dict[int, tuple[int, ...]] = {}
    for value, signs in every_sum(numbers):
        if 0 <= value <= LARGEST_TARGET:
            found.setdefault(value, signs)
    return found


class Hands:
    """Where hands come from.

    Shifts: `cards`, their number; `largest`, the highest number on a card, one of which is then above 10; `face`,
    whether at least one card is a face card; `too`, what J, Q and K count as in another mapping under which the hand
    must have a target in common with the training's.
    """

    def draw(self, rng: random.Random, shift: Mapping[str, Any]) -> Cards:
        """One hand."""
        largest = int(shift.get("largest", _RANKS))
        deck = [*(str(number) for number in range(1, largest + 1)), *FACES]
        while True:
            cards = tuple(rng.choice(deck) for _ in range(int(shift.get("cards", 3))))
            face = any(card in FACES for card in cards)
            large = any(card not in FACES and int(card) > _RANKS for card in cards)
            if (face or not shift.get("face")) and (large or largest <= _RANKS) and _common(cards, shift.get("too")):
                return cards

    def key(self, content: Cards) -> str:
        """The same for every order of the cards."""
        return " ".join(sorted(content))

    def pose(
        self, content: Cards, shown: InstructionMapping, scored: InstructionMapping, rng: random.Random
    ) -> Hand | None:
        """A target that can be reached under the scored mapping; where the shown one differs, so do the numbers.

        A target that can be reached under both is taken where there is one. By sums that is seldom so (33 of 131 test
        hands with 5, 5, 5, and 78 with 8, 8, 8), so it is not asked for: a hand of Fake may have no answer under the
        shown mapping; a hand of Fake-8 has one.
        """
        numbers, others = values_of(content, scored), values_of(content, shown)
        if not sums(numbers) or (shown != scored and sorted(numbers) == sorted(others)):
            return None
        targets = set(sums(numbers)) & set(sums(others)) or set(sums(numbers))
        # of one order for all mappings: the same random state chooses the same target wherever it can be reached
        wished = rng.sample(range(LARGEST_TARGET + 1), LARGEST_TARGET + 1)
        return Hand(content, next(target for target in wished if target in targets))


def _common(cards: Cards, too: Sequence[int] | None) -> bool:
    """Whether a target can be reached under the training's mapping and under another one."""
    return too is None or bool(set(sums(values_of(cards, TRAINING))) & set(sums(values_of(cards, faces("too", *too)))))


@dataclass(frozen=True, slots=True)
class MicroPrompt:
    """How a hand is asked."""

    prefill: str = ""

    def render(self, item: Hand, shown: InstructionMapping) -> str:
        """One line."""
        meanings = " ".join(f"{name}= {meaning}" for name, meaning in shown.pairs)
        return f"{meanings} T= {item.target} : {' '.join(item.cards)} ->"


class SumParser:
    """Reads what stands behind the colon."""

    def parse(self, reply: str) -> Sum | None:
        """The formula; None where there is none.

        >>> SumParser().parse("3 10 10 : 3 + 10 - 10")
        Sum(numbers=(3, 10, 10), signs=(1, 1, -1))
        """
        found = _FORMULA.search(reply)
        if found is None:
            return None
        terms = _TERM.findall(found[1])
        return Sum(tuple(int(number) for _, number in terms), tuple(-1 if sign == "-" else 1 for sign, _ in terms))


class SumScorer:
    """The numbers must be those of the cards, each used once, and the value the target."""

    def score(self, item: Hand, scored: InstructionMapping, answer: Sum) -> Score:
        """Score a formula; valid is one of the right numbers."""
        if sorted(answer.numbers) != sorted(values_of(item.cards, scored)):
            return Score(valid=False, success=False, outcome="wrong_numbers")
        value = sum(sign * number for sign, number in zip(answer.signs, answer.numbers, strict=True))
        right = value == item.target
        return Score(valid=True, success=right, outcome="right" if right else "wrong_value")


class SumDemonstrator:
    """Writes the cards' numbers, with a thought all sums, and the first formula that reaches the target."""

    def reply(self, item: Hand, shown: InstructionMapping, *, thought: bool) -> str:
        """The reply."""
        numbers = values_of(item.cards, shown)
        searched = " ".join(str(value).replace("-", "- ") for value, _ in every_sum(numbers))
        signs = sums(numbers)[item.target]
        formula = "".join(
            f" {'+' if sign > 0 else '-'} {number}" for sign, number in zip(signs[1:], numbers[1:], strict=True)
        )
        return f"{' '.join(map(str, numbers))} : {f'{searched} : ' if thought else ''}{numbers[0]}{formula}"


def faces(name: str, j: int, q: int, k: int) -> InstructionMapping:
    """A mapping of the face cards."""
    return InstructionMapping(name, tuple(zip(FACES, (str(j), str(q), str(k)), strict=True)))


TRAINING = faces("all_10", 10, 10, 10)
_FIVES, _SEVENS, _MIXED = faces("all_5", 5, 5, 5), faces("all_7", 7, 7, 7), faces("6_9_7", 6, 9, 7)
_TWELVES, _REGULAR = faces("all_12", 12, 12, 12), faces("11_12_13", 11, 12, 13)
PAPERS = (  # seven different ones, of which one counts twice
    faces("all_8", 8, 8, 8),
    faces("all_9", 9, 9, 9),
    TRAINING,
    faces("8_9_10", 8, 9, 10),
    faces("7_8_9", 7, 8, 9),
    faces("8_9_10", 8, 9, 10),
    faces("5_7_9", 5, 7, 9),
    faces("6_8_10", 6, 8, 10),
)


def random_faces(rng: random.Random) -> InstructionMapping:
    """Each face card counts 1 to 10; not all the same, and not the held-out 6, 9, 7."""
    while True:
        values = tuple(rng.randint(1, 10) for _ in FACES)
        if len(set(values)) > 1 and values != (6, 9, 7):
            return faces("_".join(map(str, values)), *values)


@task("micro-points")
def micro_points(*, thought: bool = False) -> Task[Cards, Hand, Sum]:
    """The task; instruction variants are within the range that a diverse training sees, harder ones are not.

    Args:
        thought: Whether replies hold the search; hands are asked alike.
    """
    del thought
    face = {"face": True}
    return Task(
        name="micro-points",
        source=Hands(),
        prompts={"training": MicroPrompt()},
        parser=SumParser(),
        scorer=SumScorer(),
        demonstrator=SumDemonstrator(),
        variants=(
            Variant("ID", "training", TRAINING, TRAINING, face),
            Variant("All-5", "instruction", _FIVES, _FIVES, face),
            Variant("All-7", "instruction", _SEVENS, _SEVENS, face),
            Variant("6-9-7", "instruction", _MIXED, _MIXED, face),
            Variant("All-12", "harder", _TWELVES, _TWELVES, face),
            Variant("Regular", "harder", _REGULAR, _REGULAR, face),
            Variant("Large", "harder", TRAINING, TRAINING, face | {"largest": 19}),
            Variant("Four", "harder", TRAINING, TRAINING, face | {"cards": 4}),
            Variant("Fake", "fake", _FIVES, TRAINING, face),
            Variant("Fake-8", "fake", faces("all_8", 8, 8, 8), TRAINING, face | {"too": [8, 8, 8]}),
        ),
        training=TRAINING,
        mappings=PAPERS,
        random_mapping=random_faces,
        max_new_tokens=14,
        longest_thought=32,
    )
