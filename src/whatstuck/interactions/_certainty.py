"""How far each interaction can move among all explanations that are nearly as good as the best one.

An optimum is one point; a table may have many explanations of almost the same cost, and an interaction that is in one
of them only says nothing about the model. For every coefficient this file gives an interval that holds it in every
explanation of cost at most (1 + slack) times the cost found. The intervals are proven, not sampled: they may be too
wide, never too narrow.

The dual point z that certified the optimum prices everything (Fenchel's identity). For every explanation c' with
cost F(c') and misfit q' = A c' - u, and with g = A'z,

    F(c') - D(z)  =  sum over S of (w_S |c'_S| - g_S c'_S)  +  the price of its misfit,      all terms >= 0.

The left side is at most the budget B = (1 + slack) F - D(z). So an interaction that the dual does not want, |g| well
below w, can take little of the budget: c'_S is between -B / (w + g) and B / (w - g). And the fit stays close to that
of the optimum: within a ball (squared misfit), or where z pulls at the noise bound, near that bound (box).

For the interactions that the dual does want, we combine the two. For any y with (A'y)_S = 1,

    c'_S  =  y'(A c')  -  sum over the others j of (A'y)_j c'_j,

and each part is bounded by the above. Every y gives a valid bound; a good one has little weight on wanted
interactions, and it follows from one ridge regression for all S at once: y = M^-1 a_S / (a_S' M^-1 a_S), where
M = A diag(r^2) A' + (what the fit allows). r are the ranges known so far. M is dense, 2^n x 2^n, but its entries
depend on S & T and S | T alone, so it is two look-ups in a table. On SmolLM2 tables with a squared misfit the intervals
are 1.2 times as wide as the exact ones (a conic program per end and interaction) in the median at slack 1e-3, and the
widest quarter up to 6 times. With a noise bound they are 7 to 26 times as wide: a box has no curvature to lean on
(`benchmarks/engine.py`).

The same y says how the coefficient answers to noise in the values, to first order: y'e. With noise of standard
deviation sigma an interval grows by 3 sigma |y| on either side.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from whatstuck.interactions._penalized import adjoint
from whatstuck.interactions.transforms import zeta

_SPREAD = 0.1  # of the squares of unwanted ranges: one of them can use the budget, not all; the best of 1, 0.1, 0.01
_NOISE_DEVIATIONS = 3.0
_SETTLED = 0.25  # of w: where the dual wants an interaction less than w minus this, no y improved its first range
_TINY = 1e-12
_CHUNK_ENTRIES = 1 << 24  # of the matrix candidates x coefficients that is held at a time


@dataclass(frozen=True, slots=True)
class Optimum:
    """What is known of one table's optimum; every tensor is float64.

    Attributes:
        effects: (2^n,) u, entry 0 is 0.
        dual: (2^n,) feasible z, entry 0 is 0.
        weights: (2, 2^n) w; infinite where there is no coefficient.
        up: (2, 2^n) w - g, the price of a positive coefficient; not negative.
        down: (2, 2^n) w + g, that of a negative one.
        cost: The largest cost of an explanation that counts, (1 + slack) F.
        budget: cost - D(z).
        fit: The squared form's misfit, or the box form's kappa.
        boxed: Which of the two.
    """

    effects: Tensor
    dual: Tensor
    weights: Tensor
    up: Tensor
    down: Tensor
    cost: Tensor
    budget: Tensor
    fit: Tensor
    boxed: bool


@torch.no_grad()
def ranges(known: Optimum, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Intervals that hold every coefficient in every explanation of cost at most `known.cost`.

    Args:
        known: The optimum.
        noise: () standard deviation of the noise of v, in units of v.

    Returns:
        Lowest and highest value, (2, 2^n) float64 each; 0 where there is no coefficient.
    """
    there = known.weights.isfinite().flatten()
    flat = _Flat(known, there)
    low, high = _improved(known, flat, there, noise)
    results = []
    for found in (low, high):
        table = torch.zeros(there.shape, dtype=torch.float64, device=there.device)
        table[there] = found
        results.append(table.reshape(known.weights.shape))
    return results[0], results[1]


def total_strength(known: Optimum, answer: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the sum of all |c_S| over the same explanations; () float64 each.

    The penalty is at least z'(A c'), since |A'z| <= w, and at most the cost less the price of the misfit; both follow
    from how far A c' can be from the fit of the optimum. Noise e moves them by z'e, to first order: `answer` is its
    standard deviation.
    """
    dearest = known.weights[known.weights.isfinite()].max()  # the cheapest interaction costs 1
    length, margin = known.dual.norm(), _NOISE_DEVIATIONS * answer
    if known.boxed:
        return (known.cost - known.budget - margin).clamp(min=0), known.cost + margin
    misfit = known.fit
    radius = (2 * misfit * known.budget).sqrt()
    least = (known.dual @ (known.effects - misfit * known.dual) - length * radius) / dearest
    price = (misfit * length - radius).clamp(min=0).square() / (2 * misfit)
    return (least - margin).clamp(min=0), known.cost - price + margin


class _Flat:
    """The first ranges, of the coefficients that exist, and how a unit of each sign is paid for."""

    def __init__(self, known: Optimum, there: Tensor) -> None:
        weights, up, down = (table.flatten()[there] for table in (known.weights, known.up, known.down))
        most = known.cost / weights  # no coefficient costs more than the whole explanation
        rise, fall = known.budget / up.clamp(min=_TINY), known.budget / down.clamp(min=_TINY)
        self.high, self.low = torch.minimum(rise, most), -torch.minimum(fall, most)
        # a unit is charged to the budget where that bounds it better, else to the whole cost
        by_cost_up, by_cost_down = rise > most, fall > most
        zero = torch.zeros_like(most)
        self.budget_up = torch.where(by_cost_up, zero, 1 / up.clamp(min=_TINY))
        self.budget_down = torch.where(by_cost_down, zero, 1 / down.clamp(min=_TINY))
        self.cost_up, self.cost_down = torch.where(by_cost_up, most, zero), torch.where(by_cost_down, most, zero)
        wanted = by_cost_up | by_cost_down
        reach = torch.maximum(self.high, -self.low).square()
        self.reach = torch.where(wanted, reach, _SPREAD * reach)
        self.open = (torch.minimum(up, down) < _SETTLED * weights).nonzero()[:, 0]


@cache
def _index(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(2^n - 1, 2^n - 1) S & T and S | T of all coalitions but the empty one."""
    coalitions = torch.arange(1, 1 << n, dtype=torch.int32, device=device)
    return coalitions[:, None] & coalitions, coalitions[:, None] | coalitions


def _gram(reach: Tensor) -> Tensor:
    """A diag(reach) A' of (2, 2^n) numbers: (2^n - 1, 2^n - 1), without the empty coalition."""
    n = reach.shape[-1].bit_length() - 1
    both, either = _index(n, reach.device)
    inside, missed = zeta(reach).unbind(0)  # entry S: sum over subsets of S
    missed = missed.flip(-1)  # entry S: sum over what S does not meet
    meets = missed[0] - missed[1:]
    gram = inside.take(both.long())
    gram += missed.take(either.long())
    gram += meets[:, None] - missed[1:][None, :]
    return gram


def _improved(known: Optimum, flat: _Flat, there: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The ranges that follow from one y for each coefficient."""
    size = known.effects.shape[0]
    reach = torch.zeros(there.shape, dtype=torch.float64, device=there.device)
    reach[there] = flat.reach
    matrix = _gram(reach.reshape(2, size))
    fit = _Box(known) if known.boxed else _Ball(known)
    matrix.diagonal().add_(fit.allowance)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    # each row of the inverse, seen as a function on coalitions, times A: column j of M^-1 A
    padded = torch.nn.functional.pad(inverse, (1, 0))
    turned = adjoint(padded).flatten(1)[:, there]  # (2^n - 1, k)
    # a coefficient that is 0 stays 0 under small noise; the margin of those that are settled is that of the values
    low, high = flat.low - _NOISE_DEVIATIONS * noise, flat.high + _NOISE_DEVIATIONS * noise
    chunk = max(1, _CHUNK_ENTRIES // turned.shape[1])
    for which in flat.open.split(chunk):
        y = torch.nn.functional.pad(turned[:, which].T.contiguous(), (1, 0))  # (c, 2^n), entry 0 is 0
        others = adjoint(y).flatten(1)[:, there]  # (c, k)
        own = torch.arange(len(y), device=y.device)
        scale = others[own, which].reciprocal()[:, None]
        y, others = y * scale, others * scale
        others[own, which] = 0.0
        low_price, low_rest, high_price, high_rest = _sides(flat, others)
        margin = _NOISE_DEVIATIONS * noise * y.norm(dim=1)
        fit_low, fit_high = fit.between(y, low_price, high_price)
        least, most = fit_low - low_rest, fit_high + high_rest
        low[which] = torch.maximum(flat.low[which], least) - margin
        high[which] = torch.minimum(flat.high[which], most) + margin
    return low, high


def _sides(flat: _Flat, others: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the other coefficients can add, (c,) each: per unit of budget and in all; downwards, then upwards."""

    def extremes(unit: Tensor) -> tuple[Tensor, Tensor]:
        least, most = torch.aminmax(others * unit, dim=1)
        return -least.clamp(max=0), most.clamp(min=0)

    # c_S = fit - sum of others * c: it falls with a positive product
    budget_up, budget_down = extremes(flat.budget_up), extremes(flat.budget_down)
    cost_up, cost_down = extremes(flat.cost_up), extremes(flat.cost_down)
    return (
        torch.maximum(budget_up[1], budget_down[0]),
        torch.maximum(cost_up[1], cost_down[0]),
        torch.maximum(budget_up[0], budget_down[1]),
        torch.maximum(cost_up[0], cost_down[1]),
    )


class _Ball:
    """Squared misfit: |A c' - (u - misfit z)|^2 / (2 misfit) is part of the price."""

    def __init__(self, known: Optimum) -> None:
        self.budget, self.misfit = known.budget, known.fit
        self.allowance = 2 * known.fit * known.budget
        self.centre = known.effects - known.fit * known.dual

    def between(self, y: Tensor, low_price: Tensor, high_price: Tensor) -> tuple[Tensor, Tensor]:
        """Least and most, (c,) each, of y'(A c') and what else the budget buys at these prices per unit."""
        centre, length = y @ self.centre, y.norm(dim=1)
        return centre - self._spend(length, low_price), centre + self._spend(length, high_price)

    def _spend(self, length: Tensor, price: Tensor) -> Tensor:
        """The most that the budget can buy, part of it for the radius of the ball and the rest at `price`."""
        share = torch.where(
            price > 0, self.misfit * length.square() / (2 * price.clamp(min=1e-150).square()), self.budget
        ).minimum(self.budget)
        return length * (2 * self.misfit * share).sqrt() + (self.budget - share) * price


class _Box:
    """Noise bound: the misfit q' is within kappa, and kappa |z_T| + z_T q'_T is part of the price."""

    def __init__(self, known: Optimum) -> None:
        self.budget, kappa = known.budget, known.fit
        pull = known.dual.abs()
        pulled = 2 * kappa * pull > known.budget
        freedom = torch.where(pulled, known.budget / pull.clamp(min=1e-300), kappa)
        self.allowance = freedom[1:].square() + (known.cost * 1e-9).square()  # never singular
        self.centre = known.effects - torch.where(pulled, kappa * known.dual.sign(), 0.0)
        self.free = torch.where(pulled, 0.0, kappa)
        self.free[0] = 0.0
        # leaving the bound by one unit of misfit costs |z|, and goes against the sign of z
        self.per_budget = torch.where(pulled, known.dual.sign() / pull.clamp(min=1e-300), 0.0)

    def between(self, y: Tensor, low_price: Tensor, high_price: Tensor) -> tuple[Tensor, Tensor]:
        """As `_Ball.between`: misfits that are free move y'(A c') at no cost, and those that are pulled use budget."""
        centre, free = y @ self.centre, y.abs() @ self.free
        fall, rise = torch.aminmax(y * self.per_budget, dim=1)
        return (
            centre - free - self.budget * torch.maximum(low_price, -fall),
            centre + free + self.budget * torch.maximum(high_price, rise),
        )
