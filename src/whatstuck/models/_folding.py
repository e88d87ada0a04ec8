"""A LoRA adapter folded into a loaded base, and taken out again bit for bit.

PEFT does the mathematics (DoRA, rsLoRA, rank and alpha patterns, bias, modules_to_save, trainable tokens, tied
adapters). What it must not do is write into the base: subtracting a delta afterwards leaves rounding behind, and
some adapters overwrite base tensors already while they are loaded (biases, embeddings). So every tensor that may
be written is exchanged for a copy first, the copy is written, and at the end every module gets back exactly the
contents that it had. That also undoes PEFT's wrappers, frozen parameters and changes of the configuration.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError, require
from whatstuck.models._files import read_json, tensor_shapes, weight_files

# Settings under which the adapter alone, on the plain base, is not the model that was trained, or cannot be merged.
_UNSUPPORTED = ("layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config")
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
_PREFIX = "base_model.model."
_EXPECTED = (
    "`is_gradient_checkpointing` is deprecated",  # PEFT asks transformers for an attribute by its old name
    # Tied embeddings: every adapted layer gets a copy of its own here, so merging is right.
    "Model has `tie_word_embeddings=True`",
    "Model with `tie_word_embeddings=True`",
    "Input and output embeddings are no longer tied after merging",
)

logger = logging.getLogger(__name__)


@contextmanager
def folded(model: PreTrainedModel, folder: Path) -> Iterator[PreTrainedModel]:
    """The model with the adapter of `folder` in its weights; without it again when the block ends, however it ends.

    Raises:
        WhatStuckError: If the adapter is of a kind that cannot be folded, does not fit the model, or holds NaN.
        MissingExtraError: If PEFT is not installed.
    """
    peft = require("peft", "peft")
    _refuse_unsupported(folder)
    written = _refuse_misfit(model, folder)
    device = next(model.parameters()).device
    contents = _Contents(model)
    try:
        _exchange_for_copies(model, written)
        # Fresh adapters draw random numbers before theirs are loaded: fork, so that nobody else's change.
        with torch.random.fork_rng([device] if device.type == "cuda" else []), _heard_warnings() as heard:
            try:
                wrapped = peft.PeftModel.from_pretrained(model, str(folder), torch_device=str(device))
                for layer in wrapped.modules():
                    if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
                        _give_own_copies(layer.get_base_layer())
                merged = wrapped.merge_and_unload(safe_merge=True)
            except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
                raise _not_foldable(folder, str(error) or type(error).__name__) from error
        for message in heard:
            if "missing adapter keys" in message:  # PEFT goes on with random ones
                raise _not_foldable(folder, message)
            if not message.startswith(_EXPECTED):
                logger.warning("%s: %s", folder, message)
        merged.eval()
        yield merged
    finally:
        contents.put_back()


class _Contents:
    """What every module of a model holds: sub-modules, parameters, buffers, hooks, flags; and the configuration."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._modules = [
            (module, {key: value.copy() if isinstance(value, dict) else value for key, value in vars(module).items()})
            for module in model.modules()
        ]
        self._gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._config = (model.config, dict(vars(model.config)))

    def put_back(self) -> None:
        for module, contents in self._modules:
            vars(module).clear()
            vars(module).update(contents)
        for parameter, required in self._gradients:
            parameter.requires_grad_(required)
        config, values = self._config
        vars(config).clear()
        vars(config).update(values)


def _exchange_for_copies(model: nn.Module, names: Iterable[str]) -> None:
    """Put copies in the place of parameters; what was tied stays tied, as PEFT finds it when it loads."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    copies = {id(parameters[name]): _copy(parameters[name]) for name in names}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(parameter) in copies:
                setattr(module, name, copies[id(parameter)])


def _give_own_copies(module: nn.Module) -> None:
    """Copy the parameters of an adapted layer; its copy is its own.

    An adapter on the embedding alone does not change a tied output layer, and must not do so once it is merged.
    """
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, _copy(parameter))


def _copy(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), requires_grad=False)


@contextmanager
def _heard_warnings() -> Iterator[list[str]]:
    """Collect the warnings of a block as text, each once and in one line, filled when the block ends."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    messages += dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)


def _not_foldable(folder: Path, reason: str) -> WhatStuckError:
    return WhatStuckError(
        f"the adapter {folder} cannot be folded into the base: {' '.join(reason.split())[:300]}; "
        "give the base that it was trained on, or the merged model as a full checkpoint"
    )


def _refuse_unsupported(folder: Path) -> None:
    config = read_json(folder / "adapter_config.json")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise WhatStuckError(f"{folder} is an adapter of type {kind}: only LoRA (and DoRA, rsLoRA) can be folded")
    named = [f"{key}={config[key]!r}" for key in _UNSUPPORTED if config.get(key)]
    start = config.get("init_lora_weights")
    if start not in _PLAIN_INITS:  # PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA: the base itself was changed before training
        named.append(f"init_lora_weights={start!r}")
    if named:
        raise WhatStuckError(
            f"the adapter {folder} uses {', '.join(named)}, which cannot be folded into the plain base: "
            "give the merged model as a full checkpoint"
        )


def _refuse_misfit(model: PreTrainedModel, folder: Path) -> list[str]:
    """Compare an adapter's tensors with the model.

    Returns:
        Names of the parameters of the model that the adapter's file holds whole (biases, embeddings): PEFT writes
        some of them into the base while it loads.
    """
    parameters = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    modules = {name for name, _ in model.named_modules()}
    vocabulary = {id(layer) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    whole = []
    for key, shape in tensor_shapes(weight_files(folder)).items():
        name = key.removeprefix(_PREFIX).replace(".base_layer.", ".")
        if name in parameters:
            if shape != parameters[name]:
                in_vocabulary = id(model.get_submodule(name.rpartition(".")[0])) in vocabulary
                raise WhatStuckError(
                    f"{folder}: {name} is {list(shape)} and the base's {list(parameters[name])}"
                    + (": it was trained with a resized vocabulary" if in_vocabulary else "")
                    + "; give the base that it was trained on (resized and saved), or the merged model"
                )
            whole.append(name)
        owner = name.split(".lora_")[0]
        # PEFT passes silently over tensors it has no place for. Fused experts are renamed while loading.
        if owner != name and owner not in modules and ".experts." not in name:
            raise WhatStuckError(
                f"{folder} adapts {owner}, which the base has not: give the base that it was trained on"
            )
    return whole
