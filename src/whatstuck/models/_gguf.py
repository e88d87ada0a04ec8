"""GGUF files made into ordinary model folders, once.

A model loaded from GGUF still counts as quantized: it can be neither saved nor trained by a trainer. So the file
is written out as fp32 safetensors with its tokenizer, in a cache keyed by the file's content, and everything
else sees an ordinary folder.
"""

import contextlib
import fcntl
import io
import logging
import os
import shutil
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from whatstuck.errors import WhatStuckError, require
from whatstuck.models._files import file_hash
from whatstuck.models._quiet import quiet_transformers

logger = logging.getLogger(__name__)


def cache_root() -> Path:
    """Where converted models are kept: `WHATSTUCK_CACHE`, else `XDG_CACHE_HOME`/whatstuck, else ~/.cache/whatstuck."""
    if own := os.environ.get("WHATSTUCK_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "whatstuck"
    return Path.home() / ".cache" / "whatstuck"


def converted_gguf(file: Path) -> Path:
    """Folder with the fp32 model and the tokenizer of a GGUF file; converted if the cache does not hold it.

    Raises:
        WhatStuckError: If the file is no GGUF, one part of several, or of an architecture that cannot be read.
        MissingExtraError: If it must be converted and the extra `gguf` is not installed.
    """
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise WhatStuckError(f"{file} is no GGUF file: its first bytes are not 'GGUF'; download it again")
    if "-of-0" in file.stem:
        raise WhatStuckError(f"{file} is one part of a split GGUF: join the parts first (llama-gguf-split --merge)")
    folder = cache_root() / "gguf" / f"{file.stem}-{file_hash(file)[:16]}"
    if folder.is_dir():
        return folder
    require("gguf", "gguf")
    require("accelerate", "gguf")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # goes with the process
        if not folder.is_dir():  # another process may have done it while we waited
            _convert(file, folder)
    return folder


def _convert(file: Path, folder: Path) -> None:
    logger.info("converting %s to %s (once; later runs load it from there)", file, folder)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed conversion
    # Since GgufConfig exists, a model loaded without it refuses to be saved; before, the plain call was right.
    how = (
        {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    )
    try:
        # The bar of the conversion is a plain tqdm on stderr; the log line above has said what happens.
        with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32, **how)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise WhatStuckError(
            f"{file} cannot be converted ({_first_line(error)}): give the model as a Hugging Face folder"
        ) from error
    for written in partial.iterdir():
        written.chmod(0o644)  # safetensors come as 0600, and a cache may be shared
    partial.rename(folder)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
