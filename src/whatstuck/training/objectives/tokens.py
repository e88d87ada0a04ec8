"""Objectives that need nothing but the model's own probabilities: cross-entropy, and three ways to weigh it."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from whatstuck.errors import WhatStuckError
from whatstuck.training.objectives.interface import Objective, Tokens, entropies

EAFT_SCALE = 3.0
"""About ln 20, the most that the entropy of 20 tokens can be: so weights are about 1 at most."""


class SFT(Objective):
    """Cross-entropy: `-log p_t`."""

    name: ClassVar[str] = "sft"

    def per_token(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """`-log p_t`."""
        return -tokens.own, {}


class DFT(Objective):
    """Dynamic fine-tuning (arXiv 2508.05629): `-sg(p_t) log p_t`, where sg stops the gradient.

    Its gradient is that of `-p_t`: the factor `1 / p_t` that cross-entropy has, seen as a policy gradient, is gone.
    """

    name: ClassVar[str] = "dft"

    def per_token(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """`-sg(p_t) log p_t`."""
        weight = tokens.own.detach().exp()
        return -weight * tokens.own, {"weight": weight}


class SED(Objective):
    """Selective entropy-like regularization (SED-SFT, arXiv 2602.07464): `-log p_t + weight M_t (p_t - 1/2)^2`.

    `M_t` is 1 where the k most likely tokens together have less than tau. The quadratic term is not detached: it pulls
    the label's probability to one half where the model is unsure.

    Attributes:
        k: Tokens whose probabilities are summed, for the mask and for the rule of tau alike.
        tau: The threshold. None: by the percentile rule (`threshold.top_mass_threshold`).
        ratio: Of the percentile rule: the share of positions that reach tau, so that the others are regularized.
        weight: Of the term; the paper's lambda.
    """

    name: ClassVar[str] = "sed"

    k: int = Field(default=10, ge=1)
    tau: float | None = Field(default=None, ge=0)
    ratio: float = Field(default=0.7, gt=0, le=1)
    weight: float = Field(default=1.0, ge=0)

    def per_token(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """`-log p_t + weight M_t (p_t - 1/2)^2`."""
        if self.tau is None:
            raise WhatStuckError("the objective sed has no threshold yet: give tau, or find it with top_mass_threshold")
        unsure = (top_mass(tokens.log_p.detach(), self.k) < self.tau).float()
        term = self.weight * unsure * (tokens.own.exp() - 0.5).square()
        return term - tokens.own, {"regularized": unsure, "penalty": term}


class EAFT(Objective):
    """Entropy-adaptive fine-tuning (arXiv 2601.02151): `-sg((H_k / 3)^alpha) log p_t`.

    `H_k` is the entropy, in nats, of the k most likely tokens among themselves. Where the model is sure of something
    else than the label, the label hardly counts.

    Attributes:
        k: Tokens that the entropy is taken over; all where the vocabulary has fewer.
        alpha: Exponent; 0 is cross-entropy.
    """

    name: ClassVar[str] = "eaft"

    k: int = Field(default=20, ge=2)
    alpha: float = Field(default=1.0, ge=0)

    def per_token(self, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        """`-sg((H_k / 3)^alpha) log p_t`."""
        among = _top(tokens.log_p.detach(), self.k).log_softmax(-1)
        entropy = entropies(among)
        weight = (entropy / EAFT_SCALE) ** self.alpha
        return -weight * tokens.own, {"weight": weight, "top_entropy": entropy}


def top_mass(log_p: Tensor, k: int) -> Tensor:
    """Probability of the k most likely tokens together: (tokens, vocabulary) -> (tokens,)."""
    return _top(log_p, k).exp().sum(-1)


def _top(log_p: Tensor, k: int) -> Tensor:
    return log_p.topk(min(k, log_p.shape[-1]), dim=-1).values
