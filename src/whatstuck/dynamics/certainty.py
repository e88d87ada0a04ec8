"""What is certain about interactions that are known as ranges only.

The sparsest explanation of a value table need not be the only one, and values carry numerical noise. So an
interaction is known as a range (`low`, `high`): its value in every near-optimal explanation lies inside. Whether it is
salient then has three answers, yes, no and unknown, and so has every set built from such answers. Kleene's logic
gives the sets: a statement is certain only if it holds however the unknown ones turn out. Each salience enters each
set once, so nothing is lost by deciding part by part.

Masses are bounded the same way: the least and the most that ranges allow, exactly, interaction by interaction.
Rows, checkpoints and interactions are taken to vary freely in their ranges, so bounds of sums are on the safe side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges of interactions, two float64 arrays of the same shape; infinite where nothing is known.

    `total` is what is known of the sum of all |I| of a row, `(rows, 2)`, from below and above; it is far tighter than
    the sum of the single ranges, because all explanations are about equally sparse.
    """

    low: Floats
    high: Floats
    total: Floats | None = None

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> "Ranges":
        return Ranges(self.low[rows], self.high[rows], None if self.total is None else self.total[rows])

    @property
    def least(self) -> Floats:
        """Least size |I|."""
        return np.maximum(np.maximum(self.low, -self.high), 0.0)

    @property
    def most(self) -> Floats:
        """Largest size |I|."""
        return np.maximum(self.high, -self.low)

    def certain_signs(self, tau: float) -> Floats:
        """1 or -1 where the whole range lies beyond the threshold on that side, else 0."""
        return np.where(self.low > tau, 1.0, np.where(self.high < -tau, -1.0, 0.0))


@dataclass(frozen=True, slots=True)
class Kleene:
    """A three-valued set: `certain` members, and `possible` ones (certain or unknown)."""

    certain: Bools
    possible: Bools

    def __and__(self, other: "Kleene") -> "Kleene":
        return Kleene(self.certain & other.certain, self.possible & other.possible)

    def __invert__(self) -> "Kleene":
        return Kleene(~self.possible, ~self.certain)


@dataclass(frozen=True, slots=True)
class CertainCategories:
    """Three-valued membership at one checkpoint; the sets are those of `categories.Categories`."""

    all: Kleene
    removed: Kleene
    preserved: Kleene
    emerged: Kleene


def salient(ranges: Ranges, tau: float) -> Kleene:
    """Whether |I| > tau: certain if the whole range lies beyond it on one side, impossible if within."""
    return Kleene((ranges.low > tau) | (ranges.high < -tau), (ranges.high > tau) | (ranges.low < -tau))


def categorize_ranges(ranges: Sequence[Ranges], thresholds: Sequence[float]) -> list[CertainCategories]:
    """The paper's sets at each checkpoint, three-valued.

    Args:
        ranges: Ranges `(rows, 2, 2^n)` per checkpoint, the first at step 0.
        thresholds: tau of each checkpoint, in log-odds.

    Returns:
        One `CertainCategories` per checkpoint.
    """
    result: list[CertainCategories] = []
    for entry, tau in zip(ranges, thresholds, strict=True):
        now = salient(entry, tau)
        if not result:
            nothing = Kleene(np.zeros_like(now.certain), np.zeros_like(now.certain))
            result.append(CertainCategories(all=now, removed=nothing, preserved=now, emerged=nothing))
            continue
        before = result[-1].preserved
        result.append(
            CertainCategories(
                all=now,
                removed=result[0].all & ~now,
                preserved=before & now,
                # not `now & ~preserved`: `now` would enter twice, and an unknown one that was certainly preserved
                # so far would count as possibly emerged, which it cannot have
                emerged=now & ~before,
            )
        )
    return result


@dataclass(frozen=True, slots=True)
class MassBounds:
    """Least and most mass of each interaction, float64 `(rows, 2, 2^n)`; keys `removed`, `preserved`, `emerged`.

    `shrunk` is |I_0| - |I_t|, which is removed minus emerged mass: what is preserved drops out of the difference, so
    its bounds are tighter than the difference of the bounds.
    """

    least: dict[str, Floats]
    most: dict[str, Floats]


def mass_bounds(before: Ranges, after: Ranges) -> MassBounds:
    """Least and most of the masses of `categories.masses`, exact over the ranges of both interactions.

    Totals are not used here, see `row_bounds`.

    Args:
        before: Ranges at the reference checkpoint.
        after: Ranges now, the same shape.
    """
    # what is preserved, min(|I_0|, |I_t|) under one sign, grows with both
    kept_least = np.maximum(np.minimum(before.low, after.low), np.minimum(-before.high, -after.high))
    kept_most = np.maximum(np.minimum(before.high, after.high), np.minimum(-before.low, -after.low))
    removed_least, removed_most = _lost(before, after)
    emerged_least, emerged_most = _lost(after, before)
    return MassBounds(
        least={
            "all": after.least,
            "removed": removed_least,
            "preserved": np.maximum(kept_least, 0.0),
            "emerged": emerged_least,
            "shrunk": before.least - after.most,
        },
        most={
            "all": after.most,
            "removed": removed_most,
            "preserved": np.maximum(kept_most, 0.0),
            "emerged": emerged_most,
            "shrunk": before.most - after.least,
        },
    )


def row_bounds(before: Ranges, after: Ranges) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Least and most mass of each row, `(rows,)`: sums of `mass_bounds`, and what the totals say beyond them.

    With T the total of a checkpoint, removed = T_0 - preserved, emerged = T_t - preserved, and preserved is in both.
    """
    single = mass_bounds(before, after)
    least = {name: part.sum((1, 2)) for name, part in single.least.items()}
    most = {name: part.sum((1, 2)) for name, part in single.most.items()}
    if before.total is None or after.total is None:
        return least, most
    (low_0, high_0), (low_t, high_t) = before.total.T, after.total.T
    least["all"], most["all"] = np.maximum(least["all"], low_t), np.minimum(most["all"], high_t)
    most["preserved"] = np.minimum(most["preserved"], np.minimum(high_0, high_t))
    for name, low, high in (("removed", low_0, high_0), ("emerged", low_t, high_t)):
        least[name] = np.maximum(least[name], low - most["preserved"])
        most[name] = np.minimum(most[name], high - least["preserved"])
    least["shrunk"] = np.maximum(least["shrunk"], low_0 - high_t)
    most["shrunk"] = np.minimum(most["shrunk"], high_0 - low_t)
    return least, most


def _lost(first: Ranges, second: Ranges) -> tuple[Floats, Floats]:
    """Least and most of what `first` has and `second` lacks.

    For x > 0 that is x - y, between 0 and x: it grows with x and falls with y. For x < 0 it is the mirror image.
    """

    def positive(x: Floats, y: Floats) -> Floats:
        return np.minimum(np.maximum(x - y, 0.0), np.maximum(x, 0.0))

    least = positive(first.low, second.high) + positive(-first.high, -second.low)  # one of them is 0
    most = np.maximum(positive(first.high, second.low), positive(-first.low, -second.high))
    return least, most
