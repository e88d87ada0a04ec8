"""Score all 2^n masked versions of a prompt, or some of them, computing each shared prefix once.

Two masked prompts that agree up to some word share every key and value up to there. The front of the machinery
behind it: `masked` (one prompt, plain forwards), `prefix_tree` (what is shared), `prefix_walk` (how a model goes
through it), `tree_attention` (without a copy of the keys and values).
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.masked import (
    DEFAULT_MEMORY_LIMIT,
    MaskedPrompt,
    accepted_options,
    log_odds,
    plain_log_odds,
)
from whatstuck.interactions.prefix_tree import PrefixTree, every_coalition, shape
from whatstuck.interactions.prefix_walk import FORWARD_COST, Sharing, sharing, walk

__all__ = [
    "DEFAULT_MEMORY_LIMIT",
    "MaskedPrompt",
    "Sharing",
    "accepted_options",
    "every_coalition",
    "log_odds",
    "plain_log_odds",
    "shared_prefix_log_odds",
    "shared_prefix_tables",
    "sharing",
    "supports_prefix_sharing",
    "walked_tokens",
]


def supports_prefix_sharing(model: PreTrainedModel) -> bool:
    """Whether the model can share prefixes at all; recurrent and hybrid models cannot (see `sharing`)."""
    return sharing(model) != "plain"


def shared_prefix_log_odds(
    model: PreTrainedModel,
    masked: MaskedPrompt,
    coalitions: torch.Tensor | None = None,
    *,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> torch.Tensor:
    """Log-odds of the target under all 2^n coalitions or the given ones, sharing prefixes where the model can.

    Args:
        model: A causal language model in eval mode.
        masked: The prompt.
        coalitions: Bool `(k, n)`, True where the player is present; by default all, in the order of their masks
            (bit i of the index set where player i is present).
        memory_limit: Bytes for keys, values, activations and logits, on top of the weights. Less makes smaller
            blocks; it changes values by rounding only.

    Returns:
        Float64 `(k,)` or `(2^n,)`, on the CPU.

    Raises:
        WhatStuckError: If the memory limit is too small for the smallest block, or the coalitions are not bool
            `(k, n)`.
    """
    return _score(model, [masked], coalitions, memory_limit)[0]


def shared_prefix_tables(
    model: PreTrainedModel, rows: Sequence[MaskedPrompt], *, memory_limit: int = DEFAULT_MEMORY_LIMIT
) -> list[torch.Tensor]:
    """Full tables of several prompts; those of one shape share batches and the tokens that they begin with.

    One shape is: as many tokens, the same token ranges of players, as many target tokens, the same mask token. A
    table differs from that of its row alone by rounding only.

    Args:
        model: A causal language model in eval mode.
        rows: The prompts.
        memory_limit: As in `shared_prefix_log_odds`.

    Returns:
        For each row float64 `(2^n,)`, on the CPU.

    Raises:
        WhatStuckError: If the memory limit is too small for the smallest block.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(shape(row), []).append(index)
    tables = [torch.empty(0)] * len(rows)
    for indices in groups.values():
        values = _score(model, [rows[index] for index in indices], None, memory_limit)
        for index, table in zip(indices, values, strict=True):
            tables[index] = table
    return tables


def walked_tokens(masked: MaskedPrompt, coalitions: torch.Tensor | None = None) -> int:
    """Tokens that a shared walk computes for all coalitions, or for the given ones: bool `(k, n)`."""
    chosen = _chosen(masked, coalitions)
    return _tree([masked], chosen).computed_tokens if len(chosen) else 0


def _tree(rows: Sequence[MaskedPrompt], coalitions: torch.Tensor) -> PrefixTree:
    return PrefixTree(rows, coalitions, forward_cost=FORWARD_COST)


def _chosen(masked: MaskedPrompt, coalitions: torch.Tensor | None) -> torch.Tensor:
    n = len(masked.players)
    if coalitions is None:
        return every_coalition(n)
    if coalitions.dtype != torch.bool or coalitions.ndim != 2 or coalitions.shape[1] != n:  # noqa: PLR2004 - a matrix
        raise WhatStuckError(
            f"coalitions must be bool of shape (k, {n}), got {coalitions.dtype} of shape {tuple(coalitions.shape)}"
        )
    return coalitions.cpu()


def _score(
    model: PreTrainedModel, rows: Sequence[MaskedPrompt], coalitions: torch.Tensor | None, memory_limit: int
) -> torch.Tensor:
    """Float64 `(rows, k)` of rows of one shape."""
    chosen = _chosen(rows[0], coalitions)
    if not len(chosen):
        return torch.empty(len(rows), 0, dtype=torch.float64)
    way = sharing(model)
    if way != "plain":
        return walk(model, _tree(rows, chosen), way, memory_limit)
    return torch.stack([plain_log_odds(model, row, chosen, memory_limit=memory_limit) for row in rows])
