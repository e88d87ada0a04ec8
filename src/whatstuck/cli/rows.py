"""Verbs about single training rows: `rows` and `intervene`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from whatstuck.cli.base import (
    ColumnsOption,
    ConfigOption,
    DeviceOption,
    DryRunOption,
    DtypeOption,
    InstructionOption,
    JsonOption,
    LabelsOption,
    OutOption,
    SeedOption,
    TemplateOption,
    read_given,
    say,
    say_rows,
    verb,
    words,
)


@verb
def rows(  # noqa: PLR0913 - one flag each
    *,
    config: ConfigOption = None,
    model: Annotated[str | None, typer.Option(help="The untouched model: folder, GGUF file, or smollm2.")] = None,
    checkpoints: Annotated[
        list[str] | None, typer.Option(help="Glob (in quotes) or folder of checkpoints; the last is the result.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The rows that were trained on.")] = None,
    out: OutOption = None,
    training: Annotated[
        Path | None,
        typer.Option(help="How they were fed: folder of `whatstuck train`, or YAML of TRL's SFTConfig."),
    ] = None,
    columns: ColumnsOption = None,
    labels: LabelsOption = None,
    instruction: InstructionOption = None,
    chat_template: TemplateOption = None,
    checker: Annotated[
        str | None,
        typer.Option(help="What is right: auto, exact, number, contains, labels, or module:function. (default: auto)"),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Whether two answers to one question contradict each other: module:function."),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(help="Model of sentence-transformers that finds prompts that ask the same. (default: characters)"),
    ] = None,
    probe_base: Annotated[
        bool | None, typer.Option(help="Ask the untouched model, too: causes I and II. (default: yes)")
    ] = None,
    most: Annotated[
        int | None, typer.Option(help="Rows that did not stick, to ask the untouched model about. (default: 1000)")
    ] = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    dry_run: DryRunOption = False,
    json_line: JsonOption = False,
) -> None:
    r"""Show which training rows the finished model still gets wrong, why, and what to do about it.

    Checkpoints of `whatstuck train` know how the rows were fed; of another trainer, say it with --training.

    ```
    whatstuck rows --model smollm2 --checkpoints 'out/checkpoint-*' --data train.jsonl --out run
    whatstuck rows --model base --checkpoints out --data train.jsonl --training sft.yaml --out run
    ```
    """
    settings_given = read_given(
        config,
        model=model,
        checkpoints=checkpoints or None,
        data=data,
        out=out,
        training=training,
        columns=words(columns),
        labels=labels,
        instruction=instruction,
        chat_template=chat_template,
        checker=checker,
        judge=judge,
        embedding=embedding,
        probe_base=probe_base,
        most=most,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    from whatstuck.rows.finding import find_rows
    from whatstuck.rows.planning import plan_rows
    from whatstuck.rows.settings import RowsSettings

    settings = RowsSettings.read(**settings_given)
    if dry_run:
        say(plan_rows(settings), json_line=json_line)
        return
    find_rows(settings)
    from whatstuck.results import load_run

    run = load_run(settings.out)
    if json_line:
        typer.echo(json.dumps({"run": str(run.path), "report": str(run.report), **run.manifest["rows"]["summary"]}))
        return
    say_rows(run)
    typer.echo(f"Report: {run.report}")


@verb
def intervene(  # noqa: PLR0913 - one flag each
    run: Annotated[Path, typer.Argument(help="Folder that `whatstuck rows` wrote.")],
    *,
    cause: Annotated[str, typer.Option(help="Whose rows: a name such as data_conflict, or the paper's number.")],
    config: ConfigOption = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings per arm. (default: 3)")] = None,
    others: Annotated[
        list[str] | None, typer.Option(help="Another cause whose treatment is tried on these rows; may be repeated.")
    ] = None,
    training: Annotated[
        Path | None, typer.Option(help="YAML with the settings of the training, where its folder does not tell them.")
    ] = None,
    supporting: Annotated[
        Path | None, typer.Option(help="Texts that hold what the rows lack (causes I and II): JSONL with text, or txt.")
    ] = None,
    general: Annotated[Path | None, typer.Option(help="Texts about anything, to mix them with.")] = None,
    paraphrases: Annotated[
        Path | None, typer.Option(help="JSONL of row_id and prompt: other wordings of the rows.")
    ] = None,
    unstable: Annotated[
        bool, typer.Option("--unstable", help="Follow rows that are right only now and then, too.")
    ] = False,
    most: Annotated[int | None, typer.Option(help="Unlearned rows that are followed. (default: 200)")] = None,
    learned: Annotated[
        int | None, typer.Option(help="Learned rows that are followed, for what an arm destroys. (default: 100)")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the probes that take minutes, on the finished model.")
    ] = False,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dry_run: DryRunOption = False,
    json_line: JsonOption = False,
) -> None:
    """Train the change that should undo a cause, beside arms that should not, and say what it did.

    Needs the extras `trl` and `rows`. Controls: the same training again, as much more of it, and a sham of the same
    form. What is there is not trained again.

    ```
    whatstuck intervene run --cause III
    whatstuck intervene run --cause knowledge_missing --supporting facts.jsonl --general texts.txt --seeds 1
    ```
    """
    from whatstuck.rows.causes.names import cause_named
    from whatstuck.rows.interventions.intervening import intervene as run_intervention
    from whatstuck.rows.interventions.intervening import plan
    from whatstuck.rows.interventions.settings import InterveneSettings

    settings_given = read_given(
        config,
        run=run,
        cause=cause_named(cause),
        seeds=seeds,
        others=None if not others else [cause_named(other) for other in others],
        training=training,
        supporting=supporting,
        general=general,
        paraphrases=paraphrases,
        unstable=unstable or None,
        most=most,
        learned=learned,
        quick=quick or None,
        seed=seed,
        device=device,
    )
    settings = InterveneSettings.read(**settings_given)
    if dry_run:
        say(plan(settings), json_line=json_line)
        return
    found = run_intervention(settings)
    from whatstuck.report import write_report

    page = write_report(run)
    if json_line:
        typer.echo(json.dumps({**found, "report": str(page)}))
        return
    for sentence in found["sentences"]:
        typer.echo(sentence)
    typer.echo(f"Report: {page}")
