"""Two or more runs side by side: what each decided, and what the one kept and the other lost.

A base is common only where both really began there. What cannot be compared is said in one line, and the rest is
still there.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics.certainty import Ranges
from whatstuck.dynamics.pairing import PairedMasses, largest_differences, paired_means
from whatstuck.dynamics.sharing import Shared, scale_of
from whatstuck.dynamics.sides import TRAINING, Side, short_names
from whatstuck.errors import WhatStuckError
from whatstuck.runs import Json

Floats = npt.NDArray[np.float64]

MOST_DIFFERENCES = 8
SAME_BASE = 0.01
"""Bases are one if their interactions differ by no more than this share of their mass, or their values by no more than
this share of the output's range: a fifth of what the extraction leaves unexplained."""


def compare_runs(paths: Sequence[Path], *, seed: int = 0, text: bool = True) -> Json:
    """Compare finished runs, each with each.

    Args:
        paths: Two or more run folders.
        seed: Seed of the bootstrap.
        text: Whether to give the words of the interactions that differ most, the ids of their rows, and an instruction
            that stands before all of them.

    Returns:
        Numbers and words that JSON can hold (what is not known is None): `runs` (decision and curves of each),
        `settings` (those that differ) and `pairs` (`a` and `b` are positions in `runs`).

    Raises:
        WhatStuckError: If there are fewer than two runs, one is given twice, or one is none or not finished.
    """
    folders = [Path(path).resolve() for path in paths]
    if len(folders) < 2:  # noqa: PLR2004 - nothing to compare with
        raise WhatStuckError(f"comparing takes two or more run folders, {len(folders)} given: name another one")
    for folder, count in Counter(folders).items():
        if count > 1:
            raise WhatStuckError(f"{folder} is given {count} times: name each run once")
    sides = [Side.read(folder, name) for folder, name in zip(folders, short_names(folders), strict=True)]
    found: Json = _json(
        {
            "runs": [side.described() for side in sides],
            "settings": _differing_settings(sides, text=text),
            "pairs": [
                {"a": i, "b": j, **_pair(sides[i], sides[j], seed, text=text)}
                for i, j in combinations(range(len(sides)), 2)
            ],
        }
    )
    return found


def _differing_settings(sides: Sequence[Side], *, text: bool) -> list[Json]:
    """Settings that differ; those of a training only where they are known, which is in runs written during it."""
    facts = [side.facts() for side in sides]
    rows = []
    for name in dict.fromkeys(name for fact in facts for name in fact):
        known = [fact.get(name) for fact in facts if name in fact or not name.startswith(TRAINING)]
        if any(value != known[0] for value in known):
            private = name.removeprefix(TRAINING) == "instruction" and not text
            rows.append({"name": name, "values": ["left out" if private else fact.get(name) for fact in facts]})
    return rows


def _pair(a: Side, b: Side, seed: int, *, text: bool) -> Json:
    shared = Shared(a, b)
    return {
        "rows": 0 if shared.obstacle else len(shared.row_ids),
        "rows_left_out": dict(shared.reasons),
        "obstacle": shared.obstacle,
        "heldout": _heldout(a, b, seed),
        **({} if shared.obstacle else _interactions(shared, seed, text=text)),
    }


# --- interactions


def _interactions(shared: Shared, seed: int, *, text: bool) -> Json:
    sides = (shared.a, shared.b)
    (now_a, ranges_a), (now_b, ranges_b) = (shared.explained(side, side.step) for side in sides)
    paired = PairedMasses(now_a, now_b, seed=seed)
    base, described = _base(shared)
    return {
        "extracted_again": shared.again,
        "base": described,
        "present": paired.present(),
        "since": None if base is None else paired.since(base),
        "trained_on": [sum(side.rows[row_id]["split"] == "train" for row_id in shared.row_ids) for side in sides],
        "differing": _differing(shared, base, (now_a, now_b), (ranges_a, ranges_b), text=text),
    }


def _base(shared: Shared) -> tuple[Floats | None, Json]:
    """What both began from: the mean of the two step 0, which are one but for the extraction's freedom."""
    described: Json = {"same": False, "difference": None, "difference_mass": None, "why": ""}
    sides = (shared.a, shared.b)
    for side in sides:
        if not side.has(0):
            return None, described | {"why": f"Step 0 of {side.name} is not in its folder."}
    first, second = (shared.explained(side, 0, certainty=False)[0] for side in sides)
    mass, apart = (np.abs(first).sum() + np.abs(second).sum()) / 2, np.abs(first - second).sum()
    difference = float(apart / mass) if mass else 0.0
    why = _other_base(shared)
    same = difference <= SAME_BASE or not why or _same_values(shared)
    described |= {
        "same": same,
        "difference": difference,
        "difference_mass": float(apart / len(first)),
        "why": "" if same else why,
    }
    return ((first + second) / 2 if same else None), described


def _same_values(shared: Shared) -> bool:
    """Whether two untouched models answer alike, whatever their files are: a new adapter changes only the files."""
    first, second = (shared.values(side, 0) for side in (shared.a, shared.b))
    if first is None or second is None:
        return False
    return bool(np.sqrt(((first - second) ** 2).mean()) <= SAME_BASE * scale_of(first))


def _other_base(shared: Shared) -> str:
    """Why two runs did not begin alike, or empty: the same weights must have been asked the same thing."""
    a, b = shared.a, shared.b
    models = [side.section["model"] for side in (a, b)]
    if models[0].get("fingerprint") != models[1].get("fingerprint") or not models[0].get("fingerprint"):
        return "They began from other models."
    if models[0].get("mask_token_id") != models[1].get("mask_token_id"):
        return "They began from the same model, but masked words became another token."
    if any(a.rows[row_id]["prompt"] != b.rows[row_id]["prompt"] for row_id in shared.row_ids):
        return "They began from the same model, but the prompts were written in another way."
    return ""


def _differing(
    shared: Shared,
    base: Floats | None,
    now: tuple[Floats, Floats],
    ranges: tuple[Ranges | None, Ranges | None],
    *,
    text: bool,
) -> list[Json]:
    """The interactions that differ most; first those where no near-optimal explanation of A agrees with one of B."""
    certain = None
    if ranges[0] is not None and ranges[1] is not None:
        certain = (ranges[0].low > ranges[1].high) | (ranges[1].low > ranges[0].high)
    found = []
    for place in largest_differences(*now, MOST_DIFFERENCES, certain):
        row, kind, mask = place
        record = shared.a.rows[shared.row_ids[row]]
        words = [[player["text"], i + 1] for i, player in enumerate(record["players"]) if mask >> i & 1]
        found.append(
            {
                "row": record["source_index"],
                "kind": ("and", "or")[kind],
                "mask": mask,
                "base": None if base is None else float(base[place]),
                "a": float(now[0][place]),
                "b": float(now[1][place]),
                "ranges": [known and [float(known.low[place]), float(known.high[place])] for known in ranges],
                "certain": None if certain is None else bool(certain[place]),
                # a row id may be a user's own text
                **({"row_id": record["row_id"], "words": words, "answer": record["target_text"]} if text else {}),
            }
        )
    return found


# --- held-out rows


def _heldout(a: Side, b: Side, seed: int) -> Json:
    """Loss and accuracy at the two steps, on the same held-out rows: those that no rule for a training chooses by."""
    first, second = a.confirming(), b.confirming()
    shared = sorted(first.keys() & second.keys())
    say = [side.had_say for side in (a, b)]
    result: Json = {"rows": len(shared), "say": say, "unit": None, "loss": None, "accuracy": None, "note": ""}
    if not shared:
        missing = [side.name for side, rows in ((a, first), (b, second)) if not rows]
        why = f"no held-out rows to confirm with in {' and '.join(missing)}" if missing else "other rows were held out"
        return result | {"note": f"Held-out loss cannot be compared: {why}."}
    tables = [[rows[row_id] for row_id in shared] for rows in (first, second)]
    nll, tokens, correct = (
        [np.array([row[name] for row in table], dtype=np.float64) for table in tables]
        for name in ("nll", "tokens", "correct")
    )
    # a mean per token means another thing with another tokenizer; the whole answer is the same text
    per_token = bool((tokens[0] == tokens[1]).all())
    losses = nll if per_token else [mean * count for mean, count in zip(nll, tokens, strict=True)]
    hashed = all(re.fullmatch(r"[0-9a-f]{16}", row_id) for row_id in shared)
    sources = [side.section.get("data", {}).get("sha256") for side in (a, b)]
    return result | {
        "unit": "nats per token" if per_token else "nats per answer",
        "loss": paired_means(losses[0], losses[1], seed=seed),
        "accuracy": paired_means(correct[0], correct[1], seed=seed),
        "note": ""
        if hashed or sources[0] == sources[1]
        else "The data files differ and name their rows themselves: the same name is taken for the same row.",
    }


def _json(value: Any) -> Any:
    """The same without NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
