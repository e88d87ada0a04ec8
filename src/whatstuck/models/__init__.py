"""Models: any name or folder to a local model, one loaded base for many checkpoints."""

from whatstuck.models.checkpoints import (
    Checkpoint,
    base_mismatch,
    find_checkpoints,
    fingerprint,
    template_mismatch,
    trainer_metrics,
)
from whatstuck.models.loaded import CheckpointedModel, default_mask_token, load_model, load_tokenizer
from whatstuck.models.resolving import resolve_model

__all__ = [
    "Checkpoint",
    "CheckpointedModel",
    "base_mismatch",
    "default_mask_token",
    "find_checkpoints",
    "fingerprint",
    "load_model",
    "load_tokenizer",
    "resolve_model",
    "template_mismatch",
    "trainer_metrics",
]
