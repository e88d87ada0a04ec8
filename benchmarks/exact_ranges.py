"""The optimum, and the exact range of single interactions over all near-optimal explanations, by other solvers.

Our ranges are outer bounds, so a wide one may be the bound's fault. Here the smallest and the largest value of one
coefficient are found by a problem of their own: a linear program in mode `paper` (HiGHS), a second-order cone program
in mode `robust` (Clarabel). Seconds per coefficient at 8 players, so for a sample only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from whatstuck.errors import require
from whatstuck.interactions._penalized import adjoint, order_weights

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class UnsolvedError(Exception):
    """A solver gave up."""


def dictionary(n: int, tilt: tuple[float, float] = (0.0, 0.0)) -> tuple[Floats, Floats, Bools]:
    """A without the empty coalition (2^n - 1, k), the k weights, and which of (2, 2^n) have a coefficient."""
    weights = order_weights(n, tilt, torch.device("cpu"))
    there = weights.isfinite().numpy()
    columns = adjoint(torch.eye(1 << n, dtype=torch.float64)).numpy()
    return columns[1:, there], weights.numpy()[there], there


def _range(
    solve: Callable[[Floats, float], tuple[Floats, float]], k: int, coefficient: int, cost: float
) -> tuple[float, float]:
    """Least and most of one of k coefficients, by a solver that minimises over explanations of at most this cost."""
    goal = np.zeros(2 * k)  # positive parts, then negative ones
    goal[coefficient], goal[k + coefficient] = 1, -1
    return solve(goal, cost)[1], -solve(-goal, cost)[1]


@dataclass(frozen=True, slots=True)
class PaperTable:
    """One table under the noise bound.

    Attributes:
        matrix: (2^n - 1, k) A.
        effects: (2^n - 1,) u.
        noise_bound: kappa.
    """

    matrix: Floats
    effects: Floats
    noise_bound: float

    def optimum(self) -> tuple[Floats, float]:
        """An explanation of least strength, a vertex of the optimal set, and its sum of strengths."""
        return self._solve(np.ones(2 * self.matrix.shape[1]), np.inf)

    def range(self, coefficient: int, cost: float) -> tuple[float, float]:
        """Smallest and largest value in explanations of at most this cost."""
        return _range(self._solve, self.matrix.shape[1], coefficient, cost)

    def _solve(self, goal: Floats, cost: float) -> tuple[Floats, float]:
        rows = [np.hstack([self.matrix, -self.matrix]), np.hstack([-self.matrix, self.matrix])]
        limits = [self.effects + self.noise_bound, self.noise_bound - self.effects]
        if np.isfinite(cost):
            rows.append(np.ones((1, len(goal))))
            limits.append(np.array([cost]))
        optimize = require("scipy.optimize", "dev")
        found = optimize.linprog(goal, A_ub=np.vstack(rows), b_ub=np.concatenate(limits), method="highs-ds")
        if found.status != 0:
            raise UnsolvedError(found.message)
        positive, negative = np.split(found.x, 2)
        return positive - negative, float(found.fun)


@dataclass(frozen=True, slots=True)
class RobustTable:
    """One table with a squared misfit.

    Attributes:
        matrix: (2^n - 1, k) A.
        weights: (k,).
        effects: (2^n - 1,) u.
        misfit: The squared form's constant.
    """

    matrix: Floats
    weights: Floats
    effects: Floats
    misfit: float

    def optimum(self) -> tuple[Floats, float]:
        """The explanation of least cost, and the cost. One more variable s >= |r|^2 / (2 misfit) is minimised too."""
        return self._solve(np.concatenate([self.weights, self.weights]), None)

    def range(self, coefficient: int, cost: float) -> tuple[float, float]:
        """Smallest and largest value in explanations of at most this cost."""
        return _range(self._solve, self.matrix.shape[1], coefficient, cost)

    def _solve(self, goal: Floats, cost: float | None) -> tuple[Floats, float]:
        """Variables: positive parts, negative parts, r = A c - u, and s, what the misfit costs.

        |r|^2 / (2 misfit) <= s is the cone |(2 r / sqrt(2 misfit), s - 1)| <= s + 1. Without a limit on the cost, s
        is minimised beside the goal; with one, w'|c| + s <= cost.
        """
        clarabel: Any = require("clarabel", "dev")
        sparse: Any = require("scipy.sparse", "dev")
        m, k = self.matrix.shape
        minimised = np.concatenate([goal, np.zeros(m), [1.0 if cost is None else 0.0]])
        equal = np.hstack([self.matrix, -self.matrix, -np.eye(m), np.zeros((m, 1))])
        price = np.concatenate([self.weights, self.weights, np.zeros(m), [1.0]])
        below = np.vstack([-np.eye(2 * k, len(price)), price])
        cone = np.zeros((m + 2, len(price)))
        cone[:2, -1] = -1
        cone[2:, 2 * k : -1] = -2 / np.sqrt(2 * self.misfit) * np.eye(m)
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        budget = [] if cost is None else [cost]
        below = below[: 2 * k + len(budget)]
        limits = np.concatenate([self.effects, np.zeros(2 * k), budget, [1.0, -1.0], np.zeros(m)])
        solver = clarabel.DefaultSolver(
            sparse.csc_matrix((len(minimised), len(minimised))),
            minimised,
            sparse.csc_matrix(np.vstack([equal, below, cone])),
            limits,
            [clarabel.ZeroConeT(m), clarabel.NonnegativeConeT(len(below)), clarabel.SecondOrderConeT(m + 2)],
            settings,
        )
        found = solver.solve()
        if "Solved" not in str(found.status):
            raise UnsolvedError(str(found.status))
        values = np.array(found.x)
        return values[:k] - values[k : 2 * k], float(found.obj_val)
