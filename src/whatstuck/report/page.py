"""The page: a list of sections, each a builder and a template, written into one file that needs nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from whatstuck.report.reading import SETS, Run, read_run
from whatstuck.report.sections import changes, prompt, ratios, trust, verdict
from whatstuck.report.templating import environment, style, write_page
from whatstuck.report.words import PLAIN_NAMES

FILE_NAME = "report.html"


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page; its template is `templates/NAME.html.j2`, its variables what `build` returns."""

    name: str
    short: str
    title: str
    build: Callable[..., dict[str, Any]]


SECTIONS = (
    Section("verdict", "Verdict", "Which checkpoint to keep", verdict.build),
    Section("changes", "Changes", "What was removed, kept and added", changes.build),
    Section("ratios", "Cancelled, shared", "Does it cancel, is it shared?", ratios.build),
    Section("prompt", "One prompt", "One prompt taken apart", prompt.build),
    Section("trust", "Trust", "How far to trust this page", trust.build),
)


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
    return render(read_run(Path(run)), text=text)


def render(run: Run, *, text: bool) -> str:
    """The page of a run that was read."""
    templates = environment()
    templates.globals.update(names=PLAIN_NAMES, sets=SETS, text=text)
    parts = [
        (section, Markup(templates.get_template(f"{section.name}.html.j2").render(section.build(run, text=text))))  # noqa: S704 - escaped by the template
        for section in SECTIONS
    ]
    return templates.get_template("page.html.j2").render(
        style=style("page.css"),
        sections=parts,
        run=run,
        model=run.track["model"]["name"],
        imprecise=trust.imprecise(run),
    )
