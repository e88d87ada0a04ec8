"""The same rows in other wordings: one file each, of which one is the wording of the training.

Only rows that stand in every wording are asked, so that all are asked the same. A label may be written otherwise in
another wording (`Yes` and `True`): an answer is right where it is the word of the wording that was asked or, where its
prompts do not say their words, that of the training. The first line of a reply must be the whole answer, normalized, as
`own.scoring` says of `exact`.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from whatstuck.datasets import Row, read_rows
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.aligning import ENOUGH, align, answers_of, labels_of, say_the_same
from whatstuck.generalization.mapping import NO_MAPPING, InstructionMapping
from whatstuck.generalization.own.limits import LONGEST_THOUGHT, reply_limit
from whatstuck.generalization.own.loading import OwnSource
from whatstuck.generalization.own.rows import OwnRow, content_key
from whatstuck.generalization.own.scoring import OwnScorer, ReplyParser, same_text
from whatstuck.generalization.own.templates import near
from whatstuck.generalization.own.trained_wording import TrainingRows, choose, recorded_rows
from whatstuck.generalization.own.unsaid import collide, note_of, silent_wordings
from whatstuck.generalization.task import Task, Variant

_KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

_log = logging.getLogger(__name__)


def load_wordings(
    paths: str | Path | Sequence[str | Path],
    training: str | Path | None = None,
    *,
    checkpoints: Sequence[Path] = (),
    identity: str = "",
    max_new_tokens: int | None = None,
) -> Task[OwnRow, OwnRow, str]:
    """Make a task of rows in several wordings.

    Args:
        paths: Data files of any shape that `read_rows` knows, one per wording, or a folder of them.
        training: The wording of the training: a file, or its name. Without it, that of the run, or the one whose rows
            the training beside the checkpoints has, else the first file (of a folder, by name).
        checkpoints: Folders of checkpoints.
        identity: Of the task that a run was begun with.
        max_new_tokens: Longest reply; by default as long as right ones are.

    Returns:
        The task. Its `notes` say which wording is trained, what could not be aligned and is left out, and which
        prompts do not say the words of their answers.

    Raises:
        WhatStuckError: If a file is bad, there are fewer than two wordings, or none has the rows of the training's.
    """
    files = _files(paths)
    if training is not None:
        files = _named_first(files, training)
    _refuse_one(files)
    read = {file: _read(file) for file in files}
    trained_rows = recorded_rows([checkpoint.parent for checkpoint in checkpoints], read)
    why, sure = "", True
    if training is None:
        begun = next((file for file in files if _identity(_first(file, files)) == identity), None)
        is_folder = any(Path(path).is_dir() for path in ([paths] if isinstance(paths, str | Path) else paths))
        chosen, why, sure = choose(read, trained_rows, begun, "by name" if is_folder else "given")
        files = _first(chosen, files)
    names = _short_names(files)
    first, *others = (read[file] for file in files)
    labels = labels_of(first)
    notes = [f"The wording of the training is {names[0]!r}, in {files[0].name}{': ' if why else ''}{why}."]
    if not sure:
        _log.warning("%s", notes[0])
    kept: dict[str, _Wording] = {}
    for name, other in zip(names[1:], others, strict=True):
        wording, said = _compare(name, first, other)
        notes += said
        if wording is not None:
            kept[name] = wording
    if not kept:
        raise WhatStuckError(f"no other wording has the rows of {files[0].name}: {' '.join(notes[1:])}")
    common = sorted(set.intersection(*(set(wording.where) for wording in kept.values())))
    if not common:
        raise WhatStuckError("no row stands in every wording: leave out the files that hold other rows")
    if len(common) < len(first):
        notes.append(f"{len(common)} of {len(first)} rows stand in every wording; only these are asked.")
    items = tuple(_item(first, i, labels, kept) for i in common)
    notes += _trained_on(items, trained_rows)
    trained = _words("training", {label: label for label in labels.values()})
    kept, also, of_silent = _with_words_of_training(kept, first, trained)
    notes += of_silent
    asked = (first, *(wording.rows for wording in kept.values()))
    limit, of_limit = reply_limit((row.completion for some in asked for row in some), max_new_tokens)
    notes += of_limit
    for note in notes[0 if sure else 1 :]:
        _log.info("%s", note)
    return Task(
        name=_task_name(files),
        source=OwnSource(items, (), {}, same_text),
        prompts={name: WordingPrompt(name) for name in ("training", *kept)},
        parser=ReplyParser(""),
        scorer=OwnScorer(also=also),
        demonstrator=None,
        variants=(
            Variant("training", "training", trained, trained),
            *(Variant(name, "wording", one.words, one.words, wording=name) for name, one in kept.items()),
        ),
        training=trained,
        max_new_tokens=limit,
        longest_thought=max(LONGEST_THOUGHT, limit),
        identity=_identity(files),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class WordingPrompt:
    """The prompts of one file, as they stand there."""

    name: str
    prefill: str = ""

    def render(self, item: OwnRow, _: InstructionMapping) -> str:
        """The prompt of a row."""
        return item.texts[self.name]


@dataclass(frozen=True)
class _Wording:
    """Another wording: where the rows of the training stand in it, and how it writes the labels."""

    where: dict[int, int]
    words: InstructionMapping
    rows: Sequence[Row]


def _compare(name: str, first: Sequence[Row], other: Sequence[Row]) -> tuple[_Wording | None, list[str]]:
    """A wording, or None where it is left out, and what is to be said of it."""
    found, how = align(first, other)
    needed = ENOUGH * len(first)
    if how == "id" and len(found) >= needed and not say_the_same(first, other, found):
        return None, [
            f"{name!r} is left out: its ids are those of the training, but neither prompts nor answers agree."
        ]
    if len(found) < needed:
        return None, [f"{name!r} is left out: of {len(first)} rows, {len(found)} were found in it."]
    answers, fit = answers_of(first, other, found)
    if answers is None:
        return None, [f"{name!r} is left out: it has one word for two labels, so that no answer tells them apart."]
    if len(fit) < needed:
        return None, [f"{name!r} is left out: of {len(found)} rows found in it, {len(fit)} have an answer that fits."]
    said = [f"{name!r} is aligned by position: its prompts cannot be compared."] if how == "position" else []
    if len(fit) < len(first):
        said.append(
            f"{name!r} lacks {len(first) - len(fit)} of {len(first)} rows: {len(first) - len(found)} were not found, "
            f"{len(found) - len(fit)} have another answer."
        )
    return _Wording({i: found[i] for i in fit}, _words(name, answers), other), said


def _with_words_of_training(
    kept: dict[str, _Wording], first: Sequence[Row], trained: InstructionMapping
) -> tuple[dict[str, _Wording], dict[InstructionMapping, InstructionMapping], list[str]]:
    """Where prompts do not say the words of their answers, those of the training are right as well.

    Returns:
        The wordings, of which some have words of another name; these, with those of the training; and notes.
    """
    prompts = {name: [row.content for row in wording.rows] for name, wording in kept.items()}
    words = {name: wording.words for name, wording in kept.items()}
    silent = silent_wordings({"": [row.content for row in first], **prompts}, {"": trained, **words}, "")
    unclear = [name for name in silent if collide(words[name], trained)]
    clear = [name for name in silent if name not in unclear]
    also = {}
    for name in clear:
        known, mapping = dict(trained.pairs), words[name]
        if any(not same_text(word, known[label]) for label, word in mapping.pairs):
            # what is scored has another name, by which a run that was scored otherwise is known
            mapping = InstructionMapping(f"{mapping.name}, or those of the training", mapping.pairs)
            kept = {**kept, name: replace(kept[name], words=mapping)}
            also[mapping] = trained
    notes = note_of(clear, "There an answer in the words of the training is right, too.")
    notes += note_of(unclear, "Those of the training mean other labels there, so only their own are right.")
    return kept, also, notes


def _trained_on(items: Sequence[OwnRow], training: TrainingRows | None) -> list[str]:
    learned = training.learned if training is not None else frozenset()
    count = sum(any(content_key([text]) in learned for text in item.texts.values()) for item in items)
    return [f"{count} of {len(items)} rows asked were trained on, in one wording or another."] if count else []


def _words(name: str, answers: dict[str, str]) -> InstructionMapping:
    return InstructionMapping(f"words of {name}", tuple(answers.items())) if answers else NO_MAPPING


def _item(first: Sequence[Row], index: int, labels: dict[str, str], kept: dict[str, _Wording]) -> OwnRow:
    row = first[index]
    texts = {name: wording.rows[wording.where[index]].content for name, wording in kept.items()}
    texts["training"] = row.content
    answer = row.completion.strip()
    label = next((written for written in labels.values() if same_text(written, answer)), answer)
    return OwnRow(f"row {index + 1}", {}, texts, label, content_key([row.content]))


def _files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    files = []
    for path in given:
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if file.suffix in _KINDS and not _is_manifest(file))
        else:
            files.append(path)
    resolved = [file.resolve() for file in files]
    if len(set(resolved)) < len(resolved):
        raise WhatStuckError("--template-variants names a file twice: name each wording once")
    return files


def _is_manifest(file: Path) -> bool:
    """What `diversify` leaves beside its rows."""
    return file.name.endswith(".manifest.json")


def _named_first(files: list[Path], training: str | Path) -> list[Path]:
    names = _short_names(files)
    for file, name in zip(files, names, strict=True):
        if str(training) in (str(file), file.name, file.stem, name):
            return _first(file, files)
    if not Path(training).is_file():
        there = ", ".join(names) or "none"
        raise WhatStuckError(f"the training wording {str(training)!r} is none of {there}{near(str(training), names)}")
    same = [file for file in files if file.resolve() == Path(training).resolve()]
    return _first(same[0], files) if same else [Path(training), *files]


def _first(one: Path, files: Sequence[Path]) -> list[Path]:
    return [one, *(file for file in files if file != one)]


def _refuse_one(files: Sequence[Path]) -> None:
    if len(files) < 2:  # noqa: PLR2004 - the training's and another
        raise WhatStuckError(
            f"--template-variants needs at least two files, one per wording, found {len(files)}: give more files, or a "
            "folder of them"
        )


def _short_names(files: Sequence[Path]) -> list[str]:
    """Names without what all of them begin with; in full where two would be the same."""
    stems = [file.stem for file in files]
    names = [stem[len(_common_start(stems)) :] for stem in stems]
    return names if len(set(names)) == len(names) and "training" not in names else [file.name for file in files]


def _common_start(stems: Sequence[str]) -> str:
    """What names begin with, up to a separator and never all of one."""
    least, most = min(stems), max(stems)
    length = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    separators = list(re.finditer(r"[._-]", least[: min(length, min(map(len, stems)) - 1)]))
    return least[: separators[-1].end()] if len(stems) > 1 and separators else ""


def _task_name(files: Sequence[Path]) -> str:
    start = _common_start([file.stem for file in files]).strip("._-")
    return start or files[0].resolve().parent.name or "wordings"


def _read(file: Path) -> list[Row]:
    rows = read_rows(file)
    for number, row in enumerate(rows, start=1):
        if len(row.messages) > 1:
            raise WhatStuckError(f"{file.name} row {number}: a wording must be one user message: leave out the others")
    return rows


def _identity(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
