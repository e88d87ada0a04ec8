"""Held-out loss and exact match, batched with padding, equal what one row alone gives."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from whatstuck.dynamics.heldout import ScoredRow, evaluate, half_of


def rows() -> list[ScoredRow]:
    generator = torch.Generator().manual_seed(0)
    result = []
    for index in range(21):  # more than one batch, of many lengths
        prompt = torch.randint(5, 90, (3 + 2 * index % 17,), generator=generator).tolist()
        target = torch.randint(5, 90, (1 + index % 4,), generator=generator).tolist()
        result.append(ScoredRow(f"row-{index}", tuple(prompt), tuple(target)))
    return result


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tiny_base: Path) -> PreTrainedModel:
    if request.param == "llama":
        return AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3)
    return AutoModelForCausalLM.from_config(config).eval()


def test_padding_changes_nothing(model: PreTrainedModel) -> None:
    table = evaluate(model, rows(), pad_token_id=0).to_pylist()
    for row, found in zip(rows(), table, strict=True):
        ids = torch.tensor([row.prompt_ids + row.target_ids])
        with torch.inference_mode():
            logits = model(ids).logits[0, len(row.prompt_ids) - 1 : -1].double()
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(row.target_ids))
        assert found["row_id"] == row.row_id
        assert found["tokens"] == len(row.target_ids)
        assert found["nll"] == pytest.approx(float(expected), abs=1e-4)


def test_correct_means_that_greedy_decoding_says_it(model: PreTrainedModel) -> None:
    prompts = [row.prompt_ids for row in rows()]
    greedy = []
    for index, prompt in enumerate(prompts):
        ids = list(prompt)
        for _ in range(3):
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        answer = ids[len(prompt) :]
        if index % 2:
            answer[-1] = (answer[-1] + 1) % 90  # one wrong token at the end
        greedy.append(ScoredRow(f"row-{index}", prompt, tuple(answer)))
    found = evaluate(model, greedy, pad_token_id=0)["correct"].to_pylist()
    assert found == [index % 2 == 0 for index in range(len(prompts))]


def test_halves_are_even_and_forever() -> None:
    halves = [half_of(f"row-{index}") for index in range(2000)]
    assert 900 < halves.count("select") < 1100
    assert [half_of(f"row-{index}") for index in range(2000)] == halves
