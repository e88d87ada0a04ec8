"""Other models, scored once before the training begins, so that gamma can be told at every probe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from whatstuck.dynamics.gamma import POOLED, UPPER_BOUND
from whatstuck.dynamics.selecting import ProbedRow
from whatstuck.dynamics.settings import TrackSettings
from whatstuck.live.prober import Prober, Share
from whatstuck.live.ranks import Ranks
from whatstuck.models import (
    Checkpoint,
    CheckpointedModel,
    checkpoint_at,
    default_mask_token,
    fingerprint,
    load_tokenizer,
    resolve_model,
)
from whatstuck.runs import Json, model_names


@dataclass(frozen=True, slots=True)
class Baseline:
    """Another model.

    Attributes:
        name: Its short name in the run.
        path: Its folder.
        fingerprint: Of its weights.
        tokenizer: Its tokenizer.
        mask_token_id: Token that stands for a masked word.
        checkpoint: What to put on it; of the upper bound, which is the model under training with another seed.
    """

    name: str
    path: Path
    fingerprint: str
    tokenizer: PreTrainedTokenizerBase
    mask_token_id: int
    checkpoint: Checkpoint | None = None

    def described(self, *, skipped: int) -> Json:
        """For run.json."""
        return {
            "name": self.name,
            "path": str(self.path if self.checkpoint is None else self.checkpoint.path),
            "fingerprint": self.fingerprint,
            "mask_token": self.tokenizer.convert_ids_to_tokens(self.mask_token_id),
            "mask_token_id": self.mask_token_id,
            "skipped_rows": skipped,
            "role": "baseline" if self.checkpoint is None else "upper bound",
        }


def find_baselines(settings: TrackSettings, model: str, base: str) -> list[Baseline]:
    """The baselines that were asked for, and the upper bound.

    Args:
        settings: The settings.
        model: Short name of the model under training.
        base: Where it was loaded from; needed for an upper bound that is an adapter.

    Raises:
        WhatStuckError: If one is no model that loads.
    """
    names = model_names([Path(name) for name in settings.baseline], taken={model, UPPER_BOUND, POOLED})
    found = []
    for name, given in zip(names, settings.baseline, strict=True):
        path = resolve_model(given)
        tokenizer = load_tokenizer(path)
        found.append(Baseline(name, path, fingerprint(path), tokenizer, default_mask_token(tokenizer)))
    if settings.upper_bound is not None:
        path, checkpoint = resolve_model(base), checkpoint_at(settings.upper_bound, 0)
        tokenizer = load_tokenizer(path)
        print_ = fingerprint(checkpoint.path)
        found.append(Baseline(UPPER_BOUND, path, print_, tokenizer, default_mask_token(tokenizer), checkpoint))
    return found


def score_baseline(
    baseline: Baseline, rows: Mapping[int, ProbedRow], settings: TrackSettings, device: torch.device, ranks: Ranks
) -> Share:
    """This process's share of a baseline's value tables; the model is loaded, scored and let go."""
    dtype: torch.dtype = getattr(torch, settings.dtype)
    prober = Prober(baseline.tokenizer, baseline.mask_token_id, settings, ranks)
    with CheckpointedModel(baseline.path, device=device, dtype=dtype).at(baseline.checkpoint) as scored:
        return prober.share(scored, 0, rows)
