"""The extraction finds the optimum of a linear program, and its certificate tells the truth."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.extraction import MAX_CERTAIN_PLAYERS, MAX_PLAYERS, Interactions, extract_interactions
from whatstuck.interactions.transforms import mobius, orders, reconstruct

ROUNDING = 1e-10  # relative to the values


def coalitions(n: int) -> np.ndarray:
    return (np.arange(1 << n)[:, None] >> np.arange(n)) & 1


def planted_game(n: int, rng: np.random.Generator) -> np.ndarray:
    """20 AND and OR effects of order 1 to 4, and noise that is no interaction of low order."""
    present = coalitions(n)
    values = np.full(1 << n, rng.normal())
    for _ in range(20):
        players = rng.choice(n, rng.integers(1, min(n, 4) + 1), replace=False)
        joined = present[:, players].all(1) if rng.random() < 0.6 else present[:, players].any(1)
        values = values + rng.normal() * joined
    return values + 0.01 * values.std() * rng.normal(size=1 << n)


def smooth_game(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random network of two hidden layers: a little of every order, exactly sparse nowhere."""
    hidden = 2.0 * coalitions(n) - 1
    for width in (32, 32):
        weights = rng.normal(size=(hidden.shape[1], width)) * 1.5 / np.sqrt(hidden.shape[1])
        hidden = np.tanh(hidden @ weights + 0.5 * rng.normal(size=width))
    return hidden @ rng.normal(size=32) * 2 / np.sqrt(32)


def games(n: int, count: int, seed: int) -> tuple[np.ndarray, float]:
    """Half planted, half smooth, and the noise bound that the paper's lineage uses."""
    rng = np.random.default_rng(seed)
    values = np.stack([(planted_game, smooth_game)[i % 2](n, rng) for i in range(count)])
    return values, 0.05 * np.abs(values[:, -1] - values[:, 0]).mean()


def linear_program(values: np.ndarray, kappa: float) -> float:
    """The least total strength, from the definition with dense matrices and an independent solver."""
    mask = np.arange(1, len(values))
    meets = mask[:, None] & mask[None, :]
    effects = np.hstack([meets == mask[None, :], meets != 0]).astype(float)
    target = values[1:] - values[0]
    scale = np.abs(target).max()
    if scale == 0:
        return 0.0
    target, kappa = target / scale, kappa / scale  # its tolerances are absolute
    result = linprog(
        np.ones(2 * effects.shape[1]),
        A_ub=np.vstack([np.hstack([effects, -effects]), np.hstack([-effects, effects])]),
        b_ub=np.concatenate([target + kappa, kappa - target]),
        method="highs-ipm",
    )
    assert result.success, result.message
    return scale * result.fun


def misfit(found: Interactions, values: np.ndarray) -> Tensor:
    effects = torch.as_tensor(values - values[:, :1])
    return (reconstruct(found.and_, found.or_) - effects).abs().amax(1)


@st.composite
def small_tables(draw: st.DrawFn) -> tuple[np.ndarray, float]:
    n = draw(st.integers(1, 4))
    entry = st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5, allow_subnormal=False))
    values = np.array(draw(st.lists(entry, min_size=1 << n, max_size=1 << n)))
    share = draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 0.95, 1.5]))
    return values[None], share * np.abs(values - values[0]).max()


@settings(max_examples=60)
@given(small_tables())
def test_small_tables_against_linear_programming(table: tuple[np.ndarray, float]) -> None:
    values, kappa = table
    found = extract_interactions(values, mode="paper", noise_bound=kappa)
    optimum = linear_program(values[0], kappa)
    size = np.abs(values - values[0, 0]).max()
    tolerance = 1e-6 * optimum + 1e-7 * size  # of the other solver
    assert found.objective[0] <= 1.001 * optimum + tolerance
    assert found.objective[0] >= optimum - tolerance
    assert found.objective[0] * (1 - found.gap[0]) <= optimum + tolerance
    # universal matching, and order 1 merged
    assert misfit(found, values)[0] <= kappa + ROUNDING * size
    assert found.violation[0] <= ROUNDING * size
    order = orders(values.shape[1].bit_length() - 1)
    assert not found.or_[:, order <= 1].any()
    assert not found.and_[:, 0].any()


@pytest.mark.parametrize(("n", "count"), [(5, 8), (6, 6), (7, 4), (8, 2)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 3.0])
def test_realistic_tables_against_linear_programming(n: int, count: int, share: float) -> None:
    values, kappa = games(n, count, seed=n)
    found = extract_interactions(values, mode="paper", noise_bound=share * kappa)
    optimum = torch.tensor([linear_program(row, share * kappa) for row in values], dtype=torch.float64)
    assert (found.gap <= 1e-3).all()
    assert (found.objective <= 1.001 * optimum).all()
    assert (found.objective * (1 - found.gap) <= optimum * (1 + 1e-6)).all()
    assert (misfit(found, values) <= share * kappa + ROUNDING).all()
    torch.testing.assert_close(found.objective, found.and_.abs().sum(1) + found.or_.abs().sum(1), rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_ten_players(share: float) -> None:
    values, kappa = games(10, 20, seed=3)
    found = extract_interactions(values, mode="paper", noise_bound=share * kappa)
    assert (found.gap <= 1e-2).double().mean() >= 0.95
    assert (misfit(found, values) <= share * kappa + ROUNDING).all()
    # the certificate of one table is worth nothing if the objective is: half AND, half OR is far above
    plain = mobius(torch.as_tensor(values)).abs()[:, 1:].sum(1)
    assert (found.objective < 0.5 * plain).all()


def test_single_interactions_are_recovered_exactly() -> None:
    mask = np.arange(32)
    both = (mask & 0b00110) == 0b00110
    any_of = (mask & 0b11001) != 0
    values = np.stack([1.0 + 2.0 * both, -3.0 * any_of, 2.0 * both - 3.0 * any_of])
    found = extract_interactions(values, mode="paper", noise_bound=0.0, gap_tolerance=1e-6)
    expected = torch.zeros(3, 2, 32, dtype=torch.float64)
    expected[0, 0, 0b00110] = expected[2, 0, 0b00110] = 2
    expected[1, 1, 0b11001] = expected[2, 1, 0b11001] = -3
    torch.testing.assert_close(torch.stack([found.and_, found.or_], dim=1), expected, rtol=0, atol=1e-5)


def test_a_single_effect_shrinks_by_the_noise_bound() -> None:
    values = np.zeros((1, 8))
    values[0, 7] = 2.0
    assert extract_interactions(values, mode="paper", noise_bound=0.5).objective[0] == pytest.approx(1.5, rel=1e-3)


@functools.cache
def example() -> tuple[np.ndarray, float, Interactions]:
    values, kappa = games(5, 6, seed=11)
    return values, kappa, extract_interactions(values, mode="paper", noise_bound=kappa, gap_tolerance=1e-5)


@pytest.mark.parametrize("factor", [0.125, -1.0, 1024.0])
def test_scaling_by_powers_of_two_changes_nothing_else(factor: float) -> None:
    values, kappa, found = example()
    scaled = extract_interactions(factor * values, mode="paper", noise_bound=abs(factor) * kappa, gap_tolerance=1e-5)
    assert torch.equal(scaled.and_, factor * found.and_)
    assert torch.equal(scaled.or_, factor * found.or_)
    assert torch.equal(scaled.iterations, found.iterations)


@settings(max_examples=10)
@given(st.floats(1e-9, 1e9), st.floats(-10, 10))
def test_scaling_and_shifting(factor: float, shift: float) -> None:
    values, kappa, found = example()
    moved = extract_interactions(
        factor * (values + shift), mode="paper", noise_bound=factor * kappa, gap_tolerance=1e-5
    )
    torch.testing.assert_close(moved.objective, factor * found.objective, rtol=2e-5, atol=0)


def test_swapping_present_and_absent_swaps_and_and_or() -> None:
    values, _, _ = example()
    plain = extract_interactions(values, mode="paper", noise_bound=0.0, gap_tolerance=1e-5)
    swapped = extract_interactions(-values[:, ::-1], mode="paper", noise_bound=0.0, gap_tolerance=1e-5)
    torch.testing.assert_close(swapped.objective, plain.objective, rtol=2e-5, atol=0)


@pytest.mark.parametrize("n", [5, 8])
def test_a_row_does_not_depend_on_the_rows_beside_it(n: int) -> None:
    values, kappa = games(n, 9, seed=5)
    together = extract_interactions(values, mode="paper", noise_bound=kappa)
    again = extract_interactions(values, mode="paper", noise_bound=kappa)
    assert torch.equal(together.and_, again.and_)
    assert torch.equal(together.or_, again.or_)
    for rows in ([4], [7, 1, 2], [8, 8, 8, 0, 3, 5, 6]):
        apart = extract_interactions(values[rows], mode="paper", noise_bound=kappa)
        torch.testing.assert_close(apart.and_, together.and_[rows], rtol=0, atol=1e-9)
        torch.testing.assert_close(apart.or_, together.or_[rows], rtol=0, atol=1e-9)


def test_blocks_of_rows_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    values, kappa, found = example()
    monkeypatch.setattr("whatstuck.interactions.extraction._BLOCK_ENTRIES", {"cpu": 64})
    blocks = extract_interactions(values, mode="paper", noise_bound=kappa, gap_tolerance=1e-5)
    torch.testing.assert_close(blocks.and_, found.and_, rtol=0, atol=1e-9)


def test_stopping_early_gives_the_best_point_so_far_and_says_how_good_it_is() -> None:
    values, kappa = games(6, 4, seed=2)
    optimum = torch.tensor([linear_program(row, kappa) for row in values], dtype=torch.float64)
    last = torch.full_like(optimum, torch.inf)
    for limit in (25, 50, 75, 100):  # the points that are compared are every 25 iterations apart
        found = extract_interactions(values, mode="paper", noise_bound=kappa, max_iterations=limit, gap_tolerance=1e-9)
        assert found.iterations.max() == limit
        assert (found.violation <= ROUNDING).all()
        assert (found.objective >= optimum * (1 - 1e-6)).all()
        assert (found.objective * (1 - found.gap) <= optimum * (1 + 1e-6)).all()
        assert (found.objective <= last).all()
        last = found.objective
    assert (found.gap < 0.05).all()


@pytest.mark.parametrize("limit", [1, 10])
def test_stopping_at_once_is_honest_too(limit: int) -> None:
    values, kappa = games(6, 4, seed=2)
    found = extract_interactions(values, mode="paper", noise_bound=kappa, max_iterations=limit)
    optimum = torch.tensor([linear_program(row, kappa) for row in values], dtype=torch.float64)
    assert (found.violation <= ROUNDING).all()
    assert (found.gap > 1e-3).all()
    assert (found.objective * (1 - found.gap) <= optimum * (1 + 1e-6)).all()


def test_rows_within_the_noise_have_no_interactions() -> None:
    values, kappa, found = example()
    quiet = np.full((1, 32), 3.0)
    mixed = extract_interactions(np.concatenate([quiet, values]), mode="paper", noise_bound=kappa, gap_tolerance=1e-5)
    assert mixed.objective[0] == mixed.gap[0] == mixed.violation[0] == mixed.iterations[0] == 0
    assert not mixed.and_[0].any()
    torch.testing.assert_close(mixed.objective[1:], found.objective, rtol=2e-5, atol=0)
    loose = extract_interactions(values, mode="paper", noise_bound=float(np.ptp(values)))
    assert not loose.and_.any()
    assert not loose.gap.any()


def test_each_row_has_its_noise_bound() -> None:
    values, kappa, _ = example()
    bounds = kappa * np.linspace(0, 2, len(values))
    found = extract_interactions(values, mode="paper", noise_bound=bounds)
    assert (misfit(found, values) <= torch.as_tensor(bounds) + ROUNDING).all()
    alone = extract_interactions(values[2:3], mode="paper", noise_bound=float(bounds[2]))
    torch.testing.assert_close(found.objective[2:3], alone.objective, rtol=2e-3, atol=0)


def test_arrays_and_tensors_of_any_real_type() -> None:
    values = np.arange(8).reshape(1, 8) % 3
    expected = extract_interactions(values, mode="paper", noise_bound=0.1)
    for same in (
        torch.tensor(values, dtype=torch.float32, requires_grad=True),
        values.astype(np.longdouble),
        values.astype(np.float32)[:, ::-1][:, ::-1],
    ):
        found = extract_interactions(same, mode="paper", noise_bound=torch.tensor([0.1], dtype=torch.float64))
        assert torch.equal(found.and_, expected.and_)
        assert not found.and_.requires_grad


def test_no_rows_give_no_interactions() -> None:
    assert extract_interactions(np.zeros((0, 8)), mode="paper", noise_bound=0.1).and_.shape == (0, 8)


TABLE = np.zeros((2, 8))
NAN = np.array([[0.0, 1.0], [0.0, np.nan]])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([[0.0, 1.0]], {}, "numpy array or a tensor"),
        (np.array([["a", "b"]]), {}, "real numbers"),
        (torch.zeros(1, 2, dtype=torch.complex64), {}, "real numbers"),
        (np.zeros(8), {}, r"\(rows, 2\^n\) .* not \(8,\): .* values\[None\]"),
        (np.zeros((2, 3, 8)), {}, r"\(rows, 2\^n\)"),
        (np.zeros((2, 8)), {"mode": "joint"}, r"\(rows, steps, 2\^n\)"),
        (np.zeros((2, 12)), {}, "not 12"),
        (np.zeros((2, 1)), {}, "0 players"),
        (
            np.zeros((1, 1 << (MAX_PLAYERS + 1))),
            {},
            "17 players: 1 to 16 are possible here; whatstuck.fit_interactions",
        ),
        (np.zeros((1, 1 << (MAX_CERTAIN_PLAYERS + 1))), {"certainty": True}, "2 GB per table: 13 players"),
        (NAN, {}, r"row 1 .* \(1 rows do\)"),
        (np.array([[0.0, np.inf]]), {}, "row 0"),
        (np.array([[-1.7e308, 1.7e308]]), {}, "too large"),
        (TABLE, {"mode": "paper"}, "needs noise_bound"),
        (TABLE, {"mode": "paper", "noise_bound": -0.1}, "not negative"),
        (TABLE, {"mode": "paper", "noise_bound": float("nan")}, "finite"),
        (TABLE, {"mode": "paper", "noise_bound": [0.1, 0.1, 0.1]}, "each of the 2 rows"),
        (TABLE, {"mode": "paper", "noise_bound": "small"}, "must be a number"),
        (TABLE, {"mode": "best"}, "the modes are 'robust', 'paper', 'joint'"),
        (TABLE, {"mode": "paper", "noise_bound": 0.1, "misfit": 0.1}, "no misfit"),
        (TABLE, {"mode": "paper", "noise_bound": 0.1, "order_tilt": (0.1, 0.1)}, "no order_tilt"),
        (TABLE, {"noise_bound": 0.1}, "'robust' takes no noise_bound"),
        (TABLE + np.arange(8), {"misfit": 0.0}, "misfit must be positive"),
        (TABLE, {"order_tilt": 0.1}, "two numbers"),
        (TABLE, {"order_tilt": (0.1, -0.1)}, "not negative"),
        (TABLE, {"certainty": -1.0}, "certainty must be"),
        (TABLE, {"certainty": "yes"}, "certainty must be"),
        (TABLE, {"certainty": None}, "certainty must be"),
        (TABLE, {"certainty": 1e-13}, "from 1e-09 to 1"),
        (TABLE, {"max_iterations": 2.5}, "whole number"),
        (np.zeros((2, 0, 8)), {"mode": "joint"}, "no steps"),
        (TABLE + np.arange(8), {"misfit": 1e-310}, "misfit must be positive"),
        (TABLE, {"noise_floor": -1.0}, "noise_floor must be finite and not negative"),
        (TABLE, {"gap_tolerance": 0.0}, "gap_tolerance"),
        (TABLE, {"max_iterations": 0}, "max_iterations"),
    ],
)
def test_bad_input_is_one_clear_line(values: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhatStuckError, match=message) as caught:
        extract_interactions(values, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("unit", [1e-200, 1e-160, 1e150])
@pytest.mark.parametrize("mode", ["robust", "paper"])
def test_ranges_in_extreme_units(mode: str, unit: float) -> None:
    values, kappa, _ = example()
    options = {"noise_bound": kappa} if mode == "paper" else {}
    plain = extract_interactions(values, mode=mode, certainty=True, **options)
    scaled = {name: number * unit for name, number in options.items()}
    found = extract_interactions(values * unit, mode=mode, certainty=True, **scaled)
    for end in ("and_low", "and_high", "or_low", "or_high", "strength_low", "strength_high"):
        torch.testing.assert_close(getattr(found, end) / unit, getattr(plain, end), rtol=1e-6, atol=1e-6)
