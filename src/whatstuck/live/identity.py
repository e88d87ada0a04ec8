"""What a training is: enough to tell another one apart, and weights that can be told apart without writing them."""

import hashlib
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.errors import WhatStuckError

_SAMPLED = 256
_ARGUMENTS = (
    "learning_rate",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "optim",
    "seed",
    "data_seed",
)


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Hash (32 hex digits) of evenly spaced entries of every weight, adapters included.

    Training changes nearly all of them, so a sample tells two states apart, at a thousandth of the cost.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        chosen = torch.linspace(0, len(flat) - 1, min(len(flat), _SAMPLED), dtype=torch.float64).round().long()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(flat[chosen.to(flat.device)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def training_identity(arguments: Any, dataset: Any) -> dict[str, Any]:
    """What makes a training what it is, as far as its trainer tells: settings, and the rows that it learns."""
    known: dict[str, Any] = {name: getattr(arguments, name, None) for name in _ARGUMENTS}
    known = {name: value if isinstance(value, int | float) else str(value) for name, value in known.items()}
    try:
        known["rows"] = len(dataset)
    except TypeError:
        known["rows"] = None
    return known


def text_tokenizer(processing_class: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a training; that of a processor, where it is one.

    Raises:
        WhatStuckError: If there is none.
    """
    found = getattr(processing_class, "tokenizer", processing_class)
    if not isinstance(found, PreTrainedTokenizerBase):
        raise WhatStuckError("the trainer has no tokenizer: give it one with processing_class=")
    return found
