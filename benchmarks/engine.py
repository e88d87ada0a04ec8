"""How certain, how stable and how fast extraction is on the value tables of a real model, as Markdown tables.

    python benchmarks/engine.py RUN [RUN]... [--part PART]... [--rows N]

RUN is a folder made by `whatstuck track`; only its value tables are read. The first one is studied whole and should
have 8 players. The parts are `PARTS` below, all by default: about a quarter of an hour on one core for 200 tables of 8
players, half of them for the exact ranges. Noise bound and misfit are 0.05 of the step's mean |v(N) - v(∅)|, and an
interaction is salient above 0.03 of it, as `track` has them. Intervals are 95 % bootstrap intervals over rows.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine_tables import SEED, SHARE, Run, count, jaccard, mean, relative_change, table
from exact_ranges import PaperTable, RobustTable, dictionary
from ratios import say
from whatstuck.dynamics.categories import categorize, masses
from whatstuck.dynamics.certainty import Ranges, categorize_ranges, salient
from whatstuck.interactions.extraction import DEFAULT_TILT, MODES, Interactions
from whatstuck.interactions.transforms import reconstruct

SLACKS = (1e-4, 1e-3, 1e-2)
NOISE = 0.005
GAP = 1e-4
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((f"paper, kappa {share:g}", {"mode": "paper", "share": share}) for share in (0.0, 0.02, 0.05)),
    *(
        (
            f"robust, misfit {share:g}, tilt {tilt[0]:g}, {tilt[1]:g}",
            {"mode": "robust", "share": share, "order_tilt": tilt},
        )
        for share in (0.02, 0.05, 0.1)
        for tilt in ((0.0, 0.0), DEFAULT_TILT, (0.2, 0.05))
    ),
    ("joint, misfit 0.05, default tilt", {"mode": "joint"}),
]
EXACT = [
    ("paper, kappa 0", "paper", 0.0),
    (f"paper, kappa {SHARE:g}", "paper", SHARE),
    (f"robust, misfit {SHARE:g}", "robust", SHARE),
]
EXACT_ROWS, EXACT_SALIENT, EXACT_OTHERS = 4, 4, 1


def identities(run: Run) -> str:
    """What makes an optimum non-unique: exchanges between ANDs and ORs that change no value."""
    size = 1 << run.n
    coalitions = np.arange(size)
    order = np.bitwise_count(coalitions)
    largest, balance = 0.0, 0.0
    for members in range(1, size):
        inside = (coalitions & ~members) == 0
        exchange = torch.zeros(2, size, dtype=torch.float64)
        exchange[0] = torch.from_numpy(np.where(inside & (order > 0), np.where(order % 2, -1.0, 1.0), 0.0))
        exchange[1, members] = 1.0
        largest = max(largest, float(reconstruct(exchange[0], exchange[1]).abs().max()))
        balance = max(balance, abs(float(exchange.sum())))
    matrix = torch.from_numpy(dictionary(run.n)[0])
    null = torch.linalg.svd(matrix).Vh[len(matrix) :]
    some = torch.from_numpy(np.random.default_rng(SEED).normal(size=(100, len(null)))) @ null
    sums = float((some.sum(1).abs() / some.abs().sum(1)).max())
    return (
        f"OR_S + even ANDs in S - odd ANDs in S, for {size - 1} S: largest value at any coalition {largest:.1e}, "
        f"largest sum of coefficients {balance:.1e}. {len(null)} null directions of {matrix.shape[1]} coefficients; "
        f"of 100 random ones the largest |sum| / sum of sizes is {sums:.1e}.\n"
    )


def solving(run: Run) -> str:
    """Gap, iterations and processor time of each mode."""
    lines, of_robust = [], 0.0
    tables = run.effect.numel()
    for mode in MODES:  # robust comes first
        started = time.process_time()
        found = run.solve(mode, gap_tolerance=1e-3)
        milliseconds = 1e3 * (time.process_time() - started) / tables
        of_robust = of_robust or milliseconds
        taken = found.iterations.double()
        share = float((found.gap <= 1e-3).double().mean())
        cells = [f"{run.n}", mode, f"{tables}", f"{share:.2f}", f"{float(taken.quantile(0.5)):,.0f}"]
        lines.append([*cells, f"{float(taken.max()):,.0f}", f"{milliseconds:.3g}", f"{milliseconds / of_robust:.1f}"])
    head = ["n", "mode", "tables", "share with gap ≤ 1e-3", "iterations, median", "most", "ms a table"]
    return table([*head, "time / robust"], lines)


def floor(run: Run) -> str:
    """How close the optimum of `paper` is to the least that any explanation can have: |v(N) - v(∅)| - kappa."""
    found = run.solve("paper", gap_tolerance=GAP)
    cost = found.objective.reshape(run.effect.shape).numpy()
    least = (run.effect - SHARE * run.scale).clamp(min=0).numpy()
    there = cost <= least * (1 + 1e-3) + 1e-12
    fit = reconstruct(found.and_, found.or_).reshape(run.values.shape) - (run.values - run.values[..., :1])
    bound = SHARE * run.scale[:, None]
    held = (fit.abs() >= 0.999 * bound).double().sum(-1).numpy()  # the others do not decide anything
    lines = []
    for at, step in enumerate(run.steps):
        cells = [f"{run.n}", f"{step}", mean(run.effect[:, at].numpy()), mean(cost[:, at])]
        lines.append([*cells, mean(cost[:, at], least[:, at])])
        lines[-1] += [f"{int(there[:, at].sum())} of {len(cost)}", f"{held[:, at].mean():.1f} of {fit.shape[-1] - 1}"]
    head = ["n", "step", "abs v(N) - v(∅)", "optimum", "optimum / floor (of sums)", "tables at the floor"]
    return table([*head, "coalitions at the noise bound"], lines)


def certainty(run: Run) -> str:
    """Salient interactions that are certain, impossible and neither, by slack."""
    lines = []
    total = int(dictionary(run.n)[2].sum())
    for mode in ("robust", "paper"):
        solved = {slack: run.solve(mode, certainty=slack) for slack in SLACKS}
        found = count(run.salient(run.effects(solved[1e-3])))
        known = [salient(run.ranges(one), run.tau[:, None, None]) for one in solved.values()]
        certain, possible = ([count(getattr(one, name)) for one in known] for name in ("certain", "possible"))
        for at, step in enumerate(run.steps):
            cells = [mode, f"{step}", f"{found[:, at].mean():.1f}"]
            cells.append(" / ".join(f"{numbers[:, at].mean():.1f}" for numbers in certain))
            cells.append(" / ".join(f"{total - numbers[:, at].mean():.0f}" for numbers in possible))
            cells.append(" / ".join(f"{(p - c)[:, at].mean():.0f}" for c, p in zip(certain, possible, strict=True)))
            lines.append([*cells, mean(certain[1][:, at], found[:, at])])
    head = ["mode", "step", "salient", "certainly salient", "certainly not", "unknown"]
    note = f"Per table, of {total} coefficients; at slack {', '.join(f'{slack:g}' for slack in SLACKS)}.\n\n"
    return note + table([*head, "certain share of salient, 1e-3"], lines)


def _exact_table(run: Run, mode: str, share: float, row: int, at: int) -> PaperTable | RobustTable:
    effects = (run.values[row, at, 1:] - run.values[row, at, 0]).numpy()
    size = share * float(run.scale[at])
    if mode == "paper":
        return PaperTable(dictionary(run.n)[0], effects, size)
    matrix, weights, _ = dictionary(run.n, DEFAULT_TILT)
    return RobustTable(matrix, weights, effects, size)


def _exact_step(run: Run, mode: str, share: float, at: int, solved: Interactions) -> list[str]:
    """Cells of one step. Ranges are turned so that the interaction found is positive."""
    there = dictionary(run.n)[2]
    effects, ranges = run.effects(solved)[:, at, there], run.ranges(solved)
    low, high = ranges.low[:, at, there], ranges.high[:, at, there]
    cost = (solved.objective * (1 + solved.slack)).reshape(run.effect.shape).numpy()[:, at]
    tau, rng = float(run.tau[at]), np.random.default_rng((SEED, at))
    ends: list[tuple[float, ...]] = []  # ours, within the slack, on the optimal set: least and most each
    others: list[tuple[float, float]] = []  # largest size: exact, ours
    for row in range(min(EXACT_ROWS, len(effects))):
        exact = _exact_table(run, mode, share, row, at)
        best = exact.optimum()[1] * (1 + 1e-6) if isinstance(exact, PaperTable) else None
        found = np.abs(effects[row]) > tau
        for one in rng.permutation(np.flatnonzero(found))[:EXACT_SALIENT].tolist():
            pairs = [(low[row, one], high[row, one]), exact.range(one, float(cost[row]))]
            pairs.append(pairs[1] if best is None else exact.range(one, best))
            sign = np.sign(effects[row, one])
            ends.append(tuple(end for pair in pairs for end in sorted((sign * pair[0], sign * pair[1]))))
        for one in rng.permutation(np.flatnonzero(~found))[:EXACT_OTHERS].tolist():
            own = exact.range(one, float(cost[row]))
            others.append((max(-own[0], own[1]), max(-low[row, one], high[row, one])))
        say(f"exact, {mode}, share {share:g}, step {run.steps[at]}, row {row}")
    seen, rest = np.array(ends) / tau, np.array(others) / tau
    cells = [f"{len(seen)}"]
    for first in (4, 2, 0):
        text = f"{int((seen[:, first] > 1).sum())} / {int((seen[:, first] < 1e-2).sum())}"
        cells.append("–" if first == 4 and mode == "robust" else text)
    width = np.diff(seen)[:, ::2]
    quartiles = " / ".join(f"{value:.1f}" for value in np.quantile(width[:, 0] / width[:, 1], [0.25, 0.5, 0.75]))
    beyond = max(float((seen[:, 0] - seen[:, 2]).max()), float((seen[:, 3] - seen[:, 1]).max()), 0.0)
    cells += [f"{np.median(width[:, 1]):.1f}", quartiles, f"{beyond:.0e}"]
    return [*cells, f"{int((rest[:, 0] > 1).sum())} / {int((rest[:, 1] > 1).sum())} of {len(rest)}"]


def solvers(run: Run) -> str:
    """Whether another solver finds the same interactions at the same objective."""
    lines = []
    there = dictionary(run.n)[2]
    for name, mode, share in EXACT:
        solved = run.solve(mode, share=share, gap_tolerance=GAP)
        effects = np.where(there, run.effects(solved), 0.0)
        cost = solved.objective.reshape(run.effect.shape).numpy()
        for at in _three(run):
            say(f"solvers: {name}, step {run.steps[at]}")
            optima = [_exact_table(run, mode, share, row, at).optimum() for row in range(len(effects))]
            other = np.zeros_like(effects[:, at])
            other[:, there] = [coefficients for coefficients, _ in optima]
            above = cost[:, at] / np.array([least for _, least in optima]) - 1
            sets = [np.abs(one) > run.tau[at] for one in (effects[:, at], other)]
            cells = [name, f"{run.steps[at]}", *(f"{count(one).mean():.1f}" for one in sets)]
            cells += [mean(jaccard(*sets)), mean(relative_change(effects[:, at], other))]
            lines.append([*cells, f"{above.min():.0e} to {above.max():.0e}"])
    head = ["mode", "step", "salient, ours", "theirs", "J", "L1 difference", "our objective above theirs"]
    return table(head, lines)


def _three(run: Run) -> list[int]:
    """First, middle and last checkpoint."""
    return sorted({0, (len(run.steps) - 1) // 2, len(run.steps) - 1})


def exact(run: Run) -> str:
    """Exact ranges of some interactions, beside ours."""
    lines = []
    for name, mode, share in EXACT:
        solved = run.solve(mode, share=share, certainty=1e-3)
        lines += [[name, f"{run.steps[at]}", *_exact_step(run, mode, share, at, solved)] for at in _three(run)]
    head = ["mode", "step", "salient looked at", "on the optimal set", "within 1e-3", "our bound", "exact width / tau"]
    note = "Of the salient: certain / may be 0. Of others that are not salient: may be, exactly / by our bound.\n\n"
    return note + table([*head, "our width / exact, quartiles", "exact beyond ours, in tau", "others"], lines)


def noise(run: Run) -> str:
    """What moves when the values, the stopping point or the checkpoint do."""
    drawn = torch.randn(run.values.shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    noisy = run.values + NOISE * run.scale[None, :, None] * drawn
    hardly = run.values + run.noise_floor[None, :, None] * drawn
    lines = []
    for name, options in SETTINGS:
        say(f"noise: {name}")
        found = run.effects(run.solve(**options, gap_tolerance=GAP))
        now = run.salient(found)
        cells = [name, f"{count(now).mean():.1f}"]
        for values, digits in ((noisy, 2), (hardly, 3)):
            moved = run.effects(run.solve(**options, gap_tolerance=GAP, values=values))
            cells.append(mean(jaccard(now, run.salient(moved)), digits=digits))
            cells.append(mean(relative_change(found, moved), digits=digits))
        sooner = run.salient(run.effects(run.solve(**options, gap_tolerance=10 * GAP)))
        lines.append([*cells, mean(jaccard(now, sooner)), mean(jaccard(now[:, 1:], now[:, :-1]))])
    head = ["setting", "salient", "J, 0.5 % noise", "L1 change, 0.5 % noise", "J, measured noise"]
    return table([*head, "L1 change, measured noise", "J, gap 1e-3 and 1e-4", "J, neighbouring checkpoints"], lines)


def joint(run: Run) -> str:
    """Whether solving a row's checkpoints together changes what is called removed and emerged."""
    sets, certain, mass = {}, {}, {}
    for mode in ("robust", "joint"):
        solved = run.solve(mode, certainty=1e-3)
        effects, ranges = run.effects(solved), run.ranges(solved)
        each = list(effects.swapaxes(0, 1))
        spans = [Ranges(*ends) for ends in zip(ranges.low.swapaxes(0, 1), ranges.high.swapaxes(0, 1), strict=True)]
        sets[mode], certain[mode] = categorize(each, run.tau.tolist()), categorize_ranges(spans, run.tau.tolist())
        mass[mode] = [masses(each[0], one) for one in each]
    counts, moved = [], []
    for at, step in list(enumerate(run.steps))[1:]:
        for name in ("removed", "emerged"):
            found, other = (getattr(sets[mode][at], name) for mode in sets)
            sure, doubt = (getattr(certain[mode][at], name) for mode in sets)
            cells = [f"{step}", name, *(f"{count(one).mean():.1f}" for one in (found, other))]
            cells += [mean(count(other) - count(found)), mean(jaccard(found, other))]
            parts = (sure.certain, doubt.certain, sure.certain & doubt.certain)
            cells.append(" / ".join(f"{count(one).mean():.1f}" for one in parts))
            counts.append([*cells, f"{count(sure.certain & ~doubt.possible).mean():.2f}"])
            first, second = (np.abs(getattr(mass[mode][at], name)).sum((-2, -1)) for mode in mass)
            moved.append([f"{step}", name, mean(first), mean(second), mean(second - first)])
    head = ["step", "set", "robust", "joint", "joint - robust", "J", "certain: robust / joint / both"]
    masses_head = ["step", "set", "mass, robust", "mass, joint", "joint - robust"]
    return table([*head, "certain in robust, impossible in joint"], counts) + "\n" + table(masses_head, moved)


PARTS: dict[str, tuple[Callable[[Run], str], bool]] = {  # of every run, or of the first one only
    "identities": (identities, False),
    "solving": (solving, True),
    "floor": (floor, True),
    "certainty": (certainty, False),
    "solvers": (solvers, False),
    "exact": (exact, False),
    "noise": (noise, False),
    "joint": (joint, False),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders with value tables")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this; may be repeated")
    parser.add_argument("--rows", type=int, help="only so many rows of each run, for a first look")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = [Run.read(path, options.rows) for path in options.runs]
    for part in options.part or PARTS:
        measure, every = PARTS[part]
        for run in runs if every else runs[:1]:
            say(f"{part}: {run.name}")
            print(f"## {part}, {run.name}\n\n{measure(run)}", flush=True)


if __name__ == "__main__":
    main()
