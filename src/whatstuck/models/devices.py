"""Where to compute, and how much memory that took."""

import sys

import torch

from whatstuck.errors import WhatStuckError


def usable_device(name: str) -> str:
    """The device of that name; `auto` is the accelerator if there is one.

    Raises:
        WhatStuckError: If it cannot be used here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise WhatStuckError(f"--device {name!r} is not usable here: try cpu, or leave it out") from error
    return name


def peak_memory(device: str | torch.device) -> float:
    """Bytes that were taken so far at most: of the GPU, or of this process where none computes."""
    if torch.device(device).type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
