"""Run by torchrun: a training in two processes, probed; each prints what it decided and learned."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from live_training import losses, make_trainer, weights
from whatstuck import WhatStuckCallback
from whatstuck.live.prober import Prober


def main(base: str, train: str, heldout: str, folder: str, way: str) -> None:
    """Train; `way` is `plain`, `probed`, or `broken`: the second process fails at step 2.

    `plain-16` and `probed-16` train all weights, in 16 bit.
    """
    torch.set_num_threads(1)
    out = Path(folder)
    probe = WhatStuckCallback(
        heldout, out / "run", steps=[1, 2, 4], probe_budget=None, players=4, rows=5, eval_rows=31, seed=3
    )
    trainer = make_trainer(
        Path(base), Path(train), out / "out", [] if way.startswith("plain") else [probe], max_steps=4,
        per_device_train_batch_size=4, evaluate_on=Path(heldout), eval_strategy="steps", eval_steps=2,
        ddp_backend="gloo", dropout=0.1, lora=not way.endswith("16"),
        dtype=torch.bfloat16 if way.endswith("16") else torch.float32,
    )  # fmt: skip
    if not way.startswith("plain"):
        probe.attach(trainer)
    rank = trainer.args.process_index
    if way == "broken" and rank == 1:
        share = Prober.share

        def failing(self: Prober, model: Any, step: int, *rows: Any) -> Any:
            if step == 2:
                raise OSError("the disk of this machine is full")
            return share(self, model, step, *rows)

        Prober.share = failing  # type: ignore[method-assign]
    trainer.train()
    found = [entry for entry in trainer.state.log_history if "eval_whatstuck_rho_emerged" in entry]
    result = {"losses": losses(trainer), "failure": probe.failure, "signals": found, "world": trainer.args.world_size}
    result["weights"] = [float(weight.double().sum()) for weight in weights(trainer).values()]
    (out / f"rank-{rank}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
