"""The verb `track`."""

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
    say_verdict,
    verb,
    words,
)


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
    given = read_given(
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
        columns=words(columns),
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
        say(plan(Preparation(settings)), json_line=json_line)
        return
    Tracking(settings).execute()
    say_verdict(load_run(settings.out), json_line=json_line)
