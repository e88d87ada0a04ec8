"""The settings of a probed training: those of `track`, where they mean the same, and what only a training has."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whatstuck.datasets import Row, read_rows, rows_from
from whatstuck.dynamics.settings import TrackSettings
from whatstuck.errors import WhatStuckError
from whatstuck.files import file_hash
from whatstuck.runs import content_hash
from whatstuck.stopping import EndOfRemoval, Rule, default_rules

_IN_MEMORY = "(rows given in Python)"
_NOT_HERE = ("checkpoints", "device")

Rows = str | Path | Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """What `WhatStuckCallback` was asked for.

    Attributes:
        track: Settings that a live probe shares with `track`.
        data: Rows to probe: a file, or records.
        model: The untouched model, needed only where a training goes on without a probe of step 0.
        probe_budget: Share of the training time that probing may take; None: all that was asked for.
        steps: Steps to probe, where the user named them.
        stop: Whether the rule may end the training.
        rule: The rule that decides.
        trajectories: Whether to write how every training row is doing at each probe.
    """

    track: TrackSettings
    data: Rows
    model: str | None
    probe_budget: float | None
    steps: tuple[int, ...] | None
    stop: bool
    rule: Rule
    trajectories: bool

    @classmethod
    def read(
        cls,
        data: Rows,
        out: str | Path,
        *,
        model: str | Path | None,
        probe_budget: float | None,
        steps: Sequence[int] | None,
        stop: bool,
        rule: Rule | str | None,
        trajectories: bool,
        **settings: Any,
    ) -> "LiveSettings":
        """Check what the callback was given.

        Raises:
            WhatStuckError: Naming the first setting that is wrong.
        """
        for name in _NOT_HERE:
            if name in settings:
                raise WhatStuckError(f"{name!r} is a setting of `whatstuck track`, not of a training: leave it out")
        if probe_budget is not None and not 0 < probe_budget < math.inf:
            raise WhatStuckError(
                f"probe_budget is {probe_budget!r}: give a share of the time such as 0.05, or None for no limit"
            )
        if steps is not None and (not steps or any(not isinstance(step, int) or step < 0 for step in steps)):
            raise WhatStuckError(f"steps is {steps!r}: give whole numbers from 0 on, such as [1, 2, 4, 8]")
        path = data if isinstance(data, str | Path) else _IN_MEMORY
        return cls(
            track=TrackSettings.read(model=str(model or "live"), checkpoints=["live"], data=path, out=out, **settings),
            data=data,
            model=None if model is None else str(model),
            probe_budget=probe_budget,
            steps=None if steps is None else tuple(sorted({0, *steps})),
            stop=stop,
            rule=_rule(rule),
            trajectories=trajectories,
        )

    def rows(self) -> list[Row]:
        """The rows to probe.

        Raises:
            WhatStuckError: If there are none, or one is bad.
        """
        track = self.track
        split = "train" if track.split == "train" else "heldout"
        if isinstance(self.data, str | Path):
            return read_rows(
                self.data, columns=track.columns, labels=track.labels, instruction=track.instruction, split=split
            )
        return rows_from(self.data, labels=track.labels, instruction=track.instruction, split=split)

    def about_data(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Where the rows came from, for run.json."""
        if isinstance(self.data, str | Path):
            path, digest = str(self.data), file_hash(Path(self.data))
        else:
            described = [[row.row_id, row.completion, *(message.content for message in row.messages)] for row in rows]
            path, digest = _IN_MEMORY, content_hash(described)
        return {
            "path": path,
            "sha256": digest,
            "rows": len(rows),
            "split": "/".join(sorted({row.split for row in rows})),
        }


def _rule(given: Rule | str | None) -> Rule:
    """The rule that was asked for.

    Raises:
        WhatStuckError: If there is none of this name, or it cannot be followed in a training.
    """
    usual = {rule.name: rule for rule in default_rules()}
    rule = next(iter(usual.values())) if given is None else usual.get(given) if isinstance(given, str) else given
    if rule is None or not callable(rule):
        raise WhatStuckError(f"there is no rule {given!r}: give one of {', '.join(map(repr, usual))}")
    if rule.kind == "hindsight" or isinstance(rule, EndOfRemoval):
        why = "rows that never choose" if rule.kind == "hindsight" else "numbers that a probe does not count"
        raise WhatStuckError(f"the rule {rule.name!r} looks at {why}, so it cannot be followed in a training")
    return rule
