"""Generalizability: which share of an effect do other models encode too, with the same sign?

arXiv 2605.17967, Eqs. 7 and 9: an interaction counts where the other model's own salient set holds it with the same
sign, AND matched with AND and OR with OR. The form without a threshold counts the part of each strength that the
other model has as well, after its total mass was scaled to ours.

One other model is brittle: how much is shared depends on which. So several are pooled, each with equal rights.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics import nulls
from whatstuck.dynamics.bootstrap import divide
from whatstuck.dynamics.records import NAN, Null

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

POOLED = "pooled"
"""Name under which all baselines together stand."""
UPPER_BOUND = "another seed"
"""Name of the same model, fine-tuned with another seed: what gamma could reach at best, and no baseline."""


class Gamma:
    """gamma of one set against one model: sum over rows of `shared` over sum of `total`.

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
        self._draws: dict[str, Floats] = {}
        self.total: Floats = np.abs(self._strength).sum((1, 2))
        self.shared = self._shared_with(theirs)

    def mismatched_rows(self) -> Null:
        """Null: the other model's interactions are those of another row."""
        return PooledGamma([self]).mismatched_rows()

    def stratified(self, orders: npt.NDArray[np.int64], *, seed: int) -> Null:
        """Null: the other model's interactions are shuffled within each order and kind."""
        return PooledGamma([self]).stratified(orders, seed=seed)

    def mismatched_draws(self) -> Floats:
        """What is shared, over all rows, in each pairing of rows; made once."""
        if "mismatched" not in self._draws:
            rows = np.flatnonzero(self._known)
            swapped = np.zeros_like(self._theirs)
            draws = []
            for pairing in nulls.mismatched(len(rows)):
                swapped[rows] = self._theirs[rows[pairing]]
                draws.append(self._shared_with(swapped).sum())
            self._draws["mismatched"] = np.array(draws, dtype=np.float64)
        return self._draws["mismatched"]

    def stratified_draws(self, orders: npt.NDArray[np.int64], *, seed: int) -> Floats:
        """What is shared, over all rows, in each shuffle; made once."""
        key = f"stratified {seed}"
        if key not in self._draws:
            shuffles = nulls.stratified_shuffles(orders, seed=seed)
            self._draws[key] = np.array([self._shared_with(self._theirs[:, :, shuffle]).sum() for shuffle in shuffles])
        return self._draws[key]

    def _shared_with(self, theirs: Floats) -> Floats:
        agreement = self._agree(theirs)
        same_sign = np.sign(self._strength) == np.sign(agreement)
        shared: Floats = np.where(same_sign, np.abs(self._strength * agreement), 0.0).sum((1, 2))
        return shared


class PooledGamma:
    """gamma of one set against several models: what is shared with each, summed, over what could be.

    A row counts once for every model that was probed on it. The nulls pair or shuffle alike for all models, so that
    what the models have in common does not make chance look narrower than it is.

    Args:
        gammas: One per model, at least one.
    """

    def __init__(self, gammas: Sequence[Gamma]) -> None:
        self._gammas = gammas
        self.total: Floats = np.sum([gamma.total for gamma in gammas], axis=0)
        self.shared: Floats = np.sum([gamma.shared for gamma in gammas], axis=0)

    def mismatched_rows(self) -> Null:
        """Null: the other models' interactions are those of another row.

        Where a model was probed on fewer rows there are fewer pairings, and no more are drawn for the others.
        """
        return self._null("mismatched_row", [gamma.mismatched_draws() for gamma in self._gammas])

    def stratified(self, orders: npt.NDArray[np.int64], *, seed: int) -> Null:
        """Null: the other models' interactions are shuffled within each order and kind."""
        return self._null("order_stratified", [gamma.stratified_draws(orders, seed=seed) for gamma in self._gammas])

    def _null(self, name: str, draws: Sequence[Floats]) -> Null:
        fewest = min(len(drawn) for drawn in draws)
        together = np.sum([drawn[:fewest] for drawn in draws], axis=0)
        whole = self.total.sum()
        if not whole:
            return (name, NAN, NAN, NAN)
        return (name, *nulls.summary(together / whole))


def pools(baselines: Sequence[str]) -> dict[str, list[str]]:
    """Names of the pools of baselines, and who is in them: all, and all but one where there are several.

    >>> pools(["a", "b", "another seed"])
    {'pooled': ['a', 'b'], 'pooled without a': ['b'], 'pooled without b': ['a']}
    >>> pools(["another seed"])
    {}
    """
    members = [name for name in baselines if name != UPPER_BOUND]
    found = {POOLED: members} if members else {}
    if len(members) > 1:
        found |= {f"{POOLED} without {name}": [other for other in members if other != name] for name in members}
    return found


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
