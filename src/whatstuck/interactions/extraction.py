"""The sparsest AND and OR interactions that explain a value table, each with a proof of how sparse they are.

A table can be explained by many sets of interactions. The paper's choice is the one of least total strength that
stays within a noise bound kappa of every value. This is a convex problem, so its optimum is a fact about the table;
but an optimizer that stops early returns more interactions than needed, most of them cancelling each other. Every
result here therefore carries a certified gap to the optimum.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from whatstuck.errors import WhatStuckError
from whatstuck.interactions import _solver
from whatstuck.interactions.transforms import player_count, reconstruct

MODES = ("paper",)
"""The objectives that `extract_interactions` knows."""

MAX_PLAYERS = 16
"""A table of 2^16 values takes seconds per hundred iterations; up to 12 players are practical on a CPU."""

_TABLE_DIMENSIONS = 2  # rows, coalitions
_BLOCK_ENTRIES = {"cpu": 1 << 16}  # table entries solved at a time: on a CPU, what a cache holds
_BLOCK_ENTRIES_ELSEWHERE = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """AND and OR interactions of a batch of value tables, in the units of the values.

    Attributes:
        and_: (B, 2^n) float64, indexed by mask: entry S is I_and(S). Entry 0 is 0. Order 1 holds the OR of
            order 1 as well, which is the same function.
        or_: (B, 2^n) float64. Entries of order 0 and 1 are 0.
        objective: (B,) float64, sum of all strengths.
        gap: (B,) float64, (objective - proven lower bound) / objective: no explanation within the noise bound
            is sparser by more than this share. 0 where the objective is 0.
        violation: (B,) float64, how far the fit leaves the noise bound, in units of the values: rounding only.
        iterations: (B,) int64, iterations of the solver.
    """

    and_: Tensor
    or_: Tensor
    objective: Tensor
    gap: Tensor
    violation: Tensor
    iterations: Tensor


def _value_tables(values: NDArray[np.generic] | Tensor) -> Tensor:
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
    if tables.dim() != _TABLE_DIMENSIONS:
        raise WhatStuckError(
            f"values must be (rows, 2^n), not {tuple(tables.shape)}: for a single table give values[None, :]"
        )
    n = player_count(tables)
    if not 1 <= n <= MAX_PLAYERS:
        raise WhatStuckError(f"values have {n} players: 1 to {MAX_PLAYERS} are possible")
    tables = tables.to(torch.float64)
    broken = ~tables.isfinite().all(1)
    if broken.any():
        raise WhatStuckError(
            f"row {int(broken.nonzero()[0])} of values has NaN or infinite entries ({int(broken.sum())} rows do): "
            "leave these rows out"
        )
    return tables


def _noise_bounds(noise_bound: ArrayLike | Tensor | None, tables: Tensor) -> Tensor:
    """(B,) float64 kappa per row."""
    if noise_bound is None:
        raise WhatStuckError(
            "mode 'paper' needs noise_bound, the largest misfit allowed at any coalition: "
            "0.05 times the mean of |v(all) - v(none)| over the rows is usual"
        )
    try:
        bounds = torch.as_tensor(noise_bound, dtype=torch.float64, device=tables.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WhatStuckError("noise_bound must be a number, or one number per row") from error
    if bounds.shape not in ((), tables.shape[:1]):
        raise WhatStuckError(
            f"noise_bound must be a number, or one number for each of the {tables.shape[0]} rows, "
            f"not of shape {tuple(bounds.shape)}"
        )
    if not bool((bounds.isfinite() & (bounds >= 0)).all()):
        raise WhatStuckError("noise_bound must be finite and not negative")
    return bounds.expand(tables.shape[0])


def _refuse_unknown(mode: str, *, misfit: object, order_tilt: object, certainty: bool) -> None:
    if mode not in MODES:
        known = ", ".join(repr(name) for name in MODES)
        raise WhatStuckError(f"mode {mode!r} is unknown: the modes are {known}")
    for name, given in (
        ("misfit", misfit is not None),
        ("order_tilt", order_tilt is not None),
        ("certainty", certainty),
    ):
        if given:
            raise WhatStuckError(f"mode {mode!r} takes no {name}: leave it out")


@torch.no_grad()
def extract_interactions(
    values: NDArray[np.generic] | Tensor,
    *,
    mode: str = "paper",
    noise_bound: ArrayLike | Tensor | None = None,
    misfit: float | None = None,
    order_tilt: float | None = None,
    certainty: bool = False,
    gap_tolerance: float = 1e-3,
    max_iterations: int = 20_000,
) -> Interactions:
    """Explain value tables by the AND and OR interactions of least total strength.

    Mode `paper`: minimise |I_and|_1 + |I_or|_1 such that the interactions that a coalition triggers add up to
    v(T) - v(∅), within kappa, at every coalition T. These are Eqs 2 and 3 of arXiv 2605.17967 with the
    LASSO-like loss of Li & Zhang (arXiv 2304.13312) and Chen et al. (arXiv 2401.16318). v(∅) is taken out
    exactly. The optimum need not be unique: the objective is certain to the gap, single interactions are not.

    Rows are solved independently. The same input gives the same bits; with other rows beside it, a row gives the
    same bits wherever the backend's batched product treats each matrix alike (measured on x86 CPUs), and else
    another point within its gap.

    Args:
        values: (B, 2^n), numpy or tensor, n from 1 to 16; bit i of the index = player i present. The tensors
            returned are on the same device.
        mode: `"paper"`.
        noise_bound: kappa >= 0 in units of the values, one number or (B,). Required.
        misfit: Not used by `paper`.
        order_tilt: Not used by `paper`.
        certainty: Not used by `paper`.
        gap_tolerance: A row is done when its gap is at most this. Below 1e-6 rounding may prevent it.
        max_iterations: Where a row ends otherwise; its best point is returned with the gap that it has.

    Returns:
        The interactions; a row without an effect beyond the noise bound has none, and a gap of 0.

    Raises:
        WhatStuckError: If the tables are not (B, 2^n) finite real numbers with 1 to 16 players, the noise bound
            is missing, negative or not finite, or an option does not belong to the mode.

    Example:
        >>> both = np.array([[0.0, 0.0, 0.0, 1.0]])  # 1 only when both players are present
        >>> extract_interactions(both, noise_bound=0.0).and_
        tensor([[0., 0., 0., 1.]], dtype=torch.float64)
    """
    _refuse_unknown(mode, misfit=misfit, order_tilt=order_tilt, certainty=certainty)
    if not 0 < gap_tolerance < math.inf:
        raise WhatStuckError("gap_tolerance must be positive")
    if max_iterations < 1:
        raise WhatStuckError("max_iterations must be at least 1")
    tables = _value_tables(values)
    bounds = _noise_bounds(noise_bound, tables)
    effects = tables - tables[:, :1]
    scale = effects.abs().amax(1)
    if not bool(scale.isfinite().all()):
        raise WhatStuckError("values are too large: their differences overflow")

    coefficients = torch.zeros(len(tables), 2, tables.shape[1], dtype=torch.float64, device=tables.device)
    bound = torch.zeros_like(scale)
    iterations = torch.zeros(len(tables), dtype=torch.int64, device=tables.device)
    # elsewhere nothing exceeds the noise, so no interaction is needed: zero is optimal
    todo = (scale > bounds).nonzero()[:, 0]
    entries = _BLOCK_ENTRIES.get(tables.device.type, _BLOCK_ENTRIES_ELSEWHERE)
    at_a_time = max(1, entries // tables.shape[1])
    for first in range(0, len(todo), at_a_time):
        block = todo[first : first + at_a_time]
        found = _solver.solve(
            effects[block] / scale[block, None],
            bounds[block] / scale[block],
            gap_tolerance=gap_tolerance,
            max_iterations=max_iterations,
        )
        coefficients[block] = torch.stack([found.and_, found.or_], dim=1) * scale[block, None, None]
        bound[block] = found.bound * scale[block]
        iterations[block] = found.iterations

    and_, or_ = coefficients.unbind(1)
    objective = _solver.objective(coefficients)
    return Interactions(
        and_=and_,
        or_=or_,
        objective=objective,
        gap=torch.where(objective > 0, (objective - bound) / objective, 0.0).clamp(min=0),
        violation=((reconstruct(and_, or_) - effects).abs().amax(1) - bounds).clamp(min=0),
        iterations=iterations,
    )
