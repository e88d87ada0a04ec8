"""The verdict is honest about what it cannot tell."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from whatstuck.dynamics.circumstances import Training
from whatstuck.dynamics.heldout import SCHEMA
from whatstuck.dynamics.records import Recorder
from whatstuck.dynamics.statements import statements
from whatstuck.dynamics.summarizing import _training
from whatstuck.dynamics.verdict import decide, record_cost, record_heldout
from whatstuck.runs import RunFolder
from whatstuck.stopping import default_rules

SETTING = "paper kappa=0.05*step"


def losses(mean: float, seed: int, rows: int = 60) -> pa.Table:
    """Rows differ much from each other and little from step to step, as real ones do."""
    difficulty = np.random.default_rng(0).normal(0, 1, rows)
    noise = np.random.default_rng(seed).normal(0, 0.05, rows)
    nll = np.maximum(mean + difficulty + noise, 0.0)
    return pa.Table.from_pylist(
        [
            {"row_id": str(i), "half": ("select", "confirm")[i % 2], "nll": value, "tokens": 1, "correct": value < 1}
            for i, value in enumerate(nll)
        ],
        schema=SCHEMA,
    )


def verdict_of(
    heldout: dict[int, pa.Table],
    trainer: dict[str, list[tuple[int, float]]] | None = None,
    diverged: tuple[int, ...] = (),
    saved: tuple[int, ...] | None = None,
    **more: Any,
) -> dict[str, Any]:
    recorder = Recorder("model", SETTING)
    record_heldout(heldout, recorder, seed=0)
    for step in heldout or (0, 8, 16):
        recorder.add(step, "scale", "all", (1.0, 1.0, 1.0))
    training = Training(heldout, trainer or {}, saved=saved, diverged=diverged, **more)
    return decide(training, recorder.table(), [], setting=SETTING, seed=0)


def test_a_clear_best_step_is_kept_with_confidence() -> None:
    verdict = verdict_of({0: losses(5, 1), 4: losses(2, 2), 16: losses(3, 3)})
    assert verdict["keep_step"] == 4
    assert verdict["confidence"] == "high"
    assert verdict["signals"]["indistinguishable_steps"] == [4]
    confirm = verdict["signals"]["confirm"]
    assert confirm["loss"]["low"] < confirm["loss"]["value"] < confirm["loss"]["high"]


def test_steps_that_the_interval_cannot_tell_apart_are_named() -> None:
    verdict = verdict_of({0: losses(5, 1), 4: losses(2, 2), 8: losses(2.001, 3), 16: losses(3, 4)})
    assert verdict["signals"]["indistinguishable_steps"] == [4, 8]
    assert verdict["confidence"] == "medium"
    assert "cannot tell step" in verdict["reason"]


def test_pairing_by_row_sees_what_unpaired_intervals_would_not() -> None:
    """Rows spread by 1 nat; a shift of 0.1 is lost in that, unless the same rows are compared."""
    verdict = verdict_of({0: losses(2.1, 1), 4: losses(2.0, 2)})
    assert verdict["signals"]["indistinguishable_steps"] == [4]


def test_the_last_step_being_best_is_said() -> None:
    assert "training longer" in verdict_of({0: losses(5, 1), 4: losses(2, 2)})["reason"]


def test_a_diverged_step_is_left_out() -> None:
    bad = losses(2, 2).set_column(2, "nll", pa.array([float("nan")] * 60))
    assert verdict_of({0: losses(5, 1), 4: losses(3, 2), 8: bad})["keep_step"] == 4


def test_without_heldout_rows_the_trainers_metric_decides_with_low_confidence() -> None:
    verdict = verdict_of({}, {"eval_loss": [(0, 3.0), (8, 1.0), (16, 2.0)]})
    assert (verdict["keep_step"], verdict["confidence"]) == (8, "low")


def test_the_trainers_best_step_without_a_checkpoint_is_not_kept() -> None:
    verdict = verdict_of({}, {"eval_loss": [(0, 3.0), (8, 1.0), (12, 0.5), (16, 2.0)]})
    assert verdict["keep_step"] == 8
    assert "lower at step 12" in verdict["reason"]


def test_one_checkpoint_is_no_choice() -> None:
    assert verdict_of({0: losses(2, 1)})["decision"] == "cannot tell"


def test_too_few_heldout_rows_are_not_called_none() -> None:
    verdict = verdict_of({0: losses(5, 1, rows=10), 4: losses(2, 2, rows=10)})
    assert verdict["decision"] == "cannot tell"
    assert "Only 5 held-out rows" in verdict["reason"]


def test_before_a_divergence_training_longer_is_no_advice() -> None:
    verdict = verdict_of({0: losses(5, 1), 4: losses(2, 2)}, diverged=(8,))
    assert "training longer" not in verdict["reason"]
    assert "diverged at step 8" in verdict["reason"]


def test_rows_that_are_only_taken_to_be_held_out_cost_confidence() -> None:
    recorder = Recorder("model", SETTING)
    heldout = {0: losses(5, 1), 4: losses(2, 2)}
    record_heldout(heldout, recorder, seed=0)
    verdict = decide(Training(heldout, assumed=True), recorder.table(), [], setting=SETTING, seed=0)
    assert (verdict["keep_step"], verdict["confidence"]) == (4, "medium")
    assert "they are taken to be" in verdict["reason"]


def test_rows_are_paired_by_their_id() -> None:
    """Another order, and rows that only one step knows, must not mix rows up."""
    base = losses(2.0, 2)
    backwards = losses(2.1, 3).slice(0, 56).take(pa.array(range(55, -1, -1)))
    assert verdict_of({4: base, 8: backwards})["signals"]["indistinguishable_steps"] == [4]


def test_of_unsaved_steps_none_is_kept_but_a_better_one_is_named() -> None:
    heldout = {0: losses(5, 1), 4: losses(3, 2), 8: losses(2, 3), 16: losses(4, 4)}
    verdict = verdict_of(heldout, saved=(0, 4, 16))
    assert verdict["keep_step"] == 4
    assert verdict["signals"]["indistinguishable_steps"] == [4]
    assert "Step 8 was better (1.9, " in verdict["reason"]
    assert verdict["reason"].startswith("Of the steps that were saved, held-out loss is lowest at step 4")
    assert "beyond its interval), but no checkpoint of it was saved" in verdict["reason"]
    assert "No checkpoint of it was saved" in verdict["other_rules"]["oracle, loss"]["reason"]
    assert verdict_of(heldout, saved=(0,))["keep_step"] == 8, "nothing was saved at all: the best step is named"


def test_the_trainers_loss_keeps_saved_steps_only() -> None:
    verdict = verdict_of({}, {"eval_loss": [(0, 3.0), (8, 1.0), (16, 2.0)]}, saved=(0, 16))
    assert (verdict["keep_step"], verdict["rule"]) == (16, "trainer's eval_loss")
    assert "lower at step 8" in verdict["reason"]


def test_where_patience_runs_out_training_could_have_stopped() -> None:
    verdict = verdict_of(
        {step: losses(mean, step) for step, mean in zip((0, 20, 40, 80, 160, 320), (5, 2, 3, 4, 4, 4), strict=True)}
    )
    assert (verdict["keep_step"], verdict["stop_step"], verdict["rule"]) == (20, 160, "held-out loss")
    assert verdict_of({0: losses(5, 1), 4: losses(2, 2), 16: losses(3, 3)})["stop_step"] is None


def test_early_probes_are_too_dense_to_stop_a_training() -> None:
    steps = (0, 1, 2, 4, 8, 16, 32, 64, 128)
    verdict = verdict_of({step: losses(5 + (step > 0) * 0.1, step) for step in steps})
    assert verdict["stop_step"] == 128  # three probes after step 16, not steps 1, 2 and 4
    assert verdict["other_rules"]["held-out loss, patience 3"]["stop_step"] == 128


def test_a_loss_that_falls_again_after_patience_still_counts() -> None:
    means = (5, 2, 3, 4, 4, 1, 3, 3, 3)
    verdict = verdict_of({20 * step: losses(mean, step) for step, mean in enumerate(means)})
    assert (verdict["keep_step"], verdict["stop_step"]) == (100, 160)
    assert '"held-out loss, patience 3" would have stopped at step 80, before step 100 was reached' in verdict["reason"]
    assert verdict["signals"]["early_stop"] == 80
    replayed = verdict["other_rules"]["held-out loss, patience 3"]
    assert (replayed["keep_step"], replayed["stop_step"], replayed["kind"]) == (20, 80, "evaluation loss")


def chosen(keep: int | None, stop: int | None, *, same_loss: bool = False) -> dict[str, Any]:
    name = "held-out loss, patience 2" if same_loss else "my rule"
    return {"rule": name, "keep_step": keep, "stop_step": stop, "reason": "It says so.", "same_loss": same_loss}


def test_another_patience_on_the_loss_that_decides_changes_the_stop_alone() -> None:
    heldout = {step: losses(mean, step) for step, mean in zip((0, 20, 40, 60, 80), (5, 2, 3, 4, 4), strict=True)}
    plain, other = verdict_of(heldout), verdict_of(heldout, chosen=chosen(20, 60, same_loss=True))
    assert (plain["stop_step"], other["stop_step"]) == (80, 60)
    assert other | {"stop_step": 80} == plain
    assert (other["rule"], other["confidence"], other["signals"]["early_stop"]) == ("held-out loss", "high", None)


def test_a_stop_before_the_step_that_is_kept_is_told_and_not_advised() -> None:
    means = (5, 2, 3, 4, 4, 1, 3)
    heldout = {20 * step: losses(mean, step) for step, mean in enumerate(means)}
    verdict = verdict_of(heldout, chosen=chosen(20, 60, same_loss=True))
    assert (verdict["keep_step"], verdict["stop_step"], verdict["signals"]["early_stop"]) == (100, None, 60)
    assert '"held-out loss, patience 2" would have stopped at step 60, before step 100 was' in verdict["reason"]
    own = verdict_of(heldout, chosen=chosen(80, 40))
    assert (own["keep_step"], own["stop_step"], own["signals"]["early_stop"]) == (80, None, 40)
    assert own["reason"] == (
        'It says so. In the training itself "my rule" would have stopped at step 40, before step 80 was reached.'
    )
    assert verdict_of(heldout, chosen=chosen(40, 40))["stop_step"] == 40


def test_a_stop_before_a_better_step_that_was_not_saved_is_too_early() -> None:
    means = (5, 2, 3, 4, 4, 1)
    heldout = {20 * step: losses(mean, step) for step, mean in enumerate(means)}
    verdict = verdict_of(heldout, saved=(0, 20, 60, 80))
    assert (verdict["keep_step"], verdict["stop_step"], verdict["signals"]["early_stop"]) == (20, None, 80)
    assert "Step 100 was better" in verdict["reason"]
    # the other way round: the best step was passed before the stop, but the only checkpoint comes later
    late = verdict_of({20 * step: losses(mean, step) for step, mean in enumerate((5, 2, 3, 4, 4, 4.5))}, saved=(100,))
    assert (late["keep_step"], late["stop_step"], late["signals"]["early_stop"]) == (100, 100, 80)


def test_beside_a_rule_of_the_users_own_stands_no_evidence_of_the_loss() -> None:
    heldout = {0: losses(5, 1), 4: losses(2, 2), 8: losses(2.001, 3), 16: losses(3, 4)}
    verdict = verdict_of(heldout, chosen=chosen(16, None))
    assert (verdict["rule"], verdict["keep_step"], verdict["decision"], verdict["confidence"]) == (
        "my rule", 16, "keep", "low",
    )  # fmt: skip
    signals, by_loss = verdict["signals"], verdict_of(heldout)["signals"]
    assert (signals["metric"], signals["indistinguishable_steps"]) == (None, [])
    assert signals["confirm"]["step"] == 16
    assert signals["confirm"]["loss"]["value"] > by_loss["confirm"]["loss"]["value"] + 0.5
    nothing = verdict_of(heldout, chosen=chosen(None, None))
    assert (nothing["keep_step"], nothing["decision"], nothing["stop_step"]) == (None, "cannot tell", None)
    assert "confirm" not in nothing["signals"]
    assert verdict_of({0: losses(5, 1)}, chosen=chosen(0, None))["decision"] == "cannot tell", "one step is no choice"


def test_a_rule_that_was_never_asked_is_named() -> None:
    heldout = {0: losses(5, 1), 4: losses(2, 2), 16: losses(3, 3)}
    said = 'killed before the decision of its rule, "my rule", was computed'
    verdict = verdict_of(heldout, unasked="my rule")
    assert (verdict["keep_step"], verdict["rule"]) == (4, "held-out loss")
    assert verdict["reason"].endswith(f"{said}: held-out loss decides instead.")
    assert verdict_of({}, unasked="my rule")["reason"].endswith(f"{said}.")


def test_a_better_step_whose_checkpoint_is_gone_is_not_called_unsaved() -> None:
    heldout = {0: losses(5, 1), 4: losses(3, 2), 8: losses(2, 3), 16: losses(4, 4)}
    verdict = verdict_of(heldout, saved=(0, 4, 16), gone=(8,))
    assert verdict["keep_step"] == 4
    assert verdict["reason"].startswith("Of the checkpoints that are left, held-out loss is lowest at step 4")
    assert "beyond its interval), but its checkpoint is gone." in verdict["reason"]
    assert verdict["other_rules"]["oracle, loss"]["reason"].endswith("Its checkpoint is gone.")
    logged = verdict_of({}, {"eval_loss": [(0, 3.0), (8, 1.0), (16, 2.0)]}, saved=(0, 16), gone=(8,))
    assert "lower at step 8 (1), but its checkpoint is gone" in logged["reason"]
    every = verdict_of(heldout, saved=(0,), gone=(8, 16))
    assert every["keep_step"] == 8
    assert every["reason"].endswith("The checkpoint of step 8 is gone.")


@pytest.mark.parametrize(("count", "said"), [(1, "1 of the held-out rows was"), (7, "7 of the held-out rows were")])
def test_rows_that_were_trained_on_leave_little_confidence(count: int, said: str) -> None:
    heldout = {0: losses(5, 1), 4: losses(2, 2), 16: losses(3, 3)}
    verdict = verdict_of(heldout, trained_on=count)
    assert (verdict["keep_step"], verdict["confidence"]) == (4, "low")
    assert f"{said} trained on, which flatters late steps." in verdict["reason"]
    assert "trained on" not in verdict_of(heldout)["reason"]


def test_what_run_json_says_of_a_training_is_read(tmp_path: Path) -> None:
    for folder in ("out/checkpoint-2", "run/kept/checkpoint-4"):
        (tmp_path / folder).mkdir(parents=True)
    section = {
        "checkpoints": [
            {"step": step, "path": None if step in (0, 1) else str(tmp_path / "out" / f"checkpoint-{step}")}
            for step in (0, 1, 2, 4, 6)
        ],
        "trainer_state": {"eval_loss": [[2, 1.5]]},
        "diverged": [8],
        "data": {"assumed": False, "trained_on": 3},
        "live": {"rule": "my rule", "chosen": None},
    }
    run = RunFolder(tmp_path / "run")
    found = _training(run, section, {})
    assert (found.saved, found.gone) == ([2, 4], [6])
    assert (found.trained_on, found.unasked, found.chosen) == (3, "my rule", None)
    assert found.logged == {"eval_loss": [(2, 1.5)]}

    asked = _training(run, section | {"live": {"rule": "my rule", "chosen": chosen(2, None)}}, {})
    assert asked.chosen is not None
    assert asked.unasked is None
    assert _training(run, section | {"live": {"rule": default_rules()[0].name}}, {}).unasked is None
    del section["live"], section["data"]["trained_on"]  # type: ignore[attr-defined] # JSON
    afterwards = _training(run, section, {})
    assert (afterwards.saved, afterwards.gone) == ([2, 4, 6], []), "checkpoints of a finished run may have moved"
    assert (afterwards.trained_on, afterwards.unasked) == (0, None)


def test_what_each_step_costs_is_measured_on_the_rows_that_chose_nothing() -> None:
    heldout = {0: losses(5, 1), 4: losses(2, 2), 16: losses(3, 3)}
    recorder = Recorder("model", SETTING)
    record_cost(heldout, 4, recorder, seed=0)
    found = {(row["step"], row["set"], row["baseline"]): row for row in recorder.rows}
    assert set(found) == {(0, "confirm", "step 4"), (16, "confirm", "step 4")}
    confirm = {step: np.array(table["nll"])[1::2] for step, table in heldout.items()}
    for step in (0, 16):
        row = found[step, "confirm", "step 4"]
        assert row["value"] == pytest.approx((confirm[step] - confirm[4]).mean())
        assert 0 < row["low"] < row["value"] < row["high"] < row["low"] + 0.5, "paired by row"
    record_cost(heldout, 8, other := Recorder("model", SETTING), seed=0)
    record_cost({0: losses(5, 1, rows=1), 4: losses(2, 2, rows=1)}, 4, other, seed=0)
    assert other.rows == [], "nothing of a step that has no losses, nor without rows"


def test_differences_are_recorded_paired_by_row() -> None:
    recorder = Recorder("model", SETTING)
    record_heldout({0: losses(2.1, 1), 4: losses(2.0, 2)}, recorder, seed=0)
    rows = {(row["metric"], row["set"], row["step"]): row for row in recorder.rows}
    assert rows["heldout_loss", "select", 4]["high"] > rows["heldout_loss", "select", 0]["low"], "unpaired they overlap"
    difference = rows["heldout_loss_difference", "select", 4]
    assert difference["baseline"] == "step 0"
    assert difference["low"] < difference["value"] < difference["high"] < 0


def test_without_anything_it_cannot_tell() -> None:
    verdict = verdict_of({})
    assert (verdict["keep_step"], verdict["decision"]) == (None, "cannot tell")


@pytest.mark.parametrize(
    ("relative", "fixed", "expected"),
    [
        ((40, 6), (29, 47), "this depends on the way of counting, so it is not a finding"),
        ((40, 6), (20, 21), "the intervals overlap by the number under the fixed threshold"),
        ((40, 6), (30, 20), "it holds by every way of counting"),
        ((4, 6), (3, 20), "more emerged by the number under the relative threshold and the number under the fixed"),
        ((5, 5), (6, 6), "no way of counting tells"),
    ],
)
def test_what_holds_under_one_rule_only_is_said(
    relative: tuple[float, float], fixed: tuple[float, float], expected: str
) -> None:
    recorder = Recorder("model", SETTING)
    for rule, pair in (("relative", relative), ("fixed", fixed)):
        for name, value in zip(("removed", "emerged"), pair, strict=True):
            recorder.add(8, "count", name, (value, value - 0.9, value + 0.9), rule=rule, tau=0.03)
    assert expected in " ".join(statements(recorder.table(), SETTING))


def test_changes_inside_their_interval_are_none_seen() -> None:
    recorder = Recorder("model", SETTING)
    recorder.add(1, "mass_change", "removed", (0.1, -0.1, 0.3))
    recorder.add(1, "mass_change", "emerged", (0.2, 0.1, 0.3))
    sentences = statements(recorder.table(), SETTING)
    assert "Removed mass: changes outside its interval between neighbouring checkpoints: none seen." in sentences
    assert any(sentence.startswith("Emerged mass grows") and sentence.endswith("step 1.") for sentence in sentences)
