"""What lies in a model folder: which weights, whether they are whole, and what they hash to.

A loader that meets a half-written folder fails late, or worse, fills what is missing with random numbers. So a
folder is looked at before anything is loaded from it, and every refusal names the file.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from whatstuck.errors import WhatStuckError

_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", ("adapter_model.bin",))
_FULL = ("config.json", "model.safetensors", ("pytorch_model.bin", "pytorch_model.bin.index.json"))


def kind_of(folder: Path) -> Literal["adapter", "full"] | None:
    """Which sort of checkpoint a folder is, from its configuration; None if it is neither."""
    if (folder / _ADAPTER[0]).is_file():  # before config.json: some trainers save both
        return "adapter"
    return "full" if (folder / _FULL[0]).is_file() else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model or adapter folder, sorted by name, each opened once to see that it is whole.

    Raises:
        WhatStuckError: If the folder is no checkpoint, holds pickles only, lacks a file, or a file is cut off.
    """
    kind = kind_of(folder)
    if kind is None:
        raise WhatStuckError(f"{folder} is no model: it has neither config.json nor adapter_config.json")
    config, single, pickles = _ADAPTER if kind == "adapter" else _FULL
    index = folder / f"{single}.index.json"
    if (folder / single).is_file():
        files = [folder / single]
    elif index.is_file():
        files = [folder / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
        absent = [file.name for file in files if not file.is_file()]
        if absent or not files:
            missing = ", ".join(absent) or "every shard"
            raise WhatStuckError(
                f"{folder} is incomplete: {missing} of {index.name} is missing; copy it there or leave this folder out"
            )
    else:
        for name in pickles:
            if (folder / name).is_file():
                raise WhatStuckError(
                    f"{folder} holds its weights as a pickle ({name}), which can run code when it is loaded: "
                    "save it again with save_pretrained, which writes safetensors"
                )
        raise WhatStuckError(
            f"{folder} is incomplete: it has {config} but no {single}; leave it out, or gather its weights first if "
            "they were saved in parts (DeepSpeed, FSDP)"
        )
    for file in files:
        _refuse_cut_off(file)
    return files


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WhatStuckError: If it cannot be read or is no object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WhatStuckError(f"{file} cannot be read as JSON ({error}): is the folder whole?") from error
    if not isinstance(content, dict):
        raise WhatStuckError(f"{file} holds no JSON object: is the folder whole?")
    return content


def tensor_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in safetensors files, from their headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 - no dict
    return shapes


def file_hash(file: Path) -> str:
    """BLAKE2b of a file's bytes (32 hex digits), kept as long as path, size and time stay."""
    stat = file.stat()
    return _hash(file.resolve(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _hash(file: Path, _size: int, _mtime: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _refuse_cut_off(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise WhatStuckError(f"{file} is no whole safetensors file ({error}): copy it again or leave it out") from error
