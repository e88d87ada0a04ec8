"""What `extract_interactions` accepts, and the one clear line that everything else gets."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.transforms import player_count

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

_DIMENSIONS = {"robust": 2, "paper": 2, "joint": 3}  # rows, (steps,) coalitions
_GAP = {"robust": 1e-4, "paper": 1e-3, "joint": 1e-4}
_LEAST_MISFIT = 1e-9  # of the largest effect
_LEAST_SLACK = 1e-9  # below, the rounding of the certificate is larger
GAP_PER_SLACK = 0.1  # a range over the near-optimal set says little when the optimum is not known ten times better


def value_tables(values: NDArray[np.generic] | Tensor, mode: str) -> Tensor:
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
    if tables.dim() != _DIMENSIONS[mode]:
        shape = "(rows, steps, 2^n)" if mode == "joint" else "(rows, 2^n)"
        raise WhatStuckError(
            f"values must be {shape} in mode {mode!r}, not {tuple(tables.shape)}: "
            "a missing dimension is added by values[None]"
        )
    if mode == "joint" and not tables.shape[1]:
        raise WhatStuckError("values have no steps: mode 'joint' needs at least one")
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


def per_row(name: str, given: ArrayLike | Tensor, shape: torch.Size, device: torch.device) -> Tensor:
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
class Boxed:
    """Mode `paper`: (rows,) float64 noise bounds, in units of the values."""

    noise_bound: Tensor


@dataclass(frozen=True, slots=True)
class Penalized:
    """Modes `robust` and `joint`: (rows, steps) float64 misfits, in units of the values, and the tilt of the costs."""

    misfit: Tensor
    tilt: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Problem:
    """What to solve, checked.

    Attributes:
        effects: (rows, steps, 2^n) float64 v - v(∅); one step but in mode `joint`.
        objective: What to minimise.
        slack: For certainty, or None.
        noise_floor: (rows, steps) float64.
        gap_tolerance: Of every row.
        max_iterations: Of every row.
    """

    effects: Tensor
    objective: Boxed | Penalized
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


def _slack(players: int, *, certainty: bool | float) -> float | None:
    """The slack that `certainty` asks for."""
    if isinstance(certainty, bool | np.bool_):
        if not certainty:
            return None
        slack = DEFAULT_SLACK
    else:
        try:
            slack = float(certainty)
        except (TypeError, ValueError):
            slack = math.nan
    if not _LEAST_SLACK <= slack <= 1:
        raise WhatStuckError(f"certainty must be True, False, or a share from {_LEAST_SLACK:g} to 1 such as 0.001")
    if players > MAX_CERTAIN_PLAYERS:
        raise WhatStuckError(
            f"certainty of {players} players needs a matrix of {8 * 4**players / 1e9:.0f} GB per table: "
            f"{MAX_CERTAIN_PLAYERS} players are possible, or leave certainty out"
        )
    return slack


def _objective(
    mode: str,
    effects: Tensor,
    noise_bound: ArrayLike | Tensor | None,
    misfit: ArrayLike | Tensor | None,
    order_tilt: tuple[float, float] | None,
) -> Boxed | Penalized:
    """The objective of a mode; refuses options that belong to another mode."""
    given = {"noise_bound": noise_bound, "misfit": misfit, "order_tilt": order_tilt}
    for name in ("misfit", "order_tilt") if mode == "paper" else ("noise_bound",):
        if given[name] is not None:
            raise WhatStuckError(f"mode {mode!r} takes no {name}: leave it out")
    if mode == "paper":
        if noise_bound is None:
            raise WhatStuckError(
                "mode 'paper' needs noise_bound, the largest misfit allowed at any coalition: "
                "0.05 times the mean of |v(all) - v(none)| over the rows is usual"
            )
        return Boxed(per_row("noise_bound", noise_bound, effects.shape[:1], effects.device))
    largest = effects.abs().flatten(1).amax(1)
    misfits = per_row(
        "misfit", DEFAULT_MISFIT * largest if misfit is None else misfit, effects.shape[:2], effects.device
    )
    tiny = misfits <= _LEAST_MISFIT * largest[:, None]
    if bool((tiny & (largest > 0)[:, None]).any()):
        raise WhatStuckError(
            "misfit must be positive, and no less than 1e-9 of the effects: for an exact fit use mode 'paper' with "
            "noise_bound 0"
        )
    return Penalized(misfits, _tilt(order_tilt))


def problem(  # noqa: PLR0913 - the arguments of extract_interactions
    values: NDArray[np.generic] | Tensor,
    *,
    mode: str,
    noise_bound: ArrayLike | Tensor | None,
    misfit: ArrayLike | Tensor | None,
    order_tilt: tuple[float, float] | None,
    certainty: bool | float,
    noise_floor: ArrayLike | Tensor,
    gap_tolerance: float | None,
    max_iterations: int,
) -> Problem:
    """Check the arguments of `extract_interactions`, and fill in what was left open.

    Raises:
        WhatStuckError: Naming what is wrong.
    """
    if mode not in MODES:
        known = ", ".join(repr(name) for name in MODES)
        raise WhatStuckError(f"mode {mode!r} is unknown: the modes are {known}")
    gap_tolerance = _GAP[mode] if gap_tolerance is None else gap_tolerance
    if not 0 < gap_tolerance < math.inf:
        raise WhatStuckError("gap_tolerance must be positive")
    if not isinstance(max_iterations, int) or max_iterations < 1:
        raise WhatStuckError("max_iterations must be a whole number, at least 1")
    tables = value_tables(values, mode)
    slack = _slack(player_count(tables), certainty=certainty)
    effects = tables - tables[..., :1]
    if not bool(effects.isfinite().all()):
        raise WhatStuckError("values are too large: their differences overflow")
    effects = effects if mode == "joint" else effects[:, None]
    return Problem(
        effects=effects,
        objective=_objective(mode, effects, noise_bound, misfit, order_tilt),
        slack=slack,
        noise_floor=per_row("noise_floor", noise_floor, effects.shape[:2], effects.device),
        gap_tolerance=gap_tolerance if slack is None else min(gap_tolerance, GAP_PER_SLACK * slack),
        max_iterations=max_iterations,
    )
