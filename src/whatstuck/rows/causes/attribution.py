"""From evidence to one cause, and what other ways of naming it would say.

The primary cause is the first of `names.PRECEDENCE` whose evidence is present. Beside it stand two other readings: the
order that arXiv 2604.10079 prints, and a guess from losses alone. They are what ours has to beat.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from whatstuck.rows.causes.case import Evidence
from whatstuck.rows.causes.conflicts import Conflict
from whatstuck.rows.causes.names import PRECEDENCE, Cause
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.histories import History
from whatstuck.rows.thresholds import Thresholds

# arXiv 2604.10079: Eq. 2, Eq. 4 (Algorithm 1)
_EXISTS, _BLIND, _BLIND_GREEDY = 0.8, 0.2, 0.1
_OFTEN = 2  # forgetting events from which on a row alternates


@dataclass(frozen=True, slots=True)
class Attribution:
    """The cause of a row.

    Attributes:
        cause: The primary one, or `unexplained`.
        secondary: The others whose evidence is present, in the order of `names.PRECEDENCE`.
        margin: Score of the primary cause less the best score of the others, or less 0; NaN where it is unexplained.
            The order decides, not the score, so it may be below 0.
        ambiguous: The margin is below `thresholds.ambiguous`.
    """

    cause: Cause
    secondary: tuple[Cause, ...]
    margin: float
    ambiguous: bool


def attribute(evidence: Sequence[Evidence], thresholds: Thresholds) -> Attribution:
    """Name the cause of a row.

    Args:
        evidence: At most one per cause, in any order; only what is present counts.
        thresholds: `ambiguous`.
    """
    scores = {each.cause: each.score for each in evidence if each.status == "present"}
    causes = [cause for cause in PRECEDENCE if cause in scores]
    if not causes:
        return Attribution("unexplained", (), math.nan, ambiguous=False)
    first, *others = causes
    margin = scores[first] - max((scores[cause] for cause in others), default=0.0)
    return Attribution(first, tuple(others), margin, ambiguous=margin < thresholds.ambiguous)


def printed_order(
    base: BaseAnswers | None,
    conflict: Conflict,
    history: History | None,
    thresholds: Thresholds,
    *,
    knowledge: Literal["blind", "exists"] = "blind",
) -> Cause:
    """The first cause that holds in the order I, II, III, IV, V, as arXiv 2604.10079 prints them (§3.2, Table 10).

    I: the base model does not know it: right in less than 0.2 of its draws and less than 0.1 greedily (Eq. 4, `blind`),
    or in no more than 0.8 of its draws (Eq. 2, `exists`, which leaves II out of reach). II: it answers one wrong thing
    with a probability above T (Eq. 6; T is not given, `thresholds.committed` here). III: another row that asks the same
    answers otherwise. IV: it was right at a checkpoint and is wrong at the end. V: it was right at none, and its loss
    falls.

    Args:
        base: What the base model answers; None: I and II do not hold.
        conflict: How the row stands among those that ask the same.
        history: Its history; None: IV and V do not hold.
        thresholds: `committed`.
        knowledge: Which of the two printed criteria of I is taken.
    """
    if base is not None:
        blind = base.rate < _BLIND and base.greedy_rate < _BLIND_GREEDY
        if blind if knowledge == "blind" else base.rate <= _EXISTS:
            return "knowledge_missing"
        if base.wrong_share > thresholds.committed:
            return "base_conflict"
    if conflict.votes > conflict.own:
        return "data_conflict"
    if history is not None and history.forgetting_events and not history.correct[-1]:
        return "forgotten"
    if history is not None and history.never_learned and history.fall(0.5) > 0:
        return "more_training"
    return "unexplained"


def paper_cause(
    base: BaseAnswers | None, conflict: Conflict, history: History | None, thresholds: Thresholds
) -> Cause | None:
    """What arXiv 2604.10079 would call it, with the criterion of I that leaves II within reach.

    None where the base model was not asked: it comes first in the printed order, so nothing behind it can be named.
    """
    return None if base is None else printed_order(base, conflict, history, thresholds, knowledge="blind")


def loss_only(history: History | None, thresholds: Thresholds) -> Cause:
    """A guess from one row's losses and hits over the checkpoints, and nothing else.

    No loss at all: not trained. Lost twice or more: conflicting data. Lost once and wrong at the end: forgotten. Never
    right and falling: more training. Never right and flat: knowledge if the loss at the end is above that of the base
    or of the first checkpoint, for nothing was learned; else a belief that resists.
    """
    if history is None:
        return "not_trained"
    if history.forgetting_events >= _OFTEN:
        return "data_conflict"
    if history.forgetting_events and not history.correct[-1]:
        return "forgotten"
    if not history.never_learned:
        return "unexplained"
    if history.fall(0.5) >= thresholds.falling:
        return "more_training"
    return "base_conflict" if history.fall(0) > 0 else "knowledge_missing"
