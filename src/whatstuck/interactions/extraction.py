"""The sparsest AND and OR interactions that explain a value table, with a proof, and how certain each of them is.

A table can be explained by many sets of interactions, and a sparse one is the optimum of a convex problem: a fact
about the table, not about the optimizer. But an optimizer that stops early returns more interactions than needed, most
of them cancelling each other; so every result here carries a certified gap to the optimum. And several explanations may
be almost equally good; so on request every interaction carries the interval that holds it in all of them.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from whatstuck.errors import WhatStuckError
from whatstuck.interactions import _boxed, _penalized
from whatstuck.interactions._certainty import Optimum, ranges
from whatstuck.interactions.transforms import player_count, reconstruct

MODES = ("robust", "paper", "joint")
"""The objectives that `extract_interactions` knows."""

MAX_PLAYERS = 16
"""A table of 2^16 values takes seconds per hundred iterations; up to 12 players are practical on a CPU."""

MAX_CERTAIN_PLAYERS = 13
"""Certainty factorises a 2^n x 2^n matrix per table: 0.5 GB at 13 players."""

DEFAULT_MISFIT = 0.05
"""Of the largest |v(T) - v(∅)| of a row."""

DEFAULT_TILT = (0.002, 0.0005)
"""Cost of each further player, and of an OR over an AND."""

DEFAULT_SLACK = 1e-3
"""Explanations that cost at most this share more than the best one count for certainty."""

_TABLE_DIMENSIONS = {"robust": 2, "paper": 2, "joint": 3}  # rows, (steps,) coalitions
_GAP = {"robust": 1e-4, "paper": 1e-3, "joint": 1e-4}
_GAP_PER_SLACK = 0.1  # a range over the near-optimal set says little when the optimum is not known ten times better
_BLOCK_ENTRIES = {"cpu": 1 << 16}  # table entries solved at a time: on a CPU, what a cache holds
_BLOCK_ENTRIES_ELSEWHERE = 1 << 22


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
    slack: Tensor | None = None


def _value_tables(values: NDArray[np.generic] | Tensor, mode: str) -> Tensor:
    """(B, 2^n) float64 of at least one player, finite; refuses everything else."""
    if not isinstance(values, (np.ndarray, Tensor)):
        raise WhatStuckError(f"values must be a numpy array or a tensor, not {type(values).__name__}")
    if isinstance(values, np.ndarray) and values.dtype.kind not in "fiu":
        raise WhatStuckError(f"values must be real numbers, not {values.dtype}")
    # numpy knows number formats that torch does not
    tables = torch.from_numpy(values.astype(np.float64)) if isinstance(values, np.ndarray) else values.detach()
    if tables.is_complex():
        raise WhatStuckError(f"values must be real numbers, not {tables.dtype}")
    if tables.device.type == "mps":
        raise WhatStuckError("this needs float64, which Apple GPUs lack: give values.cpu()")
    if tables.dim() != _TABLE_DIMENSIONS[mode]:
        shape = "(rows, steps, 2^n)" if mode == "joint" else "(rows, 2^n)"
        raise WhatStuckError(
            f"values must be {shape} in mode {mode!r}, not {tuple(tables.shape)}: "
            "a missing dimension is added by values[None]"
        )
    n = player_count(tables)
    if not 1 <= n <= MAX_PLAYERS:
        raise WhatStuckError(
            f"values have {n} players: 1 to {MAX_PLAYERS} are possible here; "
            "whatstuck.fit_interactions explains more from sampled masks"
        )
    tables = tables.to(torch.float64)
    broken = ~tables.isfinite().flatten(1).all(1)
    if broken.any():
        raise WhatStuckError(
            f"row {int(broken.nonzero()[0])} of values has NaN or infinite entries ({int(broken.sum())} rows do): "
            "leave these rows out"
        )
    return tables


def _per_row(name: str, given: ArrayLike | Tensor, shape: torch.Size, device: torch.device) -> Tensor:
    """A number, or numbers for the first dimensions of a batch, as float64 of its shape."""
    try:
        numbers = torch.as_tensor(given, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WhatStuckError(f"{name} must be a number, or one number per row") from error
    if numbers.shape not in (shape[:length] for length in range(len(shape) + 1)):
        raise WhatStuckError(
            f"{name} must be a number, or one number for each of the {shape[0]} rows, not of shape "
            f"{tuple(numbers.shape)}"
        )
    if not bool((numbers.isfinite() & (numbers >= 0)).all()):
        raise WhatStuckError(f"{name} must be finite and not negative")
    return numbers.reshape(*numbers.shape, *[1] * (len(shape) - numbers.dim())).expand(shape)


@dataclass(frozen=True, slots=True)
class _Options:
    """What the two forms of the problem need, checked; (B,) float64 each, in units of the values."""

    noise_bound: Tensor | None
    misfit: Tensor | None
    tilt: tuple[float, float]
    slack: float | None
    noise_floor: Tensor
    gap_tolerance: float
    max_iterations: int


def _tilt(order_tilt: tuple[float, float] | None) -> tuple[float, float]:
    if order_tilt is None:
        return DEFAULT_TILT
    try:
        per_player, for_or = (float(number) for number in order_tilt)
    except (TypeError, ValueError) as error:
        raise WhatStuckError("order_tilt must be two numbers: the cost of each further player, and of an OR") from error
    if not (0 <= per_player < math.inf and 0 <= for_or < math.inf):
        raise WhatStuckError("order_tilt must be two finite numbers, not negative")
    return per_player, for_or


def _slack(certainty: float, players: int) -> float | None:
    """The slack that `certainty` asks for."""
    if certainty is False:
        return None
    slack = DEFAULT_SLACK if certainty is True else float(certainty)
    if not 0 < slack < math.inf:
        raise WhatStuckError("certainty must be True, False, or a positive share such as 0.001")
    if players > MAX_CERTAIN_PLAYERS:
        raise WhatStuckError(
            f"certainty of {players} players needs a matrix of {8 * 4**players / 1e9:.0f} GB per table: "
            f"{MAX_CERTAIN_PLAYERS} players are possible, or leave certainty out"
        )
    return slack


def _refuse_foreign(mode: str, **given: object) -> None:
    """Options that belong to another mode."""
    if mode not in MODES:
        known = ", ".join(repr(name) for name in MODES)
        raise WhatStuckError(f"mode {mode!r} is unknown: the modes are {known}")
    foreign = ("misfit", "order_tilt") if mode == "paper" else ("noise_bound",)
    for name in foreign:
        if given[name] is not None:
            raise WhatStuckError(f"mode {mode!r} takes no {name}: leave it out")
    if mode == "paper" and given["noise_bound"] is None:
        raise WhatStuckError(
            "mode 'paper' needs noise_bound, the largest misfit allowed at any coalition: "
            "0.05 times the mean of |v(all) - v(none)| over the rows is usual"
        )


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
            that. Not for `paper`. By default (0.002, 0.0005): it decides ties, and leaves them within the slack of `certainty`.
        certainty: Also find intervals that hold each coefficient in every explanation that costs at most this share
            more; `True` stands for 0.001. Every row is then solved to a tenth of it. n up to 13.
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
    _refuse_foreign(mode, noise_bound=noise_bound, misfit=misfit, order_tilt=order_tilt)
    if gap_tolerance is None:
        gap_tolerance = _GAP[mode]
    if not 0 < gap_tolerance < math.inf:
        raise WhatStuckError("gap_tolerance must be positive")
    if max_iterations < 1:
        raise WhatStuckError("max_iterations must be at least 1")
    tables = _value_tables(values, mode)
    batch, device = tables.shape[:-1], tables.device
    slack = _slack(certainty, player_count(tables))
    effects = tables - tables[..., :1]
    largest = effects.abs().amax(-1)
    if not bool(largest.isfinite().all()):
        raise WhatStuckError("values are too large: their differences overflow")
    if misfit is None and mode != "paper":
        misfit = (DEFAULT_MISFIT * largest).flatten(1).amax(1) if mode == "joint" else DEFAULT_MISFIT * largest
    options = _Options(
        noise_bound=None if noise_bound is None else _per_row("noise_bound", noise_bound, batch, device),
        misfit=None if misfit is None else _per_row("misfit", misfit, batch, device),
        tilt=(0.0, 0.0) if mode == "paper" else _tilt(order_tilt),
        slack=slack,
        noise_floor=_per_row("noise_floor", noise_floor, batch, device),
        gap_tolerance=gap_tolerance if slack is None else min(gap_tolerance, _GAP_PER_SLACK * slack),
        max_iterations=max_iterations,
    )
    if options.misfit is not None and bool(((options.misfit == 0) & (largest > 0)).any()):
        raise WhatStuckError("misfit must be positive: for an exact fit use mode 'paper' with noise_bound 0")
    return _extract(effects, options, grouped=mode == "joint")


def _extract(effects: Tensor, options: _Options, *, grouped: bool) -> Interactions:
    """Solve in blocks; every tensor as (rows, steps, ...) with one step unless `grouped`."""
    steps = effects if grouped else effects[:, None]
    rows, size = steps.shape[0], steps.shape[-1]
    scale = steps.abs().flatten(1).amax(1)
    coefficients = torch.zeros(*steps.shape[:2], 2, size, dtype=torch.float64, device=steps.device)
    objective, bound = torch.zeros_like(scale), torch.zeros_like(scale)
    iterations = torch.zeros(rows, dtype=torch.int64, device=steps.device)
    dual = torch.zeros_like(steps)
    # elsewhere nothing exceeds the noise, so no interaction is needed: zero is optimal
    least = torch.zeros_like(scale) if options.noise_bound is None else options.noise_bound
    todo = (scale > least).nonzero()[:, 0]
    entries = _BLOCK_ENTRIES.get(steps.device.type, _BLOCK_ENTRIES_ELSEWHERE)
    at_a_time = max(1, entries // steps[0].numel()) if rows else 1
    for first in range(0, len(todo), at_a_time):
        block = todo[first : first + at_a_time]
        unit = scale[block]
        limits = {"gap_tolerance": options.gap_tolerance, "max_iterations": options.max_iterations}
        if options.noise_bound is not None:
            boxed = _boxed.solve(steps[block, 0] / unit[:, None], options.noise_bound[block] / unit, **limits)
            found = torch.stack([boxed.and_, boxed.or_], dim=1)[:, None]
            cost, proven, proof, count = (
                _boxed.objective(found[:, 0]),
                boxed.bound,
                boxed.dual[:, None],
                boxed.iterations,
            )
        else:
            misfit = options.misfit.reshape(steps.shape[:2])[block] / unit[:, None]
            solved = _penalized.solve(steps[block] / unit[:, None, None], misfit, options.tilt, **limits)
            found, cost, proven, proof = solved.coefficients, solved.cost, solved.bound, solved.dual
            count = solved.iterations
        coefficients[block] = found * unit[:, None, None, None]
        objective[block], bound[block] = cost * unit, proven * unit
        dual[block], iterations[block] = proof, count

    gap = torch.where(objective > 0, (objective - bound) / objective, 0.0).clamp(min=0)
    shape = effects.shape
    and_, or_ = (table.reshape(shape) for table in coefficients.unbind(2))
    if options.noise_bound is None:
        violation = torch.full(shape[:-1], math.nan, dtype=torch.float64, device=steps.device)
    else:
        violation = ((reconstruct(and_, or_) - effects).abs().amax(-1) - options.noise_bound).clamp(min=0)
    plain = Interactions(and_, or_, objective, gap, violation, iterations)
    if options.slack is None:
        return plain
    slack = torch.maximum(gap / _GAP_PER_SLACK, torch.full_like(gap, options.slack))
    low, high = _ranges(steps, dual, objective * (1 + slack), options)
    tables = [end[:, :, kind].reshape(shape) for kind in (0, 1) for end in (low, high)]
    return replace(plain, and_low=tables[0], and_high=tables[1], or_low=tables[2], or_high=tables[3], slack=slack)


def _ranges(steps: Tensor, dual: Tensor, cost: Tensor, options: _Options) -> tuple[Tensor, Tensor]:
    """(rows, steps, 2, 2^n) lowest and highest value of every coefficient in explanations of at most this cost."""
    n = player_count(steps)
    weights = _penalized.order_weights(n, options.tilt, steps.device)
    low = torch.zeros(*steps.shape[:2], 2, steps.shape[-1], dtype=torch.float64, device=steps.device)
    high = torch.zeros_like(low)
    for row in range(len(steps)):
        if not cost[row] > 0:
            continue  # nothing to explain, so nothing can be there
        gradient = _penalized.adjoint(dual[row])  # (steps, 2, 2^n)
        # the solver proved the dual feasible up to rounding; made so exactly, it is a proof here too
        size = _penalized.strength(gradient[None])[0]
        shrink = 1 / (size / weights).amax().clamp(min=1)
        z, gradient, size = dual[row] * shrink, gradient * shrink, size * shrink
        proven = (z * steps[row]).sum()
        if options.noise_bound is not None:
            proven = proven - options.noise_bound[row] * z.abs().sum()
        else:
            misfit = options.misfit.reshape(steps.shape[:2])[row]
            proven = proven - (misfit * z.square().sum(1)).sum() / 2
        for step in range(steps.shape[1]):
            alone = steps.shape[1] == 1
            known = Optimum(
                effects=steps[row, step],
                dual=z[step],
                weights=weights,
                up=weights - (gradient[step] if alone else size),
                down=weights + (gradient[step] if alone else -size),
                cost=cost[row],
                budget=cost[row] - proven,
                misfit=None if options.misfit is None else options.misfit.reshape(steps.shape[:2])[row, step],
                noise_bound=None if options.noise_bound is None else options.noise_bound[row],
            )
            noise = options.noise_floor.reshape(steps.shape[:2])[row, step]
            low[row, step], high[row, step] = ranges(known, noise)
    return low, high
