"""Which rows of a test were trained on: asked again, they would say nothing of what was learned.

Training data come as columns, or as the prompts that were made of them. Then a row is known by the id that `diversify`
gave it, or by its prompt under one of the templates and mappings; not by the latter where words were drawn for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from whatstuck.datasets import rows_from
from whatstuck.files import file_hash
from whatstuck.generalization.own.recipe import Recipe
from whatstuck.generalization.own.rows import OwnRow, Records, content_key
from whatstuck.generalization.own.templates import Template


@dataclass(frozen=True)
class Trained:
    """What is known of the training data.

    Attributes:
        rows: Its rows, where it has the columns of the task; else none.
        keys: Keys of rows: by their columns, or as ids.
        prompts: Hashes of its prompts; none where it has the columns.
        unlike: How many of its rows cannot be compared with others.
        notes: What a reader should know of the comparison.
    """

    rows: tuple[OwnRow, ...] = ()
    keys: frozenset[str] = frozenset()
    prompts: frozenset[str] = frozenset()
    unlike: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, recipe: Recipe, path: Path) -> "Trained":
        """Read the training data.

        Raises:
            WhatStuckError: If the file is bad, or a row does not fit the task.
        """
        records = Records.read(path)
        if {*recipe.columns, recipe.file.answer} <= set(records.columns):
            rows = recipe.rows(records)
            return cls(tuple(rows), frozenset(row.key for row in rows))
        found = rows_from([record for _, record in records.found])
        unlike = 0 if _has_our_ids(recipe, path) else sum(not _is_ours(recipe, row.content) for row in found)
        note = (
            f"Of {len(found)} rows of {path.name}, {unlike} cannot be compared with those of the test: they have "
            "neither their columns, nor an id that diversify gave them, nor a prompt of a template and mapping of the "
            "task."
        )
        return cls(
            keys=frozenset(row.row_id.partition("-")[0] for row in found),  # the same row again is KEY-2
            prompts=frozenset(content_key([row.content]) for row in found),
            unlike=unlike,
            notes=(note,) if unlike else (),
        )

    def has(self, recipe: Recipe, row: OwnRow) -> bool:
        """Whether a row of a test is among them."""
        if row.key in self.keys:
            return True
        return bool(self.prompts) and any(
            content_key([recipe.prompt(template, row, mapping)]) in self.prompts
            for template in recipe.templates
            for mapping in recipe.mappings
        )

    def others(self, recipe: Recipe, rows: Sequence[OwnRow]) -> list[OwnRow]:
        """Those of some rows that are not among them."""
        return [row for row in rows if not self.has(recipe, row)]


def _has_our_ids(recipe: Recipe, path: Path) -> bool:
    """Whether `diversify` made the file, as it is, of the same columns, so that its ids are keys of rows."""
    try:
        said = json.loads(path.with_suffix(".manifest.json").read_text(encoding="utf-8"))
        return bool(said["columns"] == recipe.columns and said["out"]["sha256"] == file_hash(path))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_ours(recipe: Recipe, prompt: str) -> bool:
    """Whether a prompt may be that of a template under one of the mappings."""
    showing = [template for template in recipe.templates if recipe.shows_mapping(template)]
    if any(_fits(template, dict(mapping.pairs), prompt) for template in showing for mapping in recipe.mappings):
        return True
    if any(_fits(template, {}, prompt) for template in showing):  # with words that were drawn for it
        return False
    return any(_fits(template, {}, prompt) for template in recipe.templates)


def _fits(template: Template, words: Mapping[str, str], prompt: str) -> bool:
    """Whether a prompt has what stands around the slots of a template, in order; some slots hold known words.

    Every prompt has what a template without any text of its own says, so that tells nothing.
    """
    if not "".join(template.texts).strip():
        return False
    pieces = [template.texts[0]]
    for slot, text in zip(template.slots, template.texts[1:], strict=True):
        if slot in words:
            pieces[-1] += words[slot] + text
        else:
            pieces.append(text)
    first, *middle, last = pieces if len(pieces) > 1 else [pieces[0], ""]
    if not (prompt.startswith(first) and prompt.endswith(last)):
        return False
    at, end = len(first), len(prompt) - len(last)
    for piece in middle:
        place = prompt.find(piece, at, end)
        if place < 0:
            return False
        at = place + len(piece)
    return at <= end
