"""Modes `robust` and `joint` find the optimum that an interior-point solver finds, and never claim more than is true.

The oracle (conic.py) shares nothing with the package. Mode `paper` has its own tests in test_extraction.py; here it
only has to agree with HiGHS far beyond its default gap.
"""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conic import AND, Optimum, Program, dictionary
from test_extraction import games, linear_program, planted_game
from whatstuck.interactions.extraction import DEFAULT_MISFIT, DEFAULT_TILT, Interactions, extract_interactions
from whatstuck.interactions.transforms import reconstruct

CLOSE = 1e-6  # relative, what both solvers must agree to
TILTS = [(0.0, 0.0), DEFAULT_TILT, (0.2, 0.05), (1.0, 0.5)]


def default_misfit(values: np.ndarray) -> np.ndarray:
    """(rows, 2^n) to (rows,), and (rows, steps, 2^n) to (rows,)."""
    sizes = np.abs(values - values[..., :1])
    return DEFAULT_MISFIT * sizes.reshape(len(sizes), -1).max(1)


def optimum(tables: np.ndarray, misfit: np.ndarray, tilt: tuple[float, float]) -> Optimum:
    """Of (T, 2^n) tables with (T,) misfits."""
    if not np.ptp(tables, axis=1).any():
        count = len(dictionary(tables.shape[1].bit_length() - 1)[1])
        return Optimum(0.0, 0.0, np.zeros((len(tables), count)))
    return Program(tables, misfit=misfit, tilt=tilt).minimise()


def recomputed_cost(
    coefficients: Tensor, tables: np.ndarray, misfit: np.ndarray, tilt: tuple[float, float]
) -> tuple[float, np.ndarray]:
    """The objective of (2, T, 2^n) coefficients from its definition, and the (T, 2^n - 1) fit."""
    matrix, names = dictionary(tables.shape[1].bit_length() - 1)
    listed = np.stack([coefficients[kind, :, mask].numpy() for kind, mask in names], axis=1)  # (T, k)
    weights = [(1 + tilt[0] * (mask.bit_count() - 1)) * (1 if kind == AND else 1 + tilt[1]) for kind, mask in names]
    fit = listed @ matrix.T
    off = fit - (tables - tables[:, :1])[:, 1:]
    # np.hypot squares nothing that could underflow
    strength = np.hypot.reduce(listed, axis=0)
    return float(strength @ weights + (off * (off / (2 * misfit[:, None]))).sum()), fit


def check(
    found: Interactions, row: int, tables: np.ndarray, misfit: np.ndarray, tilt: tuple[float, float], close: float
) -> None:
    """One row of a result, its tables as (T, 2^n) with misfits (T,), against the other solver."""
    best = optimum(tables, misfit, tilt)
    cost, gap = float(found.objective[row]), float(found.gap[row])
    slip = 1e-8 * best.cost  # of the other solver
    assert cost <= best.cost * (1 + close) + slip
    assert cost >= best.cost - slip
    assert cost * (1 - gap) <= best.cost + slip  # the bound is one
    both = torch.stack([found.and_[row], found.or_[row]]).reshape(2, len(tables), -1)
    again, fit = recomputed_cost(both, tables, misfit, tilt)
    assert cost == pytest.approx(again, rel=1e-12, abs=0)
    # no coefficient where there is none
    assert not both[:, :, 0].any()
    assert not both[1, :, [1 << player for player in range(tables.shape[1].bit_length() - 1)]].any()
    # the cost is strongly convex in the fit, so the fit is unique, and near it as the gap says
    matrix, _ = dictionary(tables.shape[1].bit_length() - 1)
    off = fit - best.coefficients @ matrix.T
    apart = (off * (off / (2 * misfit[:, None]))).sum()
    assert apart <= 2 * (cost - best.cost) + 4 * slip + 1e-8 * best.cost


ENTRY = st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5, allow_subnormal=False))
SHARES = st.sampled_from([1e-3, 0.02, 0.05, 0.5, 5.0])


@st.composite
def small_groups(draw: st.DrawFn, steps: int, players: int) -> tuple[np.ndarray, np.ndarray]:
    """(steps, 2^n) tables and (steps,) misfits."""
    size = 1 << draw(st.integers(1, players))
    tables = np.array(draw(st.lists(st.lists(ENTRY, min_size=size, max_size=size), min_size=steps, max_size=steps)))
    largest = np.abs(tables - tables[:, :1]).max() or 1.0
    return tables, largest * np.array(draw(st.lists(SHARES, min_size=steps, max_size=steps)))


# --- robust


@settings(max_examples=40)
@given(small_groups(1, 4), st.sampled_from(TILTS))
def test_small_tables_against_an_independent_solver(
    group: tuple[np.ndarray, np.ndarray], tilt: tuple[float, float]
) -> None:
    tables, misfit = group
    found = extract_interactions(tables, misfit=misfit, order_tilt=tilt, gap_tolerance=1e-7)
    assert found.gap[0] <= 1e-7
    check(found, 0, tables, misfit, tilt, CLOSE)


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize(("n", "count"), [(3, 4), (4, 4), (5, 2), (6, 1)])
def test_realistic_tables_against_an_independent_solver(n: int, count: int, tilt: tuple[float, float]) -> None:
    values, _ = games(n, count, seed=n)
    for misfit in (None, default_misfit(values) * [0.3, 10, 0.5, 2][:count]):
        found = extract_interactions(values, misfit=misfit, order_tilt=tilt, gap_tolerance=1e-7)
        assert (found.gap <= 1e-7).all()
        used = default_misfit(values) if misfit is None else misfit
        for row in range(count):
            check(found, row, values[row, None], used[row, None], tilt, CLOSE)


def test_what_is_left_out_has_its_default() -> None:
    values, _ = games(5, 4, seed=0)
    found = extract_interactions(values)
    assert (found.gap <= 1e-4).all()
    assert found.violation.isnan().all()
    assert found.slack is None
    for row in range(4):
        check(found, row, values[row, None], default_misfit(values)[row, None], DEFAULT_TILT, 1e-4)


@pytest.mark.parametrize(("effect", "misfit"), [(3.0, 0.5), (-3.0, 0.5), (2.0, 1.9), (-0.4, 0.5), (0.5, 0.5)])
def test_one_player_shrinks_by_the_misfit(effect: float, misfit: float) -> None:
    found = extract_interactions(np.array([[7.0, 7.0 + effect]]), misfit=misfit, gap_tolerance=1e-9)
    left = max(abs(effect) - misfit, 0.0)
    assert found.and_[0, 1] == pytest.approx(np.sign(effect) * left, abs=1e-4)  # the root of the gap
    cost = abs(effect) - misfit / 2 if left else effect**2 / (2 * misfit)
    assert found.objective[0] == pytest.approx(cost, rel=1e-9)


def test_a_misfit_that_covers_everything_leaves_nothing() -> None:
    values, _ = games(5, 4, seed=0)
    matrix, _ = dictionary(5)
    # zero is optimal exactly if no |A'u| exceeds the misfit
    edge = np.abs((values - values[:, :1])[:, 1:] @ matrix).max(1)
    above = extract_interactions(values, misfit=1.01 * edge, order_tilt=(0.0, 0.0), gap_tolerance=1e-9)
    assert not above.and_.any()
    assert not above.or_.any()
    assert (above.gap <= 1e-9).all()
    below = extract_interactions(values, misfit=0.9 * edge, order_tilt=(0.0, 0.0), gap_tolerance=1e-9)
    assert ((below.and_ != 0) | (below.or_ != 0)).any(1).all()


# --- joint


@settings(max_examples=20)
@given(small_groups(3, 3), st.sampled_from(TILTS))
def test_small_groups_against_an_independent_solver(
    group: tuple[np.ndarray, np.ndarray], tilt: tuple[float, float]
) -> None:
    tables, misfit = group
    found = extract_interactions(
        tables[None], mode="joint", misfit=misfit[None], order_tilt=tilt, gap_tolerance=1e-7, max_iterations=50_000
    )
    assert found.gap[0] <= 1e-7
    check(found, 0, tables, misfit, tilt, CLOSE)


@functools.cache
def drifting(n: int, rows: int, steps: int) -> np.ndarray:
    """(rows, steps, 2^n): games that turn into another one, as checkpoints do."""
    values, _ = games(n, 2 * rows, seed=n)
    share = np.linspace(0, 1, steps)[None, :, None]
    return (1 - share) * values[:rows, None] + share * values[rows:, None]


@pytest.mark.parametrize("tilt", [(0.0, 0.0), DEFAULT_TILT, (0.2, 0.05)])
@pytest.mark.parametrize(("n", "count"), [(3, 2), (4, 2), (5, 1)])
def test_checkpoints_against_an_independent_solver(n: int, count: int, tilt: tuple[float, float]) -> None:
    values = drifting(n, count, 3)
    row_misfit = default_misfit(values)[:, None] * np.ones((count, 3))
    for misfit in (None, row_misfit * [0.3, 1, 4]):
        found = extract_interactions(values, mode="joint", misfit=misfit, order_tilt=tilt, gap_tolerance=1e-7)
        assert (found.gap <= 1e-7).all()
        assert found.violation.shape == (count, 3)
        assert found.violation.isnan().all()
        for row in range(count):
            check(found, row, values[row], (row_misfit if misfit is None else misfit)[row], tilt, CLOSE)


def test_one_checkpoint_alone_is_robust() -> None:
    values, _ = games(6, 4, seed=4)
    alone = extract_interactions(values)
    joint = extract_interactions(values[:, None], mode="joint")
    assert torch.equal(joint.and_[:, 0], alone.and_)
    assert torch.equal(joint.or_[:, 0], alone.or_)
    assert torch.equal(joint.objective, alone.objective)


def test_equal_checkpoints_have_equal_interactions() -> None:
    """T copies cost sqrt(T) times what one costs whose misfit is a sqrt(T)th."""
    values, _ = games(5, 4, seed=4)
    misfit = default_misfit(values)
    joint = extract_interactions(np.repeat(values[:, None], 4, axis=1), mode="joint", misfit=misfit, gap_tolerance=1e-8)
    for step in range(1, 4):
        assert torch.equal(joint.and_[:, step], joint.and_[:, 0])
        assert torch.equal(joint.or_[:, step], joint.or_[:, 0])
    one = extract_interactions(values, misfit=misfit / 2, gap_tolerance=1e-8)
    torch.testing.assert_close(joint.objective, 2 * one.objective, rtol=1e-7, atol=0)


def supports_that_differ(and_: Tensor, or_: Tensor) -> int:
    """Interactions that some of a row's tables have and others have not; (rows, steps, 2^n) each."""
    there = torch.stack([and_, or_]) != 0
    return int((there.any(2) & ~there.all(2)).sum())


def test_copies_with_noise_share_their_interactions() -> None:
    rng = np.random.default_rng(0)
    tables = np.stack([planted_game(6, rng) for _ in range(4)])
    copies = tables[:, None] + 0.02 * tables.std(1)[:, None, None] * rng.normal(size=(4, 5, 64))
    joint = extract_interactions(copies, mode="joint")
    apart = extract_interactions(copies.reshape(20, 64))
    assert supports_that_differ(apart.and_.reshape(4, 5, 64), apart.or_.reshape(4, 5, 64)) > 50
    assert supports_that_differ(joint.and_, joint.or_) == 0


def test_a_checkpoint_without_effects_has_no_interactions_that_matter() -> None:
    values = drifting(5, 2, 3).copy()
    values[:, 1] = 4.0
    found = extract_interactions(values, mode="joint", gap_tolerance=1e-7)
    misfit = default_misfit(values)[:, None] * np.ones((2, 3))
    for row in range(2):
        check(found, row, values[row], misfit[row], DEFAULT_TILT, CLOSE)
    assert (found.and_[:, 1].abs().amax(1) < 0.05 * found.and_[:, 0].abs().amax(1)).all()


# --- both: the certificate, batches, units, empty tables


@pytest.mark.parametrize("mode", ["robust", "joint"])
def test_stopping_early_is_honest(mode: str) -> None:
    values = drifting(5, 3, 3) if mode == "joint" else drifting(5, 3, 3)[:, 0]
    groups = values if mode == "joint" else values[:, None]
    misfit = default_misfit(values)[:, None] * np.ones(groups.shape[:2])
    best = torch.tensor([optimum(*pair, DEFAULT_TILT).cost for pair in zip(groups, misfit, strict=True)])
    last = torch.full_like(best, torch.inf)
    for limit in (1, 10, 25, 50, 75, 100, 150):
        found = extract_interactions(values, mode=mode, max_iterations=limit, gap_tolerance=1e-12)
        assert (found.iterations == limit).all()
        assert (found.objective >= best * (1 - 1e-8)).all()
        assert (found.objective * (1 - found.gap) <= best * (1 + 1e-8)).all()
        for row in range(3):
            check(found, row, groups[row], misfit[row], DEFAULT_TILT, np.inf)
        if limit % 25 == 0:  # the points that are compared are every 25 iterations apart
            assert (found.objective <= last).all()
            last = found.objective
        if limit == 1:
            assert (found.gap > 1e-2).all()
    assert (found.gap < 1e-2).all()


@pytest.mark.parametrize("mode", ["robust", "joint"])
@pytest.mark.parametrize("n", [5, 8])
def test_a_row_does_not_depend_on_the_rows_beside_it(mode: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = drifting(n, 7, 2) if mode == "joint" else drifting(n, 7, 2)[:, 1]
    options: dict[str, Any] = {"mode": mode, "gap_tolerance": 3e-3}
    together = extract_interactions(values, **options)
    again = extract_interactions(values, **options)
    assert torch.equal(together.and_, again.and_)
    assert torch.equal(together.or_, again.or_)
    monkeypatch.setattr("whatstuck.interactions.extraction._BLOCK_ENTRIES", {"cpu": 3 << n})
    for rows in ([4], [6, 1, 2], [5, 5, 0, 3, 6]):
        apart = extract_interactions(values[rows], **options)
        torch.testing.assert_close(apart.and_, together.and_[rows], rtol=0, atol=1e-9)
        torch.testing.assert_close(apart.or_, together.or_[rows], rtol=0, atol=1e-9)
        torch.testing.assert_close(apart.objective, together.objective[rows], rtol=1e-9, atol=0)


@pytest.mark.parametrize("mode", ["robust", "joint"])
@pytest.mark.parametrize("factor", [2.0**-40, -1.0, 1024.0])
def test_scaling_by_powers_of_two_changes_nothing_else(mode: str, factor: float) -> None:
    values = drifting(5, 3, 3) if mode == "joint" else drifting(5, 3, 3)[:, 1]
    found = extract_interactions(values, mode=mode)
    scaled = extract_interactions(factor * values, mode=mode)
    assert torch.equal(scaled.and_, factor * found.and_)
    assert torch.equal(scaled.or_, factor * found.or_)
    assert torch.equal(scaled.objective, abs(factor) * found.objective)
    assert torch.equal(scaled.iterations, found.iterations)


@pytest.mark.parametrize("mode", ["robust", "joint"])
@pytest.mark.parametrize("factor", [1e-290, 1e-9, 1e9, 1e290])
def test_units_do_not_matter(mode: str, factor: float) -> None:
    values = drifting(4, 2, 2) if mode == "joint" else drifting(4, 2, 2)[:, 1]
    found = extract_interactions(values, mode=mode, gap_tolerance=1e-6)
    moved = extract_interactions(factor * (values + 3), mode=mode, gap_tolerance=1e-6)
    torch.testing.assert_close(moved.objective, factor * found.objective, rtol=2e-6, atol=0)
    assert (moved.gap <= 1e-6).all()


def test_names_of_the_players_do_not_matter() -> None:
    values, _ = games(5, 3, seed=9)
    order = np.array([3, 0, 4, 1, 2])
    masks = np.arange(32)
    renamed = sum(((masks >> old) & 1) << new for new, old in enumerate(order))  # where each mask goes
    shuffled = np.empty_like(values)
    shuffled[:, renamed] = values
    found = extract_interactions(values, order_tilt=(0.2, 0.05), gap_tolerance=1e-9)
    other = extract_interactions(shuffled, order_tilt=(0.2, 0.05), gap_tolerance=1e-9)
    torch.testing.assert_close(other.objective, found.objective, rtol=2e-9, atol=0)
    fits = (reconstruct(one.and_, one.or_) for one in (found, other))
    torch.testing.assert_close(
        *(fit[:, where] for fit, where in zip(fits, (masks, renamed), strict=True)), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("mode", ["robust", "joint"])
def test_rows_without_effects_have_no_interactions(mode: str) -> None:
    values = drifting(4, 2, 2) if mode == "joint" else drifting(4, 2, 2)[:, 1]
    found = extract_interactions(values, mode=mode)
    still = np.concatenate([np.full_like(values[:1], 3.0), values, np.zeros_like(values[:1])])
    for misfit in (None, np.concatenate([[0.0], default_misfit(values), [0.7]])):  # 0: there is nothing to fit
        mixed = extract_interactions(still, mode=mode, misfit=misfit)
        for row in (0, 3):
            assert mixed.objective[row] == mixed.gap[row] == mixed.iterations[row] == 0
            assert not mixed.and_[row].any()
            assert not mixed.or_[row].any()
        assert mixed.and_.isfinite().all()
        assert mixed.or_.isfinite().all()
        torch.testing.assert_close(mixed.objective[1:3], found.objective, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(0, 8), (0, 3, 8)])
def test_no_rows_give_no_interactions(shape: tuple[int, ...]) -> None:
    mode = "joint" if len(shape) == 3 else "robust"
    found = extract_interactions(np.zeros(shape), mode=mode)
    assert found.and_.shape == shape
    assert found.gap.shape == (0,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("mode", ["robust", "joint"])
def test_an_accelerator_finds_the_same(mode: str) -> None:
    values = torch.as_tensor(drifting(6, 4, 3) if mode == "joint" else drifting(6, 4, 3)[:, 1])
    here = extract_interactions(values, mode=mode, gap_tolerance=1e-6)
    there = extract_interactions(values.cuda(), mode=mode, gap_tolerance=1e-6)
    assert there.and_.is_cuda
    assert there.gap.is_cuda
    assert (there.gap <= 1e-6).all()
    torch.testing.assert_close(there.objective.cpu(), here.objective, rtol=2e-6, atol=0)


# --- paper


@pytest.mark.parametrize(
    ("n", "count", "share"), [(5, 4, 0.0), (6, 2, 0.0), (6, 4, 1.0), (7, 1, 0.0), (7, 2, 1.0), (8, 1, 0.0), (8, 1, 1.0)]
)
def test_paper_agrees_with_linear_programming_closely(n: int, count: int, share: float) -> None:
    values, kappa = games(n, count, seed=n)
    found = extract_interactions(values, mode="paper", noise_bound=share * kappa, gap_tolerance=1e-7)
    best = torch.tensor([linear_program(row, share * kappa) for row in values], dtype=torch.float64)
    assert (found.gap <= 1e-7).all()
    torch.testing.assert_close(found.objective, best, rtol=CLOSE, atol=0)
