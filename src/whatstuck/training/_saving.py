"""Checkpoints that are whole or not there, of any trainer, and that are light once a newer one is there.

A trainer writes a checkpoint file by file into its final folder, so a killed one leaves half a checkpoint under a
whole one's name. Here it is written into a staging folder and renamed. Only the newest checkpoint keeps what
resuming needs (optimizer, scheduler, random state: twice the size of the weights); dense checkpoints stay light.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from whatstuck.errors import WhatStuckError
from whatstuck.progress import Task
from whatstuck.training._resampling import FILE_NAME as RESAMPLING

STAGING = ".partial"
_RESUME_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", RESAMPLING)


class Attachment(Protocol):
    """Something that leaves a file in every checkpoint."""

    def save(self, folder: Path) -> None:
        """Write it into the folder of a checkpoint."""


class WholeCheckpoints:
    """What a trainer's class inherits before the trainer itself.

    Attributes:
        attachments: What is saved with every checkpoint.
    """

    # of the trainer that the class is completed with
    args: Any
    state: Any
    model: Any
    attachments: tuple[Attachment, ...] = ()

    def save_checkpoint(self) -> None:
        """Save the present step, outside of the trainer's own schedule."""
        self._save_checkpoint(self.model, trial=None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        out = Path(self.args.output_dir)
        staging = out / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        self.args.output_dir = str(staging)
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]  # the trainer comes next in the order
        finally:
            self.args.output_dir = str(out)
        name = f"checkpoint-{self.state.global_step}"
        (staging / name / "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody reads
        for attachment in self.attachments:
            attachment.save(staging / name)
        shutil.rmtree(out / name, ignore_errors=True)  # of a copy that was broken off
        (staging / name).rename(out / name)
        forget_resume_files(out, keep=out / name)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Leave out the card that TRL would write anew at every checkpoint."""


class Progress(TrainerCallback):
    """Our progress bar instead of the trainer's, which writes its logs to stdout."""

    def __init__(self) -> None:
        self._task: Task | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the bar."""
        del args, control
        self._task = Task("training", state.max_steps)
        self._task.__enter__()
        if state.global_step:
            self._task.advance(state.global_step, free=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Show the loss."""
        del args, state, control
        if self._task is not None and logs and "loss" in logs:
            self._task.say(f"training, loss {logs['loss']:.3g}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count a step."""
        del args, state, control
        if self._task is not None:
            self._task.advance()

    def close(self) -> None:
        """End the bar, also after an error."""
        if self._task is not None:
            self._task.__exit__(None, None, None)
            self._task = None


# --- checkpoints on disk


def whole_checkpoints(out: Path) -> list[Path]:
    """Checkpoints of a training folder by step, without those that another trainer left half written."""
    found: dict[int, Path] = {}
    for state in out.glob("checkpoint-*/trainer_state.json"):  # written last
        try:
            found[int(json.loads(state.read_text(encoding="utf-8"))["global_step"])] = state.parent
        except (ValueError, KeyError):
            continue
    return [found[step] for step in sorted(found)]


def resume_point(out: Path) -> Path | None:
    """The newest checkpoint, if there is any.

    Raises:
        WhatStuckError: If it has no optimizer state, because a newer one was deleted.
    """
    checkpoints = whole_checkpoints(out)
    if not checkpoints:
        return None
    if not (checkpoints[-1] / "optimizer.pt").exists():
        raise WhatStuckError(
            f"{checkpoints[-1]} has no optimizer state, since a newer checkpoint was deleted: delete the folder {out} "
            "to train again, or give another out"
        )
    return checkpoints[-1]


def forget_resume_files(out: Path, *, keep: Path | None = None) -> None:
    """Delete what only resuming needs from all checkpoints but one; weights and logs stay."""
    for checkpoint in out.glob("checkpoint-*"):
        if checkpoint != keep:
            for name in _RESUME_FILES:
                (checkpoint / name).unlink(missing_ok=True)
