"""General Points: a formula of all cards that makes 24, where an instruction says what J, Q and K count as.

After arXiv 2501.17161 and 2510.00237, with prompts of our own. Differences that matter: hands of the test are in no
training (of the authors' test hands, 99.8 % are), and a mapping that is not uniform is held out, too: a uniform one can
be met by copying the one number that the instruction names. That holds for cards, not for the numbers that they count
as (`HandSource`).
"""

import random

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.registry import task
from whatstuck.generalization.task import Task, Variant
from whatstuck.generalization.tasks.general_points.asking import (
    PointsAnswer,
    PointsDemonstrator,
    PointsParser,
    PointsScorer,
    prompts,
)
from whatstuck.generalization.tasks.general_points.hands import FACES, Hand, HandSource, Target
from whatstuck.generalization.tasks.general_points.solving import OPERATORS


def faces(j: int, q: int, k: int) -> InstructionMapping:
    """What J, Q and K count as; called `all_5`, or `6_9_7`.

    >>> faces(5, 5, 5).name, faces(6, 9, 7).name
    ('all_5', '6_9_7')
    """
    name = f"all_{j}" if j == q == k else f"{j}_{q}_{k}"
    return InstructionMapping(name, tuple(zip(FACES.values(), (str(j), str(q), str(k)), strict=True)))


ALL_10 = faces(10, 10, 10)
ALL_5 = faces(5, 5, 5)
ALL_7 = faces(7, 7, 7)
MIXED = faces(6, 9, 7)
ALL_12 = faces(12, 12, 12)
REGULAR = faces(11, 12, 13)
PAPERS = (
    *(faces(8, 8, 8), faces(9, 9, 9), ALL_10, faces(8, 9, 10)),
    *(faces(7, 8, 9), faces(8, 9, 10), faces(5, 7, 9), faces(6, 8, 10)),
)
"""Those of the paper's diverse arm; 8, 9, 10 is twice among them."""

_ONE_MORE = {2: "Three", 3: "Four", 4: "Five"}
_HIGHEST = 10  # the mapped values of a training; 11 to 13 stay out of range


def random_faces(rng: random.Random) -> InstructionMapping:
    """Each face counts as 1 to 10; never all the same, and never the held-out 6, 9, 7."""
    while True:
        found = faces(*(rng.randint(1, _HIGHEST) for _ in FACES))
        if len(set(found.meanings)) > 1 and found != MIXED:
            return found


@task("general-points")
def general_points(
    *,
    cards: int = 4,
    target: Target = 24,
    operators: str = OPERATORS,
    thought: bool = False,
    extras: bool = False,
) -> Task[tuple[int, ...], Hand, PointsAnswer]:
    """Make the task.

    Args:
        cards: Cards of a hand, 2 to 4. Of three, only 101 hands make 24: take a variable target then; two need one.
        target: A whole number, or `variable`: drawn for each hand among those that it makes, 1 to 99.
        operators: Those that formulas may use.
        thought: Whether replies begin with the solver's thought: then they are prefilled with `<think>`, else with the
            first key of the JSON. The user's message is the same.
        extras: Whether to ask in another wording, too.
    """
    if type(cards) is not int or cards not in _ONE_MORE:
        raise WhatStuckError(f"general-points is played with {min(_ONE_MORE)} to {max(_ONE_MORE)} cards, not {cards}")
    if cards == min(_ONE_MORE) and target != "variable":
        raise WhatStuckError(f"hardly any hand of {cards} cards makes {target!r}: give target=variable, too")
    if not isinstance(operators, str) or not operators or set(operators) - set(OPERATORS):
        raise WhatStuckError(f"operators {operators!r}: give some of {OPERATORS} as one text, such as +-")
    face = {"face": True}
    variants = [
        Variant("ID", "training", ALL_10, ALL_10, face),
        Variant("All-5", "instruction", ALL_5, ALL_5, face),
        Variant("All-7", "instruction", ALL_7, ALL_7, face),
        Variant("6-9-7", "instruction", MIXED, MIXED, face),
        Variant("All-12", "harder", ALL_12, ALL_12, face),
        Variant("Regular", "harder", REGULAR, REGULAR, face),
        Variant("Large", "harder", ALL_10, ALL_10, {"ranks": 19}),
        Variant(_ONE_MORE[cards], "harder", ALL_10, ALL_10, {"cards": cards + 1}),
        Variant("Fake", "fake", ALL_5, ALL_10, face),
        Variant("Fake-Regular", "fake", REGULAR, ALL_10, face),
    ]
    if extras:
        variants.append(Variant("Reworded", "wording", ALL_10, ALL_10, face, wording="reworded"))
    answer, longest_thought = 96, 224
    return Task(
        name="general-points",
        source=HandSource(cards=cards, target=target, operators=operators),
        prompts=prompts(thought=thought),
        parser=PointsParser(),
        scorer=PointsScorer(),
        demonstrator=PointsDemonstrator(operators),
        variants=tuple(variants),
        training=ALL_10,
        mappings=PAPERS,
        random_mapping=random_faces,
        max_new_tokens=longest_thought if thought else answer,
        longest_thought=longest_thought,
    )
