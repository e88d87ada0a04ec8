"""From answers to a verdict, and from the verdicts of some rows to a share of all.

The paper's rule (arXiv 2604.10079 §3.1.3) calls a row unlearned if none of five draws is right. It is kept beside ours,
which takes more evidence: see docs/run-folder.md for both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from whatstuck.rows.thresholds import PAPER_CHOICE, Thresholds
from whatstuck.rows.verdicts.asking import Asked
from whatstuck.rows.verdicts.intervals import Share, wilson

Verdict = Literal["learned", "unstable", "unlearned", "not_asked"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a row's answers amount to.

    Attributes:
        verdict: `unlearned`: no answer is right. `learned`: the most likely answer is right, and most draws are.
            `unstable`: neither. `not_asked`: its answers would say nothing, for `reason`.
        paper_unlearned: None of the first five draws is right; of a choice, five drawn letters would more likely all be
            wrong than not. None where it could not be asked, or the letters say nothing.
        reason: Why the row could not be asked; mostly empty.
    """

    verdict: Verdict
    paper_unlearned: bool | None
    reason: str


def judge(asked: Asked, thresholds: Thresholds) -> Judged:
    """The verdict on a row that was asked.

    Args:
        asked: Its answers. Generated: unlearned if all draws and the greedy answer are wrong. A choice: unlearned if
            the right option has a probability of at most `choice_unlearned`. Learned, for both: the most likely answer
            is right and the rate is at least `learned_rate`; or a long answer is recited.
        thresholds: `learned_rate`, `choice_unlearned`.
    """
    if asked.unavailable:
        return Judged("not_asked", None, asked.unavailable)
    verdict: Verdict = "unstable"
    paper: bool | None
    if asked.form == "choices":
        paper = None if math.isnan(asked.letters) else asked.letters <= PAPER_CHOICE
        if asked.rate <= thresholds.choice_unlearned:
            verdict = "unlearned"
    else:
        paper = asked.first_right == 0
        if not asked.right and not asked.greedy_right:
            verdict = "unlearned"
    if asked.recited or (asked.greedy_right and asked.rate >= thresholds.learned_rate):
        verdict = "learned"
    return Judged(verdict, paper, "")


def miss_rate(audited: Sequence[bool]) -> Share:
    """Share of the rows that passed the screen which are not learned all the same.

    Args:
        audited: Of each row of the audit: was it found unlearned (or whatever is counted)?

    Returns:
        With Wilson's interval; NaN without an audit.
    """
    return wilson(sum(audited), len(audited))


def share_unlearned(found: Sequence[bool], audited: Sequence[bool], rest: int) -> Share:
    """Share of all rows of the file that are unlearned.

    What was asked is known; of the rest, the audit tells the rate. So the interval is about the rows that were not
    asked, and has no width where all were. It does not cover what another training, or another file, would give.

    Args:
        found: Of each row that was asked for a reason: is it unlearned?
        audited: The same of each row of the audit.
        rest: Rows that passed the screen and were not asked.

    Returns:
        NaN without rows, and where rows were not asked and none was audited (then from no to all of them).
    """
    total = len(found) + len(audited) + rest
    if not total:
        return Share(math.nan, math.nan, math.nan)
    known = sum(found) + sum(audited)
    if not rest:
        return Share(known / total, known / total, known / total)
    missed = miss_rate(audited)
    if not audited:
        return Share(math.nan, known / total, (known + rest) / total)
    value, low, high = ((known + rest * share) / total for share in (missed.value, missed.low, missed.high))
    return Share(value, low, high)
