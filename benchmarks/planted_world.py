"""A generated world with planted causes: what the base model reads, and the training rows that will not stick.

A fact is (entity, relation, value). How often pretraining mentions it says what the base model knows: known facts often,
faint ones rarely, beliefs with a wrong value, unknown entities never. On these facts stand training rows, and each
plant gives some of them one reason to fail: a cut answer, an opposing row, a block that is long past, a belief, an
unknown entity, few exposures, or something outside of the taxonomy (a regularity in the other rows that overrules a
fact the base knows). `without` takes one kind of plant out again and leaves everything else as it is; a plant counts
only where that makes the row learned.

Every planted row has an entity of its own, or shares it with the rows that it is meant to conflict or agree with.
"""

import dataclasses
import random
from collections.abc import Iterator, Sequence
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
"""Wordings of the training rows."""
RELATIONS = ("colour", "town", "fruit", "metal", "animal", "song")
TITLES = ("Mister", "Lady", "Captain")
KIND = "Doctor"
UNKNOWN_ANSWER = "nobody"
LONGEST = 40
"""Tokens of a training row before it is cut."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that may be true of an entity, whose name is two words."""

    entity: str
    relation: str
    value: str


@dataclass(frozen=True, slots=True)
class Mention:
    """A fact of the pretraining.

    Attributes:
        fact: What is said.
        weight: How often, a known fact being mentioned once.
        plant: It is there only while this cause is planted.
        cure: It is there only once this cause is taken out.
    """

    fact: Fact
    weight: float
    plant: Cause | None = None
    cure: Cause | None = None


@dataclass(frozen=True, slots=True)
class Planted:
    """A training row and what was planted in it.

    Attributes:
        row_id: Its name.
        fact: What it teaches.
        prompt: The question, ending in `answer :`.
        role: What it is for: the plant, or the kind of clean row.
        causes: What was planted; none for a clean row, two for a double plant.
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
    """How large the world is, and how strong the plants are.

    Attributes:
        known: Facts that the base knows and no row asks.
        clean: Rows on facts that the base knows.
        planted: Rows per cause and dose.
        faint: How often a faint fact is mentioned, known ones being mentioned once.
        exposures: Of a row, where nothing else is planted.
    """

    known: int = 20
    clean: int = 60
    planted: int = 30
    faint: float = 0.15
    exposures: int = 30


@dataclass(frozen=True, slots=True)
class World:
    """What the base model reads and what it is then trained on.

    Attributes:
        seed: Of everything in it.
        mentions: Facts of the pretraining.
        rows: The training rows.
        one_off: Names about whom pretraining says something else each time.
        values: Values of each relation.
        filler: Words of sentences that say nothing.
    """

    seed: int
    mentions: tuple[Mention, ...]
    rows: tuple[Planted, ...]
    one_off: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    filler: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that occurs, sorted."""
        frames = [text.format(r="", e="", v="") for text in (*STATEMENTS, *QUESTIONS)]
        frames.append(" ".join((*RELATIONS, UNKNOWN_ANSWER, *self.filler, *self.one_off, *TITLES, KIND)))
        frames += [row.fact.entity + " " + row.fact.value for row in self.rows] + [m.fact.entity for m in self.mentions]
        frames += [" ".join(values) for values in self.values.values()]
        return tuple(sorted({word for frame in frames for word in frame.split()}))


class _Maker:
    """Draws entities, values and wordings, each entity once."""

    def __init__(self, seed: int, sizes: Sizes) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a generated world, no secret
        self.sizes = sizes
        words = self._new_words()
        self.words = words
        self.one_off = tuple(next(words).capitalize() for _ in range(60))
        self.values = {relation: tuple(next(words) for _ in range(16)) for relation in RELATIONS}
        self.unheard = {relation: tuple(next(words) for _ in range(4)) for relation in RELATIONS}
        self.filler = tuple(next(words) for _ in range(24))
        self.mentions: list[Mention] = []
        self.rows: list[Planted] = []

    def _new_words(self) -> Iterator[str]:
        taken: set[str] = set()
        while True:
            length = self.random.choice((2, 3))
            word = "".join(self.random.choice("bdfgklmnprstvz") + self.random.choice("aeiou") for _ in range(length))
            if word not in taken:
                taken.add(word)
                yield word

    def fact(self, title: str = "") -> Fact:
        """A fact of an entity that has no other."""
        entity = f"{title or self.random.choice(TITLES)} {next(self.words).capitalize()}"
        relation = self.random.choice(RELATIONS)
        return Fact(entity, relation, self.random.choice(self.values[relation]))

    def other(self, fact: Fact) -> Fact:
        """The same with another value."""
        others = [value for value in self.values[fact.relation] if value != fact.value]
        return dataclasses.replace(fact, value=self.random.choice(others))

    def mention(self, fact: Fact, weight: float, *, plant: Cause | None = None, cure: Cause | None = None) -> None:
        """Let the base model read it."""
        self.mentions.append(Mention(fact, weight, plant, cure))

    def question(self, fact: Fact, wording: int | None = None) -> str:
        """A prompt that asks for it, in a wording of the training."""
        wording = self.random.randrange(len(QUESTIONS)) if wording is None else wording
        return QUESTIONS[wording].format(r=fact.relation, e=fact.entity)

    def long(self, prompt: str, words: int) -> str:
        """The prompt behind words that say nothing."""
        return " ".join([*(self.random.choice(self.filler) for _ in range(words - 1)), ".", prompt])

    def row(self, fact: Fact, role: str, **planted: object) -> None:
        """Add a row; what is not given is as in a clean one."""
        prompt = planted.pop("prompt", None) or self.question(fact)
        settings = {"exposures": self.sizes.exposures} | planted
        name = f"{role}-{len(self.rows):04d}"
        self.rows.append(Planted(name, fact, str(prompt), role, **settings))  # type: ignore[arg-type] # by name


def make_world(seed: int, sizes: Sizes | None = None) -> World:
    """A fresh world: entities, facts, training rows and plants."""
    make = _Maker(seed, sizes or Sizes())
    for _ in range(make.sizes.known):
        make.mention(make.fact(), 1.0)
    _clean(make)
    _not_trained(make)
    _data_conflict(make)
    _forgotten(make)
    _base_conflict(make)
    _knowledge_missing(make)
    _more_training(make)
    _unexplained(make)
    return World(seed, tuple(make.mentions), tuple(make.rows), make.one_off, make.values, make.filler)


def _faint(make):
    fact = make.fact()
    others = [v for v in make.values[fact.relation] if v != fact.value]
    for value in [fact.value, *make.random.sample(others, 2)]:
        make.mention(dataclasses.replace(fact, value=value), make.sizes.faint)
    return fact


def _known(make, **k):
    fact = make.fact(**k)
    make.mention(fact, 1.0)
    return fact


def _clean(make):
    for _ in range(make.sizes.clean):
        make.row(_known(make), "clean")
    for _ in range(make.sizes.clean // 2):
        make.row(_faint(make), "faint")
    for _ in range(make.sizes.clean // 2):
        fact = _known(make)
        make.row(fact, "long", prompt=make.long(make.question(fact), 22))
    for _ in range(make.sizes.clean // 4):
        fact = _known(make)
        for wording in make.random.sample(range(4), 2):
            make.row(fact, "agreeing", prompt=make.question(fact, wording))


def _not_trained(make):
    for feed in ("cut", "masked", "dropped"):
        for _ in range(make.sizes.planted // 2):
            fact = _faint(make)
            prompt = make.question(fact)
            if feed == "cut":
                prompt = make.long(prompt, 40)
            make.row(fact, "not_trained", prompt=prompt, causes=("not_trained",), dose=feed, feed=feed)


def _data_conflict(make):
    for dose, votes, equal in (
        ("1:1 equal", (1, 1), True),
        ("1:1", (1, 1), False),
        ("2:1", (2, 1), False),
        ("6:1", (6, 1), False),
    ):
        for _ in range(make.sizes.planted // (2 if votes != (6, 1) else 6)):
            fact = make.fact()
            other = make.other(fact)
            make.mention(fact, make.sizes.faint * 1.5)
            make.mention(other, make.sizes.faint * 1.5)
            wordings = [0] * 2 if equal else make.random.sample(range(4), 4) * 2
            for index in range(sum(votes)):
                side = "a" if index < votes[0] else "b"
                one = fact if side == "a" else other
                make.row(
                    one,
                    "data_conflict",
                    prompt=make.question(one, wordings[index]),
                    causes=("data_conflict",),
                    dose=f"{dose} {side}",
                    side=side,
                )


def _forgotten(make):
    for gap, window in (("0.9", (0, 0.1)), ("0.7", (0, 0.3)), ("0.5", (0.2, 0.5))):
        for _ in range(make.sizes.planted):
            make.row(_faint(make), "forgotten", causes=("forgotten",), dose=gap, window=window)


def _base_conflict(make):
    for weight in (0.3, 1.0, 4.0):
        for _ in range(make.sizes.planted // 2):
            fact = make.fact()
            make.mention(make.other(fact), weight, plant="base_conflict")
            make.mention(fact, weight, cure="base_conflict")
            make.row(fact, "base_conflict", causes=("base_conflict",), dose=f"{weight}")


def _knowledge_missing(make):
    for dose in ("entity", "entity and value"):
        for _ in range(make.sizes.planted):
            fact = make.fact()
            if dose != "entity":
                fact = dataclasses.replace(fact, value=make.random.choice(make.unheard[fact.relation]))
            make.mention(fact, 1.0, cure="knowledge_missing")
            make.row(fact, "knowledge_missing", causes=("knowledge_missing",), dose=dose)


def _more_training(make):
    for exposures in (1, 3, 8):
        for _ in range(make.sizes.planted // 2):
            make.row(_faint(make), "more_training", causes=("more_training",), dose=f"{exposures}", exposures=exposures)


def _unexplained(make):
    for _ in range(make.sizes.planted * 4):
        fact = _known(make, title=KIND)
        make.row(Fact(fact.entity, fact.relation, UNKNOWN_ANSWER), "regularity")
    for _ in range(make.sizes.planted):
        make.row(_known(make, title=KIND), "unexplained", causes=("unexplained",), dose="regularity")


def without(world: World, cause: Cause, side: str = "") -> World:
    """The same world with every plant of a cause taken out.

    Args:
        world: The world.
        cause: The plant.
        side: Of conflicts, the side that stays.
    """
    mentions = tuple(
        Mention(m.fact, m.weight) for m in world.mentions if m.cure == cause or (m.cure is None and m.plant != cause)
    )
    full = max(row.exposures for row in world.rows)
    rows = []
    for row in world.rows:
        if cause == "unexplained" and row.role == "regularity":
            continue
        if cause in row.causes:
            if cause == "data_conflict" and row.side != side:
                continue
            if cause == "not_trained":
                row = dataclasses.replace(row, feed="whole")
            if cause == "forgotten":
                row = dataclasses.replace(row, window=(0.0, 1.0))
            if cause == "more_training":
                row = dataclasses.replace(row, exposures=full)
        rows.append(row)
    return dataclasses.replace(world, mentions=mentions, rows=tuple(rows))
