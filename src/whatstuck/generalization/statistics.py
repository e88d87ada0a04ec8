"""What the replies of a cell say: success, validity and chance, each with its interval.

Items that were made of the same content are not independent: a hand of cards is solved or not, in whatever order it is
dealt. So intervals count contents, not items.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from whatstuck.dynamics.bootstrap import RowBootstrap
from whatstuck.generalization.cells import CHECK_FAILED, CHECK_TIMED_OUT, GREEDY
from whatstuck.generalization.task import LONGER, NO_ANSWER, Variant
from whatstuck.rows.verdicts.intervals import Share, wilson

_FEW = 40  # contents below which a bootstrap over them is not trusted alone


def clustered(values: Sequence[float | None], keys: Sequence[str], *, seed: int = 0, shared: bool = False) -> Share:
    """A mean with its 95 % interval.

    Where every content occurs once and values are 0 or 1, by Wilson's score. Where contents repeat, by a bootstrap over
    contents. Resamples of few contents are much alike, of contents that are alike all the same: three hands with one
    miss in a hundred each would give an interval without width. So below 40 contents, and where all values are 0 or
    all are 1, it is at least as wide as Wilson's of as many trials as there are contents.

    Args:
        values: From 0 to 1; None and NaN are left out.
        keys: Content of each.
        seed: Of the resamples.
        shared: Values rest on the other contents, too, as chance does: then it is never narrower than Wilson's.

    >>> share = clustered([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"])
    >>> share.value, share.low, share.high
    (0.5, 0.0, 1.0)
    >>> round(clustered([1.0, 1.0, 0.0] * 2, ["a"] * 3 + ["b"] * 3).low, 3)  # the bootstrap alone: 0.667
    0.159
    """
    known = [(float(value), key) for value, key in zip(values, keys, strict=True) if value is not None]
    known = [(value, key) for value, key in known if not math.isnan(value)]
    contents = sorted({key for _, key in known})
    total = sum(value for value, _ in known)
    if not known:
        return Share(math.nan, math.nan, math.nan)
    if total in (0, len(known)):
        return wilson(len(contents) if total else 0, len(contents))
    if len(contents) == len(known) and all(value in (0.0, 1.0) for value, _ in known):
        return wilson(round(total), len(known))
    place = {key: index for index, key in enumerate(contents)}
    sums = np.zeros((len(contents), 2))
    for value, key in known:
        sums[place[key]] += (value, 1.0)
    mean, low, high = RowBootstrap(len(contents), seed=seed).ratio(sums[:, :1], sums[:, 1:])
    found = Share(float(mean[0]), float(low[0]), float(high[0]))
    if len(contents) >= _FEW and not shared:
        return found
    least = wilson(found.value * len(contents), len(contents))
    # the bootstrap over one content is not known
    return Share(found.value, float(np.fmin(found.low, least.low)), float(np.fmax(found.high, least.high)))


def cell_rows(
    records: Sequence[Mapping[str, Any]],
    *,
    task: str,
    arm: str,
    variant: Variant,
    step: int,
    temperature: float | None = None,
    unsolvable: int = 0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of `schemas.GENERALIZATION` from the replies of a cell: the greedy ones, and those drawn.

    Args:
        records: Rows of `schemas.REPLIES`; those that an older version wrote may lack `cut` and `old`.
        task: Name of the task.
        arm: Which training.
        variant: What was asked.
        step: Of the checkpoint.
        temperature: Of the draws.
        unsolvable: Contents that no item could be made of.
        seed: Of the resamples.
    """
    found = []
    for decoding, drawn in (("greedy", False), (f"temperature {temperature:g}" if temperature else "", True)):
        of_kind = [record for record in records if (record["sample"] != GREEDY) == drawn]
        if drawn and not of_kind:
            continue
        keys = [record["content"] for record in of_kind]
        success, validity, chance, old = (
            clustered([record.get(name) for record in of_kind], keys, seed=seed, shared=name == "chance")
            for name in ("success", "valid", "chance", "old")
        )
        outcomes = [record["outcome"] for record in of_kind]
        cut = [record.get("cut") for record in of_kind]
        found.append(
            {"task": task, "arm": arm, "variant": variant.name, "kind": variant.kind, "step": step}
            | {"decoding": decoding, "items": len(of_kind), "contents": len(set(keys))}
            | {"success": success.value, "low": success.low, "high": success.high}
            | {"validity": validity.value, "validity_low": validity.low, "validity_high": validity.high}
            | {"chance": chance.value, "chance_low": chance.low, "chance_high": chance.high}
            | {"old": old.value, "old_low": old.low, "old_high": old.high}
            | {
                "no_answer": outcomes.count(NO_ANSWER.outcome),
                "longer": outcomes.count(LONGER),
                "failed": outcomes.count(CHECK_FAILED),
            }
            | {"timed_out": outcomes.count(CHECK_TIMED_OUT), "unsolvable": unsolvable}
            | {"cut": None if None in cut else sum(map(bool, cut))}
        )
    return found
