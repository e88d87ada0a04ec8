"""The page of `whatstuck compare`: several runs side by side, from numbers that are already there.

Each run has a letter, a colour and a dash, the same in every figure and table. What a pair of runs kept and lost is
said in a sentence, drawn as two bars and given in a table with intervals and chance.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from whatstuck.errors import WhatStuckError
from whatstuck.report.comparison_bars import longest
from whatstuck.report.comparison_pairs import Json, heldout_findings, letter, show_pair, stat, style_of
from whatstuck.report.figures import Figure, Line
from whatstuck.report.metrics import Stat
from whatstuck.report.templating import environment, style, write_page
from whatstuck.report.words import counted, listed, measured, number

MOST_BANDS = 3  # more areas than this hide each other
RULES = {"heldout_loss": "held-out loss", "eval_loss": "the trainer's eval_loss"}
FIGURES = (
    ("heldout_loss select", "Held-out loss, nats per token", "nats", False),
    ("heldout_accuracy select", "Held-out accuracy", "", True),
    ("eval_loss logged", "eval_loss as the trainer logged it", "nats", False),
    ("mass removed", "Removed mass per row", "log-odds", False),
    ("mass preserved", "Preserved mass per row", "log-odds", False),
    ("mass emerged", "Emerged mass per row", "log-odds", False),
    ("rho emerged", "rho of what emerged", "", True),
    ("gamma emerged", "gamma of what emerged", "", True),
)


def write_comparison(comparison: Json, out: Path, *, text: bool = True) -> Path:
    """Write the page of a comparison.

    Args:
        comparison: What `whatstuck.dynamics.comparing.compare_runs` found.
        out: The file to write.
        text: Whether to show the words of the interactions that differ most.

    Returns:
        The file.

    Raises:
        WhatStuckError: If it cannot be written.
    """
    if out.is_dir():
        raise WhatStuckError(f"{out} is a folder: give --out a file, such as compare.html")
    return write_page(out, render_comparison(comparison, text=text), "choose another --out")


def render_comparison(comparison: Json, *, text: bool = True) -> str:
    """The page as a string; see `write_comparison`."""
    runs, pairs = comparison["runs"], comparison["pairs"]
    template = environment().get_template("compare.html.j2")
    return template.render(
        style=style("page.css", "compare.css"),
        text=text,
        headline=_headline(runs),
        runs=[_decision(run, index) for index, run in enumerate(runs)],
        findings=heldout_findings(pairs),
        figures=_figures(runs),
        settings=[(row["name"], [_shown(value) for value in row["values"]]) for row in comparison["settings"]],
        pairs=[show_pair(pair, runs, top=longest(pairs), text=text) for pair in pairs],
    )


# --- decisions and curves


def _headline(runs: Sequence[Json]) -> str:
    said = [
        f"{letter(index)} keeps step {run['keep_step']}"
        if run["keep_step"] is not None
        else f"{letter(index)} cannot tell"
        for index, run in enumerate(runs)
    ]
    return ", ".join(said) if len(runs) < 4 else f"{len(runs)} runs side by side"  # noqa: PLR2004 - a line holds three


def _decision(run: Json, index: int) -> dict[str, Any]:
    last = run["steps"][-1]
    if run["stopped_at"] is not None:
        stop = f"stopped the training at step {run['stopped_at']}"
    elif run["stop_step"] is not None and run["stop_step"] < last:
        stop = f"step {run['stop_step']} would have been enough; it went on to {last}"
    elif run["stop_step"] is None and run["early_stop"] is not None:
        stop = f"its rule would have stopped too early, at step {run['early_stop']}"
    else:
        stop = f"nothing says that it should have ended before step {last}"
    kept = run["keep_step"] is not None
    epoch = f", epoch {number(run['epoch'])}" if run["epoch"] is not None else ""
    return {
        "letter": letter(index),
        "style": style_of(index),
        "name": run["name"],
        "model": run["model"],
        "kept": kept,
        "keep": f"keeps step {run['keep_step']}" if kept else "cannot tell",
        "compared": "" if kept and run["keep_step"] == run["step"] else f"compared at its last step, {run['step']}",
        "checkpoint": f"{run['checkpoint'] or 'not saved'}{epoch}",
        "stop": stop,
        "rule": RULES.get(run["rule"], run["rule"]) or "none",
        "confidence": run["confidence"] or "",
        "reason": run["reason"] or "No reason is recorded.",
        "facts": f"{counted(len(run['steps']), 'checkpoint')}, {counted(run['rows'], 'probed row')}",
        "diverged": listed(run["diverged"]),
    }


def _figures(runs: Sequence[Json]) -> list[Markup]:
    steps = sorted({step for run in runs for step in run["steps"]})
    figures: list[Markup] = []
    for index, (key, title, unit, share) in enumerate(FIGURES):
        found = {i: _points(run["curves"][key]) for i, run in enumerate(runs) if run["curves"].get(key)}
        if not found or (key == "eval_loss logged" and figures):
            continue
        bands = len(found) <= MOST_BANDS
        lines = [Line(letter(i), style_of(i), points, band=bands) for i, points in found.items()]
        rings = [
            Line(f"{letter(i)}, compared", f"chosen {style_of(i)}", {runs[i]["step"]: points[runs[i]["step"]]})
            for i, points in found.items()
            if runs[i]["step"] in points
        ]
        said = [
            f"{ring.label} at step {s}: {measured(p, unit, share=share)}"
            for ring in rings
            for s, p in ring.points.items()
        ]
        figure = Figure(
            name=f"curve-{index}",
            title=title,
            text="; ".join(said) or "No value is known at the steps compared.",
            lines=[*lines, *rings],
            share=share,
            unit=unit,
            nulls=[(style_of(i), points) for i, points in found.items()] if bands else (),
        )
        figures.append(figure.over_steps(sorted({*steps, *(step for points in found.values() for step in points)})))
    return figures


def _points(records: Sequence[Json]) -> dict[int, Stat]:
    return {record["step"]: stat(record) for record in records if record["value"] is not None}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return listed(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "—" if value is None else str(value)
