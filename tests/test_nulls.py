"""Intervals and nulls against values that are known in advance."""

from functools import partial

import numpy as np
import pytest

from whatstuck.dynamics import nulls
from whatstuck.dynamics.bootstrap import RowBootstrap, interval
from whatstuck.dynamics.gamma import Gamma, shared_fraction
from whatstuck.dynamics.records import Orders


@pytest.mark.parametrize(("size", "expected"), [(1, 1.0), (2, 0.5), (3, 0.5), (5, 0.375), (10, 0.246)])
def test_rho_of_random_signs_depends_on_the_set_size(size: int, expected: float) -> None:
    # E|sum of K random signs| / K, exactly: K = 5 gives 0.375
    mean, low, high = nulls.flipped_rho(np.ones((200, size)), seed=1)
    assert mean == pytest.approx(expected, abs=0.02)
    assert low <= mean <= high


def test_random_signs_contribute_nothing_on_average() -> None:
    mean, low, high = nulls.flipped_contribution(np.full((50, 8), 2.0), 400.0, seed=1)
    assert abs(mean) < 0.02
    assert low < 0 < high


def test_no_row_is_its_own_mismatch() -> None:
    for rows in (2, 3, 7, 100):
        pairings = list(nulls.mismatched(rows))
        assert 1 <= len(pairings) <= nulls.MAX_SHIFTS
        for pairing in pairings:
            assert (pairing != np.arange(rows)).all()
            assert sorted(pairing) == list(range(rows))
    assert not list(nulls.mismatched(1))


def test_shuffles_keep_every_order_in_its_place() -> None:
    orders = Orders(4).order
    shuffles = list(nulls.stratified_shuffles(orders, seed=0))
    assert all((orders[shuffle] == orders).all() for shuffle in shuffles)
    assert any((shuffle != np.arange(16)).any() for shuffle in shuffles)


def test_the_bootstrap_covers_a_mean() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        sample = generator.normal(3.0, 1.0, size=(40, 1))
        _, low, high = RowBootstrap(40, seed=trial, resamples=400).ratio(sample)
        hits += bool(low[0] <= 3.0 <= high[0])
    assert 0.90 < hits / 300 < 0.98


def test_one_row_has_no_interval_and_nothing_over_nothing_is_nan() -> None:
    value, low, high = RowBootstrap(1, seed=0).ratio(np.array([[2.0]]))
    assert value[0] == 2.0
    assert np.isnan(low[0])
    assert np.isnan(high[0])
    value, low, _ = RowBootstrap(3, seed=0).ratio(np.zeros((3, 1)), np.zeros((3, 1)))
    assert np.isnan(value[0])
    assert np.isnan(low[0])
    assert np.isnan(interval(np.full((5, 1), np.nan))[0][0])


def effects(seed: int, rows: int = 12, players: int = 5) -> np.ndarray:
    generator = np.random.default_rng(seed)
    shape = (rows, 2, 1 << players)
    result = generator.laplace(size=shape) * (generator.random(shape) < 0.2)
    result[:, :, 0] = 0
    return result


def test_a_model_shares_everything_with_itself_and_chance_with_a_stranger() -> None:
    ours, orders = effects(0, rows=80), Orders(5).order
    known = np.ones(80, dtype=bool)
    fraction = partial(shared_fraction, ours, known=known)
    own = Gamma(ours, ours, known, fraction)
    assert own.shared.sum() == pytest.approx(own.total.sum())
    for agree in (np.sign, fraction):
        for seed in (1, 2, 3):
            stranger = Gamma(ours, effects(seed, rows=80), known, agree)
            value = stranger.shared.sum() / stranger.total.sum()
            for null in (stranger.mismatched_rows(), stranger.stratified(orders, seed=0)):
                assert null[2] - 0.01 <= value <= null[3] + 0.01, null
                assert null[1] == pytest.approx(value, abs=0.03)


def test_gamma_ignores_rows_that_the_other_model_was_not_probed_on() -> None:
    ours = effects(0)
    known = np.arange(12) > 3
    theirs = np.where(known[:, None, None], ours, 0.0)
    gamma = Gamma(ours, theirs, known, partial(shared_fraction, ours, known=known))
    assert gamma.total[:4].tolist() == [0, 0, 0, 0]
    assert gamma.shared.sum() == pytest.approx(gamma.total.sum())
