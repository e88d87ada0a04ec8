"""Watches which rows enter the model while it is trained, and leaves the counts beside each checkpoint.

A hook in front of the model sees every batch of every trainer. Evaluations and probes run in eval mode: they do not
count.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from whatstuck.errors import WhatStuckError
from whatstuck.live.borrowing import causal_model
from whatstuck.live.ranks import Ranks
from whatstuck.rows.exposure import Counts, Exposures, read_exposures, together, write_exposures
from whatstuck.rows.trajectories import TrainedRow, trained_rows

logger = logging.getLogger(__name__)


class ExposureRecorder(TrainerCallback):
    """Counts how often each row was learned, and when last; writes `exposures.parquet` into every checkpoint.

    Args:
        dataset: What is trained on, as the trainer feeds it; None takes it from the trainer's loader.
    """

    def __init__(self, dataset: Any = None) -> None:
        self.rows: list[TrainedRow] = []
        self._dataset = dataset
        self._exposures: Exposures | None = None
        self._ranks = Ranks()
        self._step = 0
        self._hook: Any = None

    def counts(self) -> Counts | None:
        """The counts of all processes; None if they are not known. Every process must call it."""
        mine = None if self._exposures is None else self._exposures.taken()
        return together(self._ranks.everywhere(lambda: mine))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the hook in front of the model; go on from the checkpoint that the training goes on from."""
        del control
        self.close()
        loader = kwargs.get("train_dataloader")
        dataset = getattr(loader, "dataset", None) if self._dataset is None else self._dataset
        try:
            self._ranks = Ranks()
            self.rows = trained_rows(dataset)
            model = causal_model(kwargs["model"])
        except WhatStuckError as error:  # packed or streamed rows: the training goes on without counts
            logger.info("how often each row is learned is not counted: %s", error)
            return
        self._exposures = Exposures(self.rows)
        if state.global_step:
            # every process goes on from all counts, so only the first one takes them
            before = read_exposures(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            if self._ranks.first or before is None:
                self._exposures.go_on_from(before)
        self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note which step begins."""
        del args, control
        self._step = state.global_step + 1

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the counts in the checkpoint."""
        del control
        self.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def save(self, folder: Path) -> None:
        """Leave the counts in a folder, if it is there. Every process must call it."""
        counts = self.counts()
        if self._ranks.first and counts is not None and folder.is_dir():
            try:
                write_exposures(folder, self.rows, counts)
            except OSError as error:  # a full disk must not end the training
                logger.warning("how often each row was learned could not be written: %s", error)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the hook away."""
        del args, state, control
        self.close()

    def close(self) -> None:
        """Take the hook away, also after an error."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if module.training and self._exposures is not None:
            batch = dict(kwargs) if "input_ids" in kwargs or not args else {**kwargs, "input_ids": args[0]}
            self._exposures.see(batch, self._step)
