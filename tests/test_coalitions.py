"""The shared-prefix walk equals plain forward passes, on every architecture that we claim."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from whatstuck.interactions import coalitions as scoring
from whatstuck.interactions.coalitions import (
    MaskedPrompt,
    log_odds,
    plain_log_odds,
    shared_prefix_log_odds,
    supports_prefix_sharing,
)

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    # tiny models start out nearly constant; without a wide start a broken cache would pass
    "initializer_range": 0.3,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**{key: value for key, value in SIZES.items() if key != "head_dim"}),
    "qwen3": Qwen3Config(**SIZES),
    # a window of 8 is shorter than the prompt, so sliding layers really slide
    "gemma3": Gemma3TextConfig(
        **SIZES,
        sliding_window=8,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=4, n_head=4, n_positions=256, initializer_range=0.3),
}
PROMPT = MaskedPrompt(
    prompt_ids=tuple(5 + (7 * i) % 90 for i in range(31)),
    target_ids=(11, 42, 3),
    # unsorted, of several tokens, neighbours without a gap, one at the very end
    players=((12, 14), (3, 4), (14, 15), (20, 23), (30, 31)),
    mask_token_id=0,
)
FIRST = MaskedPrompt(PROMPT.prompt_ids, PROMPT.target_ids[:1], PROMPT.players, 0)


def make(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32).eval()


def every_coalition(n: int) -> torch.Tensor:
    return ((torch.arange(1 << n)[:, None] >> torch.arange(n)) & 1).bool()


@pytest.mark.parametrize("masked", [FIRST, PROMPT], ids=["first token", "whole target"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_walk_equals_plain_forwards(name: str, masked: MaskedPrompt) -> None:
    model = make(name)
    plain = plain_log_odds(model, masked, every_coalition(5))
    shared = shared_prefix_log_odds(model, masked)
    reach = float(plain.max() - plain.min())
    assert reach > 1
    assert torch.allclose(shared, plain, rtol=0, atol=1e-4 * min(1, reach))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_wrong_position_would_be_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(name)
    plain = plain_log_odds(model, FIRST, every_coalition(5))
    forward = scoring._forward
    monkeypatch.setattr(
        scoring,
        "_forward",
        lambda model, ids, offset, cache, keep: forward(model, ids, offset + 3 * (offset > 0), cache, keep),
    )
    shared = shared_prefix_log_odds(model, FIRST)
    assert (shared - plain).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_blocks_give_the_same_table_and_bound_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(name)
    whole = shared_prefix_log_odds(model, FIRST)
    widest = []
    forward = scoring._forward

    def watch(model: PreTrainedModel, ids: torch.Tensor, *rest: object) -> torch.Tensor:
        widest.append(len(ids))
        return forward(model, ids, *rest)

    monkeypatch.setattr(scoring, "_forward", watch)
    limit = 4 * scoring._bytes_per_row(model, 31, 1)
    blocks = shared_prefix_log_odds(model, FIRST, memory_limit=limit)
    assert max(widest) == 4
    assert torch.allclose(blocks, whole, rtol=0, atol=1e-5)


def test_a_player_at_the_first_token_needs_no_prefix() -> None:
    model = make("llama")
    masked = MaskedPrompt(PROMPT.prompt_ids, (11,), ((0, 2), (5, 6)), 0)
    plain = plain_log_odds(model, masked, every_coalition(2))
    assert torch.allclose(shared_prefix_log_odds(model, masked), plain, rtol=0, atol=1e-4)


def test_recurrent_models_are_recognised() -> None:
    config = MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2, state_size=4)
    assert not supports_prefix_sharing(AutoModelForCausalLM.from_config(config))
    assert all(supports_prefix_sharing(make(name)) for name in CONFIGS)


def test_log_odds_do_not_saturate_and_leave_the_logits_alone() -> None:
    logits = torch.tensor([[[60.0, 0.0, 0.0]]], dtype=torch.float64)
    expected = 60 - torch.tensor(2.0, dtype=torch.float64).log()
    assert log_odds(logits, [0]).item() == pytest.approx(expected.item(), abs=1e-12)
    assert logits[0, 0, 0] == 60
