"""Solve the sparse AND-OR problem of many value tables to a certified gap, with fast transforms only.

With a the AND coefficients and r(S) = (-1)^(|S|+1) o(S) the OR coefficients up to sign, the problem

    minimise |a|_1 + |o|_1   subject to   |reconstruct(a, o) - u| <= kappa at every coalition but the empty one

has the graph form

    minimise |a|_1 + |r|_1   subject to   P a + r - H q = h,   |q| <= kappa,

where P is the superset zeta, H = P Mobius, h = H u, and q = reconstruct(a, o) - u is the misfit. The l1 norm and the
box have a prox entry by entry, and the affine set an exact projection (`_symmetric`), so Peaceman-Rachford
splitting applies; Halpern's anchor and restarts make it fast (plain splitting needs tens of thousands of steps).

The certificate. Any y with y(∅) = 0, |y| <= 1 and |P'y| <= 1 bounds the optimum from below by h'y - kappa |H'y|_1,
and any y is made so by a division. From above we take points that satisfy all constraints: see `_candidates`.
So the gap holds for the point returned, whatever the splitting did.
"""

import math
from dataclasses import dataclass, fields
from functools import cache, partial

import torch
from torch import Tensor

from whatstuck.interactions._halpern import CHECK_EVERY, Halpern
from whatstuck.interactions._penalized import Solution
from whatstuck.interactions._symmetric import SymmetricSpectrum
from whatstuck.interactions.transforms import (
    Matrix,
    kronecker_power,
    mobius,
    orders,
    superset_mobius,
    superset_zeta,
)

_SUPERSET_ZETA_T: Matrix = ((1, 0), (1, 1))
_H: Matrix = ((0, 1), (-1, 1))
_H_T: Matrix = ((0, -1), (1, 1))


@dataclass(slots=True)
class _Rows:
    """Everything that belongs to the tables still in work; the first dimension of each field is the table."""

    index: Tensor  # (B,) position in the whole batch
    rhs: Tensor  # (B, 2^n) h
    box: Tensor  # (B, 2^n) kappa; 0 at the empty coalition
    exact: Tensor  # (B, 2, 2^n) a cheap point (a, r) with q = 0

    def keep(self, mask: Tensor) -> None:
        """Drop the tables that are done."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])


@cache
def _projector(n: int, device: torch.device) -> SymmetricSpectrum:
    """The eigenvectors of K K' with K = [P, I, -H], which the projection onto the graph needs."""

    def gram(y: Tensor) -> Tensor:
        return superset_zeta(kronecker_power(_SUPERSET_ZETA_T, y)) + y + kronecker_power(_H, kronecker_power(_H_T, y))

    return SymmetricSpectrum(gram, n, device)


@cache
def _weights(n: int, device: torch.device) -> Tensor:
    """(2, 2^n) costs of |a| and |r|: a(∅) is fixed to 0, and r(∅), which no constraint needs, is free."""
    weights = torch.ones(2, 1 << n, dtype=torch.float64, device=device)
    weights[0, 0] = math.inf
    weights[1, 0] = 0.0
    return weights


def _project(rows: _Rows, point: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest (a, r, q) with P a + r - H q = h, and the multiplier: K' multiplier = point - result."""
    a, r, q = point.unbind(1)
    excess = superset_zeta(a) + r - kronecker_power(_H, q) - rows.rhs
    n = point.shape[-1].bit_length() - 1
    multiplier = _projector(n, point.device).solve(excess, torch.zeros_like(excess[:, 0]))
    shift = torch.stack(
        [kronecker_power(_SUPERSET_ZETA_T, multiplier), multiplier, -kronecker_power(_H_T, multiplier)], dim=1
    )
    return point - shift, multiplier


def _prox(box: Tensor, state: Tensor, step: Tensor) -> Tensor:
    """Soft thresholds for a and r, the box for q."""
    limit = step[:, None, None] * _weights(state.shape[-1].bit_length() - 1, state.device)
    sparse = state[:, :2] - state[:, :2].clamp(-limit, limit)
    misfit = state[:, 2].clamp(-box, box)
    return torch.cat([sparse, misfit[:, None]], dim=1)


def _coefficients(a: Tensor, r: Tensor) -> Tensor:
    """(B, 2, 2^n) AND and OR coefficients of (a, r), order 1 merged into AND: it is the same function there."""
    n = a.shape[-1].bit_length() - 1
    order = orders(n, a.device)
    both = torch.stack([a, torch.where(order % 2 == 1, r, -r)], dim=1)
    both[:, 0] += torch.where(order == 1, both[:, 1], 0.0)
    both[:, 1].masked_fill_(order <= 1, 0.0)
    both[:, 0, 0] = 0.0
    return both


def objective(coefficients: Tensor) -> Tensor:
    """Sum of the strengths: (B, 2, 2^n) to (B,)."""
    return coefficients.abs().flatten(1).sum(1)


def _cheapest_exact(values: Tensor) -> Tensor:
    """(B, 2, 2^n) the best of three points with q = 0: AND alone, OR alone, half of each."""
    a, r = mobius(values), kronecker_power(_H, values)
    zero = torch.zeros_like(a)
    choices = torch.stack([torch.stack(pair, dim=1) for pair in ((a / 2, r / 2), (a, zero), (zero, r))], dim=1)
    costs = torch.stack([objective(_coefficients(*choice.unbind(1))) for choice in choices.unbind(1)], dim=1)
    return choices[torch.arange(len(values), device=values.device), costs.argmin(1)]


def _candidates(rows: _Rows, near: Tensor, point: Tensor) -> list[Tensor]:
    """Points that meet every constraint, near what the iteration has.

    The projected point lies on the graph but leaves the box a little, the prox point the reverse. Clipping the
    first into the box and inverting again would spread the clipped part over hundreds of coefficients. Instead

    1. mix the projected point with a point that fits exactly: the mix stays on the graph, its misfit shrinks into
       the box, and the objective suffers in proportion to the overshoot only;
    2. keep a and q of the prox point and read r off the graph;
    3. keep r and q of the prox point and read a off the graph.

    Returns:
        (B, 2, 2^n) AND and OR coefficients of each.
    """
    # the misfit at the empty coalition is 0 by definition; the projection does not know
    inside = point[:, 2].masked_fill(rows.box == 0, 0.0)
    overshoot = (point[:, 2].abs() / rows.box)[:, 1:].nan_to_num(nan=1.0).amax(1).clamp(min=1)
    share = (1 / overshoot)[:, None]
    a_mixed = share * point[:, 0] + (1 - share) * rows.exact[:, 0]
    q_mixed = (share * inside).clamp(-rows.box, rows.box)

    reach = rows.rhs + kronecker_power(_H, near[:, 2])
    return [
        _coefficients(a_mixed, rows.rhs + kronecker_power(_H, q_mixed) - superset_zeta(a_mixed)),
        _coefficients(near[:, 0], reach - superset_zeta(near[:, 0])),
        _coefficients(superset_mobius(reach - near[:, 1]), near[:, 1]),
    ]


def _lower_bound(rows: _Rows, dual: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) a proven lower bound of the optimum, and the (B, 2^n) z = H'y that proves it, from any (B, 2^n) y."""
    dual = dual.clone()
    dual[:, 0] = 0.0
    sums = kronecker_power(_SUPERSET_ZETA_T, dual)
    largest = torch.maximum(dual.abs().amax(1), sums[:, 1:].abs().amax(1)).clamp(min=1)
    proof = kronecker_power(_H_T, dual)
    proof[:, 0] = 0.0  # u and the box are 0 there, so it proves nothing; but those who use z count on it
    gain = (rows.rhs * dual).sum(1) - (rows.box * proof.abs()).sum(1)
    return gain / largest, proof / largest[:, None]


def _start(values: Tensor, noise_bound: Tensor) -> tuple[_Rows, Tensor]:
    """The tables with their bounds, and the state (B, 3, 2^n) to start from."""
    count, size = values.shape
    box = noise_bound[:, None].repeat(1, size)
    box[:, 0] = 0.0
    # from half AND, half OR: the cheapest of the three may lie far out on one side
    a, r = mobius(values) / 2, kronecker_power(_H, values) / 2
    rows = _Rows(index=torch.arange(count, device=values.device), rhs=2 * r, box=box, exact=_cheapest_exact(values))
    return rows, torch.stack([a, r, torch.zeros_like(a)], dim=1)


@torch.no_grad()
def solve(values: Tensor, noise_bound: Tensor, *, gap_tolerance: float, max_iterations: int) -> Solution:
    """Solve a batch of tables; each leaves the batch when its gap is small enough.

    Args:
        values: (B, 2^n) float64 with entry 0 equal to 0, scaled so that the largest magnitude of a row is 1.
        noise_bound: (B,) float64 kappa in the same units, below 1 (from 1 on, zero is the solution).
        gap_tolerance: Stop a table at (objective - bound) <= gap_tolerance * objective.
        max_iterations: Stop all tables here. The best point so far is returned, never the last.

    Returns:
        The best points with their bounds, in the units of `values`, as groups of one step: entries of OR of order
        1 are 0, since AND holds them. The dual z proves z'u - kappa |z|_1 with |A'z| <= 1.
    """
    rows, state = _start(values, noise_bound)
    walk = Halpern.start(state, partial(_prox, rows.box))
    best = _coefficients(*rows.exact.unbind(1))
    cost = objective(best)
    bound, dual = torch.zeros_like(cost), torch.zeros_like(values)
    iterations = torch.full_like(rows.index, max_iterations)

    for iteration in range(1, max_iterations + 1):
        near = _prox(rows.box, walk.state, walk.step)
        point, multiplier = _project(rows, 2 * near - walk.state)
        due = walk.advance(near, point, iteration)

        if iteration % CHECK_EVERY == 0 or iteration == max_iterations:
            for candidate in _candidates(rows, near, point):
                better = objective(candidate) < cost[rows.index]
                best[rows.index[better]] = candidate[better]
                cost[rows.index[better]] = objective(candidate[better])
            proven, proof = _lower_bound(rows, -multiplier / walk.step[:, None])
            higher = proven > bound[rows.index]
            bound[rows.index[higher]], dual[rows.index[higher]] = proven[higher], proof[higher]
            open_ = (cost - bound)[rows.index] > gap_tolerance * cost[rows.index]
            iterations[rows.index[~open_]] = iteration
            rows.keep(open_)
            walk.keep(open_)
            due = due[open_]
            if not len(rows.index):
                break
        if due.any():
            which = due.nonzero()[:, 0]
            walk.restart(which, partial(_prox, rows.box[which]))

    return Solution(best[:, None], cost, bound, dual[:, None], iterations)
