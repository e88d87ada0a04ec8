"""Training rows that ask the same and teach different answers.

Which rows ask the same is the matter of `questions.py`, whether two answers contradict each other that of
`contradictions.py`, and how a row stands among all that ask the same that of `standing.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from whatstuck.rows.causes.contradictions import Comparison, Judge, contradiction, find_judge
from whatstuck.rows.causes.questions import find_questions
from whatstuck.rows.causes.similarity import Embed
from whatstuck.rows.causes.standing import Conflict, Opponent, Question
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import Checker, find_checker, normalized

__all__ = ["Conflict", "Conflicts", "Judge", "Opponent", "contradiction", "find_conflicts", "find_judge"]


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
    compare = Comparison(judge, checker or find_checker("auto"))
    answers = [normalized(row.row.completion) for row in rows]
    at = {(answers[index], number) for number, members in enumerate(questions.members) for index in members}
    spread = Counter(answer for answer, _ in at)  # at how many questions an answer occurs
    near: dict[int, dict[int, float]] = defaultdict(dict)
    for (a, b), cosine in questions.links.items():
        near[a][b] = near[b][a] = cosine
    by_row: dict[str, Conflict] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for members in questions.members:
        if len(members) > 1:
            name = f"conflict-{len(groups) + 1}"
            question = Question([rows[i] for i in members], [questions.prompts[i] for i in members], near)
            found = question.conflicts(name, spread, compare)
            by_row |= found
            if any(conflict.group for conflict in found.values()):
                groups[name] = tuple(found)
    return Conflicts(by_row, groups, questions.blind)
