"""The prefix tree and its walk: what is shared, what a block may take, what stays as it was."""

import gc
import logging
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, PreTrainedModel

from whatstuck import WhatStuckError
from whatstuck.interactions import coalitions, prefix_walk
from whatstuck.interactions.coalitions import (
    MaskedPrompt,
    every_coalition,
    log_odds,
    plain_log_odds,
    shared_prefix_log_odds,
    shared_prefix_tables,
    sharing,
    supports_prefix_sharing,
    walked_tokens,
)
from whatstuck.interactions.masked import Sizes
from whatstuck.interactions.prefix_tree import PrefixTree
from whatstuck.interactions.tree_attention import TreeBlock

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,  # tiny models start out nearly constant; a broken cache would pass
}
PROMPT = MaskedPrompt(
    prompt_ids=tuple(5 + (7 * i) % 90 for i in range(31)),
    target_ids=(11, 42, 3),
    # unsorted, of several tokens, neighbours without a gap, one at the very end
    players=((12, 14), (3, 4), (14, 15), (20, 23), (30, 31)),
    mask_token_id=0,
)
FIRST = MaskedPrompt(PROMPT.prompt_ids, PROMPT.target_ids[:1], PROMPT.players, 0)


@pytest.fixture(autouse=True)
def _share_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a prompt of 31 tokens most stretches would not pay."""
    monkeypatch.setattr(coalitions, "FORWARD_COST", 0)


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


def masked_tokens(masked: MaskedPrompt, coalition: torch.Tensor) -> list[int]:
    """Written out, as the paper says it: absent players are mask tokens."""
    ids = list(masked.input_ids)
    for present, (first, last) in zip(coalition.tolist(), masked.players, strict=True):
        if not present:
            ids[first:last] = [masked.mask_token_id] * (last - first)
    return ids


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[MaskedPrompt], torch.Tensor, int]:
    """Rows of one shape, coalitions with repetitions, and what a forward pass costs."""
    length = draw(st.integers(2, 30))
    cuts = sorted(draw(st.sets(st.integers(0, length), min_size=2, max_size=8)))
    players = draw(st.permutations(list(zip(cuts[::2], cuts[1::2], strict=False))))
    token = st.integers(1, 3)
    targets = draw(st.integers(1, 3))
    rows = [
        MaskedPrompt(
            tuple(draw(st.lists(token, min_size=length, max_size=length))),
            tuple(draw(st.lists(token, min_size=targets, max_size=targets))),
            tuple(players),
            0,
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    n = len(players)
    chosen = draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=12))
    return rows, torch.tensor(chosen, dtype=torch.bool).view(-1, n), draw(st.sampled_from([0, 5, 10**6]))


@settings(max_examples=100)
@given(case=cases())
def test_every_path_down_the_tree_spells_one_masked_prompt(
    case: tuple[list[MaskedPrompt], torch.Tensor, int],
) -> None:
    rows, chosen, forward_cost = case
    tree = PrefixTree(rows, chosen, forward_cost=forward_cost)
    parts = [tree.tokens(level, 0, len(level.leaves)) for level in tree.levels]
    spelled, targets = [], []
    for leaf in range(len(tree.levels[-1].leaves)):
        node, tokens = leaf, []
        for level, part in zip(reversed(tree.levels), reversed(parts), strict=True):
            tokens = part[node].tolist() + tokens
            node = int(level.parents[node])
        spelled.append(tokens)
        targets.append(tree.target_ids(leaf, leaf + 1)[0].tolist())
    where = tree.in_callers_order(torch.arange(len(spelled))).tolist()
    for row, leaves in zip(rows, where, strict=True):
        for coalition, leaf in zip(chosen, leaves, strict=True):
            assert spelled[leaf] == masked_tokens(row, coalition)
            assert targets[leaf] == list(row.target_ids)
    if forward_cost == 0:  # then everything that can be shared by players and beginnings is
        for level in tree.levels[1:]:
            assert len(level.leaves) >= 2
    assert tree.computed_tokens <= len(spelled) * len(rows[0].input_ids)


def test_walked_tokens_are_those_that_the_model_computes(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert walked_tokens(FIRST) == 3 + 9 * 2 + 2 * 4 + 6 * 8 + 10 * 16 + 1 * 32
    assert walked_tokens(FIRST, torch.ones(3, 5, dtype=torch.bool)) == 31
    some = every_coalition(5)[[0, 2, 31]]  # player 1 stands first in the text: 0 departs there from the others
    assert walked_tokens(FIRST, some) == 3 + 9 * 2 + 19 * 3
    sharing(llama)
    seen = []
    forward = llama.model.forward

    def count(input_ids: torch.Tensor, **options: object) -> object:
        seen.append(input_ids.numel())
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(llama.model, "forward", count)
    shared_prefix_log_odds(llama, FIRST, some)
    assert sum(seen) == walked_tokens(FIRST, some)


def test_a_stretch_that_saves_less_than_a_forward_pass_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalitions, "FORWARD_COST", 16)
    # a cut at token 3 would save 3 tokens, and one at 14, behind that at 12, only 2 * 4
    assert walked_tokens(FIRST) == 12 * 2 + 8 * 8 + 10 * 16 + 1 * 32


@pytest.mark.parametrize("masked", [FIRST, PROMPT], ids=["first token", "whole target"])
def test_the_walk_equals_plain_forwards(llama: PreTrainedModel, masked: MaskedPrompt) -> None:
    assert sharing(llama) == "tree"
    assert supports_prefix_sharing(llama)
    plain = plain_log_odds(llama, masked, every_coalition(5))
    shared = shared_prefix_log_odds(llama, masked)
    assert shared.dtype == torch.float64
    assert plain.max() - plain.min() > 1
    assert torch.allclose(shared, plain, rtol=0, atol=5e-5)


def test_a_wrong_position_would_be_noticed(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    right = shared_prefix_log_odds(llama, FIRST)
    positions = prefix_walk.positions
    monkeypatch.setattr(prefix_walk, "positions", lambda ids, offset: positions(ids, offset + 3 * (offset > 0)))
    assert (shared_prefix_log_odds(llama, FIRST) - right).abs().max() > 1e-2


def test_a_model_that_the_tree_gets_wrong_is_noticed_before_it_is_scored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    attend = TreeBlock.attend
    monkeypatch.setattr(TreeBlock, "attend", lambda self, *states: attend(self, *states) * 1.1)
    assert sharing(model) == "copy"
    assert "log-odds differ by" in caplog.text
    plain = plain_log_odds(model, FIRST, every_coalition(5))
    assert torch.allclose(shared_prefix_log_odds(model, FIRST), plain, rtol=0, atol=5e-5)


def test_the_models_own_attention_comes_back_even_after_an_error(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing(llama)
    before = llama.config._attn_implementation

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(TreeBlock, "attend", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            shared_prefix_log_odds(llama, FIRST)
    assert llama.config._attn_implementation == before
    logits = llama(torch.tensor([FIRST.prompt_ids])).logits
    assert logits.isfinite().all()


def test_what_is_known_of_a_model_does_not_keep_it_alive() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    sharing(model)
    seen = weakref.ref(model)
    assert model in prefix_walk._known
    del model
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("way", ["tree", "copy"])
def test_a_memory_limit_makes_blocks_and_changes_nothing_else(llama: PreTrainedModel, way: str) -> None:
    tree = PrefixTree([PROMPT], every_coalition(5), forward_cost=0)
    plain = plain_log_odds(llama, PROMPT, every_coalition(5))
    size = Sizes.of(llama)
    seen = set()
    for width in (1, 2, 8, 32):
        limit = prefix_walk._bytes(tree, [min(width, len(level.leaves)) for level in tree.levels], size, copies=True)
        widths = prefix_walk.block_widths(tree, size, limit, copies=way == "copy")
        assert prefix_walk._bytes(tree, widths, size, copies=way == "copy") <= limit
        seen.add(tuple(widths))
        values = prefix_walk.walk(llama, tree, way, limit)[0]
        assert torch.allclose(values, plain, rtol=0, atol=5e-5)
        assert torch.equal(values, prefix_walk.walk(llama, tree, way, limit)[0])
    assert len(seen) > 1


def test_too_little_memory_is_refused_with_what_is_enough(llama: PreTrainedModel) -> None:
    long = MaskedPrompt(tuple(5 + i % 90 for i in range(1200)), (11,), ((3, 4), (700, 701)), 0)
    with pytest.raises(WhatStuckError, match=r"1200 tokens needs (\d+) MiB on this model; raise") as caught:
        shared_prefix_log_odds(llama, long, memory_limit=1 << 10)
    assert "\n" not in str(caught.value)
    enough = int(str(caught.value).split("needs ")[1].split()[0]) << 20
    values = shared_prefix_log_odds(llama, long, memory_limit=enough)
    assert torch.allclose(values, plain_log_odds(llama, long, every_coalition(2)), rtol=0, atol=1e-4)


def test_long_stretches_are_cut_so_that_scores_stay_small() -> None:
    masked = MaskedPrompt(tuple(range(1, 2001)), (1,) * 600, ((1500, 1501),), 0)
    levels = PrefixTree([masked], every_coalition(1), forward_cost=0).levels
    assert max(level.stop - level.start for level in levels[:-1]) == 512
    assert levels[-1].stop - levels[-1].start >= 600  # all scored positions go through the head together
    assert [level.start for level in levels[1:]] == [level.stop for level in levels[:-1]]


def test_chosen_coalitions_of_many_players_share_what_they_can() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MistralConfig(**SIZES, sliding_window=40)).eval()
    n = 60
    masked = MaskedPrompt(
        tuple(5 + (7 * i) % 90 for i in range(200)), (11,), tuple((60 + 2 * i, 61 + 2 * i) for i in range(n)), 0
    )
    chosen = torch.rand(40, n, generator=torch.Generator().manual_seed(1)) < 0.5
    chosen = torch.cat([chosen, chosen[:3], torch.zeros(1, n, dtype=torch.bool)])
    plain = plain_log_odds(model, masked, chosen)
    assert torch.allclose(shared_prefix_log_odds(model, masked, chosen), plain, rtol=0, atol=1e-4)
    assert walked_tokens(masked, chosen) < 41 * 200 - 40 * 60  # the first 60 tokens once, and more


def test_rows_of_one_shape_share_batches_and_their_beginning(llama: PreTrainedModel) -> None:
    other = MaskedPrompt((*PROMPT.prompt_ids[:2], *(9 + i for i in range(29))), (7, 8, 9), PROMPT.players, 0)
    longer = MaskedPrompt((*PROMPT.prompt_ids, 5), PROMPT.target_ids, PROMPT.players, 0)
    rows = [PROMPT, longer, other]
    tables = shared_prefix_tables(llama, rows)
    for row, table in zip(rows, tables, strict=True):
        assert torch.allclose(table, plain_log_odds(llama, row, every_coalition(5)), rtol=0, atol=5e-5)
    both = PrefixTree([PROMPT, other], every_coalition(5), forward_cost=0)
    assert both.computed_tokens == 2 * walked_tokens(PROMPT) - 2  # two tokens are the same
    assert shared_prefix_tables(llama, []) == []


def test_no_players_and_no_coalitions(llama: PreTrainedModel) -> None:
    bare = MaskedPrompt(PROMPT.prompt_ids, (11,), (), 0)
    expected = log_odds(llama(torch.tensor([bare.prompt_ids]), logits_to_keep=1).logits.detach(), (11,))
    assert torch.allclose(shared_prefix_log_odds(llama, bare), expected, rtol=0, atol=1e-5)
    none = torch.zeros(0, 5, dtype=torch.bool)
    assert shared_prefix_log_odds(llama, FIRST, none).shape == (0,)
    assert plain_log_odds(llama, FIRST, none).shape == (0,)
    assert walked_tokens(FIRST, none) == 0


@pytest.mark.parametrize("wrong", [torch.ones(2, 4).bool(), torch.ones(5).bool(), torch.ones(2, 5)])
def test_coalitions_of_another_shape_are_refused(llama: PreTrainedModel, wrong: torch.Tensor) -> None:
    with pytest.raises(WhatStuckError, match=r"bool of shape \(k, 5\)"):
        shared_prefix_log_odds(llama, FIRST, wrong)


def test_a_player_at_the_first_token_needs_no_prefix(llama: PreTrainedModel) -> None:
    masked = MaskedPrompt(PROMPT.prompt_ids, (11,), ((0, 2), (5, 6)), 0)
    plain = plain_log_odds(llama, masked, every_coalition(2))
    assert torch.allclose(shared_prefix_log_odds(llama, masked), plain, rtol=0, atol=5e-5)


def test_the_fast_way_is_silent(llama: PreTrainedModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="whatstuck"):
        shared_prefix_log_odds(llama, FIRST)
    assert not caplog.records


def test_log_odds_do_not_saturate_and_leave_the_logits_alone() -> None:
    logits = torch.tensor([[[60.0, 0.0, 0.0]]], dtype=torch.float64)
    expected = 60 - torch.tensor(2.0, dtype=torch.float64).log()
    assert log_odds(logits, [0]).item() == pytest.approx(expected.item(), abs=1e-12)
    assert logits[0, 0, 0] == 60
    two = torch.tensor([[[1.0, 2.0]], [[1.0, 2.0]]])
    assert log_odds(two, torch.tensor([[0], [1]])).tolist() == [-1.0, 1.0]
