"""What became of rows over checkpoints: against definitions written down a second time, row by row."""

import math
import time
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cause_cases import STEPS, history, tables
from whatstuck.errors import WhatStuckError
from whatstuck.rows.histories import histories, recency_slope
from whatstuck.rows.trajectories import SCHEMA


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.booleans())
@settings(max_examples=200)
def test_events_are_those_of_a_walk_over_the_checkpoints(hits: list[bool], base: bool) -> None:  # noqa: FBT001 - drawn
    steps = STEPS[: len(hits)] if base else STEPS[1 : len(hits) + 1]
    found = history("a", "".join("-x"[hit] for hit in hits)[: len(steps)], steps=steps)
    tuned = [(step, hit) for step, hit in zip(steps, hits, strict=False) if step > 0]
    lost = sum(before and not after for (_, before), (_, after) in pairwise(tuned))
    won = sum(not before and after for before, after in pairwise(hits))
    right = [step for step, hit in tuned if hit]
    assert found.forgetting_events == lost
    assert found.learning_events == won
    assert found.first_learned_step == (right[0] if right else None)
    assert found.last_learned_step == (right[-1] if right else None)
    assert found.correctness == len(right)
    assert found.never_learned == (not right)
    assert found.right_before == (hits[0] if base else None)


def test_the_base_is_no_checkpoint_of_the_fine_tuning() -> None:
    # right only at the base, then lost: nothing of the training was forgotten
    lost = history("a", "x----")
    assert (lost.right_before, lost.forgetting_events, lost.first_learned_step) == (True, 0, None)
    gained = history("a", "-xxxx")
    assert (gained.right_before, gained.learning_events, gained.first_learned_step) == (False, 1, 10)


def test_cartography_and_margins_are_means_over_the_fine_tuning() -> None:
    losses, margins = [5.0, 2.0, 1.0, 0.5], [-9.0, -1.0, 0.5, 2.0]
    found = history("a", "--xx", losses, margins=margins, steps=(0, 1, 2, 3))
    p = np.exp(-np.array(losses[1:]))
    assert found.confidence == pytest.approx(p.mean())
    assert found.variability == pytest.approx(p.std())
    assert found.mean_margin == pytest.approx(0.5)
    assert found.probability == pytest.approx(np.exp(-np.array(losses)))


def test_a_row_without_supervised_tokens_has_no_history() -> None:
    made = tables({"a": {"nll": [1.0] * 9, "correct": [True] * 9}})
    empty = [{"row_id": "b", "tokens": 0}]
    both = {step: pa.concat_tables([table, pa.Table.from_pylist(empty, schema=SCHEMA)]) for step, table in made.items()}
    assert list(histories(both)) == ["a"]


def test_only_a_base_gives_no_averages() -> None:
    found = history("a", "x", steps=(0,))
    assert math.isnan(found.confidence)
    assert math.isnan(found.mean_margin)
    assert (found.correctness, found.first_learned_step) == (0, None)
    assert math.isnan(found.fall(0.5))


def test_rows_are_matched_by_id_and_other_rows_are_refused() -> None:
    made = tables({name: {"nll": [float(i)] * 2, "correct": [i > 0] * 2} for i, name in enumerate("abc")}, (0, 1))
    made[0] = made[0].take([2, 0, 1])
    found = histories(made)
    assert [list(found[name].nll) for name in "abc"] == [[0, 0], [1, 1], [2, 2]]
    assert list(found) == ["a", "b", "c"]
    with pytest.raises(WhatStuckError, match="step 0 has other rows"):
        histories({0: made[0].slice(0, 2), 1: made[1]})
    with pytest.raises(WhatStuckError, match="two rows of step 1 have one id"):
        histories({1: pa.concat_tables([made[1], made[1]])})
    with pytest.raises(WhatStuckError, match="no checkpoint"):
        histories({})


def test_a_fall_is_relative_and_ends_where_the_loss_turns() -> None:
    steady = history("a", "-" * 9, [8, 7, 6, 5, 4, 3.5, 3, 2.5, 2])
    assert steady.fall(0.5) == pytest.approx(0.5)
    assert steady.fall(0) == pytest.approx(0.75)
    turned = history("a", "-" * 9, [8, 7, 6, 5, 4, 3, 2, 3, 3.5])
    assert turned.fall(0.5) == 0
    assert history("a", "-" * 9, [8, 7, 6, 5, 4, 5, 6, 7, 8]).fall(0.5) == -1
    assert math.isnan(history("a", "--", [1, math.inf]).fall(0))


def test_what_fell_at_the_beginning_is_no_fall_at_the_end() -> None:
    """One checkpoint, or a dense beginning and the end: nothing shows the second half."""
    assert math.isnan(history("a", "--", [3, 1]).fall(0.5))
    assert math.isnan(history("a", "---", [3, 2, 1], steps=(0, 10, 80)).fall(0.5))
    assert history("a", "---", [3, 2, 1], steps=(0, 20, 80)).fall(0.5) == pytest.approx(0.5)
    assert history("a", "--", [3, 1]).fall(0) == pytest.approx(2 / 3)


def test_the_recency_slope_is_least_squares_with_an_interval() -> None:
    generator = np.random.default_rng(0)
    rows = {}
    for i in range(200):
        last = int(generator.integers(1, 80))
        p = 0.2 + 0.5 * last / 80 + generator.uniform(-0.1, 0.1)
        rows[str(i)] = {"nll": [2.0, -math.log(p)], "correct": [False, False], "last": last, "exposures": 1}
    found = histories(tables(rows, (0, 80)))
    slope = recency_slope(found.values())
    x = np.array([entry.last_exposure_step for entry in found.values()], dtype=float) / 80
    y = np.array([entry.probability[-1] for entry in found.values()])
    assert slope.slope == pytest.approx(np.polyfit(x, y, 1)[0])
    assert slope.low < 0.5 < slope.high
    assert 0 < slope.low < slope.slope < slope.high
    assert slope.rows == 200
    assert slope == recency_slope(found.values())


def test_no_slope_without_exposures_or_without_any_spread() -> None:
    unknown = recency_slope([history("a", "--")])
    assert unknown.rows == 0
    assert math.isnan(unknown.slope)
    same = recency_slope([history(name, "--", last=7, exposures=1) for name in "abc"])
    assert math.isnan(same.slope)
    assert math.isnan(same.low)


def test_ten_thousand_rows_take_seconds() -> None:
    generator = np.random.default_rng(1)
    names = [f"row-{i}" for i in range(10_000)]
    made = {}
    for step in STEPS:
        columns = {
            "row_id": names,
            "tokens": np.full(10_000, 3),
            **{name: generator.random(10_000) for name in ("nll", "token_accuracy", "smallest_margin", "mean_margin")},
            "correct": generator.random(10_000) < 0.5,
            "last_exposure_step": np.full(10_000, 7),
            "exposures": np.full(10_000, 1),
        }
        made[step] = pa.table(columns, schema=SCHEMA)
    start = time.process_time()
    assert len(histories(made)) == 10_000
    assert time.process_time() - start < 3
