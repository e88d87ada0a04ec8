"""One folder, one training: what it was begun with is written down, and another one is refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from whatstuck.errors import WhatStuckError
from whatstuck.runs import Json


def read_record(file: Path, *, whose: str) -> Json:
    """What a training wrote down; empty where none was begun.

    Args:
        file: Where it did.
        whose: Of whose checkpoints a folder without it is said to be: `another training`.

    Raises:
        WhatStuckError: If it is damaged, or the folder holds checkpoints without it.
    """
    if not file.exists():
        if any(file.parent.glob("checkpoint-*")):
            raise WhatStuckError(f"{file.parent} holds checkpoints of {whose}: give another out")
        return {}
    try:
        return cast("Json", json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise WhatStuckError(f"{file} is not valid JSON ({error}): give another out") from error


def refuse_changed(out: Path, changed: Sequence[str]) -> None:
    """Refuse to go on with another training than the one that was begun.

    Raises:
        WhatStuckError: Naming what differs, if anything does.
    """
    if changed:
        raise WhatStuckError(
            f"{out} was made with other settings ({'; '.join(changed)}): keep them, or give another out"
        )
