"""The ranges of `certainty` hold everything that they promise to hold, and are not so wide that they say nothing.

What they promise is exact: every coefficient of every explanation of at most a given cost. So the true ends, from an
independent conic solver (conic.py), must lie inside, for every mode, slack and state of convergence.
"""

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conic import AND, OR, Program
from test_extraction import games
from test_penalized import default_misfit, drifting, small_groups
from whatstuck.interactions.extraction import DEFAULT_MISFIT, DEFAULT_TILT, Interactions, extract_interactions
from whatstuck.interactions.transforms import orders, reconstruct

MODES = ["robust", "joint", "paper"]
KAPPA = 0.05  # of the largest effect


def tables_of(mode: str, n: int, rows: int) -> np.ndarray:
    """(rows, 2^n), or (rows, 3, 2^n)."""
    return drifting(n, rows, 3) if mode == "joint" else games(n, rows, seed=n)[0]


def options_of(mode: str, values: np.ndarray) -> dict[str, Any]:
    sizes = np.abs(values - values[..., :1]).reshape(len(values), -1).max(1)
    return {"mode": mode, "noise_bound": KAPPA * sizes} if mode == "paper" else {"mode": mode}


def ends(found: Interactions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low, value and high, (B, 2, 2^n) each."""
    assert found.and_low is not None
    assert found.and_high is not None
    assert found.or_low is not None
    assert found.or_high is not None
    pairs = (found.and_low, found.or_low), (found.and_, found.or_), (found.and_high, found.or_high)
    low, value, high = (torch.stack(pair, dim=-2).numpy() for pair in pairs)
    return low, value, high


def program(mode: str, values: np.ndarray, row: int) -> Program:
    """What a row minimises, with the defaults."""
    tables = values[row] if mode == "joint" else values[row, None]
    if mode == "paper":
        return Program(tables, noise_bound=KAPPA * np.abs(tables - tables[:, :1]).max())
    return Program(tables, misfit=np.full(len(tables), default_misfit(values)[row]), tilt=DEFAULT_TILT)


def compare(found: Interactions, row: int, problem: Program, *, every: int = 1) -> np.ndarray:
    """Hold the ranges of a row to the exact ones; returns (k,) how many times wider ours are."""
    assert found.slack is not None
    low, value, high = (end[row].reshape(-1, *end.shape[-2:]) for end in ends(found))  # (T, 2, 2^n)
    ceiling = float(found.objective[row] * (1 + found.slack[row]))
    only = list(range(row % every, problem.count, every))
    wider = []
    for step in range(problem.steps):
        exact = problem.extremes(ceiling, step=step, only=only)
        ours = np.array(
            [[end[step, kind, mask] for end in (low, high)] for kind, mask in np.array(problem.names)[only]]
        )
        slip = 1e-6 * problem.scale  # of the other solver
        assert (ours[:, 0] <= exact[:, 0] + slip).all()
        assert (ours[:, 1] >= exact[:, 1] - slip).all()
        wider.append((ours[:, 1] - ours[:, 0]) / (exact[:, 1] - exact[:, 0]))
    assert (low <= value + 1e-9 * problem.scale).all()
    assert (value <= high + 1e-9 * problem.scale).all()
    return np.concatenate(wider)


# --- the promise


@pytest.mark.parametrize("slack", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("n", "rows", "every"), [(3, 3, 1), (4, 1, 2), (5, 1, 13)])
def test_ranges_hold_the_exact_ones(mode: str, n: int, rows: int, every: int, slack: float) -> None:
    values = tables_of(mode, n, rows)
    found = extract_interactions(values, certainty=slack, **options_of(mode, values))
    for row in range(rows):
        compare(found, row, program(mode, values, row), every=every)


@settings(max_examples=15)
@given(small_groups(1, 3), st.sampled_from([0.0, 0.02, 0.3, 0.9]), st.sampled_from([1e-4, 1e-2, 0.5]))
def test_ranges_of_small_tables_hold_the_exact_ones(
    group: tuple[np.ndarray, np.ndarray], share: float, slack: float
) -> None:
    tables, misfit = group
    scale = np.abs(tables - tables[:, :1]).max()
    if scale < 1e-100:  # its square is 0
        return
    robust = extract_interactions(tables, misfit=misfit, certainty=slack)
    compare(robust, 0, Program(tables, misfit=misfit, tilt=DEFAULT_TILT))
    paper = extract_interactions(tables, mode="paper", noise_bound=share * scale, certainty=slack)
    compare(paper, 0, Program(tables, noise_bound=share * scale))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limit", [1, 25, 60])
def test_a_loose_certificate_makes_ranges_loose_and_not_false(mode: str, limit: int) -> None:
    values = tables_of(mode, 3, 2)
    found = extract_interactions(values, certainty=1e-3, max_iterations=limit, **options_of(mode, values))
    assert found.slack is not None
    torch.testing.assert_close(found.slack, torch.clamp(10 * found.gap, min=1e-3), rtol=1e-12, atol=0)
    if limit == 1:
        assert (found.slack > 1e-3).all()
    for row in range(2):
        compare(found, row, program(mode, values, row))


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.2, 0.05)])
@pytest.mark.parametrize("share", [0.1, 10.0])
def test_ranges_under_other_tilts_and_misfits(tilt: tuple[float, float], share: float) -> None:
    values = tables_of("robust", 3, 3)
    misfit = share * default_misfit(values)
    found = extract_interactions(values, certainty=True, misfit=misfit, order_tilt=tilt)
    for row in range(3):
        compare(found, row, Program(values[row, None], misfit=misfit[row, None], tilt=tilt))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_ranges_under_other_noise_bounds(share: float) -> None:
    values = tables_of("paper", 4, 2)
    bounds = share * np.abs(values - values[:, :1]).max(1)
    found = extract_interactions(values, mode="paper", noise_bound=bounds, certainty=True)
    for row in range(2):
        compare(found, row, Program(values[row, None], noise_bound=bounds[row]), every=2)


def test_single_steps_of_a_group_have_their_misfits() -> None:
    values = drifting(3, 2, 3)
    misfit = default_misfit(values)[:, None] * [0.3, 1.0, 5.0]
    found = extract_interactions(values, mode="joint", misfit=misfit, certainty=True)
    for row in range(2):
        compare(found, row, Program(values[row], misfit=misfit[row], tilt=DEFAULT_TILT))


# --- how wide they are


def test_robust_ranges_are_tight() -> None:
    wider = []
    for n, rows, every in [(4, 4, 1), (5, 3, 3)]:
        values = tables_of("robust", n, rows)
        found = extract_interactions(values, certainty=1e-3)
        wider += [compare(found, row, program("robust", values, row), every=every) for row in range(rows)]
    assert np.median(np.concatenate(wider)) < 2.0


@pytest.mark.parametrize("mode", MODES)
def test_slack_is_what_was_asked(mode: str) -> None:
    values = tables_of(mode, 5, 3)
    options = options_of(mode, values)
    assert extract_interactions(values, **options).slack is None
    for asked, slack in ((True, 1e-3), (1e-3, 1e-3), (0.02, 0.02)):
        found = extract_interactions(values, certainty=asked, **options)
        assert (found.gap <= 0.1 * slack).all()
        assert found.slack is not None
        assert (found.slack == slack).all()


@pytest.mark.parametrize("mode", MODES)
def test_more_slack_gives_wider_ranges(mode: str) -> None:
    """On average: each range is one of many valid bounds, and which one it is depends on the slack."""
    values = tables_of(mode, 5, 3)
    widths = []
    for slack in (1e-4, 1e-3, 1e-2, 1e-1):
        low, _, high = ends(
            extract_interactions(values, certainty=slack, gap_tolerance=1e-5, **options_of(mode, values))
        )
        widths.append(float((high - low).mean()))
    assert all(narrow < wide for narrow, wide in itertools.pairwise(widths))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("factor", [2.0**-40, -1.0, 2.0**40])
def test_ranges_scale_with_the_values(mode: str, factor: float) -> None:
    values = tables_of(mode, 5, 2)
    low, _, high = ends(extract_interactions(values, certainty=True, noise_floor=0.01, **options_of(mode, values)))
    scaled = extract_interactions(
        factor * values, certainty=True, noise_floor=0.01 * abs(factor), **options_of(mode, factor * values)
    )
    expected = sorted([factor * low, factor * high], key=np.sum)
    for got, want in zip(ends(scaled)[::2], expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9 * abs(factor))


def test_one_checkpoint_alone_has_the_ranges_of_robust() -> None:
    values = tables_of("robust", 5, 3)
    alone = extract_interactions(values, certainty=True)
    joint = extract_interactions(values[:, None], mode="joint", certainty=True)
    for got, want in zip(ends(joint), ends(alone), strict=True):
        np.testing.assert_array_equal(got[:, 0], want)


@pytest.mark.parametrize("mode", MODES)
def test_rows_without_effects_are_certain_and_no_nan(mode: str) -> None:
    values = tables_of(mode, 4, 2)
    still = np.concatenate([np.full_like(values[:1], 3.0), values, np.zeros_like(values[:1])])
    found = extract_interactions(still, certainty=True, **options_of(mode, still))
    low, _, high = ends(found)
    assert np.isfinite(low).all()
    assert np.isfinite(high).all()
    for end in (low, high):
        assert not end[[0, 3]].any()
        assert end[1].any()
    assert found.slack is not None
    assert (found.slack == 1e-3).all()
    assert found.strength_low is not None
    assert found.strength_high is not None
    assert not found.strength_high[[0, 3]].any()


@pytest.mark.parametrize("mode", MODES)
def test_no_range_where_there_is_no_coefficient(mode: str) -> None:
    values = tables_of(mode, 5, 2)
    low, _, high = ends(extract_interactions(values, certainty=True, noise_floor=0.1, **options_of(mode, values)))
    none = np.stack([orders(5).numpy() == 0, orders(5).numpy() <= 1])
    for end in (low, high):
        assert not end[..., none].any()
        assert end[..., ~none].all()


# --- the sum of all strengths


@pytest.mark.parametrize("slack", [1e-4, 1e-2])
@pytest.mark.parametrize("mode", ["robust", "paper"])
def test_total_strength_is_held(mode: str, slack: float) -> None:
    """Of the cheapest explanation; of the weakest, as a linear cost; and of those at the ends of single ranges."""
    values = tables_of(mode, 4, 3)
    found = extract_interactions(values, certainty=slack, **options_of(mode, values))
    assert found.slack is not None
    assert found.strength_low is not None
    assert found.strength_high is not None
    for row in range(3):
        problem = program(mode, values, row)
        ceiling = float(found.objective[row] * (1 + found.slack[row]))
        seen = [problem.strength_at(ceiling, direction) for direction in (None, 0, 5, 10, 15, 20)]
        slip = 1e-6 * seen[0]
        assert found.strength_low[row] <= min(seen) + slip
        assert found.strength_high[row] >= max(seen) - slip
        assert found.strength_low[row] >= 0.8 * min(seen)


# --- noise


def outside(found: Interactions, perturbed: Interactions) -> float:
    """Share of the coefficients of one solution that leave the ranges of another, in rows of (2^n)."""
    low, _, high = ends(found)
    value = torch.stack([perturbed.and_, perturbed.or_], dim=-2).numpy()
    slip = 1e-9 * np.abs(value).max()
    return float(((value < low - slip) | (value > high + slip)).mean())


@pytest.mark.parametrize(("mode", "slack", "noise"), [("robust", 1e-4, 0.03), ("paper", 1e-4, 0.03)])
def test_the_noise_floor_covers_tables_with_that_noise(mode: str, slack: float, noise: float) -> None:
    rng = np.random.default_rng(8)
    values = np.repeat(tables_of(mode, 5, 4), 8, axis=0)
    options = options_of(mode, values) if mode == "paper" else {"misfit": default_misfit(values)}
    sigma = noise * values.std(1)
    quiet = extract_interactions(values, certainty=slack, **options)
    wide = extract_interactions(values, certainty=slack, noise_floor=sigma, **options)
    perturbed = extract_interactions(values + sigma[:, None] * rng.normal(size=values.shape), **options)
    assert outside(quiet, perturbed) > 0.01
    # three standard deviations of a normal number, per coefficient
    assert outside(wide, perturbed) <= 0.0027


@pytest.mark.parametrize("mode", MODES)
def test_ranges_grow_in_proportion_to_the_noise_floor(mode: str) -> None:
    values = tables_of(mode, 4, 2)
    options = options_of(mode, values)
    floors: list[Any] = [0.0, 0.1, 0.2, np.array([0.1, 0.2])]
    lows, _, highs = zip(
        *(ends(extract_interactions(values, certainty=True, noise_floor=floor, **options)) for floor in floors),
        strict=True,
    )
    grown = highs[1] - highs[0]
    assert (grown >= 0).all()
    assert (grown[..., 0, 1:] > 0.05).all()  # at least |y| of the shortest y
    np.testing.assert_allclose(lows[0] - lows[1], grown, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(highs[2] - highs[0], 2 * grown, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(highs[3][0], highs[1][0])
    np.testing.assert_array_equal(highs[3][1], highs[2][1])


# --- what certainty is for


@pytest.mark.parametrize("as_single", [True, False])
@pytest.mark.parametrize("mode", ["robust", "paper"])
def test_a_tie_is_not_certain(mode: str, as_single: bool) -> None:  # noqa: FBT001 - a case, no option
    """x_0 + x_1 = AND + OR of both, at the same strength: nobody can know which of the two it was."""
    one, other, third, fourth = ((np.arange(16) >> player) & 1 for player in range(4))
    tied = one + other if as_single else (one & other) + (one | other)
    values = (0.5 * tied + 3.0 * (third & fourth))[None]
    found = extract_interactions(values, certainty=True, **options_of(mode, values))
    compare(found, 0, program(mode, values, 0))
    low, _, high = ends(found)
    for kind, mask in ((AND, 0b0001), (AND, 0b0010), (AND, 0b0011), (OR, 0b0011)):
        assert low[0, kind, mask] <= 0.0
        assert high[0, kind, mask] >= 0.4
    if mode == "robust":
        assert low[0, AND, 0b1100] > 2.5  # this one has no tie


@functools.cache
def planted(n: int, atoms: int, highest_order: int, games_: int) -> np.ndarray:
    """(games, 2, 2^n) AND and OR effects of 0.3 to 1.5 with random signs."""
    rng = np.random.default_rng((n, atoms, highest_order))
    sizes = orders(n).numpy()
    planted_ = np.zeros((games_, 2, 1 << n))
    for game in planted_:
        while np.count_nonzero(game) < atoms:
            order = rng.integers(1, highest_order + 1)
            place = int(rng.integers(2)) if order > 1 else 0, rng.choice(np.flatnonzero(sizes == order))
            if game[place] == 0:
                game[place] = rng.choice([-1, 1]) * rng.uniform(0.3, 1.5)
    return planted_


def test_what_is_certain_was_planted() -> None:
    """Games whose making is also their sparsest explanation; in others nobody could find it."""
    rng = np.random.default_rng(0)
    effects = np.concatenate([planted(8, atoms, order, 8) for atoms in (4, 8) for order in (2, 4)])
    clean = reconstruct(*torch.from_numpy(effects).unbind(1)).numpy()
    exact = extract_interactions(clean, mode="paper", noise_bound=0.0)
    sparsest = np.abs(effects).sum((1, 2)) <= 1.002 * exact.objective.numpy()
    assert sparsest.sum() >= 10
    effects, clean = effects[sparsest], clean[sparsest]
    sigma = 0.01 * clean.std(1)
    noisy = clean + sigma[:, None] * rng.normal(size=clean.shape)
    low, _, high = ends(extract_interactions(noisy, certainty=True, noise_floor=sigma))
    threshold = 0.03 * np.abs(noisy - noisy[:, :1]).max(1)[:, None, None]
    certain = (low > threshold) * 1 - (high < -threshold)
    right = certain * np.sign(effects) > 0
    salient = np.abs(effects) > threshold
    assert right.sum() >= 0.99 * np.count_nonzero(certain)
    assert right.sum() >= 0.5 * salient.sum()
    # and what certainly is not salient was not
    absent = (high <= threshold) & (low >= -threshold)
    assert (absent & ~salient).sum() >= 0.999 * absent.sum()


def test_default_misfit_is_the_one_that_the_oracle_uses() -> None:
    values = tables_of("robust", 3, 2)
    assert default_misfit(values)[0] == DEFAULT_MISFIT * np.abs(values[0] - values[0, 0]).max()
