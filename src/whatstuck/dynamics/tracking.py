"""`track`: from checkpoints and rows to a finished run folder.

rows, players -> value tables -> interactions -> metrics -> verdict -> report. Each step writes parts into the run and
the next one reads them from there; a part that is there is not made again.
"""

import datetime as dt
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Row, read_rows
from whatstuck.dynamics.explaining import Setting, ValueTables, explain
from whatstuck.dynamics.heldout import ScoredRow, evaluate
from whatstuck.dynamics.scoring import Tables, scorer
from whatstuck.dynamics.selecting import ProbedRow, Selection
from whatstuck.dynamics.settings import TrackSettings
from whatstuck.dynamics.summarizing import summarize
from whatstuck.errors import WhatStuckError
from whatstuck.models import (
    Checkpoint,
    CheckpointedModel,
    base_mismatch,
    default_mask_token,
    find_checkpoints,
    fingerprint,
    load_tokenizer,
    resolve_model,
    template_mismatch,
    trainer_metrics,
)
from whatstuck.progress import Task
from whatstuck.runs import Json, RunFolder, file_hash, model_names, read_table, step_name, versions, write_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to score: the one under study with its checkpoints, or a baseline with none."""

    name: str
    path: Path
    tokenizer: PreTrainedTokenizerBase
    mask_token_id: int
    checkpoints: tuple[Checkpoint, ...]


class Tracking:
    """One call of `track`, prepared: what there is to do, before anything is computed.

    Args:
        settings: The settings.

    Raises:
        WhatStuckError: If a model, checkpoint or row is not usable.
    """

    def __init__(self, settings: TrackSettings) -> None:
        self.settings = settings
        self.run = RunFolder(settings.out)
        self.warnings: list[str] = []
        base = resolve_model(settings.model)
        others = [resolve_model(name) for name in settings.baseline]
        names = self._names([base, *others], [settings.model, *settings.baseline])
        checkpoints = find_checkpoints(settings.checkpoints)
        if checkpoints[0].step != 0:
            checkpoints = [Checkpoint(0, base, "base"), *checkpoints]
        self.subject = self._subject(names[0], base, tuple(checkpoints), settings.mask_token)
        self.baselines = [
            self._subject(name, path, (Checkpoint(0, path, "base"),))
            for name, path in zip(names[1:], others, strict=True)
        ]
        for checkpoint in checkpoints:
            for mismatch in (base_mismatch(checkpoint, base), template_mismatch(checkpoint, base)):
                if mismatch is not None:
                    self._warn(mismatch)
        self.rows = self._read_rows()
        self.selection = Selection(
            self.rows,
            self.subject.tokenizer,
            players=settings.players,
            seed=settings.seed,
            chat_template=settings.chat_template,
        )
        self.device = _device(settings.device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        if settings.dtype != "float32":
            self._warn(f"scored in {settings.dtype}: interactions of order 5 and more are mostly rounding noise")

    def _names(self, models: Sequence[Path], given: Sequence[str]) -> list[str]:
        """Names of the models: those that the run knows them by, else after what the user calls them.

        Raises:
            WhatStuckError: If the run was made for another model.
        """
        prints = [fingerprint(model) for model in models]
        if len(set(prints)) < len(prints):
            raise WhatStuckError("a --baseline is given twice, or is the model itself: give other models")
        before = self.run.manifest().get("track", {})
        known = {entry["fingerprint"]: entry["name"] for entry in before.get("baselines", [])}
        if before:
            known[before["model"]["fingerprint"]] = before["model"]["name"]
            if prints[0] != before["model"]["fingerprint"]:
                raise WhatStuckError(
                    f"{self.run.path} was made for the model {before['model']['path']}: give that one as --model, "
                    "or choose another --out"
                )
        taken = [known.get(digest) for digest in prints]
        fresh = iter(
            model_names(
                [Path(name) for name, old in zip(given, taken, strict=True) if old is None], taken=set(known.values())
            )
        )
        return [next(fresh) if old is None else old for old in taken]

    @staticmethod
    def _subject(name: str, path: Path, checkpoints: tuple[Checkpoint, ...], mask_token: str | None = None) -> Subject:
        tokenizer = load_tokenizer(path)
        if mask_token is None:
            return Subject(name, path, tokenizer, default_mask_token(tokenizer), checkpoints)
        token = tokenizer.convert_tokens_to_ids(mask_token)
        if not isinstance(token, int) or tokenizer.convert_ids_to_tokens(token) != mask_token:
            raise WhatStuckError(f"--mask-token {mask_token!r} is no token of {name}: give one of its vocabulary")
        return Subject(name, path, tokenizer, token, checkpoints)

    def _warn(self, message: str) -> None:
        logger.warning("%s", message)
        self.warnings.append(message)

    def _read_rows(self) -> list[Row]:
        settings = self.settings
        split = settings.split
        if split == "auto":
            split = "train" if _was_trained_on(settings.data, self.subject.checkpoints) else "heldout"
        rows = read_rows(
            settings.data,
            columns=settings.columns,
            labels=settings.labels,
            instruction=settings.instruction,
            split=split,
        )
        if not any(row.split == "heldout" for row in rows):
            self._warn("the probed rows are training rows: what they show is memory as much as learning")
        return rows

    # --- the work

    def execute(self) -> None:
        """Do what is not done yet, and write the manifest, metrics, verdict and report."""
        started = time.monotonic()
        with self.run.writing():
            self.run.refuse_changed_settings("track", self.settings.fixed())
            chosen = self._choose()
            self.run.write_section("track", self._section(chosen, started, skipped_by={}))
            skipped_by = self._score(chosen)
            self._explain(chosen)
            self.run.write_section("track", self._section(chosen, started, skipped_by))
            summarize(self.run, seed=self.settings.seed)

    def _choose(self) -> pa.Table:
        path = self.run.part("rows.parquet")
        before = read_table(path) if path.exists() else None
        chosen = self.selection.extend(before, self.settings.rows)
        if before is None or len(chosen) > len(before):
            write_table(path, chosen)
        return chosen

    def _score(self, chosen: pa.Table) -> dict[str, int]:
        """Held-out losses and value tables of every model and checkpoint."""
        rows = {
            index: ProbedRow(
                row["row_id"],
                row["prompt"],
                tuple(row["target_ids"]),
                row["target_text"],
                tuple((player["start"], player["end"]) for player in row["players"]),
            )
            for index, row in enumerate(chosen.to_pylist())
        }
        heldout = self.selection.heldout(self.settings.eval_rows)
        steps = len(self.subject.checkpoints) + len(self.baselines)
        skipped: dict[str, int] = {}
        with Task("value tables", steps * len(rows)) as task:
            self._score_subject(self.subject, rows, heldout, task)
            for baseline in self.baselines:
                seen = self.selection.seen_by(baseline.tokenizer, [row.row_id for row in rows.values()])
                theirs = {index: seen[row.row_id] for index, row in rows.items() if row.row_id in seen}
                skipped[baseline.name] = len(rows) - len(theirs)
                if not theirs:
                    raise WhatStuckError(
                        f"none of the rows can be probed on {baseline.name}: choose another --baseline"
                    )
                task.advance(skipped[baseline.name], free=True)
                self._score_subject(baseline, theirs, [], task)
        return skipped

    def _score_subject(
        self, subject: Subject, rows: dict[int, ProbedRow], heldout: Sequence[ScoredRow], task: Task
    ) -> None:
        folder = self.run.part("values", subject.name)
        model: CheckpointedModel | None = None
        for checkpoint in subject.checkpoints:
            tables = Tables(folder, checkpoint.step, self._identity(subject, checkpoint))
            missing = tables.missing(list(rows))
            task.advance(len(rows) - len(missing), free=True)
            losses = self.run.part("heldout", step_name(checkpoint.step, "parquet"))
            if not missing and not _lacks(losses, heldout):
                continue
            task.say(f"{subject.name} step {checkpoint.step}")
            if model is None:
                model = CheckpointedModel(subject.path, device=self.device, dtype=self.dtype)
            with model.at(checkpoint) as scored:
                if _lacks(losses, heldout):
                    pad = subject.mask_token_id
                    write_table(losses, evaluate(scored, heldout, pad))
                make_game = scorer(
                    scored,
                    subject.tokenizer,
                    whole_target=self.settings.whole_target,
                    mask_token_id=subject.mask_token_id,
                    memory_limit=int(self.settings.memory_limit_gb * 2**30),
                )
                tables.score(rows, make_game, task.advance)

    def _identity(self, subject: Subject, checkpoint: Checkpoint) -> Json:
        return {
            "fingerprint": fingerprint(checkpoint.path),
            "dtype": self.settings.dtype,
            "mask_token_id": subject.mask_token_id,
            "whole_target": self.settings.whole_target,
        }

    def _explain(self, chosen: pa.Table) -> None:
        settings = [Setting(share, self.settings.noise_scale) for share in self.settings.noise_bound]
        row_ids = chosen["row_id"].to_pylist()
        jobs = [(subject, step) for subject in (self.subject, *self.baselines) for step in subject.checkpoints]
        base_scale: dict[str, float] = {}
        with Task("interactions", len(jobs)) as task:
            for subject, checkpoint in jobs:
                part = self.run.part("values", subject.name, step_name(checkpoint.step, "safetensors"))
                tables = ValueTables.read(part)
                base_scale.setdefault(subject.name, tables.scale)
                folder = self.run.part("interactions", subject.name)
                made = explain(folder, tables, row_ids, settings, base_scale[subject.name], self.settings.seed)
                task.advance(free=not made)

    # --- the manifest

    def _section(self, chosen: pa.Table, started: float, skipped_by: dict[str, int]) -> Json:
        def described(subject: Subject) -> Json:
            token = subject.tokenizer.convert_ids_to_tokens(subject.mask_token_id)
            return {
                "name": subject.name,
                "path": str(subject.path),
                "fingerprint": fingerprint(subject.path),
                "mask_token": token,
                "mask_token_id": subject.mask_token_id,
            }

        checkpoints = [
            {
                "step": checkpoint.step,
                "path": str(checkpoint.path),
                "kind": checkpoint.kind,
                "fingerprint": fingerprint(checkpoint.path),
            }
            for checkpoint in self.subject.checkpoints
        ]
        before = self.run.manifest().get("track", {})
        known = {entry["step"]: entry for entry in before.get("checkpoints", [])}
        known |= {entry["step"]: entry for entry in checkpoints}
        baselines = {entry["name"]: entry for entry in before.get("baselines", [])}
        for baseline in self.baselines:
            baselines[baseline.name] = described(baseline) | {"skipped_rows": skipped_by.get(baseline.name, 0)}
        return {
            "settings": self.settings.fixed(),
            "model": described(self.subject),
            "baselines": list(baselines.values()),
            "checkpoints": [known[step] for step in sorted(known)],
            "data": {
                "path": str(self.settings.data),
                "sha256": file_hash(self.settings.data),
                "rows": len(self.rows),
                "probed": len(chosen),
                "split": "/".join(sorted({row.split for row in self.rows})),
            },
            "skipped": dict(self.selection.skipped),
            "trainer_state": {
                name: [list(pair) for pair in pairs]
                for name, pairs in trainer_metrics(self.subject.checkpoints).items()
            },
            "warnings": self.warnings,
            "versions": versions(),
            "dtype": self.settings.dtype,
            "seed": self.settings.seed,
            "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 1),
        }


def _lacks(losses: Path, heldout: Sequence[ScoredRow]) -> bool:
    """Whether the held-out part is missing, or knows fewer rows than are to be scored."""
    if not heldout:
        return False
    return not losses.exists() or not {row.row_id for row in heldout} <= set(read_table(losses)["row_id"].to_pylist())


def _was_trained_on(data: Path, checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether `whatstuck train` recorded this very file as what it trained on."""
    if not data.exists():
        return False
    for folder in {checkpoint.path.parent for checkpoint in checkpoints}:
        record = folder / "whatstuck_train.json"
        if record.exists() and file_hash(data) == json.loads(record.read_text(encoding="utf-8")).get("data_sha256"):
            return True
    return False


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
