"""Checkpoints that any trainer wrote: found, ordered by step, looked at, and never opened as pickles."""

import glob
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from whatstuck.errors import WhatStuckError
from whatstuck.models._files import file_hash, kind_of, read_json, weight_files

logger = logging.getLogger(__name__)

_STEP = re.compile(r"checkpoint-(\d+)$")
OURS = "eval_whatstuck_"
"""What names of metrics begin with that were logged by our own callback: no news to a later `track`."""
_NO_METRIC = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "num_tokens")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of the model: `base` (untouched), `adapter` (PEFT, on the base) or `full` (a model of its own)."""

    step: int
    path: Path
    kind: Literal["base", "adapter", "full"]

    def entry(self, fingerprint: str) -> dict[str, Any]:
        """What run.json says of it."""
        return {"step": self.step, "path": str(self.path.resolve()), "kind": self.kind, "fingerprint": fingerprint}


def find_checkpoints(patterns: Sequence[str]) -> list[Checkpoint]:
    """Checkpoints that match, sorted by step.

    Args:
        patterns: Globs (`out/checkpoint-*`), checkpoint folders, or output folders that hold `checkpoint-N`.

    Returns:
        Each folder once. The step is the number in `checkpoint-N`, else `global_step` in its trainer_state.json.

    Raises:
        WhatStuckError: If a pattern matches nothing, a folder is no whole checkpoint or holds pickles only, a step
            cannot be told, or two folders have the same step.
    """
    by_step: dict[int, Checkpoint] = {}
    for pattern in patterns:
        folders = _folders(str(pattern))
        if not folders:
            raise WhatStuckError(f"no checkpoint matches {str(pattern)!r}: give folders, or a glob in quotation marks")
        for folder in folders:
            found = checkpoint_at(folder, _step(folder))
            other = by_step.setdefault(found.step, found)
            if other.path.resolve() != folder.resolve():
                raise WhatStuckError(
                    f"{other.path} and {folder} are both step {found.step}: give the checkpoints of one training"
                )
    return [by_step[step] for step in sorted(by_step)]


def checkpoint_at(folder: Path, step: int) -> Checkpoint:
    """A folder as the checkpoint of a step, whatever its name says.

    Raises:
        WhatStuckError: If the folder is no whole checkpoint or holds pickles only.
    """
    weight_files(folder)
    return Checkpoint(step, folder, "adapter" if kind_of(folder) == "adapter" else "full")


def is_there(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint can (still) be loaded, as far as its files tell."""
    try:
        weight_files(checkpoint.path)
    except WhatStuckError:
        return False
    return True


def fingerprint(path: Path) -> str:
    """Content hash (32 hex digits) of the weights and the configuration of a model or adapter, or of one file.

    BLAKE2b over names and bytes; a file is hashed once per process as long as its size and time stay.

    Raises:
        WhatStuckError: If a folder is no whole model or adapter.
    """
    path = Path(path)
    if path.is_file():
        return file_hash(path)
    weights = weight_files(path)
    config = path / ("adapter_config.json" if kind_of(path) == "adapter" else "config.json")
    together = hashlib.blake2b(digest_size=16)
    for file in [config, *weights]:
        together.update(f"{file.name} {file_hash(file)}\n".encode())
    return together.hexdigest()


def base_mismatch(checkpoint: Checkpoint, base: Path) -> str | None:
    """One sentence that names both, if an adapter was trained on another base than the one it would be put on.

    A recorded folder that exists must be the same folder; of anything else (a hub id, a path on another machine)
    the last part of the name must agree. Quantizing on the fly (QLoRA) leaves no trace in an adapter.
    """
    if checkpoint.kind != "adapter":
        return None
    recorded = read_json(checkpoint.path / "adapter_config.json").get("base_model_name_or_path")
    if not recorded:
        return None
    before = Path(recorded)
    config = before / "config.json"
    quantized = " (quantized)" if config.is_file() and "quantization_config" in read_json(config) else ""
    same = before.resolve() == base.resolve() if before.is_dir() else _last_name(before) == _last_name(base)
    if same:
        return None
    return (
        f"{checkpoint.path} was trained on {recorded}{quantized}, and is put on {base}: its scores hold for that only"
    )


def template_mismatch(checkpoint: Checkpoint, base: Path) -> str | None:
    """One sentence, if a checkpoint was saved with another chat template than the base, whose template is used."""
    if not (checkpoint.path / "tokenizer_config.json").is_file() or _template(checkpoint.path) == _template(base):
        return None
    return (
        f"{checkpoint.path} was saved with another chat template than {base}: prompts are rendered with the latter, "
        "so they may not look as they did in training"
    )


def trainer_metrics(checkpoints: Iterable[Checkpoint]) -> dict[str, list[tuple[int, float]]]:
    """Held-out metrics that the trainer logged, from the trainer_state.json of the latest checkpoint that has one.

    Returns:
        Per metric (`eval_loss`, ...; no timings, no counters) its finite values as (step, value), sorted by step.

    Raises:
        WhatStuckError: If the file is not readable.
    """
    states = [c.path / "trainer_state.json" for c in sorted(checkpoints, key=lambda c: c.step)]
    states = [state for state in states if state.is_file()]
    return logged_metrics(read_json(states[-1]).get("log_history", []), str(states[-1])) if states else {}


def trainer_epochs(checkpoints: Iterable[Checkpoint]) -> dict[int, float]:
    """Step to epoch, for every checkpoint whose trainer_state.json tells it.

    Raises:
        WhatStuckError: If a file is not readable.
    """
    epochs: dict[int, float] = {}
    for checkpoint in sorted(checkpoints, key=lambda c: c.step):
        state = checkpoint.path / "trainer_state.json"
        epoch = read_json(state).get("epoch") if state.is_file() else None
        if isinstance(epoch, int | float) and math.isfinite(epoch):
            epochs[checkpoint.step] = float(epoch)
    return epochs


def logged_metrics(history: Iterable[Mapping[str, Any]], source: str) -> dict[str, list[tuple[int, float]]]:
    """Held-out metrics in a trainer's `log_history`; see `trainer_metrics`.

    Args:
        history: The entries.
        source: What to call them in a warning.
    """
    metrics: dict[str, dict[int, float]] = {}
    for entry in history:
        for key, value in entry.items():
            if not key.startswith("eval_") or key.startswith(OURS) or key.endswith(_NO_METRIC):
                continue
            if not isinstance(value, int | float):
                continue
            if not math.isfinite(value):
                logger.warning("%s: %s is %s at step %s and is left out", source, key, value, entry.get("step"))
                continue
            metrics.setdefault(key, {})[int(entry["step"])] = float(value)  # the last of two evaluations counts
    return {name: sorted(values.items()) for name, values in sorted(metrics.items())}


def _folders(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    matched = [path] if path.is_dir() else [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - absolute patterns too
    folders = []
    for folder in sorted(matched):
        inside = [p for p in sorted(folder.glob("checkpoint-*")) if p.is_dir()]
        # An output folder usually holds the final model as well; its step cannot be told, the checkpoints' can.
        folders += inside or ([folder] if folder.is_dir() else [])
    return folders


def _step(folder: Path) -> int:
    for name in (folder.name, folder.resolve().name):  # a link such as checkpoint-best
        if match := _STEP.search(name):
            return int(match[1])
    state = folder / "trainer_state.json"
    step = read_json(state).get("global_step") if state.is_file() else None
    if not isinstance(step, int):
        raise WhatStuckError(f"cannot tell the step of {folder}: name it checkpoint-N")
    return step


def _last_name(path: Path) -> str:
    """Last part of a model's name; of a snapshot in the Hugging Face cache, that of its id."""
    for part in path.parts:
        if part.startswith("models--"):
            return part.split("--")[-1].lower()
    return path.name.lower()


def _template(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    template = read_json(config).get("chat_template") if config.is_file() else None
    return template if template is None or isinstance(template, str) else json.dumps(template, sort_keys=True)
