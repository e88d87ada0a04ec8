"""What one call of `generalize` is about: the task, its variants, model and checkpoints; all checked first."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.cells import Cell, check_context, make_cell
from whatstuck.generalization.choosing import find_task
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.settings import OF_AN_ARM, GeneralizeSettings
from whatstuck.generalization.task import Variant
from whatstuck.models import (
    Checkpoint,
    base_mismatch,
    find_checkpoints,
    fingerprint,
    is_there,
    load_tokenizer,
    positions_of,
    resolve_model,
    template_mismatch,
    usable_device,
)
from whatstuck.runs import Json, RunFolder, content_hash

logger = logging.getLogger(__name__)

FOLDER = "generalization"
_TOLD = 8  # items of each variant that tell one task from another


class Material:
    """Everything that a call of `generalize` works on.

    Attributes:
        run: The run folder.
        before: What it knows already: the section `generalize` of its manifest.
        arm: What it knows of this arm.
        base: Folder of the untouched model.
        checkpoints: By step, the untouched model first: those that this call names, and those that the arm has parts
            of. One that was named once and left nothing (a step that diverged) is forgotten.
        named: Steps that this call names, the untouched model included; only these are asked.
        prints: Fingerprint of each step's weights.
        task: The task.
        variants: Those that this call names; only these are asked.

    Args:
        settings: The settings.

    Raises:
        WhatStuckError: If the task, a variant, the model, a checkpoint or the device is not usable, the run is about
            something else, or a prompt does not fit the context.
    """

    def __init__(self, settings: GeneralizeSettings) -> None:
        self.settings = settings
        self.asking = settings.asking
        self.run = RunFolder(settings.out)
        self.warnings: list[str] = []
        self.device = usable_device(settings.device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        self.before: Json = self.run.manifest().get("generalize") or {}
        self.arm: Json = self.before.get("arms", {}).get(settings.arm, {})
        self._recorded = [entry for entry in self.arm.get("checkpoints", []) if self._has_parts(entry["step"])]
        self.run.refuse_changed_settings("generalize", settings.fixed())
        self.task = find_task(settings, identity=(self.before.get("task") or {}).get("identity", ""))
        self.variants = self._variants()
        self.base = resolve_model(settings.model).resolve()
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(self.base)
        self.checkpoints, self.named = self._checkpoints()
        self.prints = {checkpoint.step: self._print(checkpoint) for checkpoint in self.checkpoints}
        self._positions = positions_of(self.base)
        self._cells: dict[str, Cell] = {}
        self._told = content_hash([self._about(variant) for variant in self.task.variants])
        self._refuse_others()
        self._say_what_is_missing()
        for note in self.task.notes:
            self.warnings.append(note)
        if settings.dtype != "float32":
            self._warn(f"asked in {settings.dtype}: where two replies are about as likely, rounding decides")

    def cell(self, variant: Variant) -> Cell:
        """The items of a variant, drawn and rendered once.

        Raises:
            WhatStuckError: Naming the variant, if it has no items, or they do not fit the context.
        """
        if variant.name not in self._cells:
            try:
                cell = make_cell(self.task, variant, self.asking, self.tokenizer)
            except WhatStuckError as error:
                message = str(error)
                named = message if message.startswith("variant ") else f"variant {variant.name}: {message}"
                others = f"; or leave {variant.name} out with --variants" if len(self.task.variants) > 1 else ""
                raise WhatStuckError(named + others) from error
            check_context(cell, cell.questions, self._positions)
            self._cells[variant.name] = cell
        return self._cells[variant.name]

    def part(self, arm: str, step: int, variant: str) -> Path:
        """Where the replies of a checkpoint to a variant are."""
        return self.run.part(FOLDER, arm, f"step-{step:06d}", f"{variant}.parquet")

    def identity(self, checkpoint: Checkpoint, variant: Variant) -> Json:
        """What the replies of a part depend on, beside how many there are."""
        settings = self.settings
        return {
            "fingerprint": self.prints[checkpoint.step],
            "task": self.task.name,
            "about": self._told,
            "variant": manifest_of(variant),
            "settings": settings.fixed() | {"thought": settings.thought},
        }

    def arm_section(self) -> Json:
        """What the manifest says of this arm: what this call names, and what there are parts of."""
        named = {variant.name for variant in self.variants}
        steps = [checkpoint.step for checkpoint in self.checkpoints]
        return {
            "settings": {**self.settings.of_the_arm(), "items": self.settings.items},
            "about": self._told,
            "model": self.model_section(),
            "checkpoints": [checkpoint.entry(self.prints[checkpoint.step]) for checkpoint in self.checkpoints],
            "variants": [
                variant.name
                for variant in self.task.variants
                if variant.name in named
                or any(self.part(self.settings.arm, step, variant.name).exists() for step in steps)
            ],
        }

    def model_section(self) -> Json:
        """What the manifest says of the untouched model."""
        return {"name": self.base.name, "path": str(self.base), "fingerprint": fingerprint(self.base)}

    def task_section(self) -> Json:
        """What the manifest says of the task."""
        return {
            "name": self.task.name,
            "identity": self.task.identity,
            "variants": [manifest_of(variant) for variant in self.task.variants],
            "training": pairs_of(self.task.training),
        }

    # --- what is asked

    def _variants(self) -> list[Variant]:
        known = {variant.name: variant for variant in self.task.variants}
        for name in known:
            if Path(name).name != name or name.startswith("."):
                raise WhatStuckError(f"the variant name {name!r} cannot be a file name: rename it")
        wanted = self.settings.variants or list(known)
        for name in wanted:
            if name not in known:
                raise WhatStuckError(f"{self.task.name} has no variant {name!r}: it has {', '.join(known)}")
        return [variant for name, variant in known.items() if name in wanted]

    def _about(self, variant: Variant) -> Json:
        """Tells tasks apart by what their first items look like to the model; of a variant without any, by that."""
        settings = self.settings
        try:
            few = make_cell(self.task, variant, settings.model_copy(update={"items": _TOLD}).asking, self.tokenizer)
        except WhatStuckError:  # said by `cell`, if it is wanted at all
            return {"variant": manifest_of(variant), "asked": "none", "files": self.task.identity}
        asked = [[key, list(question.ids)] for key, question in zip(few.keys, few.questions, strict=True)]
        return {"variant": manifest_of(variant), "asked": asked, "longest": few.longest, "files": self.task.identity}

    # --- who is asked

    def _checkpoints(self) -> tuple[tuple[Checkpoint, ...], set[int]]:
        found = {checkpoint.step: checkpoint for checkpoint in find_checkpoints(self.settings.checkpoints)}
        found.setdefault(0, Checkpoint(0, self.base, "base"))
        for checkpoint in found.values():
            for mismatch in (base_mismatch(checkpoint, self.base), template_mismatch(checkpoint, self.base)):
                if mismatch is not None:
                    self._warn(mismatch)
        named = set(found)
        for entry in self._recorded:
            found.setdefault(entry["step"], Checkpoint(entry["step"], Path(entry["path"]), entry["kind"]))
        return tuple(found[step] for step in sorted(found)), named

    def _has_parts(self, step: int) -> bool:
        return any(self.part(self.settings.arm, step, "*").parent.glob("*.parquet"))

    def _print(self, checkpoint: Checkpoint) -> str:
        known = {entry["step"]: str(entry["fingerprint"]) for entry in self._recorded}
        gone = checkpoint.step not in self.named and not is_there(checkpoint)
        return known[checkpoint.step] if gone else fingerprint(checkpoint.path)

    def _refuse_others(self) -> None:
        """A run is about one task; an arm about one model, one training and one way of replying."""
        where = f"{self.run.path} is about another"
        known = self.before.get("task")
        if known and known != json.loads(json.dumps(self.task_section())):
            what = (
                f"{known['name']}, not {self.task.name}"
                if known["name"] != self.task.name
                else "it was changed, or is scored otherwise now"
            )
            raise WhatStuckError(f"{where} task ({what}): choose another --out")
        if not self.arm:
            return
        before = {name: self.arm["settings"].get(name) for name in OF_AN_ARM}
        changed = [
            f"{name} of arm {self.settings.arm!r}: {before[name]!r} before, {now!r} now"
            for name, now in self.settings.of_the_arm().items()
            if now != before[name]
        ]
        if changed:
            raise WhatStuckError(
                f"{self.run.path} was made with other settings ({'; '.join(changed)}): keep them, or give the "
                "training another --arm"
            )
        if self.arm["about"] != self._told:
            raise WhatStuckError(f"{where} task (its prompts or replies were changed): choose another --out")
        prints = {entry["step"]: entry["fingerprint"] for entry in self._recorded}
        changed = [
            *(["the model"] if self.arm["model"]["fingerprint"] != fingerprint(self.base) else []),
            *(f"step {step}" for step, found in self.prints.items() if prints.get(step, found) != found),
        ]
        if changed:
            raise WhatStuckError(
                f"{where} training in arm {self.settings.arm!r} ({', '.join(changed)} differ): give it another --arm"
            )

    def _say_what_is_missing(self) -> None:
        """Only logged, since a later call may ask it."""
        training = next(variant.name for variant in self.task.variants if variant.kind == "training")
        asked = training in {variant.name for variant in self.variants}
        if not asked and not all(self.part(self.settings.arm, step, training).exists() for step in self.named):
            logger.warning(
                "nothing can be compared with the training wording, which is not asked: add %s to --variants", training
            )

    def _warn(self, message: str) -> None:
        logger.warning("%s", message)
        self.warnings.append(message)


def manifest_of(variant: Variant) -> Json:
    """A variant as JSON."""
    return {
        "name": variant.name,
        "kind": variant.kind,
        "shown": pairs_of(variant.shown),
        "scored": pairs_of(variant.scored),
        "shift": _plain(variant.shift),
        "wording": variant.wording,
    }


def pairs_of(mapping: InstructionMapping) -> Json:
    """A mapping as JSON, in the order of its names."""
    return {"name": mapping.name, "pairs": [list(pair) for pair in mapping.pairs]}


def _plain(shift: Mapping[str, Any]) -> Json:
    found: Json = json.loads(json.dumps(dict(shift), default=str))
    return found
