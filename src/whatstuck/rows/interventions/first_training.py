"""With what settings the first model was trained.

Its folder says so, else a YAML of the user's. What no file says (a TRL default that was never written down) is taken
from TRL, and from the adapter where there is one.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.models import Checkpoint
from whatstuck.rows.feeding.sources import Source
from whatstuck.settings import read_yaml
from whatstuck.training.config import takes

logger = logging.getLogger(__name__)

_TRL_DEFAULTS: dict[str, Any] = {"learning_rate": 2e-5, "lr_scheduler_type": "linear"}
_FROM_ADAPTER = {
    "r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
}


def settings_of(source: Source, last: Checkpoint, *, given: Path | None) -> dict[str, Any]:
    """The settings of the first training, as `train` takes them.

    Args:
        source: Where the training is described.
        last: The finished model.
        given: A YAML of the user's, which goes before.

    Raises:
        WhatStuckError: If nothing says them.
    """
    if given is not None:
        return trl_settings(read_yaml(given), last)
    if source.kind == "whatstuck":
        return dict(source.config["settings"])
    if source.kind == "trl":
        return trl_settings(source.config, last)
    raise WhatStuckError(
        f"nothing says how {last.path} was trained: give --training a YAML with its settings (learning_rate, "
        "per_device_train_batch_size, lr_scheduler_type, ... as TRL names them)"
    )


def trl_settings(config: Mapping[str, Any], last: Checkpoint) -> dict[str, Any]:
    """Settings that a script of TRL's was run with, as far as `train` takes them."""
    given = {name: value for name, value in config.items() if takes(name, value)}
    if config.get("packing"):
        logger.warning("the first training packed its rows, the arms do not: their steps hold other rows than its own")
    adapter: dict[str, Any] = {"use_peft": last.kind == "adapter"}
    if last.kind == "adapter":
        file = last.path / "adapter_config.json"
        read = json.loads(file.read_text(encoding="utf-8"))
        adapter |= {ours: read[theirs] for theirs, ours in _FROM_ADAPTER.items() if read.get(theirs) is not None}
    return _TRL_DEFAULTS | given | adapter
