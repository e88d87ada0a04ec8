"""What an intervention works on, from the folder of a `rows` run: rows, how they were trained, and what may be changed.

Nothing is trained here, and no settings of a training are needed before something is: probes go without them.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from whatstuck.datasets import Row, read_rows
from whatstuck.errors import WhatStuckError
from whatstuck.models import Checkpoint, positions_of
from whatstuck.rows.interventions.first_training import settings_of
from whatstuck.rows.interventions.outcomes import Interview, Role
from whatstuck.rows.interventions.phases import Order, Original
from whatstuck.rows.interventions.settings import InterveneSettings
from whatstuck.rows.interventions.texts import Document, read_documents, repeats, supporting
from whatstuck.rows.interventions.training import Encoded, Recipe
from whatstuck.rows.interventions.wordings import read_paraphrases
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.preparing import Material
from whatstuck.rows.settings import RowsSettings
from whatstuck.rows.verdicts.answers import normalized
from whatstuck.runs import RunFolder, read_table
from whatstuck.training._data import Encoder
from whatstuck.training._tokens import IGNORED

logger = logging.getLogger(__name__)

_REPAIRABLE = {"dropped", "nothing_supervised", "answer_cut", "answer_masked", "other_prompt"}


class Gathered:
    """Everything that an intervention works on.

    Attributes:
        material: What `rows` worked on.
        targets: Ids of the rows of the cause that are followed: unlearned and, if wanted, unstable ones.
        asked: By id, rows as they are asked, the end of the answer behind them; none that is longer than the context.
        interview: How arms are asked.
        documents: The user's supporting texts.

    Args:
        settings: The settings.

    Raises:
        WhatStuckError: If the run has no rows of that cause, or a file of the user's is bad.
    """

    def __init__(self, settings: InterveneSettings) -> None:
        self.settings = settings
        self.run = RunFolder(settings.run)
        self.material = material_of(self.run, settings.device)
        self._rows = {row.row_id: row for row in self.material.rows}
        self._encoder = Encoder(self.material.tokenizer, self.material.chat_template)
        self._positions = positions_of(self.material.base)
        self.targets = self._sample(self._unlearned(), settings.most)
        self.asked = self._encoded([row.row for row in self.material.rows])
        self._fed = self._as_fed()
        self._trained = tuple(self._fed)
        self._conflicts = self._find_conflicts()
        self.documents: list[Document] = []
        self._texts: dict[str, tuple[str, ...]] = {"supporting": (), "general": ()}
        self._take_texts()
        self.interview = self._interview()

    @property
    def last(self) -> Checkpoint:
        """The finished model."""
        return self.material.last

    @cached_property
    def recipe(self) -> Recipe:
        """What all arms have in common.

        Raises:
            WhatStuckError: If nothing says how the first model was trained.
        """
        settings = self.settings
        return Recipe(
            self.material.base,
            settings_of(self.material.source, self.last, given=settings.training),
            self._fed,
            self.asked,
            constant_rate=settings.constant_rate,
            check_every=settings.check_every,
        )

    def original(self, batch: int) -> Original:
        """The first training, with `batch` rows per step."""
        settings = self.settings
        sequential = self.recipe.settings.get("train_sampling_strategy") == "sequential"
        order: Order = "given" if sequential else "shuffled"
        return Original(
            rows=self._trained,
            steps=self.last.step,
            batch=batch,
            order=order if settings.order == "auto" else settings.order,
            conflicts=self._conflicts,
            kept=frozenset(_read_ids(settings.kept, self._rows) if settings.kept else ()),
            ill_fed=tuple(row.row_id for row in self.material.rows if _is_repairable(row) and row.row_id in self.asked),
            supporting=self._texts["supporting"],
            general=self._texts["general"],
            watched=self._watch() if settings.watch else (),
        )

    # --- rows

    def _unlearned(self) -> list[str]:
        """Rows of the cause: unlearned ones, and unstable ones where they are wanted."""
        table = read_table(self.run.part("unlearned.parquet")).select(["row_id", "verdict", "cause"]).to_pylist()
        there = [row for row in table if row["row_id"] in self._rows]
        wanted = [row for row in there if self.settings.unstable or row["verdict"] == "unlearned"]
        cause = self.settings.cause
        found = [row["row_id"] for row in wanted if row["cause"] == cause]
        if found:
            return found
        named = ", ".join(sorted({row["cause"] for row in wanted})) or "none"
        more = sum(row["cause"] == cause for row in there)
        hint = f"; {more} unstable rows have it, which --unstable follows" if more else ""
        kind = "unlearned or unstable" if self.settings.unstable else "unlearned"
        raise WhatStuckError(f"no {kind} row of {self.settings.run} has the cause {cause}: it has {named}{hint}")

    def _sample(self, ids: list[str], most: int) -> list[str]:
        order = np.random.default_rng(self.settings.seed).permutation(len(ids))[:most]
        return [ids[index] for index in sorted(order)]

    def _find_conflicts(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Rows that were trained and contradict each other, as votes; see `Original`."""
        votes = [
            tuple((name, normalized(self._rows[name].row.completion)) for name in names if name in self._fed)
            for names in self.material.conflicts().groups.values()
        ]
        return tuple(group for group in votes if len({answer for _, answer in group}) > 1)

    def _interview(self) -> Interview:
        verdicts = read_table(self.run.part("verdicts.parquet")).select(["row_id", "verdict"]).to_pylist()
        learned = [row["row_id"] for row in verdicts if row["verdict"] == "learned" and row["row_id"] in self._rows]
        roles: dict[str, Role] = dict.fromkeys(self.targets, "unlearned")
        roles |= dict.fromkeys(self._sample(learned, self.settings.learned), "learned")
        settings, material = self.settings, self.material
        rows = [row.row for row in material.rows]
        return Interview(
            cause=settings.cause,
            roles=roles,
            rows=[self._rows[name] for name in roles],
            others=material.rows,
            groups={name: f"conflict-{number}" for number, group in enumerate(self._conflicts, 1) for name, _ in group},
            paraphrases=read_paraphrases(settings.paraphrases, rows) if settings.paraphrases else {},
            checker=material.checker,
            thresholds=material.settings.thresholds,
            chat_template=material.chat_template,
            seed=settings.seed,
        )

    # --- what is trained

    def _as_fed(self) -> dict[str, Encoded]:
        """Rows as they were fed; where nothing says how, all of them as they are asked."""
        if not self.material.fed_known:
            return dict(self.asked)
        fed = [_as_fed(row) for row in self.material.rows if row.fed is not None]
        found = {str(row["row_id"]): row for row in fed if self._fits(row)}
        if len(found) < len(fed):
            logger.warning(
                "%d rows are longer than the model reads (%s tokens): no arm trains them",
                len(fed) - len(found),
                self._positions,
            )
        return found

    def _encoded(self, rows: Sequence[Row]) -> dict[str, Encoded]:
        """Rows as they are asked, by id, without those that the model cannot read."""
        encoded = map(self._encoder, rows)
        return {str(row["row_id"]): row for row in encoded if self._fits(row)}

    def _fits(self, row: Encoded) -> bool:
        return self._positions is None or len(row["input_ids"]) <= self._positions

    def _take_texts(self) -> None:
        """Read the user's texts, and put them among what can be trained."""
        settings = self.settings
        longest = max((len(row["input_ids"]) for row in self._fed.values()), default=None)
        for name, path in (("supporting", settings.supporting), ("general", settings.general)):
            if path is None:
                continue
            documents = read_documents(path, self.material.tokenizer, longest=longest)
            chosen = [document.row for document in documents]
            if name == "supporting":
                self.documents, chosen = documents, supporting(documents, self.targets)
                targets = [self._rows[target].row for target in self.targets]
                if count := repeats(chosen, targets):
                    logger.warning(
                        "%d supporting texts hold a row word by word: that trains it, it is no support", count
                    )
            encoded = self._encoded(chosen)
            self._fed |= encoded
            self._texts[name] = tuple(encoded)
        both = set(self._texts["supporting"])
        self._texts["general"] = tuple(name for name in self._texts["general"] if name not in both)

    def _watch(self) -> tuple[str, ...]:
        """Ids of held-out rows that the training left beside its checkpoints."""
        folder = self.material.source.path
        file = None if folder is None else folder / "heldout.jsonl"
        if file is None or not file.is_file():
            return ()
        rows = {f"heldout-{name}": row for name, row in self._encoded(read_rows(file, limit=200)).items()}
        self.asked |= rows
        return tuple(rows)


def material_of(run: RunFolder, device: str) -> Material:
    """What `rows` worked on, of the finished model alone.

    Raises:
        WhatStuckError: If the run has no rows yet, or what it was made of is gone or changed.
    """
    section = run.manifest().get("rows")
    if section is None:
        raise WhatStuckError(f"{run.path} holds no results of `whatstuck rows`: run it first")
    checkpoints = [entry for entry in section["checkpoints"] if entry["kind"] != "base" and entry["path"]]
    training = section["training"].get("folder") or section["training"].get("path")
    values = section["settings"] | {
        "model": section["model"]["path"],
        "checkpoints": [max(checkpoints, key=lambda entry: int(entry["step"]))["path"]],
        "data": section["data"]["path"],
        "out": run.path,
        "training": training,
        "device": device,
    }
    material = Material(RowsSettings.read(**values))
    if material.data_sha256 != section["data"]["sha256"]:
        raise WhatStuckError(f"{section['data']['path']} is not the file any more that `rows` looked at")
    return material


def _as_fed(row: TrainingRow) -> Encoded:
    fed = row.fed
    if fed is None:
        raise ValueError(f"row {row.row_id} was not fed")
    predicted = set(fed.predicted)
    labels = [token if at in predicted else IGNORED for at, token in enumerate(fed.ids)]
    return {"row_id": row.row_id, "input_ids": list(fed.ids), "labels": labels}


def _is_repairable(row: TrainingRow) -> bool:
    return any(failed.problem in _REPAIRABLE for failed in row.not_trained)


def _read_ids(path: Path, known: Mapping[str, Any]) -> list[str]:
    try:
        ids = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise WhatStuckError(f"{path} is no readable list of row ids") from error
    if missing := [name for name in ids if name not in known]:
        raise WhatStuckError(f"{path}: no training row has the id {missing[0]!r}")
    return ids
