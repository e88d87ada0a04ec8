"""TRL's SFTTrainer, made to minimize any objective, to save whole checkpoints only, and to print nothing."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from whatstuck.errors import WhatStuckError, require
from whatstuck.live import WhatStuckCallback
from whatstuck.live.exposing import ExposureRecorder
from whatstuck.models import default_mask_token
from whatstuck.training._data import Prepared
from whatstuck.training._resampling import Checks, GivenOrder
from whatstuck.training._saving import Progress, WholeCheckpoints
from whatstuck.training.config import TrainConfig
from whatstuck.training.objectives.learning import Learner, frozen_copy, plain_loss
from whatstuck.training.resampler import Resampler
from whatstuck.training.schedule import DenseCheckpoints


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
    objective = config.own_objective()
    reference = frozen_copy(model) if objective and objective.needs_reference and not config.use_peft else None
    adapter = adapter_config(config) if config.use_peft else None
    if adapter is None:
        model.requires_grad_(requires_grad=True)
    try:
        with old_names_allowed():
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
    if objective is not None:
        trainer.learner = Learner(objective, trainer, rows.evaluation, reference)
    trainer.progress = Progress()
    trainer.add_callback(trainer.progress)
    if probe is not None:  # before the first evaluation, which it adds to
        probe.attach(trainer)
    recorder = ExposureRecorder(trainer.train_dataset)
    trainer.attachments += (recorder,)
    trainer.add_callback(recorder)
    trainer.add_callback(
        DenseCheckpoints(trainer, every=config.save_steps, dense=config.dense_checkpoints, save_first=config.use_peft)
    )
    return trainer


@contextmanager
def old_names_allowed() -> Iterator[None]:
    """PEFT and TRL ask transformers 5.23 for an old name, and it warns; nothing that a user could change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def adapter_config(config: Any) -> Any:
    """PEFT's LoraConfig from settings that name its parts `lora_r`, `lora_alpha`, ..."""
    return require("peft", "trl").LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
        task_type="CAUSAL_LM",
    )


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
    checks = Checks(
        drawing,
        rows.train,
        every=config.resample_every,
        per_step=arguments.train_batch_size * arguments.gradient_accumulation_steps,
        pad_token_id=default_mask_token(tokenizer),
    )
    trainer.attachments += (checks,)
    trainer.add_callback(checks)
    return GivenOrder(drawing, positions)


def _trainer_class() -> Any:
    """SFTTrainer with our ways of saving, drawing and learning; made on call, because TRL is an extra."""

    class _Trainer(WholeCheckpoints, require("trl", "trl").SFTTrainer):  # type: ignore[misc]  # TRL has no types
        given_order: GivenOrder | None = None
        learner: Learner | None = None

        def _get_train_sampler(self, *rows: Any) -> Any:
            """The given order; transformers 4 has no setting for even a sequential one."""
            return super()._get_train_sampler(*rows) if self.given_order is None else self.given_order

        def get_batch_samples(self, *given: Any, **named: Any) -> Any:
            """The batches of a step; the learner hears how many sequences they hold."""
            batches, tokens = super().get_batch_samples(*given, **named)
            if self.learner is not None:
                self.learner.sequences = sum(len(batch["labels"]) for batch in batches)
            return batches, tokens

        def compute_loss(
            self,
            model: Any,
            inputs: Mapping[str, Any],
            return_outputs: bool = False,  # noqa: FBT001, FBT002 - the trainer's signature
            num_items_in_batch: Any = None,
        ) -> Any:
            """The objective in training, plain cross-entropy in evaluation."""
            if not self.model.training:
                with plain_loss(self):
                    return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if self.learner is None:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return self.learner(model, inputs, num_items_in_batch)

    return _Trainer
