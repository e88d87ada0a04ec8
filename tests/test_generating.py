"""Many answers at once are the answers that each prompt would give alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
)

import helpers
from whatstuck.errors import WhatStuckError
from whatstuck.models import load_model, load_tokenizer
from whatstuck.models.generating import Answers, Decoding, generate, seed_of
from whatstuck.models.reading import next_log_probabilities

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # tiny models start out nearly constant; then a broken cache would pass
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL = {key: SIZES[key] for key in ("vocab_size", "initializer_range", "bos_token_id", "eos_token_id")}
WINDOW = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}  # shorter than the prompts
MODELS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(**SMALL, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "mistral": MistralConfig(**SIZES, sliding_window=6),
    "gemma3": Gemma3TextConfig(**SIZES, **WINDOW, head_dim=8, query_pre_attn_scalar=8),
    "bloom": BloomConfig(**SMALL, hidden_size=32, n_layer=2, n_head=4),  # takes no position ids
    "mamba": MambaConfig(**SMALL, hidden_size=32, num_hidden_layers=2, state_size=4),
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
}
STOPS = frozenset({2, 5, 7, 11, 13})
PROMPTS = [
    tuple(int(t) for t in np.random.default_rng(i).integers(14, 97, size)) for i, size in enumerate([9, 3, 14, 9])
]
SEEDS = [seed_of(0, str(i)) for i in range(len(PROMPTS))]


def make(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(MODELS[name], dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return make("llama")


def decoding(**changes: object) -> Decoding:
    return Decoding(**{"max_new_tokens": 6, "stop_ids": STOPS, "pad_token_id": 0, "samples": 7, **changes})


def alone(
    model: PreTrainedModel, prompt: tuple[int, ...], uniform: np.ndarray | None
) -> tuple[tuple[int, ...], int | None]:
    """One answer by full forward passes, one token at a time; the definition."""
    path: tuple[int, ...] = ()
    while len(path) < 6:
        with torch.inference_mode():
            z = model(input_ids=torch.tensor([prompt + path]), use_cache=False).logits[0, -1].double().numpy()
        if uniform is None:
            token = int(z.argmax())
        else:
            p = np.exp((z - z.max()) / 0.8)
            token = int(np.flatnonzero(np.cumsum(p / p.sum()) > uniform[len(path)])[0])
        if token in STOPS:
            return path, token
        path += (token,)
    return path, None


@pytest.mark.parametrize("name", MODELS)
def test_every_answer_is_what_its_prompt_gives_alone(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = make(name)
    found = generate(model, PROMPTS, decoding(temperature=0.8), seeds=SEEDS)
    seen = set()
    for prompt, seed, answers in zip(PROMPTS, SEEDS, found, strict=True):
        assert (answers.greedy.ids, answers.greedy.stopped_by) == alone(model, prompt, None)
        for draw, drawn in enumerate(answers.drawn):
            uniform = np.random.Generator(np.random.Philox(key=(seed, draw))).random(6)
            assert (drawn.ids, drawn.stopped_by) == alone(model, prompt, uniform)
            seen.add((drawn.ids, drawn.stopped_by))
    assert len(seen) > 14  # they differ
    assert {stop is None for _, stop in seen} == {True, False}  # some ended, some were cut
    assert ("cannot branch" in caplog.text) == (name in {"mamba", "lfm2"})


def test_greedy_is_that_of_transformers(tiny_base: Path) -> None:
    model, tokenizer = load_model(tiny_base), load_tokenizer(tiny_base)
    texts = [helpers.chat(row["prompt"]) for row in helpers.rows(8, seed=11)]
    prompts = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    decode = Decoding(max_new_tokens=8, stop_ids=frozenset({3}), pad_token_id=1)
    for prompt, answers in zip(prompts, generate(model, prompts, decode), strict=True):
        given = torch.tensor([prompt])
        plain = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=8, do_sample=False)
        new = plain[0, len(prompt) :].tolist()
        assert answers.greedy.ids == tuple(new[: new.index(3)] if 3 in new else new)
        assert answers.drawn == ()


def test_draws_depend_on_seed_and_number_alone(llama: PreTrainedModel) -> None:
    def ids(answers: list[Answers]) -> list[tuple[tuple[int, ...], ...]]:
        return [tuple(drawn.ids for drawn in answer.drawn) for answer in answers]

    whole = ids(generate(llama, PROMPTS, decoding(samples=16), seeds=SEEDS))
    first = ids(generate(llama, PROMPTS, decoding(samples=5), seeds=SEEDS))
    rest = ids(generate(llama, PROMPTS, decoding(samples=11, first_sample=5, greedy=False), seeds=SEEDS))
    assert whole == [a + b for a, b in zip(first, rest, strict=True)]
    back = ids(generate(llama, PROMPTS[::-1], decoding(samples=16), seeds=SEEDS[::-1]))[::-1]
    assert back == whole
    single = ids(generate(llama, PROMPTS, decoding(samples=16, memory_limit=1), seeds=SEEDS))  # a prompt at a time
    assert single == whole
    others = ids(generate(llama, PROMPTS, decoding(samples=16), seeds=[seed + 1 for seed in SEEDS]))
    assert others != whole


def test_draws_have_the_models_probabilities(llama: PreTrainedModel) -> None:
    """Chi-square of first and of second tokens, against exact probabilities; the bound is its 1 - 1e-4 quantile."""
    prompt, samples, temperature = PROMPTS[0], 4000, 0.7
    decode = Decoding(2, frozenset(), 0, samples=samples, temperature=temperature, greedy=False)
    [answers] = generate(llama, [prompt], decode, seeds=[3])
    with torch.inference_mode():
        p = (llama(input_ids=torch.tensor([prompt])).logits[0, -1].double() / temperature).softmax(-1).numpy()
        texts = torch.tensor([[*prompt, token] for token in range(97)])
        second = (llama(input_ids=texts).logits[:, -1].double() / temperature).softmax(-1).numpy()
    for position, expected in ((0, p), (1, p @ second)):
        counts = np.bincount([drawn.ids[position] for drawn in answers.drawn], minlength=97)
        common = samples * expected >= 5
        observed = np.append(counts[common], counts[~common].sum())
        wanted = samples * np.append(expected[common], expected[~common].sum())
        freedom = len(observed) - 1
        assert freedom > 15
        bound = freedom * (1 - 2 / (9 * freedom) + 3.719 * (2 / (9 * freedom)) ** 0.5) ** 3  # Wilson and Hilferty
        assert ((observed - wanted) ** 2 / wanted).sum() < bound


def test_equal_continuations_are_computed_once(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    forward = llama.forward

    def counting(*args: object, **kwargs: object) -> object:
        sizes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(llama, "forward", counting)
    monkeypatch.setattr("whatstuck.models.reading._known", {llama: "padded"})
    monkeypatch.setattr("whatstuck.models.reading.accepted_options", lambda _model, **options: options)
    found = generate(llama, PROMPTS, decoding(temperature=0.3), seeds=SEEDS)
    distinct = [
        {(i, c.ids[:step]) for i, a in enumerate(found) for c in (a.greedy, *a.drawn) if _reads(c, step)}
        for step in range(6)
    ]
    assert sizes == [(4, 14), *((len(texts), 1) for texts in distinct[1:] if texts)]
    assert len(distinct[1]) < 4 * 8


def _reads(continuation: object, step: int) -> bool:
    """Whether the model is asked what follows the first `step` tokens."""
    return len(continuation.ids) > step or (len(continuation.ids) == step and continuation.stopped_by is not None)


def test_every_prompt_has_its_own_longest_answer(llama: PreTrainedModel) -> None:
    decode = decoding(stop_ids=frozenset())
    cut = generate(llama, PROMPTS, decode, seeds=SEEDS, longest=[1, 6, 3, 2])
    for limit, short, full in zip([1, 6, 3, 2], cut, generate(llama, PROMPTS, decode, seeds=SEEDS), strict=True):
        assert [c.ids for c in (short.greedy, *short.drawn)] == [c.ids[:limit] for c in (full.greedy, *full.drawn)]


@pytest.mark.parametrize("name", ["llama", "bloom", "mamba"])
def test_next_log_probabilities(name: str) -> None:
    model = make(name)
    tokens = [(3, 4), (90,), (), (8, 9, 10)]
    for prompt, some, found in zip(PROMPTS, tokens, next_log_probabilities(model, PROMPTS, tokens, 0), strict=True):
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([prompt])).logits[0, -1].double().log_softmax(-1)[list(some)]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_bad_input(llama: PreTrainedModel) -> None:
    assert generate(llama, [], decoding(), seeds=[]) == []
    assert generate(llama, PROMPTS, decoding(samples=0, greedy=False)) == [Answers(None, ())] * 4
    with pytest.raises(WhatStuckError, match="without tokens"):
        generate(llama, [()], decoding(), seeds=[0])
    with pytest.raises(WhatStuckError, match="seed per prompt"):
        generate(llama, PROMPTS, decoding())
    with pytest.raises(WhatStuckError, match="longest answer"):
        generate(llama, PROMPTS, decoding(), seeds=SEEDS, longest=[7, 1, 1, 1])
    with pytest.raises(WhatStuckError, match="temperature above 0"):
        decoding(temperature=0.0)
    broken = make("llama")
    broken.lm_head.weight.data[3] = torch.nan
    with pytest.raises(WhatStuckError, match="diverged"):
        generate(broken, PROMPTS, decoding(), seeds=SEEDS)
