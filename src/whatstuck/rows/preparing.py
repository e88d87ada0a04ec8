"""What one call of `rows` is about: model, checkpoints, the rows and how they were fed; all checked first."""

import logging
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Row, render, target_ids
from whatstuck.errors import WhatStuckError
from whatstuck.files import file_hash
from whatstuck.models import (
    Checkpoint,
    base_mismatch,
    find_checkpoints,
    fingerprint,
    load_tokenizer,
    positions_of,
    resolve_model,
    template_mismatch,
    usable_device,
)
from whatstuck.rows.causes.conflicts import Conflicts, find_conflicts, find_judge
from whatstuck.rows.exposure import Counts, read_exposures, tokens_hash
from whatstuck.rows.feeding.gate import checked, ends_are_learned, failed_tests, fitting, followed
from whatstuck.rows.feeding.sources import Feed, Source, feed_of, find_source, reading
from whatstuck.rows.material import NotTrained, TrainingRow
from whatstuck.rows.settings import RowsSettings
from whatstuck.rows.trajectories import TrainedRow
from whatstuck.rows.verdicts.answers import Checker, find_checker, function_hash
from whatstuck.runs import RunFolder

logger = logging.getLogger(__name__)


class Material:
    """Everything that a call of `rows` works on.

    Attributes:
        base: Folder of the untouched model.
        checkpoints: By step, the untouched model first.
        prints: Fingerprint of each step's weights.
        rows: The training rows, those that failed a test of gate 0 included.
        fed_known: Whether it is known how they were fed.

    Args:
        settings: The settings.

    Raises:
        WhatStuckError: If a model, checkpoint, device or row is not usable, or the data is not what was trained on.
    """

    def __init__(self, settings: RowsSettings) -> None:
        self.settings = settings
        self.run = RunFolder(settings.out)
        self.warnings: list[str] = []
        self.device = usable_device(settings.device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        self.base = resolve_model(settings.model).resolve()
        self.checkpoints = self._checkpoints()
        self.prints = {checkpoint.step: fingerprint(checkpoint.path) for checkpoint in self.checkpoints}
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(self.base)
        self.checker: Checker = find_checker(settings.checker)
        self.checker_hash = function_hash(settings.checker)
        trained = [checkpoint for checkpoint in self.checkpoints if checkpoint.kind != "base"]
        self.source: Source = find_source(settings.training, [checkpoint.path for checkpoint in trained])
        self.fed_known = self.source.kind != "assumed"
        self.data_sha256 = file_hash(settings.data)
        self.chat_template, shape = self._as_trained()
        feed = feed_of(self.source, settings.data, self.tokenizer, self.base, shape=shape)
        self.rows = self._rows(feed)
        if not self.fed_known:
            self._warn(f"{self.source.sentence}; name the training with --training")
        if settings.dtype != "float32":
            self._warn(f"scored in {settings.dtype}: small differences of loss are rounding noise")

    @property
    def last(self) -> Checkpoint:
        """The finished model."""
        return self.checkpoints[-1]

    @property
    def followed(self) -> list[TrainedRow]:
        """What is looked at from checkpoint to checkpoint, in the order of the rows."""
        positions = positions_of(self.base)
        return [TrainedRow(row.row_id, followed(row, positions)) for row in self.rows]

    def conflicts(self) -> Conflicts:
        """Rows that ask the same and contradict each other."""
        judge = self.settings.judge
        return find_conflicts(
            self.rows,
            self.settings.thresholds,
            checker=self.checker,
            embed=self.settings.embedding,
            judge=None if judge is None else find_judge(judge),
        )

    def exposures(self, checkpoint: Checkpoint) -> Counts | None:
        """How often each row had been learned at a checkpoint; None where its folder does not say so of these rows."""
        found = read_exposures(self.last.path if checkpoint.step == 0 else checkpoint.path)
        fed = {tokens_hash(row.tokens.ids) for row in self.followed}
        if found is None or not fed & found.keys() or (self.fed_known and not self._fed_hashes <= found.keys()):
            return None
        return {} if checkpoint.step == 0 else found

    @property
    def _fed_hashes(self) -> set[str]:
        return {tokens_hash(row.fed.ids) for row in self.rows if row.fed is not None}

    def _warn(self, message: str) -> None:
        logger.warning("%s", message)
        self.warnings.append(message)

    def _checkpoints(self) -> tuple[Checkpoint, ...]:
        found = {checkpoint.step: checkpoint for checkpoint in find_checkpoints(self.settings.checkpoints)}
        if not any(found):
            raise WhatStuckError("no checkpoint after step 0 is given: it takes the finished model to see what stuck")
        found.setdefault(0, Checkpoint(0, self.base, "base"))
        for checkpoint in found.values():
            for mismatch in (base_mismatch(checkpoint, self.base), template_mismatch(checkpoint, self.base)):
                if mismatch is not None:
                    self._warn(mismatch)
        return tuple(found[step] for step in sorted(found))

    def _as_trained(self) -> tuple[str, dict[str, Any]]:
        """Chat template and shape of the rows: what the user says, else what the training says."""
        settings = self.settings
        given = {"columns": settings.columns, "labels": settings.labels, "instruction": settings.instruction}
        if self.source.kind != "whatstuck":
            return settings.chat_template, given
        recorded = self.source.config["settings"]
        changed = [name for name, value in given.items() if value is not None and str(value) != str(recorded.get(name))]
        if changed:
            raise WhatStuckError(
                f"{changed[0]} is not what {self.source.path} was trained with ({recorded.get(changed[0])!r}): leave "
                f"--{changed[0]} out"
            )
        return str(recorded.get("chat_template", "auto")), reading(recorded)

    def _rows(self, feed: Feed) -> list[TrainingRow]:
        positions = positions_of(self.base)
        rows = [self._row(row, feed) for row in feed.rows]
        tested = []
        for row in rows:
            found: list[NotTrained] = [
                *failed_tests(row, self.tokenizer, known=self.fed_known),
                *checked(row, lambda answer, row=row: self.checker(row.row, answer)),  # type: ignore[misc]  # mypy and defaults
                *fitting(row, positions),
            ]
            tested.append(replace(row, not_trained=tuple(found)))
        if self.fed_known:
            tested = self._without_an_end(tested)
        return tested

    def _row(self, row: Row, feed: Feed) -> TrainingRow:
        rendered = render(row, self.tokenizer, chat_template=self.chat_template)
        prompt = self.tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
        target = target_ids(rendered, self.tokenizer)
        return TrainingRow(row, rendered, tuple(prompt), tuple(target), feed.fed.get(row.row_id))

    def _without_an_end(self, rows: list[TrainingRow]) -> list[TrainingRow]:
        """An end of turn that was cut: a fault of the row where others have one, of the training where none has."""
        ends = ends_are_learned(rows)
        if True not in ends:
            if False in ends:
                self._warn("no row's end was trained, so the model does not learn to stop: check the end-of-text token")
            return rows
        cut = NotTrained("answer_cut", "The end behind its answer was cut, which other rows have.")
        return [
            replace(row, not_trained=(*row.not_trained, cut)) if end is False else row
            for row, end in zip(rows, ends, strict=True)
        ]
