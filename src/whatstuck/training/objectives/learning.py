"""An objective on the batches of a trainer: which positions count, what they are divided by, who the reference is.

TRL computes the log-probabilities of labels without ever having all logits, which is why it gives none to a loss of
one's own. The objectives here need them, so the model runs as usual, with logits for the supervised end of the rows.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.masked import accepted_options
from whatstuck.live.borrowing import borrowed, causal_model, quiet_mode, without_adapter
from whatstuck.training._tokens import IGNORED
from whatstuck.training.objectives.distance import Distance
from whatstuck.training.objectives.interface import Objective
from whatstuck.training.objectives.threshold import top_mass_threshold
from whatstuck.training.objectives.tokens import SED


class Learner:
    """Computes the loss of a trainer's batches.

    Args:
        objective: What is minimized.
        trainer: The trainer, with its model as it is at the start, not yet resumed.
        rows: Held-out rows as tokens, for a threshold that is found on them.
        reference: A frozen copy of the model at the start (`frozen_copy`); None where the model is an adapter, which
            is then switched off instead.

    Attributes:
        objective: The same, with everything found that it needs.
        sequences: Sequences in the global batch of the present step; the trainer sets it.
    """

    def __init__(
        self,
        objective: Objective,
        trainer: Any,
        rows: Sequence[Mapping[str, Any]],
        reference: PreTrainedModel | None = None,
    ) -> None:
        if getattr(trainer, "aux_loss_enabled", False):
            raise WhatStuckError(
                f"the objective {objective.name} has no loss for the router of a mixture of experts: use sft or dft, "
                "or give router_aux_loss_coef=0"
            )
        if isinstance(objective, SED) and objective.tau is None:
            with borrowed(trainer.model) as model:
                tau = top_mass_threshold(model, rows, k=objective.k, ratio=objective.ratio)
            objective = objective.model_copy(update={"tau": tau})
        self.objective = objective
        self.sequences = 0
        self._trainer = trainer
        self._reference = reference
        self._distance = Distance(trainer.model) if objective.watches_weights else None
        # The trainer counts the tokens of the global batch only for models that say so, and would divide again.
        trainer.model_accepts_loss_kwargs = True

    def __call__(self, model: Any, inputs: Mapping[str, Any], tokens_in_batch: Tensor | int | None) -> Tensor:
        """The loss of a batch, scaled for the global batch that it is a part of.

        Args:
            model: The model as the trainer runs it.
            inputs: `input_ids`, `attention_mask` and `labels`, (rows, length).
            tokens_in_batch: Supervised tokens of the global batch; None where this batch is all of it.
        """
        labels = inputs["labels"][:, 1:]
        supervised = labels != IGNORED
        given = {name: value for name, value in inputs.items() if name in ("input_ids", "attention_mask")}
        loss = self.objective.loss(
            _logits(model, given, supervised),
            labels[supervised],
            ref_logits=self._reference_logits(model, given, supervised),
            normalizer=self._normalizer(supervised, tokens_in_batch),
        )
        parts, total = dict(loss.parts), loss.total
        if self._distance is not None:
            squared = self._distance.squared()
            penalty = self.objective.penalty(squared)
            if penalty is not None:
                # once per step, however many batches it has
                steps = 1 if tokens_in_batch is None else self._trainer.current_gradient_accumulation_steps
                total = total + penalty / steps
                parts |= {"distance": squared.detach().sqrt(), "penalty": penalty.detach()}
        for name, value in parts.items():
            self._trainer._metrics["train"][name].append(value.item())  # noqa: SLF001 - TRL logs their means
        self._count_tokens(inputs)
        return total

    def _count_tokens(self, inputs: Mapping[str, Any]) -> None:
        """What TRL logs as `num_tokens`: all tokens that went through the model so far."""
        if hasattr(self._trainer, "_total_train_tokens"):  # TRL's own business, so it may be called otherwise one day
            self._trainer._total_train_tokens += int(inputs["attention_mask"].sum())  # noqa: SLF001 - as above
            self._trainer._metrics["train"]["num_tokens"] = [self._trainer._total_train_tokens]  # noqa: SLF001

    def _normalizer(self, supervised: Tensor, tokens_in_batch: Tensor | int | None) -> Tensor:
        lengths = supervised.sum(1)
        if self.objective.per_sequence:
            sequences = len(lengths) if tokens_in_batch is None else self.sequences
            return (lengths * sequences).repeat_interleave(lengths)
        # on several visible GPUs, the trainer writes the same number once for each
        count = lengths.sum() if tokens_in_batch is None else torch.as_tensor(tokens_in_batch).flatten()[0]
        return count.to(lengths.device).clamp(min=1)

    def _reference_logits(self, model: Any, given: Mapping[str, Any], supervised: Tensor) -> Tensor | None:
        if not self.objective.needs_reference:
            return None
        with torch.no_grad(), self._trainer.accelerator.autocast():
            if self._reference is not None:
                torch.nn.Module.to(self._reference, supervised.device)  # the trainer moves its own model alone
                return _logits(self._reference, given, supervised)
            with quiet_mode(model), without_adapter(model) as untouched:  # dropout is no part of the reference
                if not untouched:
                    raise WhatStuckError(f"the objective {self.objective.name} has no reference: give a frozen copy")
                return _logits(model, given, supervised)


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The model as it is now, for good. Take it before a trainer gets the model, which it changes."""
    reference = copy.deepcopy(model)
    reference.eval()
    return reference.requires_grad_(requires_grad=False)


@contextmanager
def plain_loss(trainer: Any) -> Iterator[None]:
    """Cross-entropy for the time of an evaluation: `eval_loss` must compare checkpoints, and trainings."""
    given, function = getattr(trainer.args, "loss_type", None), trainer.compute_loss_func
    try:
        if given == "dft":
            trainer.args.loss_type = "nll"
            trainer.compute_loss_func = None  # where older versions of TRL keep it
        yield
    finally:
        if given == "dft":
            trainer.args.loss_type = given
            trainer.compute_loss_func = function


def _logits(model: Any, given: Mapping[str, Any], supervised: Tensor) -> Tensor:
    """Logits of the supervised positions of all rows, (tokens, vocabulary)."""
    # positions from the first supervised one on, and the last, which predicts nothing
    keep = int(supervised.shape[1] - supervised.any(0).int().argmax()) + 1
    options = accepted_options(causal_model(model), logits_to_keep=keep)
    logits: Tensor = model(**given, use_cache=False, **options).logits[:, -keep:-1]
    return logits[supervised[:, -(keep - 1) :]]
