"""What a task file says, checked: how a row becomes a prompt and a reply, under any template and mapping.

Testing and the making of training data share it, so that what is tested is what was trained.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.mapping import NO_MAPPING, InstructionMapping
from whatstuck.generalization.own.names import refuse_bad_name
from whatstuck.generalization.own.rows import OwnRow, Records, make_rows
from whatstuck.generalization.own.scoring import gold_of
from whatstuck.generalization.own.settings import TaskFile, read_task_file
from whatstuck.generalization.own.templates import Template, check_slots, near
from whatstuck.rows.verdicts.answers import normalized

Named = TypeVar("Named", Template, InstructionMapping)


@dataclass(frozen=True)
class Recipe:
    """Templates and mappings of a task file.

    Attributes:
        path: The file.
        file: What it says.
        templates: That of the training first, else as in the file.
        mappings: The same; `NO_MAPPING` alone where the file has none.
        reply: What is trained.
        sha256: Hash of the file.
    """

    path: Path
    file: TaskFile
    templates: tuple[Template, ...]
    mappings: tuple[InstructionMapping, ...]
    reply: Template
    sha256: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Names that have a meaning; none without mappings."""
        return tuple(self.mappings[0])

    @property
    def columns(self) -> list[str]:
        """Columns that prompts show, sorted: they make the key of a row."""
        return sorted({slot for template in self.templates for slot in template.slots} - set(self.labels))

    @property
    def trained_templates(self) -> tuple[Template, ...]:
        """Those that are not held out."""
        return tuple(template for template in self.templates if template.name not in self.file.held_out)

    @property
    def trained_mappings(self) -> tuple[InstructionMapping, ...]:
        """Those that are not held out."""
        return tuple(mapping for mapping in self.mappings if mapping.name not in self.file.held_out)

    def shows_mapping(self, template: Template) -> bool:
        """Whether a template says what the labels mean: all of them, or none."""
        return bool(set(self.labels) & set(template.slots))

    def prompt(self, template: Template, row: OwnRow, mapping: InstructionMapping) -> str:
        """The prompt of a row."""
        return template.fill({**row.texts, **dict(mapping.pairs)})

    def demonstration(self, row: OwnRow, mapping: InstructionMapping) -> str:
        """What is trained: the prefill, and the reply with the right answer."""
        reply = self.reply.fill({**row.texts, "answer": gold_of(row, mapping)})
        prefill = self.file.prefill
        return prefill + (" " if prefill and not prefill[-1].isspace() and not reply[:1].isspace() else "") + reply

    def rows(self, records: Records) -> list[OwnRow]:
        """Rows of a data file, each of which fits the templates and has a meaning in every mapping.

        Raises:
            WhatStuckError: Naming the first slot, column or label that does not fit.
        """
        answer = self.file.answer
        for label in self.labels:
            if label in records.columns:
                raise WhatStuckError(f"{label!r} is a label and a column of {records.name}: rename the column")
        there = f"the columns are {', '.join(records.columns)}" + (
            f", the labels {', '.join(self.labels)}" if self.labels else ""
        )
        for template in self.templates:
            check_slots(template, [*records.columns, *self.labels], there)
        _check_templates(self)
        others = [column for column in records.columns if column != answer]
        check_slots(self.reply, ["answer", *others], f"use {{answer}} and the columns {', '.join(others)}")
        also = [slot for slot in self.reply.slots if slot != "answer"]
        rows = make_rows(records, self.columns, answer, also)
        for row in rows:
            if self.labels and row.label not in self.labels:
                raise WhatStuckError(
                    f"{row.place}: the label {row.label!r} has no meaning in the mappings"
                    f"{near(row.label, self.labels)}; they name {', '.join(self.labels)}"
                )
        return rows

    def random_mapping(self) -> Callable[[random.Random], InstructionMapping] | None:
        """Draws a word of the pool for each label, never one of a named mapping; None where there is no pool."""
        if not self.file.words:
            return None
        labels = self.labels
        if not labels:
            raise WhatStuckError(f"{self.path.name}: words are drawn for labels: name the labels by mappings")
        taken = {normalized(word) for mapping in self.mappings for word in mapping.meanings}
        pool = [word for key, word in {normalized(word): word for word in self.file.words}.items() if key not in taken]
        if len(pool) < 2 * len(labels):
            raise WhatStuckError(
                f"{self.path.name}: words must hold at least {2 * len(labels)} for {len(labels)} labels, beside those "
                f"of the mappings; there are {len(pool)}"
            )

        def draw(rng: random.Random) -> InstructionMapping:
            return InstructionMapping("random", tuple(zip(labels, rng.sample(pool, len(labels)), strict=True)))

        return draw


def read_recipe(path: str | Path) -> Recipe:
    """Read a task file and check all that can be checked without rows.

    Raises:
        WhatStuckError: Naming the first thing that is wrong.
    """
    path = Path(path)
    file = read_task_file(path)
    try:
        return _checked(path, file)
    except WhatStuckError as error:
        raise WhatStuckError(f"{path.name}: {error}") from error


def _checked(path: Path, file: TaskFile) -> Recipe:
    templates = [Template.parse(name, text) for name, text in file.templates.items()]
    mappings = [InstructionMapping(name, tuple(pairs.items())) for name, pairs in file.mappings.items()]
    mappings = _training_first(mappings, file.training_mapping, "mapping")
    mappings = [_like(mapping, mappings[0]) for mapping in mappings]
    for mapping in mappings:
        _check_meanings(mapping)
    reply = Template.parse("reply", file.reply)
    if "answer" not in reply.slots:
        raise WhatStuckError("the reply lacks the slot {answer}")
    recipe = Recipe(
        path,
        file,
        tuple(_training_first(templates, file.training, "template")),
        tuple(mappings) or (NO_MAPPING,),
        reply,
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    _check_names(recipe)
    return recipe


def _training_first(found: list[Named], training: str | None, what: str) -> list[Named]:
    names = [one.name for one in found]
    if training is None or not found:
        return found
    if training not in names:
        raise WhatStuckError(f"the training {what} {training!r} is none of {', '.join(names)}{near(training, names)}")
    return sorted(found, key=lambda one: one.name != training)


def _like(mapping: InstructionMapping, first: InstructionMapping) -> InstructionMapping:
    """The mapping with its labels in the order of the first."""
    for label in first:
        if label not in set(mapping):
            raise WhatStuckError(f"mapping {mapping.name!r} gives the label {label!r} no meaning")
    for label in mapping:
        if label not in set(first):
            raise WhatStuckError(f"mapping {mapping.name!r} has the label {label!r}, which {first.name!r} has not")
    return InstructionMapping(mapping.name, tuple((label, mapping[label]) for label in first))


def _check_meanings(mapping: InstructionMapping) -> None:
    seen: dict[str, str] = {}
    for label, word in mapping.pairs:
        if not word.strip():
            raise WhatStuckError(f"mapping {mapping.name!r} gives the label {label!r} no meaning")
        other = seen.setdefault(normalized(word), label)
        if other != label:
            raise WhatStuckError(
                f"mapping {mapping.name!r} gives {other!r} and {label!r} the same meaning {word!r}, so that no reply "
                "tells them apart: give them different words"
            )


def _check_templates(recipe: Recipe) -> None:
    """Every template asks the same thing: what the training shows of a row, and all meanings or none."""
    training, labels, answer = recipe.templates[0], recipe.labels, recipe.file.answer
    needed = sorted(set(training.slots) - set(labels))
    if not needed:
        raise WhatStuckError(f"template {training.name!r} lacks a slot {{column}} that shows the row")
    for template in recipe.templates:
        if answer in template.slots and answer not in labels:
            raise WhatStuckError(f"template {template.name!r} shows the right answer by {{{answer}}}: take it out")
        must = [*needed, *(labels if recipe.shows_mapping(template) else ())]
        lacking = [slot for slot in must if slot not in template.slots]
        if lacking:
            why = "which says what a label means" if lacking[0] in labels else f"which {training.name!r} has"
            raise WhatStuckError(f"template {template.name!r} lacks the slot {{{lacking[0]}}}, {why}")
    if len(recipe.mappings) > 1 and not recipe.shows_mapping(training):
        slots = ", ".join(f"{{{label}}}" for label in labels)
        raise WhatStuckError(f"template {training.name!r} lacks the slots {slots}: no prompt would show the mapping")


def _check_names(recipe: Recipe) -> None:
    file = recipe.file
    templates = [template.name for template in recipe.templates]
    mappings = [mapping.name for mapping in recipe.mappings if mapping.pairs]
    named = [*templates, *mappings]
    variants = ["training", "Fake", *templates[1:], *mappings[1:], *file.harder]
    for name in (*named, *file.harder):
        refuse_bad_name(name)
    for name in (*named, *variants):
        if named.count(name) > 1 or variants.count(name) > 1:
            raise WhatStuckError(f"two things have the name {name!r}, by which a variant is called: rename one")
    trained = (recipe.templates[0].name, recipe.mappings[0].name)
    for name in (*file.held_out, *([file.fake] if file.fake else [])):
        if name not in named:
            raise WhatStuckError(f"there is no template or mapping {name!r}{near(name, named)}; see held_out and fake")
        if name in trained:
            raise WhatStuckError(f"{name!r} is that of the training: it cannot be held out, nor shown by Fake")
    if file.fake and file.fake not in file.mappings:
        raise WhatStuckError(f"fake must name a mapping: {file.fake!r} is a template")
