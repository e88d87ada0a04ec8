"""Prompts that begin alike: which of them go through a model together, and how much of them is computed once.

The prompts of a task differ in their middle or at their end. Sorted by tokens, neighbours begin with many tokens in
common; those keys and values are computed for one of a batch and copied to the others, and only the rest is padded.

Padding then stands between the common beginning and the rest. It is masked out, and positions are counted without it,
so it changes nothing where attention looks at positions and masks. Three kinds of model look at something else, and
share less or nothing: those with a state instead of keys, those with a window shorter than the text (it would count
the padding; they share where nothing has to be padded), and those whose positions change with the length of the text.
Whether a model keeps to that is tried once, on a few tokens, against plain forward passes.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicSlidingWindowLayer

from whatstuck.interactions.masked import DEFAULT_MEMORY_LIMIT
from whatstuck.models.reading import BATCH, BATCH_TOKENS, Texts, batches, bytes_of_branch, way_of

logger = logging.getLogger(__name__)

_PASS = 48  # tokens that one more forward pass costs as much as, mostly for reading the weights
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the largest logit, between two ways of computing
_ROUGH = 5e-2  # the same in 16 bits
_TRIAL = (7, 1, 4)  # tokens of the trial's beginning, and of its shortest and longest rest

Tokens = tuple[int, ...]
_known: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with in common.

    >>> common_prefix((1, 2, 3), (1, 2, 4, 5)), common_prefix((1, 2), (1, 2, 3))
    (2, 2)
    """
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))


def shared_batches(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    *,
    branches: int,
    growth: int,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Iterator[tuple[list[int], int]]:
    """Indices of prompts that go together, and how many first tokens of them are computed once.

    A prompt joins the batch of its neighbour as long as that costs less than to begin another one: a prompt that
    begins otherwise shortens what all of the batch have in common.

    Args:
        model: A causal language model.
        prompts: Tokens of each, at least one.
        branches: The most continuations that each may have at a time.
        growth: The most tokens that each may grow by.
        memory_limit: Bytes for keys, values and logits; at least one prompt is in a batch.
    """
    if not can_share(model):
        for members in batches(model, prompts, branches=branches, growth=growth, memory_limit=memory_limit):
            yield members, 0
        return
    padded = way_of(model) == "padded"
    batch: _Batch | None = None
    # where nothing is padded, prompts of one length are neighbours
    for index in sorted(range(len(prompts)), key=lambda i: (0 if padded else len(prompts[i]), prompts[i], i)):
        if batch is None:
            batch = _Batch.of(index, prompts[index])
            continue
        more = batch.with_one(index, prompts[index])
        full = len(more.members) > BATCH or more.tokens > BATCH_TOKENS
        full = full or len(more.members) * branches * bytes_of_branch(model, more.longest + growth) > memory_limit
        dear = more.tokens > batch.tokens + len(prompts[index]) + _PASS * growth
        if full or dear or (not padded and more.longest != more.shortest):
            yield batch.members, batch.worth(model, growth)
            batch = _Batch.of(index, prompts[index])
        else:
            batch = more
    if batch is not None:
        yield batch.members, batch.worth(model, growth)


def can_share(model: PreTrainedModel) -> bool:
    """Whether a common beginning may be computed once; tried once per model."""
    if model not in _known:
        _known[model] = way_of(model) != "no cache" and not _length_matters(model) and _trial(model)
    return _known[model]


class _Batch:
    """Prompts that go together, in sorted order, so that the first and the last tell what all have in common."""

    def __init__(self, members: list[int], first: Tokens, prefix: int, shortest: int, longest: int) -> None:
        self.members = members
        self.first = first
        self.prefix = prefix
        self.shortest = shortest
        self.longest = longest

    @classmethod
    def of(cls, index: int, prompt: Tokens) -> "_Batch":
        return cls([index], prompt, len(prompt) - 1, len(prompt), len(prompt))

    def with_one(self, index: int, prompt: Tokens) -> "_Batch":
        shortest = min(self.shortest, len(prompt))
        # at least one token of each is left: its logits are what is wanted
        prefix = min(self.prefix, common_prefix(self.first, prompt), shortest - 1)
        return _Batch([*self.members, index], self.first, prefix, shortest, max(self.longest, len(prompt)))

    @property
    def tokens(self) -> int:
        """How many go through the model, padding included."""
        return self.prefix + len(self.members) * (self.longest - self.prefix)

    def worth(self, model: PreTrainedModel, growth: int) -> int:
        """How many tokens to compute once: none where that saves less than its forward pass, or would be wrong."""
        if (len(self.members) - 1) * self.prefix <= _PASS:
            return 0
        if self.shortest != self.longest and self.longest + growth > _window(model):
            return 0
        return self.prefix


def _window(model: PreTrainedModel) -> float:
    """Tokens that the layer with the shortest window looks back on."""
    layers = DynamicCache(config=model.config).layers
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    return float(min(windows, default=math.inf))


def _length_matters(model: PreTrainedModel) -> bool:
    """Whether positions are turned otherwise in longer texts: then a beginning is not the same in another text."""
    config = model.config.get_text_config()
    rotation = str(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None))
    return any(kind in rotation for kind in ("dynamic", "longrope"))


@torch.inference_mode()
def _trial(model: PreTrainedModel) -> bool:
    """Whether the logits of two texts are the same when their beginning is computed once, and one token later."""
    beginning, short, long = _TRIAL
    if way_of(model) != "padded" or _window(model) <= beginning + long:
        short = long
    size = model.config.get_text_config().vocab_size
    ids = torch.randint(size, (beginning + short + long,), generator=torch.Generator().manual_seed(0)).tolist()
    common, rest = tuple(ids[:beginning]), ids[beginning:]
    prompts = [(*common, *rest[:short]), (*common, *rest[short:])]
    plain, shared = Texts(model, prompts, 0), Texts(model, prompts, 0, shared=beginning)
    same = _close(plain.logits, shared.logits)
    for texts in (plain, shared):
        texts.branch([0, 1, 1], rest[:3])
    if same and _close(plain.logits, shared.logits):
        return True
    logger.warning(
        "%s: a common beginning of prompts changes what it computes, so none is shared", type(model).__name__
    )
    return False


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    tolerance = _TOLERANCE.get(one.dtype, _ROUGH) * max(float(one.abs().max()), 1.0)
    return float((one - other).abs().max()) <= tolerance
