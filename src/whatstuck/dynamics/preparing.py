"""What one call of `track` is about: models, checkpoints, rows; checked before anything is computed.

A run knows what it was made of. A later call takes all of that along, so that naming only new checkpoints, more
rows or another baseline extends the run, and every row is known at every step.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Row, read_rows
from whatstuck.dynamics.gamma import POOLED, UPPER_BOUND
from whatstuck.dynamics.selecting import Selection
from whatstuck.dynamics.settings import TrackSettings
from whatstuck.errors import WhatStuckError
from whatstuck.files import file_hash
from whatstuck.models import (
    Checkpoint,
    base_mismatch,
    checkpoint_at,
    find_checkpoints,
    fingerprint,
    load_tokenizer,
    resolve_model,
    template_mismatch,
    usable_device,
)
from whatstuck.models import mask_token as find_mask_token
from whatstuck.runs import Json, RunFolder, model_names, read_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to score: the one under study with its checkpoints, a baseline by itself, or the upper bound.

    Attributes:
        name: Its short name in the run.
        path: Its folder; of the upper bound, that of the untouched model.
        tokenizer: Its tokenizer.
        mask_token_id: Token that stands for a masked word.
        checkpoints: What to score, by step. A path may be gone if nothing of it is missing in the run.
        prints: Fingerprint of each step's weights.
    """

    name: str
    path: Path
    tokenizer: PreTrainedTokenizerBase
    mask_token_id: int
    checkpoints: tuple[Checkpoint, ...]
    prints: dict[int, str]


class Preparation:
    """Everything that a call of `track` works on.

    Args:
        settings: The settings.

    Raises:
        WhatStuckError: If a model, checkpoint, device or row is not usable, or does not belong to the run.
    """

    def __init__(self, settings: TrackSettings) -> None:
        self.settings = settings
        self.run = RunFolder(settings.out)
        self.before: Json = self.run.manifest().get("track", {})
        self.warnings: list[str] = []
        self.assumed = False  # whether nothing says that the rows were held out
        self.device = usable_device(settings.device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        base = resolve_model(settings.model)
        others = [resolve_model(name) for name in settings.baseline]
        names = self._names([base, *others], [settings.model, *settings.baseline])
        checkpoints, prints = self._checkpoints(base)
        self.subject = _subject(names[0], base, checkpoints, prints, settings.mask_token)
        upper_bound = self._upper_bound()
        self.baselines = [*self._baselines(names[1:], others), *upper_bound]
        for checkpoint in (*checkpoints, *(one.checkpoints[0] for one in upper_bound)):
            if checkpoint.path.exists():
                for mismatch in (base_mismatch(checkpoint, base), template_mismatch(checkpoint, base)):
                    if mismatch is not None:
                        self._warn(mismatch)
        self.data_sha256 = file_hash(settings.data)
        self.rows = self._read_rows()
        self.selection = Selection(
            self.rows,
            self.subject.tokenizer,
            players=settings.players,
            seed=settings.seed,
            chat_template=settings.chat_template,
        )
        if settings.dtype != "float32":
            self._warn(f"scored in {settings.dtype}: interactions of order 5 and more are mostly rounding noise")

    def _warn(self, message: str) -> None:
        logger.warning("%s", message)
        self.warnings.append(message)

    def _names(self, models: Sequence[Path], given: Sequence[str]) -> list[str]:
        """Names of the models: those that the run knows them by, else after what the user calls them."""
        prints = [fingerprint(model) for model in models]
        if len(set(prints)) < len(prints):
            raise WhatStuckError("a --baseline is given twice, or is the model itself: give other models")
        known = {entry["fingerprint"]: entry["name"] for entry in self._known_baselines()}
        if self.before:
            model = self.before["model"]
            known[model["fingerprint"]] = model["name"]
            if prints[0] != model["fingerprint"]:
                raise WhatStuckError(
                    f"{self.run.path} was made for the model {model['path']}: give that one as --model, "
                    "or choose another --out"
                )
        taken = [known.get(digest) for digest in prints]
        new = [Path(name) for name, old in zip(given, taken, strict=True) if old is None]
        fresh = iter(model_names(new, taken={*known.values(), POOLED}))
        return [next(fresh) if old is None else old for old in taken]

    def _checkpoints(self, base: Path) -> tuple[tuple[Checkpoint, ...], dict[int, str]]:
        """The checkpoints given now and those of the run, and the fingerprint of each."""
        found = {checkpoint.step: checkpoint for checkpoint in find_checkpoints(self.settings.checkpoints)}
        gone: dict[int, str] = {}
        for entry in self.before.get("checkpoints", []):
            if entry["path"] is None:
                raise WhatStuckError(
                    f"{self.run.path} was written during a training, and step {entry['step']} was not saved as a "
                    "checkpoint: choose another --out"
                )
            known = Checkpoint(entry["step"], Path(entry["path"]), entry["kind"])
            # the untouched model stays step 0, even if a checkpoint-0 that equals it is named later
            if known.step not in found or known.kind == "base":
                found[known.step] = known
                if not known.path.exists():
                    gone[known.step] = entry["fingerprint"]
        found.setdefault(0, Checkpoint(0, base, "base"))
        checkpoints = tuple(found[step] for step in sorted(found))
        prints = {entry.step: gone.get(entry.step) or fingerprint(entry.path) for entry in checkpoints}
        return checkpoints, prints

    def _baselines(self, names: Sequence[str], paths: Sequence[Path]) -> list[Subject]:
        """The baselines given now, and those of the run that are still there."""
        found = dict(zip(names, paths, strict=True))
        for entry in self._known_baselines():
            if Path(entry["path"]).exists():
                found.setdefault(entry["name"], Path(entry["path"]))
        return [
            _subject(name, path, (Checkpoint(0, path, "base"),), {0: fingerprint(path)}) for name, path in found.items()
        ]

    def _known_baselines(self) -> list[Json]:
        """The other models that the run knows."""
        return [entry for entry in self.before.get("baselines", []) if entry["name"] != UPPER_BOUND]

    def _upper_bound(self) -> list[Subject]:
        """The same model, fine-tuned with another seed; the one given now, or that of the run if it is still there."""
        known = [entry for entry in self.before.get("baselines", []) if entry["name"] == UPPER_BOUND]
        path = self.settings.upper_bound or next((Path(entry["path"]) for entry in known), None)
        if path is None or (known and not path.exists()):
            return []
        checkpoint = checkpoint_at(path, 0)
        digest = fingerprint(path)
        if digest in self.subject.prints.values():
            raise WhatStuckError(f"--upper-bound {path} is a checkpoint under study: give one of another seed")
        if known and digest != known[0]["fingerprint"]:
            raise WhatStuckError(
                f"{self.run.path} has another upper bound, {known[0]['path']}: leave --upper-bound out, "
                "or choose another --out"
            )
        base = self.subject.path
        return [_subject(UPPER_BOUND, base, (checkpoint,), {0: digest}, self.settings.mask_token)]

    def _read_rows(self) -> list[Row]:
        settings = self.settings
        split = settings.split
        if split == "auto":
            split, sure = _split_of(self.data_sha256, self.subject.checkpoints)
            self.assumed = not sure
            if not sure:
                self._warn(
                    f"{settings.data.name} is taken for rows that were not trained on, since nothing says otherwise; "
                    "if they were, give --split train"
                )
        rows = read_rows(
            settings.data,
            columns=settings.columns,
            labels=settings.labels,
            instruction=settings.instruction,
            split=split,
        )
        if not any(row.split == "heldout" for row in rows):
            self._warn("the probed rows are training rows: what they show is memory as much as learning")
        self._refuse_other_rows(rows)
        return rows

    def _refuse_other_rows(self, rows: Sequence[Row]) -> None:
        """A data file may grow, but it must hold the rows that the run is about."""
        path = self.run.part("rows.parquet")
        if path.exists() and self.before and self.data_sha256 != self.before["data"]["sha256"]:
            missing = set(read_table(path)["row_id"].to_pylist()) - {row.row_id for row in rows}
            if missing:
                raise WhatStuckError(
                    f"{len(missing)} rows of {self.run.path} are not in {self.settings.data}: give the same --data "
                    "(it may have grown), or choose another --out"
                )


def _subject(
    name: str,
    path: Path,
    checkpoints: tuple[Checkpoint, ...],
    prints: dict[int, str],
    mask_token: str | None = None,
) -> Subject:
    tokenizer = load_tokenizer(path)
    return Subject(name, path, tokenizer, find_mask_token(tokenizer, mask_token), checkpoints, prints)


def _split_of(digest: str, checkpoints: Sequence[Checkpoint]) -> tuple[Literal["heldout", "train"], bool]:
    """Whether rows were held out, from what `whatstuck train` left beside the checkpoints; and whether that is sure."""
    for folder in {checkpoint.path.parent for checkpoint in checkpoints}:
        record, heldout = folder / "whatstuck_train.json", folder / "heldout.jsonl"
        if record.exists() and digest == json.loads(record.read_text(encoding="utf-8")).get("data_sha256"):
            return "train", True
        if heldout.exists() and digest == file_hash(heldout):
            return "heldout", True
    return "heldout", False
