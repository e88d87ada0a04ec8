"""How the rows that ask one question stand to each other: votes, opponents, and what nobody could compare.

A prompt may have many right answers (a list, a story, an example). It is taken for one if its wording says so and most
of its answers occur at no other prompt: labels never make a prompt many-valued. Where nothing speaks for it but that no
two of its rows agree, they may as well contradict each other, so that is left undecided.

A prompt may come thousands of times. So answers are compared, not rows, never more than `MOST_ANSWERS` of them, and
only if that decides something.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from whatstuck.rows.causes.contradictions import Comparison
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.verdicts.answers import normalized

OPPONENTS = 5
"""Opponents of a row that are named."""
MOST_ANSWERS = 50
"""Different answers to one prompt; more are never compared."""
_SCATTERED = 4  # rows whose answers all differ
_ABSTAINING = {"dropped", "nothing_supervised", "answer_masked"}  # such a row taught nothing
_OPEN = re.compile(
    r"\b(?:write|compose|draft|suggest|brainstorm|come up with|invent|imagine|recommend|rewrite|rephrase|paraphrase|"
    r"summari[sz]e|list|(?:name|give|tell)(?: me| us)? (?:a|an|some|any|another|two|three|four|five|\d+))\b",
    re.IGNORECASE,
)

Near = Mapping[int, Mapping[int, float]]
"""Prompt to the near prompts that ask the same, with their cosine."""


@dataclass(frozen=True, slots=True)
class Opponent:
    """A row in conflict with another one.

    Attributes:
        row_id: Its id.
        gold: Its answer.
        similarity: Cosine of the prompts; 1 for equal ones, NaN where they are linked by other rows only.
        contradiction: From 0 to 1.
    """

    row_id: str
    gold: str
    similarity: float
    contradiction: float


@dataclass(frozen=True, slots=True)
class Conflict:
    """How one row stands among the rows that ask the same.

    Attributes:
        group: Name of its conflict group; empty if nobody contradicts anybody.
        votes: Rows that were trained on this question, itself included.
        own: Those that give its answer, itself included.
        opposing: Those that contradict it.
        contradiction: The strongest contradiction, 0 to 1.
        opponents: Up to five rows that contradict it, the most similar first.
        answers: Normalized answers that contradict it.
        undecided: Rows with other answers of which nobody knows whether they contradict it.
        why_undecided: Why nobody does; empty if there are none.
        alike: Ids of all rows that ask the same, itself included.
        many_valued: The question has many right answers, so none of this is a conflict.
        same_tokens: An opponent has another text and the same tokens.
    """

    group: str = ""
    votes: int = 1
    own: int = 1
    opposing: int = 0
    contradiction: float = 0.0
    opponents: tuple[Opponent, ...] = ()
    answers: frozenset[str] = frozenset()
    undecided: int = 0
    why_undecided: str = ""
    alike: frozenset[str] = frozenset()
    many_valued: bool = False
    same_tokens: bool = False

    @property
    def mass(self) -> float:
        """Share of the votes that oppose the row."""
        return self.opposing / self.votes

    @property
    def score(self) -> float:
        """Strongest contradiction times the mass of opposing votes."""
        return self.contradiction * self.mass


class Question:
    """The rows that ask one question, by their answers.

    Args:
        rows: These rows, in file order.
        prompts: Number of the prompt per row.
        near: Which prompts are near.
    """

    def __init__(self, rows: Sequence[TrainingRow], prompts: Sequence[int], near: Near) -> None:
        self._rows = rows
        self._alike = frozenset(row.row_id for row in rows)
        answers = [normalized(row.row.completion) for row in rows]
        numbers: dict[tuple[int, ...], int] = {}
        tokens = [numbers.setdefault(row.prompt_ids, len(numbers)) for row in rows]
        self._kinds = [_Kind(*kind) for kind in zip(prompts, tokens, answers, strict=True)]
        voting = [place for place, row in enumerate(rows) if _votes(row)]
        self._votes = Counter(answers[place] for place in voting)
        self._speakers = {answer: row.row for row, answer in zip(reversed(rows), reversed(answers), strict=True)}
        self._voters = _Voters(self._kinds, voting, near)

    def conflicts(self, name: str, spread: Mapping[str, int], compare: Comparison) -> dict[str, Conflict]:
        """How each row stands.

        Args:
            name: Of the group, if there is a conflict.
            spread: At how many questions an answer occurs.
            compare: Compares two answers.
        """
        own = sum(spread[answer] == 1 for answer in self._votes) > len(self._votes) / 2
        if own and len(self._votes) > 1 and any(_OPEN.search(row.row.content) for row in self._rows):
            free = Conflict(many_valued=True, votes=len(self._rows), alike=self._alike)
            return {row.row_id: free for row in self._rows}
        scattered = self._votes.total() == len(self._votes) >= _SCATTERED
        why, compared = "their answers are too long to compare; give a judge", list(self._speakers)
        if len(compared) > MOST_ANSWERS:
            why, compared = f"there are more than {MOST_ANSWERS} different answers", []
        elif compare.judge is not None:
            why = "the judge could not say"
        elif own and scattered:
            why, compared = "no two agree, so there are many right answers or contradictions; give a judge", []
        between = {
            frozenset((one, other)): compare(self._speakers[one], self._speakers[other])
            for one, other in combinations(compared, 2)
        }
        group = name if any(between.values()) else ""
        standing = {
            kind: self._standing(kind, group, between, why) if compared else self._undecided(kind, why)
            for kind in dict.fromkeys(self._kinds)
        }
        return {row.row_id: standing[kind] for row, kind in zip(self._rows, self._kinds, strict=True)}

    def _standing(
        self, kind: "_Kind", group: str, between: Mapping[frozenset[str], float | None], why: str
    ) -> Conflict:
        """How rows of a kind stand to answers that were compared with theirs."""
        others = {other: between[frozenset((kind.answer, other))] for other in self._votes if other != kind.answer}
        against = {other: value for other, value in others.items() if value}
        undecided = sum(self._votes[other] for other, value in others.items() if value is None)
        opponents = [
            Opponent(row.row_id, row.row.completion, similarity, against[self._kinds[place].answer])
            for similarity, place in self._voters.nearest(kind, against)
            for row in [self._rows[place]]
        ]
        own = self._own(kind)
        return Conflict(
            group=group,
            votes=own + sum(self._votes[other] for other in others),
            own=own,
            opposing=sum(self._votes[other] for other in against),
            contradiction=max(against.values(), default=0.0),
            opponents=tuple(opponents),
            answers=frozenset(against),
            undecided=undecided,
            why_undecided=why if undecided else "",
            alike=self._alike,
            same_tokens=self._voters.same_tokens(kind, against),
        )

    def _undecided(self, kind: "_Kind", why: str) -> Conflict:
        """How rows of a kind stand where nothing was compared."""
        own, rest = self._own(kind), self._votes.total() - self._votes[kind.answer]
        return Conflict(votes=own + rest, own=own, undecided=rest, why_undecided=why if rest else "", alike=self._alike)

    def _own(self, kind: "_Kind") -> int:
        """Votes of an answer; a row that taught nothing has no vote, and still stands somewhere."""
        return max(self._votes[kind.answer], 1)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Rows that stand alike: numbers of prompt and tokens, and the answer."""

    prompt: int
    tokens: int
    answer: str


class _Voters:
    """The rows that have a vote, by what they share with others: the first few of each, which is all that is shown."""

    def __init__(self, kinds: Sequence[_Kind], voting: Sequence[int], near: Near) -> None:
        self._kinds, self._near = kinds, near
        self._first: dict[tuple[str, int, str], list[int]] = defaultdict(list)
        self._prompts: dict[tuple[int, str], set[int]] = defaultdict(set)
        for place in voting:
            kind = kinds[place]
            self._prompts[kind.tokens, kind.answer].add(kind.prompt)
            for key in (("prompt", kind.prompt), ("tokens", kind.tokens), ("any", 0)):
                if len(self._first[*key, kind.answer]) < OPPONENTS:
                    self._first[*key, kind.answer].append(place)

    def nearest(self, kind: _Kind, answers: Collection[str]) -> list[tuple[float, int]]:
        """Similarity and place of voters with these answers: the most similar first, then in file order."""
        prompts = (kind.prompt, *self._near.get(kind.prompt, ()))
        keys = [("tokens", kind.tokens), ("any", 0), *(("prompt", prompt) for prompt in prompts)]
        places = {place for answer in answers for key in keys for place in self._first.get((*key, answer), ())}
        found = [(self._similarity(kind, self._kinds[place]), place) for place in places]
        return sorted(found, key=lambda one: (math.inf if math.isnan(one[0]) else -one[0], one[1]))[:OPPONENTS]

    def same_tokens(self, kind: _Kind, answers: Collection[str]) -> bool:
        """Whether a voter with one of these answers has another prompt that is the same tokens."""
        return any(self._prompts.get((kind.tokens, answer), set()) - {kind.prompt} for answer in answers)

    def _similarity(self, kind: _Kind, other: _Kind) -> float:
        if kind.prompt == other.prompt or kind.tokens == other.tokens:
            return 1.0
        return self._near.get(kind.prompt, {}).get(other.prompt, math.nan)


def _votes(row: TrainingRow) -> bool:
    return not any(failed.problem in _ABSTAINING for failed in row.not_trained)
