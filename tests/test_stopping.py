"""Stop rules on planted histories whose right answer is known by hand."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whatstuck import stopping
from whatstuck.dynamics.records import Recorder
from whatstuck.stopping import (
    AccuracyPatience,
    Decision,
    EndOfRemoval,
    FixedEpochs,
    History,
    LastCheckpoint,
    LossPatience,
    Oracle,
    Rule,
    SignalRule,
    Together,
    default_rules,
    emerged_mass,
    emerged_mass_settled,
    gamma_of_emerged,
    replay,
    rho_of_emerged,
)

SETTING = "robust misfit=0.05*step"
HALF = 0.05  # half the width of every interval, unless said otherwise
NAN = float("nan")

Values = Mapping[int, float]


class Planted:
    """Writes statistics as a run has them, and reads them back as a history."""

    def __init__(self) -> None:
        self.recorder = Recorder("model", SETTING)

    def add(self, metric: str, subset: str, values: Values, half: float = HALF, **where: Any) -> "Planted":
        for step, value in values.items():
            self.recorder.add(step, metric, subset, (value, value - half, value + half), **where)
        return self

    def loss(self, values: Values, half: float = HALF) -> "Planted":
        return self.add("heldout_loss", "select", values, half)

    def rho(self, values: Values, null: float = 0.1, half: float = HALF) -> "Planted":
        return self.add("rho", "emerged", values, half, null=("sign_flip", null, null - 0.01, null + 0.01))

    def gamma(self, values: Values, baseline: str = "pooled") -> "Planted":
        for kind, null in (("mismatched_row", 0.3), ("order_stratified", 0.1)):
            self.add("gamma", "emerged", values, baseline=baseline, null=(kind, null, null, null))
        return self

    def mass(self, values: Values, half: float = HALF) -> "Planted":
        return self.add("mass_excess", "emerged", values, half, null=("mismatched_row", 0.0, -0.1, 0.1))

    def history(self, **more: Any) -> History:
        return History.from_metrics(self.recorder.table(), SETTING, **more)


def stepped(*values: float) -> dict[int, float]:
    """Values at steps 0, 1, 2, 4, 8, ..."""
    return {(0 if not index else 1 << index - 1): value for index, value in enumerate(values)}


def actions(rule: Rule, history: History) -> list[str]:
    return [rule(history.until(step)).action for step in history.steps]


class TestHistory:
    def test_what_is_not_finite_is_absent(self) -> None:
        history = Planted().rho({0: NAN, 1: 0.5, 2: math.inf, 4: 0.4}).history()
        assert list(history.series("rho", "emerged")) == [1, 4]
        assert history.steps == [1, 4]

    def test_excess_takes_the_null_off_value_and_interval(self) -> None:
        signal = Planted().rho({1: 0.5}, null=0.2).history().series("rho", "emerged")[1].excess()
        assert (signal.value, signal.low, signal.high) == pytest.approx((0.3, 0.25, 0.35))
        assert math.isnan(Planted().loss({1: 2.0}).history().series("heldout_loss", "select")[1].excess().value)

    def test_of_two_nulls_of_gamma_the_one_that_keeps_orders(self) -> None:
        history = Planted().gamma({1: 0.5}).history()
        assert history.series("gamma", "emerged", "pooled")[1].null_mean == 0.1
        assert history.series("gamma", "emerged", "pooled", null="mismatched_row")[1].null_mean == 0.3
        assert history.series("gamma", "emerged") == {}

    def test_other_settings_kinds_and_orders_are_not_read(self) -> None:
        planted = Planted().rho({1: 0.5})
        other = Recorder("model", "paper kappa=0.05*step")
        other.add(1, "rho", "emerged", (0.9, 0.8, 1.0))
        planted.recorder.rows += other.rows
        planted.add("mass", "emerged", {1: 7.0}, kind="and")
        planted.add("mass", "emerged", {1: 7.0}, order=2)
        planted.add("rho", "emerged", {1: 0.7}, rule="fixed", tau=0.03)
        history = planted.history()
        assert history.series("rho", "emerged")[1].value == 0.5
        assert history.series("mass", "emerged") == {}

    def test_cut_at_a_step_it_knows_nothing_later(self) -> None:
        epochs, trainer = {1: 0.5, 4: 2.0}, {"eval_loss": [(1, 3.0), (3, 1.0), (4, 2.0)]}
        history = Planted().rho({1: 0.5, 2: 0.4, 4: 0.3}).history(epochs=epochs, trainer=trainer)
        early = history.until(2)
        assert (early.steps, early.epochs) == ([1, 2], {1: 0.5})
        assert list(early.series("rho", "emerged")) == [1, 2]
        assert early.until(4).steps == [1, 2], "what was cut does not come back"
        assert list(history.series("eval_loss", "trainer")) == [1, 4], "step 3 was not probed and cannot be kept"
        assert Planted().rho({1: 0.5, 2: 0.4}).history(last=1).steps == [1]


class TestPatience:
    def test_stops_when_the_loss_has_not_been_lower_for_so_many_probes(self) -> None:
        history = Planted().loss(stepped(5, 3, 2, 2.1, 2.0, 2.2)).history()
        assert actions(LossPatience(), history) == ["keep", "keep", "keep", "continue", "continue", "stop"]
        would = replay(LossPatience(), history)
        assert (would.keep_step, would.stop_step) == (2, 16)
        assert would.reason == "Held-out loss is lowest at step 2 (2) and has not improved for 3 probes since."

    def test_patience_begins_anew_with_a_lower_loss(self) -> None:
        history = Planted().loss(stepped(5, 3, 3.1, 3.1, 2, 2.1, 2.1)).history()
        assert replay(LossPatience(), history).stop_step is None
        assert replay(LossPatience(patience=2), history).stop_step == 4

    def test_a_gain_below_min_delta_is_kept_but_buys_no_time(self) -> None:
        history = Planted().loss(stepped(5, 3, 2.99, 2.98, 2.97)).history()
        would = replay(LossPatience(min_delta=0.1), history)
        assert (would.keep_step, would.stop_step) == (8, 8)

    def test_the_trainers_loss_where_no_rows_were_held_out(self) -> None:
        history = Planted().rho(stepped(0.5, 0.5, 0.5)).history(trainer={"eval_loss": [(0, 3.0), (1, 1.0), (2, 2.0)]})
        would = replay(LossPatience(), history)
        assert (would.keep_step, would.stop_step) == (1, None)
        assert would.reason.startswith("The trainer's eval_loss is lowest at step 1")

    def test_without_any_loss_it_says_so_and_goes_on(self) -> None:
        history = Planted().rho(stepped(0.5, 0.5)).history()
        assert LossPatience()(history) == Decision("continue", None, "The trainer's eval_loss was not measured.")

    def test_a_diverged_step_is_missing_and_an_earlier_one_is_kept(self) -> None:
        history = Planted().loss(stepped(5, 3, NAN, math.inf)).history()
        assert history.steps == [0, 1]
        assert replay(LossPatience(), history).keep_step == 1
        partly = Planted().loss(stepped(5, 3, NAN)).rho(stepped(NAN, 0.5, 0.5)).history()
        assert LossPatience()(partly).action == "continue"
        assert LossPatience()(partly).keep_step == 1

    def test_accuracy_is_better_when_higher(self) -> None:
        values = stepped(0.0, 0.3, 0.5, 0.5, 0.4, 0.4)
        history = Planted().add("heldout_accuracy", "select", values).history()
        would = replay(AccuracyPatience(), history)
        assert (would.keep_step, would.stop_step) == (2, 16)

    def test_the_oracle_looks_at_the_other_half_and_never_stops(self) -> None:
        planted = Planted().loss(stepped(5, 2, 3, 3, 3, 3))
        planted.add("heldout_loss", "confirm", stepped(5, 3, 3, 3, 2, 3))
        would = replay(Oracle("heldout_loss"), planted.history())
        assert (would.keep_step, would.stop_step) == (8, None)
        assert Oracle().kind == "hindsight"

    def test_the_papers_advice_read_literally(self) -> None:
        planted = Planted()
        planted.add("count", "all", stepped(46, 12, 10, 9, 12, 14, 15), rule="relative", tau=0.03)
        planted.add("count", "all", stepped(1, 1, 1, 1, 1, 1, 1), rule="relative", tau=0.1)
        would = replay(EndOfRemoval("relative"), planted.history())
        assert (would.keep_step, would.stop_step) == (4, 32)
        assert replay(EndOfRemoval("fixed"), planted.history()).keep_step is None


class TestPlain:
    def test_the_first_probe_after_so_many_epochs(self) -> None:
        history = Planted().loss(stepped(5, 4, 3, 2)).history(epochs={1: 0.4, 2: 0.9, 4: 1.7})
        would = replay(FixedEpochs(1), history)
        assert (would.keep_step, would.stop_step) == (4, 4)
        assert (replay(FixedEpochs(3), history).keep_step, replay(FixedEpochs(3), history).stop_step) == (4, None)

    def test_unknown_epochs_are_said(self) -> None:
        assert (
            replay(FixedEpochs(1), Planted().loss(stepped(5, 4)).history()).reason == "The epoch of no step is known."
        )

    def test_the_last_checkpoint(self) -> None:
        would = replay(LastCheckpoint(), Planted().loss(stepped(1, 2, 3)).history())
        assert (would.keep_step, would.stop_step) == (2, None)


class TestSignals:
    def test_a_peak_and_a_fall_beyond_the_interval(self) -> None:
        history = Planted().rho(stepped(NAN, 0.3, 0.6, 0.58, 0.5, 0.5, 0.4)).history()
        assert actions(rho_of_emerged(), history) == ["keep", "keep", "continue", "continue", "continue", "stop"]
        would = replay(rho_of_emerged(), history)
        assert (would.keep_step, would.stop_step) == (2, 32)
        assert would.reason.startswith(
            "Rho of the emerged mass above random signs is best at step 2 (0.5) and has been"
        )
        assert "for 3 probes (0.3, interval 0.25 to 0.35, at step 32)" in would.reason

    def test_a_wobble_inside_the_interval_never_stops(self) -> None:
        history = Planted().rho(stepped(NAN, 0.5, 0.47, 0.46, 0.47, 0.46, 0.47, 0.46, 0.47)).history()
        assert replay(rho_of_emerged(), history).stop_step is None

    def test_back_inside_the_bests_interval_counts_from_zero(self) -> None:
        """Worse, worse, then a value within 0.55 to 0.65, then worse thrice."""
        history = Planted().rho(stepped(NAN, 0.6, 0.5, 0.5, 0.56, 0.5, 0.5, 0.5)).history()
        assert replay(rho_of_emerged(), history).stop_step == 64

    def test_hysteresis_half_way_back_is_still_worse(self) -> None:
        """0.549 is below the best's interval although its own reaches the best: alone it would not have begun."""
        fallen = Planted().rho(stepped(NAN, 0.6, 0.5, 0.549, 0.549), half=0.052).history()
        assert replay(rho_of_emerged(patience=3), fallen).stop_step is None, "0.549 > 0.6 - 0.052: back inside"
        narrow = Planted().rho({1: 0.6}, half=0.01).rho({2: 0.5, 4: 0.56, 8: 0.56}, half=0.05).history()
        assert replay(rho_of_emerged(), narrow).stop_step == 8
        never = Planted().rho({1: 0.6}, half=0.01).rho({2: 0.56, 4: 0.56, 8: 0.56, 16: 0.56}, half=0.05).history()
        assert replay(rho_of_emerged(), never).stop_step is None

    def test_a_new_best_counts_from_zero(self) -> None:
        history = Planted().rho(stepped(NAN, 0.6, 0.5, 0.5, 0.7, 0.6, 0.6)).history()
        assert replay(rho_of_emerged(), history).stop_step is None
        assert rho_of_emerged()(history).keep_step == 8

    def test_it_is_the_excess_that_counts(self) -> None:
        """rho rises only because there are fewer and fewer interactions; above the null it falls."""
        planted = Planted()
        for step, null in zip((1, 2, 4, 8), (0.1, 0.4, 0.5, 0.6), strict=True):
            planted.rho({step: 0.6 + 0.01 * step}, null=null)
        would = replay(rho_of_emerged(), planted.history())
        assert (would.keep_step, would.stop_step) == (1, 8)

    def test_step_0_is_never_judged(self) -> None:
        history = Planted().mass(stepped(9.0, -4.0, -3.0)).history()
        assert replay(emerged_mass(direction=1), history).keep_step == 2

    def test_one_probe_is_the_best_and_only_step_0_is_nothing_yet(self) -> None:
        assert actions(rho_of_emerged(), Planted().rho({1: 0.5}).history()) == ["keep"]
        decision = rho_of_emerged()(Planted().loss({0: 5.0}).rho({0: NAN}).history())
        assert decision == Decision(
            "continue",
            None,
            "Rho of the emerged mass above random signs is first known at the first probe after step 0.",
        )

    def test_one_row_has_no_interval_and_never_stops(self) -> None:
        history = Planted().rho(stepped(NAN, 0.9, 0.1, 0.1, 0.1, 0.1), half=NAN).history()
        assert replay(rho_of_emerged(), history).stop_step is None
        mass = Planted().mass(stepped(NAN, -3, -3, -3, -3, -3), half=NAN).history()
        assert replay(emerged_mass_settled(), mass).stop_step is None

    def test_missing_steps_neither_count_nor_reset(self) -> None:
        planted = Planted().loss(stepped(5, 4, 3, 3, 3, 3)).rho(stepped(NAN, 0.6, 0.5, NAN, 0.5, 0.5))
        history = planted.history()
        assert rho_of_emerged()(history.until(4)).action == "continue"
        assert replay(rho_of_emerged(), history).stop_step == 16

    def test_gamma_against_all_baselines_together(self) -> None:
        history = Planted().gamma(stepped(NAN, 0.6, 0.4, 0.4, 0.4)).gamma(stepped(NAN, 0.1, 0.9), "other").history()
        would = replay(gamma_of_emerged(), history)
        assert (would.keep_step, would.stop_step) == (1, 8)
        assert replay(gamma_of_emerged(baseline="other"), history).keep_step == 2

    def test_without_a_baseline_gamma_says_so_and_goes_on(self) -> None:
        decision = gamma_of_emerged()(Planted().rho(stepped(NAN, 0.5, 0.5)).history())
        assert decision.action == "continue"
        assert decision.keep_step is None
        assert "needs a baseline model, and there is none" in decision.reason

    def test_forgetting_in_both_directions(self) -> None:
        """The old way fades from -5 to -2 and then rests."""
        history = Planted().mass(stepped(-5, -4, -3, -2.5, -2.0, -2.01, -1.98, -2.0)).history()
        settled = replay(emerged_mass_settled(), history)
        assert (settled.keep_step, settled.stop_step) == (8, 64)
        assert "came to rest at step 8" in settled.reason
        assert replay(emerged_mass(direction=1), history).stop_step is None
        least = replay(emerged_mass(), history)
        assert (least.keep_step, least.stop_step) == (1, 8), "lower is better: the first probe, as it must"

    def test_settled_sees_a_slow_creep(self) -> None:
        """Each gain is within the interval, but together they are not."""
        history = Planted().mass({step: -5 + 0.02 * step for step in range(1, 12)}).history()
        assert replay(emerged_mass_settled(), history).stop_step is None


class TestTogether:
    RULE = Together(LossPatience(), rho_of_emerged())

    def test_the_signal_chooses_among_steps_that_loss_cannot_tell_apart(self) -> None:
        """Step 4 has the lowest loss; step 8's interval reaches it, step 2's does not."""
        history = Planted().loss(stepped(5, 4, 3, 2, 2.03)).rho(stepped(NAN, 0.9, 0.8, 0.4, 0.6)).history()
        decision = self.RULE(history)
        assert (decision.action, decision.keep_step) == ("keep", 8)
        assert "cannot tell steps 4, 8 apart; of these, rho of the emerged mass" in decision.reason

    def test_differences_paired_by_row_are_sharper(self) -> None:
        planted = Planted().loss(stepped(5, 2.2, 2.1, 2, 2.1), half=1.0).rho(stepped(NAN, 0.9, 0.5, 0.4, 0.7))
        assert self.RULE(planted.history()).keep_step == 1, "unpaired, nothing can be told apart"
        for later, earlier, value in ((4, 1, -0.2), (4, 2, -0.1), (8, 4, 0.1)):
            half = 0.15 if later == 8 else 0.05
            planted.add("heldout_loss_difference", "select", {later: value}, half, baseline=f"step {earlier}")
        assert self.RULE(planted.history()).keep_step == 8

    def test_stops_with_the_loss(self) -> None:
        loss, rho = stepped(5, 2, 3, 3, 3), stepped(NAN, 0.5, 0.6, 0.7, 0.8)
        would = replay(self.RULE, Planted().loss(loss).rho(rho).history())
        assert (would.keep_step, would.stop_step) == (1, 8)

    def test_stops_earlier_where_loss_stands_still_and_the_signal_falls(self) -> None:
        loss = stepped(5, 2, 1.99, 1.98, 1.97, 1.96, 1.95)
        rho = stepped(NAN, 0.9, 0.7, 0.7, 0.7, 0.7, 0.7)
        history = Planted().loss(loss).rho(rho).history()
        assert replay(LossPatience(), history).stop_step is None
        would = replay(self.RULE, history)
        assert (would.keep_step, would.stop_step) == (1, 8)
        assert would.reason.endswith("is best at step 1, and it has stopped getting better.")

    def test_goes_on_while_loss_falls_whatever_the_signal_does(self) -> None:
        history = Planted().loss(stepped(7, 6, 5, 4, 3, 2)).rho(stepped(NAN, 0.9, 0.7, 0.6, 0.5, 0.4)).history()
        assert replay(rho_of_emerged(), history).stop_step == 8
        would = replay(self.RULE, history)
        assert (would.keep_step, would.stop_step) == (16, None)

    def test_without_a_baseline_the_loss_decides(self) -> None:
        rule = Together(LossPatience(), gamma_of_emerged())
        would = replay(rule, Planted().loss(stepped(5, 2, 2.01, 2.02, 2.03)).history())
        assert (would.keep_step, would.stop_step) == (1, 8)
        assert "is not known there" in would.reason

    def test_losses_without_intervals_are_never_alike(self) -> None:
        trainer = {"eval_loss": [(1, 2.0), (2, 2.0001), (4, 3.0)]}
        history = Planted().rho({1: 0.5, 2: 0.9, 4: 0.9}).history(trainer=trainer)
        assert self.RULE(history).keep_step == 1

    def test_without_a_loss_it_cannot_tell(self) -> None:
        assert self.RULE(Planted().rho({1: 0.5}).history()).keep_step is None


def test_every_default_rule_has_a_name_of_its_own_and_held_out_loss_decides() -> None:
    rules = default_rules()
    assert isinstance(rules[0], LossPatience)
    assert len({rule.name for rule in rules}) == len(rules)
    assert {rule.kind for rule in rules} == {"ours", "evaluation loss", "plain", "hindsight"}
    assert not [rule for rule in default_rules(baselines=False) if "gamma" in rule.name]


def test_nothing_probed_is_nothing_kept() -> None:
    for rule in default_rules():
        would = replay(rule, Planted().history())
        assert (would.keep_step, would.stop_step) == (None, None)
        assert rule(Planted().history()).action == "continue"


def test_the_module_is_public() -> None:
    assert stopping.replay is replay
    assert all(hasattr(stopping, name) for name in stopping.__all__)


class Seen:
    """A rule that wraps another and remembers what it was shown."""

    kind = "plain"
    name = "seen"

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.steps: list[int] = []

    def __call__(self, history: History) -> Decision:
        self.steps.append(max(history.steps))
        return self.rule(history)


def test_replay_ends_at_the_stop() -> None:
    seen = Seen(LossPatience(patience=1))
    assert replay(seen, Planted().loss(stepped(3, 2, 2.5, 1, 1)).history()).stop_step == 2
    assert seen.steps == [0, 1, 2]


numbers = st.one_of(st.floats(-2, 2), st.just(NAN))


def planted_from(columns: Sequence[Sequence[float]]) -> tuple[Planted, dict[str, list[tuple[int, float]]]]:
    planted, steps = Planted(), [0, 1, 2, 4, 8, 16, 32]
    for column, plant in zip(columns, (planted.loss, planted.rho, planted.gamma, planted.mass), strict=False):
        plant(dict(zip(steps, column, strict=False)))
    planted.add("count", "all", dict(zip(steps, columns[4], strict=False)), rule="fixed", tau=0.03)
    planted.add("heldout_accuracy", "confirm", dict(zip(steps, columns[5], strict=False)))
    return planted, {"eval_loss": [(step, value) for step, value in zip(steps, columns[6], strict=False)]}


@settings(max_examples=60)
@given(columns=st.lists(st.lists(numbers, min_size=7, max_size=7), min_size=7, max_size=7), cut=st.integers(0, 6))
def test_a_decision_rests_on_nothing_that_comes_later(columns: list[list[float]], cut: int) -> None:
    """A history cut at a step, and one of a training that has come no further, give the same decisions."""
    last = [0, 1, 2, 4, 8, 16, 32][cut]
    epochs = {step: step / 8 for step in (1, 2, 4, 8, 16, 32)}
    planted, trainer = planted_from(columns)
    shorter, logged = planted_from([column[: cut + 1] for column in columns])
    whole = planted.history(epochs=epochs, trainer=trainer)
    begun = {step: epoch for step, epoch in epochs.items() if step <= last}
    so_far = shorter.history(epochs=begun, trainer={name: pairs[: cut + 1] for name, pairs in logged.items()})
    assert whole.until(last).steps == so_far.steps
    for rule in default_rules(patience=2):
        assert rule(whole.until(last)) == rule(so_far)
        assert replay(rule, whole.until(last)) == replay(rule, so_far)
        full = replay(rule, whole)
        if full.stop_step is not None and full.stop_step <= last:
            assert replay(rule, so_far) == full


@given(st.lists(numbers, min_size=1, max_size=12), st.sampled_from(["worse", "settled"]), st.sampled_from([1, -1]))
def test_turning_a_signal_and_its_direction_changes_nothing(values: list[float], until: Any, direction: Any) -> None:
    def outcome(sign: int) -> tuple[int | None, int | None]:
        turned = {step + 1: sign * value for step, value in enumerate(values)}
        history = Planted().rho(turned, null=0.0).history()
        rule = SignalRule("x", "X", "rho", null="sign_flip", direction=direction * sign, until=until)
        would = replay(rule, history)
        return would.keep_step, would.stop_step

    assert outcome(1) == outcome(-1)
