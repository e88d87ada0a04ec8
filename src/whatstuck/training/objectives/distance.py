"""How far the weights are from where the training began: what the L2 anchor holds on to.

An adapter starts with nothing, and what it adds to a matrix is `scale * B A`. Its squared norm needs no matrix of the
model's size: `|B A|^2` is the sum of the entries of `(B^T B) * (A A^T)`, both of which are rank by rank. The norm of A
and B themselves would be another penalty: it depends on how the product is written, and is not zero at the start.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from whatstuck.errors import WhatStuckError

_MATRIX = 2  # dimensions


class Distance:
    """The distance of a model from its present state.

    Args:
        model: The model as the training begins: with a fresh LoRA adapter, whose distance is taken alone, or without;
            then its trainable weights are copied.

    Raises:
        WhatStuckError: If it has adapters of another kind.
    """

    def __init__(self, model: nn.Module) -> None:
        self._adapters = list(_low_rank(model))
        self._weights: list[tuple[Tensor, Tensor]] = []
        if self._adapters:
            known = {id(weight) for a, b, _ in self._adapters for weight in (a, b)}
            if any(weight.requires_grad and id(weight) not in known for weight in model.parameters()):
                raise WhatStuckError("the objective l2 knows LoRA adapters on matrices alone: train nothing else")
        else:
            trained = [weight for weight in model.parameters() if weight.requires_grad]
            self._weights = [(weight, weight.detach().clone()) for weight in trained]

    def squared(self) -> Tensor:
        """Sum of the squared changes of all weights: a float32 scalar with a gradient."""
        device = (self._adapters[0][0] if self._adapters else self._weights[0][0]).device
        total = torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False):  # half precision would lose small changes
            for a, b, scale in self._adapters:
                low, high = a.float(), b.float()
                total = total + scale**2 * ((high.T @ high) * (low @ low.T)).sum()
            for weight, start in self._weights:
                total = total + (weight.float() - start.float()).square().sum()
        return total


def _low_rank(model: nn.Module) -> Iterator[tuple[Tensor, Tensor, float]]:
    """A (rank, in), B (out, rank) and scale of every active LoRA adapter."""
    for module in model.modules():
        if not isinstance(scaling := getattr(module, "scaling", None), dict):
            continue
        for name in getattr(module, "active_adapters", ()):
            for first, second in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
                a, b = (getattr(module, table, {}) for table in (first, second))
                if name in a and name in b:
                    pair = [getattr(part[name], "weight", part[name]) for part in (a, b)]
                    if any(weight.dim() != _MATRIX for weight in pair):
                        raise WhatStuckError(
                            "the objective l2 knows LoRA adapters on matrices alone: name others in lora_target_modules"
                        )
                    yield pair[0], pair[1], float(scaling[name])
