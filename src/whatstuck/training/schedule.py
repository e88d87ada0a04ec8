"""When checkpoints are saved: densely from the first step, because that is where most of the change happens.

Fine-tuning can remove in three steps what a schedule of every 500 steps then reports as "gone at the first
checkpoint". So steps 0, 1, 2, 4, 8, ... are saved beside every N-th. Each one is also evaluated, for a curve that
starts at the untouched model.
"""

import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from whatstuck.live.schedule import dense_steps


def total_steps(arguments: Any, rows: int) -> int:
    """Optimizer steps of a training in one process.

    Args:
        arguments: TRL's SFTConfig.
        rows: Number of training rows.
    """
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    size: int = arguments.train_batch_size
    batches = rows // size if arguments.dataloader_drop_last else math.ceil(rows / size)
    per_epoch = max(math.ceil(batches / int(arguments.gradient_accumulation_steps)), 1)
    return math.ceil(float(arguments.num_train_epochs) * per_epoch)


class DenseCheckpoints(TrainerCallback):
    """Saves, evaluates and logs at the steps of `dense_steps`, and nowhere else.

    The trainer's own strategies for saving and evaluating must be `no`.

    Args:
        trainer: The trainer, with `evaluate()` and `save_checkpoint()`.
        every: Save every so many steps.
        dense: Also save steps 0, 1, 2, 4, ...
        save_first: Save step 0 as well as evaluate it. Worth it for an adapter; of a fully trained model it would
            only be a copy of the base.
    """

    def __init__(self, trainer: Any, *, every: int, dense: bool, save_first: bool) -> None:
        self._trainer = trainer
        self._every = every
        self._dense = dense
        self._save_first = save_first
        self._steps: frozenset[int] = frozenset()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Plan the steps; evaluate and save the untouched model, unless training goes on from a checkpoint."""
        del control
        self._steps = frozenset(dense_steps(state.max_steps, self._every, dense=self._dense))
        if state.global_step or (Path(args.output_dir) / "checkpoint-0").exists():
            return
        if self._trainer.eval_dataset is not None:
            self._trainer.evaluate()
        if 0 in self._steps and self._save_first:
            self._trainer.save_checkpoint()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint with its metrics where the schedule has one."""
        del args
        if state.global_step in self._steps:
            control.should_log = True
            control.should_evaluate = self._trainer.eval_dataset is not None
            control.should_save = True
