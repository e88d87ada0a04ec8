"""TRL's trainer, made to save whole checkpoints only and to print nothing.

A trainer writes a checkpoint file by file into its final folder, so a killed one leaves half a checkpoint under a
whole one's name. Here it is written into a staging folder and renamed. Only the newest checkpoint keeps what
resuming needs (optimizer, scheduler, random state: twice the size of the weights); dense checkpoints stay light.
"""

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback

from whatstuck.errors import WhatStuckError, require
from whatstuck.live import WhatStuckCallback
from whatstuck.live.exposing import ExposureRecorder
from whatstuck.models import default_mask_token
from whatstuck.progress import Task
from whatstuck.training._data import Prepared
from whatstuck.training._resampling import FILE_NAME as RESAMPLING
from whatstuck.training._resampling import Checks, GivenOrder
from whatstuck.training.config import TrainConfig
from whatstuck.training.resampler import Resampler
from whatstuck.training.schedule import DenseCheckpoints

STAGING = ".partial"
_RESUME_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", RESAMPLING)


def make_trainer(
    config: TrainConfig,
    arguments: Any,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Prepared,
    probe: WhatStuckCallback | None = None,
) -> Any:
    """Build the trainer with its schedule.

    Args:
        config: The settings.
        arguments: TRL's SFTConfig made from them.
        model: The untouched model, float32.
        tokenizer: Its tokenizer.
        rows: What to train and evaluate on.
        probe: What probes the model while it is trained.

    Returns:
        An SFTTrainer with a public `save_checkpoint()` and a `progress` whose `close()` ends the bar.

    Raises:
        MissingExtraError: If TRL, PEFT or datasets is not installed.
        WhatStuckError: If TRL or PEFT refuses the settings, with its reason.
    """
    datasets = require("datasets", "trl")
    peft = require("peft", "trl")
    adapter = None
    if config.use_peft:
        adapter = peft.LoraConfig(
            r=config.lora_r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=config.lora_target_modules,
            task_type="CAUSAL_LM",
        )
    else:
        model.requires_grad_(requires_grad=True)
    try:
        with warnings.catch_warnings():
            # PEFT asks transformers 5.23 for an old name; nothing that a user could change
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            trainer = _trainer_class()(
                model=model,
                args=arguments,
                train_dataset=datasets.Dataset.from_list(rows.train),
                eval_dataset=datasets.Dataset.from_list(rows.evaluation) if rows.evaluation else None,
                processing_class=tokenizer,
                peft_config=adapter,
            )
            trainer.given_order = _given_order(config, arguments, tokenizer, rows, trainer)
    except ValueError as error:
        raise WhatStuckError(f"TRL refuses this training: {' '.join(str(error).split())}") from error
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to --json
    trainer.progress = _Progress()
    trainer.add_callback(trainer.progress)
    if probe is not None:  # before the first evaluation, which it adds to
        probe.attach(trainer)
    trainer.recorder = ExposureRecorder(trainer.train_dataset)
    trainer.add_callback(trainer.recorder)
    trainer.add_callback(
        DenseCheckpoints(trainer, every=config.save_steps, dense=config.dense_checkpoints, save_first=config.use_peft)
    )
    return trainer


def _given_order(
    config: TrainConfig, arguments: Any, tokenizer: PreTrainedTokenizerBase, rows: Prepared, trainer: Any
) -> Any:
    """The sampler of a given order, and what adds to it; None where the trainer shuffles."""
    if rows.order is None:
        return None
    positions = {row["row_id"]: index for index, row in enumerate(rows.train)}
    if config.resample is None or config.resample_every is None:
        return GivenOrder(rows.order, positions)
    sham, spared = config.resample == "random", config.resample_spared or ()
    drawing = Resampler(rows.order, seed=config.seed, sham=sham, spared=spared)
    trainer.checks = Checks(
        drawing,
        rows.train,
        every=config.resample_every,
        per_step=arguments.train_batch_size * arguments.gradient_accumulation_steps,
        pad_token_id=default_mask_token(tokenizer),
    )
    trainer.add_callback(trainer.checks)
    return GivenOrder(drawing, positions)


def _trainer_class() -> Any:
    """SFTTrainer that saves through a staging folder; made on call, because TRL is an extra."""

    class _WholeCheckpoints(require("trl", "trl").SFTTrainer):  # type: ignore[misc]  # TRL has no types
        given_order: GivenOrder | None = None
        checks: Checks | None = None
        recorder: ExposureRecorder | None = None

        def _get_train_sampler(self, *rows: Any) -> Any:
            """The given order; transformers 4 has no setting for even a sequential one."""
            return super()._get_train_sampler(*rows) if self.given_order is None else self.given_order

        def save_checkpoint(self) -> None:
            """Save the present step, outside of the trainer's own schedule."""
            self._save_checkpoint(self.model, trial=None)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            out = Path(self.args.output_dir)
            staging = out / STAGING
            shutil.rmtree(staging, ignore_errors=True)
            self.args.output_dir = str(staging)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = str(out)
            name = f"checkpoint-{self.state.global_step}"
            (staging / name / "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody reads
            if self.checks is not None:
                self.checks.save(staging / name)
            if self.recorder is not None:
                self.recorder.save(staging / name)
            shutil.rmtree(out / name, ignore_errors=True)  # of a copy that was broken off
            (staging / name).rename(out / name)
            forget_resume_files(out, keep=out / name)

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Leave out the card that TRL would write anew at every checkpoint."""

    return _WholeCheckpoints


class _Progress(TrainerCallback):
    """Our progress bar instead of the trainer's, which writes its logs to stdout."""

    def __init__(self) -> None:
        self._task: Task | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        self._task = Task("training", state.max_steps)
        self._task.__enter__()
        if state.global_step:
            self._task.advance(state.global_step, free=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        del args, state, control
        if self._task is not None and logs and "loss" in logs:
            self._task.say(f"training, loss {logs['loss']:.3g}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
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


def can_resume(checkpoint: Path) -> bool:
    """Whether a checkpoint still has the optimizer's state."""
    return (checkpoint / "optimizer.pt").exists()


def forget_resume_files(out: Path, *, keep: Path | None = None) -> None:
    """Delete what only resuming needs from all checkpoints but one; weights and logs stay."""
    for checkpoint in out.glob("checkpoint-*"):
        if checkpoint != keep:
            for name in _RESUME_FILES:
                (checkpoint / name).unlink(missing_ok=True)
