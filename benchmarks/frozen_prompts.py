"""The experiment on frozen prompts: does a model that was trained under one instruction still follow another one?

Tier 0: a model of a million parameters that we pretrain, minutes on two cores. Tier 1: SmolLM2 with 135 million, on two
cores. Tier 2: the same with thoughts, objectives and GRPO, on a GPU. Every trained arm and every evaluated one is a
part: what is there is not done again, so a killed call goes on where it stopped.

    python benchmarks/frozen_prompts.py --tier 0 --seed 0 --json
    python benchmarks/frozen_prompts.py --tier 0 --seed 0 --bases 0 150 300 600 1200 --out frozen
    python benchmarks/frozen_prompts.py --tier 1 --seed 0 --out frozen
    python benchmarks/frozen_tables.py frozen
"""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from frozen_evaluation import Row, evaluate_arm, line_of
from frozen_micro import STRENGTHS, train_arm
from micro_model import micro_base
from whatstuck.generalization.tasks.micro_points import micro_points

MAIN_ARMS = ("frozen", "diverse")
MAIN_BASE = 150


def tier_0(folder: Path, arm: str, base: int, seed: int) -> list[Row]:
    """Train and evaluate one arm of tier 0."""
    trained = train_arm(folder / "models", arm, seed=seed, strength=base)
    return evaluate_arm(
        folder / "parts" / f"tier0-{trained.name}.jsonl",
        micro_base(folder / "models", seed, base),
        trained,
        micro_points(),
        arm=arm,
        about={"tier": 0, "seed": seed, "base": base},
    )


def tier_1(folder: Path, arm: str, base: int, seed: int) -> list[Row]:
    """Train and evaluate one arm of tier 1."""
    from frozen_smollm2 import train_and_evaluate

    del base
    return train_and_evaluate(folder, arm, seed=seed)


TIERS: dict[int, Callable[[Path, str, int, int], list[Row]]] = {0: tier_0, 1: tier_1}


def run(folder: Path, tier: int, arms: Sequence[str], bases: Iterable[int], seed: int, workers: int) -> list[Row]:
    """All arms of all bases, as many at a time as there are workers."""
    if tier == 0:
        for base in bases:  # before the arms, which share it
            micro_base(folder / "models", seed, base)
    jobs = [(arm, base) for base in bases for arm in arms]
    if workers == 1:
        found = [TIERS[tier](folder, arm, base, seed) for arm, base in jobs]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            found = list(pool.map(partial(_job, folder, tier, seed), jobs))
    return [row for rows in found for row in rows]


def _job(folder: Path, tier: int, seed: int, job: tuple[str, int]) -> list[Row]:
    arm, base = job
    return TIERS[tier](folder, arm, base, seed)


def _one_thread() -> None:
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()


def signature(line: dict[str, Any]) -> dict[str, bool | None]:
    """What of the paper's pattern is there, by thresholds that were fixed beforehand; None where an arm is missing."""
    frozen, diverse = (line["arms"].get(arm) for arm in MAIN_ARMS)
    variants = ("All-5", "All-7", "6-9-7")
    return {
        "frozen_learns": frozen and frozen["ID"]["success"][0] >= 0.95,
        "frozen_collapses": frozen and max(frozen[name]["validity"][0] for name in variants) <= 0.2,
        "frozen_keeps_the_old_meaning": frozen and frozen["Fake"]["success"][0] >= 0.6,
        "diverse_learns": diverse and diverse["ID"]["success"][0] >= 0.95,
        "diverse_follows": diverse and min(diverse[name]["success"][0] for name in variants) >= 0.9,
        "diverse_drops_the_old_meaning": diverse and diverse["Fake"]["success"][0] <= 0.02,
    }


def main() -> None:
    """Run what was asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", type=int, choices=sorted(TIERS), default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=list(MAIN_ARMS))
    parser.add_argument("--bases", nargs="+", type=int, default=[MAIN_BASE], help=f"tier 0: of {STRENGTHS}")
    parser.add_argument("--out", type=Path, help="where models and parts are kept (default: nowhere)")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", action="store_true", help="one line instead of a table")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    _one_thread()
    with tempfile.TemporaryDirectory() as nowhere:
        folder = asked.out or Path(nowhere)
        rows = run(folder, asked.tier, asked.arms, asked.bases, asked.seed, asked.workers)
    for base in asked.bases if asked.tier == 0 else [None]:
        some = [row for row in rows if base is None or row["base"] == base]
        line = line_of(some, tier=asked.tier, seed=asked.seed, base=base)
        if asked.tier == 0:
            line["signature"] = signature(line)
        print(json.dumps(line) if asked.json else _table(line))


def _table(line: dict[str, Any]) -> str:
    """Success (validity) per arm and variant at the last step."""
    names = list(next(iter(line["arms"].values())))
    lines = [f"tier {line['tier']}, seed {line['seed']}, base {line['base']}, step {line['last_step']}"]
    lines += [f"{'':16}" + "".join(f"{name:>14}" for name in names)]
    for arm, cells in line["arms"].items():
        shown = (f"{cells[name]['success'][0]:.2f} ({cells[name]['validity'][0]:.2f})" for name in names)
        lines.append(f"{arm:16}" + "".join(f"{text:>14}" for text in shown))
    lines += [f"{name}: {value}" for name, value in line.get("signature", {}).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
