"""Trains an arm with TRL, as the first training was, with one thing changed.

Every phase is a `train` of its own with rows that are tokens already and with a given order, so that what is fed is
what was fed, token by token. Phases are chained through model folders: what one phase learned is merged, and the next
one starts from there with a fresh adapter and optimizer. A killed arm goes on where it stopped; once it is asked,
its weights are deleted.
"""

import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.models import Checkpoint, CheckpointedModel, checkpoint_at, find_checkpoints, trainer_metrics
from whatstuck.rows.interventions.orders import sequence
from whatstuck.rows.interventions.phases import Arm, Phase
from whatstuck.runs import write_json
from whatstuck.training import TrainConfig, train_model
from whatstuck.training._tokens import write_order, write_tokens

logger = logging.getLogger(__name__)

Encoded = Mapping[str, Any]
"""`row_id`, `input_ids`, and `labels` that are -100 where nothing is learned."""

# What a repetition sets by itself, and where a training reports to; everything else is taken over from the first one.
_OURS = frozenset(
    {
        "model", "data", "out", "heldout", "eval_data", "eval_rows", "columns", "labels", "instruction", "limit",
        "chat_template", "max_length", "dense_checkpoints", "save_steps", "order", "resample", "resample_every",
        "resample_spared", "seed", "data_seed", "run", "probe", "num_train_epochs", "max_steps", "dataset_name",
        "model_name_or_path", "output_dir", "resume_from_checkpoint", "train_sampling_strategy", "group_by_length",
        "report_to", "run_name", "logging_dir", "push_to_hub", "hub_model_id", "hub_strategy", "hub_token",
        "hub_private_repo", "hub_revision", "hub_always_push", "deepspeed", "fsdp", "fsdp_config",
    }
)  # fmt: skip
_SAVES = 4  # per phase, so that a killed one does not begin anew
_DELTA = 0.01  # nats: the loss has risen (arXiv 2604.10079, Eq. 7)


@dataclass(frozen=True)
class Recipe:
    """What all arms have in common.

    Attributes:
        base: Folder of the untouched model.
        settings: The settings of the first training: of TrainConfig and of TRL's SFTConfig.
        fed: Rows as they were fed, by id; also texts.
        asked: Rows as they are asked, by id: whole answers, nothing masked.
        constant_rate: Rate of a continuation, as a share of the peak rate.
        check_every: Steps between two checks of what is forgotten; by default ten checks a phase.
    """

    base: Path
    settings: Mapping[str, Any]
    fed: Mapping[str, Encoded]
    asked: Mapping[str, Encoded]
    constant_rate: float = 0.1
    check_every: int | None = None


class TrainingRunner:
    """Trains arms in `FOLDER/ARM/seed-K/`.

    Args:
        folder: Where to work.
        recipe: What all arms have in common.
        device: Where the trained model is asked.
        keep: Keep the weights of the arms.

    Raises:
        WhatStuckError: If the settings are none of a training.
    """

    def __init__(self, folder: Path, recipe: Recipe, *, device: str | torch.device = "cpu", keep: bool = False) -> None:
        self._folder = folder
        self._recipe = recipe
        self._settings = repeated(recipe.settings)
        self._device = device
        self._keep = keep
        arguments = self._config(folder, recipe.base, seed=0).sft_config(folder)
        self._peak = float(arguments.learning_rate)
        self.batch = int(arguments.train_batch_size * arguments.gradient_accumulation_steps)
        """Rows per optimizer step."""

    @contextmanager
    def run(self, arm: Arm, seed: int) -> Iterator[PreTrainedModel]:
        """The trained arm in eval mode. After a block without an error its weights are deleted."""
        out = self._folder / arm.name / f"seed-{seed}"
        start = self._recipe.base
        for number, phase in enumerate(arm.phases, start=1):
            merged = out / f"{phase.name}-merged"
            if number < len(arm.phases) and merged.is_dir():
                start = merged
                continue
            steps = self._steps(phase, seed)
            checkpoint = self._train(arm, phase, seed, start, steps) if steps else None
            if number < len(arm.phases):
                self._merge(start, checkpoint, merged)
                if start != self._recipe.base:
                    shutil.rmtree(start)
                start = merged
        with CheckpointedModel(start, device=self._device).at(checkpoint) as model:
            yield model
        if not self._keep:
            self.forget(arm, seed)

    def forget(self, arm: Arm, seed: int) -> None:
        """Delete what an arm was trained with; how many steps it took stays known."""
        for path in (self._folder / arm.name / f"seed-{seed}").glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix != ".json" or path.name.endswith("order.json"):
                path.unlink()

    def _steps(self, phase: Phase, seed: int) -> int:
        """Steps of a phase; of one that is like another arm's, as many as that one chose."""
        file = self._folder / phase.like / f"seed-{seed}" / f"{phase.name}.json"
        if phase.like and file.exists():
            return min(phase.steps, int(json.loads(file.read_text(encoding="utf-8"))["step"]))
        return phase.steps

    def _train(self, arm: Arm, phase: Phase, seed: int, start: Path, steps: int) -> Checkpoint | None:
        """The checkpoint that a phase ends with; None if it is best not begun."""
        out = self._folder / arm.name / f"seed-{seed}"
        chosen, folder = out / f"{phase.name}.json", out / phase.name
        if not chosen.exists():
            logger.info("arm %s, seed %d: %s (%d steps)", arm.name, seed, phase.name, steps)
            train_model(self._prepared(arm, phase, seed, start, steps))
            step = steps
            if phase.watched:
                step = last_falling(trainer_metrics(find_checkpoints([str(folder)]))["eval_loss"])
                logger.info("arm %s, seed %d: the weights of step %d of %d are taken", arm.name, seed, step, steps)
            write_json(chosen, {"step": step, "steps": steps})
        step = int(json.loads(chosen.read_text(encoding="utf-8"))["step"])
        for other in folder.glob("checkpoint-*"):
            if other.name != f"checkpoint-{step}":
                shutil.rmtree(other)
        return checkpoint_at(folder / f"checkpoint-{step}", step) if step else None

    def _prepared(self, arm: Arm, phase: Phase, seed: int, start: Path, steps: int) -> TrainConfig:
        """The settings of a phase, its rows and its order written."""
        out = self._folder / arm.name / f"seed-{seed}"
        here = [
            name
            for name in dict.fromkeys((*phase.rows, *phase.beside))
            if name in self._recipe.fed or name in arm.whole
        ]
        if not here:
            raise WhatStuckError(f"arm {arm.name}: none of its rows is there to be trained; check what was fed")
        records = [self._recipe.asked[name] if name in arm.whole else self._recipe.fed[name] for name in here]
        data, order = out / f"{phase.name}.jsonl", out / f"{phase.name}.order.json"
        write_tokens(records, data)
        write_order(sequence(_only(phase, set(here)), batch=self.batch, seed=seed, steps=steps), order)
        changes: dict[str, Any] = {"save_steps": math.ceil(steps / _SAVES)}
        if phase.watched:
            changes["save_steps"] = math.ceil(len(phase.rows) / self.batch)
            changes["eval_data"] = out / f"{phase.name}.watched.jsonl"
            write_tokens([self._recipe.asked[name] for name in phase.watched], changes["eval_data"])
        if phase.constant:
            changes |= {"learning_rate": self._peak * self._recipe.constant_rate, "lr_scheduler_type": "constant"}
        if phase.resample != "never":
            changes |= {"resample": phase.resample, "resample_spared": list(phase.spared)}
            changes["resample_every"] = self._recipe.check_every or max(1, steps // 10)
        return self._config(out / phase.name, start, seed=seed, data=data, order=order, **changes)

    def _config(self, out: Path, start: Path, **changes: Any) -> TrainConfig:
        given = {"model": str(start), "data": out, "out": out, "dense_checkpoints": False, "max_length": None}
        return TrainConfig.read(self._settings | given | changes)

    def _merge(self, start: Path, checkpoint: Checkpoint | None, merged: Path) -> None:
        """Write the model that the next phase starts from, whole or not at all."""
        partial = merged.with_name(f".{merged.name}")
        shutil.rmtree(partial, ignore_errors=True)
        models = CheckpointedModel(start)
        with models.at(checkpoint) as model:
            model.save_pretrained(partial)
        models.tokenizer.save_pretrained(partial)
        partial.rename(merged)
        if checkpoint is not None:
            shutil.rmtree(checkpoint.path.parent)


def repeated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings of a training, those that its repetition takes over."""
    return {name: value for name, value in settings.items() if name not in _OURS and value is not None}


def last_falling(curve: Sequence[tuple[int, float]]) -> int:
    """The step before the loss first rose by more than 0.01 nats, else the last one (arXiv 2604.10079, Eq. 7).

    >>> last_falling([(0, 1.0), (10, 0.8), (20, 0.805), (30, 0.9), (40, 0.1)])
    20
    """
    for (step, loss), (_, later) in pairwise(curve):
        if later > loss + _DELTA:
            return step
    return curve[-1][0]


def _only(phase: Phase, there: set[str]) -> Phase:
    """A phase without rows that cannot be trained, such as those longer than the model reads."""
    rows, beside = (tuple(name for name in ids if name in there) for ids in (phase.rows, phase.beside))
    return replace(phase, rows=rows, beside=beside)
