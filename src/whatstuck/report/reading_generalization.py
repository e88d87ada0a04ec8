"""What `generalize` left in a run folder, as plain data; the counterpart of `reading` for `track`.

Replies are read for examples only: of each arm and variant the first right and the first wrong one at the last step.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.schemas import GENERALIZATION
from whatstuck.generalization.survival import BEYOND, THRESHOLDS, beyond_range
from whatstuck.generalization.verdict import judge
from whatstuck.report.chat_message import chat_ends, message_in
from whatstuck.report.files import read_records
from whatstuck.report.metrics import Stat, known
from whatstuck.report.naming import model_parts
from whatstuck.report.reading import whole_number

TABLE = "generalization.parquet"
GREEDY = "greedy"
_LATER = ("cut", "longer", "old", "old_low", "old_high")  # columns that older runs lack
_REPLY = ["item", "sample", "prompt", "reply", "success", "outcome"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table: how one arm did on one variant at one step.

    Attributes:
        old: Share of replies that obey the old instruction and not the one shown; not known where none is new.
        counts: `items`, `contents`, `no_answer`, `failed`, `timed_out`, `unsolvable`, `cut`, `longer`.
    """

    arm: str
    variant: str
    kind: str
    step: int
    decoding: str
    success: Stat
    validity: Stat
    chance: Stat
    old: Stat
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Example:
    """One reply: `prompt` as the model saw it, `reply` with the prefill, `outcome` in one word.

    `message` is what the user says in the prompt, empty where that cannot be told.
    """

    prompt: str
    message: str
    reply: str
    right: bool
    outcome: str


@dataclass(frozen=True, slots=True)
class GeneralizationRun:
    """A run folder as `generalize` left it, read.

    Attributes:
        about: The section `generalize` of run.json.
        task: Name of the task.
        cells: All cells, in the order of the table.
        verdict: What `judge` says: as run.json has it, or from the table, where that is missing or was judged by other
            thresholds, so that words, numbers and rule of a page agree.
        examples: By arm and variant, at the arm's last step.
    """

    name: str
    about: Mapping[str, Any]
    task: str
    cells: tuple[Cell, ...]
    verdict: Mapping[str, Any]
    examples: Mapping[tuple[str, str], tuple[Example, ...]]

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the table."""
        return tuple(dict.fromkeys(cell.arm for cell in self.cells))

    @property
    def decodings(self) -> tuple[str, ...]:
        """How replies were made, the one that decides first."""
        return tuple(sorted(dict.fromkeys(cell.decoding for cell in self.cells), key=lambda name: name != GREEDY))

    @property
    def model(self) -> str:
        """Name of the model under study, without the hash of a converted file."""
        return self.model_parts[0]

    @property
    def model_parts(self) -> tuple[str, str]:
        """Name of the model, and the hash of its file where it was converted from one: its folder is named by both."""
        model = self.about.get("model")
        return model_parts(str(model.get("name") or "") if isinstance(model, dict) else "")

    def variants(self) -> list[Mapping[str, Any]]:
        """What run.json says of each variant, in the order of the task; of one that it lacks, name and kind.

        The kind is `beyond` where a harder variant gives other meanings than the training's.
        """
        entries = _listed_variants(self.about)
        listed = {str(entry.get("name")): dict(entry) for entry in entries}
        for name in beyond_range(entries):
            listed[name]["kind"] = BEYOND
        found = {cell.variant: {"name": cell.variant, "kind": cell.kind} for cell in self.cells}
        order = [name for name in listed if name in found] + [name for name in found if name not in listed]
        return [{**found[name], **listed.get(name, {})} for name in order]

    def last(self, arm: str, decoding: str) -> dict[str, Cell]:
        """By variant, an arm at its last step."""
        here = [cell for cell in self.cells if (cell.arm, cell.decoding) == (arm, decoding)]
        step = max((cell.step for cell in here), default=0)
        return {cell.variant: cell for cell in here if cell.step == step}

    def over_steps(self, arm: str, variant: str, decoding: str) -> dict[int, Cell]:
        """By step, one arm on one variant."""
        wanted = (arm, variant, decoding)
        here = (cell for cell in self.cells if (cell.arm, cell.variant, cell.decoding) == wanted)
        return {cell.step: cell for cell in sorted(here, key=lambda cell: cell.step)}


def generalization_finished(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether `generalize` has come to its end: the table is written last."""
    return isinstance(manifest.get("generalize"), dict) and (folder / TABLE).exists()


def read_generalization_run(folder: Path, manifest: Mapping[str, Any]) -> GeneralizationRun:
    """Read what `generalize` left in a run folder.

    Args:
        folder: The run folder.
        manifest: Its run.json.

    Raises:
        WhatStuckError: If the section or the table is missing, empty or damaged, or the table holds several tasks.
    """
    about = manifest.get("generalize")
    if not isinstance(about, dict):
        raise WhatStuckError(
            f"{folder / 'run.json'} has no section `generalize`: run `whatstuck generalize` with this --out"
        )
    records = read_records(folder / TABLE, GENERALIZATION.names, _LATER)
    if not records:
        raise WhatStuckError(f"{folder / TABLE} is empty: run `whatstuck generalize` again with the same --out")
    verdict = about.get("verdict")
    if not (isinstance(verdict, dict) and verdict.get("arms") and verdict.get("thresholds") == asdict(THRESHOLDS)):
        verdict = judge(records, beyond=beyond_range(_listed_variants(about)))
    run = GeneralizationRun(
        name=folder.resolve().name,
        about=about,
        task=str(records[0]["task"]),
        cells=tuple(map(_cell, records)),
        verdict=verdict,
        examples={},
    )
    return replace(run, examples=dict(_examples(folder / "generalization", run)))


def _listed_variants(about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((about.get("task") or {}).get("variants") or [])


def _cell(record: Mapping[str, Any]) -> Cell:
    def share(name: str, around: str) -> Stat:
        value, low, high = (known(record.get(column)) for column in (name, f"{around}low", f"{around}high"))
        return Stat(value, low, high)

    counts = ("items", "contents", "no_answer", "failed", "timed_out", "unsolvable", "cut", "longer")
    return Cell(
        arm=str(record["arm"]),
        variant=str(record["variant"]),
        kind=str(record["kind"]),
        step=int(record["step"]),
        decoding=str(record["decoding"]),
        success=share("success", ""),
        validity=share("validity", "validity_"),
        chance=share("chance", "chance_"),
        old=share("old", "old_"),
        counts={name: whole_number(record.get(name)) or 0 for name in counts},
    )


def _examples(folder: Path, run: GeneralizationRun) -> Iterable[tuple[tuple[str, str], tuple[Example, ...]]]:
    """Replies of the decoding that decides; parts that were left out for sharing give none."""
    decoding = run.decodings[0]
    plain = (run.about.get("settings") or {}).get("chat_template") == "never"
    for arm in run.arms:
        parts = {}
        for variant, cell in run.last(arm, decoding).items():
            path = folder / arm / f"step-{cell.step:06d}" / f"{variant}.parquet"
            if path.exists():
                parts[variant] = [r for r in read_records(path, _REPLY) if (r["sample"] < 0) == (decoding == GREEDY)]
        ends = None if plain else chat_ends({str(r["prompt"]) for records in parts.values() for r in records})
        for variant, records in parts.items():
            yield (arm, variant), _shown(records, ends)


def _shown(records: Sequence[Mapping[str, Any]], ends: tuple[str, str] | None) -> tuple[Example, ...]:
    """The first right and the first wrong reply."""
    first: dict[bool, Example] = {}
    for record in sorted(records, key=lambda record: (record["item"], record["sample"])):
        right, prompt = bool(record["success"]), str(record["prompt"])
        example = Example(prompt, message_in(prompt, ends), record["reply"], right, str(record["outcome"]))
        first.setdefault(right, example)
    return tuple(first[right] for right in (True, False) if right in first)
