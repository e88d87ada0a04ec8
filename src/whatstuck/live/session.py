"""One probed training: what a probe finds, what the rule says, and what is left behind.

Every process scores its share; the first one writes, decides, and tells the others. A decision depends on nothing but
the run folder and the trainer's log up to the present step.
"""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whatstuck.dynamics.summarizing import summarize
from whatstuck.errors import WhatStuckError
from whatstuck.live.beginning import Beginning
from whatstuck.live.borrowing import borrowed, causal_model, without_adapter
from whatstuck.live.budget import SETTLED_AFTER, Plan, settle
from whatstuck.live.exposing import ExposureRecorder
from whatstuck.live.identity import weights_fingerprint
from whatstuck.live.prober import Share, joined
from whatstuck.live.record import BROKEN_OFF
from whatstuck.live.schedule import saving_steps
from whatstuck.live.signals import logged_signals
from whatstuck.models import CheckpointedModel, resolve_model
from whatstuck.rows.exposure import Counts, by_row, with_exposures
from whatstuck.runs import write_table
from whatstuck.stopping import Decision, History, LossPatience, default_rules, replay

logger = logging.getLogger(__name__)


class Session:
    """A training that is probed.

    Args:
        begun: What it works with.
        exposures: Counts which rows are learned, where their trajectories are asked for.
    """

    def __init__(self, begun: Beginning, exposures: ExposureRecorder | None = None) -> None:
        self.settings = begun.settings
        self.record = begun.record
        self.ranks = begun.ranks
        self.plan = begun.plan
        self.last: tuple[int, dict[str, float]] | None = None  # the last probed step, and its signals
        self.known = begun.known  # the last signals that are known
        self._begun = begun
        self._exposures = exposures
        self._signals = begun.signals
        self._probe_seconds: list[float] = []  # known to the first process only
        self._step_seconds: list[float] = []

    # --- probe

    @property
    def needs_base(self) -> bool:
        """Whether the untouched model was not probed yet."""
        return not self.is_probed(0)

    def is_probed(self, step: int) -> bool:
        """Whether a step was probed."""
        if self.last is not None and self.last[0] == step:  # also where it diverged
            return True
        return self.ranks.first_decides(lambda: step in self.record.steps)

    def signals_at(self, step: int) -> dict[str, float]:
        """The signals of a step, if it is the last one that was probed."""
        return self.last[1] if self.last is not None and self.last[0] == step else {}

    def probe_base(self, model: nn.Module, log: Sequence[Mapping[str, Any]]) -> None:
        """Probe the untouched model, also where the training goes on from a later step.

        Raises:
            WhatStuckError: If it is not at hand.
        """
        if self._begun.step == 0:
            self.probe(model, 0, 0.0, log)
            return
        with without_adapter(model) as is_base:
            if is_base:
                self.probe(model, 0, 0.0, log)
                return
        path = self.settings.model or str(getattr(causal_model(model).config, "_name_or_path", ""))
        if not Path(path).exists() and self.settings.model is None:
            raise WhatStuckError(
                f"the training goes on from step {self._begun.step}, and step 0 was not probed: give the callback the "
                "untouched model as model="
            )
        device = causal_model(model).device
        with CheckpointedModel(resolve_model(path), device=device, dtype=self._dtype).at(None) as base:
            self.probe(base, 0, 0.0, log)

    @property
    def due(self) -> frozenset[int]:
        """Steps to probe."""
        return frozenset(self.plan.steps)

    def probe(self, model: nn.Module, step: int, epoch: float, log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Score the model as it is now, and write what was found.

        Args:
            model: The model under training; it comes back untouched.
            step: The step.
            epoch: The epoch.
            log: The trainer's log.

        Returns:
            The signals of this step, by the names that a tracker shows; none if the model diverged.
        """
        start = time.monotonic()
        begun = self._begun

        def score() -> tuple[str, Share]:
            with borrowed(model, dtype=self._dtype) as scored:
                share = begun.prober.share(scored, step, begun.rows, begun.heldout, begun.trained)
                return weights_fingerprint(scored), share

        shares = self.ranks.everywhere(score)
        fingerprint = shares[0][0]
        counts = None if self._exposures is None else self._exposures.counts()

        def note() -> dict[str, float]:
            found = self._written([share for _, share in shares], step, epoch, fingerprint, log, counts)
            self._took(time.monotonic() - start)
            self._probe_seconds.append(time.monotonic() - start)
            self.record.save()
            return found

        found = self.ranks.first_decides(note)
        self.last, self.known = (step, found), found or self.known
        return found

    def _written(
        self,
        shares: Sequence[Share],
        step: int,
        epoch: float,
        fingerprint: str,
        log: Sequence[Mapping[str, Any]],
        counts: Counts | None,
    ) -> dict[str, float]:
        diverged = next((share.diverged for share in shares if share.diverged is not None), None)
        if diverged is not None and step == 0:
            raise WhatStuckError("the untouched model gives NaN or infinite log-odds: it cannot be probed in this form")
        if diverged is not None:
            self._say(f"{diverged}; it is left out, and an earlier checkpoint is to be kept")
            self.record.section["diverged"] = sorted({*self.record.section["diverged"], step})
            return {}
        parts = self._begun.parts
        identity = parts.identity(fingerprint, self._begun.prober.mask_token_id)
        parts.write(self.record.part("values", step, "safetensors"), shares, identity)
        for folder in ("losses", "trajectories"):
            table = joined([getattr(share, folder) for share in shares], self.ranks)
            if table is not None:
                name = "heldout" if folder == "losses" else folder
                table = (
                    with_exposures(table, by_row(self._begun.trained, counts)) if folder == "trajectories" else table
                )
                write_table(self.record.part(name, step, "parquet"), table, identity)
        self.record.add_step(step, epoch, fingerprint)
        self.record.add_log(log)
        self._signals.add(step, *self.record.parts(step))
        return logged_signals(self._history(), step)

    # --- decide

    def decide(self, log: Sequence[Mapping[str, Any]]) -> Decision:
        """What the rule says now."""
        return self.ranks.first_decides(lambda: self._decide(log))

    def _decide(self, log: Sequence[Mapping[str, Any]]) -> Decision:
        start = time.monotonic()
        self.record.add_log(log)
        decision = self._decided()
        self._took(time.monotonic() - start)
        return decision

    def _decided(self) -> Decision:
        if self.last is not None and self.last[0] in self.record.section["diverged"]:
            keep = self.settings.rule(self._history()).keep_step
            return Decision("stop", keep, f"The training diverged at step {self.last[0]}.")
        return self.settings.rule(self._history())

    def _history(self, only: set[int] | None = None) -> History:
        section = self.record.section
        trainer = {name: [(step, value) for step, value in pairs] for name, pairs in section["trainer_state"].items()}
        return self._signals.history(epochs=dict(section["epochs"]), trainer=trainer, only=only)

    def stopped(self, step: int, reason: str) -> None:
        """Note that the rule ended the training."""

        def note() -> None:
            self.record.section["live"]["stopped_at"] = step
            self._say(f"stopped at step {step}: {reason}")
            self.record.save()

        self.ranks.first_decides(note)

    # --- what the trainer does between probes

    def stepped(self, step: int, seconds: float) -> None:
        """Note how long a training step took; when enough are known, choose the late probes for good."""
        self._step_seconds.append(seconds)
        if self.ranks.first:
            self.record.section["live"]["training_seconds"] += seconds
        if not self.plan.settled and step >= SETTLED_AFTER and self.last is not None:
            self.plan = self.ranks.first_decides(self._settle)

    def _settle(self) -> Plan:
        plan = settle(
            self.plan,
            share=self.settings.probe_budget or 1.0,
            max_steps=self._begun.max_steps,
            candidates=saving_steps(self._begun.arguments, self._begun.max_steps),
            probe_seconds=self._probe_seconds,
            step_seconds=self._step_seconds,
        )
        self.record.section["live"]["plan"] = plan.as_json()
        self._say(plan.notes[-1])
        self.record.save()
        return plan

    def saved(self, step: int, folder: Path) -> None:
        """Note that the trainer saved a checkpoint, and protect it if it is the one to keep."""
        self.ranks.first_decides(lambda: self._saved(step, folder))

    def _saved(self, step: int, folder: Path) -> None:
        if step not in self.record.steps or not folder.is_dir():
            return
        start = time.monotonic()
        self.record.add_checkpoint(step, folder)
        keep = self.settings.rule(self._history(only=self.record.saved | {0})).keep_step
        if keep is not None:
            self.record.keep(keep)
        self._took(time.monotonic() - start)
        self.record.save()

    def failed(self, message: str) -> None:
        """Note that probing ended before the training did."""
        with contextlib.suppress(Exception):  # the disk may be full: that is why it failed
            if self.ranks.first and self.record.section:
                self._warn(f"{BROKEN_OFF}: {message}")
                self.record.save()

    def finish(self, log: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics, verdict and page, and give the folder back."""
        self.ranks.first_decides(lambda: self._finish(log))

    def _finish(self, log: Sequence[Mapping[str, Any]]) -> None:
        try:
            self.record.add_log(log)
            live = self.record.section["live"]
            if live["training_seconds"]:
                live["share"] = round(live["probe_seconds"] / live["training_seconds"], 4)
                asked = live["budget"]
                over = "" if asked is None else f" ({asked:.1%} was asked for)"
                self._say(f"probing took {live['share']:.1%} of the time of the training steps{over}")
            self.record.section["seconds"] = round(live["probe_seconds"], 1)
            live["chosen"] = self._chosen()
            self.record.save()
            if self.record.steps:
                summarize(self.record.run, seed=self.settings.track.seed)
        finally:
            self.record.close()

    def _chosen(self) -> dict[str, Any] | None:
        """What a rule of the user's own says in the end, among the steps that can be kept."""
        rule = self.settings.rule
        if rule == default_rules()[0]:
            return None
        saved = self.record.saved | {0}
        kept = rule(self._history(only=saved if len(saved) > 1 else None))
        return {
            "rule": rule.name,
            "keep_step": kept.keep_step,
            "stop_step": replay(rule, self._history()).stop_step,
            "reason": kept.reason,
            "same_loss": isinstance(rule, LossPatience) and (rule.metric, rule.subset) == ("heldout_loss", "select"),
        }

    def _took(self, seconds: float) -> None:
        self.record.section["live"]["probe_seconds"] += round(seconds, 3)

    @property
    def _dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.settings.track.dtype)
        return found

    def _warn(self, message: str) -> None:
        logger.warning("%s", message)
        self.record.section["warnings"].append(message)

    def _say(self, message: str) -> None:
        """For the log, and for whoever reads the page later."""
        if self.ranks.first:
            logger.info("%s", message)
            if self.record.section and message not in self.record.section["live"]["log"]:
                self.record.section["live"]["log"].append(message)
