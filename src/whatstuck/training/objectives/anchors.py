"""Objectives that keep the model near the one that the training began with, in its answers or in its weights."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from whatstuck.errors import WhatStuckError
from whatstuck.training.objectives.interface import Objective, Tokens, kl_divergence


class ASFT(Objective):
    """Anchored DFT (ASFT, arXiv 2509.23753): `-sg(p_t) log p_t + weight KL(ref to theta)`.

    Attributes:
        weight: Of the divergence.
    """

    name: ClassVar[str] = "asft"
    needs_reference: ClassVar[bool] = True

    weight: float = Field(default=0.1, ge=0)

    def per_token(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """`-sg(p_t) log p_t + weight KL(ref to theta)`."""
        divergence = kl_divergence(_reference(tokens), tokens.log_p)
        own_weight = tokens.own.detach().exp()
        return self.weight * divergence - own_weight * tokens.own, {"weight": own_weight, "kl": divergence}


class KL(Objective):
    """Cross-entropy with a leash (arXiv 2510.00237, App. C): `-log p_t + weight KL(theta to ref)`.

    The divergence is over the whole vocabulary at every supervised position.

    Attributes:
        weight: Of the divergence; the paper tries 0.05, 0.1 and 0.5.
    """

    name: ClassVar[str] = "kl"
    needs_reference: ClassVar[bool] = True

    weight: float = Field(default=0.1, ge=0)

    def per_token(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """`-log p_t + weight KL(theta to ref)`."""
        divergence = kl_divergence(tokens.log_p, _reference(tokens))
        return self.weight * divergence - tokens.own, {"kl": divergence}


class L2(Objective):
    """Cross-entropy with a leash on the weights (arXiv 2510.00237, App. C): `... + weight |theta - theta_ref|^2`.

    The raw sum over all trained weights, so its size goes with the model. Of an adapter it is that of the matrices that
    it adds to the model (see `distance`): the same number that full fine-tuning to the same model would have.

    Attributes:
        weight: Of the sum; the paper tries 0.05, 0.1 and 0.5.
    """

    name: ClassVar[str] = "l2"

    weight: float = Field(default=0.05, ge=0)

    def per_token(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """`-log p_t`."""
        return -tokens.own, {}

    def penalty(self, squared_distance: Tensor) -> Tensor:
        """`weight |theta - theta_ref|^2`."""
        return self.weight * squared_distance


def _reference(tokens: Tokens) -> Tensor:
    if tokens.ref_log_p is None:
        raise WhatStuckError("this objective compares with the model at the start: give ref_logits")
    return tokens.ref_log_p
