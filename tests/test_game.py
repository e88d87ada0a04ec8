"""A prompt as a game: the public contract of LanguageModelGame."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM, MambaConfig, PreTrainedModel, PreTrainedTokenizerFast

from whatstuck import LanguageModelGame, WhatStuckError
from whatstuck.interactions.coalitions import plain_log_odds

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
        ([], PLAYERS, "has no tokens"),
        (" glad", [], "1 to 1000 players, got 0"),
        (" glad", [(0, 4)] * 1001, "1 to 1000 players, got 1001"),
        (" glad", [PLAYERS[0], PLAYERS[0]], "share the token"),
        (" glad", [PLAYERS[0], (PLAYERS[0][0], PLAYERS[0][1] + 4)], "share the token"),
        (" glad", [(0, 4), (900, 910)], "player"),
    ],
)
def test_bad_input_is_one_clear_line(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    target: str | list[int],
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


def test_a_mask_token_that_is_in_the_prompt_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    word = "near"
    token = tokenizer(" near", add_special_tokens=False)["input_ids"][-1]
    position = ids.index(token)
    with pytest.raises(WhatStuckError, match="is in the prompt itself") as caught:
        LanguageModelGame(model, tokenizer, PROMPT, " glad", PLAYERS, mask_token_id=token)
    message = str(caught.value)
    assert "\n" not in message
    assert f"token {position}, " in message
    assert repr(tokenizer.convert_ids_to_tokens(token)) in message
    assert word in message
    assert "--mask-token" in message
    unknown = PROMPT.replace("near", tokenizer.unk_token)  # the default mask token
    with pytest.raises(WhatStuckError, match="is in the prompt itself"):
        LanguageModelGame(model, tokenizer, unknown, " glad", PLAYERS)


def test_more_players_than_a_table_holds_are_scored_by_coalition(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompt = " ".join([PROMPT] * 3)
    words = [(match.start(), match.end()) for match in re.finditer(r"\w+", prompt)]
    ids = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    players = [word for word in words if any(low >= word[0] - 1 and high == word[1] for low, high in ids)][:20]
    assert len(players) == 20
    game = LanguageModelGame(model, tokenizer, prompt, " glad", players)
    for table in (game.table, game.plain_table):
        with pytest.raises(WhatStuckError, match=r"2\^20 values; at most 16 players.*fit_interactions") as caught:
            table()
        assert "\n" not in str(caught.value)
    chosen = np.random.default_rng(0).random((6, 20)) < 0.5
    values = game(chosen)
    plain = plain_log_odds(model, game.masked, torch.from_numpy(chosen))
    np.testing.assert_allclose(values, plain.numpy(), atol=1e-4)
    assert np.ptp(values) > 0.01
    assert game(np.zeros((0, 20), dtype=bool)).shape == (0,)


def test_the_plain_table_is_the_oracle_in_eval_mode(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    game = LanguageModelGame(model, tokenizer, PROMPT, " glad", PLAYERS)
    model.train()
    np.testing.assert_allclose(game.plain_table().numpy(), game.table(), atol=1e-4)
    assert model.training
    model.eval()


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
