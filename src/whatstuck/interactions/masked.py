"""One masked prompt and the plain way to score it: a full forward pass per coalition.

`plain_log_odds` shares nothing between coalitions. It is the oracle that prefix sharing is tested against, and
what models with recurrent state are scored by. Everything here is token ids in, log-odds out.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, PreTrainedModel

DEFAULT_MEMORY_LIMIT = 2 << 30
"""Bytes that scoring may take on top of the weights."""

_HEAD_ENTRIES = 1 << 20  # logits per fp64 block: 8 MiB each for the copy and what logsumexp makes of it
_PLAIN_BATCH = 64


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


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that a forward pass takes, estimated from the model's configuration.

    Attributes:
        cache: Keys and values of one token, in all layers.
        layer_cache: The same in one layer, for every query head.
        activation: What one token needs while a layer works on it, its attention scores aside.
        score: One token's attention scores of one layer, per token that it looks back on.
        vocabulary: Logits of a position.
        element: Bytes of a number.
    """

    cache: int
    layer_cache: int
    activation: int
    score: int
    vocabulary: int
    element: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Sizes":
        """Sizes of a model."""
        config = model.config.get_text_config()
        heads = getattr(config, "num_attention_heads", 1)  # models without attention have none
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        element = model.dtype.itemsize
        return cls(
            cache=2 * config.num_hidden_layers * kv_heads * head_dim * element,
            layer_cache=2 * heads * head_dim * element,
            activation=element * (6 * config.hidden_size + 4 * inner + 8 * heads * head_dim),
            score=3 * 4 * heads,  # fp32: two copies while they are made, and the softmax
            vocabulary=config.vocab_size,
            element=element,
        )

    def log_odds(self, rows: int, positions: int) -> int:
        """Logits of some positions of each row, and what `log_odds` makes of a block of them."""
        entries = rows * positions * self.vocabulary
        block = min(entries, max(_HEAD_ENTRIES, positions * self.vocabulary))
        return 2 * self.element * entries + 4 * 8 * block


def log_odds(logits: torch.Tensor, target_ids: Sequence[int] | torch.Tensor) -> torch.Tensor:
    """Sum over target tokens of `z_y - logsumexp(z_k, k != y)` (arXiv 2605.17967, Eq. 1).

    This form does not saturate, unlike `log(p / (1 - p))`.

    Args:
        logits: Shape `(batch, m, vocabulary)`, any float dtype; read as float64.
        target_ids: The token that each of the m positions should predict; int64 `(batch, m)` where rows differ.

    Returns:
        Float64, shape `(batch,)`, in nats.
    """
    targets = torch.as_tensor(target_ids, device=logits.device).expand(logits.shape[:2])
    rows = max(1, _HEAD_ENTRIES // logits[0].numel())
    blocks = []
    for block, target in zip(logits.split(rows), targets.split(rows), strict=True):
        z = block.double()  # (rows, m, vocabulary); a copy unless it is float64 already
        if z.data_ptr() == block.data_ptr():
            z = z.clone()
        index = target.unsqueeze(-1)
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
        memory_limit: Bytes for logits and activations of a batch; at least one coalition is scored at a time.

    Returns:
        Float64 `(k,)`, on the CPU.
    """
    if not len(coalitions):
        return torch.empty(0, dtype=torch.float64)
    device = model.device
    original = torch.tensor(masked.input_ids, device=device)
    keep, length = len(masked.target_ids), len(original)
    size = Sizes.of(model)
    row = length * (size.cache + size.activation + size.score * length) + size.log_odds(1, keep)
    values = []
    for block in coalitions.to(device).split(max(1, min(_PLAIN_BATCH, memory_limit // row))):
        ids = original.repeat(len(block), 1)
        for player, (first, last) in enumerate(masked.players):
            ids[:, first:last] = torch.where(block[:, player, None], original[first:last], masked.mask_token_id)
        values.append(log_odds(forward(model, ids, keep=keep), masked.target_ids).cpu())
    return torch.cat(values)


def forward(
    model: PreTrainedModel, ids: torch.Tensor, *, keep: int, offset: int = 0, cache: Cache | None = None
) -> torch.Tensor:
    """Logits of the last `keep` positions: `(batch, keep, vocabulary)`.

    Args:
        model: A causal language model.
        ids: int64 `(batch, tokens)`, the tokens at positions `offset` and on; no padding.
        keep: Positions that are scored.
        offset: Tokens that are in the cache already.
        cache: Their keys and values; it grows in place.
    """
    options = accepted_options(model, position_ids=positions(ids, offset), logits_to_keep=keep)
    if cache is not None:
        options["past_key_values"] = cache
    logits: torch.Tensor = model(input_ids=ids, use_cache=cache is not None, **options).logits
    return logits[:, -keep:]


def positions(ids: torch.Tensor, offset: int) -> torch.Tensor:
    """Position of each token, the same in all rows: int64 `(batch, tokens)`."""
    return torch.arange(offset, offset + ids.shape[1], device=ids.device).expand(len(ids), -1)


def accepted_options(model: torch.nn.Module, **options: Any) -> dict[str, Any]:
    """Those of the options that the model's forward takes; not every architecture takes all."""
    accepted = inspect.signature(model.forward).parameters
    return {name: value for name, value in options.items() if name in accepted}
