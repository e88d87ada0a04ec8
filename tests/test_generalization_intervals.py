"""Intervals of cells: contents are counted, not items."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy_task
from whatstuck.generalization.statistics import cell_rows, clustered
from whatstuck.rows.verdicts.intervals import wilson


def test_intervals_of_contents_that_occur_once_are_wilsons() -> None:
    share = clustered([1.0, 0.0, 1.0], ["a", "b", "c"])
    assert share == wilson(2, 3)


def test_intervals_count_contents_not_items() -> None:
    many = clustered([1.0, 0.0] * 100, [str(i) for i in range(200)])
    few = clustered([1.0, 0.0] * 100, [str(i % 8) for i in range(200)])
    assert many.value == few.value == 0.5
    assert many.high - many.low < 0.15
    assert few.high - few.low > 0.4
    assert few == clustered([1.0, 0.0] * 100, [str(i % 8) for i in range(200)])


@given(
    misses=st.lists(st.integers(0, 10), min_size=1, max_size=45),
    items=st.integers(10, 20),
)
def test_few_contents_are_never_as_good_as_many(misses: list[int], items: int) -> None:
    """Alike contents, such as three hands with one miss in a hundred each, leave the bootstrap without any width."""
    values = [float(i >= missed) for missed in misses for i in range(items)]
    keys = [str(place) for place in range(len(misses)) for _ in range(items)]
    share = clustered(values, keys)
    assert share.low <= share.value <= share.high
    least = wilson(share.value * len(misses), len(misses))
    if len(misses) < 40:
        assert share.low <= least.low + 1e-12
        assert share.high >= least.high - 1e-12


def test_three_hands_with_a_miss_each_tell_little() -> None:
    share = clustered([float(i >= 3) for i in range(300)], [str(i % 3) for i in range(300)])
    assert share.value == pytest.approx(0.99)
    assert share.low < 0.45
    alone = clustered([1.0, 0.0], ["a", "a"])  # a bootstrap over one content is not known
    assert (alone.low, alone.high) == pytest.approx((wilson(0.5, 1).low, wilson(0.5, 1).high))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_all_is_alike_there_are_as_many_trials_as_contents(value: float) -> None:
    share = clustered([value] * 300, [str(i % 22) for i in range(300)])
    assert share == wilson(22 * int(value), 22)
    assert share.high - share.low > 0.1


def test_what_is_not_known_is_left_out_and_nothing_is_nan() -> None:
    assert clustered([None, 1.0, math.nan, 0.0], ["a", "b", "c", "d"]) == wilson(1, 2)
    for empty in (clustered([], []), clustered([None], ["a"])):
        assert math.isnan(empty.value)
        assert math.isnan(empty.low)
    (row,) = cell_rows([], task="t", arm="a", variant=toy_task.feelings().variants[0], step=0)
    assert row["items"] == 0
    assert math.isnan(row["success"])
