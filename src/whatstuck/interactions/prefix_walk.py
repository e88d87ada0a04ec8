"""Walk a prefix tree through a model: depth first over blocks of nodes, breadth first inside a block.

A block is as many nodes of one level as memory allows and as one forward pass uses well. There are two ways to
carry keys and values down: in place (`tree_attention`), or copied for every child, which asks less of an
architecture. Which of them a model can take is found out by trying, never by its name.
"""

import copy
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.masked import (
    DEFAULT_MEMORY_LIMIT,
    MaskedPrompt,
    Sizes,
    accepted_options,
    forward,
    log_odds,
    plain_log_odds,
    positions,
)
from whatstuck.interactions.prefix_tree import Level, PrefixTree, every_coalition
from whatstuck.interactions.tree_attention import TreeBlock, attending, tree_attention

logger = logging.getLogger(__name__)

Sharing = Literal["tree", "copy", "plain"]
"""How a model shares prefixes: keys and values in place, copied for every child, or not at all."""

FORWARD_COST = 16
"""Tokens that a forward pass costs beyond those in it; what saves less is not shared."""

_BLOCK_TOKENS = 512  # more do not make a product faster, and their activations leave the processor's cache
_SLACK = 1.3  # an allocator holds more than what is alive
_ROUNDING = 1e4  # machine epsilons by which two correct ways may differ
_known: WeakKeyDictionary[PreTrainedModel, Sharing] = WeakKeyDictionary()


@torch.inference_mode()
def walk(model: PreTrainedModel, tree: PrefixTree, way: Sharing, memory_limit: int) -> torch.Tensor:
    """Log-odds of all leaves: float64 `(rows, k)` on the CPU, in the caller's order of coalitions.

    Raises:
        WhatStuckError: If not even one node at a time fits the memory limit.
    """
    widths = block_widths(tree, Sizes.of(model), memory_limit, copies=way == "copy")
    values = torch.empty(len(tree.levels[-1].leaves), dtype=torch.float64)

    def visit(depth: int, first: int, last: int, above: "_InPlace | _Copied", offset: int) -> None:
        """Compute nodes `[first, last)` of a level and all below; node `offset` of the level above is its block's 0."""
        level = tree.levels[depth]
        is_leaf = depth + 1 == len(tree.levels)
        for begin in range(first, last, widths[depth]):
            end = min(begin + widths[depth], last)
            ids = tree.tokens(level, begin, end).to(model.device)
            parents = level.parents[begin:end] - offset
            block, logits = above.children(model, ids, parents, level.start, tree.keep if is_leaf else 0)
            if logits is not None:
                values[begin:end] = log_odds(logits, tree.target_ids(begin, end).to(model.device)).cpu()
            else:
                visit(depth + 1, *_children(tree.levels[depth + 1], begin, end), block, begin)

    in_place = way == "tree"
    attention: AbstractContextManager[None] = tree_attention(model) if in_place else nullcontext()
    with attention:
        visit(0, 0, len(tree.levels[0].leaves), _InPlace() if in_place else _Copied(), 0)
    return tree.in_callers_order(values)


def block_widths(tree: PrefixTree, size: Sizes, memory_limit: int, *, copies: bool) -> list[int]:
    """Nodes per forward pass on each level, as powers of two: blocks of a full table then never cut a family.

    They depend on sizes only, so a repeated call does the same arithmetic.

    Raises:
        WhatStuckError: If not even one node at a time fits.
    """
    tokens = _BLOCK_TOKENS
    while True:
        widths = []
        for level in tree.levels:
            fit = min(tokens // (level.stop - level.start), len(level.leaves))
            widths.append(1 << max(0, fit.bit_length() - 1))
        needed = _bytes(tree, widths, size, copies=copies)
        if needed <= memory_limit:
            return widths
        if tokens == 1:
            raise WhatStuckError(
                f"a memory limit of {memory_limit / 2**20:.0f} MiB is too small: this prompt of "
                f"{tree.levels[-1].stop} tokens needs {-(-needed // 2**20)} MiB on this model; raise the limit"
            )
        tokens //= 2


def _bytes(tree: PrefixTree, widths: list[int], size: Sizes, *, copies: bool) -> int:
    """Estimated peak: what all blocks on the way down hold, and what the largest forward pass works with."""
    held, working = 0, 0
    for level, width in zip(tree.levels, widths, strict=True):
        tokens = level.stop - level.start
        # a copied cache holds whole prefixes, and growing by concatenation has it twice for a moment
        held += width * size.cache * (2 * level.stop if copies else tokens)
        looks = tokens * size.score + 3 * size.layer_cache  # gathered, or repeated for grouped heads
        working = max(working, width * (tokens * size.activation + level.stop * looks))
    return int(_SLACK * (held + max(working, size.log_odds(widths[-1], tree.keep))))


def _children(level: Level, first: int, last: int) -> tuple[int, int]:
    """The children of nodes `[first, last)` of the level above."""
    begin, end = torch.searchsorted(level.parents, torch.tensor([first, last])).tolist()
    return begin, end


class _InPlace:
    """A block of nodes whose descendants read its keys and values where they are."""

    def __init__(self, block: TreeBlock | None = None) -> None:
        self._block = TreeBlock() if block is None else block  # a cache without layers is false

    def children(
        self, model: PreTrainedModel, ids: torch.Tensor, parents: torch.Tensor, offset: int, keep: int
    ) -> tuple["_InPlace", torch.Tensor | None]:
        block = self._block.below(parents, offset, keep=not keep)
        with attending(block):
            logits = _outputs(model, ids, offset, block, keep)
        if not block.calls:
            raise NotImplementedError("it does not use transformers' attention interface")
        return _InPlace(block), logits


class _Copied:
    """A block of nodes each of which has a copy of its whole prefix."""

    def __init__(self, cache: DynamicCache | None = None) -> None:
        self._cache = cache

    def children(
        self, model: PreTrainedModel, ids: torch.Tensor, parents: torch.Tensor, offset: int, keep: int
    ) -> tuple["_Copied", torch.Tensor | None]:
        if self._cache is None:
            cache = DynamicCache(config=model.config)
        else:
            # layers grow by concatenation and select by copying, so a shallow copy is a branch of its own
            cache = copy.copy(self._cache)
            cache.layers = [copy.copy(layer) for layer in self._cache.layers]
            cache.batch_select_indices(parents.to(ids.device))
        return _Copied(cache), _outputs(model, ids, offset, cache, keep)


def _outputs(
    model: PreTrainedModel, ids: torch.Tensor, offset: int, cache: DynamicCache | TreeBlock, keep: int
) -> torch.Tensor | None:
    """Logits of the last `keep` positions; above the leaves none, and the head is not computed at all."""
    if keep:
        return forward(model, ids, keep=keep, offset=offset, cache=cache)
    body = model.base_model
    options = accepted_options(body, position_ids=positions(ids, offset), logits_to_keep=1)
    body(input_ids=ids, past_key_values=cache, use_cache=True, **options)
    return None


def sharing(model: PreTrainedModel) -> Sharing:
    """How a model shares prefixes; found out once per model, on a few tokens, and logged where it is not in place.

    Recurrent and hybrid models (Mamba, linear attention) keep a state that belongs to one sequence.
    """
    if model not in _known:
        _known[model] = _find(model)
    return _known[model]


def _find(model: PreTrainedModel) -> Sharing:
    name = type(model).__name__
    if model._is_stateful:  # noqa: SLF001 - there is no public form
        logger.warning("%s keeps a recurrent state: prefixes cannot be shared, masked prompts are scored whole", name)
        return "plain"
    declined = _fault(model, "tree")
    if declined is None:
        return "tree"
    layers = DynamicCache(config=model.config).layers
    odd = [type(layer).__name__ for layer in layers if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer)]
    fault = f"its cache has layers of type {odd[0]}" if odd else _fault(model, "copy")
    if fault is None:
        logger.warning("%s: attention over prefixes in place is not possible (%s); they are copied", name, declined)
        return "copy"
    logger.warning("%s: prefixes cannot be shared (%s), masked prompts are scored whole", name, fault)
    return "plain"


def _fault(model: PreTrainedModel, way: Sharing) -> str | None:
    """Why a way does not work, tried on a prompt of 13 tokens; None if it does."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = tuple((11 + 7 * i) % vocabulary for i in range(13))
    masked = MaskedPrompt(ids[:12], ids[12:], ((2, 4), (5, 6), (9, 11)), (11 + 7 * 13) % vocabulary)
    tree = PrefixTree([masked], every_coalition(3), forward_cost=0)
    try:
        shared = walk(model, tree, way, DEFAULT_MEMORY_LIMIT)[0]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a model that is built otherwise stumbles over
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    plain = plain_log_odds(model, masked, every_coalition(3))
    # a sum over the vocabulary: small differences of log-odds are those of logits
    tolerance = _ROUNDING * torch.finfo(model.dtype).eps * (1 + float(plain.abs().nan_to_num().max()))
    if torch.allclose(shared, plain, rtol=0, atol=tolerance, equal_nan=True):
        return None
    return f"log-odds differ by {float((shared - plain).abs().max()):.1g}"
