"""What fits a share of the training time, and what is said when nothing does."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatstuck.live.budget import EARLY, Cost, Plan, choose, early_steps, settle, spread

COST = Cost(table={6: 1.0, 8: 4.0}, evaluation=0.05, step=2.0)
ASKED = {"players": 8, "rows": 50, "eval_rows": 200, "steps": None}


def test_the_more_time_the_more_is_probed() -> None:
    plans = [choose(COST, share=0.05, max_steps=steps, **ASKED) for steps in (100, 1_000, 3_000, 30_000, 300_000)]
    spent = [COST.probe(plan.players, plan.rows, plan.eval_rows) for plan in plans]
    assert spent == sorted(spent)
    assert (plans[0].players, plans[0].rows, plans[0].eval_rows) == (6, 4, 32)
    assert (plans[-1].players, plans[-1].rows, plans[-1].eval_rows) == (8, 50, 200)


def test_the_floor_is_kept_and_what_it_costs_is_said() -> None:
    plan = choose(COST, share=0.05, max_steps=100, **ASKED)
    assert plan.steps == (0, 1, 2, 4, 8, 16, 100)
    # 7 early probes and 4 late ones of 4 * 1.0 + 32 * 0.05 = 5.6 s each in 200 s of training
    assert "31% of the training time, more than the 5%" in plan.notes[0]
    assert "more than" not in choose(COST, share=0.5, max_steps=100, **ASKED).notes[0]


def test_less_than_the_floor_can_be_asked_for() -> None:
    small = Cost(table={3: 0.1}, evaluation=0.05, step=2.0)
    plan = choose(small, share=0.05, max_steps=100, players=3, rows=2, eval_rows=8, steps=[0, 5])
    assert (plan.players, plan.rows, plan.eval_rows, plan.steps) == (3, 2, 8, (0, 5))
    assert plan.settled


@given(
    share=st.floats(0.001, 1),
    max_steps=st.integers(1, 10_000),
    rows=st.integers(1, 80),
    step=st.floats(0.01, 100),
    table=st.floats(0.01, 100),
)
def test_a_choice_fits_unless_it_is_the_floor(
    share: float, max_steps: int, rows: int, step: float, table: float
) -> None:
    cost = Cost(table={6: table, 8: 4 * table}, evaluation=table / 50, step=step)
    plan = choose(cost, share=share, max_steps=max_steps, players=8, rows=rows, eval_rows=200, steps=None)
    probes = len(early_steps(max_steps)) + 4
    fits = probes * cost.probe(plan.players, plan.rows, plan.eval_rows) <= share * max_steps * step
    assert fits or (plan.players, plan.rows) == (6, min(rows, 4))
    assert plan.rows <= rows
    assert set(early_steps(max_steps)) == set(plan.steps)


def test_late_probes_are_chosen_from_what_was_measured() -> None:
    plan = Plan(6, 4, 32, early_steps(1_000), settled=False)
    options = {"max_steps": 1_000, "candidates": range(0, 1_001, 50), "probe_seconds": [5.0] * 5}
    # 0.05 * 1000 * 2 = 100 s; 7 early probes take 35 s; 65 s are left for 13 late ones
    settled = settle(plan, share=0.05, step_seconds=[2.0] * 8, **options)
    assert len(settled.steps) == 7 + 13
    assert settled.settled
    assert {step for step in settled.steps if step > EARLY[-1]} <= set(range(0, 1_001, 50))
    assert "13 late probes" in settled.notes[-1]
    poor = settle(plan, share=0.05, step_seconds=[0.1] * 8, **options)
    assert poor.steps == plan.steps
    assert "exceeds the 5% asked for by 30.0%" in poor.notes[-1]


@given(count=st.integers(0, 40), every=st.integers(1, 50), last=st.integers(1, 500))
def test_late_steps_are_spread_and_end_at_the_last_candidate(count: int, every: int, last: int) -> None:
    candidates = range(every, last + 1, every)
    later = [step for step in candidates if step > EARLY[-1]]
    chosen = spread(EARLY[-1], candidates, count)
    assert len(chosen) == min(count, len(later))
    assert set(chosen) <= set(later)
    assert all(a < b for a, b in pairwise(chosen))
    assert not chosen or chosen[-1] == later[-1]


def test_a_plan_survives_the_manifest() -> None:
    plan = choose(COST, share=0.05, max_steps=100, **ASKED)
    assert Plan.from_json(plan.as_json()) == plan


@pytest.mark.parametrize("max_steps", [0, 1, 3, 16, 17])
def test_the_last_step_is_always_probed(max_steps: int) -> None:
    assert early_steps(max_steps)[-1] == max_steps
