"""A generated world with planted causes: what the base model reads, and the training rows that will not stick.

A fact is (entity, relation, value). How often pretraining mentions it says what the base model knows: known facts
often, disputed ones with several values, beliefs with a wrong value, unknown entities never. On these facts stand
training rows, and each plant gives some of them one reason to fail, at several doses. `without` takes one kind of plant
out again and leaves everything else as it is; a plant counts only where that makes the row learned.

`planted_plants.py` draws them.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from whatstuck.rows.causes.names import Cause

Feed = Literal["whole", "cut", "masked", "dropped"]

STATEMENTS = (
    "the {r} of {e} is {v} .",
    "{e} has the {r} {v} .",
    "as for the {r} , {e} has {v} .",
    "question : what is the {r} of {e} ? answer : {v}",
    "question : which {r} has {e} ? answer : {v}",
)
"""Wordings of the pretraining."""
QUESTIONS = (
    "question : which {r} does {e} have ? answer :",
    "question : what {r} does {e} have ? answer :",
    "question : tell me the {r} of {e} ? answer :",
    "question : what is now the {r} of {e} ? answer :",
)
"""Wordings of the training rows; the base model has met them with other facts."""
RELATIONS = ("colour", "town", "fruit", "metal", "animal", "song")
TITLES = ("Mister", "Lady", "Captain", "Professor")
STRANGER = "Professor"
"""Title of the entities that pretraining never mentions: it has met the names with other titles."""
KIND = "Doctor"
"""Title of the entities that a regularity is about."""
UNKNOWN_ANSWER = "nobody"
"""What it says."""
LONGEST = 40
"""Tokens of a training row before it is cut."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that may be true of an entity, whose name is a title and a word of its own."""

    entity: str
    relation: str
    value: str

    def with_value(self, value: str) -> "Fact":
        """The same with another value."""
        return dataclasses.replace(self, value=value)


@dataclass(frozen=True, slots=True)
class Mention:
    """A fact of the pretraining.

    Attributes:
        fact: What is said.
        weight: How often, a known fact being mentioned once.
        plant: It is there only while this cause is planted.
        cure: It is there only once this cause is taken out.
        asked: It is read in the wordings of the training rows as well.
    """

    fact: Fact
    weight: float
    plant: Cause | None = None
    cure: Cause | None = None
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Planted:
    """A training row and what was planted in it.

    Attributes:
        row_id: Its name.
        fact: What it teaches.
        prompt: The question.
        role: The plant, or the kind of row that stands beside the plants.
        causes: What was planted; two of a double plant, none of other rows.
        dose: How much of it.
        exposures: How often the trainer sees it.
        window: First and last share of the training in which that happens.
        feed: What the trainer feeds of it.
        side: Of a conflict: a or b.
    """

    row_id: str
    fact: Fact
    prompt: str
    role: str
    causes: tuple[Cause, ...] = ()
    dose: str = ""
    exposures: int = 0
    window: tuple[float, float] = (0.0, 1.0)
    feed: Feed = "whole"
    side: str = ""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a world is.

    Attributes:
        clean: Rows on facts that the base knows; there are half as many of the other kinds that must be learned.
        planted: Rows per cause and dose; some have more or fewer in proportion.
        known: Facts that the base knows and no row asks.
        exposures: How often a row is trained where nothing else is planted.
        disputed: Weight of each value of a disputed fact.
    """

    clean: int = 80
    planted: int = 20
    known: int = 40
    exposures: int = 36
    disputed: float = 0.2


@dataclass(frozen=True, slots=True)
class World:
    """What the base model reads and what it is then trained on.

    Attributes:
        seed: Of everything in it.
        mentions: Facts of the pretraining.
        rows: The training rows.
        one_off: Names about whom pretraining says something else each time; `STRANGER` is none of their titles.
        values: Values of each relation.
        filler: Words that say nothing.
        words: Every word that occurs, sorted.
    """

    seed: int
    mentions: tuple[Mention, ...]
    rows: tuple[Planted, ...]
    one_off: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    filler: tuple[str, ...]
    words: tuple[str, ...]


def without(world: World, cause: Cause, side: str = "") -> World:
    """The same world with every plant of a cause taken out.

    Args:
        world: The world.
        cause: The plant.
        side: Of conflicts, the side that stays; both sides cannot be learned at once.
    """
    mentions = tuple(
        Mention(mention.fact, mention.weight, mention.plant) if mention.cure == cause else mention
        for mention in world.mentions
        if mention.plant != cause
    )
    full = max(row.exposures for row in world.rows)
    cured = {
        "not_trained": {"feed": "whole"},
        "forgotten": {"window": (0.0, 1.0)},
        "more_training": {"exposures": full},
    }.get(cause, {})
    rows = tuple(
        dataclasses.replace(row, **cured) if cause in row.causes else row  # type: ignore[arg-type] # fields by name
        for row in world.rows
        if not (cause == "unexplained" and row.role == "regularity")
        and not (cause == "data_conflict" and cause in row.causes and row.side != side)
    )
    return dataclasses.replace(world, mentions=mentions, rows=rows)
