"""See what supervised fine-tuning removed, kept and added, and which checkpoint to keep.

Everything public is listed in `__all__`; all other modules may change. Names load when they are first used, so
that `whatstuck --help` does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from whatstuck._version import __version__
from whatstuck.errors import WhatStuckError

if TYPE_CHECKING:
    from whatstuck import stopping
    from whatstuck.api import compare, find_unlearned, generalize, intervene, track, train
    from whatstuck.interactions.extraction import Interactions, extract_interactions
    from whatstuck.interactions.game import LanguageModelGame
    from whatstuck.interactions.interop import from_shapiq, to_interaction_values, to_parquet, to_shapiq
    from whatstuck.interactions.sampled import SampledInteractions, fit_interactions
    from whatstuck.interactions.whole_prompt import PromptExplanation, explain_prompt
    from whatstuck.live import WhatStuckCallback
    from whatstuck.results import Run, load_run

_WHERE = {
    "Interactions": "whatstuck.interactions.extraction",
    "LanguageModelGame": "whatstuck.interactions.game",
    "PromptExplanation": "whatstuck.interactions.whole_prompt",
    "Run": "whatstuck.results",
    "SampledInteractions": "whatstuck.interactions.sampled",
    "compare": "whatstuck.api",
    "WhatStuckCallback": "whatstuck.live",
    "explain_prompt": "whatstuck.interactions.whole_prompt",
    "extract_interactions": "whatstuck.interactions.extraction",
    "find_unlearned": "whatstuck.api",
    "fit_interactions": "whatstuck.interactions.sampled",
    "from_shapiq": "whatstuck.interactions.interop",
    "generalize": "whatstuck.api",
    "intervene": "whatstuck.api",
    "load_run": "whatstuck.results",
    "to_interaction_values": "whatstuck.interactions.interop",
    "to_parquet": "whatstuck.interactions.interop",
    "to_shapiq": "whatstuck.interactions.interop",
    "track": "whatstuck.api",
    "train": "whatstuck.api",
}

__all__ = [
    "Interactions",
    "LanguageModelGame",
    "PromptExplanation",
    "Run",
    "SampledInteractions",
    "WhatStuckCallback",
    "WhatStuckError",
    "__version__",
    "compare",
    "explain_prompt",
    "extract_interactions",
    "find_unlearned",
    "fit_interactions",
    "from_shapiq",
    "generalize",
    "intervene",
    "load_run",
    "stopping",
    "to_interaction_values",
    "to_parquet",
    "to_shapiq",
    "track",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "stopping":
        return importlib.import_module("whatstuck.stopping")
    if name not in _WHERE:
        raise AttributeError(f"module 'whatstuck' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
