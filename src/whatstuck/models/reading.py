"""Many texts side by side through a causal language model, each of which may branch, grow by a token, or end.

Prompts are padded on the left where the model takes position ids; elsewhere a batch holds prompts of one length.

Models with a recurrent state, or another cache whose entries do not belong to single tokens, are computed without a
cache: every step runs the whole texts, in batches of prompts of one length. That is right and slow, and logged once
per model.
"""

import inspect
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.masked import DEFAULT_MEMORY_LIMIT, Sizes, accepted_options

logger = logging.getLogger(__name__)

BATCH = 64
"""Prompts of a batch; more do not make a product faster."""
BATCH_TOKENS = 8192
"""Tokens of a batch, padding included."""
_SLACK = 1.3  # a layer's keys and values are there twice while they grow

Way = Literal["padded", "equal lengths", "no cache"]
_known: WeakKeyDictionary[PreTrainedModel, Way] = WeakKeyDictionary()


def batches(
    model: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    *,
    branches: int,
    growth: int,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Iterator[list[int]]:
    """Indices of prompts of similar length, the longest first: what does not fit fails at once.

    Args:
        model: A causal language model.
        prompts: Tokens of each.
        branches: The most continuations that each may have at a time.
        growth: The most tokens that each may grow by.
        memory_limit: Bytes for keys, values and logits; at least one prompt is in a batch.
    """
    way = way_of(model)
    batch: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)):
        width = len(prompts[batch[0]]) if batch else 0
        full = len(batch) >= BATCH or (len(batch) + 1) * width > BATCH_TOKENS
        full = full or (len(batch) + 1) * branches * bytes_of_branch(model, width + growth) > memory_limit
        if batch and (full or (way != "padded" and len(prompts[index]) != width)):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def bytes_of_branch(model: PreTrainedModel, tokens: int) -> int:
    """What a text of that length takes while it grows: keys, values and logits."""
    size = Sizes.of(model)
    return int(_SLACK * size.cache * tokens) + 2 * size.element * size.vocabulary


class Texts:
    """Texts that a model reads side by side, each of which may branch or end.

    Args:
        model: A causal language model in eval mode.
        prompts: Tokens of each, at least one; of one batch of `batches`.
        pad_token_id: Any token id; padding is masked out.
        shared: First tokens that all prompts have in common and that are computed once, fewer than the shortest has;
            see `prefixes` for when that changes nothing.

    Attributes:
        logits: Of the next token of each text, `(texts, vocabulary)`.

    Raises:
        WhatStuckError: If the model gives NaN.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], pad_token_id: int, *, shared: int = 0
    ) -> None:
        self._model = model
        self._cache = None if way_of(model) == "no cache" else DynamicCache(config=model.config)
        shared = 0 if self._cache is None else shared
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), pad_token_id)
        self._mask = torch.zeros_like(ids)
        self._mask[:, :shared] = 1  # what is not shared is padded on its left, which may be in the middle
        for row, prompt in enumerate(prompts):
            rest = width - len(prompt) + shared
            ids[row, rest:] = torch.tensor(prompt[shared:])
            self._mask[row, rest:] = 1
        ids, self._mask = ids.to(model.device), self._mask.to(model.device)
        self._ids = ids
        if shared and self._cache is not None:
            first, every = torch.tensor([prompts[0][:shared]], device=model.device), self._mask
            self._mask = torch.ones_like(first)
            self._read(first)
            self._mask = every
            self._cache.batch_repeat_interleave(len(prompts))
            ids = ids[:, shared:]
        self.logits = self._read(ids)

    def branch(self, parents: Sequence[int], tokens: Sequence[int]) -> None:
        """Replace the texts by continuations of some of them, by one token each."""
        kept = torch.tensor(parents, device=self._mask.device)
        new = torch.tensor(tokens, device=self._mask.device)[:, None]
        self._mask = torch.cat([self._mask[kept], torch.ones_like(new)], 1)
        if self._cache is None:
            self._ids = new = torch.cat([self._ids[kept], new], 1)
        elif list(parents) != list(range(len(self.logits))):
            self._cache.batch_select_indices(kept)
        self.logits = self._read(new)

    def _read(self, ids: torch.Tensor) -> torch.Tensor:
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        options: dict[str, Any] = accepted_options(self._model, position_ids=positions, logits_to_keep=1)
        if self._cache is None:  # texts of one length: nothing to mask
            options |= {"use_cache": False}
        else:
            options |= {"attention_mask": self._mask, "past_key_values": self._cache, "use_cache": True}
        logits: torch.Tensor = self._model(input_ids=ids, **options).logits[:, -1]
        if logits.isnan().any():
            raise WhatStuckError("the model answers with NaN, so its training has diverged: take an earlier checkpoint")
        return logits


@torch.inference_mode()
def next_log_probabilities(
    model: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    tokens: Sequence[Sequence[int]],
    pad_token_id: int,
    *,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> list[npt.NDArray[np.float64]]:
    """Log-probabilities of some tokens right behind each prompt, in nats.

    Args:
        model: A causal language model in eval mode.
        prompts: Tokens of each, at least one.
        tokens: The tokens to look at, per prompt.
        pad_token_id: Any token id; padding is masked out.
        memory_limit: Bytes of a batch.

    Returns:
        One array per prompt, in the order of its tokens.

    Raises:
        WhatStuckError: If the model gives NaN.
    """
    found: dict[int, npt.NDArray[np.float64]] = {}
    for members in batches(model, prompts, branches=1, growth=0, memory_limit=memory_limit):
        logits = Texts(model, [prompts[i] for i in members], pad_token_id).logits
        for row, index in enumerate(members):
            z = logits[row].double()
            found[index] = (z[list(tokens[index])] - z.logsumexp(-1)).cpu().numpy()
    return [found[i] for i in range(len(prompts))]


def way_of(model: PreTrainedModel) -> Way:
    """How texts go through this model."""
    if model not in _known:
        layers = DynamicCache(config=model.config).layers
        by_token = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
        if model._is_stateful or not by_token:  # noqa: SLF001 - there is no public form
            logger.warning("%s: its state cannot branch, so answers are computed without it", type(model).__name__)
            _known[model] = "no cache"
        else:
            takes_positions = "position_ids" in inspect.signature(model.forward).parameters
            _known[model] = "padded" if takes_positions else "equal lengths"
    return _known[model]
