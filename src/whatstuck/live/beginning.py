"""Before the first step: open the run folder, choose what fits the budget, pick rows and words, score the baselines.

Whatever cannot be probed is refused here, before anything is learned.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.dynamics.selecting import ProbedRow, Selection
from whatstuck.errors import WhatStuckError
from whatstuck.live.baselines import Baseline, find_baselines, score_baseline
from whatstuck.live.borrowing import borrowed, causal_model
from whatstuck.live.budget import EARLY, Cost, Plan, choose, early_steps, fixed_plan
from whatstuck.live.identity import text_tokenizer, training_identity, weights_fingerprint
from whatstuck.live.overlap import overlap_with_training
from whatstuck.live.parts import Parts
from whatstuck.live.prober import Prober, possible_players
from whatstuck.live.ranks import Ranks
from whatstuck.live.record import Record
from whatstuck.live.schedule import default_steps
from whatstuck.live.settings import LiveSettings
from whatstuck.live.signals import Signals, logged_signals
from whatstuck.live.timing import guess_step
from whatstuck.models import mask_token
from whatstuck.rows.trajectories import trained_rows
from whatstuck.runs import Json, model_names, read_table, write_table

logger = logging.getLogger(__name__)

_SAMPLED = 64


class Beginning:
    """What a probed training works with.

    Args:
        settings: What was asked for.
        arguments: The trainer's arguments.
        state: The trainer's state.
        model: The model under training.
        processing_class: Its tokenizer or processor.
        dataset: What is trained on, if known.

    Raises:
        WhatStuckError: If something cannot be probed, or the folder holds something else.
    """

    def __init__(
        self, settings: LiveSettings, arguments: Any, state: Any, model: nn.Module, processing_class: Any, dataset: Any
    ) -> None:
        start = time.monotonic()
        self.settings = settings
        self.arguments = arguments
        self.max_steps = int(state.max_steps)
        self.step = int(state.global_step)
        self.ranks = Ranks()
        self.record = Record(settings.track.out)
        tokenizer = text_tokenizer(processing_class)
        self.prober = Prober(tokenizer, mask_token(tokenizer, settings.track.mask_token), settings.track, self.ranks)
        self._dataset = dataset
        try:
            self._begin(model, tokenizer)
        except BaseException:
            self.record.close()
            raise
        if self.ranks.first:
            self.record.section["live"]["probe_seconds"] += round(time.monotonic() - start, 3)
            self.record.save()

    def _begin(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        track, ranks = self.settings.track, self.ranks
        inner = causal_model(model)
        fingerprint = weights_fingerprint(inner)
        training = training_identity(self.arguments, self._dataset)
        given = self.settings.rows()
        self._overlap = overlap_with_training(given, tokenizer, track.chat_template, self._dataset)
        self._rows = given if track.split == "train" else self._overlap.held_out(given)
        known = ranks.first_decides(lambda: self._open(training, fingerprint))
        self.plan = self._continued(known["live"]) if known else self._choose(model, tokenizer)
        self._selection = self._select(tokenizer, self.plan.players)
        self.heldout = self._selection.heldout(self.plan.eval_rows)
        ranks.first_decides(lambda: self._note() if known else self._write(inner, training, fingerprint))
        chosen = ranks.first_decides(lambda: read_table(self.record.run.part("rows.parquet")).to_pylist())
        self.rows = {index: _as_probed(row) for index, row in enumerate(chosen)}
        self._row_ids = [row.row_id for row in self.rows.values()]
        self.trained = trained_rows(self._dataset) if self.settings.trajectories else []
        self.parts = Parts(self.record.run, track, self._row_ids)
        name = ranks.first_decides(lambda: str(self.record.section["model"]["name"]))
        self.signals = Signals(
            name,
            self.parts.extraction[0].name,
            self._row_ids,
            self.plan.players,
            seed=track.seed,
            one_token=not track.whole_target,
        )
        for baseline in find_baselines(track, name, self.settings.model or _where(inner)):
            self._add_baseline(baseline, inner.device)
        if ranks.first:
            for step in self.record.steps:
                self.signals.add(step, *self.record.parts(step))
        self.known: dict[str, float] = ranks.first_decides(self._last_signals)

    def _open(self, training: Json, fingerprint: str) -> Json:
        """Take the folder; what it holds of this training up to the present step, which may be nothing."""
        record, track = self.record, self.settings.track
        record.open()
        record.refuse_other_training(training, fingerprint, self.step)
        if record.section:
            live = record.section["live"]
            # with a budget, fewer words may have been chosen than were asked for
            same = track.players == live["asked"]["players"]
            asked = track.fixed() | ({"players": live["plan"]["players"]} if same else {})
            record.run.refuse_changed_settings("track", asked)
            if record.section["data"]["sha256"] != self.settings.about_data(self._rows)["sha256"]:
                raise WhatStuckError(
                    f"{record.run.path} was made with other rows to probe: give the same ones, or choose another folder"
                )
        record.drop_after(self.step)
        return record.section

    def _asked(self) -> Json:
        """What the plan answers to, beside rows and settings."""
        steps = self.settings.steps
        return {
            "players": self.settings.track.players,
            "budget": self.settings.probe_budget,
            "steps": None if steps is None else list(steps),
            "max_steps": self.max_steps,
        }

    def _continued(self, live: Json) -> Plan:
        """The plan of the run; where other steps are asked for now, they take the place of those to come."""
        plan = Plan.from_json(live["plan"])
        if live["asked"] == self._asked():
            return plan
        budgeted = self.settings.probe_budget is not None and self.settings.steps is None
        steps = early_steps(self.max_steps) if budgeted else self._steps()
        past = [step for step in plan.steps if step <= self.step]
        merged = tuple(sorted({*past, *(step for step in steps if step > self.step)}))
        return replace(plan, steps=merged, settled=not budgeted or self.max_steps <= EARLY[-1])

    def _steps(self) -> list[int]:
        steps = self.settings.steps
        return default_steps(self.max_steps) if steps is None else [step for step in steps if step <= self.max_steps]

    def _last_signals(self) -> dict[str, float]:
        """What was found at the last probe, for a trainer that goes on from there."""
        steps = self.record.steps
        return logged_signals(self.signals.history(epochs={}, trainer={}), steps[-1]) if steps else {}

    def _choose(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Plan:
        track, asked = self.settings.track, self.settings.steps
        if self.settings.probe_budget is None:
            return fixed_plan(track.players, track.rows, track.eval_rows, self._steps())
        selections = {players: self._select(tokenizer, players) for players in possible_players(track)}

        def measured() -> Cost:
            longest = max((len(row.content.split()) for row in self._rows[:_SAMPLED]), default=1)
            step = guess_step(model, self.arguments, self._dataset, 2 * longest, self.prober.mask_token_id)
            with borrowed(model, dtype=getattr(torch, track.dtype)) as scored:
                return self.prober.cost(scored, selections, step)

        plan = choose(
            self.ranks.everywhere(measured)[0].shared_by(self.ranks.size),
            share=self.settings.probe_budget,
            max_steps=self.max_steps,
            players=track.players,
            rows=track.rows,
            eval_rows=track.eval_rows,
            steps=None if asked is None else self._steps(),
        )
        if self.ranks.first:
            logger.info("%s", plan.notes[-1])
        return plan

    def _select(self, tokenizer: PreTrainedTokenizerBase, players: int) -> Selection:
        track = self.settings.track
        return Selection(self._rows, tokenizer, players=players, seed=track.seed, chat_template=track.chat_template)

    def _note(self) -> None:
        """What a training that goes on is told now."""
        self.record.section["live"] |= {
            "plan": self.plan.as_json(),
            "asked": self._asked(),
            "budget": self.settings.probe_budget,
            "asked_to_stop": self.settings.stop,
            "rule": self.settings.rule.name,
        }
        self.record.save()

    def _write(self, model: PreTrainedModel, training: Json, fingerprint: str) -> None:
        """Rows, and the section of the manifest."""
        track, prober = self.settings.track, self.prober
        chosen = self._selection.extend(None, self.plan.rows)
        overlap = self._overlap
        warnings = overlap.warnings()
        used = {*chosen["row_id"].to_pylist(), *(row.row_id for row in self.heldout)}
        if not any(row.split == "heldout" for row in self._rows):
            warnings.append("the probed rows are training rows: what they show is memory as much as learning")
        if track.dtype != "float32":
            warnings.append(f"scored in {track.dtype}: interactions of order 5 and more are mostly rounding noise")
        for warning in warnings:
            logger.warning("%s", warning)
        path = self.settings.model or _where(model)
        write_table(self.record.run.part("rows.parquet"), chosen)
        self.record.begin(
            settings=track.fixed() | {"players": self.plan.players},
            model={
                "name": model_names([Path(path)])[0],
                "path": path,
                "fingerprint": fingerprint,
                "mask_token": prober.tokenizer.convert_ids_to_tokens(prober.mask_token_id),
                "mask_token_id": prober.mask_token_id,
            },
            baselines=[],
            data={
                **self.settings.about_data(self._rows),
                "probed": len(chosen),
                "assumed": track.split == "auto" and not overlap.none,
                "trained_on": len(used & (overlap.trained or frozenset())) if track.split != "train" else 0,
            },
            skipped=dict(self._selection.skipped),
            warnings=warnings,
            dtype=track.dtype,
            seed=track.seed,
            training=training,
            live={
                "plan": self.plan.as_json(),
                "budget": self.settings.probe_budget,
                "probe_seconds": 0.0,
                "training_seconds": 0.0,
                "share": None,
                "stopped_at": None,
                "asked_to_stop": self.settings.stop,
                "rule": self.settings.rule.name,
                "log": list(self.plan.notes),
                "kept": None,
                "chosen": None,
                "asked": self._asked(),
            },
        )

    def _add_baseline(self, baseline: Baseline, device: torch.device) -> None:
        theirs = self._selection.seen_by(baseline.tokenizer, self._row_ids)
        rows = {index: theirs[row_id] for index, row_id in enumerate(self._row_ids) if row_id in theirs}
        if not rows:
            raise WhatStuckError(f"none of the rows can be probed on {baseline.name}: choose another baseline")
        values = self.record.run.part("values", baseline.name, "step-000000.safetensors")
        if self.ranks.first_decides(lambda: not values.exists()):
            shares = self.ranks.everywhere(
                lambda: score_baseline(baseline, rows, self.settings.track, device, self.ranks)
            )
            identity = self.parts.identity(baseline.fingerprint, baseline.mask_token_id)
            self.ranks.first_decides(lambda: self.parts.write(values, shares, identity))
        if self.ranks.first:
            self.signals.add_baseline(baseline.name, values, self.parts.explain(values))
            self.record.add_baseline(baseline.described(skipped=len(self._row_ids) - len(rows)))


def _where(model: PreTrainedModel) -> str:
    """Where a model was loaded from, else what it is."""
    return str(getattr(model.config, "_name_or_path", "") or type(model).__name__)


def _as_probed(row: Mapping[str, Any]) -> ProbedRow:
    return ProbedRow(
        row["row_id"],
        row["prompt"],
        tuple(row["target_ids"]),
        row["target_text"],
        tuple((player["start"], player["end"]) for player in row["players"]),
    )
