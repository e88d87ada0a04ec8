"""The problems of `extract_interactions` from their definition, for an independent solver (Clarabel).

Nothing here is shared with the package: the dictionary is dense and written with bit operations, the strength of a
coefficient is a cone of its own, and the solver is an interior-point method. Slow, exact, for up to about 6 players.
"""

import itertools
from dataclasses import dataclass

import clarabel
import numpy as np
from scipy import sparse

AND, OR = 0, 1
_PRECISIONS = (1e-10, 1e-8, 1e-7)  # of the solver, on tables scaled to 1; the first that it reaches


def dictionary(n: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """What every coefficient adds to every coalition but the empty one, and the (kind, mask) of each.

    The OR of one player is left out: its AND is the same function.
    """
    masks = range(1, 1 << n)
    names = [(AND, mask) for mask in masks] + [(OR, mask) for mask in masks if mask.bit_count() > 1]
    effects = [[(mask & seen) == mask if kind == AND else (mask & seen) != 0 for kind, mask in names] for seen in masks]
    return np.array(effects, dtype=float), names


@dataclass(frozen=True)
class Optimum:
    """Of one group of tables: the least cost, a bound from below, and (T, k) coefficients."""

    cost: float
    proven: float
    coefficients: np.ndarray


class Program:
    """T tables explained together: `misfit` (T,) for the squared misfit, or a noise bound of T = 1 table.

    Variables are, in this order: (T, k) coefficients, (k,) strengths, (T, R) residuals of the fit, and a price of each
    table's misfit, which only `extremes` needs.
    """

    def __init__(
        self,
        values: np.ndarray,
        *,
        misfit: np.ndarray | None = None,
        tilt: tuple[float, float] = (0.0, 0.0),
        noise_bound: float = 0.0,
    ) -> None:
        effects = (values - values[:, :1])[:, 1:]
        self.scale = float(np.abs(effects).max())
        self.targets = effects / self.scale
        self.misfit = None if misfit is None else misfit / self.scale
        self.noise_bound = noise_bound / self.scale
        self.steps, self.coalitions = effects.shape
        self.matrix, self.names = dictionary(values.shape[1].bit_length() - 1)
        self.count = len(self.names)
        self.costs = np.array(
            [(1 + tilt[0] * (mask.bit_count() - 1)) * (1 + tilt[1] * (kind == OR)) for kind, mask in self.names]
        )
        starts = np.cumsum([0, self.steps * self.count, self.count, self.steps * self.coalitions, self.steps])
        self.c, self.t, self.r, self.s = (slice(*ends) for ends in itertools.pairwise(starts))
        self.size = int(starts[-1])

    def _rows(self, **parts: np.ndarray | sparse.sparray) -> sparse.sparray:
        """Rows of constraints: matrices on some of the variables, by their name, and 0 on the others."""
        height = next(iter(parts.values())).shape[0]
        slices = {"c": self.c, "t": self.t, "r": self.r, "s": self.s}
        return sparse.hstack(
            [
                sparse.csr_array(parts[name]) if name in parts else sparse.csr_array((height, part.stop - part.start))
                for name, part in slices.items()
            ]
        )

    def _constraints(self) -> tuple[list[sparse.sparray], list[np.ndarray], list[object]]:
        """A c - r = u, and |c_S| <= t_S for every S; in the box form |r| <= kappa as well."""
        fit = sparse.kron(sparse.eye_array(self.steps), self.matrix)
        rows = [self._rows(c=fit, r=-sparse.eye_array(self.targets.size))]
        ends = [self.targets.ravel()]
        cones: list[object] = [clarabel.ZeroConeT(self.targets.size)]
        for index in range(self.count):
            t = np.zeros((self.steps + 1, self.count))
            t[0, index] = -1
            c = np.zeros((self.steps + 1, self.steps * self.count))
            c[1 + np.arange(self.steps), np.arange(self.steps) * self.count + index] = -1
            if self.steps == 1:  # two half-spaces are easier to it than a cone
                t, c = t[[0, 0]], np.vstack([c[1:], -c[1:]])
            rows.append(self._rows(t=t, c=c))
            ends.append(np.zeros(len(t)))
            cones.append(clarabel.NonnegativeConeT(2) if self.steps == 1 else clarabel.SecondOrderConeT(len(t)))
        if self.misfit is None:
            both = sparse.vstack([sparse.eye_array(self.coalitions), -sparse.eye_array(self.coalitions)])
            rows.append(self._rows(r=both))
            ends.append(np.full(2 * self.coalitions, self.noise_bound))
            cones.append(clarabel.NonnegativeConeT(2 * self.coalitions))
        return rows, ends, cones

    def _solve(
        self,
        quadratic: np.ndarray,
        linear: np.ndarray,
        constraints: tuple[list[sparse.sparray], list[np.ndarray], list[object]],
    ) -> tuple[float, float, np.ndarray]:
        """Least value, a bound of it, and the point."""
        rows, ends, cones = constraints
        matrices = sparse.csc_matrix(sparse.diags_array(quadratic)), linear, sparse.csc_matrix(sparse.vstack(rows))
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.max_threads = 1
        for precision in _PRECISIONS:
            settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = precision
            found = clarabel.DefaultSolver(*matrices, np.concatenate(ends), cones, settings).solve()
            if str(found.status) == "Solved":
                return found.obj_val, found.obj_val_dual, np.array(found.x)
        raise RuntimeError(f"the other solver says {found.status}")

    def minimise(self) -> Optimum:
        """The cheapest explanation."""
        quadratic, linear = np.zeros(self.size), np.zeros(self.size)
        linear[self.t] = self.costs
        if self.misfit is not None:
            quadratic[self.r] = np.repeat(1 / self.misfit, self.coalitions)
        cost, proven, point = self._solve(quadratic, linear, self._constraints())
        coefficients = point[self.c].reshape(self.steps, self.count)
        return Optimum(cost * self.scale, proven * self.scale, coefficients * self.scale)

    def _within(self, ceiling: float) -> tuple[list[sparse.sparray], list[np.ndarray], list[object]]:
        """All explanations that cost at most `ceiling`."""
        rows, ends, cones = self._constraints()
        limit = ceiling / self.scale
        price = np.ones((1, self.steps)) if self.misfit is not None else np.zeros((1, self.steps))
        rows.append(self._rows(t=self.costs[None], s=price))
        ends.append(np.array([limit]))
        cones.append(clarabel.NonnegativeConeT(1))
        if self.misfit is None:
            rows.append(self._rows(s=sparse.eye_array(self.steps)))  # means nothing here
            ends.append(np.zeros(self.steps))
            cones.append(clarabel.ZeroConeT(self.steps))
        else:
            for one, misfit in enumerate(self.misfit):
                # |r|^2 <= 2 misfit s as a cone, scaled so that s is of the size of the limit:
                # |(r sqrt(limit / misfit), limit / 2 - s)| <= limit / 2 + s
                s = np.zeros((self.coalitions + 2, self.steps))
                s[0, one], s[1, one] = -1, 1
                r = np.zeros((self.coalitions + 2, self.steps * self.coalitions))
                r[2:, one * self.coalitions :][:, : self.coalitions] = -np.eye(self.coalitions)
                rows.append(self._rows(s=s, r=r * np.sqrt(limit / misfit)))
                ends.append(np.concatenate([[limit / 2] * 2, np.zeros(self.coalitions)]))
                cones.append(clarabel.SecondOrderConeT(self.coalitions + 2))
        return rows, ends, cones

    def extremes(self, ceiling: float, *, step: int = 0, only: list[int] | None = None) -> np.ndarray:
        """Least and most of the coefficients of one step in all explanations that cost at most `ceiling`.

        Args:
            ceiling: In units of the values.
            step: Whose coefficients.
            only: Positions in `names`; all by default.

        Returns:
            (len(only), 2).
        """
        allowed, zero = self._within(ceiling), np.zeros(self.size)
        found = []
        for index in range(self.count) if only is None else only:
            direction = np.zeros(self.size)
            direction[self.c.start + step * self.count + index] = 1
            found.append((self._solve(zero, direction, allowed)[0], -self._solve(zero, -direction, allowed)[0]))
        return np.array(found) * self.scale

    def strength_at(self, ceiling: float, most_of: int | None) -> float:
        """Sum of all |c_S| in the explanation of at most this cost where it is least, or where one c_S is most."""
        direction = np.zeros(self.size)
        if most_of is None:
            direction[self.t] = 1
        else:
            direction[self.c.start + most_of] = -1
        point = self._solve(np.zeros(self.size), direction, self._within(ceiling))[2]
        return float(np.abs(point[self.c]).sum()) * self.scale
