"""Where to compute."""

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
