"""See what supervised fine-tuning removed, kept and added, and which checkpoint to keep.

Everything public is listed in `__all__`; all other modules may change. Names load when they are first used, so
that `whatstuck --help` does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from whatstuck._version import __version__
from whatstuck.errors import WhatStuckError

if TYPE_CHECKING:
    from whatstuck.api import track, train
    from whatstuck.interactions.extraction import extract_interactions
    from whatstuck.interactions.game import LanguageModelGame
    from whatstuck.results import Run, load_run

_WHERE = {
    "LanguageModelGame": "whatstuck.interactions.game",
    "Run": "whatstuck.results",
    "extract_interactions": "whatstuck.interactions.extraction",
    "load_run": "whatstuck.results",
    "track": "whatstuck.api",
    "train": "whatstuck.api",
}

__all__ = [
    "LanguageModelGame",
    "Run",
    "WhatStuckError",
    "__version__",
    "extract_interactions",
    "load_run",
    "track",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'whatstuck' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
