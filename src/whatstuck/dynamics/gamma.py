"""Generalizability: which share of an effect does another model encode too, with the same sign?

arXiv 2605.17967, Eqs. 7 and 9: an interaction counts where the other model's own salient set holds it with the same
sign, AND matched with AND and OR with OR. The form without a threshold counts the part of each strength that the
other model has as well, after its total mass was scaled to ours.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics import nulls
from whatstuck.dynamics.bootstrap import divide
from whatstuck.dynamics.records import NAN, Null

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Gamma:
    """gamma of one set, pooled over rows: sum of `shared` over sum of `total`.

    Args:
        strength: Our signed interactions, zero outside the set, `(rows, 2, 2^n)`.
        theirs: The other model's signed interactions, the same shape.
        known: Rows that the other model was probed on, `(rows,)`.
        agree: From their interactions to their sign times how much of our strength they account for (0 to 1).
            The nulls shuffle `theirs` and ask again: what has no partner of ours must get its chance to find one.
    """

    def __init__(
        self, strength: Floats, theirs: Floats, known: Bools, agree: Callable[[Floats], Floats] = np.sign
    ) -> None:
        self._strength = np.where(known[:, None, None], strength, 0.0)
        self._theirs = theirs
        self._known = known
        self._agree = agree
        self.total: Floats = np.abs(self._strength).sum((1, 2))
        self.shared = self._shared_with(theirs)

    def mismatched_rows(self) -> Null:
        """Null: the other model's interactions are those of another row."""
        rows = np.flatnonzero(self._known)

        def statistic(pairing: npt.NDArray[np.int64]) -> float:
            swapped = np.zeros_like(self._theirs)
            swapped[rows] = self._theirs[rows[pairing]]
            return self._pooled(swapped)

        return ("mismatched_row", *nulls.mismatched_null(len(rows), statistic))

    def stratified(self, orders: npt.NDArray[np.int64], *, seed: int) -> Null:
        """Null: the other model's interactions are shuffled within each order and kind."""
        draws = [self._pooled(self._theirs[:, :, shuffle]) for shuffle in nulls.stratified_shuffles(orders, seed=seed)]
        return ("order_stratified", *nulls.summary(np.array(draws)))

    def _shared_with(self, theirs: Floats) -> Floats:
        agreement = self._agree(theirs)
        same_sign = np.sign(self._strength) == np.sign(agreement)
        shared: Floats = np.where(same_sign, np.abs(self._strength * agreement), 0.0).sum((1, 2))
        return shared

    def _pooled(self, theirs: Floats) -> float:
        whole = self.total.sum()
        return float(self._shared_with(theirs).sum() / whole) if whole else NAN


def shared_fraction(ours: Floats, theirs: Floats, known: Bools) -> Floats:
    """Signed part (0 to 1) of each of our strengths that the other model has, at equal total mass.

    Args:
        ours: Our interactions, `(rows, 2, 2^n)`.
        theirs: The other model's, zero on rows where it is not known, the same shape.
        known: Rows that the other model was probed on.
    """
    reference = np.abs(ours)
    mass = np.abs(theirs).sum()
    scale = reference[known].sum() / mass if mass else 0.0
    fraction = np.nan_to_num(divide(np.abs(theirs) * scale, reference))
    return np.sign(theirs) * np.minimum(fraction, 1.0)
