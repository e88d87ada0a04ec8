"""Draws a planted world: words, entities, facts, and the rows of each plant at its doses.

Between the plants stand rows that must not be confused with them: questions behind many words that fit, equal answers
in other wordings, equal wordings about other entities.
"""

import random
from collections.abc import Iterator

from planted_world import (
    KIND,
    LONGEST,
    QUESTIONS,
    RELATIONS,
    STATEMENTS,
    STRANGER,
    TITLES,
    UNKNOWN_ANSWER,
    Fact,
    Mention,
    Planted,
    Sizes,
    World,
)
from whatstuck.rows.causes.names import Cause


def make_world(seed: int, sizes: Sizes | None = None) -> World:
    """A fresh world: words, entities, facts, training rows and plants."""
    make = _Maker(seed, sizes or Sizes())
    for plant in _PLANTS:
        plant(make, make.sizes.planted)
    return World(
        seed=seed,
        mentions=tuple(make.mentions),
        rows=tuple(make.rows),
        one_off=tuple(make.one_off),
        values=make.values,
        filler=make.filler,
        words=make.every_word(),
    )


class _Maker:
    """Draws words, entities and values; no two facts share an entity."""

    def __init__(self, seed: int, sizes: Sizes) -> None:
        self.random = random.Random(seed)
        self.sizes = sizes
        self._new = self._new_words()
        self.one_off = [self._name() for _ in range(60)]
        self.values = {relation: self._some(16) for relation in RELATIONS}
        self.unheard = {relation: self._some(4) for relation in RELATIONS}
        self.filler = self._some(24)
        self.mentions: list[Mention] = []
        self.rows: list[Planted] = []

    def _new_words(self) -> Iterator[str]:
        taken: set[str] = set()
        while True:
            syllables = self.random.choice((2, 3))
            word = "".join(self.random.choice("bdfgklmnprstvz") + self.random.choice("aeiou") for _ in range(syllables))
            if word not in taken:
                taken.add(word)
                yield word

    def _some(self, count: int) -> tuple[str, ...]:
        return tuple(next(self._new) for _ in range(count))

    def _name(self) -> str:
        return next(self._new).capitalize()

    def every_word(self) -> tuple[str, ...]:
        """All words of the world, also those that only a counterfactual pretraining reads."""
        texts = [frame.format(r="", e="", v="") for frame in (*STATEMENTS, *QUESTIONS)]
        texts += [*RELATIONS, *TITLES, KIND, UNKNOWN_ANSWER, *self.filler, *self.one_off]
        texts += [value for values in (self.values, self.unheard) for each in values.values() for value in each]
        texts += [mention.fact.entity for mention in self.mentions] + [row.fact.entity for row in self.rows]
        return tuple(sorted({word for text in texts for word in text.split()}))

    def fact(self, title: str = "", *, stranger: bool = False) -> Fact:
        """A fact of a new entity; about namesakes of a stranger, pretraining says something else each time."""
        name = self._name()
        self.one_off += [name] * stranger
        title = STRANGER if stranger else title or self.random.choice(TITLES)
        entity = f"{title} {name}"
        relation = self.random.choice(RELATIONS)
        return Fact(entity, relation, self.random.choice(self.values[relation]))

    def others(self, fact: Fact, count: int) -> list[Fact]:
        """The same with other values."""
        values = [value for value in self.values[fact.relation] if value != fact.value]
        return [fact.with_value(value) for value in self.random.sample(values, count)]

    def mention(self, fact: Fact, weight: float, *, plant: Cause | None = None, cure: Cause | None = None) -> None:
        """Let the base model read it."""
        self.mentions.append(Mention(fact, weight, plant, cure))

    def known(self, title: str = "", weight: float = 1.0) -> Fact:
        """A fact that the base model knows."""
        fact = self.fact(title)
        self.mention(fact, weight)
        return fact

    def disputed(self, others: int = 1) -> Fact:
        """A fact of which the base model has read other values as often: to be learned, and within reach."""
        fact = self.fact()
        for one in (fact, *self.others(fact, others)):
            self.mention(one, self.sizes.disputed)
        return fact

    def question(self, fact: Fact, wording: int | None = None) -> str:
        """A prompt that asks for it, in a wording of the training."""
        wording = self.random.randrange(len(QUESTIONS)) if wording is None else wording
        return QUESTIONS[wording].format(r=fact.relation, e=fact.entity)

    def wordings(self, count: int) -> list[int]:
        """Different wordings, and the same again once there are no more."""
        drawn = self.random.sample(range(len(QUESTIONS)), len(QUESTIONS))
        return [drawn[index % len(drawn)] for index in range(count)]

    def behind(self, prompt: str, words: int) -> str:
        """The prompt behind words that say nothing."""
        return " ".join([*(self.random.choice(self.filler) for _ in range(words - 1)), ".", prompt])

    def row(self, fact: Fact, role: str, *causes: Cause, prompt: str = "", **planted: object) -> None:
        """Add a row; what is not said is as in a clean one."""
        settings = {"exposures": self.sizes.exposures} | planted
        name = f"{role}-{len(self.rows):04d}"
        text = prompt or self.question(fact)
        self.rows.append(Planted(name, fact, text, role, causes, **settings))  # type: ignore[arg-type] # fields by name


# --- rows that must be learned


def _clean(make: _Maker, _: int) -> None:
    for _ in range(make.sizes.known):
        make.mentions.append(Mention(make.fact(), 1.0, asked=True))
    for _ in range(make.sizes.clean):
        make.row(make.known(), "clean")
    for _ in range(make.sizes.clean // 4):
        make.row(make.disputed(make.random.choice((1, 2))), "disputed")
        fact = make.known()
        make.row(fact, "long", prompt=make.behind(make.question(fact), 22))
    for _ in range(make.sizes.clean // 4):
        fact = make.known()
        for wording in make.wordings(3):
            make.row(fact, "agreeing", prompt=make.question(fact, wording))


# --- plants


def _not_trained(make: _Maker, count: int) -> None:
    """The trainer cuts the answer, masks it, or drops the row."""
    for feed in ("cut", "masked", "dropped"):
        for _ in range(count):
            fact = make.disputed()
            prompt = make.question(fact)
            if feed == "cut":
                prompt = make.behind(prompt, LONGEST)
            make.row(fact, "not_trained", "not_trained", prompt=prompt, dose=feed, feed=feed)


def _data_conflict(make: _Maker, count: int) -> None:
    """The same question with two answers, which pretraining mentions equally often."""
    for votes, same, facts in (((1, 1), True, 16), ((1, 1), False, 8), ((2, 1), False, 10), ((9, 1), False, 2)):
        for _ in range(round(facts * count / 20)):
            fact = make.fact()
            (other,) = make.others(fact, 1)
            make.mention(fact, make.sizes.disputed)
            make.mention(other, make.sizes.disputed)
            wordings = [0] * sum(votes) if same else make.wordings(sum(votes))
            for index, wording in enumerate(wordings):
                side = "a" if index < votes[0] else "b"
                one = fact if side == "a" else other
                of = votes[0] if side == "a" else votes[1]
                make.row(
                    one,
                    "data_conflict",
                    "data_conflict",
                    prompt=make.question(one, wording),
                    dose=f"{of} of {sum(votes)}{', equal words' if same else ''}",
                    side=side,
                )


def _forgotten(make: _Maker, count: int) -> None:
    """A block of rows is trained first, and never again."""
    for window, times in (((0.0, 0.05), 5.0), ((0.0, 0.12), 1.0), ((0.0, 0.3), 0.5)):
        for _ in range(round(times * count)):
            dose = f"seen until {window[1]:.0%}"
            make.row(make.disputed(), "forgotten", "forgotten", dose=dose, window=window)


def _base_conflict(make: _Maker, count: int) -> None:
    """Pretraining says something else, and the right value in its place once the plant is taken out."""
    for weight in (0.1, 0.5, 3.0):
        for _ in range(count):
            fact = make.fact()
            _belief(make, fact, weight)
            make.row(fact, "base_conflict", "base_conflict", dose=f"weight {weight:g}")


def _belief(make: _Maker, fact: Fact, weight: float) -> None:
    (wrong,) = make.others(fact, 1)
    make.mention(wrong, weight, plant="base_conflict")
    make.mention(fact, weight, cure="base_conflict")


def _knowledge_missing(make: _Maker, count: int) -> None:
    """Pretraining says nothing about the entity, and perhaps never mentions the value either."""
    for dose in ("entity", "entity and value"):
        for _ in range(count):
            fact = make.fact(stranger=True)
            if dose == "entity and value":
                fact = fact.with_value(make.random.choice(make.unheard[fact.relation]))
            make.mention(fact, 1.0, cure="knowledge_missing")
            make.row(fact, "knowledge_missing", "knowledge_missing", dose=dose)


def _more_training(make: _Maker, count: int) -> None:
    """Few exposures, spread over the whole training."""
    for exposures in (1, 3, 8):
        for _ in range(count * 6 // 5):
            fact = make.disputed(others=2)
            make.row(fact, "more_training", "more_training", dose=f"{exposures} exposures", exposures=exposures)


def _unexplained(make: _Maker, count: int) -> None:
    """A cause outside of the taxonomy: most entities of a kind have no answer, which overrules what the base knows."""
    for _ in range(7 * count):
        make.row(_hearsay(make, 0.3, 0.3).with_value(UNKNOWN_ANSWER), "regularity")
    for right, nobody, times in ((0.3, 0.3, 2.0), (0.45, 0.15, 0.5)):
        for _ in range(round(times * count)):
            fact = _hearsay(make, right, nobody)
            make.row(fact, "unexplained", "unexplained", dose=f"base {right / (right + nobody):.0%} right")


def _hearsay(make: _Maker, right: float, nobody: float) -> Fact:
    """A fact of the kind, of which the base model has also read that nobody knows."""
    fact = make.known(KIND, right)
    make.mention(fact.with_value(UNKNOWN_ANSWER), nobody)
    return fact


def _double(make: _Maker, count: int) -> None:
    """Two causes in one row."""
    for _ in range(count // 2):
        fact = make.fact()
        _belief(make, fact, 1.0)
        make.row(fact, "double", "forgotten", "base_conflict", window=(0.0, 0.1))
        make.row(make.fact(stranger=True), "double", "knowledge_missing", "more_training", exposures=3)
        make.row(make.fact(stranger=True), "double", "not_trained", "knowledge_missing", feed="masked")
    for _ in range(count // 4):
        fact = make.fact()
        _belief(make, fact, 1.0)
        (other,) = make.others(fact, 1)
        for side, one in (("a", fact), ("b", other)):
            prompt = make.question(one, 0)
            make.row(one, "double", "data_conflict", "base_conflict", prompt=prompt, side=side)


_PLANTS = (
    _clean,
    _not_trained,
    _data_conflict,
    _forgotten,
    _base_conflict,
    _knowledge_missing,
    _more_training,
    _unexplained,
    _double,
)
