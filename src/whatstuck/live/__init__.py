"""Inside a training run: probe the model as it learns, decide, and leave the training untouched."""

from whatstuck.live.callback import WhatStuckCallback

__all__ = ["WhatStuckCallback"]
