"""What two fine-tunings of one model kept, lost and gained: mathematics on dense interactions, no files.

No threshold decides anything. Of |I_0| the part that a model preserved is min(|I_0|, |I_X|) where the signs agree
(see `categories.masses`); of two preserved parts the smaller is kept by both. So the four parts of the base add up to
its mass, interaction by interaction.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics import nulls
from whatstuck.dynamics.categories import masses
from whatstuck.dynamics.estimates import Estimates
from whatstuck.dynamics.gamma import Gamma, shared_fraction
from whatstuck.dynamics.records import NO_NULL, Null

Floats = npt.NDArray[np.float64]
Measure = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Split:
    """Masses of two models A and B that began as one; every array is `(rows, 2, 2^n)`, none below 0.

    |I_0| = kept_both + kept_a + kept_b + lost_both, and |I_A| = kept_both + kept_a + emerged_both + emerged_a,
    elementwise; likewise for B.

    Attributes:
        kept_both: What of the base both preserved.
        kept_a: What only A preserved.
        kept_b: What only B preserved.
        lost_both: What neither preserved.
        emerged_both: What emerged in both with the same sign.
        emerged_a: What emerged in A beyond that.
        emerged_b: What emerged in B beyond that.
    """

    kept_both: Floats
    kept_a: Floats
    kept_b: Floats
    lost_both: Floats
    emerged_both: Floats
    emerged_a: Floats
    emerged_b: Floats


def common(first: Floats, second: Floats) -> Floats:
    """The smaller size where the signs agree, else 0."""
    return np.where(np.sign(first) == np.sign(second), np.minimum(np.abs(first), np.abs(second)), 0.0)


def split(base: Floats, a: Floats, b: Floats) -> Split:
    """Split the masses of two models that began as one.

    Args:
        base: Interactions before training, any shape.
        a: Interactions of A, the same shape.
        b: Interactions of B, the same shape.
    """
    in_a, in_b = masses(base, a), masses(base, b)
    kept_a, kept_b = np.abs(in_a.preserved), np.abs(in_b.preserved)
    kept_both = common(in_a.preserved, in_b.preserved)
    emerged_both = common(in_a.emerged, in_b.emerged)
    return Split(
        kept_both=kept_both,
        kept_a=kept_a - kept_both,
        kept_b=kept_b - kept_both,
        lost_both=np.abs(base) - np.maximum(kept_a, kept_b),
        emerged_both=emerged_both,
        emerged_a=np.abs(in_a.emerged) - emerged_both,
        emerged_b=np.abs(in_b.emerged) - emerged_both,
    )


def measure(triple: tuple[float, float, float], null: Null = NO_NULL) -> Measure:
    """A number with its interval, and what chance would give."""
    names = ("value", "low", "high", "null_kind", "null_mean", "null_low", "null_high")
    return dict(zip(names, (*triple, *null), strict=True))


class PairedMasses:
    """Masses of two models on the rows that they share: means per row, in log-odds.

    The null of what is shared pairs each row of A with another row of B.

    Args:
        a: Interactions of A, float64 `(rows, 2, 2^n)`.
        b: Interactions of B, the same rows and the same shape.
        seed: Seed of the bootstrap.
    """

    def __init__(self, a: Floats, b: Floats, *, seed: int) -> None:
        self._a, self._b = a, b
        self._estimates = Estimates(len(a), seed=seed)

    def present(self) -> dict[str, Measure]:
        """What both have now, whatever they began as.

        `a` and `b` are the masses; `shared` is the part of A's mass that B has too, with the same sign, after B's
        total was scaled to A's (so it is the part of B's that A has as well).
        """
        known = np.ones(len(self._a), dtype=np.bool_)
        gamma = Gamma(self._a, self._b, known, partial(shared_fraction, self._a, known=known))
        return {
            "a": self._mean(np.abs(self._a)),
            "b": self._mean(np.abs(self._b)),
            "shared": measure(self._estimates.ratio(gamma.shared, gamma.total), gamma.mismatched_rows()),
        }

    def since(self, base: Floats) -> dict[str, Measure]:
        """What each kept of a common base, what it lost and what emerged; `difference_*` are A less B, paired."""
        parts = split(base, self._a, self._b)
        in_a, in_b = masses(base, self._a), masses(base, self._b)
        chance = {
            "kept_both": self._mismatched(in_a.preserved, in_b.preserved),
            "emerged_both": self._mismatched(in_a.emerged, in_b.emerged),
        }
        names: list[str] = list(Split.__dataclass_fields__)
        found = {name: self._mean(getattr(parts, name), chance.get(name, NO_NULL)) for name in names}
        return {
            "base": self._mean(np.abs(base)),
            **found,
            "difference_kept": self._mean(parts.kept_a - parts.kept_b),
            "difference_emerged": self._mean(parts.emerged_a - parts.emerged_b),
        }

    def _mean(self, mass: Floats, null: Null = NO_NULL) -> Measure:
        return measure(self._estimates.mean(mass.sum((1, 2))), null)

    def _mismatched(self, first: Floats, second: Floats) -> Null:
        def statistic(pairing: npt.NDArray[np.int64]) -> float:
            return float(common(first, second[pairing]).sum() / len(first))

        return ("mismatched_row", *nulls.mismatched_null(len(first), statistic))


def paired_means(a: Floats, b: Floats, *, seed: int) -> dict[str, Measure]:
    """Means of two columns `(rows,)` over the same rows, and their paired difference A less B."""
    estimates = Estimates(len(a), seed=seed)
    return {
        "a": measure(estimates.mean(a)),
        "b": measure(estimates.mean(b)),
        "difference": measure(estimates.mean(a - b)),
    }


def largest_differences(
    a: Floats, b: Floats, count: int, first: npt.NDArray[np.bool_] | None = None
) -> list[tuple[int, int, int]]:
    """Places (row, 0 for AND or 1 for OR, mask) where two models differ most, the largest difference first.

    Args:
        a: Interactions of A, `(rows, 2, 2^n)`.
        b: Interactions of B, the same shape.
        count: How many places to give, at most; places without a difference are never given.
        first: Places that come before all others, the same shape.
    """
    apart = np.abs(a - b)
    later = np.zeros_like(apart) if first is None else np.where(first, 0.0, 1.0)
    order = np.lexsort((-apart.ravel(), later.ravel(), apart.ravel() == 0))[:count]
    places = zip(*np.unravel_index(order, apart.shape), strict=True)
    return [(int(row), int(kind), int(mask)) for row, kind, mask in places if apart[row, kind, mask] > 0]
