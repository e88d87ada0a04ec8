"""Does it survive other wording and harder cases? Every checkpoint asked every variant, then judged.

The replies of a checkpoint to a variant are a part of the run folder. What is there is not asked again, so an
interrupted call goes on and ends in the same tables; and prompts of two variants never share a batch, so that a part
does not depend on which others were missing. A call asks what it names, and takes along what is there: a checkpoint
that diverged, or a variant that does not fit, is not asked again by a call that names it no more.
"""

import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.cells import failures_of
from whatstuck.generalization.choosing import is_unseen
from whatstuck.generalization.evaluating import evaluate
from whatstuck.generalization.preparing import Material
from whatstuck.generalization.schemas import GENERALIZATION, REPLIES
from whatstuck.generalization.settings import GeneralizeSettings
from whatstuck.generalization.statistics import cell_rows
from whatstuck.generalization.survival import beyond_range
from whatstuck.generalization.task import Variant
from whatstuck.generalization.verdict import judge
from whatstuck.models import Checkpoint, CheckpointedModel
from whatstuck.progress import Task as Progress
from whatstuck.report import write_report
from whatstuck.runs import Json, read_table, table_metadata, versions, write_table

TABLE = "generalization.parquet"
_MOST = 10  # texts of failures that are kept
_LONGEST = 200  # characters of one


def generalize(settings: GeneralizeSettings) -> Path:
    """Run the verb; see `GeneralizeSettings`.

    Returns:
        The run folder.

    Raises:
        WhatStuckError: With one line that says what is wrong and what to do.
    """
    Generalizing(settings).execute()
    return settings.out


class Generalizing:
    """One call of `generalize`.

    Args:
        settings: The settings.

    Raises:
        WhatStuckError: If anything it works on is not usable.
    """

    def __init__(self, settings: GeneralizeSettings) -> None:
        self.settings = settings
        self.material = Material(settings)
        self._run = self.material.run
        self._models: CheckpointedModel | None = None

    def execute(self) -> None:
        """Ask whatever was not asked yet, then judge and write the page."""
        start, material = time.monotonic(), self.material
        with self._run.writing():
            if (self._run.manifest().get("generalize") or {}) != material.before:
                raise WhatStuckError(f"{self._run.path} was changed by another process: run the same command again")
            self._borrow()
            missing = self.missing()
            for variant in {variant.name: variant for _, variant in missing}.values():
                material.cell(variant)  # what cannot be asked is said before anything is
            self._save(start)
            if missing:
                self._run.part(TABLE).unlink(missing_ok=True)  # it stands for a finished call
            self._ask(missing)
            rows = self._rows()
            verdict = judge(rows, beyond=beyond_range(material.task_section()["variants"]))
            write_table(self._run.part(TABLE), pa.Table.from_pylist(rows, schema=GENERALIZATION))
            self._save(start, verdict=verdict)
            write_report(self._run.path)

    # --- parts

    def missing(self) -> list[tuple[Checkpoint, Variant]]:
        """What this call names and no arm of the run holds, by checkpoint."""
        return [pair for pair in self._wanted() if self._lender(*pair) is None]

    def _wanted(self) -> list[tuple[Checkpoint, Variant]]:
        """What this call names and this arm does not hold, by checkpoint."""
        return [
            (checkpoint, variant)
            for checkpoint in self.material.checkpoints
            if checkpoint.step in self.material.named
            for variant in self.material.variants
            if not self._holds(self._part(self.settings.arm, checkpoint.step, variant.name), checkpoint, variant)
        ]

    def _holds(self, path: Path, checkpoint: Checkpoint, variant: Variant) -> bool:
        """Whether a part is there, with as many items as this call wants."""
        if not path.exists():
            return False
        about = table_metadata(read_table(path))
        same = about.get("identity") == self.material.identity(checkpoint, variant)
        return same and bool(about["wanted"] >= self.settings.items)

    def _lender(self, checkpoint: Checkpoint, variant: Variant) -> Path | None:
        """The part of another arm that has asked the same model the same, mostly the untouched one."""
        paths = (self._part(arm, checkpoint.step, variant.name) for arm in self.material.before.get("arms", {}))
        return next((path for path in paths if self._holds(path, checkpoint, variant)), None)

    def _borrow(self) -> None:
        """Copy what other arms hold."""
        for checkpoint, variant in self._wanted():
            lender = self._lender(checkpoint, variant)
            if lender is not None:
                table = read_table(lender)
                write_table(self._part(self.settings.arm, checkpoint.step, variant.name), table, table_metadata(table))

    def _part(self, arm: str, step: int, variant: str) -> Path:
        return self.material.part(arm, step, variant)

    def _ask(self, missing: list[tuple[Checkpoint, Variant]]) -> None:
        replies = sum(len(self.material.cell(variant).items) for _, variant in missing)
        with Progress(f"asking {self.settings.arm}", replies) as progress:
            for checkpoint in self.material.checkpoints:
                variants = [variant for one, variant in missing if one == checkpoint]
                if not variants:
                    continue
                with ExitStack() as stack:
                    model = stack.enter_context(self._loaded().at(checkpoint if checkpoint.kind != "base" else None))
                    for variant in variants:
                        self._ask_one(model, checkpoint, variant, progress)

    def _ask_one(self, model: PreTrainedModel, checkpoint: Checkpoint, variant: Variant, progress: Progress) -> None:
        material, cell = self.material, self.material.cell(variant)
        failed = failures_of(cell)
        try:
            records = evaluate(model, material.tokenizer, cell, progress=progress)
        except WhatStuckError as error:
            raise WhatStuckError(f"step {checkpoint.step}, {error}") from error
        about = {
            "identity": material.identity(checkpoint, variant),
            "wanted": self.settings.items,
            "unsolvable": cell.unsolvable,
            "failures": _most(failures_of(cell) - failed),
        }
        path = self._part(self.settings.arm, checkpoint.step, variant.name)
        write_table(path, pa.Table.from_pylist(records, schema=REPLIES), about)

    def _loaded(self) -> CheckpointedModel:
        if self._models is None:
            material = self.material
            self._models = CheckpointedModel(material.base, device=material.device, dtype=material.dtype)
        return self._models

    # --- what they say

    def _rows(self) -> list[Json]:
        """One row per cell of every arm of the run, in the order of arms, steps and variants."""
        rows: list[Json] = []
        for arm, step, variant, table in self._tables():
            about = table_metadata(table)
            rows += cell_rows(
                table.to_pylist(),
                task=self.material.task.name,
                arm=arm,
                variant=variant,
                step=step,
                temperature=self.settings.temperature,
                unsolvable=about["unsolvable"],
                seed=self.settings.seed,
            )
        return rows

    def _failures(self) -> Counter[str]:
        """What failed checks said, in all parts; so a call that was interrupted loses none."""
        found: Counter[str] = Counter()
        for *_, table in self._tables():
            found.update(table_metadata(table).get("failures", {}))
        return found

    def _tables(self) -> Iterator[tuple[str, int, Variant, pa.Table]]:
        for arm, about in self._arms().items():
            for step in [entry["step"] for entry in about["checkpoints"]]:
                for variant in self.material.task.variants:
                    path = self._part(arm, step, variant.name)
                    if variant.name in about["variants"] and path.exists():
                        yield arm, step, variant, read_table(path)

    def _arms(self) -> dict[str, Json]:
        return {**self.material.before.get("arms", {}), self.settings.arm: self.material.arm_section()}

    # --- the manifest

    def _save(self, start: float, *, verdict: Json | None = None) -> None:
        material, before = self.material, self.material.before
        warnings = list(dict.fromkeys([*before.get("warnings", []), *material.warnings]))
        self._run.write_section(
            "generalize",
            {
                "settings": self.settings.fixed(),
                "task": material.task_section(),
                "unseen": is_unseen(material.task),
                "model": material.model_section(),
                "arms": self._arms(),
                "verdict": verdict,
                "failures": _most(self._failures()),
                "warnings": warnings,
                "versions": versions(),
                "dtype": self.settings.dtype,
                "seed": self.settings.seed,
                "started": before.get("started") or dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "seconds": round(before.get("seconds", 0.0) + time.monotonic() - start, 1),
            },
        )


def _most(failures: Mapping[str, int]) -> dict[str, int]:
    """The most frequent texts, cut to their beginnings."""
    found: Counter[str] = Counter()
    for text, count in failures.items():
        found[text[:_LONGEST]] += count
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST])
