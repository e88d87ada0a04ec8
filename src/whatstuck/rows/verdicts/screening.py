"""Which rows are asked: all would be slow, and most that predict well answer well.

A row is asked because something is wrong with it already, because its loss or its tokens say so, or by chance: the
audit, a random sample of the rest, estimates what the screen misses. Of a short answer the loss says how likely the
whole of it is, so it passes only where it is likely enough to be called learned; an unusual loss alone would pass most
rows of a training in which most are unsure.
"""

import math
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from whatstuck.models.generating import seed_of
from whatstuck.rows.thresholds import Thresholds

Because = Literal["not_trained", "screen", "audit", ""]
"""Why a row is asked; empty: it is not."""


def screen(
    row_ids: Sequence[str],
    nll: Sequence[float | None],
    token_accuracy: Sequence[float | None],
    tokens: Sequence[int],
    thresholds: Thresholds,
    *,
    not_trained: Collection[str] = (),
    seed: int,
) -> list[Because]:
    """Choose the rows to ask.

    Args:
        row_ids: The rows.
        nll: Loss of each at the last checkpoint, nats per token; None or NaN where it is not known: then it is asked.
        token_accuracy: Share of right tokens, likewise.
        tokens: Number of supervised tokens of each.
        thresholds: `screen_mads`, `screen_accuracy`, `screen_likely`, `longest_answer`, and those of the audit.
        not_trained: Ids of rows that failed gate 0.
        seed: Of the audit, which depends on seed and ids alone.

    Returns:
        Why each row is asked, in the order of the rows.
    """
    loss = np.array([math.nan if value is None else value for value in nll], dtype=np.float64)
    accuracy = np.array([math.nan if value is None else value for value in token_accuracy], dtype=np.float64)
    known = loss[np.isfinite(loss)]
    highest = _highest(known, thresholds.screen_mads) if len(known) else math.inf
    count = np.array(tokens, dtype=np.float64)
    likely = (np.exp(-loss * count) >= thresholds.screen_likely) | (count > thresholds.longest_answer)
    passed = (loss <= highest) & (accuracy >= thresholds.screen_accuracy) & likely  # False for NaN
    chosen: list[Because] = ["" if good else "screen" for good in passed]
    for index, row_id in enumerate(row_ids):
        if row_id in not_trained:
            chosen[index] = "not_trained"
    rest = sorted((i for i, why in enumerate(chosen) if not why), key=lambda i: (seed_of(seed, row_ids[i]), i))
    share = thresholds.audit_share
    for index in rest[: max(math.ceil(share * len(rest)), thresholds.audit_least) if share else 0]:
        chosen[index] = "audit"
    return chosen


def _highest(loss: np.ndarray[tuple[int], np.dtype[np.float64]], deviations: float) -> float:
    """Median and some median absolute deviations.

    These are zero where most rows have one loss (all learned by heart, or copies of each other). Then every other row
    would stand out, however little, so the mean absolute deviation takes their place.
    """
    median = float(np.median(loss))
    away = np.abs(loss - median)
    return median + deviations * float(np.median(away) or away.mean())
