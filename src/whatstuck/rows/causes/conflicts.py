"""Training rows that ask the same and teach different answers.

Which rows ask the same is the matter of `questions.py`. Their answers contradict each other if they are short and
neither passes the check of the other row. Of longer ones, a judge says so, or their numbers, names or first yes and no
do. Otherwise it stays undecided: no conflict, but counted.

A prompt may have many right answers (a list, a story, an example). It is taken for one if its wording says so or if at
least four rows answer it and no two agree, and if besides most of its answers occur at no other prompt: labels never
make a prompt many-valued.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from whatstuck.datasets import Row
from whatstuck.errors import WhatStuckError
from whatstuck.rows.causes.questions import Questions, find_questions
from whatstuck.rows.causes.similarity import Embed
from whatstuck.rows.causes.slots import slots_of
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import Checker, find_checker, find_function, normalized

Judge = Callable[[Row, Row], bool | None]
"""Whether the answers of two rows, whose prompts are alike, contradict each other; None: it cannot say."""

SHORT = 5
"""Words of an answer up to which another wording is another answer."""
COMPARED = 40
"""Words of an answer up to which numbers and names are compared."""
OPPONENTS = 5
_MANY_ANSWERS = 4  # rows whose answers all differ
_MOST_ANSWERS = 50  # different answers to one prompt: more are never compared
_ABSTAINING = {"dropped", "nothing_supervised", "answer_masked"}  # such a row taught nothing
_OPEN = re.compile(
    r"\b(?:write|compose|draft|suggest|brainstorm|come up with|invent|imagine|recommend|rewrite|rephrase|paraphrase|"
    r"summari[sz]e|list|(?:name|give|tell)(?: me| us)? (?:a|an|some|any|another|two|three|four|five|\d+))\b",
    re.IGNORECASE,
)
_YES_NO = {"yes": True, "no": False, "true": True, "false": False, "correct": True, "incorrect": False}


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
        undecided: Rows whose long answers nothing could compare.
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


@dataclass(frozen=True, slots=True)
class Conflicts:
    """All conflicts of a data set.

    Attributes:
        by_row: Rows that are not alone with their question.
        groups: Conflict group to the ids of its rows, in file order.
        blind: Why near prompts were not looked for; empty if they were.
    """

    by_row: Mapping[str, Conflict] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blind: str = ""

    def of(self, row_id: str) -> Conflict:
        """How a row stands; one that is alone has no opponents."""
        return self.by_row.get(row_id, Conflict())


def find_conflicts(
    rows: Sequence[TrainingRow],
    thresholds: Thresholds,
    *,
    embed: Embed | str | None = None,
    judge: Judge | None = None,
    checker: Checker | None = None,
) -> Conflicts:
    """Find rows that ask the same, and how their answers stand to each other.

    Args:
        rows: All training rows: also learned ones have a vote. Rows that taught nothing have none.
        thresholds: How near prompts must be.
        embed: An embedding of prompts, or the name of a sentence-transformers model; character n-grams if None.
        judge: Decides whether two answers contradict each other.
        checker: Whether an answer is right for a row: `auto` of `find_checker` if None.

    Raises:
        WhatStuckError: If the embedding is unusable, or the checker fails.
    """
    questions = find_questions(rows, thresholds, embed=embed)
    compare = _Comparison(judge, checker or find_checker("auto"))
    answers = [normalized(row.row.completion) for row in rows]
    at = {(answers[index], number) for number, members in enumerate(questions.members) for index in members}
    spread = Counter(answer for answer, _ in at)  # at how many questions an answer occurs
    by_row: dict[str, Conflict] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for members in questions.members:
        if len(members) > 1:
            name = f"conflict-{len(groups) + 1}"
            question = _Question([rows[index] for index in members], members, questions, compare)
            found = question.conflicts(name, spread)
            by_row |= found
            if any(conflict.group for conflict in found.values()):
                groups[name] = tuple(found)
    return Conflicts(by_row, groups, questions.blind)


def find_judge(name: str) -> Judge:
    """A judge of the user's own, `module:function` or `file.py:function`, called with two rows.

    Raises:
        WhatStuckError: If there is none; later, if it fails on two rows, or returns something else than True, False or
            None.
    """
    function = find_function(name, "judge")

    def judge(first: Row, second: Row) -> bool | None:
        where = f"the judge {name} on rows {first.row_id} and {second.row_id}"
        try:
            said = function(first, second)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise WhatStuckError(f"{where} failed: {reason[:200]}") from error
        if said is not None and not isinstance(said, bool):
            raise WhatStuckError(f"{where} returned {said!r}: return True, False or None")
        return said

    return judge


def contradiction(first: str, second: str) -> float | None:
    """How surely two answers to one question contradict each other; None where it cannot be said.

    >>> contradiction("Paris", "Lyon"), contradiction("blue", "dark blue"), contradiction("Paris", "paris.")
    (1.0, 0.5, 0.0)
    """
    one, other = normalized(first), normalized(second)
    if one == other:
        return 0.0
    words = (one.split(), other.split())
    longest = max(map(len, words))
    if longest <= SHORT and max(len(one), len(other)) <= 8 * SHORT:  # a script without spaces has one long word
        within, around = sorted((" ".join(re.findall(r"\w+", text)) for text in (one, other)), key=len)
        return 0.5 if within and f" {within} " in f" {around} " else 1.0
    if longest > COMPARED:
        return None
    said = [_YES_NO.get(re.split(r"\W", line[0])[0]) for line in words]
    if None not in said and said[0] != said[1]:
        return 0.9
    slots = (slots_of(first), slots_of(second))
    for mine, yours in ((slots[0].numbers, slots[1].numbers), (slots[0].names, slots[1].names)):
        if mine and yours and not set(mine) & set(yours):
            return 0.7
    return None


@dataclass(frozen=True, slots=True)
class _Comparison:
    """How the answers of two rows are compared."""

    judge: Judge | None
    checker: Checker

    def __call__(self, first: Row, second: Row) -> float | None:
        if self.judge is not None:
            said = self.judge(first, second)
            return None if said is None else float(said)
        if self.checker(first, second.completion) or self.checker(second, first.completion):
            return 0.0
        return contradiction(first.completion, second.completion)


class _Question:
    """The rows that ask one question, by their answers."""

    def __init__(
        self, rows: Sequence[TrainingRow], members: Sequence[int], questions: Questions, compare: _Comparison
    ) -> None:
        self._rows, self._links = rows, questions.links
        self._alike = frozenset(row.row_id for row in rows)
        self._prompts = [questions.prompts[index] for index in members]
        self._answers = [normalized(row.row.completion) for row in rows]
        self._votes = Counter(answer for row, answer in zip(rows, self._answers, strict=True) if _votes(row))
        speakers = {answer: row.row for row, answer in zip(reversed(rows), reversed(self._answers), strict=True)}
        self._between: dict[frozenset[str], float | None] = {}
        names = list(speakers)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                value = None if len(names) > _MOST_ANSWERS else compare(speakers[one], speakers[other])
                self._between[frozenset((one, other))] = value

    def conflicts(self, name: str, spread: Mapping[str, int]) -> dict[str, Conflict]:
        """How each row stands.

        Args:
            name: Of the group, if there is a conflict.
            spread: At how many questions an answer occurs.
        """
        if self._many_valued(spread):
            free = Conflict(many_valued=True, votes=len(self._rows), alike=self._alike)
            return {row.row_id: free for row in self._rows}
        group = name if any(self._between.values()) else ""
        kinds = dict.fromkeys(zip(self._prompts, [row.prompt_ids for row in self._rows], self._answers, strict=True))
        standing = {kind: self._standing(group, *kind) for kind in kinds}
        keys = zip(self._prompts, [row.prompt_ids for row in self._rows], self._answers, strict=True)
        return {row.row_id: standing[key] for row, key in zip(self._rows, keys, strict=True)}

    def _standing(self, group: str, prompt: int, ids: tuple[int, ...], answer: str) -> Conflict:
        """How rows with this prompt and this answer stand."""
        others = {other: self._between[frozenset((answer, other))] for other in self._votes if other != answer}
        against = {other: value for other, value in others.items() if value}
        opponents = []
        same_tokens = False
        for row, its, said in zip(self._rows, self._prompts, self._answers, strict=True):
            if said in against and _votes(row):
                link = self._links.get((min(prompt, its), max(prompt, its)), math.nan)
                equal = row.prompt_ids == ids
                same_tokens |= equal and its != prompt
                similarity = 1.0 if equal or its == prompt else link
                opponents.append(Opponent(row.row_id, row.row.completion, similarity, against[said]))
        opponents.sort(key=lambda opponent: math.inf if math.isnan(opponent.similarity) else -opponent.similarity)
        own = max(self._votes[answer], 1)  # a row that taught nothing has no vote, and still stands somewhere
        return Conflict(
            group=group,
            votes=own + sum(self._votes[other] for other in others),
            own=own,
            opposing=sum(self._votes[other] for other in against),
            contradiction=max(against.values(), default=0.0),
            opponents=tuple(opponents[:OPPONENTS]),
            answers=frozenset(against),
            undecided=sum(self._votes[other] for other, value in others.items() if value is None),
            alike=self._alike,
            same_tokens=same_tokens,
        )

    def _many_valued(self, spread: Mapping[str, int]) -> bool:
        unique = sum(spread[answer] == 1 for answer in self._votes)
        distinct = len(self._votes)
        worded = any(_OPEN.search(row.row.content) for row in self._rows)
        scattered = distinct >= _MANY_ANSWERS and distinct == self._votes.total()
        return distinct > 1 and unique > distinct / 2 and (worded or scattered)


def _votes(row: TrainingRow) -> bool:
    return not any(failed.problem in _ABSTAINING for failed in row.not_trained)
