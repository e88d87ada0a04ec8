"""Which training rows ask the same question.

Two prompts do if they are equal, if they are the same tokens (characters that the vocabulary does not have make
different texts equal), or if they are near (`similarity.py`), have the same slots (`slots.py`), and differ in no
content word that matters. Which words matter is learned from the data: where one word stands in the place of another
(`hue` for `colour`, `smallest` for `largest`), it is a synonym if the answers mostly agree, more than chance would have
it. An added word and another order are judged alike. Without enough such pairs it is another question, unless an
embedding found the pair: that knows something about meaning.

What asks the same is passed on: rows that ask the same as a third one ask the same.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whatstuck.rows.causes.similarity import Embed, similar_prompts
from whatstuck.rows.causes.slots import Leftover, leftover, same_slots, slots_of
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import normalized

_SWAPS = 3  # pairs that it takes to learn whether two words mean the same


@dataclass(frozen=True, slots=True)
class Questions:
    """The rows by question.

    Attributes:
        prompts: Per row, the number of its prompt; rows of one number have equal prompts.
        members: Questions, each with the indices of its rows in file order, in the order of their first rows.
        links: Near prompts `(a, b)`, `a < b`, that ask the same, with their cosine.
        blind: Why near prompts were not looked for; empty if they were.
    """

    prompts: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]
    links: Mapping[tuple[int, int], float]
    blind: str


def find_questions(rows: Sequence[TrainingRow], thresholds: Thresholds, *, embed: Embed | str | None) -> Questions:
    """Put rows that ask the same together.

    Args:
        rows: The training rows.
        thresholds: How near prompts must be.
        embed: An embedding of prompts, or the name of a sentence-transformers model; character n-grams if None.

    Raises:
        WhatStuckError: If the embedding is unusable.
    """
    similar = similar_prompts(rows, thresholds, embed=embed)
    answers = [normalized(row.row.completion) for row in rows]
    given: dict[int, Counter[str]] = defaultdict(Counter)
    for prompt, answer in zip(similar.groups, answers, strict=True):
        given[prompt][answer] += 1
    said = {prompt: counts.most_common(1)[0][0] for prompt, counts in given.items()}
    near = []
    for a, b, cosine in similar.pairs:
        first, second = slots_of(similar.texts[a]), slots_of(similar.texts[b])
        if same_slots(first, second):
            near.append(_Near(a, b, cosine, leftover(first, second), agrees=said[a] == said[b]))
    links = _same(near, _chance(answers), trusted=embed is not None)

    union = _Union(len(similar.texts))
    for a, b in links:
        union.join(a, b)
    tokens: dict[tuple[int, ...], int] = {}
    for row, prompt in zip(rows, similar.groups, strict=True):
        union.join(prompt, tokens.setdefault(row.prompt_ids, prompt))
    members: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(similar.groups):
        members[union.root(prompt)].append(index)
    return Questions(similar.groups, tuple(map(tuple, members.values())), links, similar.blind)


@dataclass(frozen=True, slots=True)
class _Near:
    """Two near prompts with equal slots, what is left over, and whether their answers agree."""

    first: int
    second: int
    cosine: float
    rest: Leftover
    agrees: bool

    @property
    def swap(self) -> frozenset[frozenset[str]]:
        """The words that stand for each other, whichever prompt comes first."""
        return frozenset((self.rest.first, self.rest.second))


def _chance(answers: Sequence[str]) -> float:
    """How often two rows agree by chance."""
    return sum((count / len(answers)) ** 2 for count in Counter(answers).values())


def _same(pairs: Sequence[_Near], chance: float, *, trusted: bool) -> dict[tuple[int, int], float]:
    """The pairs that ask the same; `trusted`: that they are near says something about their meaning."""
    agreements: dict[frozenset[frozenset[str]], list[bool]] = defaultdict(list)
    for pair in pairs:
        agreements[pair.swap].append(pair.agrees)
    links = {}
    for pair in pairs:
        seen = agreements[pair.swap]
        if not pair.rest:
            same = True
        elif len(seen) >= _SWAPS:  # half of what agreement there could be beyond chance
            same = sum(seen) / len(seen) >= (1 + chance) / 2
        else:
            same = trusted
        if same:
            links[pair.first, pair.second] = pair.cosine
    return links


class _Union:
    """Union-find."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, item: int) -> int:
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        self._parent[self.root(b)] = self.root(a)
