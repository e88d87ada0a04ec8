"""What a reply is worth to reinforcement learning: a number for each outcome of a task's scorer."""

from collections.abc import Callable, Mapping

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.cells import UNCHECKED
from whatstuck.generalization.task import Score

Reward = Callable[[Score], float]

_POINTS: Mapping[str, float] = {
    "right": 5.0,
    "wrong_value": -1.0,
    "wrong_numbers": -2.0,
    "illegal": -3.0,
    "no_answer": -3.0,
}


def graded(score: Score) -> float:
    """1 for a right reply, 0.1 for one that obeys the rules, else 0: as in ReFT (arXiv 2401.08967)."""
    return 1.0 if score.success else 0.1 if score.valid else 0.0


def success(score: Score) -> float:
    """1 for a right reply, else 0: as for Sokoban in arXiv 2510.00237."""
    return float(score.success)


def points(score: Score) -> float:
    """+5 for a right formula, down to -3 for none: the table of General Points (arXiv 2501.17161, App. A.3).

    A check that failed, or took too long, counts as no answer.

    Raises:
        WhatStuckError: If the task has other outcomes.
    """
    if score.outcome in UNCHECKED:
        return _POINTS["no_answer"]
    if score.outcome not in _POINTS:
        raise WhatStuckError(f"the reward points knows no outcome {score.outcome!r}: use graded or success")
    return _POINTS[score.outcome]


REWARDS: Mapping[str, Reward] = {"graded": graded, "success": success, "points": points}
