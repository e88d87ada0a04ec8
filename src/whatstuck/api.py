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
