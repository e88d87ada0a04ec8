"""What the training says about a row that did not stick: was it learned and lost, or is it on its way?"""

import math
from typing import Any

from whatstuck.rows.causes.case import Case, Evidence, Risks, absent, not_measured, present
from whatstuck.rows.histories import History

_HALF = 0.5


def forgotten(case: Case) -> Evidence:
    """Present if the row was learned, lost, and left behind.

    Learned: right at an earlier checkpoint of the fine-tuning. Lost: wrong at the last one, and its probability fell by
    at least `thresholds.drop`. Left behind: last learned in the first part of the training (`thresholds.early`) or,
    where that is not known, right there and wrong at every checkpoint since. A row that was learned until the end and
    is wrong nevertheless was not forgotten; others pushed it away. One that the base model had right, and of which it
    is not known when it was last learned, may be either. The score is the fall of the probability.
    """
    it = case.history
    if it is None:
        return not_measured("forgotten", {}, "The row has no trajectory.")
    count, least = int(it.tuned.sum()), case.thresholds.checkpoints
    numbers: dict[str, Any] = {
        "checkpoints": count,
        "forgetting_events": it.forgetting_events,
        "last_learned_step": it.last_learned_step,
        "last_exposure_step": it.last_exposure_step,
        "last_step": int(it.steps[-1]),
        "right_before": it.right_before,
    }
    if count < least:
        text = f"{count} checkpoints are too few to see forgetting: it takes {least}."
        return not_measured("forgotten", numbers, text)
    if it.never_learned:
        return absent("forgotten", numbers, "It was right at no checkpoint.")
    if it.correct[-1]:
        return absent("forgotten", numbers, "It is right at the last checkpoint, as the trainer feeds it.")
    drop = float(it.probability[it.correct & it.tuned].max() - it.probability[-1])
    numbers["drop"] = drop
    text = f"It was right at step {it.last_learned_step}, and its probability fell by {drop:.2f} until the end"
    if drop < case.thresholds.drop:
        return absent("forgotten", numbers, f"{text}: that is little.")
    return _left_behind(it, case.thresholds.early, drop, numbers, text)


def _left_behind(it: History, early: float, drop: float, numbers: dict[str, Any], text: str) -> Evidence:
    last = int(it.steps[-1])
    if it.last_exposure_step is not None:
        text += f"; it was last learned at step {it.last_exposure_step} of {last}"
        if it.last_exposure_step <= early * last:
            return present("forgotten", drop, numbers, f"{text}.")
        return absent("forgotten", numbers, f"{text}, so it was not left behind.")
    late = it.steps > early * last
    if it.correct[late].any():
        return absent("forgotten", numbers, f"{text}; it was right late in the training.")
    if it.right_before:
        text += "; the base model had it right, and when it was last learned is not known."
        return not_measured("forgotten", numbers, text)
    if int(late.sum()) < 2:  # noqa: PLR2004 - wrong at one checkpoint is no lasting loss
        return not_measured("forgotten", numbers, f"{text}; one late checkpoint does not show that it stayed wrong.")
    return present("forgotten", drop, numbers, f"{text}; it was wrong at all {int(late.sum())} late checkpoints.")


def more_training(case: Case, risks: Risks) -> tuple[Evidence, bool]:
    """Present if the row gets better and something says why it is behind.

    Better: its loss still falls from the middle of the training on (by `thresholds.falling`) or, with few exposures,
    fell since the base at all. Why: few exposures, a long answer or a rare form of prompt, where these raise the risk;
    or rows with a loss like its own were still being learned late; or most rows are wrong at the end and their median
    loss was still falling (by `thresholds.unfinished`), so that the whole training was too short. Never for a row that
    was right and lost.

    A row that was learned once or twice cannot show whether it gets better, and may be right by chance for a while. So
    where few exposures are known to raise the risk, neither is asked of it.

    Returns:
        The evidence, and whether it has a reason of its own (not only one of the last two), so that it speaks against
        knowledge that is missing.
    """
    it = case.history
    late, whole = case.fall(_HALF), case.fall(0)
    if it is None:
        return not_measured("more_training", {}, "The row has no trajectory."), False
    falling = late >= case.thresholds.falling
    numbers: dict[str, Any] = {
        "fall": late,
        "fall_since_base": whole,
        "exposures": it.exposures,
        "median_exposures": case.cohort.exposures,
        "tokens": it.tokens,
        "nll": float(it.nll[-1]),
        "late_nll": case.cohort.late_nll,
        "unfinished": case.cohort.unfinished,
    }
    shown_rarely = bool(case.few) and risks.few >= case.thresholds.attributable
    if it.correctness and not shown_rarely and not (it.correct[-1] and it.forgetting_events == 0):
        text = f"It was right at step {it.first_learned_step} already, and lost again."
        return absent("more_training", numbers, text), False
    own = _reasons(case, it, risks)
    reasons = dict(own)
    if falling and it.nll[-1] <= case.cohort.late_nll:
        reasons["rows with a loss like its own were still being learned late"] = min(1.0, late) / 2
    if falling and case.cohort.unfinished >= case.thresholds.unfinished:
        fell = f"the median loss fell by {case.cohort.unfinished:.0%} at its end"
        reasons[f"the training was too short as a whole ({fell})"] = min(1.0, late) / 2
    if reasons and (falling or shown_rarely or (case.few and whole >= case.thresholds.falling)):
        numbers["reasons"] = list(reasons)
        fell = f"Its loss still falls (by {late:.0%} since step {_middle(it)})" if falling else "Its loss fell"
        if shown_rarely and not falling:
            fell = f"Few exposures account for {risks.few:.0%} of the failures of such rows"
        if it.correct[-1]:  # each token is the most likely one, yet not likely enough to be drawn
            fell = f"It is right as it is fed, though other answers are drawn. {fell}"
        text = f"{fell}, and {' and '.join(reasons)}."
        return present("more_training", max(reasons.values()), numbers, text), bool(own)
    if math.isnan(late):
        text = "No checkpoint in the middle of the training shows whether its loss still falls."
        return not_measured("more_training", numbers, text), False
    if case.few is None:
        text = "Whether the row was learned as often as others is not known, and nothing else says that it is behind."
        return not_measured("more_training", numbers, text), False
    text = (
        f"Its loss falls by {late:.0%}, but nothing holds it back." if falling else "Its loss does not fall any more."
    )
    return absent("more_training", numbers, text), False


def _middle(it: History) -> int | None:
    at = it.since(_HALF)
    return None if at is None else int(it.steps[at])


def _reasons(case: Case, it: History, risks: Risks) -> dict[str, float]:
    """Why the row is behind, with the strength of each reason."""
    least = case.thresholds.attributable
    found: dict[str, float] = {}
    if case.few and not risks.few < least:  # NaN counts: that a row was hardly shown speaks for itself
        usual = case.cohort.exposures
        scale = 1.0 if math.isnan(risks.few) else risks.few
        found[f"it was learned {it.exposures} times, where {usual:g} are usual"] = scale * (
            1 - (it.exposures or 0) / usual
        )
    if it.tokens > case.cohort.long and risks.long >= least:
        found[f"its answer is long ({it.tokens} tokens)"] = risks.long
    if case.row.row_id in case.cohort.rare and risks.rare >= least:
        found["its form of prompt is rare"] = risks.rare
    return found
