"""The signals on the first screen: rho, mass and gamma of what emerged, each beside its null.

They stand under the curve that decides, so that a reader can see whether they would have said the same. Which model
gamma is measured against is a choice, so what another choice would have given is drawn and said too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from whatstuck.report.figures import Figure, Line
from whatstuck.report.marks import Mark
from whatstuck.report.metrics import POOLED, WITHOUT, Stat
from whatstuck.report.reading import Run
from whatstuck.report.words import (
    GAMMA_WORDS,
    MASS_WORDS,
    RHO_WORDS,
    against_null,
    counted,
    listed,
    measured,
    number,
    percent,
)

Points = dict[int, Stat]


@dataclass(frozen=True, slots=True)
class Panel:
    """A signal: its picture, what it measures, its null (CSS class and words), where it stands."""

    picture: Markup
    about: str
    null: tuple[str, str]
    said: str


@dataclass(frozen=True, slots=True)
class Gammas:
    """gamma of what emerged.

    Attributes:
        baselines: Names of the models that it was measured against, upper bounds left out.
        main: Against all of them together.
        without: Against all but one, by the name of that one.
        upper: Against the model itself, trained with another seed, by name.
    """

    baselines: Sequence[str]
    main: Points
    without: Mapping[str, Points]
    upper: Mapping[str, Points]


def panels(run: Run, marks: Sequence[Mark]) -> list[Panel]:
    """The signals that this run has, without a threshold.

    Args:
        run: The run.
        marks: Steps to mark, the same in every figure.
    """
    gammas = read_gammas(run)
    found = [
        _Signal(
            "rho",
            "rho of what emerged",
            run.metrics.series("rho", "emerged", null="sign_flip"),
            "The part of the emerged mass that does not cancel.",
            ("sign_flip", "random signs"),
            RHO_WORDS,
        ),
        _Signal(
            "mass",
            "Emerged mass, log-odds",
            run.metrics.series("mass", "emerged", null="mismatched_row"),
            "What is there now and was not at step 0, per row.",
            ("mismatched_row", "the same beside step 0 of another row"),
            MASS_WORDS,
            share=False,
        ),
        _Signal(
            "gamma",
            "gamma of what emerged",
            gammas.main,
            _asked(gammas),
            ("order_stratified", "theirs, shuffled within each order"),
            GAMMA_WORDS,
            beside=(
                *(Line(f"without {name}", "emerged", points, thin=True) for name, points in gammas.without.items()),
                *(Line(f"{name}, an upper bound", "upper", points, thin=True) for name, points in gammas.upper.items()),
            ),
        ),
    ]
    # at the first checkpoint nothing has emerged, whatever the numbers are
    return [signal.panel(run, marks) for signal in found if any(step > run.before for step in signal.points)]


@dataclass(frozen=True, slots=True)
class _Signal:
    """One panel under construction."""

    name: str
    title: str
    points: Points
    about: str
    null: tuple[str, str]
    words: Mapping[str, str]
    share: bool = True
    beside: Sequence[Line] = ()

    def panel(self, run: Run, marks: Sequence[Mark]) -> Panel:
        step = shown_step(run, self.points)
        stat = self.points[step]
        said = f"At step {step}: {measured(stat, share=self.share)}; {_beside_chance(stat, self.words)}."
        figure = Figure(
            name=f"signal-{self.name}",
            title=self.title,
            text=f"{self.about} {said}",
            lines=[*self.beside, Line(self.name, "emerged", self.points)],
            share=self.share,
            nulls=[(self.null[0], self.points)],
            marks=marks,
        )
        return Panel(figure.over_steps(run.steps), self.about, self.null, said)


def _beside_chance(stat: Stat, words: Mapping[str, str]) -> str:
    """Where a signal stands beside its null; its words only where its own interval is clear of the null too."""
    side = against_null(stat)
    reaches = {
        "above": stat.low is not None and stat.null_high is not None and stat.low <= stat.null_high,
        "below": stat.high is not None and stat.null_low is not None and stat.high >= stat.null_low,
    }
    return f"{side} chance, but its interval reaches it" if reaches.get(side) else words[side]


def shown_step(run: Run, points: Points) -> int:
    """The step that sentences are about: the kept one, else (nothing has emerged at step 0) the last."""
    return run.kept if run.kept in points and run.kept != run.before else max(points)


def read_gammas(run: Run) -> Gammas:
    """Gamma of what emerged against each choice of baselines; runs with one baseline need no pool."""

    def series(baseline: str) -> Points:
        return run.metrics.series("gamma", "emerged", baseline=baseline, null="order_stratified")

    def several(names: Sequence[str], prefix: str = "") -> dict[str, Points]:
        found = {name: series(prefix + name) for name in names}
        return {name: points for name, points in found.items() if points}

    models = several([name for name in run.metrics.baselines() if name not in run.upper_bounds])
    alone = next(iter(models.values())) if len(models) == 1 else {}
    return Gammas(
        baselines=tuple(models),
        main=series(POOLED) or alone,
        without=several(run.metrics.left_out(), WITHOUT) if len(models) > 1 else {},
        upper=several(run.upper_bounds),
    )


def _asked(gammas: Gammas) -> str:
    whom = gammas.baselines[0] if len(gammas.baselines) == 1 else f"{counted(len(gammas.baselines), 'baseline')} pooled"
    thin = ["one left out"] if gammas.without else []
    thin += ["dotted, an upper bound"] if gammas.upper else []
    return f"The part of it that {whom} has too, with the same sign." + (f" Thin: {listed(thin)}." if thin else "")


def choice_of_baseline(run: Run) -> list[str]:
    """How much gamma depends on the choice of baseline, and what the upper bound reaches, in sentences."""
    gammas = read_gammas(run)
    sentences = []
    if not run.metrics.baselines():
        sentences.append("gamma needs another model to compare with, and none was given (--baseline).")
    elif not gammas.baselines:
        sentences.append("gamma against a baseline is not known in this run.")
    elif len(gammas.baselines) == 1:
        sentences.append(f"{gammas.baselines[0]} is the only baseline: how much its choice matters is not known.")
    elif not gammas.main:
        sentences.append("gamma against all baselines together is not in this run: run whatstuck track on it again.")
    elif gammas.without:
        sentences.append(_left_out(gammas, shown_step(run, gammas.main)))
    for points in gammas.upper.values():
        step = shown_step(run, points)
        sentences.append(
            "Upper bound, no baseline: the same model, trained with another seed, has "
            f"{measured(points[step], share=True)} of it at step {step}."
        )
    return sentences


def _left_out(gammas: Gammas, step: int) -> str:
    """Whether another choice of baselines would have said something else."""
    pooled = gammas.main[step]
    here = {name: points[step].value or 0.0 for name, points in gammas.without.items() if step in points}
    text = f"gamma at step {step} is {measured(pooled, share=True)} with the {len(gammas.baselines)} baselines pooled"
    if here:
        text += f", {listed(f'{percent(value)} without {name}' for name, value in here.items())}"
    if here and pooled.low is not None and pooled.high is not None:
        inside = all(pooled.low <= value <= pooled.high for value in here.values())
        text += ": " + (
            "the choice moves it less than its interval over rows"
            if inside
            else "it depends on the choice beyond its interval over rows"
        )
    moves = [
        (abs((stat.value or 0.0) - (gammas.main[at].value or 0.0)), at)
        for points in gammas.without.values()
        for at, stat in points.items()
        if at in gammas.main
    ]
    if moves:
        largest, at = max(moves)
        text += f". Leaving one out moves it by {number(100 * largest)} points at most (step {at})"
    return f"{text}."
