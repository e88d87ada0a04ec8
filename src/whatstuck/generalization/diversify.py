"""The prompt-diverse training set: the user's own rows, each asked in one of several wordings.

A wording is a template with a mapping. Which row gets which is drawn by the seed, balanced within every label, so that
no wording gives the answer away. Rows, count and order stay those of the data, and a row has the same id in every
set: those of one and of many wordings differ in nothing else. One wording is the frozen training of arXiv 2510.00237,
its cure a new mapping for every row (`many`).
"""

import hashlib
import json
import logging
import random
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from whatstuck._version import __version__
from whatstuck.datasets import Message, Row, write_rows
from whatstuck.errors import WhatStuckError
from whatstuck.files import whole
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.own.recipe import Recipe, read_recipe
from whatstuck.generalization.own.rows import OwnRow, Records
from whatstuck.generalization.own.templates import Template
from whatstuck.settings import read_settings

_log = logging.getLogger(__name__)

Wording = tuple[Template, InstructionMapping | None]
"""A template, and a mapping; None for one that is drawn anew for every row."""


class DiversifySettings(BaseModel):
    """Settings of `diversify`; see there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path
    templates: Path
    out: Path
    wordings: int | str = "all"
    seed: int = Field(default=0, strict=True)

    @field_validator("wordings", mode="before")
    @classmethod
    def _understood(cls, value: Any) -> int | str:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value in ("all", "many"):
            return value
        if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,6}\s*", value):
            return int(value)
        raise ValueError("it must be all, many, or a number")

    @field_validator("out")
    @classmethod
    def _jsonl(cls, value: Path) -> Path:
        if value.suffix != ".jsonl":
            raise ValueError("rows are written as JSONL: give a name that ends in .jsonl")
        return value

    @classmethod
    def read(cls, **values: Any) -> "DiversifySettings":
        """Settings from flags or arguments.

        Raises:
            WhatStuckError: Naming the first setting that is wrong.
        """
        return read_settings(cls, "diversify", values)


def diversify(
    data: str | Path,
    templates: str | Path,
    out: str | Path,
    *,
    wordings: int | str = "all",
    seed: int = 0,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write the training set, and beside it a manifest of what it was made of.

    Args:
        data: The rows: JSONL, JSON, CSV, TSV or Parquet with the columns that the templates name.
        templates: YAML of templates and mappings, as for a task of one's own (`own.settings.TaskFile`); what it holds
            out is not used.
        out: The JSONL to write; `train` reads it.
        wordings: How many wordings: `all`, `many` (all templates, and words of the pool for every row anew), or a
            number; the first one is that of the training.
        seed: Of the choice.
        dry_run: Only say what would be written.

    Returns:
        The manifest, which `OUT.manifest.json` holds as well.

    Raises:
        WhatStuckError: If a setting, a row or the YAML is wrong, there are fewer wordings, or `out` holds something
            else.
    """
    settings = DiversifySettings.read(data=data, templates=templates, out=out, wordings=wordings, seed=seed)
    data, out, seed = settings.data, settings.out, settings.seed
    recipe = read_recipe(settings.templates)
    rows = recipe.rows(Records.read(data))
    chosen = choose_wordings(recipe, settings.wordings)
    _warn_of_trained_variants(recipe, chosen)
    asked = _deal(rows, chosen, seed)
    made = _make_rows(recipe, rows, chosen, asked, seed)
    manifest = {
        "made_by": f"whatstuck {__version__} diversify",
        "data": {"name": data.name, "sha256": _sha256(data)},
        "templates": {"name": recipe.path.name, "sha256": recipe.sha256},
        "seed": seed,
        "rows": len(rows),
        "contents": len({row.key for row in rows}),
        "columns": recipe.columns,  # what the ids of the rows are made of
        "wordings": [
            {"template": template.name, "mapping": None if mapping is None else mapping.name, "rows": asked.count(i)}
            for i, (template, mapping) in enumerate(chosen)
        ],
        "meanings": {mapping.name: dict(mapping.pairs) for _, mapping in chosen if mapping is not None},
        "pool": recipe.file.words if any(mapping is None for _, mapping in chosen) else [],
        "labels": dict(Counter(row.label for row in rows).most_common(20)),
        "not_used": _not_used(recipe, chosen),
    }
    return manifest if dry_run else _write(made, out, manifest)


def choose_wordings(recipe: Recipe, wordings: int | str) -> list[Wording]:
    """The wordings that are trained.

    Args:
        recipe: Templates and mappings.
        wordings: `all`, `many`, or how many. A number takes the first ones in the order of the file, where templates
            and mappings advance together: the first of both, the second of both, what mixes the two, and so on.

    Raises:
        WhatStuckError: If there are fewer, or no words to draw from.
    """
    templates, mappings = recipe.trained_templates, recipe.trained_mappings
    if wordings == "many":
        if recipe.random_mapping() is None:
            raise WhatStuckError(
                f"--wordings many draws new words for every row, and {recipe.path.name} has none to draw from: "
                "name them under  words:  beside mappings, or take all"
            )
        # a template without the labels says nothing of a mapping, and gets the words of the training
        drawn: list[InstructionMapping | None] = [None]
        return [(t, m) for t in templates for m in (drawn if recipe.shows_mapping(t) else mappings[:1])]
    pairs = [
        (template, mapping)
        for t, template in enumerate(templates)
        for m, mapping in enumerate(mappings)
        if m == 0 or recipe.shows_mapping(template)
    ]
    order = {pair: _diagonal(templates.index(pair[0]), mappings.index(pair[1])) for pair in pairs}
    pairs.sort(key=lambda pair: order[pair])
    if wordings == "all":
        return list(pairs)
    if not isinstance(wordings, int) or not 1 <= wordings <= len(pairs):
        raise WhatStuckError(
            f"--wordings {wordings}: {recipe.path.name} has {len(pairs)} wordings that may be trained "
            f"({len(templates)} templates, {len(mappings)} mappings): give 1 to {len(pairs)}, all, or many"
        )
    return list(pairs[:wordings])


def _diagonal(template: int, mapping: int) -> tuple[int, int, int]:
    """Both first, then both second, then what mixes them: squares that grow."""
    return max(template, mapping), abs(template - mapping), template


def _deal(rows: Sequence[OwnRow], wordings: Sequence[Wording], seed: int) -> list[int]:
    """The number of the wording of each row: shares differ by one at most, overall and within each label."""
    rng = random.Random(f"{seed} deal")
    places = list(range(len(rows)))
    rng.shuffle(places)
    places.sort(key=lambda place: rows[place].label)  # stable: shuffled within a label
    order = list(range(len(wordings)))
    rng.shuffle(order)
    dealt = [0] * len(rows)
    for number, place in enumerate(places):
        dealt[place] = order[number % len(order)]
    return dealt


def _make_rows(
    recipe: Recipe, rows: Sequence[OwnRow], wordings: Sequence[Wording], dealt: Sequence[int], seed: int
) -> list[Row]:
    draw = recipe.random_mapping()
    made: list[Row] = []
    times: Counter[str] = Counter()
    for index, (row, number) in enumerate(zip(rows, dealt, strict=True)):
        template, mapping = wordings[number]
        if mapping is None:
            if draw is None:
                raise WhatStuckError(f"{recipe.path.name}: there are no words to draw from")
            mapping = draw(random.Random(f"{seed} {index}"))
        times[row.key] += 1
        row_id = row.key if times[row.key] == 1 else f"{row.key}-{times[row.key]}"
        message = Message("user", recipe.prompt(template, row, mapping))
        made.append(Row(row_id, (message,), recipe.demonstration(row, mapping), index, "train"))
    return made


def _used(chosen: Sequence[Wording]) -> set[str]:
    return {template.name for template, _ in chosen} | {mapping.name for _, mapping in chosen if mapping is not None}


def _warn_of_trained_variants(recipe: Recipe, chosen: Sequence[Wording]) -> None:
    """Where some are held out, `generalize` asks those alone; else it asks all but the training's own."""
    variants = [template.name for template in recipe.templates[1:]] + [mapping.name for mapping in recipe.mappings[1:]]
    trained = [name for name in variants if name in _used(chosen)]
    if trained and not recipe.file.held_out:
        _log.warning(
            "%s holds nothing out: generalize will ask %s, which this set trains: name some under held_out",
            recipe.path.name,
            ", ".join(trained),
        )


def _not_used(recipe: Recipe, chosen: Sequence[Wording]) -> dict[str, str]:
    """Templates and mappings that no row has, and why."""
    used = _used(chosen)
    mappings = [mapping.name for mapping in recipe.mappings if mapping.pairs]
    names = [*(template.name for template in recipe.templates), *mappings]
    drawn = any(mapping is None for _, mapping in chosen)

    def why(name: str) -> str:
        if name in recipe.file.held_out:
            return "held out"
        return "words are drawn for every row" if drawn and name in mappings else "beyond --wordings"

    return {name: why(name) for name in names if name not in used}


def _write(rows: Sequence[Row], out: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write both files, unless they are there: the same again is done already, and anything else stays."""
    beside = out.with_suffix(".manifest.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".tmp-") as folder:
        made = Path(folder) / out.name
        write_rows(rows, made)
        manifest = {**manifest, "out": {"name": out.name, "sha256": _sha256(made)}}
        if out.exists() and _sha256(out) != _sha256(made):
            raise WhatStuckError(f"{out} is there and holds something else: give another --out, or remove it")
        if beside.exists():
            there = _read_manifest(beside)
            if there | {"made_by": manifest["made_by"]} != manifest:
                raise WhatStuckError(f"{beside} is there and says something else: give another --out, or remove it")
            manifest = there
        made.replace(out)
    with whole(beside) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
