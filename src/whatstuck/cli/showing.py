"""Verbs that show what a run folder holds: `report` and `compare`."""

from pathlib import Path
from typing import Annotated

import typer

from whatstuck.cli.base import (
    JsonOption,
    say,
    verb,
)


@verb
def report(
    run: Annotated[Path, typer.Argument(help="Folder that track wrote.")],
    *,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the rows' text out, for sharing.")] = False,
    json_line: JsonOption = False,
) -> None:
    """Write the page again, from the run folder alone.

    ```
    whatstuck report run --no-text
    ```
    """
    from whatstuck.report import write_report

    if (run / "run.json").exists() and not (run / "verdict.json").exists():
        from whatstuck.dynamics.summarizing import finish
        from whatstuck.runs import RunFolder

        finish(RunFolder(run))  # of a training that was killed
    page = write_report(run, text=not no_text)
    say({"report": str(page)}, json_line=json_line)


@verb
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more folders that track, or a training run, wrote.")],
    *,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("compare.html"),
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the rows' text out, for sharing.")] = False,
    json_line: JsonOption = False,
) -> None:
    """Show runs side by side: decisions, curves, and what the one kept and the other lost.

    ```
    whatstuck compare run-lora run-full --out compare.html
    ```
    """
    from whatstuck.api import compare as compare_runs

    found = compare_runs(runs, out, text=not no_text)
    if json_line:
        say(found, json_line=True)
        return
    for run in found["runs"]:
        keep = run["keep_step"]
        typer.echo(
            f"{run['name']}: {'cannot tell what to keep' if keep is None else f'keep step {keep}'}. {run['reason']}"
        )
    for pair in found["pairs"]:
        if pair["obstacle"]:
            typer.echo(f"{found['runs'][pair['a']]['name']}, {found['runs'][pair['b']]['name']}: {pair['obstacle']}")
    typer.echo(f"Page: {found['page']}")
