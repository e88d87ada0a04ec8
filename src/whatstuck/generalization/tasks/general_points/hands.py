"""Hands of cards, what they count as, and where they come from."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.tasks.general_points.solving import OPERATORS, find_formula, whole_values

FACES = {11: "J", 12: "Q", 13: "K"}
_RANKS = 13  # ranks of a deck; higher ones are printed as numbers
_SHIFTS = ("cards", "face", "ranks")
_CARDS = range(2, 6)  # one card is no formula, and six take minutes

Target = int | Literal["variable"]


@dataclass(frozen=True, slots=True)
class Hand:
    """Cards in the order in which they are shown, and the value that they are to make.

    Attributes:
        ranks: 1 is an ace, 11 to 13 are J, Q and K.
        target: The value.
    """

    ranks: tuple[int, ...]
    target: int

    @property
    def cards(self) -> tuple[str, ...]:
        """The cards as they are printed."""
        return tuple(card_of(rank) for rank in self.ranks)


def card_of(rank: int) -> str:
    """What a card is called: `A`, `2` to `10`, `J`, `Q`, `K`, and from 14 on a number."""
    return "A" if rank == 1 else FACES.get(rank, str(rank))


def numbers_of(ranks: tuple[int, ...], mapping: InstructionMapping) -> tuple[int, ...]:
    """What cards count as, in their order; a mapping gives J, Q and K a number."""
    return tuple(int(mapping[FACES[rank]]) if rank in FACES else rank for rank in ranks)


class HandSource:
    """Hands as ranks; the same cards in any order are the same content.

    The same cards, not the same numbers: under the training's mapping 10, J, Q and K count alike, so most test hands
    have the numbers and the target of some training hand. A frozen training of 4,000 rows holds those of 281 of 300
    items of ID, 282 of *Fake* and 161 of All-5, and none of All-12, Regular, Large and Five. A formula may thus be
    known by heart; what its numbers are has to be read from the prompt all the same.

    Shifts: `cards` (how many), `face` (whether at least one is J, Q or K), `ranks` (the highest rank; above 13, at
    least one card is above 13).

    Args:
        cards: How many where the shift says nothing.
        target: A number, or `variable`: one that the hand can make, drawn for each item.
        operators: Those that formulas may use.
        targets: From which variable targets are drawn.
    """

    def __init__(
        self,
        *,
        cards: int = 4,
        target: Target = 24,
        operators: str = OPERATORS,
        targets: range = range(1, 100),
    ) -> None:
        if target != "variable" and type(target) is not int:
            raise WhatStuckError(f"unknown target {target!r}: use a whole number, or variable")
        self._cards = cards
        self._target = target
        self._operators = operators
        self._targets = targets

    def draw(self, rng: random.Random, shift: Mapping[str, Any]) -> tuple[int, ...]:
        """Ranks with replacement, in random order."""
        unknown = sorted(set(shift) - set(_SHIFTS))
        if unknown:
            raise WhatStuckError(f"unknown shift {unknown[0]!r} of general-points: use {', '.join(_SHIFTS)}")
        highest = int(shift.get("ranks", _RANKS))
        cards = int(shift.get("cards", self._cards))
        if cards not in _CARDS:
            raise WhatStuckError(f"a hand has {_CARDS[0]} to {_CARDS[-1]} cards, not {cards}")
        ranks = [rng.randint(1, highest) for _ in range(cards)]
        if shift.get("face"):
            ranks[-1] = rng.choice(sorted(FACES))
        if highest > _RANKS:
            ranks[0] = rng.randint(_RANKS + 1, highest)
        rng.shuffle(ranks)
        return tuple(ranks)

    def key(self, content: tuple[int, ...]) -> str:
        """The sorted ranks."""
        return " ".join(map(str, sorted(content)))

    def pose(
        self,
        content: tuple[int, ...],
        shown: InstructionMapping,
        scored: InstructionMapping,
        rng: random.Random,
    ) -> Hand | None:
        """The hand with a target that it makes under both mappings; None where there is none.

        Where the mappings differ, so must the numbers: a formula has to use exactly those, so none is right under both.
        """
        numbers = [numbers_of(content, mapping) for mapping in dict.fromkeys((shown, scored))]
        if len({tuple(sorted(found)) for found in numbers}) < len(numbers):
            return None
        if self._target != "variable":
            target = self._target
            solvable = all(find_formula(found, target, self._operators) for found in numbers)
            return Hand(content, target) if solvable else None
        common = frozenset(self._targets).intersection(*(whole_values(found, self._operators) for found in numbers))
        # of one order for all mappings: the same random state chooses the same target wherever it can be reached
        wished = rng.sample(self._targets, len(self._targets))
        return next((Hand(content, target) for target in wished if target in common), None)
