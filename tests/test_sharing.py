"""Prompts that begin alike are answered as if each were computed from its first token on."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

import helpers
from test_generating import MODELS, SIZES, make
from whatstuck.models import load_model, load_tokenizer
from whatstuck.models.generating import Decoding, generate
from whatstuck.models.prefixes import can_share, common_prefix, shared_batches
from whatstuck.models.reading import Texts

Prompts = list[tuple[int, ...]]


def numbers(seed: int, size: int) -> tuple[int, ...]:
    return tuple(torch.randint(14, 97, (size,), generator=torch.Generator().manual_seed(seed)).tolist())


def variants(*sizes: int, shared: int = 20, variants_of: int = 2) -> Prompts:
    """As of a task: all begin alike, those of a variant go on alike, the items differ."""
    start = numbers(0, shared)
    blocks = [numbers(100 + v, shared) for v in range(variants_of)]
    return [(*start, *block, *numbers(7 * i + size, size)) for block in blocks for i, size in enumerate(sizes)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sizes", [(5, 5, 5, 5), (9, 2, 5, 1)], ids=["equal", "ragged"])
def test_answers_are_the_same_with_and_without(
    name: str, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatstuck.models.prefixes._PASS", 1)
    model, prompts = make(name), variants(*sizes)
    decode = {"max_new_tokens": 8, "stop_ids": frozenset({2, 5}), "pad_token_id": 0, "samples": 2, "temperature": 0.8}
    seeds = list(range(len(prompts)))
    plain = generate(model, prompts, Decoding(**decode), seeds=seeds)
    shared = generate(model, prompts, Decoding(**decode, share_prefixes=True), seeds=seeds)
    assert shared == plain
    assert len({answers.greedy for answers in plain}) > 2  # they differ, so a mixed-up batch would show

    found = list(shared_batches(model, prompts, branches=1, growth=8))
    assert sorted(i for members, _ in found for i in members) == list(range(len(prompts)))
    computed_once = [prefix for members, prefix in found if len(members) > 1]
    if name in {"mamba", "lfm2"}:
        assert not any(prefix for _, prefix in found)
    elif sizes[0] == sizes[1] or name in {"llama", "gpt2"}:
        assert computed_once
        assert all(prefix >= 20 for prefix in computed_once)
    else:  # a window of 6 tokens would count the padding; bloom's prompts of one length are pairs
        assert all(prefix == 0 for prefix in computed_once) or name == "bloom"


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "gemma3", "bloom"])
@torch.inference_mode()
def test_logits_are_close_and_stay_so_while_texts_branch(name: str) -> None:
    model = make(name)
    prompts = variants(3, 3, 3, variants_of=1)
    plain, shared = Texts(model, prompts, 0), Texts(model, prompts, 0, shared=40)
    for parents, tokens in (([0, 1, 2], [20, 30, 40]), ([2, 2, 0], [50, 60, 70]), ([1], [80])):
        torch.testing.assert_close(shared.logits, plain.logits, rtol=1e-4, atol=1e-4)
        for texts in (plain, shared):
            texts.branch(parents, tokens)
    torch.testing.assert_close(shared.logits, plain.logits, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_padding_in_the_middle_would_change_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rule on windows is for: it is no caution without a cause."""
    model, prompts = make("mistral"), variants(9, 2, variants_of=1)
    plain, shared = Texts(model, prompts, 0), Texts(model, prompts, 0, shared=40)
    assert float((plain.logits - shared.logits)[1].abs().max()) > 1e-2
    monkeypatch.setattr("whatstuck.models.prefixes._PASS", 1)
    assert [prefix for _, prefix in shared_batches(model, prompts, branches=1, growth=4)] == [0]


def test_as_transformers_generates(tiny_base: Path) -> None:
    model, tokenizer = load_model(tiny_base), load_tokenizer(tiny_base)
    texts = [
        helpers.chat("Mara found a golden ring near the quiet harbor. " + row["prompt"])
        for row in helpers.rows(8, seed=11)
    ]
    prompts = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    decode = Decoding(max_new_tokens=8, stop_ids=frozenset({3}), pad_token_id=1, share_prefixes=True)
    assert any(prefix > 10 for _, prefix in shared_batches(model, prompts, branches=1, growth=8))
    for prompt, answers in zip(prompts, generate(model, prompts, decode), strict=True):
        given = torch.tensor([prompt])
        plain = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=8, do_sample=False)
        new = plain[0, len(prompt) :].tolist()
        assert answers.greedy.ids == tuple(new[: new.index(3)] if 3 in new else new)


def test_a_prompt_that_begins_otherwise_gets_a_batch_of_its_own() -> None:
    model = make("llama")
    long = {"variants_of": 2, "shared": 40}
    many = [*variants(*[4] * 30, **long)]
    found = list(shared_batches(model, many, branches=1, growth=1))
    assert [len(members) for members, _ in found] == [30, 30]
    assert all(prefix >= 80 for _, prefix in found)
    few = list(shared_batches(model, variants(4, 4, **long), branches=1, growth=1))
    assert [(len(members), prefix) for members, prefix in few] == [(4, 40)]


def test_limits_of_a_batch_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = make("llama"), variants(*[4] * 30, variants_of=1)
    monkeypatch.setattr("whatstuck.models.prefixes.BATCH", 7)
    sizes = [len(members) for members, _ in shared_batches(model, prompts, branches=1, growth=1)]
    assert sizes == [7, 7, 7, 7, 2]
    alone = list(shared_batches(model, prompts, branches=1, growth=1, memory_limit=1))
    assert [len(members) for members, _ in alone] == [1] * 30
    assert {prefix for _, prefix in alone} == {0}


def test_the_same_prompt_twice() -> None:
    model = make("llama")
    prompts = [numbers(3, 60)] * 3
    decode = Decoding(max_new_tokens=4, stop_ids=frozenset(), pad_token_id=0, share_prefixes=True)
    first, *others = generate(model, prompts, decode)
    assert others == [first, first]
    assert [prefix for _, prefix in shared_batches(model, prompts, branches=1, growth=4)] == [59]


def test_positions_that_change_with_the_length_are_not_shared() -> None:
    rotation = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, rope_scaling=rotation)).eval()
    assert not can_share(model)
    assert {prefix for _, prefix in shared_batches(model, variants(3, 4), branches=1, growth=4)} == {0}


def test_a_model_that_fails_the_trial_shares_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = make("llama")
    whole = model.forward

    def forward(*, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **others: object) -> object:
        del position_ids  # the signature takes them
        return whole(input_ids=input_ids, **others)

    monkeypatch.setattr(model, "forward", forward)
    assert not can_share(model)
    assert "none is shared" in caplog.text


def test_common_prefix_is_that_of_tuples() -> None:
    assert common_prefix((), (1,)) == 0
    assert common_prefix(numbers(1, 9), (*numbers(1, 9), 5)) == 9


def test_by_default_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(model: PreTrainedModel) -> bool:
        raise AssertionError(model)

    monkeypatch.setattr("whatstuck.models.prefixes.can_share", never)
    decode = Decoding(max_new_tokens=2, stop_ids=frozenset(), pad_token_id=0)
    assert len(generate(make("llama"), variants(3, 4), decode)) == 4
