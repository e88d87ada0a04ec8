"""The callback as a plugin of axolotl, so that a YAML file is enough to probe a training.

```yaml
plugins:
  - whatstuck.integrations.axolotl.WhatStuckPlugin
whatstuck:           # arguments of WhatStuckCallback
  data: heldout.jsonl
  out: run
```

Traps, in axolotl 0.19: it adds every callback that a plugin returns without looking whether it is there, so a plugin
that attaches its callback must return none; and its plugins are kept from one YAML file to the next of a process, so
their arguments must be optional.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from whatstuck.errors import WhatStuckError
from whatstuck.live import WhatStuckCallback
from whatstuck.stopping import default_rules

_NAME = "WhatStuckPlugin"  # made on call: its base class is axolotl's


class WhatStuckArgs(BaseModel):
    """What the plugin adds to axolotl's configuration.

    Attributes:
        whatstuck: Arguments of `WhatStuckCallback`; `rule` is the name of one of `whatstuck.stopping`.
    """

    whatstuck: dict[str, Any] | None = None


class _Plugin:
    """The hooks that axolotl calls."""

    def register(self, cfg: Any) -> None:
        """Refuse bad options before a model is loaded.

        Raises:
            WhatStuckError: Naming what is wrong.
        """
        if f"{__name__}.{_NAME}" in cfg["plugins"]:
            _callback(cfg.get("whatstuck"))

    def get_input_args(self) -> str:
        """Where axolotl finds the options that the plugin adds."""
        return f"{__name__}.{WhatStuckArgs.__name__}"

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Attach the callback, which adds it; nothing is left for axolotl to add."""
        if f"{__name__}.{_NAME}" in cfg["plugins"]:
            _callback(cfg.get("whatstuck")).attach(trainer)
        return []


def _callback(options: Any) -> WhatStuckCallback:
    if not isinstance(options, Mapping) or not {"data", "out"} <= options.keys():
        raise WhatStuckError("the plugin needs the key `whatstuck:` in the YAML file, with at least `data:` and `out:`")
    plain: dict[str, Any] = options.to_dict() if hasattr(options, "to_dict") else dict(options)
    rules = {rule.name: rule for rule in default_rules() if rule.kind != "hindsight"}
    if plain.get("rule") is not None:
        name = plain["rule"]
        if name not in rules:
            raise WhatStuckError(f"whatstuck: there is no rule {name!r}: choose one of {', '.join(map(repr, rules))}")
        plain["rule"] = rules[name]
    return WhatStuckCallback(**plain)


def __getattr__(name: str) -> Any:
    """The plugin class, when axolotl asks for it."""
    if name != _NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base: Any = importlib.import_module("axolotl.integrations.base").BasePlugin
    return type(_NAME, (_Plugin, base), {"__doc__": "Probes a training of axolotl.", "__module__": __name__})
