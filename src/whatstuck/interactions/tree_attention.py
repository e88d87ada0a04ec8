"""Attention over a tree of prefixes, without a copy of any key or value.

Each node of the tree keeps the keys and values of its own tokens, once. The queries of all nodes below it, and of
all query heads that read the same keys, are folded into the rows of one matrix product with them. The scores of
all ancestors stand side by side, go through one softmax in fp32, and are multiplied back stretch by stretch.

It plugs into transformers through its public tables of attention and mask functions. What a model asks for comes
through the same door: scaling, logit softcap, attention sinks, and a mask. A sliding or chunked window is a mask on
positions, and positions are the same for all nodes of a level, so one mask serves the whole block.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.masking_utils import sdpa_mask

_NAME = "whatstuck_tree"
_block: ContextVar["TreeBlock"] = ContextVar("whatstuck_tree_block")

Segment = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Per layer the keys and values of one block of nodes: `(kv_heads, nodes, tokens, head_dim)`."""


@dataclass(frozen=True, slots=True)
class _Ancestors:
    """Which nodes of a segment lie above the nodes of a block.

    Attributes:
        segment: Their keys and values.
        nodes: Ancestor of each node of the block, ascending: int64 `(nodes,)`.
    """

    segment: Segment
    nodes: torch.Tensor

    def folded(self) -> tuple[slice | torch.Tensor, int]:
        """The ancestors to multiply with, and how many nodes of the block each of them serves.

        Where all serve the same number, as in a full table, they are used in place. Else they are gathered.
        """
        first, last = int(self.nodes[0]), int(self.nodes[-1]) + 1
        each, rest = divmod(len(self.nodes), last - first)
        if not rest and torch.equal(self.nodes, torch.arange(first, last).repeat_interleave(each)):
            return slice(first, last), each
        return self.nodes, 1


class TreeBlock(Cache):
    """Nodes of one level that go through the model together, and the prefixes that they see.

    Args:
        offset: Position of their first token.
        ancestors: Segments from the root down.
        keep: Whether levels below will need the block's own keys and values.
    """

    def __init__(self, offset: int = 0, ancestors: tuple[_Ancestors, ...] = (), *, keep: bool = True) -> None:
        super().__init__(layers=[])
        self.offset = offset
        self.segment: Segment = {}
        self.calls = 0
        self._keep = keep
        self._ancestors = ancestors
        self._folded = [(above.segment, *above.folded()) for above in ancestors]

    def below(self, parents: torch.Tensor, offset: int, *, keep: bool) -> "TreeBlock":
        """A block of children; `parents` are their nodes in this block, ascending."""
        above = [_Ancestors(known.segment, known.nodes[parents]) for known in self._ancestors]
        if self.segment:  # the empty block above the root has none
            above.append(_Ancestors(self.segment, parents))
        return TreeBlock(offset, tuple(above), keep=keep)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pass keys and values through: `attend` is what keeps them."""
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - all layers are equally long
        """Tokens before the block."""
        return self.offset

    def get_query_offset(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """Position of the first query."""
        return self.offset

    def get_mask_sizes(self, query_length: int | torch.Tensor, layer_idx: int = 0) -> tuple[int, int]:  # noqa: ARG002
        """Tokens that a query can look back on, and the position of the first of them."""
        queries = query_length if isinstance(query_length, int) else len(query_length)  # positions in transformers 4
        return self.offset + queries, 0

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attention output `(nodes, tokens, heads, value_dim)` of queries that are scaled already."""
        self.calls += 1
        nodes, heads, tokens, _ = query.shape
        kv_heads = key.shape[1]
        group = heads // kv_heads
        # heads first, then nodes: the nodes below an ancestor are neighbours, and folding them is a view
        rows = query.unflatten(1, (kv_heads, group)).transpose(0, 1).reshape(kv_heads, nodes, group * tokens, -1)
        key, value = key.transpose(0, 1).contiguous(), value.transpose(0, 1).contiguous()
        if self._keep:
            self.segment[layer] = key, value
        parts = [(*segment[layer], chosen, each) for segment, chosen, each in self._folded]
        parts.append((key, value, slice(None), 1))
        scores = torch.cat([_product(rows, keys[:, chosen].mT, each) for keys, _, chosen, each in parts], -1)
        if softcap is not None:
            scores = scores.div_(softcap).tanh_().mul_(softcap)
        if bias is None:  # causal: all of the ancestors is visible
            causal = torch.full((tokens, tokens), -torch.inf, device=query.device, dtype=scores.dtype).triu(1)
            scores.unflatten(2, (group, tokens))[..., -tokens:] += causal
        else:
            scores.unflatten(2, (group, tokens)).add_(bias)
        if sinks is None:
            chances = scores.softmax(-1, dtype=torch.float32)
        else:  # a sink takes a share and gives nothing
            share = sinks.view(kv_heads, 1, group, 1).expand(-1, nodes, -1, tokens).reshape(*scores.shape[:3], 1)
            chances = torch.cat([scores, share.to(scores)], -1).softmax(-1, dtype=torch.float32)[..., :-1]
        chances = chances.to(query.dtype)
        out = torch.zeros(())
        for chance, (_, values, chosen, each) in zip(
            chances.split([keys.shape[2] for keys, *_ in parts], -1), parts, strict=True
        ):
            product = _product(chance, values[:, chosen], each)
            out = out.add_(product) if out.ndim else product
        return out.view(kv_heads, nodes, group, tokens, -1).permute(1, 3, 0, 2, 4).flatten(2, 3)


def _product(rows: torch.Tensor, columns: torch.Tensor, each: int) -> torch.Tensor:
    """Rows `(kv_heads, nodes, r, a)` times the columns `(kv_heads, nodes / each, a, b)` of their ancestors."""
    folded = rows.unflatten(1, (-1, each)).flatten(2, 3) if each > 1 else rows
    return torch.matmul(folded, columns).view(*rows.shape[:3], -1)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls. A sliding window comes as a mask; dropout is off in eval mode."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: Any = module.layer_idx
    return _block.get().attend(layer, query * scale, key, value, attention_mask, softcap, s_aux), None


def _mask(*, batch_size: int, dtype: torch.dtype = torch.float32, **options: Any) -> torch.Tensor | None:
    """Additive mask `(1, tokens, offset + tokens)`, the same for all nodes; None where it is the causal one."""
    del batch_size
    options["allow_is_causal_skip"] = False
    visible = sdpa_mask(batch_size=1, **options)  # (1, 1, tokens, offset + tokens)
    if visible is None:  # nothing is masked, the future included
        raise NotImplementedError("attention to later tokens")
    visible = visible[0]
    tokens, length = visible.shape[-2:]
    if torch.equal(visible[0], visible.new_ones(tokens, length).tril(length - tokens)):
        return None
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, -torch.inf)


@contextmanager
def tree_attention(model: PreTrainedModel) -> Iterator[None]:
    """Have the model attend over trees, and as before afterwards, whatever happened."""
    configs: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            configs[id(config)] = config
    before = [(config, config._attn_implementation) for config in configs.values()]  # noqa: SLF001 - no public form
    try:
        for config in configs.values():
            config._attn_implementation = _NAME  # noqa: SLF001
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name  # noqa: SLF001


@contextmanager
def attending(block: TreeBlock) -> Iterator[None]:
    """Forward passes inside belong to this block."""
    token = _block.set(block)
    try:
        yield
    finally:
        _block.reset(token)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, _mask)
