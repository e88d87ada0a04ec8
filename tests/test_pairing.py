"""What two models kept, lost and gained: by hand, in every case, and beside chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from whatstuck.dynamics.pairing import PairedMasses, Split, largest_differences, split

PARTS = tuple(Split.__dataclass_fields__)


def test_the_split_by_hand() -> None:
    base = np.array([4.0, 4.0, -4.0, 4.0, 0.0, 0.0, -1.0])
    a = np.array([3.0, 5.0, -1.0, -2.0, 2.0, 2.0, 0.0])
    b = np.array([1.0, 7.0, 3.0, -5.0, 3.0, -3.0, 0.0])
    parts = split(base, a, b)
    expected = {
        "kept_both": [1, 4, 0, 0, 0, 0, 0],
        "kept_a": [2, 0, 1, 0, 0, 0, 0],
        "kept_b": [0, 0, 0, 0, 0, 0, 0],
        "lost_both": [1, 0, 3, 4, 0, 0, 1],
        "emerged_both": [0, 1, 0, 2, 2, 0, 0],
        "emerged_a": [0, 0, 0, 0, 0, 2, 0],
        "emerged_b": [0, 2, 3, 3, 1, 3, 0],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(parts, name), values, err_msg=name)


numbers = st.floats(-8, 8, allow_nan=False).map(lambda value: round(value, 2))
effects = arrays(np.float64, (3, 2, 4), elements=numbers | st.just(0.0))


@given(base=effects, a=effects, b=effects)
def test_nothing_is_lost_between_the_parts(base: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    parts = split(base, a, b)
    assert all((getattr(parts, name) >= 0).all() for name in PARTS)
    kept = parts.kept_both + parts.kept_a
    np.testing.assert_allclose(kept + parts.kept_b + parts.lost_both, np.abs(base), atol=1e-12)
    np.testing.assert_allclose(kept + parts.emerged_both + parts.emerged_a, np.abs(a), atol=1e-12)
    np.testing.assert_allclose(
        parts.kept_both + parts.kept_b + parts.emerged_both + parts.emerged_b, np.abs(b), atol=1e-12
    )
    mirrored = split(base, b, a)
    for name in PARTS:
        other = {"a": f"{name[:-1]}b", "b": f"{name[:-1]}a"}[name[-1]] if name[-2:] in ("_a", "_b") else name
        np.testing.assert_array_equal(getattr(parts, name), getattr(mirrored, other))


def test_chance_is_what_another_row_gives() -> None:
    """Every row has its own one interaction: all is shared with itself, nothing with another row."""
    alone = np.zeros((4, 2, 8))
    alone[range(4), 0, range(1, 5)] = [1.0, -2.0, 3.0, -4.0]
    both = PairedMasses(alone, 2 * alone, seed=0)
    since, present = both.since(alone), both.present()
    assert since["kept_both"]["value"] == 2.5
    assert since["kept_both"]["null_mean"] == 0
    assert since["emerged_b"]["value"] == 2.5
    assert since["difference_emerged"]["value"] == -2.5
    assert since["difference_emerged"]["high"] < 0
    assert present["shared"]["value"] == pytest.approx(1)  # at equal total mass
    assert present["shared"]["null_mean"] == 0
    same = np.repeat(alone[:1], 4, 0)
    assert PairedMasses(same, same, seed=0).since(same)["kept_both"]["null_mean"] == 1


def test_one_row_has_no_interval_and_no_chance() -> None:
    one = np.ones((1, 2, 4))
    kept = PairedMasses(one, one, seed=0).since(one)["kept_both"]
    assert kept["value"] == 8
    assert np.isnan([kept["low"], kept["high"], kept["null_mean"]]).all()


def test_the_largest_differences_come_first_and_the_certain_before_them() -> None:
    a, b = np.zeros((2, 2, 4)), np.zeros((2, 2, 4))
    a[0, 0, 1], a[1, 1, 3], b[0, 1, 3] = 1.0, -3.0, 2.0
    assert largest_differences(a, b, 9) == [(1, 1, 3), (0, 1, 3), (0, 0, 1)]
    first = np.zeros(a.shape, dtype=bool)
    first[0, 0, 1] = first[1, 0, 0] = True  # the second does not differ at all
    assert largest_differences(a, b, 2, first) == [(0, 0, 1), (1, 1, 3)]
