"""A prompt as a game: the public contract of LanguageModelGame."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM, MambaConfig, PreTrainedModel, PreTrainedTokenizerFast

from whatstuck import LanguageModelGame, WhatStuckError

PROMPT = "Mara found a precious lantern near the quiet harbor. How does Mara feel?"
WORDS = ("found", "precious", "quiet")
PLAYERS = [(PROMPT.index(word), PROMPT.index(word) + len(word)) for word in WORDS]


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PreTrainedModel:
    return LlamaForCausalLM.from_pretrained(tiny_base)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(tiny_base)


def test_called_with_coalitions_it_returns_the_entries_of_its_table(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    game = LanguageModelGame(model, tokenizer, PROMPT, " glad", PLAYERS)
    table = game.table()
    assert table.shape == (8,)
    assert table.dtype == np.float64
    assert game.player_names == list(WORDS)
    some = np.array([[True, False, True], [False, False, False], [True, False, True]])
    values = game(some)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, table[[5, 0, 5]], atol=1e-4)
    everything = (np.arange(8)[:, None] >> np.arange(3)) & 1
    np.testing.assert_allclose(game(everything.astype(bool)), table, atol=1e-4)
    np.testing.assert_allclose(game([True, True, True]), table[7:], atol=1e-4)


def test_masking_a_word_is_replacing_its_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """The value of a coalition is that of the prompt with the masked words' tokens replaced, and nothing else."""
    game = LanguageModelGame(model, tokenizer, PROMPT, " glad", PLAYERS)
    encoded = tokenizer(PROMPT, add_special_tokens=False, return_offsets_mapping=True)
    start, end = PLAYERS[1]
    overlaps = [low < end and high > start for low, high in encoded["offset_mapping"]]
    assert any(overlaps)
    replaced = [
        tokenizer.unk_token_id if hit else token for token, hit in zip(encoded["input_ids"], overlaps, strict=True)
    ]
    with torch.inference_mode():
        logits = model(torch.tensor([replaced])).logits[0, -1].double()
    target = tokenizer(" glad", add_special_tokens=False)["input_ids"][0]
    chance = logits.softmax(-1)[target]
    assert game([True, False, True])[0] == pytest.approx(float((chance / (1 - chance)).log()), abs=1e-4)


def test_the_whole_target_is_the_sum_over_its_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = tokenizer(" glad to find it", add_special_tokens=False)["input_ids"]
    assert len(ids) > 2
    whole = LanguageModelGame(model, tokenizer, PROMPT, ids, PLAYERS, whole_target=True).table()
    parts = np.zeros(8)
    for i, token in enumerate(ids):
        longer = PROMPT + tokenizer.decode(ids[:i])
        assert tokenizer(longer, add_special_tokens=False)["input_ids"][-i:] == ids[:i] or not i
        parts += LanguageModelGame(model, tokenizer, longer, [token], PLAYERS).table()
    np.testing.assert_allclose(whole, parts, atol=1e-4)


def test_the_model_keeps_its_mode(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    model.train()
    LanguageModelGame(model, tokenizer, PROMPT, " glad", PLAYERS)([True, True, False])
    assert model.training
    model.eval()


@pytest.mark.parametrize(
    ("target", "players", "message"),
    [
        ("", PLAYERS, "has no tokens"),
        (" glad", [], "1 to 16 players"),
        (" glad", [PLAYERS[0], PLAYERS[0]], "share"),
        (" glad", [(0, 4), (900, 910)], "player"),
    ],
)
def test_bad_input_is_one_clear_line(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    target: str,
    players: list[tuple[int, int]],
    message: str,
) -> None:
    with pytest.raises(WhatStuckError, match=message) as caught:
        LanguageModelGame(model, tokenizer, PROMPT, target, players)
    assert "\n" not in str(caught.value)


def test_a_wrong_number_of_columns_is_refused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    game = LanguageModelGame(model, tokenizer, PROMPT, " glad", PLAYERS)
    with pytest.raises(WhatStuckError, match=r"shape \(k, 3\)"):
        game([[True, False]])


def test_a_recurrent_model_is_scored_plainly_and_says_so(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.5
    )
    game = LanguageModelGame(AutoModelForCausalLM.from_config(config), tokenizer, PROMPT, " glad", PLAYERS)
    table = game.table()
    assert "recurrent state" in caplog.text
    one_by_one = [game([bool(mask >> player & 1) for player in range(3)])[0] for mask in range(8)]
    np.testing.assert_allclose(table, one_by_one, atol=1e-4)
    assert np.ptp(table) > 0.01
