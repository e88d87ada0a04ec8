"""The verbs as functions, for notebooks and scripts. Heavy imports wait until they are called."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whatstuck.results import Run


def track(
    model: str | Path,
    checkpoints: str | Path | Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    **settings: Any,
) -> Run:
    """Show what fine-tuning removed, kept and added, and which checkpoint to keep.

    Args:
        model: The untouched model: a folder, a GGUF file, or a short name such as `"smollm2"`.
        checkpoints: Globs or folders of checkpoints, from any trainer.
        data: Rows to probe, for preference rows that the training did not see.
        out: The run folder; a run that is there is continued or extended.
        **settings: Fields of `whatstuck.dynamics.settings.TrackSettings`, such as `players=8`, `rows=50`,
            `baseline=["other-model"]`.

    Returns:
        The finished run.

    Raises:
        WhatStuckError: With one line that says what is wrong and what to do.
    """
    from whatstuck.dynamics.settings import TrackSettings
    from whatstuck.dynamics.tracking import Tracking

    patterns = [checkpoints] if isinstance(checkpoints, str | Path) else list(checkpoints)
    values = {"model": str(model), "checkpoints": [str(pattern) for pattern in patterns], "data": data, "out": out}
    Tracking(TrackSettings.read(**values, **settings)).execute()
    return Run(out)


def find_unlearned(
    model: str | Path,
    checkpoints: str | Path | Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    **settings: Any,
) -> Run:
    """Find the training rows that the finished model still gets wrong, and why: the verb `rows`.

    Args:
        model: The untouched model: a folder, a GGUF file, or a short name such as `"smollm2"`.
        checkpoints: Globs or folders of checkpoints, from any trainer; the last one is the finished model.
        data: The rows that were trained on.
        out: The run folder; it may be that of `track`.
        **settings: Fields of `whatstuck.rows.settings.RowsSettings`, such as `checker="number"`, `probe_base=False`.

    Returns:
        The run, with `verdicts` and `unlearned`.

    Raises:
        WhatStuckError: With one line that says what is wrong and what to do.
    """
    from whatstuck.rows.finding import find_rows
    from whatstuck.rows.settings import RowsSettings

    patterns = [checkpoints] if isinstance(checkpoints, str | Path) else list(checkpoints)
    values = {"model": str(model), "checkpoints": [str(pattern) for pattern in patterns], "data": data, "out": out}
    return Run(find_rows(RowsSettings.read(**values, **settings)))


def intervene(run: str | Path | Run, cause: str, **settings: Any) -> dict[str, Any]:
    """Train the change that should undo a cause, beside arms that should not: the verb `intervene`.

    Args:
        run: A run with the results of `find_unlearned`.
        cause: Its name, such as `"data_conflict"`, or the paper's number, such as `"III"`.
        **settings: Fields of `whatstuck.rows.interventions.settings.InterveneSettings`, such as `seeds=3`.

    Returns:
        Verdict, effect, specificity and collateral with their intervals, and the recovery of every arm.

    Raises:
        WhatStuckError: With one line that says what is wrong and what to do.
    """
    from whatstuck.report import write_report
    from whatstuck.rows.causes.names import cause_named
    from whatstuck.rows.interventions.intervening import intervene as run_intervention
    from whatstuck.rows.interventions.settings import InterveneSettings

    folder = run.path if isinstance(run, Run) else Path(run)
    found = run_intervention(InterveneSettings.read(run=folder, cause=cause_named(cause), **settings))
    write_report(folder)
    return found


def generalize(
    model: str | Path,
    checkpoints: str | Path | Sequence[str | Path],
    task: str | Path,
    out: str | Path,
    **settings: Any,
) -> Run:
    """Ask checkpoints a task in other wordings, under other instructions, and in harder cases: the verb `generalize`.

    Args:
        model: The untouched model: a folder, a GGUF file, or a short name such as `"smollm2"`.
        checkpoints: Globs or folders of the checkpoints of one training; an empty list asks the untouched model alone.
        task: A task by name, such as `"sokoban"`, or a YAML file of your own.
        out: The run folder; it may be that of `track` or `rows`.
        **settings: Fields of `whatstuck.generalization.settings.GeneralizeSettings`, such as `arm="diverse"`,
            `items=300`, `temperature=0.5`.

    Returns:
        The run, with `generalization`.

    Raises:
        WhatStuckError: With one line that says what is wrong and what to do.
    """
    from whatstuck.generalization.generalizing import generalize as ask_variants
    from whatstuck.generalization.settings import GeneralizeSettings

    patterns = [checkpoints] if isinstance(checkpoints, str | Path) else list(checkpoints)
    values = {"model": str(model), "checkpoints": [str(p) for p in patterns], "task": str(task), "out": out}
    return Run(ask_variants(GeneralizeSettings.read(**values, **settings)))


def compare(
    runs: Sequence[str | Path | Run], out: str | Path = "compare.html", *, text: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Show runs side by side: decisions, curves, and what the one kept and the other lost on the rows they share.

    Args:
        runs: Two or more finished runs, or their folders.
        out: The page to write.
        text: Whether the page and the result hold words of rows.
        seed: Seed of the bootstrap.

    Returns:
        `page` (the file), `runs`, `settings` and `pairs`, see `whatstuck.dynamics.comparing.compare_runs`.

    Raises:
        WhatStuckError: With one line that says what is wrong and what to do.
    """
    from whatstuck.dynamics.comparing import compare_runs
    from whatstuck.report.comparison import write_comparison

    given = [runs] if isinstance(runs, str | Path | Run) else runs
    folders = [run.path if isinstance(run, Run) else Path(run) for run in given]
    found = compare_runs(folders, seed=seed, text=text)
    return {"page": str(write_comparison(found, Path(out), text=text)), **found}


def train(settings: Mapping[str, Any]) -> Path:
    """Fine-tune with TRL, keeping checkpoints that are dense from the first step.

    Args:
        settings: Fields of `whatstuck.training.TrainConfig`, and any field of TRL's `SFTConfig`.

    Returns:
        The output folder: checkpoints, heldout.jsonl and whatstuck_train.json.

    Raises:
        WhatStuckError: With one line that says what is wrong and what to do.
    """
    from whatstuck.training import train_model

    return train_model(settings)
