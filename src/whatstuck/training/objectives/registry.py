"""Objectives by name, as `train` and its YAML give them."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from whatstuck.errors import WhatStuckError
from whatstuck.training.objectives.anchors import ASFT, KL, L2
from whatstuck.training.objectives.interface import Objective
from whatstuck.training.objectives.tokens import DFT, EAFT, SED, SFT

_OBJECTIVES: dict[str, type[Objective]] = {kind.name: kind for kind in (SFT, DFT, SED, EAFT, ASFT, KL, L2)}


def objective_names() -> list[str]:
    """Every objective that can be named.

    >>> objective_names()
    ['sft', 'dft', 'sed', 'eaft', 'asft', 'kl', 'l2']
    """
    return list(_OBJECTIVES)


def find_objective(name: str, options: Mapping[str, Any] | None = None) -> Objective:
    """An objective with its options.

    Args:
        name: One of `objective_names`.
        options: Of that objective.

    Raises:
        WhatStuckError: If there is none of that name, or an option is unknown or wrong.
    """
    if name not in _OBJECTIVES:
        raise WhatStuckError(f"unknown objective {name!r}: use {', '.join(_OBJECTIVES)}")
    kind = _OBJECTIVES[name]
    try:
        return kind(**(options or {}))
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(option, kind.model_fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(kind.model_fields)}"
            raise WhatStuckError(f"{option!r} is no option of the objective {name}: {hint}") from error
        raise WhatStuckError(
            f"objective_options: {option} of {name}: {first['msg']} (got {first.get('input')!r})"
        ) from error
