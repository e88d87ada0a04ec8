"""What the base model says about a row that did not stick: does it believe something else, or does it not know?"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from whatstuck.rows.causes.case import Case, Evidence, Risks, absent, not_measured, present
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.verdicts.answers import normalized

_HALF = 0.5
_STUCK, _MOVED = 0.1, 0.3  # bits; descriptors only (2604.10079 has 0.3, of a base that it does not state)


def base_conflict(case: Case) -> Evidence:
    """Present if the base model is committed to one wrong answer to this row.

    It gives it in at least `thresholds.committed` of the draws, is hardly ever right, and gives it `thresholds.lift`
    times as often as to other rows of the kind: a base model that says the same to all of them believes nothing about
    this one. The score is the share of the answer less that of the right one, higher where the finished model still
    gives it, half where it says something else; and half of that where too few other rows were asked to compare.
    """
    it = case.base
    if it is None or it.form == "choices":
        reworded = "The answer is long: in words of its own a base model says something else, whatever it believes."
        return not_measured("base_conflict", {}, "The base model was not asked." if it is None else reworded)
    usual = case.cohort.usual_share(it, it.wrong, case.bases, case.conflict.alike)
    lift = it.wrong_share / usual if usual else math.inf
    numbers = {
        "wrong": it.wrong,
        "wrong_share": it.wrong_share,
        "rate": it.rate,
        "usual_share": usual,
        "lift": lift,
        **_moved(case, it),
    }
    text = f"The base model answers {it.wrong!r} in {it.wrong_share:.0%} of {it.draws} draws"
    if it.wrong_share < case.thresholds.committed or it.rate > case.thresholds.committed_right:
        return absent("base_conflict", numbers, f"{text} and is right in {it.rate:.0%}: that is no commitment.")
    if lift < case.thresholds.lift:
        return absent("base_conflict", numbers, f"{text}, but also in {usual:.0%} of those to other such rows.")
    score = it.wrong_share - it.rate
    if it.wrong in case.wrong:
        score = 1 - (1 - score) / 2
        text += ", and the finished model still does"
    elif case.wrong:
        score /= 2
        text += "; the finished model says something else"
    if math.isnan(lift):
        score /= 2
        text += "; too few other rows were asked to say whether it answers them alike"
    return present("base_conflict", score, numbers, f"{text}.")


def with_fair_chance(found: Evidence, case: Case, risks: Risks) -> Evidence:
    """Evidence for a belief, absent where the row was hardly shown and that alone is why such rows fail.

    A belief resists training only where there was some: first the row has to be shown as often as others.

    Args:
        found: From `base_conflict`.
        case: The row.
        risks: What few exposures do among rows that have no cause yet.
    """
    if found.status != "present" or not case.few or not risks.few >= case.thresholds.attributable:
        return found
    text = (
        f"{found.sentence} But it was learned rarely, which accounts for {risks.few:.0%} of the failures of such rows."
    )
    return absent("base_conflict", found.numbers, text)


def knowledge_missing(case: Case, risks: Risks, *, committed: bool, on_its_way: bool) -> Evidence:
    """Present if the base model does not know the row, believes nothing else, and that seems to be why.

    Rows that a base model does not know are learned slower, not never (Gekhman et al. 2024). So a row counts that had
    as many exposures as learned ones, or does not get better any more; and not if rows that the base model does not
    know hardly fail more often than others. Where it knows hardly any row, or too few learned ones were asked, nothing
    says whether not knowing matters. The score is one half to one, by how scattered its answers are, times the share of
    failures that not knowing accounts for.

    Args:
        case: The row.
        risks: What not knowing does among all rows.
        committed: The base model is committed to a wrong answer.
        on_its_way: The row needs more training for a reason of its own.
    """
    it = case.base
    if it is None:
        return not_measured("knowledge_missing", {}, "The base model was not asked.")
    fall = case.fall(_HALF)
    numbers = {
        "knowledge": it.knowledge,
        "rate": it.rate,
        "entropy": it.entropy,
        "attributable": risks.unknown,
        "fall": fall,
        "few_exposures": case.few,
    }
    if it.knowledge is None:
        text = "To the base model, the question makes the answer hardly likelier than other rows' answers."
        return not_measured("knowledge_missing", numbers, text)
    if it.knowledge != "unknown":
        return absent("knowledge_missing", numbers, _known(it))
    text = _unknown(it)
    against = ""
    if committed:
        against = "it is committed to another answer"
    elif on_its_way:
        against = "the row is on its way and needs more training"
    elif risks.unknown < case.thresholds.attributable:
        against = "rows that it does not know hardly fail more often than others"
    if against:
        return absent("knowledge_missing", numbers, f"{text}, but {against}.")
    missing = _missing(case, risks, fall)
    if missing:
        return not_measured("knowledge_missing", numbers, f"{text}, but {missing}.")
    entropy = 0.0 if math.isnan(it.entropy) else it.entropy
    text += f", and not knowing accounts for {risks.unknown:.0%} of the failures of such rows."
    return present("knowledge_missing", (1 + entropy) / 2 * risks.unknown, numbers, text)


def _missing(case: Case, risks: Risks, fall: float) -> str:
    """What it would take to say that not knowing is why; empty if it is there."""
    if math.isnan(risks.unknown):
        return "too few rows that it knows, or does not know, were asked to say whether that matters"
    if case.few is None and not fall < case.thresholds.falling:
        falls = "whether the loss still falls" if math.isnan(fall) else "the loss still falls"
        return f"{falls}, and whether the row was learned as often as others is not known"
    return ""


def divergence(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Jensen-Shannon divergence of two distributions of shape `(k,)`, in bits: 0 to 1.

    >>> divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    1.0
    """
    middle = (first + second) / 2
    total = 0.0
    for side in (first, second):
        some = side > 0
        total += float((side[some] * np.log2(side[some] / middle[some])).sum()) / 2
    return max(total, 0.0)


def _unknown(base: BaseAnswers) -> str:
    if base.form == "choices":
        return "To the base model, the question makes the answer no likelier than other rows' answers"
    if base.rate > 0:
        return f"The base model is right in {base.rate:.0%} of {base.draws} draws, hardly more often than by guessing"
    return f"The base model is never right in {base.draws} draws"


def _known(base: BaseAnswers) -> str:
    if base.form == "generated":
        return f"The base model knows it: right in {base.rate:.0%} of the draws."
    if base.knowledge == "highly_known":
        return "The base model recites the answer."
    share = base.rate + (1 - base.rate) / base.draws
    return f"The base model tells the answer from {base.draws - 1} of other rows with probability {share:.0%}."


def _moved(case: Case, base: BaseAnswers) -> dict[str, Any]:
    """How far the answers moved from base to finished model, over right, most frequent wrong, and other ones.

    Answers are pooled, so it is a lower bound of the divergence over all answers.
    """
    rate, share = case.verdict.get("rate"), case.verdict.get("top_wrong_share")
    if rate is None or share is None:
        return {"divergence": math.nan, "moved": None}
    before = base.shares.get(normalized(case.verdict.get("top_wrong") or ""), 0.0)
    value = divergence(_pooled(base.rate, before), _pooled(rate, share))
    return {
        "divergence": value,
        "moved": "stuck" if value < _STUCK else "moved_wrong" if value >= _MOVED else "between",
    }


def _pooled(right: float, wrong: float) -> npt.NDArray[np.float64]:
    shares = np.array([right, wrong, max(1 - right - wrong, 0.0)])
    return np.asarray(shares / shares.sum(), dtype=np.float64)
