"""The decision on the first screen: keep, stop, signals and rules, each as the run folder has them and no further."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fake_metrics import BASELINE, SECOND, UPPER
from fake_run import DECIDES, OTHERS, RULE, FakeRun
from page_reader import Reader
from whatstuck.report import make_page
from whatstuck.report.figures import Figure, Line
from whatstuck.report.marks import Frame, Mark, draw_marks
from whatstuck.report.metrics import Metrics, Stat
from whatstuck.report.reading import Run, read_run
from whatstuck.report.rules import rule_table
from whatstuck.report.sections import ratios, trust
from whatstuck.report.sections import verdict as first_screen
from whatstuck.report.signals import choice_of_baseline, panels
from whatstuck.report.words import difference, measured

CASES = {
    "never": FakeRun(),
    "could have": FakeRun(live=True, several=True, stop=48, steps=(0, 1, 2, 4, 8, 16, 32, 48, 64)),
    "stopped": FakeRun(live=True, stop=64, stopped=True),
    "at the end": FakeRun(stop=64),
    "old": FakeRun(old=True),
    "one step": FakeRun(steps=(0,), keep=0),
    "no rows": FakeRun(heldout=False, live=True),
}

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Folder of a case, written once."""
    return cache(lambda case: CASES[case].write(tmp_path_factory.mktemp("case") / "run"))


def changed(run: Run, *, track: dict[str, Any] | None = None, verdict: dict[str, Any] | None = None) -> Run:
    return replace(run, track={**run.track, **(track or {})}, verdict={**run.verdict, **(verdict or {})})


def first_section(page: str) -> str:
    return page[page.index('id="verdict"') : page.index('id="changes"')]


# --- keep and stop


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("never", "The rule never said stop, up to step 64, the last one."),
        ("could have", "Training could have stopped at step 48; it went on to step 64."),
        ("stopped", "The rule stopped the training at step 64."),
        ("at the end", "The rule said stop at step 64, where the training ended."),
        ("old", ""),  # no rule was asked
        ("one step", ""),  # there was nothing to stop
        ("no rows", ""),
    ],
)
def test_where_training_stopped_or_could_have(folder: Folder, case: str, said: str) -> None:
    assert first_screen.build(read_run(folder(case)), text=True)["stop"] == said


def test_a_step_that_diverged_counts_as_reached(folder: Folder) -> None:
    run = changed(read_run(folder("at the end")), track={"diverged": [80]})
    assert (
        first_screen.build(run, text=True)["stop"] == "Training could have stopped at step 64; it went on to step 80."
    )


def test_a_stop_before_the_kept_step_is_no_advice(folder: Folder) -> None:
    run = read_run(folder("never"))
    early = changed(run, verdict={"signals": {**run.verdict["signals"], "early_stop": 4}})
    shown = first_screen.build(early, text=True)
    assert shown["stop"] == "The rule would have stopped too early, at step 4."
    assert {mark.label for mark in first_screen._marks(early, early.steps)} == {"keep 32"}


def test_a_live_run_names_its_protected_copy_and_what_was_saved(folder: Folder) -> None:
    text = Reader(make_page(folder("could have"))).text
    assert "checkpoint-32 protected copy kept/checkpoint-32" in text
    assert "9 steps probed in training 3 checkpoints saved" in text
    assert f"decided by {DECIDES}" in text
    assert "No checkpoint of step" not in text


def test_a_kept_step_without_a_checkpoint_is_said_to_have_none(folder: Folder) -> None:
    run = read_run(folder("could have"))
    bare = [{"step": entry["step"], "path": None, "kind": "live"} for entry in run.track["checkpoints"]]
    shown = first_screen.build(changed(run, track={"checkpoints": bare}), text=True)
    assert shown["unsaved"]
    assert shown["folder"] == ""
    assert "0 checkpoints saved" in shown["facts"]
    assert not first_screen.build(read_run(folder("old")), text=True)["unsaved"]


def test_kept_and_stop_step_are_marked_in_every_curve(folder: Folder) -> None:
    section = first_section(make_page(folder("could have")))
    figures = section.count('<svg viewBox="0 0 360')
    assert figures == 6  # two held-out metrics, three signals, the trainer's loss
    assert section.count('class="mark keep"') == section.count(">keep 32<") == figures
    assert section.count('class="mark stop"') == section.count(">stop 48<") == figures
    stopped = first_section(make_page(folder("stopped")))
    assert ">stopped 64<" in stopped
    assert ">stop 64<" not in stopped


def test_one_mark_where_kept_and_stop_are_the_same_step(folder: Folder) -> None:
    run = changed(read_run(folder("never")), verdict={"stop_step": 32})
    assert {mark.label for mark in first_screen._marks(run, run.steps)} == {"keep, stop 32"}
    assert first_screen._marks(run, (0, 1, 2)) == []  # outside the picture


@pytest.mark.parametrize("gap", range(0, 300, 12))
@pytest.mark.parametrize("start", [54, 120, 180, 240, 300])
def test_labels_of_marks_do_not_touch_each_other_or_the_title(start: int, gap: int) -> None:
    frame = Frame(360, 38, 194, "Held-out loss, nats per token")
    marks = [Mark(start, "keep 1234"), Mark(min(start + gap, 348), "stopped 1234", "stop")]
    drawn = draw_marks(marks, lambda x: x, frame)
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)<', drawn)
    boxes = [(0.0, len(frame.title) * 7.0, 15.0)]
    for x, y, anchor, label in found:
        left = float(x) - (len(label) * 7 if anchor == "end" else 0)
        boxes.append((left, left + len(label) * 7, float(y)))
    assert len(boxes) == 3
    for index, (left, right, y) in enumerate(boxes):
        assert 0 <= left < right <= 360
        assert all(right <= other or end <= left for other, end, at in boxes[:index] if at == y)


# --- signals


def test_the_signals_are_those_of_the_folder(folder: Folder) -> None:
    run = read_run(folder("could have"))
    records = pq.read_table(folder("could have") / "metrics.parquet").to_pylist()
    shown = panels(run, [])
    wanted = {
        "rho": ("sign_flip", "", True),
        "mass": ("mismatched_row", "", False),
        "gamma": ("order_stratified", "pooled", True),
    }
    assert [panel.null[0] for panel in shown] == [null for null, _, _ in wanted.values()]
    for panel, (metric, (null, baseline, share)) in zip(shown, wanted.items(), strict=True):
        (record,) = (
            r
            for r in records
            if (r["metric"], r["set"], r["step"], r["threshold_rule"], r["null_kind"], r["baseline"], r["order"])
            == (metric, "emerged", 32, "none", null, baseline, 0)
        )
        value = measured(Stat(record["value"], record["low"], record["high"]), share=share)
        assert panel.said.startswith(f"At step 32: {value}; ")
        assert f'class="null {null}"' in panel.picture
        assert 'class="band"' in panel.picture


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.50, 0.40, 0.60, "more is shared than by chance"),
        (0.50, 0.25, 0.75, "above chance, but its interval reaches it"),
        (0.05, 0.02, 0.08, "less is shared than by chance"),
        (0.05, 0.00, 0.15, "below chance, but its interval reaches it"),
        (0.20, 0.00, 0.40, "no more is shared than by chance"),
        (0.50, None, None, "more is shared than by chance"),
    ],
)
def test_a_signal_is_beyond_chance_only_with_its_interval(
    folder: Folder, value: float, low: float | None, high: float | None, said: str
) -> None:
    stat = Stat(value, low, high, "order_stratified", 0.2, 0.1, 0.3)
    (gamma,) = panels(gammas(read_run(folder("never")), pooled={32: stat}), [])
    assert gamma.said.endswith(f"; {said}.")


def test_other_choices_of_baseline_stand_thin_beside_the_pool(folder: Folder) -> None:
    *_, gamma = panels(read_run(folder("could have")), [])
    assert gamma.picture.count('class="series emerged thin"') == 2
    assert gamma.picture.count('class="series upper thin"') == 1
    assert gamma.picture.count('class="band"') == 1  # intervals of the thin lines are said, not drawn
    assert "2 baselines pooled" in gamma.about
    assert f"{UPPER}, an upper bound, 64" in gamma.picture
    *_, alone = panels(read_run(folder("never")), [])
    assert "thin" not in alone.picture
    assert BASELINE in alone.about


def test_at_the_first_checkpoint_nothing_can_have_emerged(folder: Folder) -> None:
    assert panels(read_run(folder("one step")), []) == []
    assert "The signals beside it" not in make_page(folder("one step"))


def gammas(run: Run, **values: dict[int, Stat]) -> Run:
    """The run with nothing but these gammas of what emerged; an underscore stands for a space."""
    cells = {
        ("gamma", "emerged", "both", 0, "none", None, name.replace("_", " ")): {
            step: [replace(stat, null_kind="order_stratified")] for step, stat in series.items()
        }
        for name, series in values.items()
    }
    return replace(run, metrics=Metrics("setting", _cells=cells))


def test_how_much_the_choice_of_baseline_matters(folder: Folder) -> None:
    run = changed(read_run(folder("never")), track={"baselines": [{"name": "a"}, {"name": "b"}]})
    pooled = {16: Stat(0.30, 0.25, 0.35), 32: Stat(0.40, 0.30, 0.50)}
    models = {"a": {32: Stat(0.4)}, "b": {32: Stat(0.4)}}
    near = {16: Stat(0.20), 32: Stat(0.45)}
    far = {16: Stat(0.31), 32: Stat(0.52)}

    (inside,) = choice_of_baseline(gammas(run, pooled=pooled, pooled_without_a=near, **models))
    assert inside == (
        "gamma at step 32 is 40 % (30 to 50) with the 2 baselines pooled, 45 % without a: the choice moves it less "
        "than its interval over rows. Leaving one out moves it by 10 points at most (step 16)."
    )
    (outside,) = choice_of_baseline(gammas(run, pooled=pooled, pooled_without_a=near, pooled_without_b=far, **models))
    assert "45 % without a and 52 % without b: it depends on the choice beyond its interval over rows" in outside
    assert outside.endswith("by 12 points at most (step 32).")

    (alone,) = choice_of_baseline(gammas(run, pooled=pooled, a=models["a"]))
    assert alone == "a is the only baseline: how much its choice matters is not known."
    (unpooled,) = choice_of_baseline(gammas(run, **models))
    assert "against all baselines together is not in this run" in unpooled
    (none,) = choice_of_baseline(gammas(run))
    assert "none was given (--baseline)" in none
    (unknown,) = choice_of_baseline(gammas(run, a={32: Stat(None)}))
    assert unknown == "gamma against a baseline is not known in this run."


def test_the_upper_bound_is_no_baseline_anywhere(folder: Folder) -> None:
    run = read_run(folder("could have"))
    assert choice_of_baseline(run)[-1].startswith("Upper bound, no baseline: the same model, trained with another seed")
    headings = [gamma["heading"] for gamma in ratios.build(run, text=True)["gammas"]]
    assert headings[:3] == ["all baselines pooled", BASELINE, SECOND]
    assert headings[3].startswith(UPPER)
    assert headings[3].endswith("an upper bound, no baseline")
    made = dict(trust.build(run, text=True)["made"])
    assert made["Compared with"] == f"{BASELINE} and {SECOND}"
    assert made["Upper bound"] == UPPER
    # an upper bound alone leaves gamma without a baseline
    only = changed(
        gammas(run, another_seed={32: Stat(0.6, 0.5, 0.7)}),
        track={"baselines": [{"name": UPPER, "role": "upper bound"}]},
    )
    assert [panel for panel in panels(only, []) if "gamma" in panel.picture] == []


def test_who_decides_is_said(folder: Folder) -> None:
    def decides(run: Run) -> str:
        return str(first_screen.build(run, text=True)["decides"])

    run = read_run(folder("never"))
    earned = "the signals are shown and decide nothing until a study has earned them that."
    assert decides(run) == f"Held-out loss decides; {earned}"
    assert decides(read_run(folder("old"))) == f"Held-out loss decides; {earned}"
    assert decides(read_run(folder("no rows"))) == f"Nothing decides here; {earned}"
    ours = changed(run, verdict={"rule": "rho of the emerged"})
    assert decides(ours) == (
        "Rho of the emerged decides, because this run was told so; no study has earned it that yet."
    )


# --- rules


def test_rules_stand_in_the_open_by_kind_with_what_their_choice_costs(folder: Folder) -> None:
    run = read_run(folder("could have"))
    table = rule_table(run)
    assert table is not None
    assert [heading for heading, _ in table.groups] == [
        "Decides",
        "From the interactions",
        "From held-out rows",
        "Plain",
        "In hindsight: not available while training",
        "For comparison",
    ]
    lines = {line.name: line for _, group in table.groups for line in group}
    assert set(lines) == {DECIDES, *OTHERS, "no training"}
    for name in (DECIDES, RULE):
        assert (lines[name].keeps, lines[name].stops, lines[name].cost) == ("step 32", "step 48", "")
    assert lines["oracle, accuracy"].stops == ""
    assert (lines["1 epoch"].saved, lines["last checkpoint"].saved) == (False, True)
    loss = run.metrics.series("heldout_loss", "confirm")
    accuracy = run.metrics.series("heldout_accuracy", "confirm")
    for name, step in (("rho of the emerged", 4), ("last checkpoint", 64), ("no training", 0)):
        assert lines[name].loss == measured(loss[step], "nats")
        assert lines[name].accuracy == measured(accuracy[step], share=True)
    more = run.metrics.series("heldout_loss_difference", "confirm", baseline="step 32")
    assert lines["last checkpoint"].cost == difference(more[64])
    assert more[4].value is not None
    assert more[4].value > 0  # less is lost at step 32, so step 4 costs more
    assert lines["rho of the emerged"].cost == difference(more[4])
    assert lines["rho of the emerged"].cost.startswith(f"+{more[4].value:.2g} (+")

    section = first_section(make_page(folder("could have")))
    assert "<details" not in section[: section.index("</table>")]


def test_a_choice_in_hindsight_is_marked_as_flattered_by_the_rows_that_made_it(folder: Folder) -> None:
    table = rule_table(read_run(folder("could have")))
    assert table is not None
    assert [line.name for _, group in table.groups for line in group if line.flattered] == ["oracle, accuracy"]
    text = Reader(make_page(folder("could have"))).text
    assert text.count("Chosen by these rows: flattered.") == 1
    assert "rows that had no say in a choice, but for those in hindsight." in text
    assert "rows that had no say in any choice" not in text
    assert "Whether the trainer's eval_loss was measured on them too is not known." in text

    old = Reader(make_page(folder("old"))).text
    assert "rows that had no say in any choice." in old
    assert "flattered" not in old
    assert "measured on them too" not in old


def test_an_oracle_that_decided_is_marked_too(folder: Folder) -> None:
    table = rule_table(changed(read_run(folder("never")), verdict={"rule": "oracle, accuracy"}))
    assert table is not None
    assert [line.name for line in table.groups[0][1] if line.flattered] == ["oracle, accuracy"]


def test_runs_of_before_there_were_kinds_keep_their_rules(folder: Folder) -> None:
    table = rule_table(read_run(folder("old")))
    assert table is not None
    assert [(heading, [line.name for line in lines]) for heading, lines in table.groups] == [
        ("Decides", ["held-out loss"]),
        ("Other rules", ["before emerged strength rises"]),
        ("For comparison", ["no training"]),
    ]
    assert not table.stops
    assert not table.paired


def test_without_rows_set_aside_the_table_has_no_costs(folder: Folder) -> None:
    table = rule_table(read_run(folder("no rows")))
    assert table is not None
    assert not table.costs
    assert "Decides" not in [heading for heading, _ in table.groups]
    bare = changed(read_run(folder("no rows")), verdict={"other_rules": {}})
    assert rule_table(bare) is None


# --- what probing cost


@pytest.mark.parametrize(
    ("live", "state", "said"),
    [
        ({}, "fine", "took 4.2 % of the training time (41.2 s beside 981 s): within the budget of 5 %."),
        ({"share": 0.08}, "mind", "took 8 % of the training time (41.2 s beside 981 s): above the budget of 5 %."),
        ({"budget": None, "probe_seconds": None}, "fine", "took 4.2 % of the training time. No budget was set."),
        ({"share": None}, "unknown", "was not measured"),
    ],
)
def test_the_cost_of_probing_beside_its_budget(folder: Folder, live: dict[str, Any], state: str, said: str) -> None:
    run = read_run(folder("could have"))
    shown = trust.build(changed(run, track={"live": {**run.live, **live}}), text=True)
    (cost,) = (check for check in shown["checks"] if check["name"] == "Cost of probing")
    assert cost["state"] == state
    assert said in cost["sentence"]


def test_what_was_chosen_for_the_budget_is_shown_for_live_runs_only(folder: Folder) -> None:
    text = Reader(make_page(folder("could have"))).text
    assert "What was chosen to fit the training time" in text
    assert "One probe of 20 rows took 5.1 s" in text
    assert "6 words, 20 rows, 80 held-out rows, planned at 9 steps, not asked to stop the training" in text
    assert text.count("probed in training, not saved") == 6
    after = Reader(make_page(folder("never"))).text
    assert "Cost of probing" not in after
    assert "What was chosen to fit the training time" not in after


def test_live_sentences_are_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert('x')</script>"
    copy = CASES["could have"].write(tmp_path / "run")
    run = json.loads((copy / "run.json").read_text())
    run["track"]["live"] |= {"log": [hostile], "kept": hostile}
    (copy / "run.json").write_text(json.dumps(run))
    verdict = json.loads((copy / "verdict.json").read_text())
    verdict |= {"rule": hostile, "other_rules": {hostile + "2": {"keep_step": 2, "reason": hostile, "kind": hostile}}}
    (copy / "verdict.json").write_text(json.dumps(verdict))
    page = make_page(copy)
    assert hostile not in page
    assert Reader(page).text.count(hostile) >= 5


def test_intervals_of_a_thin_line_do_not_stretch_the_picture() -> None:
    wide = {0: Stat(0.5, -9.0, 9.0), 1: Stat(0.6, -9.0, 9.0)}

    def drawn(*, thin: bool) -> str:
        return Figure("f", "t", "d", [Line("l", "upper", wide, thin=thin)]).over_steps((0, 1))

    assert ">10<" in drawn(thin=False)
    assert ">10<" not in drawn(thin=True)
