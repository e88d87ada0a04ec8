"""Settings from flags, arguments or YAML: one clear line for the first one that is wrong."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from whatstuck.errors import WhatStuckError

Model = TypeVar("Model", bound=BaseModel)


def read_settings(model: type[Model], verb: str, values: Mapping[str, Any]) -> Model:
    """Check settings.

    Args:
        model: The settings of the verb.
        verb: Its name, for messages.
        values: What was given.

    Raises:
        WhatStuckError: Naming the first setting that is wrong.
    """
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        names = [str(part) for part in first["loc"]]
        name = "--" + ".".join(names).replace("_", "-")
        if first["type"] == "missing":
            raise WhatStuckError(f"{name} is missing: give it as a flag, or in --config") from error
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(names[-1], model.model_fields, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise WhatStuckError(f"{names[-1]!r} is no setting of {verb}{hint}") from error
        said = str(first["msg"]).removeprefix("Value error, ")  # pydantic's name for what a validator of ours says
        if not names:  # about several settings together
            raise WhatStuckError(said) from error
        raise WhatStuckError(f"{name}: {said} (got {first.get('input')!r})") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Names and values from a YAML file; an empty file has none.

    Raises:
        WhatStuckError: If it is not readable, or holds something else.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WhatStuckError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from error
    if found is not None and not isinstance(found, dict):
        raise WhatStuckError(f"{path} must hold names and values, such as  learning_rate: 1e-4")
    return {str(name): value for name, value in (found or {}).items()}
