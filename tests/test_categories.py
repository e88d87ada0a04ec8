"""Removed, preserved, emerged: the paper's recursion, and the masses that need no threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from whatstuck.dynamics.categories import categorize, common_gain, masses

EFFECTS = arrays(np.float64, (3, 2, 8), elements=st.floats(-5, 5, allow_subnormal=False))


def one_row(*values: float) -> np.ndarray:
    return np.array([[list(values), [0.0] * len(values)]])


def test_an_interaction_that_vanishes_and_returns_has_emerged_and_reappeared() -> None:
    # stays | vanishes and returns | is removed | is new | flips its sign
    steps = [one_row(1, 1, 1, 0, 1), one_row(1, 0, 0, 0, -1), one_row(1, 1, 0, 1, -1)]
    base, middle, last = categorize(steps, [0.5, 0.5, 0.5])
    assert base.preserved[0, 0].tolist() == [True, True, True, False, True]
    assert not base.removed.any()
    assert not base.emerged.any()
    assert middle.removed[0, 0].tolist() == [False, True, True, False, False]
    assert last.preserved[0, 0].tolist() == [True, False, False, False, True]
    assert last.emerged[0, 0].tolist() == [False, True, False, True, False]
    assert last.reappeared[0, 0].tolist() == [False, True, False, False, False]
    assert last.removed[0, 0].tolist() == [False, False, True, False, False]
    assert last.sign_changed[0, 0].tolist() == [False, False, False, False, True]


@given(st.lists(EFFECTS, min_size=1, max_size=4), st.floats(0.01, 2))
def test_sets_partition_what_is_and_what_was(steps: list[np.ndarray], tau: float) -> None:
    for now in categorize(steps, [tau] * len(steps)):
        assert ((now.preserved | now.emerged) == now.all).all()
        assert not (now.preserved & now.emerged).any()
        assert not (now.removed & now.all).any()
        assert ((now.removed | now.preserved | now.reappeared) == (np.abs(steps[0]) > tau)).all()


@given(EFFECTS, EFFECTS)
def test_masses_add_up_on_both_sides(before: np.ndarray, after: np.ndarray) -> None:
    parts = masses(before, after)
    np.testing.assert_allclose(np.abs(parts.preserved) + np.abs(parts.removed), np.abs(before), atol=1e-12)
    np.testing.assert_allclose(np.abs(parts.preserved) + np.abs(parts.emerged), np.abs(after), atol=1e-12)
    assert (parts.removed * before >= 0).all()
    assert (parts.emerged * after >= 0).all()


def test_a_changed_sign_preserves_nothing() -> None:
    parts = masses(np.array([2.0, -1.0]), np.array([-3.0, -4.0]))
    assert parts.preserved.tolist() == [0.0, -1.0]
    assert parts.removed.tolist() == [2.0, 0.0]
    assert parts.emerged.tolist() == [-3.0, -3.0]


@given(EFFECTS, st.floats(0.1, 10))
def test_a_common_gain_is_found(before: np.ndarray, gain: float) -> None:
    if not (before**2).sum():
        assert np.isnan(common_gain(before, before))
    else:
        assert common_gain(before, gain * before) == pytest.approx(gain)
