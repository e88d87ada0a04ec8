"""Score all 2^n masked versions of one prompt, computing each shared prefix once.

Two masked prompts that agree up to some word share every key and value up to there. So we walk the prompt
once and double the batch (word present, word masked) at each player: a segment between players i and i+1 is
computed 2^i times instead of 2^n times. `plain_log_odds` is the same thing without sharing: the oracle that the
walk is tested against, and what models with recurrent state fall back to.

Everything here is token ids in, log-odds out; words, templates and files are known elsewhere.
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

DEFAULT_MEMORY_LIMIT = 2 << 30
"""Bytes that keys, values and logits of one block of coalitions may take."""

_HEAD_ROWS = 32  # rows per fp64 log-odds block: 32 x 262k entries x 8 bytes is 67 MB


@dataclass(frozen=True, slots=True)
class MaskedPrompt:
    """One prompt whose players can be masked, as token ids.

    Attributes:
        prompt_ids: Tokens of the prompt.
        target_ids: Tokens of the target that are scored, teacher-forced; at least one.
        players: Half-open token ranges `[first, last)` of the players; disjoint. Player i is bit i.
        mask_token_id: Token that stands in for each token of a masked player.
    """

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    players: tuple[tuple[int, int], ...]
    mask_token_id: int

    @property
    def input_ids(self) -> tuple[int, ...]:
        """The prompt and all target tokens but the last, which nothing is predicted from."""
        return self.prompt_ids + self.target_ids[:-1]


def supports_prefix_sharing(model: PreTrainedModel) -> bool:
    """Whether the model's cache can be copied and extended, batch row by batch row.

    Recurrent and hybrid models (Mamba, linear attention) keep a state that a doubled batch would share, so
    they are scored plainly.
    """
    if model._is_stateful:  # noqa: SLF001 - there is no public form
        return False
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def log_odds(logits: torch.Tensor, target_ids: Sequence[int]) -> torch.Tensor:
    """Sum over target tokens of `z_y - logsumexp(z_k, k != y)` (arXiv 2605.17967, Eq. 1).

    This form does not saturate, unlike `log(p / (1 - p))`.

    Args:
        logits: Shape `(batch, len(target_ids), vocabulary)`, any float dtype; read as float64.
        target_ids: The token that each position should predict.

    Returns:
        Float64, shape `(batch,)`, in nats.
    """
    blocks = []
    for block in logits.split(_HEAD_ROWS):
        z = block.double()  # (rows, m, vocabulary); a copy unless it is float64 already
        if z.data_ptr() == block.data_ptr():
            z = z.clone()
        index = torch.tensor(target_ids, device=z.device).expand(len(z), -1).unsqueeze(-1)
        z_target = z.gather(-1, index).squeeze(-1)
        z.scatter_(-1, index, -torch.inf)
        blocks.append((z_target - z.logsumexp(-1)).sum(-1))
    return torch.cat(blocks)


@torch.inference_mode()
def plain_log_odds(
    model: PreTrainedModel,
    masked: MaskedPrompt,
    coalitions: torch.Tensor,
    *,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> torch.Tensor:
    """Log-odds of the target under each coalition, by one full forward pass per coalition.

    Args:
        model: A causal language model in eval mode.
        masked: The prompt.
        coalitions: Bool `(k, n)`; True where the player is present.
        memory_limit: Bytes for logits and activations of a batch.

    Returns:
        Float64 `(k,)`, on the CPU.
    """
    device = model.device
    original = torch.tensor(masked.input_ids, device=device)
    keep = len(masked.target_ids)
    width = _bytes_per_row(model, len(original), keep)
    batch_size = max(1, min(64, memory_limit // width))
    values = []
    for block in coalitions.to(device).split(batch_size):
        ids = original.repeat(len(block), 1)
        for player, (first, last) in enumerate(masked.players):
            ids[:, first:last] = torch.where(block[:, player, None], original[first:last], masked.mask_token_id)
        logits = _forward(model, ids, 0, None, keep)
        values.append(log_odds(logits, masked.target_ids))
    return torch.cat(values).cpu()


@torch.inference_mode()
def shared_prefix_log_odds(
    model: PreTrainedModel, masked: MaskedPrompt, *, memory_limit: int = DEFAULT_MEMORY_LIMIT
) -> torch.Tensor:
    """Log-odds of the target under all 2^n coalitions, sharing prefixes.

    The walk is breadth first while a block of coalitions fits `memory_limit`, and splits into blocks, depth
    first, where it does not. The split depends on sizes only, so a repeated call does the same arithmetic.

    Args:
        model: A causal language model for which `supports_prefix_sharing` holds, in eval mode.
        masked: The prompt.
        memory_limit: Bytes for keys, values and logits of one block.

    Returns:
        Float64 `(2^n,)`, on the CPU; bit i of the index is set where player i is present.
    """
    return _Walk(model, masked, memory_limit).table()


def walked_tokens(masked: MaskedPrompt) -> int:
    """Tokens that the shared walk computes for a full table; without sharing it is 2^n times the prompt."""
    starts = sorted(first for first, _ in masked.players)
    ends = [*starts[1:], len(masked.input_ids)]
    return starts[0] + sum((end - start) << (i + 1) for i, (start, end) in enumerate(zip(starts, ends, strict=True)))


class _Walk:
    """The walk's constants, so that the recursion passes only what changes."""

    def __init__(self, model: PreTrainedModel, masked: MaskedPrompt, memory_limit: int) -> None:
        self.model = model
        self.masked = masked
        self.ids = torch.tensor(masked.input_ids, device=model.device)
        self.keep = len(masked.target_ids)
        # Players in the order of the text; their bit stays the caller's.
        self.order = sorted(range(len(masked.players)), key=lambda player: masked.players[player])
        width = _bytes_per_row(model, len(self.ids), self.keep)
        self.max_rows = max(2, memory_limit // width)
        self.values = torch.empty(1 << len(masked.players), dtype=torch.float64)

    def table(self) -> torch.Tensor:
        coalitions = torch.zeros(1, dtype=torch.int64)  # one row: nothing decided yet
        cache = DynamicCache(config=self.model.config)
        start = self.masked.players[self.order[0]][0] if self.order else len(self.ids)
        logits = None
        if start > 0:
            logits = _forward(self.model, self.ids[None, :start], 0, cache, self.keep)
        if self.order:
            self._visit(0, coalitions, cache)
        elif logits is not None:
            self.values[0] = log_odds(logits, self.masked.target_ids).cpu()[0]
        return self.values

    def _visit(self, depth: int, coalitions: torch.Tensor, cache: DynamicCache) -> None:
        """Decide the player at `depth` for every row of the batch, then go on to the next player."""
        if 2 * len(coalitions) > self.max_rows and len(coalitions) > 1:
            half = len(coalitions) // 2
            for rows in (slice(0, half), slice(half, None)):
                self._visit(depth, coalitions[rows], _select(cache, rows))
            return
        player = self.order[depth]
        first, last = self.masked.players[player]
        is_leaf = depth + 1 == len(self.order)
        stop = len(self.ids) if is_leaf else self.masked.players[self.order[depth + 1]][0]
        segment = self.ids[first:stop].repeat(2 * len(coalitions), 1)
        segment[1::2, : last - first] = self.masked.mask_token_id  # even rows present, odd rows masked
        cache = _double(cache)
        coalitions = coalitions.repeat_interleave(2)
        coalitions[0::2] |= 1 << player
        logits = _forward(self.model, segment, first, cache, self.keep if is_leaf else 1)
        if is_leaf:
            self.values[coalitions] = log_odds(logits, self.masked.target_ids).cpu()
        else:
            self._visit(depth + 1, coalitions, cache)


def _forward(
    model: PreTrainedModel, ids: torch.Tensor, offset: int, cache: DynamicCache | None, keep: int
) -> torch.Tensor:
    """Logits of the last `keep` positions, shape `(batch, keep, vocabulary)`; `cache` grows in place."""
    positions = torch.arange(offset, offset + ids.shape[1], device=ids.device).expand(len(ids), -1)
    options = accepted_options(model, position_ids=positions, logits_to_keep=keep)
    if cache is not None:
        options["past_key_values"] = cache
    logits: torch.Tensor = model(input_ids=ids, use_cache=cache is not None, **options).logits
    return logits[:, -keep:]


def accepted_options(model: PreTrainedModel, **options: Any) -> dict[str, Any]:
    """Those of the options that the model's forward takes; not every architecture takes all."""
    accepted = inspect.signature(model.forward).parameters
    return {name: value for name, value in options.items() if name in accepted}


def _double(cache: DynamicCache) -> DynamicCache:
    """A copy in which each batch row stands twice, one after the other."""
    branch = _branch(cache)
    branch.batch_repeat_interleave(2)
    return branch


def _select(cache: DynamicCache, rows: slice) -> DynamicCache:
    """A view of some batch rows."""
    branch = _branch(cache)
    for layer in branch.layers:
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
    return branch


def _branch(cache: DynamicCache) -> DynamicCache:
    """A copy that can grow by itself. Layers grow by concatenation, so the tensors can be shared."""
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    return branch


def _bytes_per_row(model: PreTrainedModel, length: int, keep: int) -> int:
    """Rough peak bytes that one batch row needs: keys and values (with the copies that growing makes) and logits."""
    config = model.config.get_text_config()
    all_heads = getattr(config, "num_attention_heads", 1)  # models without attention have none
    heads = getattr(config, "num_key_value_heads", None) or all_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // all_heads
    element = model.dtype.itemsize
    keys_and_values = 2 * config.num_hidden_layers * heads * head_dim * element
    activations = 12 * config.hidden_size * element
    return int(length * (3 * keys_and_values + activations) + 2 * keep * config.vocab_size * element)
