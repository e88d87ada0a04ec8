"""The run folder: whole parts or none, one writer at a time, settings that never change silently.

Every expensive result is a part: a file written under a temporary name, flushed and renamed. A part that is there
is not computed again, so a killed run goes on where it stopped and ends in the same bytes. The layout is
described in docs/run-folder.md.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from whatstuck._version import __version__
from whatstuck.errors import WhatStuckError
from whatstuck.files import whole

FORMAT_VERSION = 1

Json = dict[str, Any]


class RunFolder:
    """One run on disk.

    Args:
        path: The folder; made by `writing` if it does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for writing; the lock belongs to the process and goes with it.

        Raises:
            WhatStuckError: If another process writes this run, or the folder holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise WhatStuckError(f"{self.path} is a file: give --out a folder")
        ours = any((self.path / name).exists() for name in (".lock", "run.json"))
        if self.path.is_dir() and any(self.path.iterdir()) and not ours:
            raise WhatStuckError(f"{self.path} is not empty and not a run folder: give --out a new folder")
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise WhatStuckError(
                    f"another process is writing {self.path}: wait for it to end, or choose another --out"
                ) from error
            for leftover in self.path.rglob(".tmp-*"):  # of a killed writer; the lock says it is gone
                leftover.unlink()
            yield

    def part(self, *names: str) -> Path:
        """Path of a part inside the run."""
        return self.path.joinpath(*names)

    def kept(self, step: int) -> Path:
        """Where the protected copy of a step's checkpoint is, if there is one."""
        return self.part("kept", f"checkpoint-{step}")

    def has_checkpoint(self, entry: Mapping[str, Any]) -> bool:
        """Whether the checkpoint of an entry of `checkpoints` is there: where it was saved, or its protected copy."""
        path = entry["path"]
        return path is not None and (Path(path).is_dir() or self.kept(entry["step"]).is_dir())

    # --- the manifest

    def manifest(self) -> Json:
        """The content of run.json, or an empty manifest.

        Raises:
            WhatStuckError: If it is not readable, or of another format version.
        """
        file = self.path / "run.json"
        if not file.exists():
            return {"format_version": FORMAT_VERSION}
        try:
            manifest = cast("Json", json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise WhatStuckError(f"{file} is not valid JSON ({error}): is this a run folder?") from error
        if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
            found = manifest.get("format_version") if isinstance(manifest, dict) else None
            raise WhatStuckError(
                f"{file} has format_version {found}; this one reads {FORMAT_VERSION}: use the version that wrote it"
            )
        return manifest

    def write_section(self, verb: str, section: Json) -> None:
        """Put a verb's section into run.json."""
        manifest = self.manifest()
        manifest[verb] = section
        write_json(self.path / "run.json", manifest)

    def refuse_changed_settings(self, verb: str, settings: Mapping[str, Any]) -> None:
        """Compare settings with those that the run was begun with.

        Raises:
            WhatStuckError: Naming the settings that differ, with both values.
        """
        before = self.manifest().get(verb, {}).get("settings")
        if before is None:
            return
        now = json.loads(json.dumps(settings))
        changed = changed_values(before, now)
        if changed:
            raise WhatStuckError(
                f"{self.path} was made with other settings ({'; '.join(changed)}): keep them, or choose another --out"
            )


def changed_values(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two sets of settings, by name, with both values."""
    return [
        f"{name}: {before.get(name)!r} before, {now.get(name)!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


# --- parts


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    with whole(path) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a Parquet table, whole or not at all, with its metadata as one JSON value."""
    if metadata is not None:
        table = table.replace_schema_metadata({"whatstuck": json.dumps(metadata, sort_keys=True)})
    with whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path) -> pa.Table:
    """Read a Parquet table.

    Raises:
        WhatStuckError: If the file is missing or no Parquet file.
    """
    try:
        return pq.read_table(path)
    except FileNotFoundError as error:
        raise WhatStuckError(f"{path} is missing: the run is not finished; run the same command again") from error
    except pa.ArrowInvalid as error:
        raise WhatStuckError(f"{path} is damaged ({error}): delete it and run the same command again") from error


def table_metadata(table: pa.Table) -> Json:
    """The metadata that `write_table` stored."""
    return cast("Json", json.loads((table.schema.metadata or {}).get(b"whatstuck", b"{}")))


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file, whole or not at all.

    The metadata is one JSON value: several keys would be written in random order, and parts must be byte-identical.
    """
    with whole(path) as temporary:
        save_file(dict(tensors), temporary, {"whatstuck": json.dumps(metadata, sort_keys=True)})


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], Json]:
    """Read a safetensors file and its metadata.

    Raises:
        WhatStuckError: If the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
            return tensors, cast("Json", json.loads((file.metadata() or {}).get("whatstuck", "{}")))
    except (OSError, SafetensorError) as error:
        raise WhatStuckError(f"{path} cannot be read ({error}): delete it and run the same command again") from error


# --- names and hashes


def step_name(step: int, suffix: str) -> str:
    """File name of a step's part.

    >>> step_name(120, "parquet")
    'step-000120.parquet'
    """
    return f"step-{step:06d}.{suffix}"


def step_of(path: Path) -> int:
    """The step in a part's file name.

    >>> step_of(Path("step-000120.parquet"))
    120
    """
    return int(path.stem.removeprefix("step-"))


def model_names(paths: list[Path], taken: Collection[str] = ()) -> list[str]:
    """Short, distinct, file-safe names for models, from their folder names.

    >>> model_names([Path("a/SmolLM2 135M"), Path("b/SmolLM2 135M")], taken={"SmolLM2-135M"})
    ['SmolLM2-135M-2', 'SmolLM2-135M-3']
    """
    names: list[str] = []
    for path in paths:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-.") or "model"
        name, count = stem, 1
        while name in names or name in taken:
            count += 1
            name = f"{stem}-{count}"
        names.append(name)
    return names


def content_hash(value: Any) -> str:
    """SHA-256 of a JSON value, as hex; equal values give equal hashes."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"whatstuck": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "peft", "trl", "numpy", "pyarrow"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
