"""The callback: what whatstuck shows of a finished training, while it runs.

It works with transformers' Trainer and everything built on it. All it does happens between two steps; see
`borrowing` for why the training does not notice.
"""

import logging
import math
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from whatstuck.errors import WhatStuckError
from whatstuck.live.beginning import Beginning
from whatstuck.live.borrowing import quiet_mode, undisturbed
from whatstuck.live.exposing import ExposureRecorder
from whatstuck.live.session import Session
from whatstuck.live.settings import LiveSettings, Rows
from whatstuck.live.signals import check_metric
from whatstuck.models.checkpoints import OURS
from whatstuck.stopping import Rule

logger = logging.getLogger(__name__)


class WhatStuckCallback(TrainerCallback):
    """Probe a model while it is trained: what is removed, kept and added, and which checkpoint to keep.

    Give it to a trainer and tell it which one, so that the signals reach its trackers:

    ```python
    probe = whatstuck.WhatStuckCallback("heldout.jsonl", out="run")
    trainer = SFTTrainer(..., callbacks=[probe])
    probe.attach(trainer)
    trainer.train()
    ```

    It probes on a schedule that is dense from the first step, writes the run folder that `whatstuck track` would
    write, with its page, and logs every signal as `eval_whatstuck_*` (value, `_low`, `_high`, `_null`, `_excess`).
    Where the trainer evaluates at a probed step, they are among its metrics, so `metric_for_best_model` may name one;
    it then probes at every evaluation, whatever that costs. The checkpoint to keep gets a second name in
    `OUT/kept`, which `save_total_limit` does not delete. The losses of the training are the same with and without it,
    to the last bit.

    A training that goes on from a checkpoint goes on here, too: what was found up to it is read from the folder.
    The state of this object itself is never needed, so leave `restore_callback_states_from_checkpoint` off.

    Args:
        data: Rows to probe that the training does not see: a file, a list of dicts, or a `datasets.Dataset`, in any
            shape that `whatstuck track` reads. Raw rows, not tokens.
        out: The run folder.
        probe_budget: Share of the training time that probing may take; rows, words and steps are chosen to fit, and
            the choice is logged. At least 4 rows, 6 words and the early steps are probed, even if that takes more.
            None: all that was asked for.
        steps: Steps to probe, instead of the schedule.
        stop: Whether the rule may end the training.
        rule: A rule of `whatstuck.stopping`, or the name of one of its `default_rules`; by default patience on held-out
            loss. Interaction signals are shown.
        trajectories: Also write how every training row is doing at each probe, at the price of one evaluation pass
            over them, which the budget does not count.
        model: The untouched model, needed only if a full fine-tuning goes on from a checkpoint into a new folder.
        **settings: Settings of `track`: `players` and `rows` (at most, with a budget), `eval_rows`, `baseline`,
            `split`, `chat_template`, `whole_target`, `mask_token`, `mode`, `seed`, ...

    Raises:
        WhatStuckError: If a setting is wrong; at the beginning of the training if a row or model cannot be probed.
    """

    def __init__(
        self,
        data: Rows,
        out: str | Path,
        *,
        probe_budget: float | None = 0.05,
        steps: Sequence[int] | None = None,
        stop: bool = False,
        rule: Rule | str | None = None,
        trajectories: bool = False,
        model: str | Path | None = None,
        **settings: Any,
    ) -> None:
        self.settings = LiveSettings.read(
            data,
            out,
            model=model,
            probe_budget=probe_budget,
            steps=steps,
            stop=stop,
            rule=rule,
            trajectories=trajectories,
            **settings,
        )
        self.session: Session | None = None
        self.failure: str | None = None
        self._trainer: weakref.ref[Any] | None = None
        self._began = 0.0
        self._exposures: ExposureRecorder | None = None

    def attach(self, trainer: Any) -> None:
        """Say which trainer this is for, so that signals reach its trackers; adds the callback if it is not there."""
        self._trainer = weakref.ref(trainer)
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)

    # --- what the trainer calls

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prepare, choose what fits the budget, and probe the untouched model."""
        self.failure, model = None, kwargs["model"]
        check_metric(args.metric_for_best_model, baselines=bool(self.settings.track.baseline))
        dataset = self._dataset(kwargs.get("train_dataloader"))
        with undisturbed():
            begun = Beginning(self.settings, args, state, model, kwargs["processing_class"], dataset)
            if self.settings.trajectories:
                self._exposures = ExposureRecorder(dataset)
                self._exposures.on_train_begin(args, state, control, **kwargs)
            self.session = session = Session(begun, self._exposures)
            if session.needs_base:
                session.probe_base(model, state.log_history)
        if self._trainer is None and state.is_world_process_zero:
            logger.warning("no trainer is attached, so trackers show nothing: call attach(trainer) on the callback")
        if session.last is not None and not state.global_step:
            self._log(session, session.last[1], state, control, model)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        if self._exposures is not None:
            self._exposures.on_step_begin(args, state, control)
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Probe, where the schedule says so."""
        del args
        session = self._live()
        if session is None:
            return
        seconds = time.monotonic() - self._began
        self._guarded(lambda: session.stepped(state.global_step, seconds))
        if self.failure is None and state.global_step in session.due:
            self._probe(session, state, control, kwargs["model"])

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Put the signals of this step among the trainer's metrics, and decide again: its loss is known now."""
        session, wanted = self._live(), _is_ours(args.metric_for_best_model)
        if session is not None and wanted and not session.is_probed(state.global_step):
            self._probe(session, state, control, kwargs["model"])
        if self.session is not None and metrics is not None:
            # A trainer that is told to look for one of them must find it, even where the model has just diverged:
            # an old value is never better than itself, and an infinitely bad one never than any.
            known = self.session.known if wanted else {}
            metrics.update(known | self.session.signals_at(state.global_step))
            if wanted:
                name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
                metrics.setdefault(name, -math.inf if args.greater_is_better else math.inf)
        if self._live() is not None and session is not None and session.is_probed(state.global_step):
            self._guarded(lambda: self._decide(session, state, control))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Protect the checkpoint, if it is the one to keep."""
        if self._exposures is not None:
            self._exposures.on_save(args, state, control)
        session = self._live()
        if session is not None:
            folder = Path(args.output_dir).resolve() / f"checkpoint-{state.global_step}"
            self._guarded(lambda: session.saved(state.global_step, folder))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the verdict and the page."""
        if self._exposures is not None:
            self._exposures.on_train_end(args, state, control)
        session = self.session
        if session is not None:
            self._guarded(lambda: session.finish(state.log_history))
            self.session = None

    # --- parts

    def _dataset(self, loader: Any) -> Any:
        """The rows that are trained on; those of the trainer still have their ids."""
        whole = getattr(self._attached(), "train_dataset", None)
        return getattr(loader, "dataset", None) if whole is None else whole

    def _attached(self) -> Any:
        """The trainer, if it was said and is still there."""
        return None if self._trainer is None else self._trainer()

    def _live(self) -> Session | None:
        return None if self.failure is not None else self.session

    def _probe(self, session: Session, state: Any, control: Any, model: Any) -> None:
        def work() -> None:
            found = session.probe(model, state.global_step, float(state.epoch or 0.0), state.log_history)
            self._log(session, found, state, control, model)
            self._decide(session, state, control)

        self._guarded(work)

    def _decide(self, session: Session, state: Any, control: Any) -> None:
        decision = session.decide(state.log_history)
        if decision.action == "stop" and self.settings.stop and not control.should_training_stop:
            control.should_training_stop = True
            session.stopped(state.global_step, decision.reason)

    def _guarded(self, work: Any) -> None:
        """A probe that fails must not cost somebody their training: say it, and let the training go on.

        Whatever can fail in one process alone goes through `Ranks`, so that all of them end here together.
        """
        try:
            work()
        except Exception as error:
            self.failure = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, WhatStuckError):
                logger.error("probing ends here, the training goes on: %s", self.failure)  # noqa: TRY400 - one line
            else:
                logger.exception("probing ends here, the training goes on")
            if self.session is not None:
                self.session.failed(self.failure)

    def _log(self, session: Session, found: dict[str, float], state: Any, control: Any, model: Any) -> None:
        """Log as the trainer would, without ending what it wants to log itself at this step."""
        trainer = self._attached()

        def work() -> None:
            asked = control.should_log
            with quiet_mode(model):  # TRL adds the metrics of the mode that the model is in, and forgets them
                trainer.log(dict(found))
            control.should_log = asked

        if found and trainer is None:
            state.log_history.append({**found, "epoch": state.epoch, "step": state.global_step})
        elif found:
            session.ranks.everywhere(work)  # a tracker of the first process may fail


def _is_ours(metric: str | None) -> bool:
    return metric is not None and metric.removeprefix("eval_").startswith(OURS.removeprefix("eval_"))
