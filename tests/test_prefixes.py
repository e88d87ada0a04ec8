"""The prefix sampler of AdaBack: how much of a right reply is revealed, and how that moves."""

import json
import math
import random

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from whatstuck.training.rl import PrefixSampler
from whatstuck.training.rl.prefixes import Outcome, revealed


def learn(sampler: PrefixSampler, name: str, share: float, *, reward: float, tokens: int = 1000) -> None:
    sampler.learn({name: Outcome(share, tokens, reward)})


def test_intervals_follow_the_rewards() -> None:
    sampler = PrefixSampler(seed=0, threshold=0.5, unaided=0.0)
    assert sampler.span("a") == (0.0, 1.0)
    learn(sampler, "a", 0.6, reward=0.4)  # not enough: more next time
    assert sampler.span("a") == (0.6, 1.0)
    learn(sampler, "a", 0.8, reward=0.5)  # the threshold itself is a success: less next time, from nothing on
    assert sampler.span("a") == (0.0, 0.8)
    learn(sampler, "a", 0.0, reward=0.1)  # failing without help says nothing about how much is needed
    assert sampler.span("a") == (0.0, 0.8)
    learn(sampler, "a", 0.3, reward=0.0)
    learn(sampler, "a", 0.0, reward=0.0)
    assert sampler.span("a") == (0.3, 0.8)
    learn(sampler, "a", 0.0, reward=1.0)  # solved
    assert sampler.span("a") == (0.0, 0.0)
    assert sampler.draw("a") == 0.0


def test_an_interval_that_is_used_up_opens_again() -> None:
    sampler = PrefixSampler(seed=0)
    learn(sampler, "a", 0.5, reward=1.0, tokens=10)
    learn(sampler, "a", 0.41, reward=0.0, tokens=10)  # 4 of 5 tokens: one is left
    assert sampler.span("a") == (0.41, 0.5)
    learn(sampler, "a", 0.499, reward=0.0, tokens=1000)  # of a long answer, too
    assert sampler.span("a") == (0.499, 0.5)
    learn(sampler, "a", 0.4995, reward=0.0, tokens=1000)
    assert sampler.span("a") == (0.4995, 0.5)
    learn(sampler, "a", 0.5, reward=0.0)  # its top is not enough
    assert sampler.span("a") == (0.5, 1.0)
    learn(sampler, "b", 0.55, reward=1.0, tokens=10)
    learn(sampler, "b", 0.51, reward=0.0, tokens=10)  # as many tokens as at the top, 5
    assert sampler.span("b") == (0.51, 1.0)
    learn(sampler, "c", 0.0, reward=1.0)
    learn(sampler, "c", 0.0, reward=0.0)  # solved once and forgotten
    assert sampler.span("c") == (0.0, 1.0)


def test_new_samples_begin_where_others_are_after_a_step() -> None:
    sampler = PrefixSampler(seed=0, memory=0.75)
    sampler.learn({"a": Outcome(0.4, 100, 1.0), "b": Outcome(0.2, 100, 0.0)})  # (0, 0.4) and (0.2, 1)
    assert sampler.span("c") == pytest.approx((0.25 * 0.1, 0.75 + 0.25 * 0.7))
    learn(sampler, "a", 0.1, reward=0.0)  # (0.1, 0.4)
    assert sampler.span("c") == pytest.approx((0.75 * 0.025 + 0.25 * 0.1, 0.75 * 0.925 + 0.25 * 0.4))
    first, second = (PrefixSampler(seed=0) for _ in "12")  # the order within a step says nothing
    outcomes = {"a": Outcome(0.4, 100, 1.0), "b": Outcome(0.8, 100, 0.0)}
    first.learn(outcomes)
    second.learn(dict(reversed(outcomes.items())))
    assert first.span("c") == second.span("c")
    first.learn({})
    assert first.span("c") == second.span("c")


def test_the_end_that_others_found_is_taken_back_by_the_first_failure() -> None:
    sampler = PrefixSampler(seed=0, memory=0.0)
    learn(sampler, "a", 0.2, reward=1.0)
    assert sampler.span("b") == (0.0, 0.2)
    learn(sampler, "b", 0.1, reward=0.0)
    assert sampler.span("b") == (0.1, 1.0)


def test_an_interval_is_the_one_that_was_drawn_from() -> None:
    sampler = PrefixSampler(seed=0, memory=0.0, unaided=0.0)
    shares = {name: sampler.draw(name) for name in "abcdefgh"}
    state = json.loads(json.dumps(sampler.state()))
    assert state["spans"]["h"] == [0.0, 1.0, 0]  # drawn, not learned from
    assert min(shares.values()) > 0.01
    for name, share in shares.items():  # one by one: the average falls to 0.01 before the last is learned from
        if name == "h":
            assert sampler.span("h") == (0.0, 1.0)
            assert sampler.span("new") == (0.0, 0.01)
        learn(sampler, name, share if name == "h" else 0.01, reward=0.0 if name == "h" else 1.0)
    assert sampler.span("h") == (shares["h"], 1.0)


@hypothesis.given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1)), min_size=1, max_size=4), max_size=30),
    st.integers(0, 40),
)
def test_no_interval_is_ever_upside_down(steps: list[list[tuple[int, float]]], tokens: int) -> None:
    sampler = PrefixSampler(seed=5)
    for step in steps:
        shares = {str(number): (sampler.draw(str(number)), reward) for number, reward in step}
        assert all(
            sampler.span(name)[0] <= share <= sampler.span(name)[1] or not share for name, (share, _) in shares.items()
        )
        sampler.learn({name: Outcome(share, tokens, reward) for name, (share, reward) in shares.items()})
        for name in (*"0123456789", "new"):
            low, high = sampler.span(name)
            assert 0 <= low <= high <= 1


@pytest.mark.parametrize("tokens", [10, 100])
def test_no_sample_starves(tokens: int) -> None:
    """Samples that need a share of their own: 256, 4 a step, groups of 8, six times each."""
    rng = random.Random(tokens)
    needs = {str(number): revealed(rng.random(), tokens) for number in range(256)}
    sampler = PrefixSampler(seed=1)

    def starves(name: str) -> bool:
        return name in seen and revealed(sampler.span(name)[1], tokens) < needs[name]

    seen: set[str] = set()
    starving = []
    for _ in range(6):
        order = rng.sample(sorted(needs), len(needs))
        for first in range(0, len(order), 4):
            shares = {name: sampler.draw(name) for name in order[first : first + 4]}
            outcomes = {}
            for name, share in shares.items():
                chance = 0.9 if revealed(share, tokens) >= needs[name] else 0.05
                outcomes[name] = Outcome(share, tokens, sum(rng.random() < chance for _ in range(8)) / 8)
            seen |= set(shares)
            sampler.learn(outcomes)
        starving.append({name for name in needs if starves(name)})
    assert max(map(len, starving)) <= 256 * 0.02
    assert not set.intersection(*starving[-3:])
    assert 0.4 < sampler.span("new")[1] < 0.75  # about where the needs are, and the next draws
    lows, highs = zip(*(sampler.span(name) for name in needs), strict=True)
    found = sum(
        low * tokens <= need <= high * tokens for low, high, need in zip(lows, highs, needs.values(), strict=True)
    )
    assert found > 256 * 0.9


def test_how_many_need_no_help_is_counted() -> None:
    sampler = PrefixSampler(seed=0)
    assert math.isnan(sampler.without_help)
    sampler.learn({"a": Outcome(0.04, 100, 1.0), "b": Outcome(0.06, 100, 1.0), "c": Outcome(0.0, 100, 1.0)})
    assert sampler.without_help == pytest.approx(2 / 3)


def test_draws_are_uniform_in_the_interval_and_sometimes_nothing() -> None:
    sampler = PrefixSampler(seed=1, unaided=0.1)
    drawn = [sampler.draw(str(number)) for number in range(4000)]
    nothing = [share for share in drawn if share == 0]
    assert len(nothing) / 4000 == pytest.approx(0.1, abs=0.015)
    some = torch.tensor([share for share in drawn if share])
    assert some.mean().item() == pytest.approx(0.5, abs=0.02)
    assert (some.min().item(), some.max().item()) == pytest.approx((0, 1), abs=0.01)
    assert sampler.draw("7") == drawn[7]
    assert PrefixSampler(seed=2).draw("7") != drawn[7]
    learn(sampler, "7", 0.5, reward=0.0)
    later = sampler.draw("7")
    assert later == 0 or 0.5 <= later <= 1


def test_a_sampler_goes_on_from_its_state() -> None:
    first, second = PrefixSampler(seed=3), PrefixSampler(seed=3)
    for number in range(20):
        name = str(number % 3)
        learn(first, name, first.draw(name), reward=number % 2)
    first.draw("3")  # not learned from yet
    learn(first, "0", 0.1, reward=1.0)
    second.go_on(json.loads(json.dumps(first.state())))
    names = [*"01234"]
    assert [second.span(name) for name in names] == [first.span(name) for name in names]
    assert second.span("3") != second.span("4")
    assert [second.draw(name) for name in names] == [first.draw(name) for name in names]
