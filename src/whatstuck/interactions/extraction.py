"""The sparsest AND and OR interactions that explain a value table, with a proof, and how certain each of them is.

A table can be explained by many sets of interactions, and a sparse one is the optimum of a convex problem: a fact
about the table, not about the optimizer. But an optimizer that stops early returns more interactions than needed, most
of them cancelling each other; so every result here carries a certified gap to the optimum. And several explanations may
be almost equally good; so on request every interaction carries the interval that holds it in all of them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from whatstuck.interactions import _boxed, _penalized
from whatstuck.interactions._certainty import Optimum, ranges, total_strength
from whatstuck.interactions._inputs import (
    DEFAULT_MISFIT,
    DEFAULT_SLACK,
    DEFAULT_TILT,
    GAP_PER_SLACK,
    MAX_CERTAIN_PLAYERS,
    MAX_PLAYERS,
    MODES,
    Boxed,
    Penalized,
    Problem,
    problem,
)
from whatstuck.interactions.transforms import player_count, reconstruct

__all__ = [
    "DEFAULT_MISFIT",
    "DEFAULT_SLACK",
    "DEFAULT_TILT",
    "MAX_CERTAIN_PLAYERS",
    "MAX_PLAYERS",
    "MODES",
    "Interactions",
    "extract_interactions",
]

_BLOCK_ENTRIES = {"cpu": 1 << 16}  # table entries solved at a time: on a CPU, what a cache holds
_BLOCK_ENTRIES_ELSEWHERE = 1 << 22


class _Limits(TypedDict):
    gap_tolerance: float
    max_iterations: int


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """AND and OR interactions of a batch of value tables, in the units of the values.

    B stands for (rows,), or for (rows, steps) in mode `joint`.

    Attributes:
        and_: (B, 2^n) float64, indexed by mask: entry S is I_and(S). Entry 0 is 0. Order 1 holds the OR of
            order 1 as well, which is the same function.
        or_: (B, 2^n) float64. Entries of order 0 and 1 are 0.
        objective: (rows,) float64, the smallest value found of what the mode minimises. In mode `paper` the sum
            of all strengths.
        gap: (rows,) float64, (objective - proven lower bound) / objective: nothing is better by more than this
            share. 0 where the objective is 0.
        violation: (B,) float64, mode `paper`: how far the fit leaves the noise bound, in units of the values:
            rounding only. NaN in other modes.
        iterations: (rows,) int64, iterations of the solver.
        and_low: (B, 2^n) float64 with `certainty`, else None: in every explanation that costs at most `slack` more
            than this one, and under noise of the given size, I_and(S) is at least this. An outer bound.
        and_high: The same from above.
        or_low: The same for OR.
        or_high: The same for OR.
        strength_low: (B,) float64 with `certainty`, else None: in all those explanations, the sum of the strengths of
            all interactions is at least this. Far tighter than the sum of the single bounds.
        strength_high: The same from above.
        slack: (rows,) float64 with `certainty`, else None: the share that was asked for, or ten times the gap
            where that is more.
    """

    and_: Tensor
    or_: Tensor
    objective: Tensor
    gap: Tensor
    violation: Tensor
    iterations: Tensor
    and_low: Tensor | None = None
    and_high: Tensor | None = None
    or_low: Tensor | None = None
    or_high: Tensor | None = None
    strength_low: Tensor | None = None
    strength_high: Tensor | None = None
    slack: Tensor | None = None


@torch.no_grad()
def extract_interactions(  # noqa: PLR0913 - one problem, three objectives
    values: NDArray[np.generic] | Tensor,
    *,
    mode: str = "robust",
    noise_bound: ArrayLike | Tensor | None = None,
    misfit: ArrayLike | Tensor | None = None,
    order_tilt: tuple[float, float] | None = None,
    certainty: bool | float = False,
    noise_floor: ArrayLike | Tensor = 0.0,
    gap_tolerance: float | None = None,
    max_iterations: int = 20_000,
) -> Interactions:
    """Explain value tables by sparse AND and OR interactions, each table with a proof of how good the explanation is.

    With u(T) = v(T) - v(∅), and (A c)(T) the sum of all interactions that coalition T triggers:

    - `robust` minimises sum of w_S |c_S| + |A c - u|^2 / (2 misfit). A squared misfit is calm under noise, and weights
      w that grow with the order choose between explanations that are else equally sparse.
    - `paper` minimises |I_and|_1 + |I_or|_1 such that |A c - u| <= noise_bound at every coalition: Eqs 2 and 3 of
      arXiv 2605.17967 with the LASSO-like loss of Li & Zhang (arXiv 2304.13312) and Chen et al. (arXiv 2401.16318).
      Its optimum is often far from unique.
    - `joint` explains a row's tables at several checkpoints together: as `robust`, with |c_S| the Euclidean norm over
      the checkpoints. An interaction is in all of them or in none, unless the data say otherwise by its size.

    v(∅) is taken out exactly. Rows are solved independently. The same input gives the same bits; with other rows
    beside it, a row gives the same bits wherever the backend's batched product treats each matrix alike (measured on
    x86 CPUs), and else another point within its gap.

    Args:
        values: (rows, 2^n), in mode `joint` (rows, steps, 2^n); numpy or tensor, n from 1 to 16; bit i of the index =
            player i present. The tensors returned are on the same device.
        mode: `"robust"`, `"paper"` or `"joint"`.
        noise_bound: kappa >= 0 in units of the values, one number or one per row. Mode `paper` only, required.
        misfit: In units of the values, one number, or one per row (and step): a coalition whose value is off by
            this much costs half as much as an interaction of this strength. Not for `paper`. By default 0.05 times the
            row's largest |u|.
        order_tilt: (t, s): an AND of k players costs 1 + t (k - 1) per unit, an OR of two and more 1 + s times
            that. Not for `paper`. By default (0.002, 0.0005): it decides ties, and leaves those of up to about a fifth
            of the whole cost within the slack of `certainty`. Larger ones need a smaller tilt to be seen as ties.
        certainty: Also find intervals that hold each coefficient in every explanation that costs at most this share
            more, from 1e-9 to 1; `True` stands for 0.001. Every row is then solved to a tenth of it. n up to 13.
        noise_floor: Standard deviation of the noise of each value, in units of the values, one number or one per
            row: the intervals of `certainty` grow by what three of it can move a coefficient, to first order.
        gap_tolerance: A row is done when its gap is at most this; by default 1e-4, and 1e-3 in mode `paper`, which
            converges more slowly. Below 1e-6 rounding may prevent it.
        max_iterations: Where a row ends otherwise; its best point is returned with the gap that it has.

    Returns:
        The interactions; a row without an effect beyond the noise bound has none, and a gap of 0.

    Raises:
        WhatStuckError: If the tables do not have the mode's shape, 1 to 16 players and finite real numbers, or an
            option is missing, out of range or does not belong to the mode.

    Example:
        >>> both = np.array([[0.0, 0.0, 0.0, 1.0]])  # 1 only when both players are present
        >>> extract_interactions(both, mode="paper", noise_bound=0.0).and_
        tensor([[0., 0., 0., 1.]], dtype=torch.float64)
    """
    asked = problem(
        values,
        mode=mode,
        noise_bound=noise_bound,
        misfit=misfit,
        order_tilt=order_tilt,
        certainty=certainty,
        noise_floor=noise_floor,
        gap_tolerance=gap_tolerance,
        max_iterations=max_iterations,
    )
    unit = asked.effects.abs().flatten(1).amax(1)
    unit = torch.where(unit > 0, unit, 1.0)
    scaled = _in_units(asked, unit)
    found = _solve(scaled)
    shape = asked.effects.shape if mode == "joint" else (*asked.effects.shape[::2],)

    def tables(scaled_ones: Tensor) -> list[Tensor]:
        """AND and OR of (rows, steps, 2, 2^n), in units of the values and in the shape of the input."""
        return [table.reshape(shape) for table in (scaled_ones * unit[:, None, None, None]).unbind(2)]

    and_, or_ = tables(found.coefficients)
    gap = torch.where(found.cost > 0, (found.cost - found.bound) / found.cost, 0.0).clamp(min=0)
    violation = torch.full(shape[:-1], math.nan, dtype=torch.float64, device=gap.device)
    if isinstance(asked.objective, Boxed):
        off = (reconstruct(and_, or_) - asked.effects[:, 0]).abs().amax(-1)
        violation = (off - asked.objective.noise_bound).clamp(min=0)
    plain = Interactions(and_, or_, found.cost * unit, gap, violation, found.iterations)
    if asked.slack is None:
        return plain
    slack = torch.maximum(gap / GAP_PER_SLACK, torch.full_like(gap, asked.slack))
    single, total = _ranges(scaled, found, found.cost * (1 + slack))
    (and_low, or_low), (and_high, or_high) = map(tables, single)
    strength_low, strength_high = ((end * unit[:, None]).reshape(shape[:-1]) for end in total)
    return replace(
        plain,
        and_low=and_low,
        and_high=and_high,
        or_low=or_low,
        or_high=or_high,
        strength_low=strength_low,
        strength_high=strength_high,
        slack=slack,
    )


def _in_units(asked: Problem, unit: Tensor) -> Problem:
    """The same problem with every row's values divided by a number: (rows,)."""
    objective = asked.objective
    if isinstance(objective, Boxed):
        objective = Boxed(objective.noise_bound / unit)
    else:
        objective = Penalized(objective.misfit / unit[:, None], objective.tilt)
    return replace(
        asked,
        effects=asked.effects / unit[:, None, None],
        objective=objective,
        noise_floor=asked.noise_floor / unit[:, None],
    )


def _solve(scaled: Problem) -> _penalized.Solution:
    """Solve a problem whose rows are scaled to 1, in blocks that fit a cache."""
    effects, objective = scaled.effects, scaled.objective
    rows, steps, size = effects.shape
    largest = effects.abs().flatten(1).amax(1)
    solution = _penalized.Solution(
        coefficients=torch.zeros(rows, steps, 2, size, dtype=torch.float64, device=effects.device),
        cost=torch.zeros_like(largest),
        bound=torch.zeros_like(largest),
        dual=torch.zeros_like(effects),
        iterations=torch.zeros(rows, dtype=torch.int64, device=effects.device),
    )
    # elsewhere nothing exceeds the noise, so no interaction is needed: zero is optimal
    least = objective.noise_bound if isinstance(objective, Boxed) else torch.zeros_like(largest)
    todo = (largest > least).nonzero()[:, 0]
    entries = _BLOCK_ENTRIES.get(effects.device.type, _BLOCK_ENTRIES_ELSEWHERE)
    limits: _Limits = {"gap_tolerance": scaled.gap_tolerance, "max_iterations": scaled.max_iterations}
    for block in todo.split(max(1, entries // (steps * size))):
        if not len(block):
            continue
        if isinstance(objective, Boxed):
            found = _boxed.solve(effects[block, 0], objective.noise_bound[block], **limits)
        else:
            found = _penalized.solve(effects[block], objective.misfit[block], objective.tilt, **limits)
        for field in fields(found):
            getattr(solution, field.name)[block] = getattr(found, field.name)
    return solution


def _ranges(
    scaled: Problem, found: _penalized.Solution, ceiling: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Bounds over the explanations of at most this cost, from below and above.

    Returns:
        (rows, steps, 2, 2^n) twice, of each coefficient, and (rows, steps) twice, of the sum of their magnitudes.
    """
    low, high = torch.zeros_like(found.coefficients), torch.zeros_like(found.coefficients)
    total = low.new_zeros(2, *low.shape[:2])
    for row in range(len(ceiling)):
        if not ceiling[row] > 0:
            continue  # nothing to explain, so nothing can be there
        noise = scaled.noise_floor[row]
        answer = (noise * found.dual[row].norm(dim=1)).norm()  # of the optimum, to noise in all steps
        for step, known in enumerate(_optima(scaled, row, found.dual[row], ceiling[row])):
            low[row, step], high[row, step] = ranges(known, noise[step])
            total[0, row, step], total[1, row, step] = total_strength(known, answer)
    return (low, high), (total[0], total[1])


def _optima(asked: Problem, row: int, dual: Tensor, ceiling: Tensor) -> Iterator[Optimum]:
    """What the certificate says about each step of a row."""
    objective, effects = asked.objective, asked.effects[row]
    tilt = (0.0, 0.0) if isinstance(objective, Boxed) else objective.tilt
    weights = _penalized.order_weights(player_count(effects), tilt, ceiling.device)
    # the solver proved the dual feasible up to rounding; made so exactly, it is a proof here too
    gradient = _penalized.adjoint(dual)  # (steps, 2, 2^n)
    size = _penalized.strength(gradient[None])[0]
    shrink = 1 / (size / weights).amax().clamp(min=1)
    z, gradient, size = dual * shrink, gradient * shrink, size * shrink
    if isinstance(objective, Boxed):
        price = objective.noise_bound[row] * z.abs().sum()
    else:
        price = (objective.misfit[row] * z.square().sum(1)).sum() / 2
    budget = ceiling - ((z * effects).sum() - price)
    for step in range(len(effects)):
        # in a group the dual wants a direction over the steps: either sign of one step costs what is left of w
        wanted = (gradient[step], -gradient[step]) if len(effects) == 1 else (size, size)
        yield Optimum(
            effects=effects[step],
            dual=z[step],
            weights=weights,
            up=weights - wanted[0],
            down=weights - wanted[1],
            cost=ceiling,
            budget=budget,
            fit=objective.noise_bound[row] if isinstance(objective, Boxed) else objective.misfit[row, step],
            boxed=isinstance(objective, Boxed),
        )
