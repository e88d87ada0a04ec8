"""Sokoban, one step at a time: which way does the worker go next, and by which word is that said?

After arXiv 2510.00237, with rooms, words and prompts of our own. Differences that matter: rooms of the test are in no
training, moved, mirrored or turned (the released evaluation rooms are training rooms); every shortest solution counts
as right, and a reply is one move of one room, without the moves before.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.registry import task
from whatstuck.generalization.task import Task, Variant
from whatstuck.generalization.tasks._answers import AnswerParser
from whatstuck.generalization.tasks.sokoban.asking import (
    SokobanDemonstrator,
    SokobanScorer,
    prompts,
    step,
)
from whatstuck.generalization.tasks.sokoban.making import make_room
from whatstuck.generalization.tasks.sokoban.rooms import MOVES, Room, layout_key
from whatstuck.generalization.tasks.sokoban.solving import solve
from whatstuck.generalization.tasks.sokoban.words import ALPHA, BASE, CARDINAL, EMOJI, NUM, POOL, RAND, words_for

_LONGER = 16  # moves; a larger room, or a second box, has few short solutions


class SokobanSource:
    """Rooms at their start; the shift is what `make_room` takes: size, boxes, shortest, longest.

    Args:
        whole: Whether an item is a room at its start, for whole episodes, rather than one moment of its solution.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole

    def draw(self, rng: random.Random, shift: Mapping[str, Any]) -> Room:
        """A random room."""
        try:
            return make_room(rng, **shift)
        except TypeError as error:
            raise WhatStuckError(f"sokoban: {error}: a shift has size, boxes, shortest, longest") from error

    def key(self, content: Room) -> str:
        """One key for all that happens in a room, mirrored and turned ones included."""
        return layout_key(content)

    def pose(
        self, content: Room, shown: InstructionMapping, scored: InstructionMapping, rng: random.Random
    ) -> Room | None:
        """A moment of the solver's solution, each as likely; None where a right word would be right under both."""
        moments = [content] if self._whole else self.unroll(content)
        item = moments[rng.randrange(len(moments))]
        solution = solve(item)
        if solution is None:
            return None
        right = {shown[move].casefold() for move in solution.best}
        if shown != scored and right & {scored[move].casefold() for move in solution.best}:
            return None
        return item

    def unroll(self, content: Room) -> Sequence[Room]:
        """Every moment of the solver's solution, its start first: a training has one example of each."""
        solution = solve(content)
        moments = [content]
        for move in solution.path[:-1] if solution else ():
            moments.append(moments[-1].moved(move))
        return moments


def random_words(rng: random.Random) -> InstructionMapping:
    """Four different words of the pool."""
    words = " ".join(rng.sample(POOL, len(MOVES)))
    return words_for(words.replace(" ", "-"), words)


@task("sokoban")
def sokoban(*, thought: bool = False, whole: bool = False, extras: bool = False) -> Task[Room, Room, str]:
    """Make the task.

    Args:
        thought: Whether replies begin with the solver's thought: then they are prefilled with `<think>`, else with
            `<answer>`. The user's message is the same.
        whole: Whether items are rooms at their start, for whole episodes.
        extras: Whether to ask in the variants beyond the paper's table, too: other vocabularies (Cardinal, Emoji, and
            their fakes), another wording, no list of words at all, and longer solutions in rooms of the training's
            size.
    """
    variants = [
        Variant("ID", "training", BASE, BASE),
        Variant("Alpha", "instruction", ALPHA, ALPHA),
        Variant("Num", "instruction", NUM, NUM),
        Variant("Rand", "instruction", RAND, RAND),
        Variant("Large", "harder", BASE, BASE, {"size": 10, "longest": _LONGER}),
        Variant("TwoBoxes", "harder", BASE, BASE, {"boxes": 2, "longest": _LONGER}),
        Variant("Complex", "harder", BASE, BASE, {"size": 10, "boxes": 2, "longest": _LONGER}),
        Variant("Fake", "fake", NUM, BASE),
    ]
    if extras:
        variants += [
            Variant("Cardinal", "instruction", CARDINAL, CARDINAL),
            Variant("Emoji", "instruction", EMOJI, EMOJI),
            Variant("Fake-Cardinal", "fake", CARDINAL, BASE),
            Variant("Fake-Emoji", "fake", EMOJI, BASE),
            Variant("Reworded", "wording", BASE, BASE, wording="reworded"),
            Variant("Empty", "wording", BASE, BASE, wording="empty"),
            Variant("Long", "harder", BASE, BASE, {"shortest": 10, "longest": 20}),
        ]
    answer, longest_thought = 24, 136  # enough for a token per byte, as small vocabularies have; replies end before
    return Task(
        name="sokoban",
        source=SokobanSource(whole=whole),
        prompts=prompts(thought=thought),
        parser=AnswerParser(),
        scorer=SokobanScorer(),
        demonstrator=SokobanDemonstrator(),
        variants=tuple(variants),
        training=BASE,
        random_mapping=random_words,
        max_new_tokens=longest_thought if thought else answer,
        longest_thought=longest_thought,
        step=step,
    )
