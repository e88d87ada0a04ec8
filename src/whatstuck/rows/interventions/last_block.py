"""Training of a model's last block alone, in memory: enough to ask what is within reach, and undone in a moment.

Nothing is written, and the model is given back bit for bit, so the next probe sees what this one saw.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.rows.interventions.training import Encoded
from whatstuck.training._tokens import IGNORED


@contextmanager
def last_block(model: PreTrainedModel) -> Iterator[list[nn.Parameter]]:
    """The parameters of the last block, ready to be trained; afterwards the model is what it was, bit for bit.

    Raises:
        WhatStuckError: If the model has no list of blocks.
    """
    every = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    parameters = list(_blocks(model)[-1].parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        model.requires_grad_(requires_grad=False)
        for parameter in parameters:
            parameter.requires_grad = True
        yield parameters
    finally:
        with torch.no_grad():
            for parameter, content in zip(parameters, before, strict=True):
                parameter.copy_(content)
                parameter.grad = None
        for parameter, required in every:
            parameter.requires_grad = required


def _blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The blocks of the language model.

    Not just the longest list: the experts of one block may be more than there are blocks, and so may be those of an
    encoder of images. A list inside of another one is never it.
    """
    outer = [module for module in _outermost(model) if len(module)]
    if not outer:
        raise WhatStuckError(f"{type(model).__name__} has no list of blocks: leave --quick out and train the arms")
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    return next((module for module in outer if len(module) == layers), max(outer, key=len))


def _outermost(module: nn.Module) -> Iterator[nn.ModuleList]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _outermost(child)


def learn(model: PreTrainedModel, optimizer: torch.optim.Optimizer, rows: Sequence[Encoded], pad_token_id: int) -> None:
    """One step on some rows, without dropout."""
    width = max(len(row["input_ids"]) for row in rows)

    def padded(parts: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        lines = [[*part, *[fill] * (width - len(part))] for part in parts]
        return torch.tensor(lines, device=model.device)

    ids = padded([row["input_ids"] for row in rows], pad_token_id)
    mask = padded([[1] * len(row["input_ids"]) for row in rows], 0)
    labels = padded([row["labels"] for row in rows], IGNORED)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
