"""Shares with their intervals."""

import math
from dataclasses import dataclass

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval; NaN where nothing was counted."""

    value: float
    low: float
    high: float


def wilson(successes: float, trials: int) -> Share:
    """A share of independent trials, with Wilson's score interval (Wilson 1927).

    Args:
        successes: How many succeeded; a fraction where a trial is a group that succeeds in part.
        trials: How many there were.

    >>> round(wilson(0, 16).high, 3), round(wilson(0, 5).high, 3), wilson(0, 0).value
    (0.194, 0.434, nan)
    """
    if not trials:
        return Share(math.nan, math.nan, math.nan)
    share, weight = successes / trials, _Z**2 / trials
    center = (share + weight / 2) / (1 + weight)
    reach = _Z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    # at the ends the interval touches them; rounding must not leave them out
    return Share(share, 0.0 if not successes else center - reach, 1.0 if successes == trials else center + reach)
