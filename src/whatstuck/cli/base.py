"""What the verbs share: how they are registered, their common flags, and how a result is said."""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from whatstuck._version import __version__
from whatstuck.errors import WhatStuckError

app = typer.Typer(
    name="whatstuck",
    help="See what supervised fine-tuning removed, kept and added, and which checkpoint to keep.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Register a verb whose bad input ends in one line and exit code 2, and an interrupt in 130."""

    @app.command()
    @functools.wraps(function)
    def call(**flags: Any) -> None:
        try:
            function(**flags)
        except WhatStuckError as error:
            sys.stderr.write(f"whatstuck: {error}\n")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            sys.stderr.write("whatstuck: interrupted; what was done is kept, the same command goes on from there\n")
            raise typer.Exit(130) from None

    return call


ConfigOption = Annotated[Path | None, typer.Option(help="YAML file; its keys equal the flags, which win over it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one machine-readable line on stdout.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and stop.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder to write; a run that is there is continued.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of every random choice. (default: 0)")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, ... (default: auto)")]
DtypeOption = Annotated[str | None, typer.Option(help="Scoring dtype; only float32 is sound. (default: float32)")]
ColumnsOption = Annotated[
    str | None, typer.Option(help="Column names of a table without a header, such as text,labels,id.")
]
LabelsOption = Annotated[Path | None, typer.Option(help="File of label names, one a line, for columns of label ids.")]
InstructionOption = Annotated[str | None, typer.Option(help="Text put before every prompt; never masked.")]
TemplateOption = Annotated[str | None, typer.Option(help="auto or never use the chat template. (default: auto)")]


@app.callback(invoke_without_command=True)
def _whatstuck(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


# --- shared by the verbs


def read_given(config: Path | None, **flags: Any) -> dict[str, Any]:
    """Settings from the YAML file, then from the flags that were given."""
    values: dict[str, Any] = {}
    if config is not None:
        try:
            loaded = yaml.safe_load(config.read_text(encoding="utf-8"))
        except OSError as error:
            raise WhatStuckError(f"--config {config} cannot be read: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise WhatStuckError(f"--config {config} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(loaded, dict):
            raise WhatStuckError(f"--config {config} must hold keys and values, such as  model: smollm2")
        values = {str(key).replace("-", "_"): value for key, value in loaded.items()}
    return values | {name: value for name, value in flags.items() if value is not None}


def words(text: str | None) -> list[str] | None:
    """A comma-separated list."""
    return None if text is None else [word.strip() for word in text.split(",")]


def say(result: dict[str, Any], *, json_line: bool) -> None:
    """The result: one JSON line on stdout, or a line per entry."""
    if json_line:
        typer.echo(json.dumps(result))
    else:
        for name, value in result.items():
            typer.echo(f"{name.replace('_', ' ')}: {_in_words(value)}")


def _in_words(value: Any) -> str:
    """A value as people write it, not as Python does."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value)) or "none"
    return {"True": "yes", "False": "no", "None": "not known"}.get(str(value), str(value))


def say_verdict(run: Any, *, json_line: bool) -> None:
    """The decision of a run, why, and where its page is."""
    verdict = run.verdict
    if json_line:
        typer.echo(json.dumps({"run": str(run.path), "report": str(run.report), **verdict}))
        return
    keep = verdict["keep_step"]
    typer.echo(f"Keep: {'cannot tell' if keep is None else f'step {keep}'} (confidence: {verdict['confidence']})")
    typer.echo(verdict["reason"])
    for sentence in verdict["signals"]["statements"]:
        typer.echo(f"- {sentence}")
    typer.echo(f"Report: {run.report}")


def say_rows(run: Any) -> None:
    """How many rows did not stick, and why."""
    summary: dict[str, Any] = run.manifest["rows"]["summary"]
    share = summary["share_not_learned"]
    wrong = summary["unlearned"] + summary["unstable"]
    judged = summary["rows"] - summary["not_asked"]
    kinds = f"{summary['unlearned']} are unlearned, {summary['unstable']} unstable"
    typer.echo(f"{wrong} of {judged} rows did not stick: {kinds}.")
    if None not in share and share[1] < share[2]:
        value, low, high = (f"{100 * part:.1f} %" for part in share)
        typer.echo(f"With what a sample says of rows that were not asked: {value} of all ({low} to {high}).")
    if summary["not_asked"]:
        typer.echo(f"{summary['not_asked']} could not be asked.")
    for cause, count in summary["causes"].items():
        typer.echo(f"- {cause.replace('_', ' ')}: {count}")
    for cause, sentence in summary["not_measured"].items():
        typer.echo(f"- {cause.replace('_', ' ')}: not measured. {sentence}")
    for sentence in summary["statements"]:
        typer.echo(sentence)
    typer.echo(f"Rows: {run.path / 'unlearned.jsonl'}")
