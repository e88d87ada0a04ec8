"""The statistics that sets of interactions are described by, each with its interval over rows, some with their null.

One object holds the resamples, so that whatever is estimated from the same rows is resampled alike.
"""

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics import nulls
from whatstuck.dynamics.bootstrap import RowBootstrap, divide
from whatstuck.dynamics.records import NAN, Null

Floats = npt.NDArray[np.float64]
Triple = tuple[float, float, float]


class Estimates:
    """Value, low and high of statistics that are sums over rows, or ratios of such sums.

    Args:
        rows: Number of rows.
        seed: Seed of bootstrap and nulls.
    """

    def __init__(self, rows: int, *, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.bootstrap = RowBootstrap(rows, seed=seed)

    def mean(self, column: Floats) -> Triple:
        """Mean of `(rows,)`; nothing is known of a mean over numbers that are not all finite."""
        if not np.isfinite(column).all():
            return NAN, NAN, NAN
        value, low, high = self.bootstrap.ratio(column[:, None])
        return float(value[0]), float(low[0]), float(high[0])

    def ratio(self, numerator: Floats, denominator: Floats) -> Triple:
        """Sum of numerators over sum of denominators, each `(rows,)`."""
        value, low, high = self.bootstrap.ratio(numerator[:, None], denominator[:, None])
        return float(value[0]), float(low[0]), float(high[0])

    def cosine(self, before: Floats, after: Floats) -> Triple:
        """Cosine of two sets of interactions `(rows, 2, 2^n)`, pooled over rows."""
        dot, first, second = (before * after).sum((1, 2)), (before**2).sum((1, 2)), (after**2).sum((1, 2))
        value = divide(dot.sum(keepdims=True), np.sqrt(first.sum(keepdims=True) * second.sum()))
        weights = self.bootstrap.weights
        samples = divide(weights @ dot, np.sqrt((weights @ first) * (weights @ second)))
        low, high = self.bootstrap.spread(samples[:, None])
        return float(value[0]), float(low[0]), float(high[0])

    def rho(self, strength: Floats) -> Triple:
        """|sum I| / sum |I| of `(rows, 2, 2^n)`, pooled over rows (arXiv 2605.17967, Eq. 10)."""
        return self.ratio(np.abs(strength.sum((1, 2))), np.abs(strength).sum((1, 2)))

    def rho_null(self, strength: Floats) -> Null:
        """The same ratio for the same strengths with random signs."""
        return ("sign_flip", *nulls.flipped_rho(np.abs(strength).reshape(self.rows, -1), seed=self.seed))

    def contribution(self, strength: Floats, members: npt.NDArray[np.bool_]) -> Triple:
        """Mean signed effect of one interaction of a set."""
        return self.ratio(strength.sum((1, 2)), members.sum((1, 2)).astype(np.float64))

    def contribution_null(self, strength: Floats, members: npt.NDArray[np.bool_]) -> Null:
        """The same of random signs."""
        flat = np.abs(strength).reshape(self.rows, -1)
        return ("sign_flip", *nulls.flipped_contribution(flat, float(members.sum()), seed=self.seed))
