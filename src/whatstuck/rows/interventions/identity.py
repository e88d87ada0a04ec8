"""What the parts of a cause were made with: a call with something else must not add to them.

Arms are compared with each other, so all of them, and all seeds, have to be the same experiment. Files of the user's
may stand elsewhere at the next call; what counts is what is in them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.rows.interventions.gathering import Gathered
from whatstuck.rows.interventions.phases import Arm, Original
from whatstuck.rows.interventions.training import Encoded, repeated
from whatstuck.runs import Json, changed_values, content_hash, write_json

_CONTENTS = {
    "model": "another base model",
    "fed": "other tokens that are trained",
    "rows": "other rows, conflicts or texts",
    "followed": "other rows that are followed",
    "paraphrases": "other paraphrases",
    "verdicts": "other rules of what is right",
    "arms": "other arms",
}


def identity_of(gathered: Gathered, arms: Sequence[Arm], original: Original) -> Json:
    """All that the answers of an arm depend on, besides its seed."""
    interview, material = gathered.interview, gathered.material
    return {
        "settings": gathered.settings.fixed(),
        "training": repeated(gathered.recipe.settings) | {"seed": gathered.recipe.settings.get("seed")},
        "model": material.prints[0],
        "fed": content_hash([_tokens(gathered.recipe.fed), _tokens(gathered.recipe.asked)]),
        "rows": content_hash(asdict(original) | {"kept": sorted(original.kept)}),
        "followed": content_hash([interview.roles, {name: interview.groups.get(name) for name in interview.roles}]),
        "paraphrases": content_hash({name: interview.paraphrases.get(name) for name in interview.roles}),
        "verdicts": content_hash([material.settings.fixed(), material.checker_hash]),
        "arms": [arm.name for arm in arms],
    }


def refuse_changes(file: Path, now: Json) -> None:
    """Write down what the parts are made with, or refuse to go on with something else.

    Args:
        file: Where it is written.
        now: Of this call, see `identity_of`.

    Raises:
        WhatStuckError: If the parts that are there were made with something else, naming it.
    """
    now = json.loads(json.dumps(now, default=str))  # as it is read back
    if not file.exists():
        write_json(file, now)
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    changed = [
        change for part in ("settings", "training") for change in changed_values(before.get(part, {}), now[part])
    ]
    changed += [words for name, words in _CONTENTS.items() if before.get(name) != now[name]]
    if changed:
        raise WhatStuckError(
            f"{file.parent} was made with other settings ({'; '.join(changed)}): keep them, or delete that folder"
        )


def _tokens(rows: Mapping[str, Encoded]) -> list[list[Any]]:
    """A hash per row, so that not all tokens are held as text at once."""
    return [[name, content_hash([row["input_ids"], row["labels"]])] for name, row in rows.items()]
