"""Rows that did not stick: how many, why, what stayed wrong while the score went up, and every row to look at.

Rows are counted from the tables that are shown, so that headline, bars and table agree; shares come with the summary.
"""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from whatstuck.report.causes import MEANINGS, NAMES, ORDER, Share, bar, described, numeral, titled
from whatstuck.report.figures import Figure, Line
from whatstuck.report.metrics import Stat
from whatstuck.report.naming import last_part, setting_pairs, without_folders
from whatstuck.report.packing import longest_text, packed, script_json
from whatstuck.report.reading_rows import NOT_ASKED, RowsRun, stat
from whatstuck.report.row_views import SORTS, Item, View, views
from whatstuck.report.sparkline import HEIGHT, WIDTH
from whatstuck.report.templating import style
from whatstuck.report.words import counted, listed, measured, number, percent

PAGE = 50  # rows that stand in the page as plain HTML, and that the script shows at a time


def build(run: RowsRun, *, text: bool) -> dict[str, Any]:
    """What the section shows."""
    longest = longest_text((*run.found, *run.not_asked))
    shown = views(run, text=text, longest=longest)
    first = shown[: len(run.found)] or shown  # without a row that did not stick, the others are all there is to see
    causes, paper = _causes(run), bar(run.paper_causes, run.paper_unknown, "not known")
    missing = {str(cause): without_folders(str(why)) for cause, why in (run.summary.get("not_measured") or {}).items()}
    return {
        "headline": _headline(run),
        "split": _split(run),
        "passed_over": _passed_over(run),
        "numbers": _numbers(run.summary),
        "causes": causes,
        "causes_said": described(causes),
        "paper": paper if run.paper_causes else [],
        "paper_unknown": run.paper_unknown,
        "paper_said": described(paper),
        "meanings": MEANINGS,
        "unmeasured_causes": missing,
        "not_measured": [(titled(cause), why) for cause, why in missing.items()],
        "statements": _statements(run),
        "figure": _figure(run),
        "contrast": _contrast(run),
        "table": bool(shown),
        "rows": first[:PAGE],
        "blank": View("", "", {}, {}, {}, ()),
        "blank_item": Item("", {}),
        "page": PAGE,
        "total": run.not_learned,
        "held": len(run.found),
        "listed": len(first),
        "unasked": run.unasked,
        "unasked_held": len(run.not_asked),
        "verdict_options": _verdict_options(run),
        "cut": longest if _any_cut(run, longest) and text else 0,
        "sorts": SORTS,
        "cause_options": [(cause, titled(cause), run.causes[cause].rows) for cause in ORDER if cause in run.causes],
        "numerals": {cause: numeral(cause) for cause in NAMES},
        "spark": (WIDTH, HEIGHT),
        "data": script_json(packed(shown)),
        "script": style("rows.js"),
        "warnings": [without_folders(str(warning)) for warning in run.about.get("warnings") or []],
        "made": _made(run),
        "settings": [
            *setting_pairs(run.about.get("settings") or {}, text=text),
            *setting_pairs(run.about.get("versions") or {}, text=text),
        ],
    }


def _causes(run: RowsRun) -> list[Share]:
    """The bar of causes: rows that were not measured in full are apart from those that nothing explains."""
    counts = {cause: found.rows for cause, found in run.causes.items()}
    unmeasured = run.causes["unexplained"].unmeasured if "unexplained" in run.causes else 0
    if unmeasured:
        counts["unexplained"] -= unmeasured
    return bar(counts, unmeasured, "no cause found, but not everything was measured")


def _headline(run: RowsRun) -> str:
    if not run.judged:
        return "No row could be asked"
    if not run.not_learned:
        all_rows = f"All {run.judged:,} rows" if run.judged != 1 else "The one row"
        return f"{all_rows} that could be asked stuck" if run.reasons else f"{all_rows} stuck"
    share = stat(run.summary.get("share_not_learned")).value or 0.0
    more = round(share * run.judged) > run.not_learned  # among those that only passed the screen
    return f"{'At least ' * more}{run.not_learned:,} of {counted(run.judged, 'row')} did not stick"


def _split(run: RowsRun) -> str:
    if not run.judged:
        return ""
    unlearned, unstable = run.unlearned, run.not_learned - run.unlearned
    return (
        f"{unlearned:,} unlearned (never right), {unstable:,} unstable (right now and then), "
        f"{run.judged - run.not_learned:,} learned (right, or passed the screen)."
    )


def _passed_over(run: RowsRun) -> str:
    """How many rows could not be asked, and why."""
    if not run.reasons:
        return ""
    reasons = listed(f"{reason} ({count:,})" for reason, count in run.reasons.items())
    more, verb = "more " if run.judged else "", "counts" if run.unasked == 1 else "count"
    return f"{counted(run.unasked, f'{more}row')} could not be asked and {verb} neither way: {reasons}."


def _verdict_options(run: RowsRun) -> list[tuple[str, str]]:
    """What the table can be narrowed to; it begins with what the headline counts."""
    unlearned = run.unlearned
    options = [
        ("", f"did not stick ({run.not_learned:,})"),
        ("unlearned", f"unlearned ({unlearned:,})"),
        ("unstable", f"unstable ({run.not_learned - unlearned:,})"),
    ]
    return options + [(NOT_ASKED, f"could not be asked ({run.unasked:,})")] * bool(run.unasked)


def _numbers(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The shares of rows, each with what it means."""
    entries = (
        (
            "share_not_learned",
            "Did not stick",
            "Share of rows: unlearned or unstable. Those that only passed the screen enter by a random sample of them.",
        ),
        ("share_unlearned", "Unlearned", "Share of rows: none of the finished model's answers is right."),
        ("paper_share", "By the paper's rule", "Share of rows: none of the first five answers is right."),
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
    said = [without_folders(str(statement)) for statement in run.summary.get("statements") or []]
    training = run.about.get("training") or {}
    if training.get("sentence"):
        sentence = without_folders(str(training["sentence"])).rstrip(".")
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
    return any(len(row[name] or "") > longest for row in (*run.found, *run.not_asked) for name in names)


def _made(run: RowsRun) -> list[tuple[str, str]]:
    """How it was found, in pairs."""
    about = run.about
    data = about.get("data") or {}
    seconds = about.get("seconds")
    kinds = [f"{entry.get('step')} ({entry.get('kind')})" for entry in about.get("checkpoints") or []]
    name = last_part(str(data.get("path") or ""))
    pairs = [
        ("Model", run.model),
        ("Checkpoints", ", ".join(kinds)),
        ("Data", f"{name}, sha256 {str(data.get('sha256') or '')[:12]}" if name else ""),
        ("Scored in", str(about.get("dtype") or "")),
        ("Seed", str(about.get("seed", ""))),
        ("Took", f"{number(seconds)} s" if isinstance(seconds, int | float) else ""),
    ]
    return [(name, value) for name, value in pairs if value]
