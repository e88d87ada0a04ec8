"""Removed, preserved and emerged interactions, with a threshold and without.

The paper's sets (arXiv 2605.17967) ask which interactions are salient, |I| > tau, at which checkpoints:

    P_0 = Omega_0,  P_t = P_{t-1} & Omega_t     preserved: salient at every checkpoint so far
    E_t = Omega_t - P_t                         emerged, those that vanished and came back included
    R_t = Omega_0 - Omega_t                     removed; carries its strength at step 0

They depend on tau, and P_t on the grid of checkpoints. The masses below need no threshold: of |I_0| and |I_t| with
the same sign the smaller is preserved, the rest of |I_0| is removed and the rest of |I_t| has emerged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Categories:
    """Membership at one checkpoint; every array is bool of shape `(rows, 2, 2^n)`, AND before OR.

    Attributes:
        all: Omega_t.
        removed: R_t.
        preserved: P_t.
        emerged: E_t.
        reappeared: Members of E_t that were salient at step 0.
        sign_changed: Members of P_t whose sign is not the one of step 0.
    """

    all: Bools
    removed: Bools
    preserved: Bools
    emerged: Bools
    reappeared: Bools
    sign_changed: Bools


def categorize(effects: Sequence[Floats], thresholds: Sequence[float]) -> list[Categories]:
    """The paper's sets at each checkpoint.

    Args:
        effects: One array `(rows, 2, 2^n)` of interactions per checkpoint, the first at step 0.
        thresholds: tau of each checkpoint, in log-odds.

    Returns:
        One `Categories` per checkpoint.
    """
    result: list[Categories] = []
    for effect, tau in zip(effects, thresholds, strict=True):
        now = np.abs(effect) > tau
        base = result[0].all if result else now
        preserved = result[-1].preserved & now if result else now
        emerged = now & ~preserved
        result.append(
            Categories(
                all=now,
                removed=base & ~now,
                preserved=preserved,
                emerged=emerged,
                reappeared=emerged & base,
                sign_changed=preserved & (np.sign(effect) != np.sign(effects[0])),
            )
        )
    return result


@dataclass(frozen=True, slots=True)
class Masses:
    """Signed mass of each interaction that was removed, preserved or has emerged; float64 `(rows, 2, 2^n)`.

    `removed` carries the sign of I_0, `preserved` and `emerged` that of I_t, so that
    |I_0| = |preserved| + |removed| and |I_t| = |preserved| + |emerged|, elementwise.
    """

    removed: Floats
    preserved: Floats
    emerged: Floats


def masses(before: Floats, after: Floats) -> Masses:
    """Split two sets of interactions without a threshold.

    Args:
        before: Interactions at the reference checkpoint, any shape.
        after: Interactions now, the same shape.
    """
    same_sign = np.sign(before) == np.sign(after)
    kept = np.where(same_sign, np.minimum(np.abs(before), np.abs(after)), 0.0)
    return Masses(
        removed=np.sign(before) * (np.abs(before) - kept),
        preserved=np.sign(after) * kept,
        emerged=np.sign(after) * (np.abs(after) - kept),
    )


def common_gain(before: Floats, after: Floats) -> float:
    """Least-squares gain g of `after ~ g * before`: what a model that only grew more confident would show."""
    norm = float((before**2).sum())
    return float((before * after).sum()) / norm if norm else float("nan")
