"""From a task file to a `Task`: every other template is a wording, every other mapping an instruction, *Fake* one more.

The rows given are those of the test. A row that stands in the training data as well (`train:`) is left out, be it a
harder one or not.
"""

import hashlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.own.checking import Guard, parse_checker
from whatstuck.generalization.own.limits import LONGEST_THOUGHT, reply_limit
from whatstuck.generalization.own.recipe import Recipe, read_recipe
from whatstuck.generalization.own.rows import OwnRow, Records
from whatstuck.generalization.own.scoring import (
    OwnScorer,
    ReplyParser,
    Same,
    gold_of,
    same_number,
    same_text,
)
from whatstuck.generalization.own.templates import Template
from whatstuck.generalization.own.trained import Trained
from whatstuck.generalization.own.trying import try_checker
from whatstuck.generalization.task import Split, Task, Variant

_SHORTEST = 32  # tokens of a reply, where a checker looks for the answer in a text

_log = logging.getLogger(__name__)


def load_task(path: str | Path, *, max_new_tokens: int | None = None) -> Task[OwnRow, OwnRow, str]:
    """Make a task of a user's file; `own.settings.TaskFile` says what it holds.

    Args:
        path: The YAML file.
        max_new_tokens: Longest reply, instead of what the file says.

    Returns:
        The task; its `notes` say what was left out, and the `failures` of `task.scorer.guard` what a checker of the
        user's said when it raised.

    Raises:
        WhatStuckError: Naming the first thing that is wrong; a function that refuses right replies is.
    """
    recipe = read_recipe(path)
    files: list[Path] = [recipe.path]
    rows = _test_rows(recipe, files)
    rows, harder = _split_harder(recipe, rows, files)
    trained = _trained(recipe, files)
    rows, harder, notes = _without_trained(recipe, rows, harder, trained)
    kind, what = parse_checker(recipe.file.checker)
    same: Same = same_number if kind == "number" else same_text
    everything = [*rows, *(row for some in harder.values() for row in some)]
    if kind == "number":
        _check_numbers(everything, recipe)
    ours = kind in {"exact", "number"}
    guard = None if ours else Guard(kind, what, recipe.file.time_limit, recipe.path.resolve().parent)
    scorer = OwnScorer(same, guard, judges=kind in {"function", "entry point"})
    parser = ReplyParser(recipe.file.prefill)
    variants = tuple(_variants(recipe, same))
    notes += try_checker(recipe, rows, dict.fromkeys(variant.scored for variant in variants), parser, scorer)
    replies = (recipe.demonstration(row, mapping) for row in everything for mapping in recipe.mappings)
    limit, said = reply_limit(
        replies, max_new_tokens or recipe.file.max_new_tokens, least=0 if kind == "exact" else _SHORTEST
    )
    notes += said
    notes += _nothing_held_out(recipe, variants)
    for note in notes:
        _log.warning("%s: %s", recipe.path.name, note)
    training = recipe.mappings[0]
    wordings = {template.name: template for template in recipe.templates[1:]} | {"training": recipe.templates[0]}
    return Task(
        name=recipe.path.stem,
        source=OwnSource(
            tuple(rows),
            () if trained is None else trained.rows,
            harder,
            same,
            unseen=trained is not None and not trained.unlike,
        ),
        prompts={name: TemplatePrompt(recipe, template) for name, template in wordings.items()},
        parser=parser,
        scorer=scorer,
        demonstrator=OwnDemonstrator(recipe),
        variants=variants,
        training=training,
        mappings=recipe.trained_mappings if training.pairs else (),
        random_mapping=recipe.random_mapping(),
        max_new_tokens=limit,
        longest_thought=max(LONGEST_THOUGHT, limit),
        identity=_identity(files, guard),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class OwnSource:
    """The rows of a file, and the harder ones of others.

    Attributes:
        rows: For tests.
        trained: Those that are trained on, where the file says so.
        harder: Harder ones for tests, by the name of their variant.
        same: Whether two answers are the same.
        unseen: Whether every row that is trained on was compared with those of the test, which hold none of them.
    """

    rows: tuple[OwnRow, ...]
    trained: tuple[OwnRow, ...]
    harder: Mapping[str, Sequence[OwnRow]]
    same: Same
    unseen: bool = False

    def contents(self, split: Split, shift: Mapping[str, Any]) -> Sequence[OwnRow]:
        """All rows of one side."""
        if split == "train":
            return self.trained
        return self.harder[shift["rows"]] if "rows" in shift else self.rows

    def draw(self, rng: random.Random, shift: Mapping[str, Any]) -> OwnRow:
        """One row, of either side."""
        return rng.choice([*self.contents("test", shift), *self.trained])

    def key(self, content: OwnRow) -> str:
        """Hash of what prompts show of it."""
        return content.key

    def pose(
        self, content: OwnRow, shown: InstructionMapping, scored: InstructionMapping, _: random.Random
    ) -> OwnRow | None:
        """The row; None where one reply would be right under two mappings that differ."""
        differ = shown.pairs != scored.pairs
        return None if differ and self.same(gold_of(content, shown), gold_of(content, scored)) else content


@dataclass(frozen=True)
class TemplatePrompt:
    """A template of the file."""

    recipe: Recipe
    template: Template

    @property
    def prefill(self) -> str:
        """How the reply begins."""
        return self.recipe.file.prefill

    def render(self, item: OwnRow, shown: InstructionMapping) -> str:
        """The prompt of a row."""
        return self.recipe.prompt(self.template, item, shown)


@dataclass(frozen=True)
class OwnDemonstrator:
    """The reply of the file."""

    recipe: Recipe

    def reply(self, item: OwnRow, shown: InstructionMapping, *, thought: bool) -> str:
        """The right reply; a thought can only come from a column, in the file's `reply`."""
        if thought:
            raise WhatStuckError(
                f"{self.recipe.path.name}: there are no thoughts but those of a column: write it into reply, such as "
                "'{reasoning} So it is {answer}'"
            )
        return self.recipe.demonstration(item, shown)


def _test_rows(recipe: Recipe, files: list[Path]) -> list[OwnRow]:
    file, name = recipe.file, recipe.path.name
    if (file.data is None) == (file.items is None):
        raise WhatStuckError(f"{name}: give the rows of the test, either as data: FILE or as items:")
    if file.data is None:
        return recipe.rows(
            Records.of(f"{name} items", ((f"row {i}", row) for i, row in enumerate(file.items or [], 1)))
        )
    return recipe.rows(_read(recipe, file.data, files))


def _read(recipe: Recipe, name: str, files: list[Path]) -> Records:
    path = recipe.path.parent / name
    records = Records.read(path)
    files.append(path)
    return records


def _split_harder(
    recipe: Recipe, rows: list[OwnRow], files: list[Path]
) -> tuple[list[OwnRow], dict[str, tuple[OwnRow, ...]]]:
    harder: dict[str, tuple[OwnRow, ...]] = {}
    chosen: set[int] = set()
    for name, where in recipe.file.harder.items():
        if isinstance(where, str):
            harder[name] = tuple(recipe.rows(_read(recipe, where, files)))
            continue
        for column in where:
            if column not in rows[0].texts:
                raise WhatStuckError(f"{recipe.path.name}: harder names the column {column!r}, which no row has")
        fits = [i for i, row in enumerate(rows) if all(row.texts.get(c, "").strip() == v for c, v in where.items())]
        if not fits:
            raise WhatStuckError(f"{recipe.path.name}: no row is {name!r}: none has {where}")
        harder[name] = tuple(rows[i] for i in fits)
        chosen.update(fits)
    easy = [row for i, row in enumerate(rows) if i not in chosen]
    if not easy:
        raise WhatStuckError(f"{recipe.path.name}: every row is a harder one: none is left to compare them with")
    return easy, harder


def _trained(recipe: Recipe, files: list[Path]) -> Trained | None:
    """What is known of the training data; None where the file names none."""
    if recipe.file.train is None:
        return None
    path = recipe.path.parent / recipe.file.train
    files.append(path)
    return Trained.read(recipe, path)


def _without_trained(
    recipe: Recipe, rows: list[OwnRow], harder: dict[str, tuple[OwnRow, ...]], trained: Trained | None
) -> tuple[list[OwnRow], dict[str, tuple[OwnRow, ...]], list[str]]:
    """Rows that are not trained on, plain and harder ones; and notes."""
    if trained is None:
        return rows, harder, []
    name = recipe.file.train
    notes = list(trained.notes)

    def others(some: Sequence[OwnRow], what: str) -> list[OwnRow]:
        kept = trained.others(recipe, some)
        if not kept:
            raise WhatStuckError(f"{recipe.path.name}: every row of {what} stands in {name}: give rows that do not")
        if len(kept) < len(some):
            called = "test rows" if what == "the test" else f"rows of {what}"
            notes.append(f"{len(some) - len(kept)} of {len(some)} {called} are in {name}, too, and are left out.")
        return kept

    rows = others(rows, "the test")
    return rows, {what: tuple(others(some, repr(what))) for what, some in harder.items()}, notes


def _check_numbers(rows: Sequence[OwnRow], recipe: Recipe) -> None:
    for row in rows:
        for mapping in recipe.mappings:
            gold = gold_of(row, mapping)
            if not same_number(gold, gold):
                raise WhatStuckError(f"{row.place}: the answer {gold!r} holds no number: use another checker")


def _nothing_held_out(recipe: Recipe, variants: Sequence[Variant]) -> list[str]:
    if recipe.file.held_out or not any(variant.kind in ("instruction", "wording") for variant in variants):
        return []
    return ["held_out names nothing: a training set of diversify may hold every template and mapping asked here."]


def _variants(recipe: Recipe, same: Callable[[str, str], bool]) -> list[Variant]:
    held_out, training = recipe.file.held_out, recipe.mappings[0]

    def is_asked(name: str) -> bool:
        return not held_out or name in held_out

    variants = [Variant("training", "training", training, training)]
    variants += [
        Variant(template.name, "wording", training, training, wording=template.name)
        for template in recipe.templates[1:]
        if is_asked(template.name)
    ]
    asked = [mapping for mapping in recipe.mappings[1:] if is_asked(mapping.name)]
    variants += [Variant(mapping.name, "instruction", mapping, mapping) for mapping in asked]
    variants += [Variant(name, "harder", training, training, shift={"rows": name}) for name in recipe.file.harder]
    telling = [m for m in asked if any(not same(m[label], training[label]) for label in training)]
    if recipe.file.fake is not None:
        telling = [mapping for mapping in recipe.mappings if mapping.name == recipe.file.fake]
    variants += [Variant("Fake", "fake", mapping, training) for mapping in telling[:1]]
    return variants


def _identity(files: Sequence[Path], guard: Guard | None) -> str:
    """Hash of the task file, its data, and the code of a user's checker."""
    if guard is not None and guard.source is not None:
        files = [*files, guard.source]
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
