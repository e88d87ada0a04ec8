"""Prefix sharing on tiny random models of the families that we claim, each against plain forward passes."""

import logging

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Olmo2Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from whatstuck.interactions import prefix_walk
from whatstuck.interactions.coalitions import (
    MaskedPrompt,
    every_coalition,
    plain_log_odds,
    shared_prefix_log_odds,
    sharing,
)
from whatstuck.interactions.masked import Sizes
from whatstuck.interactions.prefix_tree import PrefixTree

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # tiny models start out nearly constant; without a wide start a broken cache would pass
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOWED = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}  # shorter than the prompt
SMALL = {key: SIZES[key] for key in ("vocab_size", "initializer_range", "bos_token_id", "eos_token_id")}
IN_PLACE: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "gemma3": Gemma3TextConfig(**SIZES, **WINDOWED, head_dim=8, query_pre_attn_scalar=8),
    "gpt2": GPT2Config(**SMALL, n_embd=32, n_layer=4, n_head=4, n_positions=256),
    "mistral": MistralConfig(**SIZES, sliding_window=8),
    "phi": PhiConfig(**SIZES),
    "olmo2": Olmo2Config(**SIZES),
    # a cap on the scores, and sinks that take a share of the softmax
    "gemma2": Gemma2Config(**SIZES, **WINDOWED, head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=2.0),
    "gpt-oss": GptOssConfig(**SIZES, **WINDOWED, head_dim=8, num_local_experts=2, num_experts_per_tok=1),
}
COPIED: dict[str, PretrainedConfig] = {  # does not go through transformers' attention interface
    "gptj": GPTJConfig(**SMALL, n_embd=32, n_layer=3, n_head=4, n_positions=256, rotary_dim=8),
}
RECURRENT: dict[str, PretrainedConfig] = {
    "mamba": MambaConfig(**SMALL, hidden_size=32, num_hidden_layers=2, state_size=4),
    # attention in one layer, convolution in the other
    "lfm2": Lfm2Config(**{**SIZES, "num_hidden_layers": 2}, layer_types=["conv", "full_attention"]),
}
ALL = IN_PLACE | COPIED | RECURRENT
FIRST = MaskedPrompt(
    prompt_ids=tuple(5 + (7 * i) % 90 for i in range(31)),
    target_ids=(11,),
    # unsorted, of several tokens, neighbours without a gap, one at the very end
    players=((12, 14), (3, 4), (14, 15), (20, 23), (30, 31)),
    mask_token_id=0,
)
WHOLE = MaskedPrompt(FIRST.prompt_ids, (11, 42, 3), FIRST.players, 0)


@pytest.fixture(autouse=True)
def _share_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a prompt of 31 tokens most stretches would not pay."""
    monkeypatch.setattr("whatstuck.interactions.coalitions.FORWARD_COST", 0)


def make(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    # Gemma 2 caps its scores, which SDPA cannot; transformers 4 takes SDPA all the same, and does not cap
    eager = {"attn_implementation": "eager"} if name == "gemma2" else {}
    model = AutoModelForCausalLM.from_config(ALL[name], dtype=torch.float32, **eager).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases, norms and sinks start constant: nothing would depend on them
            parameter.data += 0.3 * torch.randn_like(parameter)
    if name == "gptj":  # its layers add little to the embeddings
        for layer in model.transformer.h:
            layer.attn.out_proj.weight.data *= 8
    return model


def assert_equal_to_plain(
    model: PreTrainedModel, masked: MaskedPrompt, chosen: torch.Tensor | None = None, **limit: int
) -> None:
    """Equal up to fp32 rounding, on values that differ enough to show a broken cache."""
    plain = plain_log_odds(model, masked, every_coalition(5) if chosen is None else chosen)
    reach = float(plain.max() - plain.min())
    assert reach > 0.5
    found = shared_prefix_log_odds(model, masked, chosen, **limit)
    assert (found - plain).abs().max() < min(1e-5 * max(1, reach), 1e-4)


@pytest.mark.parametrize(
    ("name", "way"),
    [*((name, "tree") for name in IN_PLACE), *((name, "copy") for name in COPIED)],
)
def test_sharing_equals_plain_forwards(name: str, way: str) -> None:
    model = make(name)
    implementation = model.config._attn_implementation
    assert sharing(model) == way
    assert_equal_to_plain(model, FIRST)
    assert_equal_to_plain(model, WHOLE)
    some = every_coalition(5)[[3, 17, 30, 4, 17, 0]]
    assert_equal_to_plain(model, FIRST, some)
    # room for two nodes at a time: depth first from the third level on
    tree = PrefixTree([WHOLE], every_coalition(5), forward_cost=0)
    limit = prefix_walk._bytes(tree, [1, 2, 2, 2, 2, 2], Sizes.of(model), copies=way == "copy")
    widths = prefix_walk.block_widths(tree, Sizes.of(model), limit, copies=way == "copy")
    assert max(widths[3:]) < 8
    assert_equal_to_plain(model, WHOLE, memory_limit=limit)
    assert_equal_to_plain(model, WHOLE, some, memory_limit=limit)
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_state_falls_back_and_says_so_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = make(name)
    assert sharing(model) == "plain"
    assert_equal_to_plain(model, WHOLE)
    assert_equal_to_plain(model, FIRST, every_coalition(5)[[3, 17, 30, 4, 17, 0]])
    [message] = [record.message for record in caplog.records if record.name.startswith("whatstuck")]
    assert "prefixes cannot be shared" in message
    assert "scored whole" in message


def test_copying_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    model = make("gptj")
    with caplog.at_level(logging.WARNING):
        sharing(model)
        sharing(model)
    assert len(caplog.records) == 1
    assert "they are copied" in caplog.text
