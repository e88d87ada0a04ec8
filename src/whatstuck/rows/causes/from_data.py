"""What the data says about a row that did not stick: was it trained at all, and does something oppose it?"""

import math
from typing import Any

from whatstuck.rows.causes.case import Case, Evidence, absent, not_measured, present
from whatstuck.rows.causes.conflicts import Conflict

_HALF = 0.5


def not_trained(case: Case) -> Evidence:
    """Present if a test of the feeding failed, or the trainer never showed the row."""
    failed = case.row.not_trained
    if failed:
        numbers = {"problems": [each.problem for each in failed]}
        return present("not_trained", 1.0, numbers, " ".join(each.sentence for each in failed))
    if case.history is not None and case.history.exposures == 0:
        return present("not_trained", 1.0, {"exposures": 0}, "The trainer never showed this row.")
    if case.row.fed is None or not case.fed_known:
        return not_measured("not_trained", {}, "What the trainer fed of this row is not known.")
    return absent("not_trained", {}, "It was fed as it is asked.")


def data_conflict(case: Case) -> Evidence:
    """Present if rows that ask the same teach another answer, and there is a sign that it matters.

    The sign: they are at least half, or the finished model gives an opposing answer. A row on the side of the majority
    whose model says something else again has another cause. One vote of twenty is weak evidence: the score says so.
    The score is contradiction times mass of the opposing votes, and its square root where the model gives their answer.
    """
    it = case.conflict
    numbers = _numbers(it)
    if not it.opposing:
        return _unopposed(case, numbers)
    echoed = bool(case.wrong & it.answers)
    numbers["echoed"] = echoed
    text = f"{it.opposing} of {it.votes} rows that ask the same teach another answer"
    if it.same_tokens:
        text += " (some with another text that becomes the same tokens)"
    if echoed:
        return present("data_conflict", math.sqrt(it.score), numbers, f"{text}, and the model gives that answer.")
    if it.mass >= _HALF or (it.mass >= case.thresholds.opposing and not case.wrong):
        return present("data_conflict", it.score, numbers, f"{text}.")
    return absent("data_conflict", numbers, f"{text}, but the model does not give it.")


def _unopposed(case: Case, numbers: dict[str, Any]) -> Evidence:
    it = case.conflict
    if it.many_valued:
        return absent("data_conflict", numbers, "Its prompt has many right answers in the data.")
    if it.undecided:
        text = f"{it.undecided} of {it.votes} rows that ask the same were not compared with it: {it.why_undecided}."
        return not_measured("data_conflict", numbers, text)
    if case.conflicts.blind:
        return not_measured("data_conflict", numbers, f"No equal prompt opposes it; {case.conflicts.blind}.")
    return absent("data_conflict", numbers, "No row that asks the same opposes it.")


def _numbers(it: Conflict) -> dict[str, Any]:
    return {
        "votes": it.votes,
        "own": it.own,
        "opposing": it.opposing,
        "contradiction": it.contradiction,
        "undecided": it.undecided,
        "same_tokens": it.same_tokens,
    }
