"""Sparse AND-OR interactions with a squared misfit: unique where the dictionary allows it, and calm under noise.

For one table (or for a row's tables at several checkpoints t, `joint`) with the effects u = v - v(∅),

    minimise  sum over S of w_S |c_S|  +  sum over t of |A c_t - u_t|^2 / (2 misfit_t),

where c_S are the AND and OR coefficients of S (for `joint` the vector over checkpoints, |c_S| its Euclidean norm) and
A c is the value of every coalition but the empty one. Weights grow with the order, and a little more for OR, so that
of equally strong explanations the simpler one wins.

The two parts split well: the penalty has a proximal point entry by entry, and that of the quadratic needs
(A A' + shift)^-1, which `_symmetric` applies exactly for any shift. No third variable for the misfit is needed, which
saves two thirds of the iterations against the graph form of `_boxed`.

The certificate. Any z (one number per coalition) with |A'z|_S <= w_S bounds the optimum from below by
z'u - misfit |z|^2 / 2, and any z is made so by a factor; the residual of the iteration over its step is such a z for
free. It bounds the group problem in the same way, with |.| over the checkpoints: there is no separate loose bound.
"""

import math
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from whatstuck.interactions._halpern import CHECK_EVERY, Halpern
from whatstuck.interactions._symmetric import SymmetricSpectrum
from whatstuck.interactions.transforms import or_values, orders, reconstruct, superset_zeta


@dataclass(frozen=True, slots=True)
class Solution:
    """The best point found for each table or group of tables, with its certificate.

    Attributes:
        coefficients: (B, T, 2, 2^n) AND and OR coefficients, exactly sparse. Entry 0 of both and order 1 of OR are 0.
        cost: (B,) objective of the point.
        bound: (B,) proven lower bound of the smallest possible objective.
        dual: (B, T, 2^n) the z that proves it; entry 0 is 0.
        iterations: (B,) int64.
    """

    coefficients: Tensor
    cost: Tensor
    bound: Tensor
    dual: Tensor
    iterations: Tensor


@cache
def order_weights(n: int, tilt: tuple[float, float], device: torch.device) -> Tensor:
    """(2, 2^n) costs of AND and OR: 1 at order 1, `tilt[0]` more per further player, `tilt[1]` of it more for OR.

    Infinite where no coefficient is: ∅, and the OR of one player, which is its AND.
    """
    order = orders(n, device)
    weights = (1 + tilt[0] * (order.to(torch.float64) - 1)).repeat(2, 1)
    weights[1] *= 1 + tilt[1]
    weights[:, 0] = math.inf
    weights[1, order == 1] = math.inf
    return weights


def apply(coefficients: Tensor) -> Tensor:
    """Values of (..., 2, 2^n) coefficients without a constant: (..., 2^n)."""
    return reconstruct(*coefficients.unbind(-2))


def adjoint(values: Tensor) -> Tensor:
    """The transpose of `apply`, on values whose entry 0 is 0: (..., 2^n) to (..., 2, 2^n).

    Entries at ∅ and the OR of order 1 are no coefficients; their value means nothing.
    """
    return torch.stack([superset_zeta(values), or_values(values)], dim=-2)  # "S meets T" is symmetric


@cache
def _allowed(n: int, device: torch.device) -> Tensor:
    """(2, 2^n) 1 where there is a coefficient."""
    return order_weights(n, (0.0, 0.0), device).isfinite().to(torch.float64)


@cache
def _spectrum(n: int, device: torch.device) -> SymmetricSpectrum:
    """The eigenvectors of A A'."""
    allowed = _allowed(n, device)

    def gram(values: Tensor) -> Tensor:
        values = values.clone()
        values[..., 0] = 0.0
        return apply(adjoint(values) * allowed)

    return SymmetricSpectrum(gram, n, device)


def strength(coefficients: Tensor) -> Tensor:
    """(B, T, 2, 2^n) to (B, 2, 2^n): magnitude over the checkpoints of a group."""
    if coefficients.shape[1] == 1:
        return coefficients[:, 0].abs()
    return coefficients.square().sum(1).sqrt()


def prox(weights: Tensor, state: Tensor, step: Tensor) -> Tensor:
    """Shrink each coefficient, or each group, towards 0 by step times weight."""
    limit = step[:, None, None] * weights
    if state.shape[1] == 1:
        return state - state.clamp(-limit[:, None], limit[:, None])
    size = strength(state)
    factor = torch.where(size > limit, 1 - limit / size, 0.0)
    return state * factor[:, None]


def objective(coefficients: Tensor, values: Tensor, misfit: Tensor, weights: Tensor) -> Tensor:
    """(B,) penalty plus misfit of (B, T, 2, 2^n) coefficients."""
    penalty = (strength(coefficients) * weights.nan_to_num(posinf=0.0)).flatten(1).sum(1)
    off = apply(coefficients) - values
    return penalty + (off.square().sum(2) / (2 * misfit)).sum(1)


def feasible(dual: Tensor, gradient: Tensor, values: Tensor, misfit: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The best multiple of a dual that is proven feasible, and what it proves.

    Args:
        dual: (B, T, 2^n), entry 0 is 0.
        gradient: (B, T, 2, 2^n) `adjoint(dual)`.
        values: (B, T, 2^n) effects.
        misfit: (B, T).
        weights: (2, 2^n).

    Returns:
        (B,) factor and (B,) lower bound of the optimum.
    """
    largest = (strength(gradient) / weights).flatten(1).amax(1)
    gain = (dual * values).sum((1, 2))
    curve = (misfit * dual.square().sum(2)).sum(1)
    factor = torch.minimum((gain / curve).clamp(min=0), 1 / largest).nan_to_num(nan=0.0, posinf=0.0)
    return factor, factor * gain - factor.square() * curve / 2


@torch.no_grad()
def solve(
    values: Tensor, misfit: Tensor, tilt: tuple[float, float], *, gap_tolerance: float, max_iterations: int
) -> Solution:
    """Solve a batch of tables or groups; each leaves the batch when its gap is small enough.

    Args:
        values: (B, T, 2^n) float64 with entry 0 equal to 0, scaled so that the largest magnitude of a row is 1.
        misfit: (B, T) float64, positive, in the same units.
        tilt: See `order_weights`.
        gap_tolerance: Stop a table at (objective - bound) <= gap_tolerance * objective.
        max_iterations: Stop all tables here. The best point so far is returned, never the last.

    Returns:
        The best points with their bounds, in the units of `values`.
    """
    rows, steps, size = values.shape
    n = size.bit_length() - 1
    weights = order_weights(n, tilt, values.device)
    allowed, spectrum = _allowed(n, values.device), _spectrum(n, values.device)
    best = torch.zeros(rows, steps, 2, size, dtype=torch.float64, device=values.device)
    cost = objective(best, values, misfit, weights)
    bound, dual = torch.zeros_like(cost), torch.zeros_like(values)
    iterations = torch.full((rows,), max_iterations, dtype=torch.int64, device=values.device)
    index = torch.arange(rows, device=values.device)
    shrink = partial(prox, weights)
    walk = Halpern.start(torch.zeros_like(best), shrink)

    for iteration in range(1, max_iterations + 1):
        near = shrink(walk.state, walk.step)
        reflected = 2 * near - walk.state
        excess = apply(reflected) - values
        multiplier = spectrum.solve(excess, misfit / walk.step[:, None])
        gradient = adjoint(multiplier) * allowed
        due = walk.advance(near, reflected - gradient, iteration)

        if iteration % CHECK_EVERY == 0 or iteration == max_iterations:
            now = objective(near, values, misfit, weights)
            better = now < cost[index]
            best[index[better]], cost[index[better]] = near[better], now[better]
            # the quadratic's gradient at its proximal point is -multiplier / step, and that is the dual
            factor, proven = feasible(-multiplier, -gradient, values, misfit, weights)
            higher = proven > bound[index]
            dual[index[higher]] = -multiplier[higher] * factor[higher, None, None]
            bound[index[higher]] = proven[higher]
            open_ = (cost - bound)[index] > gap_tolerance * cost[index]
            iterations[index[~open_]] = iteration
            index, values, misfit, due = index[open_], values[open_], misfit[open_], due[open_]
            walk.keep(open_)
            if not len(index):
                break
        if due.any():
            walk.restart(due.nonzero()[:, 0], shrink)

    return Solution(best, cost, bound, dual, iterations)
