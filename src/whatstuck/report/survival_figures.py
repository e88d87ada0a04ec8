"""A small picture per variant: how many replies are right, and how many valid, over the training."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from whatstuck.report.figures import Figure, Line
from whatstuck.report.metrics import Stat
from whatstuck.report.reading_generalization import GeneralizationRun
from whatstuck.report.variant_table import SMALL
from whatstuck.report.words import UNKNOWN, percent

COLOURS = 6  # of arms in the style sheet; more arms begin again


def survival_figures(run: GeneralizationRun, variants: Sequence[Mapping[str, Any]], decoding: str) -> list[Markup]:
    """A small picture per variant: success and, thin, validity of each arm over steps."""
    steps = sorted({cell.step for cell in run.cells if cell.decoding == decoding})
    if len(steps) < 2:  # noqa: PLR2004 - two make a curve
        return []
    drawn = []
    for index, variant in enumerate(variants):
        name = str(variant["name"])
        lines, said = [], []
        for arm in run.arms:
            cells = run.over_steps(arm, name, decoding)
            colour, label = colour_of(run, arm), f"{arm}, " if len(run.arms) > 1 else ""
            success = {step: cell.success for step, cell in cells.items()}
            validity = {step: cell.validity for step, cell in cells.items()}
            if not any(stat.value is not None for stat in success.values()):
                continue
            lines.append(Line(f"{label}valid", f"{colour} valid", validity, thin=True))
            lines.append(Line(f"{label}right", colour, success))
            said.append(f"{label}right {_course(success)}, valid {_course(validity)}")
        if lines:
            title = f"{name}, old meaning scored" if variant["kind"] == "fake" else name
            text = f"Share of replies from the first to the last step: {'; '.join(said)}."
            nulls = [("by-chance", by_chance)] if (by_chance := chance_band(run, name, decoding)) else []
            figure = Figure(f"survives-{index}", title, text, lines, share=True, reach=(0.0, 1.0), nulls=nulls)
            drawn.append(figure.over_steps(steps))
    return drawn


def chance_band(run: GeneralizationRun, variant: str, decoding: str) -> dict[int, Stat]:
    """The band of chance, where it matters; of several arms, whose bands would cover each other, none."""
    cells = run.over_steps(run.arms[0], variant, decoding) if len(run.arms) == 1 else {}
    if not any((cell.chance.value or 0.0) >= SMALL for cell in cells.values()):
        return {}
    return {step: Stat(None, null_low=cell.chance.low, null_high=cell.chance.high) for step, cell in cells.items()}


def _course(series: Mapping[int, Stat]) -> str:
    values = [stat.value for stat in series.values() if stat.value is not None]
    return f"{percent(values[0])} to {percent(values[-1])}" if values else UNKNOWN


def colour_of(run: GeneralizationRun, arm: str) -> str:
    """CSS class of an arm's colour; the only arm has none of its own."""
    return f"arm{run.arms.index(arm) % COLOURS}" if len(run.arms) > 1 else "main"
