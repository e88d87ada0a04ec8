"""One loaded base, many checkpoints: what scoring loops over.

Everything is loaded for scoring: fp32 unless asked otherwise, TF32 off, no dropout, safetensors only, no code from
a model folder. A model that would be filled with random numbers where weights are missing is refused.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.errors import WhatStuckError
from whatstuck.models._files import file_hash, kind_of, read_json, weight_files
from whatstuck.models._folding import folded
from whatstuck.models._quiet import quiet_transformers
from whatstuck.models.checkpoints import Checkpoint, base_mismatch, template_mismatch
from whatstuck.models.precision import use_exact_products

logger = logging.getLogger(__name__)


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Tokenizer of a model folder.

    Raises:
        WhatStuckError: If the folder holds none that loads without code of its own.
    """
    config = Path(path) / "tokenizer_config.json"
    written_by_v5 = config.is_file() and read_json(config).get("tokenizer_class") == "TokenizersBackend"
    # transformers 4 does not know the class that version 5 writes down; the file below it is the same.
    old = written_by_v5 and not hasattr(transformers, "TokenizersBackend")
    loader = transformers.PreTrainedTokenizerFast if old else AutoTokenizer
    try:
        with quiet_transformers():
            tokenizer = loader.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise WhatStuckError(
            f"{path} has no tokenizer that loads ({_brief(error)}): save one beside the model"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise WhatStuckError(f"{path} has no tokenizer that loads: save one beside the model")
    return tokenizer


def load_model(
    path: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Causal language model of a folder, in eval mode.

    Args:
        path: A Hugging Face model folder (see `resolve_model` for other forms).
        device: Where to put it.
        dtype: Of the weights and of the scoring; with float32, TF32 is switched off for the process.

    Returns:
        The model; `from_pretrained` with `use_safetensors=True`, `trust_remote_code=False`.

    Raises:
        WhatStuckError: If it is an adapter, a pickle, quantized, incomplete, or needs code of its own; or if the
            device is not there.
    """
    path = Path(path)
    weight_files(path)
    if kind_of(path) == "adapter":
        raise WhatStuckError(f"{path} is an adapter, no model: give its base as the model and it as a checkpoint")
    quantized = read_json(path / "config.json").get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", "unknown method") if isinstance(quantized, dict) else "unknown method"
        raise WhatStuckError(
            f"{path} is quantized ({method}), and rounding would drown the interactions: give the unquantized model"
        )
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(  # a pair, which its types do not know
                path,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise WhatStuckError(f"{path} cannot be loaded as a causal language model: {_brief(error)}") from error
    model: PreTrainedModel
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise WhatStuckError(
            f"{path} lacks {len(missing)} tensors of its model, such as {missing[0]}: "
            "it was saved under other names or in part; save it again with save_pretrained"
        )
    if unexpected := sorted(info["unexpected_keys"]):
        logger.warning("%s holds %d tensors that are not used, such as %s", path, len(unexpected), unexpected[0])
    try:
        torch.nn.Module.to(model, torch.device(device))
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise WhatStuckError(f"device {device} cannot hold {path}: {_brief(error)}") from error
    if dtype == torch.float32:
        use_exact_products()
    model.eval()
    return model


def mask_token(tokenizer: PreTrainedTokenizerBase, name: str | None) -> int:
    """Id of the token that stands for a masked word: the one that the user names, else `default_mask_token`.

    Raises:
        WhatStuckError: If it is none of the tokenizer's.
    """
    if name is None:
        return default_mask_token(tokenizer)
    token = tokenizer.convert_tokens_to_ids(name)
    if not isinstance(token, int) or tokenizer.convert_ids_to_tokens(token) != name:
        raise WhatStuckError(f"the mask token {name!r} is no token of the model: give one of its vocabulary")
    return token


def default_mask_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that stands for a masked word, where the user names none.

    `<unk>` if there is one, else `<pad>`, as the group of arXiv 2605.17967 does for language models; else the
    end-of-text token, which plays both parts in many models.

    Raises:
        WhatStuckError: If the tokenizer has none of them.
    """
    for name in ("unk_token_id", "pad_token_id", "eos_token_id"):
        token = getattr(tokenizer, name, None)
        if isinstance(token, int):
            return token
    raise WhatStuckError("the tokenizer has no unk, pad or eos token to mask words with: name one with --mask-token")


class CheckpointedModel:
    """A base model and its checkpoints, one in memory at a time.

    Adapters are folded into the base and taken out again, so a series of them loads the base once. A full
    checkpoint takes the place of the base, which is loaded again when it is next needed.

    Args:
        base: Folder of the base model, as `resolve_model` returns it.
        device: Where to compute.
        dtype: Of weights and scoring.

    Raises:
        WhatStuckError: If the base cannot be loaded.
    """

    def __init__(self, base: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.path = Path(base)
        self.device = torch.device(device)
        self.dtype = dtype
        self.tokenizer = load_tokenizer(self.path)
        self._base: PreTrainedModel | None = load_model(self.path, device=device, dtype=dtype)
        self._vocabulary = self.tokenizer.get_vocab()
        self._in_use = False

    @contextmanager
    def at(self, checkpoint: Checkpoint | None) -> Iterator[PreTrainedModel]:
        """The model as it was at a checkpoint, in eval mode; None is the base.

        It is good inside the `with` block only: afterwards a folded model is the base again, bit for bit, and a
        full one has given its memory back.

        Raises:
            WhatStuckError: If the checkpoint cannot be loaded or folded, or has another vocabulary than the base.
            RuntimeError: If another checkpoint is in use.
        """
        if self._in_use:
            raise RuntimeError("leave the block of one checkpoint before the next is entered")
        self._in_use = True
        try:
            if checkpoint is None or checkpoint.kind == "base":
                yield self._loaded_base()
                return
            self._compare(checkpoint)
            if checkpoint.kind == "adapter":
                with folded(self._loaded_base(), checkpoint.path) as model:
                    yield model
                return
            if self._base is not None:
                _release(self._base)
                self._base = None
            full = load_model(checkpoint.path, device=self.device, dtype=self.dtype)
            try:
                yield full
            finally:
                _release(full)
        finally:
            self._in_use = False

    def _loaded_base(self) -> PreTrainedModel:
        if self._base is None:
            self._base = load_model(self.path, device=self.device, dtype=self.dtype)
        return self._base

    def _compare(self, checkpoint: Checkpoint) -> None:
        for mismatch in (base_mismatch(checkpoint, self.path), template_mismatch(checkpoint, self.path)):
            if mismatch:
                logger.warning("%s", mismatch)
        ours, theirs = self.path / "tokenizer.json", checkpoint.path / "tokenizer.json"
        if not theirs.is_file() or (ours.is_file() and file_hash(ours) == file_hash(theirs)):
            return
        tokenizer = load_tokenizer(checkpoint.path)
        pad = {tokenizer.pad_token}  # some trainers add one; no prompt holds it
        other = {
            token: index
            for token, index in tokenizer.get_vocab().items()
            if self._vocabulary.get(token) != index and token not in pad
        }
        if other:
            raise WhatStuckError(
                f"{checkpoint.path} has {len(other)} tokens that the base's tokenizer has not, such as "
                f"{min(other)!r}: give a base that was saved with this tokenizer"
            )


def _release(model: PreTrainedModel) -> None:
    """Free a model's memory, even if somebody still holds the model."""
    torch.nn.Module.to(model, "meta")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _brief(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
