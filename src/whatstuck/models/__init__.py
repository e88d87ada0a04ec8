"""Models: any name or folder to a local model, one loaded base for many checkpoints."""

from whatstuck.models.checkpoints import (
    Checkpoint,
    base_mismatch,
    checkpoint_at,
    find_checkpoints,
    fingerprint,
    is_there,
    logged_metrics,
    template_mismatch,
    trainer_epochs,
    trainer_metrics,
)
from whatstuck.models.context import padding_token, positions_in, positions_of
from whatstuck.models.devices import peak_memory, usable_device
from whatstuck.models.loaded import CheckpointedModel, default_mask_token, load_model, load_tokenizer, mask_token
from whatstuck.models.resolving import resolve_model

__all__ = [
    "Checkpoint",
    "CheckpointedModel",
    "base_mismatch",
    "checkpoint_at",
    "default_mask_token",
    "find_checkpoints",
    "fingerprint",
    "is_there",
    "load_model",
    "load_tokenizer",
    "logged_metrics",
    "mask_token",
    "padding_token",
    "peak_memory",
    "positions_in",
    "positions_of",
    "resolve_model",
    "template_mismatch",
    "trainer_epochs",
    "trainer_metrics",
    "usable_device",
]
