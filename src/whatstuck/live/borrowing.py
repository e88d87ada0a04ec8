"""Borrow the model from its training: score it in fp32 without dropout, and give it back exactly as it was.

A probe must not change what is learned by a single bit. So random states, the mode of every module, matmul precision
and weights of lower precision are put back, whatever happened. Nothing here touches a gradient, and the weights
themselves are never written: 16-bit ones are exchanged for copies and come back as the same tensors.

Traps: accelerate hides autocast in the `forward` of the model instance, so that leaving autocast from outside does
nothing. And a parameter must not even be given other data for a while: torch then drops the node that
DistributedDataParallel hangs its hooks on, and the processes silently stop sharing gradients. So the parameter itself
is taken out and put back.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.models.precision import exact_products

_AUTOCAST_MARK = "_original_forward"  # what accelerate leaves on a model whose forward it wrapped


@contextmanager
def borrowed(model: nn.Module, *, dtype: torch.dtype = torch.float32) -> Iterator[PreTrainedModel]:
    """The model under training as one that can be scored, until the block ends.

    Args:
        model: What the trainer hands to its callbacks; a PEFT model is scored with its adapter, not merged.
        dtype: Of the scoring; weights of lower precision are exchanged for copies (twice the memory while it lasts).

    Raises:
        WhatStuckError: If the model is quantized or spread over several machines or devices.
    """
    scored = causal_model(model)
    with ExitStack() as stack:
        stack.enter_context(undisturbed(dtype))
        stack.enter_context(_modes(model))
        stack.enter_context(_plain_forward(scored))
        stack.enter_context(_weights_in(scored, dtype))
        for device in {parameter.device.type for parameter in scored.parameters()}:
            stack.enter_context(torch.autocast(device, enabled=False))
        model.eval()
        yield scored


def causal_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside, with adapters in their places.

    Raises:
        WhatStuckError: If there is none, it is quantized, or it does not lie here as a whole.
    """
    inner: Any = model
    while hasattr(inner, "module") and not isinstance(inner, PreTrainedModel):  # DistributedDataParallel
        inner = inner.module
    if hasattr(inner, "get_base_model"):  # PEFT
        inner = inner.get_base_model()
    if not isinstance(inner, PreTrainedModel):
        raise WhatStuckError(
            f"a {type(model).__name__} cannot be probed in training: probe its checkpoints with `whatstuck track`"
        )
    sharded = any(hasattr(p, "ds_id") or type(p).__name__ == "DTensor" for p in inner.parameters())
    if sharded or any(type(module).__name__ == "FullyShardedDataParallel" for module in inner.modules()):
        raise WhatStuckError(
            "the weights are sharded (FSDP or ZeRO-3), so no process holds the model: probe the checkpoints "
            "with `whatstuck track` instead"
        )
    if not all(parameter.is_floating_point() for parameter in inner.parameters()):
        raise WhatStuckError(
            "the model is quantized, and rounding would drown the interactions: probe the checkpoints with "
            "`whatstuck track` on the unquantized base instead"
        )
    return inner


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[bool]:
    """The untouched model, where the one under training is an adapter on it; whether that is so."""
    inner: Any = model
    while hasattr(inner, "module") and not hasattr(inner, "disable_adapter"):
        inner = inner.module
    if not hasattr(inner, "disable_adapter"):
        yield False
        return
    with inner.disable_adapter():
        yield True


@contextmanager
def quiet_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, each module in its own afterwards; TRL reads it to tell whose metrics a log flushes."""
    with _modes(model):
        model.eval()
        yield


@contextmanager
def undisturbed(dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """What belongs to the whole process comes back as it was: random states, and the precision of products."""
    with _random_states(), exact_products() if dtype == torch.float32 else nullcontext():
        yield


@contextmanager
def _random_states() -> Iterator[None]:
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is what others use
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _modes(model: nn.Module) -> Iterator[None]:
    """Not `model.train()` afterwards: a frozen part may be in eval mode on purpose."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _plain_forward(model: nn.Module) -> Iterator[None]:
    contents = vars(model)
    if _AUTOCAST_MARK not in contents or "forward" not in contents:
        yield
        return
    wrapped = contents["forward"]
    contents["forward"] = contents[_AUTOCAST_MARK]
    try:
        yield
    finally:
        contents["forward"] = wrapped


@contextmanager
def _weights_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    if dtype != torch.float32:
        yield
        return
    exchanged: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    copies: dict[int, torch.Tensor] = {}  # tied weights stay tied
    try:
        for module in model.modules():
            tables: list[dict[str, Any]] = [module._parameters, module._buffers]  # noqa: SLF001 - put back afterwards
            for table in tables:
                for name, tensor in table.items():
                    if tensor is None or tensor.dtype not in (torch.float16, torch.bfloat16):
                        continue
                    if id(tensor) not in copies:
                        copy = tensor.detach().to(dtype)
                        is_weight = isinstance(tensor, nn.Parameter)
                        copies[id(tensor)] = nn.Parameter(copy, requires_grad=False) if is_weight else copy
                    exchanged.append((table, name, tensor))
                    table[name] = copies[id(tensor)]
        yield
    finally:
        for table, name, tensor in exchanged:
            table[name] = tensor
