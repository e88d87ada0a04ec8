"""The verb about other wordings and harder cases: `generalize`."""

import json
from typing import Annotated

import typer

from whatstuck.cli.base import (
    ConfigOption,
    DeviceOption,
    DryRunOption,
    DtypeOption,
    JsonOption,
    OutOption,
    SeedOption,
    TemplateOption,
    read_given,
    say,
    verb,
    words,
)


@verb
def generalize(  # noqa: PLR0913 - one flag each
    *,
    config: ConfigOption = None,
    model: Annotated[str | None, typer.Option(help="The untouched model: folder, GGUF file, or smollm2.")] = None,
    checkpoints: Annotated[
        list[str] | None,
        typer.Option(
            help="Glob (in quotes) or folder of checkpoints of one training. The untouched model (step 0) is always "
            "asked as well, once for all arms."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="sokoban, general-points, another task by name, or a YAML file of your own.")
    ] = None,
    template_variants: Annotated[
        list[str] | None,
        typer.Option(help="Instead of --task: folder or files of the same rows, one per wording; may be repeated."),
    ] = None,
    training_wording: Annotated[
        str | None,
        typer.Option(
            help="Which of those wordings is that of the training. (default: the one whose rows `whatstuck train` "
            "used for the checkpoints, else the first by name)"
        ),
    ] = None,
    out: OutOption = None,
    arm: Annotated[str | None, typer.Option(help="What to call this training. (default: sft)")] = None,
    variants: Annotated[str | None, typer.Option(help="Names, such as ID,Num,Fake. (default: all)")] = None,
    items: Annotated[int | None, typer.Option(help="Items of each variant. (default: 300)")] = None,
    thought: Annotated[bool, typer.Option("--thought", help="Replies hold a thought.")] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Tokens of the longest reply; what comes later is cut. (default: the task's)")
    ] = None,
    episodes: Annotated[bool, typer.Option("--episodes", help="Whole episodes instead of single steps.")] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Draw one more reply to each item, such as at 0.5. (default: greedy only)")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option(help="Of the task, as name=value, such as cards=3; may be repeated.")
    ] = None,
    chat_template: TemplateOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    dry_run: DryRunOption = False,
    json_line: JsonOption = False,
) -> None:
    r"""Show whether what was learned survives another wording, another instruction, and harder cases.

    *Fake* shows a new instruction and scores the old meaning: it tells a model that cannot do the task from one that
    ignores what it is told. Several trainings in one run, each with its own --arm, are compared.

    ```
    whatstuck generalize --model smollm2 --checkpoints 'out/checkpoint-*' --task sokoban --out run
    whatstuck generalize --model base --checkpoints out --task mine.yaml --out run --arm diverse
    ```
    """
    settings_given = read_given(
        config,
        model=model,
        checkpoints=checkpoints or None,
        task=task,
        template_variants=template_variants or None,
        training_wording=training_wording,
        out=out,
        arm=arm,
        variants=words(variants),
        items=items,
        thought=thought or None,
        max_new_tokens=max_new_tokens,
        episodes=episodes or None,
        temperature=temperature,
        options=options or None,
        chat_template=chat_template,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    from whatstuck.generalization.generalizing import generalize as run_generalize
    from whatstuck.generalization.planning import plan
    from whatstuck.generalization.settings import GeneralizeSettings

    settings = GeneralizeSettings.read(**settings_given)
    if dry_run:
        say(plan(settings), json_line=json_line)
        return
    run_generalize(settings)
    from whatstuck.results import load_run

    run = load_run(settings.out)
    verdict = run.manifest["generalize"]["verdict"]
    if json_line:
        typer.echo(json.dumps({"run": str(run.path), "report": str(run.report), **verdict}))
        return
    for sentence in verdict["sentences"]:
        typer.echo(sentence)
    typer.echo(f"Report: {run.report}")
