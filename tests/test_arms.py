"""Which trainings test a cause, and in which order their rows are trained."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whatstuck.errors import WhatStuckError
from whatstuck.rows.causes.names import PRECEDENCE, Cause
from whatstuck.rows.interventions.arms import Arm, Options, Original, Phase, design, losers, possible, treatment
from whatstuck.rows.interventions.orders import sequence

ROWS = tuple(f"r{number}" for number in range(40))
VOTES = (
    (("r0", "yes"), ("r1", "no"), ("r2", "yes")),  # two against one
    (("r10", "left"), ("r11", "right")),  # a tie: the first in the file wins
)
ORIGINAL = Original(
    ROWS,
    steps=20,
    batch=4,
    conflicts=VOTES,
    ill_fed=("r5", "dropped"),
    supporting=("s1", "s2"),
    general=("g1", "g2", "g3", "g4", "g5"),
    watched=("h1",),
)
TARGETS = {
    "not_trained": ["r5", "dropped"],
    "data_conflict": ["r0", "r1", "r10"],
    "forgotten": ["r3", "r4"],
    "base_conflict": ["r6"],
    "knowledge_missing": ["r7"],
    "more_training": ["r8", "r9"],
}


def arms_of(cause: Cause, original: Original = ORIGINAL, **more: object) -> dict[str, Arm]:
    return {arm.name: arm for arm in design(cause, TARGETS[cause], original, **more)}


def steps(arm: Arm) -> int:
    return sum(phase.steps for phase in arm.phases)


# --- design


@pytest.mark.parametrize("cause", PRECEDENCE)
def test_every_cause_has_its_treatment_first_and_controls_with_as_many_steps(cause: Cause) -> None:
    arms = arms_of(cause, others=["forgotten", "more_training"])
    names = list(arms)
    assert names[0] == cause
    assert {"rerun", "more_compute"} <= set(names)
    assert ("sham" in names) == (cause != "more_training")  # there, more_compute is the sham
    assert {"forgotten", "more_training"} <= set(names)
    assert steps(arms["rerun"]) == 20
    assert arms["rerun"].phases[0].rows == ROWS
    main = [phase for phase in arms[cause].phases if phase.name == "main"]
    assert [phase.steps for phase in main] == [20]
    if "sham" in arms:
        assert steps(arms["sham"]) == steps(arms[cause])
    if len(arms[cause].phases) > 1:
        assert steps(arms["more_compute"]) == steps(arms[cause])
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("cause", PRECEDENCE)
def test_controls_train_the_targets_no_more_than_a_rerun_does(cause: Cause) -> None:
    extra = [phase for phase in arms_of(cause)["more_compute"].phases if phase.name != "main"]
    assert not set(TARGETS[cause]) & {row for phase in extra for row in phase.rows}


def test_the_losing_votes_are_removed_and_a_tie_goes_to_the_first() -> None:
    treated = arms_of("data_conflict")["data_conflict"]
    assert treated.removed == losers(ORIGINAL) == {"r1", "r11"}
    assert treated.phases[0].rows == tuple(row for row in ROWS if row not in {"r1", "r11"})
    assert treated.phases[0].steps == 20


def test_a_user_decides_a_conflict_against_the_majority() -> None:
    assert losers(replace(ORIGINAL, kept=frozenset({"r1", "r11"}))) == {"r0", "r2", "r10"}


def test_the_sham_of_a_removal_removes_as_many_rows_that_are_in_no_conflict() -> None:
    arms = arms_of("data_conflict", seed=3)
    sham = arms["sham"].removed
    assert len(sham) == len(arms["data_conflict"].removed) == 2
    assert not sham & {"r0", "r1", "r2", "r10", "r11"}
    assert arms_of("data_conflict", seed=3)["sham"].removed == sham
    others = {arms_of("data_conflict", seed=seed)["sham"].removed for seed in range(5)}
    assert len(others) > 1


def test_conflicts_can_be_kept_and_only_separated() -> None:
    arms = arms_of("data_conflict", options=Options(conflicts="separate"))
    treated = arms["data_conflict"]
    assert not treated.removed
    assert treated.phases[0].rows == ROWS
    assert treated.phases[0].apart == (("r0", "r1", "r2"), ("r10", "r11"))
    in_conflict = {row for group in treated.phases[0].apart for row in group}
    sham = arms["sham"].phases[0].apart
    assert sorted(map(len, sham)) == [2, 3]
    assert not in_conflict & {row for group in sham for row in group}


def test_supporting_texts_are_a_fifth_of_what_comes_before_and_the_sham_has_others() -> None:
    arms = arms_of("knowledge_missing")
    before, main = arms["knowledge_missing"].phases
    assert (before.name, main.name) == ("before", "main")
    assert before.steps == 5  # 2 texts, twice, a fifth of all: 20 draws of 4
    drawn = sequence(before, batch=4, seed=1)
    assert Counter(name[0] for name in drawn) == {"s": 4, "g": 16}
    sham = arms["sham"].phases[0]
    assert not set(sequence(sham, batch=4, seed=1)) & {"s1", "s2"}
    assert not set(sham.rows) & set(sham.beside)


def test_the_continuation_watches_held_out_rows_and_its_control_follows_its_length() -> None:
    arms = arms_of("more_training")
    after = arms["more_training"].phases[1]
    assert after.constant
    assert (after.rows, after.steps, after.watched) == (ROWS, 30, ("h1",))
    control = arms["more_compute"].phases[1]
    assert control.like == "more_training"
    assert control.constant
    assert not {"r8", "r9"} & set(control.rows)


def test_forgotten_rows_are_drawn_again_and_the_sham_keeps_what_is_early_early() -> None:
    ordered = replace(ORIGINAL, order="given")
    arms = arms_of("forgotten", ordered)
    assert arms["rerun"].phases[0].order == "given"
    assert (arms["forgotten"].phases[0].order, arms["forgotten"].phases[0].resample) == ("shuffled", "forgotten")
    sham = arms["sham"].phases[0]
    assert (sham.order, sham.resample, sham.spared) == ("stretches", "random", ("r3", "r4"))
    epoch = sequence(sham, batch=4, seed=0)[:40]
    for start in range(0, 40, 4):
        assert set(epoch[start : start + 4]) == set(ROWS[start : start + 4])
    assert epoch != list(ROWS)


def test_rows_that_were_not_trained_are_trained_as_they_are_asked() -> None:
    arms = arms_of("not_trained")
    treated = arms["not_trained"]
    assert treated.whole == {"r5", "dropped"}
    assert treated.phases[0].rows == (*ROWS, "dropped")
    assert len(arms["sham"].phases[0].rows) == len(ROWS) + 2
    assert not {"r5", "dropped"} & set(arms["sham"].phases[0].rows[len(ROWS) :])


def test_what_is_missing_is_asked_for_in_one_line() -> None:
    bare = Original(ROWS, steps=20, batch=4)
    for cause, words in [
        ("knowledge_missing", "--supporting"),
        ("base_conflict", "--general"),
        ("data_conflict", "no rows are in conflict"),
        ("not_trained", "nothing to repair"),
    ]:
        with pytest.raises(WhatStuckError, match=words) as caught:
            treatment(cause, bare)
        assert "\n" not in str(caught.value)
    assert possible(bare) == ("forgotten", "more_training")
    assert possible(ORIGINAL) == PRECEDENCE
    with pytest.raises(WhatStuckError, match="no row is unlearned because of forgotten"):
        design("forgotten", [], ORIGINAL)
    with pytest.raises(WhatStuckError, match="has no treatment"):
        treatment("unexplained", ORIGINAL)
    with pytest.raises(WhatStuckError, match="without rows or steps"):
        Original((), steps=1, batch=1)


def test_arms_are_values_so_that_equal_ones_are_trained_once() -> None:
    assert treatment("forgotten", ORIGINAL) == treatment("forgotten", ORIGINAL)
    assert len({arm for cause in ("forgotten", "more_training") for arm in arms_of(cause).values()}) == 6


# --- orders


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 30), st.integers(0, 99))
def test_every_epoch_holds_every_row_once(count: int, batch: int, steps: int, seed: int) -> None:
    rows = tuple(map(str, range(count)))
    for order in ("shuffled", "given", "stretches"):
        drawn = sequence(Phase("main", rows, steps, order), batch=batch, seed=seed)
        assert len(drawn) == steps * batch
        for start in range(0, len(drawn) - count + 1, count):
            assert set(drawn[start : start + count]) == set(rows)
        if order == "given":
            assert drawn[:count] == list(rows[: len(drawn)])


def test_another_seed_is_another_order_and_the_same_seed_the_same() -> None:
    phase = Phase("main", ROWS, 10)
    assert sequence(phase, batch=4, seed=1) == sequence(phase, batch=4, seed=1)
    assert sequence(phase, batch=4, seed=1) != sequence(phase, batch=4, seed=2)


@settings(max_examples=50)
@given(st.data())
def test_rows_kept_apart_never_share_a_step_and_none_is_lost(data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 5))
    groups = data.draw(st.integers(0, 4))
    size = data.draw(st.integers(2, 4))
    free = batch + data.draw(st.integers(0, 10))
    apart = tuple(tuple(f"c{g}-{i}" for i in range(size)) for g in range(groups))
    rows = tuple(row for group in apart for row in group) + tuple(f"f{i}" for i in range(free))
    phase = Phase("main", rows, 60, apart=apart)
    drawn = sequence(phase, batch=batch, seed=data.draw(st.integers(0, 50)))
    for start in range(0, len(drawn), batch):
        step = drawn[start : start + batch]
        for group in apart:
            assert sum(row in group for row in step) <= 1
    # what waits comes later, it is not dropped: rows are drawn equally often, but for what waits at the end
    if len(drawn) >= 4 * len(rows):
        counts = Counter(drawn)
        assert min(counts[row] for row in rows) >= len(drawn) // len(rows) // 2


def test_rows_that_cannot_be_kept_apart_are_refused() -> None:
    phase = Phase("main", ("a", "b", "c"), 5, apart=(("a", "b", "c"),))
    with pytest.raises(WhatStuckError, match="cannot be kept apart"):
        sequence(phase, batch=2, seed=0)
    assert len(list(islice(sequence(phase, batch=1, seed=0), 5))) == 5
