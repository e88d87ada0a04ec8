"""What a training leaves behind: the run folder of `track`, written step by step while the model learns.

Everything that a decision rests on lies here by its global step. A training that goes on from a checkpoint drops what
came after that checkpoint and finds the rest, so it decides as if it had never been interrupted.
"""

import datetime as dt
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.live.keeping import protect
from whatstuck.models import logged_metrics
from whatstuck.runs import Json, RunFolder, step_name, step_of, versions

BROKEN_OFF = "probing ended before the training"
MAY_CHANGE = ("max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps")
_STEPPED = ("values/*", "interactions/*", "heldout", "trajectories")

_held: dict[Path, ExitStack] = {}
"""Locks of this process: a training that was interrupted in a notebook never gives its own back."""


class Record:
    """The run folder of one training; used by the process that writes.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.run = RunFolder(path)
        self.section: Json = {}

    # --- begin and end

    def open(self) -> None:
        """Take the folder for writing, until `close` or the end of the process.

        Raises:
            WhatStuckError: If another process writes it, or it holds something else.
        """
        self.close()
        lock = ExitStack()
        lock.enter_context(self.run.writing())
        _held[self.run.path.resolve()] = lock
        manifest = self.run.manifest()
        self.section = manifest.get("track", {})
        if "rows" in manifest and not self.section:
            raise WhatStuckError(
                f"{self.run.path} holds the rows of a finished training: a new one needs a folder of its own"
            )
        if self.section and "live" not in self.section:
            raise WhatStuckError(
                f"{self.run.path} was made by `whatstuck track`: a training needs a folder of its own, choose another"
            )

    def close(self) -> None:
        """Give the folder back."""
        lock = _held.pop(self.run.path.resolve(), None)
        if lock is not None:
            lock.close()

    def save(self) -> None:
        """Write the manifest."""
        self.run.write_section("track", self.section)

    # --- steps

    @property
    def steps(self) -> list[int]:
        """Steps that were probed."""
        return [entry["step"] for entry in self.section.get("checkpoints", [])]

    @property
    def saved(self) -> set[int]:
        """Probed steps of which there is a checkpoint: where the trainer saved it, or its protected copy."""
        return {entry["step"] for entry in self.section.get("checkpoints", []) if self.run.has_checkpoint(entry)}

    def refuse_other_training(self, training: Mapping[str, Any], fingerprint: str, step: int) -> None:
        """Compare a training with the one that the folder holds.

        Args:
            training: What makes it what it is.
            fingerprint: Of its present weights.
            step: Where it begins, or goes on from.

        Raises:
            WhatStuckError: Naming what differs.
        """
        if not self.section:
            return
        before: Json = self.section.get("training", {})
        # a training that goes on may be made longer, or dealt out otherwise
        free = MAY_CHANGE if step else ()
        changed = [
            f"{name}: {before.get(name)!r} before, {training.get(name)!r} now"
            for name in sorted({*before, *training})
            if name not in free and before.get(name) != training.get(name)
        ]
        known = {entry["step"]: entry["fingerprint"] for entry in self.section["checkpoints"]}
        if known.get(step, fingerprint) != fingerprint:
            changed.append(f"the model: other weights at step {step}")
        if changed:
            raise WhatStuckError(
                f"{self.run.path} holds the probes of another training ({'; '.join(changed)}): choose another folder"
            )

    def drop_after(self, step: int) -> None:
        """Forget what was found after a step: the training goes on from there and will find it again."""
        self.run.part("verdict.json").unlink(missing_ok=True)
        if not self.section:
            return
        model = self.section["model"]["name"]
        folders = [self.run.part(name.replace("*", model)) for name in _STEPPED]
        for part in (part for folder in folders for part in folder.glob("step-*")):
            if step_of(part) > step:
                part.unlink()
        for kept in self.run.kept(step).parent.glob("checkpoint-*"):
            if int(kept.name.rpartition("-")[2]) > step:
                shutil.rmtree(kept)
        self.section["checkpoints"] = [entry for entry in self.section["checkpoints"] if entry["step"] <= step]
        self.section["diverged"] = [found for found in self.section["diverged"] if found <= step]
        self.section["epochs"] = [pair for pair in self.section["epochs"] if pair[0] <= step]
        live = self.section["live"]
        live |= {"stopped_at": None, "chosen": None, "share": None, "log": list(live["plan"]["notes"])}
        if live["kept"] is not None and not self.run.part(live["kept"]).is_dir():
            live["kept"] = None
        warnings = [warning for warning in self.section["warnings"] if not warning.startswith(BROKEN_OFF)]
        self.section["warnings"] = warnings
        self.save()

    def add_step(self, step: int, epoch: float, fingerprint: str, path: str | None = None) -> None:
        """Note that a step was probed."""
        known = {entry["step"]: entry for entry in self.section["checkpoints"]}
        known[step] = {
            "step": step,
            "path": path,
            "kind": "base" if step == 0 else "live",
            "fingerprint": fingerprint,
        }
        self.section["checkpoints"] = [known[found] for found in sorted(known)]
        epochs = dict(self.section["epochs"]) | {step: epoch}
        self.section["epochs"] = [[found, epochs[found]] for found in sorted(epochs)]

    def add_checkpoint(self, step: int, folder: Path) -> None:
        """Note where a probed step was saved."""
        for entry in self.section["checkpoints"]:
            if entry["step"] == step:
                adapter = (folder / "adapter_config.json").exists()
                entry.update(path=str(folder), kind="adapter" if adapter else "full")

    def keep(self, step: int) -> None:
        """Protect the checkpoint of a step, if it is there and not protected yet."""
        folder = next((entry["path"] for entry in self.section["checkpoints"] if entry["step"] == step), None)
        if step and folder is not None and Path(folder).is_dir() and not self.run.kept(step).is_dir():
            target = protect(Path(folder), self.run.kept(step).parent)
            self.section["live"]["kept"] = str(target.relative_to(self.run.path))

    def add_log(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Note the held-out metrics that the trainer itself has logged so far."""
        found = logged_metrics(history, "the trainer's log")
        self.section["trainer_state"] = {name: [list(pair) for pair in pairs] for name, pairs in found.items()}

    def part(self, folder: str, step: int, suffix: str) -> Path:
        """Path of a part of the model under training."""
        if folder in ("values", "interactions"):
            return self.run.part(folder, self.section["model"]["name"], step_name(step, suffix))
        return self.run.part(folder, step_name(step, suffix))

    def parts(self, step: int) -> tuple[Path, Path, Path]:
        """Value tables, interactions and held-out losses of a step."""
        return (
            self.part("values", step, "safetensors"),
            self.part("interactions", step, "parquet"),
            self.part("heldout", step, "parquet"),
        )

    def add_baseline(self, described: Json) -> None:
        """Note a baseline."""
        known = {entry["name"]: entry for entry in self.section["baselines"]} | {described["name"]: described}
        self.section["baselines"] = list(known.values())

    def begin(self, **about: Any) -> None:
        """A new section; what may be there is of the same training, or was refused."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self.section = {
            "checkpoints": [],
            "diverged": [],
            "epochs": [],
            "trainer_state": {},
            "versions": versions(),
            "started": now,
            "seconds": 0.0,
            **about,
        }
        self.save()
