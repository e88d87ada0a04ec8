"""The one function that every objective is: logits at the supervised positions in, a number out.

How the tokens of a batch are averaged is the caller's affair: it divides by what it counted over the whole global
batch, gradient accumulation included. An objective that averaged by itself would weigh short micro-batches too much,
and one that divided by its own weights would take back what the weights do.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from whatstuck.errors import WhatStuckError

_ROWS = 256  # positions whose entropy is taken at once


@dataclass(frozen=True, slots=True)
class Loss:
    """What an objective says of a batch.

    Attributes:
        total: The scalar to go down.
        parts: What to log, by name: means over the tokens of this batch, without gradient. `nll`, and by the names
            that TRL logs them under, `mean_token_accuracy` (the most likely token is the label) and `entropy` (nats);
            then what the objective adds. Empty where the batch has no token.
    """

    total: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the model says at the supervised positions.

    Attributes:
        log_p: Log-probabilities of the whole vocabulary, float32 (tokens, vocabulary).
        own: Those of the labels, float32 (tokens,).
        ref_log_p: As `log_p`, of the reference model; None where an objective has none.
    """

    log_p: Tensor
    own: Tensor
    ref_log_p: Tensor | None


class Objective(BaseModel):
    """An objective; its fields are its options.

    Attributes:
        per_sequence: Every sequence weighs the same, whatever its length; else every token of the global batch does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    needs_reference: ClassVar[bool] = False

    per_sequence: bool = False

    def loss(
        self, logits: Tensor, labels: Tensor, *, ref_logits: Tensor | None = None, normalizer: Tensor | float
    ) -> Loss:
        """The loss of some tokens.

        Args:
            logits: At the supervised positions, (tokens, vocabulary).
            labels: The tokens to learn, int64 (tokens,).
            ref_logits: The same positions of the frozen model that the training began with.
            normalizer: What each token's loss is divided by before the sum: the tokens of the global batch, or
                one number per token, (tokens,).

        Raises:
            WhatStuckError: If the objective needs a reference and there is none.
        """
        if self.needs_reference and ref_logits is None:
            raise WhatStuckError(f"the objective {self.name} compares with the model at the start: give ref_logits")
        log_p = logits.float().log_softmax(-1)
        reference = (
            ref_logits.detach().float().log_softmax(-1) if self.needs_reference and ref_logits is not None else None
        )
        tokens = Tokens(log_p, log_p.gather(-1, labels[:, None]).squeeze(-1), reference)
        each, parts = self.per_token(tokens)
        total = (each / normalizer).sum()
        if not len(labels):
            return Loss(total, {})
        shown = {
            "nll": -tokens.own,
            "mean_token_accuracy": log_p.argmax(-1) == labels,
            "entropy": entropies(log_p),
            **parts,
        }
        return Loss(total, {name: part.detach().float().mean() for name, part in shown.items()})

    def per_token(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each token, (tokens,), and what to log beside it, by name, each (tokens,)."""
        raise NotImplementedError

    def penalty(self, squared_distance: Tensor) -> Tensor | None:
        """What is added once per optimizer step for the distance of the weights from the start; None: nothing.

        Args:
            squared_distance: Sum of the squared changes of all trained weights, a scalar.
        """
        del squared_distance
        return None

    @property
    def watches_weights(self) -> bool:
        """Whether there is such a penalty."""
        return type(self).penalty is not Objective.penalty


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p to q) of each row, in nats: `sum_v p_v (log p_v - log q_v)`, (tokens,).

    >>> from torch import tensor
    >>> kl_divergence(tensor([[0.5, 0.5]]).log(), tensor([[0.25, 0.75]]).log())
    tensor([0.1438])

    Tokens that p rules out add nothing, as the limit of `p log p` says; `0 * inf` would be NaN, and its gradient.
    """
    difference = (log_p - log_q).masked_fill(log_p == -torch.inf, 0)
    return (log_p.exp() * difference).sum(-1)


def entropies(log_p: Tensor) -> Tensor:
    """Entropy of each row in nats, without gradient: (tokens, vocabulary) -> (tokens,).

    Some rows at a time, since all of them would take as much memory again as the probabilities do.
    """
    return torch.cat([torch.special.entr(some.exp()).sum(-1) for some in log_p.detach().split(_ROWS)])
