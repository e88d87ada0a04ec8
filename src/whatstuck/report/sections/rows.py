"""Rows that did not stick: how many, why, what stayed wrong while the score went up, and every row to look at."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from whatstuck.report.causes import MEANINGS, NAMES, ORDER, bar, described, numeral, titled
from whatstuck.report.figures import Figure, Line
from whatstuck.report.metrics import Stat
from whatstuck.report.packing import longest_text, packed, script_json
from whatstuck.report.reading_rows import RowsRun, stat
from whatstuck.report.row_views import SORTS, Item, View, views
from whatstuck.report.sparkline import HEIGHT, WIDTH
from whatstuck.report.templating import style
from whatstuck.report.words import counted, measured, number, percent

PAGE = 50  # rows that stand in the page as plain HTML, and that the script shows at a time


def build(run: RowsRun, *, text: bool) -> dict[str, Any]:
    """What the section shows."""
    longest = longest_text(run.found)
    shown = views(run, text=text, longest=longest)
    unmeasured = run.causes["unexplained"].unmeasured if "unexplained" in run.causes else 0
    causes = bar({cause: counts.rows for cause, counts in run.causes.items()}, unmeasured)
    paper = bar(run.paper_causes)
    missing = {str(cause): str(why) for cause, why in (run.summary.get("not_measured") or {}).items()}
    return {
        "headline": _headline(run.summary, run.not_learned),
        "split": _split(run.summary),
        "numbers": _numbers(run.summary),
        "causes": causes,
        "causes_said": described(causes),
        "paper": paper if run.paper_causes else [],
        "paper_said": described(paper),
        "meanings": MEANINGS,
        "unmeasured_causes": missing,
        "not_measured": [(titled(cause), why) for cause, why in missing.items()],
        "statements": _statements(run),
        "figure": _figure(run),
        "contrast": _contrast(run),
        "table": bool(shown),
        "rows": shown[:PAGE],
        "blank": View("", "", {}, {}, {}, ()),
        "blank_item": Item("", {}),
        "page": PAGE,
        "total": run.not_learned,
        "held": len(shown),
        "cut": longest if _any_cut(run, longest) and text else 0,
        "sorts": SORTS,
        "cause_options": [(cause, titled(cause), run.causes[cause].rows) for cause in ORDER if cause in run.causes],
        "numerals": {cause: numeral(cause) for cause in NAMES},
        "spark": (WIDTH, HEIGHT),
        "data": script_json(packed(shown)),
        "script": style("rows.js"),
        "warnings": [str(warning) for warning in run.about.get("warnings") or []],
        "made": _made(run),
        "settings": _settings(run.about),
    }


def _headline(summary: Mapping[str, Any], not_learned: int) -> str:
    rows, unlearned = summary.get("rows"), summary.get("unlearned")
    if not isinstance(rows, int) or not isinstance(unlearned, int):
        return f"{counted(not_learned, 'row')} did not stick"
    if not not_learned:
        return f"All {rows:,} rows stuck" if rows != 1 else "The one row stuck"
    return f"{unlearned:,} of {counted(rows, 'row')} did not stick"


def _split(summary: Mapping[str, Any]) -> str:
    names = (("unlearned", "never right"), ("unstable", "right now and then"), ("learned", "right"))
    parts = [f"{summary[name]:,} {name} ({words})" for name, words in names if isinstance(summary.get(name), int)]
    return ", ".join(parts) + "." if parts else ""


def _numbers(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The shares of rows, each with what it means."""
    entries = (
        ("share_unlearned", "Unlearned", "Share of all rows: none of the finished model's answers is right."),
        ("paper_share", "By the paper's rule", "Share of all rows of which none of the first five answers is right."),
        (
            "miss_rate",
            "Missed by the screen",
            "Share of rows that did not stick among those that passed the screen, from a random sample of them.",
        ),
    )
    found = []
    for name, title, meaning in entries:
        measurement = stat(summary.get(name))
        known = measurement.value is not None
        found.append(
            {
                "title": title,
                "value": percent(measurement.value) if known else "not known",
                "interval": _interval(measurement) if known else "",
                "meaning": meaning,
            }
        )
    return found


def _interval(measurement: Stat) -> str:
    if measurement.low is None or measurement.high is None:
        return "no interval"
    return f"{percent(measurement.low).removesuffix(' %')} to {percent(measurement.high)}"


def _statements(run: RowsRun) -> list[str]:
    """What else must be known to read the numbers."""
    said = [str(statement) for statement in run.summary.get("statements") or []]
    training = run.about.get("training") or {}
    if training.get("sentence"):
        sentence = str(training["sentence"]).rstrip(".")
        said.append(f"{sentence[:1].upper()}{sentence[1:]}.")
    if run.summary.get("converged") is None:
        said.append("Whether the training had come to rest is not known.")
    said.append("This is one training. Which rows do not stick can differ with another seed.")
    return said


def _figure(run: RowsRun) -> Markup | None:
    if len(run.steps) < 2 or not any(point.value is not None for point in run.accuracy.values()):  # noqa: PLR2004 - two make a curve
        return None
    lines = [Line("all rows: right", "main", run.accuracy)]
    if any(point.value is not None for point in run.stayed.values()):
        lines.append(Line("unlearned rows: wrong so far", "stayed", run.stayed))
    figure = Figure(
        name="rows-stayed",
        title="Right rows, and rows that stayed wrong",
        text=_contrast(run) or "Share of rows that are right, over checkpoints.",
        lines=lines,
        share=True,
        reach=(0.0, 1.0),
    )
    return figure.over_steps(run.steps)


def _contrast(run: RowsRun) -> str:
    """The score against the rows that stayed wrong; nothing where it takes more checkpoints."""
    if len(run.steps) < 2:  # noqa: PLR2004 - two make a change
        return ""
    first, last = run.steps[0], run.steps[-1]
    before, after, stayed = run.accuracy[first], run.accuracy[last], run.stayed.get(last, Stat(None))
    if before.value is None or after.value is None:
        return ""
    said = (
        f"From step {first} to step {last} the share of rows that are right went from "
        f"{measured(before, share=True)} to {measured(after, share=True)}."
    )
    if stayed.value is None:
        return said
    said += (
        f" Of the rows that are unlearned in the end, {measured(stayed, share=True)} were wrong at every one of the "
        f"{len(run.steps)} checkpoints"
    )
    rose = before.high is not None and after.low is not None and after.low > before.high
    return f"{said}: the score went up, these same rows stayed wrong." if rose and stayed.value > 0 else f"{said}."


def _any_cut(run: RowsRun, longest: int) -> bool:
    names = ("prompt", "gold", "greedy", "top_wrong")
    return any(len(row[name] or "") > longest for row in run.found for name in names)


def _made(run: RowsRun) -> list[tuple[str, str]]:
    """How it was found, in pairs."""
    about = run.about
    data = about.get("data") or {}
    seconds = about.get("seconds")
    kinds = [f"{entry.get('step')} ({entry.get('kind')})" for entry in about.get("checkpoints") or []]
    name = str(data.get("path") or "").replace("\\", "/").rstrip("/").rsplit("/", maxsplit=1)[-1]
    pairs = [
        ("Model", run.model),
        ("Checkpoints", ", ".join(kinds)),
        ("Data", f"{name}, sha256 {str(data.get('sha256') or '')[:12]}" if name else ""),
        ("Scored in", str(about.get("dtype") or "")),
        ("Seed", str(about.get("seed", ""))),
        ("Took", f"{number(seconds)} s" if isinstance(seconds, int | float) else ""),
    ]
    return [(name, value) for name, value in pairs if value]


def _settings(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings and versions, those inside of others with both names."""
    pairs: list[tuple[str, str]] = []
    for name, value in [*(about.get("settings") or {}).items(), *(about.get("versions") or {}).items()]:
        inner = value.items() if isinstance(value, dict) else [("", value)]
        pairs += [(f"{name} {key}".strip(), part if isinstance(part, str) else json.dumps(part)) for key, part in inner]
    return pairs
