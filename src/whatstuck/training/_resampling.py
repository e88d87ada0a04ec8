"""Rows in a given order, and forgotten ones drawn again, as a sampler of the trainer.

What is drawn depends on what the model has forgotten, so it cannot be known before. It is written into every
checkpoint, and a training that goes on draws what it would have drawn.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Sampler
from transformers import TrainerCallback

from whatstuck.dynamics.teacher_forcing import TokenRow, score_tokens
from whatstuck.live.borrowing import borrowed
from whatstuck.training._tokens import IGNORED
from whatstuck.training.resampler import Resampler

logger = logging.getLogger(__name__)

FILE_NAME = "resampling.json"


class GivenOrder(Sampler[int]):
    """Positions of rows in the order of their ids, once.

    Args:
        ids: The ids in their order, or what draws them.
        positions: Id to position in the data set.
    """

    def __init__(self, ids: "Sequence[str] | Resampler", positions: Mapping[str, int]) -> None:
        self._ids = ids
        self._positions = positions

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        return (self._positions[name] for name in self._ids)


class Checks(TrainerCallback):
    """Looks every so many steps at what the model has right, and tells the one who draws.

    Args:
        resampler: Who draws.
        records: The rows: `row_id`, `input_ids`, `labels`.
        every: Steps between two checks.
        per_step: Rows per optimizer step.
        pad_token_id: Any token id.
    """

    def __init__(
        self,
        resampler: Resampler,
        records: Sequence[Mapping[str, Any]],
        *,
        every: int,
        per_step: int,
        pad_token_id: int,
    ) -> None:
        self._resampler = resampler
        self._rows = {record["row_id"]: _tokens(record) for record in records}
        self._every = every
        self._per_step = per_step
        self._pad_token_id = pad_token_id

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on from what the checkpoint says."""
        del control
        if state.global_step:
            file = Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE_NAME
            self._resampler.go_on(json.loads(file.read_text(encoding="utf-8")))

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look at the rows."""
        del args, control
        if state.global_step % self._every or state.global_step >= state.max_steps:
            return
        names = [name for name in self._resampler.rows if self._rows[name].predicted]
        with borrowed(model) as scored:
            scores = score_tokens(scored, [self._rows[name] for name in names], self._pad_token_id)
        right = [name for name, score in zip(names, scores, strict=True) if score.correct]
        # The loader is one batch ahead, so the next step is drawn already: the check counts from the one after it.
        weights = self._resampler.check(right, at=(state.global_step + 1) * self._per_step)
        logger.info(
            "step %d: %d of %d rows right, %d drawn more often", state.global_step, len(right), len(names), len(weights)
        )

    def save(self, folder: Path) -> None:
        """Write what going on takes into the folder of a checkpoint."""
        (folder / FILE_NAME).write_text(json.dumps(self._resampler.state()) + "\n", encoding="utf-8")


def _tokens(record: Mapping[str, Any]) -> TokenRow:
    labels = record["labels"]
    return TokenRow(tuple(record["input_ids"]), tuple(at for at in range(1, len(labels)) if labels[at] != IGNORED))
