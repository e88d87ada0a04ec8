"""Statistics of interventions: exact values, and what simulated tables of known truth give."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from whatstuck.rows.interventions.effects import (
    Effect,
    benjamini_hochberg,
    effects,
    mcnemar,
    recovery_matrix,
    rows_for_power,
    strongest,
)
from whatstuck.rows.interventions.panels import Panel
from whatstuck.rows.interventions.phases import CONTROLS
from whatstuck.rows.interventions.sentences import as_json
from whatstuck.rows.schemas import INTERVENTIONS
from whatstuck.rows.verdicts.intervals import wilson


def record(arm: str, row: str, right: bool | None, **more: Any) -> dict[str, Any]:  # noqa: FBT001 - a cell of the table
    return {
        "cause": "forgotten",
        "arm": arm,
        "seed": 1,
        "row_id": row,
        "group": row,
        "role": "unlearned",
        "wording": "original",
        "right": right,
        "rate": None if right is None else float(right),
        "nll": 1.0,
    } | more


def table(records: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(records, schema=INTERVENTIONS)


def simulated(shares: dict[str, float], rows: int, seed: int, *, seeds: int = 3, **more: Any) -> list[dict[str, Any]]:
    """Every row of every arm is right with the arm's probability, in each training anew."""
    random = np.random.default_rng(seed)
    return [
        record(arm, f"r{row}", bool(random.random() < share), seed=training, **more)
        for arm, share in shares.items()
        for training in range(seeds)
        for row in range(rows)
    ]


def only(found: dict[str, Effect]) -> Effect:
    assert len(found) == 1
    return next(iter(found.values()))


# --- exact values


def test_recovery_is_the_share_of_rows_and_the_effect_is_over_the_best_control() -> None:
    right = {"forgotten": 8, "rerun": 1, "more_compute": 4, "sham": 2, "more_training": 3}
    records = [record(arm, f"r{row}", row < count) for arm, count in right.items() for row in range(10)]
    found = only(effects(table(records)))
    assert {arm: outcome.recovery[0] for arm, outcome in found.arms.items()} == {
        arm: pytest.approx(count / 10) for arm, count in right.items()
    }
    assert found.effect[0] == pytest.approx(0.4)
    assert found.specificity[0] == pytest.approx(0.5)
    assert found.lead[0] == pytest.approx(0.4)
    against = {one.arm: one for one in found.comparisons}
    assert (against["more_compute"].only_treated, against["more_compute"].only_other) == (4, 0)
    assert against["more_compute"].p_value == pytest.approx(2 / 2**4)
    best = strongest(found, CONTROLS)
    assert best is not None
    assert best.arm == "more_compute"
    matrix = recovery_matrix(table(records))
    assert matrix["forgotten", "sham"][0] == pytest.approx(0.2)
    assert matrix["forgotten", "sham"][1] < 0.2 < matrix["forgotten", "sham"][2]


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 * 0.5**5)
    assert mcnemar(3, 1) == pytest.approx(2 * (4 + 1) / 16)
    assert mcnemar(2, 7) == mcnemar(7, 2)


def test_benjamini_hochberg_by_hand_and_without_what_is_no_test() -> None:
    found = benjamini_hochberg([0.01, math.nan, 0.04, 0.03, 0.2])
    assert math.isnan(found[1])
    assert [found[i] for i in (0, 2, 3, 4)] == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.2])
    assert benjamini_hochberg([]) == []


def test_q_values_know_of_the_tests_of_every_cause() -> None:
    alone = [record(arm, f"r{row}", arm == "forgotten") for arm in ("forgotten", "rerun") for row in range(6)]
    other = [
        record(arm, f"r{row}", right=False, cause="more_training")
        for arm in ("more_training", "rerun", "sham")
        for row in range(6)
    ]
    one = effects(table(alone))["forgotten"].comparisons[0]
    both = effects(table(alone + other))["forgotten"].comparisons[0]
    assert one.p_value == both.p_value == one.q_value == pytest.approx(2 / 2**6)
    assert both.q_value == pytest.approx(3 * 2 / 2**6)


def test_rows_for_power_are_those_of_the_textbook() -> None:
    assert [rows_for_power(*shares) for shares in ((0.1, 0.3), (0.2, 0.35), (0.3, 0.4))] == [62, 138, 356]
    assert math.isnan(rows_for_power(0.2, 0.2))
    assert math.isnan(rows_for_power(math.nan, 0.2))


def test_removed_rows_are_compared_in_no_arm() -> None:
    records = []
    for row in range(10):
        gone = row < 5  # the control has all of these right, the treatment takes them out
        role = "removed" if gone else "unlearned"
        records.append(record("forgotten", f"r{row}", right=not gone, role=role))
        records.append(record("rerun", f"r{row}", right=gone))
    found = only(effects(table(records)))
    assert found.arms["rerun"].rows == 5
    assert found.arms["rerun"].recovery[0] == 0.0
    assert found.effect[0] == 1.0
    assert found.removed[0] == 0.0
    assert "compared in no arm" in " ".join(as_json(found, {})["sentences"])


def test_learned_rows_that_the_treatment_takes_out_are_no_collateral() -> None:
    """The side of a conflict that had won, and is removed: that it is lost is built in."""
    records = [record(arm, "u", right=False) for arm in ("forgotten", "rerun")]
    for row in range(10):
        gone = row < 4
        role = "removed_learned" if gone else "learned"
        records.append(record("forgotten", f"l{row}", right=row > 0 and not gone, role=role))
        records.append(record("rerun", f"l{row}", right=True, role="learned"))
    found = only(effects(table(records)))
    assert found.collateral[0] == 0.0
    assert found.given_up[0] == 1.0
    assert "takes out, it loses 100 %" in " ".join(as_json(found, {})["sentences"])


def test_collateral_is_what_is_lost_beyond_a_rerun() -> None:
    records = [record(arm, "u", right=False) for arm in ("forgotten", "rerun")]
    for row in range(10):
        records.append(record("rerun", f"l{row}", row >= 1, role="learned"))
        records.append(record("forgotten", f"l{row}", row >= 4, role="learned"))
    found = only(effects(table(records)))
    assert found.collateral[0] == pytest.approx(0.3)
    assert found.arms["forgotten"].collateral[0] == pytest.approx(0.4)
    assert found.collateral[1] >= 0


def test_paraphrases_are_counted_by_themselves() -> None:
    records = [
        record(arm, f"r{row}", right, wording=wording)
        for arm in ("forgotten", "rerun")
        for row in range(4)
        for wording, right in (("original", True), ("paraphrase 1", row < 2), ("paraphrase 2", False))
    ]
    found = only(effects(table(records)))
    assert found.arms["forgotten"].recovery[0] == 1.0
    assert found.arms["forgotten"].paraphrases[0] == pytest.approx(1 / 4)


# --- what is not known


def test_a_treatment_that_beats_all_controls_alone_is_told_what_is_missing() -> None:
    records = [record("forgotten", f"r{row}", right=True) for row in range(12)]
    records += [record("rerun", f"r{row}", right=False) for row in range(12)]
    found = only(effects(table(records)))
    said = as_json(found, {})["sentences"]
    assert found.verdict == "inconclusive"
    assert any("beats every control, but no treatment of another cause was tried" in sentence for sentence in said)
    assert not any("80 % power" in sentence for sentence in said)


def test_nothing_known_is_nan_and_decides_nothing() -> None:
    assert effects(table([])) == {}
    treated_only = only(effects(table([record("forgotten", "a", right=True), record("forgotten", "b", right=True)])))
    assert math.isnan(treated_only.effect[0])
    assert treated_only.verdict == "inconclusive"
    without = only(effects(table([record("rerun", "a", right=True), record("rerun", "b", right=True)])))
    assert math.isnan(without.effect[0])
    assert math.isnan(without.comparisons[0].p_value)
    json.dumps(as_json(without, {}), allow_nan=False)
    one_group = only(effects(table([record(arm, "a", arm == "forgotten") for arm in ("forgotten", "rerun")])))
    assert one_group.effect[0] == 1.0
    assert math.isnan(one_group.effect[1])
    assert one_group.verdict == "inconclusive"


def test_without_another_cause_nothing_is_supported() -> None:
    found = only(effects(table(simulated({"forgotten": 0.95, "rerun": 0.05}, 60, seed=0))))
    assert found.effect[1] > 0.5
    assert found.verdict == "inconclusive"
    assert "nothing says that it was this cause" in " ".join(as_json(found, {})["sentences"])


def test_outcomes_that_are_all_alike_are_not_certain() -> None:
    records = [
        record(arm, f"r{row}", arm == "forgotten")
        for arm in ("forgotten", "rerun", "data_conflict")
        for row in range(3)
    ]
    found = only(effects(table(records)))
    assert found.effect == found.specificity == pytest.approx((1.0, 1 - 2 * 0.5615, 1.0), abs=1e-4)
    assert found.verdict == "inconclusive"
    assert found.arms["rerun"].recovery == pytest.approx((0.0, 0.0, 0.5615), abs=1e-4)  # Wilson, 0 of 3
    assert found.arms["forgotten"].recovery == pytest.approx((1.0, 1 - 0.5615, 1.0), abs=1e-4)
    grouped = [one | {"group": "g" + one["row_id"][1:]} for one in records]
    more = [one | {"row_id": one["row_id"] + "b"} for one in grouped]
    tied = only(effects(table(grouped + more)))
    assert tied.arms["rerun"].recovery == found.arms["rerun"].recovery  # six rows, three groups


def test_arms_that_agree_on_every_row_may_still_differ() -> None:
    records = [record(arm, f"r{row}", row < 4) for arm in ("forgotten", "rerun") for row in range(10)]
    found = only(effects(table(records)))
    reach = wilson(0, 10).high
    assert found.effect == pytest.approx((0.0, -reach, reach))
    assert "+0 points (-28 to +28)" in " ".join(as_json(found, {})["sentences"])
    halves = [one | {"wording": wording, "right": wording == "b"} for one in records for wording in ("a", "b")]
    half = Panel(halves, "unlearned", 0, 50).share("rerun")
    assert half == pytest.approx((0.5, 0.5 * (1 - reach), 0.5 * (1 + reach)))


@pytest.mark.parametrize("rows", [3, 10, 60])
def test_without_spread_the_interval_of_a_difference_is_the_score_interval(rows: int) -> None:
    def score(delta: float, only_first: int) -> float:
        """Square of the score statistic, with the nuisance parameter at its restricted maximum likelihood."""
        a, b, c = 2 * rows, -only_first + (2 * rows - only_first) * delta, 0.0
        nuisance = ((b * b - 4 * a * c) ** 0.5 - b) / (2 * a)
        variance = rows * (2 * nuisance + delta * (1 - delta))
        return float((only_first - rows * delta) ** 2 / variance)

    for arm_right, only_first in ((False, 0), (True, rows)):
        records = [record(arm, f"r{row}", arm_right and arm == "a") for arm in ("a", "b") for row in range(rows)]
        panel = Panel(records, "unlearned", 0, 50)
        value, low, high = panel.estimate(panel.mean("a") - panel.mean("b"))
        assert value == only_first / rows
        assert score(low if only_first else high, only_first) == pytest.approx(1.959963984540054**2)


def test_what_could_not_be_asked_in_one_arm_is_compared_in_none() -> None:
    records = [
        record(arm, f"r{row}", None if (arm, row) == ("rerun", 0) else arm == "forgotten" and row < 5, seed=training)
        for arm in ("forgotten", "rerun")
        for row in range(10)
        for training in (1, 2)
    ]
    found = only(effects(table(records)))
    assert found.arms["forgotten"].rows == found.arms["rerun"].rows == 9
    assert found.arms["forgotten"].recovery[0] == pytest.approx(4 / 9)
    nothing = only(effects(table([one | {"right": None} for one in records])))
    assert math.isnan(nothing.effect[0])
    json.dumps(as_json(nothing, {}), allow_nan=False)


# --- simulated designs

_NULL = {"forgotten": 0.3, "rerun": 0.3, "more_compute": 0.3, "sham": 0.3, "more_training": 0.3}


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        (_NULL | {"forgotten": 0.8}, "supported"),
        (_NULL | {"more_training": 0.8}, "contradicted"),
        (_NULL | {"forgotten": 0.8, "more_training": 0.8}, "inconclusive"),
    ],
)
def test_the_verdict_follows_the_truth(shares: dict[str, float], verdict: str) -> None:
    found = [only(effects(table(simulated(shares, 80, seed=seed)), resamples=400)) for seed in range(5)]
    assert [effect.verdict for effect in found].count(verdict) >= 4


def test_without_an_effect_support_is_rare() -> None:
    verdicts = [
        only(effects(table(simulated(_NULL, 40, seed=seed)), seed=seed, resamples=300)).verdict for seed in range(40)
    ]
    assert verdicts.count("supported") <= 1  # the best of three controls is beaten by chance less often than 2.5 %


def test_the_planned_number_of_rows_gives_the_planned_power() -> None:
    rows = 62  # for 10 % against 30 %
    random = np.random.default_rng(0)
    treated, control = random.random((2, 2000, rows)) < np.array([0.3, 0.1])[:, None, None]
    difference = treated.mean(1) - control.mean(1)
    pooled = (treated.mean(1) + control.mean(1)) / 2
    significant = np.abs(difference) > 1.96 * np.sqrt(2 * pooled * (1 - pooled) / rows)
    assert 0.76 < significant.mean() < 0.84


def test_rows_of_one_group_count_as_one() -> None:
    loose = simulated({"forgotten": 0.6, "rerun": 0.4}, 60, seed=1, seeds=1)
    random = np.random.default_rng(2)
    fate = {
        (arm, group): random.random() < share
        for arm, share in (("forgotten", 0.6), ("rerun", 0.4))
        for group in range(6)
    }
    tied = [
        record(arm, f"r{row}", bool(fate[arm, row // 10]), group=f"g{row // 10}")
        for arm in ("forgotten", "rerun")
        for row in range(60)
    ]
    width = [only(effects(table(records))).effect for records in (loose, tied)]
    assert width[1][2] - width[1][1] > 2 * (width[0][2] - width[0][1])


def test_trainings_that_differ_widen_the_interval() -> None:
    def by_training(luck: dict[int, float]) -> list[dict[str, Any]]:
        return [
            record(arm, f"r{row}", row < 100 * (luck[training] if arm == "forgotten" else 0.2), seed=training)
            for arm in ("forgotten", "rerun")
            for training in luck
            for row in range(100)
        ]

    steady = only(effects(table(by_training({1: 0.5, 2: 0.5, 3: 0.5})))).effect
    shaky = only(effects(table(by_training({1: 0.1, 2: 0.5, 3: 0.9})))).effect
    assert steady[0] == pytest.approx(shaky[0]) == pytest.approx(0.3)
    assert shaky[2] - shaky[1] > 2 * (steady[2] - steady[1])


def test_the_same_seed_gives_the_same_interval() -> None:
    records = table(simulated(_NULL, 37, seed=3))
    found = [only(effects(records, seed=seed, resamples=40)).effect for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
