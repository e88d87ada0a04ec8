"""Intervals over rows, the same resamples for every statistic.

Every statistic here is a ratio of sums over rows (a mean is a ratio whose denominator is one per row). With shared
resamples the difference of two statistics is paired for free.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95


class RowBootstrap:
    """Percentile bootstrap over rows.

    Args:
        rows: Number of rows.
        seed: Seed of the resamples.
        resamples: Number of resamples.
    """

    def __init__(self, rows: int, *, seed: int, resamples: int = 1000) -> None:
        generator = np.random.default_rng(seed)
        uniform = np.full(rows, 1 / rows)
        self.rows = rows
        self.weights: Floats = generator.multinomial(rows, uniform, size=resamples).astype(np.float64)

    def ratio(self, numerator: Floats, denominator: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """Sum of numerators over sum of denominators, with its interval.

        Args:
            numerator: Shape `(rows, k)`.
            denominator: Shape `(rows, k)`; ones where missing, so that the ratio is a mean.

        Returns:
            Value, low and high, each `(k,)`. An empty denominator gives NaN; so does the interval of one row.
        """
        ones = np.ones_like(numerator) if denominator is None else denominator
        value = divide(numerator.sum(0), ones.sum(0))
        low, high = self.spread(divide(self.weights @ numerator, self.weights @ ones))
        return value, low, high

    def spread(self, samples: Floats) -> tuple[Floats, Floats]:
        """The interval of resampled statistics of shape `(resamples, k)`; NaN where there is one row only."""
        if self.rows < 2:  # noqa: PLR2004 - one row says nothing about rows
            nothing = np.full(samples.shape[1], np.nan)
            return nothing, nothing
        return interval(samples)


def interval(samples: Floats) -> tuple[Floats, Floats]:
    """The central 95 % of samples of shape `(draws, k)`, NaN samples left out.

    >>> low, high = interval(np.arange(101.0)[:, None])
    >>> round(float(low[0]), 6), round(float(high[0]), 6)
    (2.5, 97.5)
    """
    tail = (1 - CONFIDENCE) / 2
    result = np.full((2, samples.shape[1]), np.nan)
    some = ~np.isnan(samples).all(0)
    if some.any():
        result[:, some] = np.nanquantile(samples[:, some], [tail, 1 - tail], axis=0)
    return result[0], result[1]


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise ratio that is NaN, without a warning, where the denominator is zero."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result
