"""One row that did not stick, with everything that is known about it; and what a piece of evidence is."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whatstuck.rows.causes.cohort import Cohort
from whatstuck.rows.causes.conflicts import Conflict, Conflicts
from whatstuck.rows.causes.names import Cause, Status
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.histories import History
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import normalized


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence for one cause.

    Attributes:
        cause: The cause.
        status: Present, absent or not measured.
        score: Strength, 0 to 1; 0 where absent, NaN where not measured.
        numbers: What the status rests on.
        sentence: The same in words.
    """

    cause: Cause
    status: Status
    score: float
    numbers: Mapping[str, Any]
    sentence: str

    def record(self) -> dict[str, Any]:
        """As a value of `schemas.EVIDENCE`; numbers that are not finite become null."""
        numbers = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.numbers.items()
        }
        return {
            "cause": self.cause,
            "status": self.status,
            "score": None if math.isnan(self.score) else self.score,
            "numbers": json.dumps(numbers, ensure_ascii=False),
            "sentence": self.sentence,
        }


def present(cause: Cause, score: float, numbers: Mapping[str, Any], sentence: str) -> Evidence:
    """Evidence for a cause; the score is cut to 0 to 1."""
    return Evidence(cause, "present", min(max(score, 0.0), 1.0), numbers, sentence)


def absent(cause: Cause, numbers: Mapping[str, Any], sentence: str) -> Evidence:
    """Evidence against a cause."""
    return Evidence(cause, "absent", 0.0, numbers, sentence)


def not_measured(cause: Cause, numbers: Mapping[str, Any], sentence: str) -> Evidence:
    """A signal is missing; the sentence says which."""
    return Evidence(cause, "not_measured", math.nan, numbers, sentence)


@dataclass(frozen=True, slots=True)
class Risks:
    """Share of failures that a trait accounts for among rows that have it (`cohort.py`); NaN where it cannot be said.

    Attributes:
        few: Few exposures.
        long: Long answers.
        rare: Rare forms of prompt.
        unknown: Rows that the base model does not know.
    """

    few: float
    long: float
    rare: float
    unknown: float


@dataclass(frozen=True, slots=True)
class Case:
    """A row that is not learned.

    Attributes:
        row: The row.
        verdict: Its record of `schemas.VERDICTS`.
        history: Its history; None without a supervised token.
        base: What the base model answers; None if it was not asked.
        bases: The same of all rows that were asked.
        conflicts: All conflicts.
        cohort: What is usual.
        thresholds: Every number that decides.
        fed_known: Whether it is known how the trainer fed the rows.
    """

    row: TrainingRow
    verdict: Mapping[str, Any]
    history: History | None
    base: BaseAnswers | None
    bases: Mapping[str, BaseAnswers]
    conflicts: Conflicts
    cohort: Cohort
    thresholds: Thresholds
    fed_known: bool

    @property
    def conflict(self) -> Conflict:
        """How the row stands among those that ask the same."""
        return self.conflicts.of(self.row.row_id)

    @property
    def wrong(self) -> frozenset[str]:
        """Normalized wrong answers of the finished model: greedy, and the most frequent one.

        The checker may call an answer right that differs from the gold one, so a right greedy answer is none of them.
        """
        greedy = None if self.verdict.get("greedy_right") else self.verdict.get("greedy")
        answers = (greedy, self.verdict.get("top_wrong"))
        return frozenset(normalized(text) for text in answers if text) - {normalized(self.row.row.completion)}

    @property
    def few(self) -> bool | None:
        """Whether the row was learned rarely; None where that cannot be said."""
        return self.cohort.few(self.history, self.thresholds)

    def fall(self, since: float) -> float:
        """Relative fall of its loss since a share of the training; NaN where there is no trajectory."""
        return math.nan if self.history is None else self.history.fall(since)
