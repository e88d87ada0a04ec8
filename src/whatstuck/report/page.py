"""The page: a list of sections, each a builder and a template, written into one file that needs nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from whatstuck.report.reading import SETS, Run, read_manifest, read_run
from whatstuck.report.reading_generalization import (
    GeneralizationRun,
    generalization_finished,
    read_generalization_run,
)
from whatstuck.report.reading_rows import RowsRun, read_rows_run, rows_finished
from whatstuck.report.sections import changes, generalization, interventions, prompt, ratios, rows, trust, verdict
from whatstuck.report.templating import environment, style, write_page
from whatstuck.report.words import PLAIN_NAMES

FILE_NAME = "report.html"

Part = Literal["track", "rows", "interventions", "generalize"]
VERBS: tuple[Part, ...] = ("track", "rows", "generalize")


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page; its template is `templates/NAME.html.j2`, its variables what `build` returns.

    `part` is what of the run folder it needs; without it the section is left out.
    """

    part: Part
    name: str
    short: str
    title: str
    build: Callable[..., dict[str, Any]]


SECTIONS = (
    Section("track", "verdict", "Verdict", "Which checkpoint to keep", verdict.build),
    Section("track", "changes", "Changes", "What was removed, kept and added", changes.build),
    Section("track", "ratios", "Cancelled, shared", "Does it cancel, is it shared?", ratios.build),
    Section("track", "prompt", "One prompt", "One prompt taken apart", prompt.build),
    Section("rows", "rows", "Rows", "Rows that did not stick", rows.build),
    Section("interventions", "interventions", "Treatments", "What makes them stick", interventions.build),
    Section(
        "generalize",
        "generalization",
        "Other wording",
        "Does it survive other wording and harder cases?",
        generalization.build,
    ),
    Section("track", "trust", "Trust", "How far to trust this page", trust.build),
)

PAPERS: dict[Part, str] = {
    "track": "Interactions after arXiv 2605.17967.",
    "rows": "Causes after arXiv 2604.10079.",
    "generalize": "Generalization after arXiv 2510.00237.",
}


def write_report(run: Path, *, text: bool = True) -> Path:
    """Write `report.html` into a run folder, from the folder alone.

    Args:
        run: The run folder.
        text: Whether to show the rows' text; without it the page holds no prompt, word or completion.

    Returns:
        Path of the page.

    Raises:
        WhatStuckError: If the run folder is missing, unfinished or damaged, or cannot be written to.
    """
    return write_page(Path(run) / FILE_NAME, make_page(run, text=text), "make the folder writable")


def make_page(run: Path, *, text: bool = True) -> str:
    """The page as a string; see `write_report`."""
    folder = Path(run)
    manifest = read_manifest(folder)
    begun = [verb for verb in VERBS if verb in manifest]
    done = {
        "track": (folder / "verdict.json").exists(),
        "rows": rows_finished(manifest),
        "generalize": generalization_finished(folder, manifest),
    }
    # one part that is not finished must not hide the other; without any, the reader says what is missing
    finished = [verb for verb in begun if done[verb]] or begun[:1] or ["track"]
    track_run = read_run(folder) if "track" in finished else None
    rows_run = read_rows_run(folder, manifest) if "rows" in finished else None
    asked_run = read_generalization_run(folder, manifest) if "generalize" in finished else None
    return _render(track_run, rows_run, asked_run, [verb for verb in begun if verb not in finished], text=text)


def _render(
    track_run: Run | None,
    rows_run: RowsRun | None,
    asked_run: GeneralizationRun | None,
    unfinished: Sequence[str],
    *,
    text: bool,
) -> str:
    treated = rows_run if rows_run is not None and rows_run.interventions else None
    found: dict[Part, Run | RowsRun | GeneralizationRun | None] = {
        "track": track_run,
        "rows": rows_run,
        "interventions": treated,
        "generalize": asked_run,
    }
    runs = [run for run in (track_run, rows_run, asked_run) if run is not None]
    sheets = [name for name, run in (("rows.css", rows_run), ("generalization.css", asked_run)) if run is not None]
    templates = environment()
    templates.globals.update(names=PLAIN_NAMES, sets=SETS, text=text)
    shown = [section for section in SECTIONS if found[section.part] is not None]
    parts = []
    for section in shown:
        template = templates.get_template(f"{section.name}.html.j2")
        content = template.render(section.build(found[section.part], text=text), first=section is shown[0])
        parts.append((section, Markup(content)))  # noqa: S704 - escaped by the template
    return templates.get_template("page.html.j2").render(
        style=style("page.css", *sheets),
        sections=parts,
        name=runs[0].name,
        model=next((run.model for run in runs if run.model), ""),
        unfinished=unfinished,
        imprecise=trust.imprecise(track_run) if track_run else "",
        rows_imprecise=trust.coarse(rows_run.about) if rows_run else "",
        papers=" ".join(paper for section, paper in PAPERS.items() if found[section] is not None),
    )
