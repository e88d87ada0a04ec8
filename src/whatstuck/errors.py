"""Errors that a user reads: one line that says what is wrong and what to do.

Everything a user can get wrong raises `WhatStuckError`; the command line prints its message and exits
with 2. Anything else that escapes is a bug of ours and keeps its traceback.
"""

import importlib
from types import ModuleType


class WhatStuckError(Exception):
    """Bad input. The message is one line: what is wrong, and what to do about it."""


class MissingExtraError(WhatStuckError):
    """A feature needs a package that is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say in one line how to install it.

    Args:
        module: Name to import, such as `"peft"`.
        extra: The extra of whatstuck that brings it, such as `"peft"`.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".", maxsplit=1)[0]:
            raise
        raise MissingExtraError(
            f"this needs the package {module!r}: install it with  pip install 'whatstuck[{extra}]'"
        ) from error
