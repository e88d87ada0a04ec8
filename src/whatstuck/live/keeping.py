"""Protect the checkpoint to keep from `save_total_limit`: a second name for its files, inside the run folder.

Trainers delete old checkpoints by their own rules, and the best one may be old. A hard link costs no disk while the
original is there and keeps the weights when it goes. Everything small is copied: another training in the same output
folder may write into the very file. Where links are not possible, weights are copied, too.
"""

import os
import shutil
from pathlib import Path

_WEIGHTLESS = ("optimizer.pt", "scheduler.pt", "rng_state", "scaler.pt", "training_args.bin")


def protect(checkpoint: Path, kept: Path) -> Path:
    """Give the files of a checkpoint a second name under `kept`, and let go of the one that was there.

    What only resuming needs is left out: it is large, and the newest checkpoint has it.

    Args:
        checkpoint: The folder `checkpoint-N`.
        kept: Folder of protected checkpoints; holds one afterwards.

    Returns:
        The protected folder.
    """
    target = kept / checkpoint.name
    staging = kept / f".partial-{checkpoint.name}"
    shutil.rmtree(staging, ignore_errors=True)
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        if not file.name.startswith(_WEIGHTLESS):
            second = staging / file.relative_to(checkpoint)
            second.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".safetensors":  # written anew, never in place
                _link(file, second)
            else:
                shutil.copy2(file, second)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    for other in kept.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    return target


def _link(file: Path, second: Path) -> None:
    try:
        os.link(file, second)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, second)
