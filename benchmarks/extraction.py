"""How our certified extraction compares with the optimizer that published work uses, on one CPU thread.

Three questions, for 8, 10 and 12 players, on planted games and on the tables of a run (`--run`, repeatable):

1. How far above the optimum does the reference stop, at its published learning rates?
2. How much longer does it take to the objective that it ends with than we do to the same objective or better? We
   take the learning rate that serves it best on that table; how both are timed is told in equal_objective.py.
3. How small are our gaps, and at what cost, in each mode?

The objective of the reference comes from all 20,000 steps in float32, by transforms that take the same steps as its
matrices up to rounding. Rounding tips signs, so the two may end a percent or two apart (the table says by how much).

    python benchmarks/extraction.py [--quick] [--run RUN]... [--players N...] [--json FILE]

`--quick` takes fewer tables and leaves out the whole dense runs that check the clock; about two minutes.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor

from equal_objective import clocks, iterations_to
from ratios import Ratio, Results, Skipped, argument_parser, number, say
from reference_optimizer import PUBLISHED_RATES, STEPS, optimize
from value_tables import Tables, from_runs, planted
from whatstuck.interactions.extraction import MODES, extract_interactions

RATES = (*PUBLISHED_RATES, 1e-4)
GOALS = {10: 100.0, 12: 1000.0}  # time ratio to equal objective, dense, one table
SHARE_GOALS = {("robust", 8): 0.95, ("robust", 10): 0.95, ("paper", 8): 0.95}
FULL = {8: (12, 60), 10: (8, 24), 12: (4, 6)}  # tables compared with the reference, and solved in each mode
GAP = 1e-3
_LIMIT = 20_000  # iterations of ours, as `extract_interactions` has it by default
_WATCH = 200  # steps of the reference between two looks at its objective


def spread(numbers: Tensor) -> str:
    """Smallest and largest, as text."""
    return f"{number(float(numbers.min()))} to {number(float(numbers.max()))}"


def per_rate(numbers: Tensor) -> str:
    """The median over tables at each rate, as text; numbers (rates, B)."""
    medians = numbers.double().quantile(0.5, dim=1).tolist()
    return ", ".join(f"{rate:g}: {number(median)}" for rate, median in zip(RATES, medians, strict=True))


def against_reference(tables: Tables, *, count: int, limit: int, whole: bool) -> Results:
    """Questions 1 and 2, for at most `count` of the tables, with at most `limit` iterations of ours.

    With `whole`, all steps of the dense form are taken once, to hold the clock of one step to them.
    """
    title = f"{tables.name}, n={tables.n}"
    results = Results("extraction")
    values, noise_bound = tables.flat(count)
    say(f"{title}: the optimum of {len(values)} tables")
    best = extract_interactions(values, mode="paper", noise_bound=noise_bound, max_iterations=limit)
    useful = best.objective > 0  # elsewhere kappa allows zero, and nobody needs a solver
    values, noise_bound, optimum, gap = values[useful], noise_bound[useful], best.objective[useful], best.gap[useful]
    if not len(values):
        results.skipped.append(Skipped(title, "no table has an effect beyond the noise bound"))
        return results

    say(f"{title}: {STEPS:,} steps of the reference at {len(RATES)} rates")
    reference = optimize(
        values.repeat(len(RATES), 1),
        noise_bound.repeat(len(RATES)),
        torch.tensor(RATES).repeat_interleave(len(values)),
        form="sheets",
        watch_every=_WATCH,
    )
    last = reference.objective.view(len(RATES), -1)
    kindest = last.argmin(0)
    lowest = last.amin(0)
    excess = lowest / optimum
    near = reference.history <= 1.01 * reference.objective[:, None]
    near_steps = torch.where(near.any(1), near.int().argmax(1) * _WATCH, STEPS).view(last.shape)
    results.rows.append(
        Ratio(
            f"{title}: objective of the reference at its kindest rate",
            ours=float(optimum.quantile(0.5)),
            peer=float(lowest.quantile(0.5)),
            ratio=float(excess.quantile(0.5)),
            note=f"{spread(excess)} in {len(values)} tables; median at {per_rate(last / optimum)}; "
            f"our largest gap {float(gap.max()):.1e}",
        )
    )

    say(f"{title}: our iterations to these objectives")
    needed = iterations_to(values, noise_bound, last, limit=limit)
    say(f"{title}: clocks")
    timed = clocks(values, noise_bound, needed, kindest)
    own = timed.alone.gather(0, kindest[None])[0]
    for form, seconds in timed.step.items():
        ratios = STEPS * seconds / own
        note = f"{spread(ratios)}; {1e3 * seconds:.3g} ms a step × {STEPS:,}"
        if form == "dense":
            note += f"; median at {per_rate(STEPS * seconds / timed.alone)}"
        results.rows.append(
            Ratio(
                f"{title}: time to equal objective, {form}",
                ours=float(own.quantile(0.5)),
                peer=STEPS * seconds,
                ratio=float(ratios.quantile(0.5)),
                unit="s",
                goal=GOALS.get(tables.n) if form == "dense" else None,
                note=note,
            )
        )
    peer = STEPS * timed.step["dense"]
    note = (
        f"the reference is within 1 % of its end after {float(near_steps.double().quantile(0.5)):,.0f} steps (median)"
    )
    results.rows.append(
        Ratio.of_times(
            f"{title}: the same against dense, ours in a batch of {len(values)}",
            ours=timed.batched,
            peer=peer,
            note=note,
        )
    )
    results.details[title] = {
        "rates": RATES,
        "our objective": optimum.tolist(),
        "our gap": gap.tolist(),
        "reference objective": last.tolist(),
        "reference steps to within 1 % of its end": near_steps.tolist(),
        "our iterations to its objective": needed.tolist(),
        "our seconds to its objective": timed.alone.tolist(),
        "our seconds a table in a batch": timed.batched,
        "reference seconds a step": timed.step,
    }
    if whole:
        say(f"{title}: all steps of the dense form, once")
        dense = optimize(values[:1], noise_bound[:1], RATES[1], form="dense")
        results.rows.append(
            Ratio(
                f"{title}: all {STEPS:,} dense steps, against clock and objective of the above",
                ours=peer,
                peer=dense.seconds,
                ratio=dense.seconds / peer,
                unit="s",
                note=f"a check of the clock; its objective is {float(dense.objective[0] / last[1, 0]):.4f} of that by "
                f"sheets, rate {RATES[1]:g}",
            )
        )
    return results


def our_modes(tables: Tables, *, count: int, limit: int) -> Results:
    """Question 3: gap, iterations and time of each mode, for about `count` tables in one batch."""
    results = Results("extraction")
    for mode in MODES:
        title = f"{tables.name}, n={tables.n}: share of tables with gap up to {GAP:g}, {mode}"
        say(title)
        values, noise_bound = tables.flat(count)
        if mode == "joint":  # a row's checkpoints together
            values = tables.values[: max(1, count // tables.values.shape[1])]
        bound: dict[str, Any] = {"noise_bound": noise_bound} if mode == "paper" else {}
        started = time.process_time()
        found = extract_interactions(values, mode=mode, gap_tolerance=GAP, max_iterations=limit, **bound)
        seconds = (time.process_time() - started) / (values.numel() >> tables.n)
        gap, iterations = found.gap.flatten(), found.iterations.double().flatten()
        share = float((gap <= GAP).double().mean())
        results.rows.append(
            Ratio(
                title,
                ours=share,
                peer=math.nan,
                ratio=share,
                goal=SHARE_GOALS.get((mode, tables.n)),
                note=f"{values.numel() >> tables.n} tables; gap {spread(gap)}, iterations {spread(iterations)}, "
                f"at most {limit:,}; {1e3 * seconds:.3g} ms a table in a batch",
            )
        )
        results.details[title] = {"gap": gap.tolist(), "iterations": iterations.tolist(), "seconds a table": seconds}
    return results


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table and write the JSON."""
    parser = argument_parser(__doc__)
    parser.add_argument("--run", action="append", default=[], help="a run folder with value tables; may be repeated")
    parser.add_argument("--players", type=int, nargs="*", default=[8, 10, 12], help="sizes of the planted games")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = Results("extraction")
    sources = [planted(n, rows=2 if options.quick else 20) for n in options.players]
    real, missing = from_runs(options.run)
    results.skipped.extend(missing)
    for tables in [*sources, *real]:
        compared, solved = (2, 3) if options.quick else FULL.get(tables.n, (4, 6))
        results.extend(
            against_reference(tables, count=compared, limit=_LIMIT, whole=not options.quick and tables.n <= 10)
        )
        results.extend(our_modes(tables, count=solved, limit=_LIMIT))
    results.finish(options.json)


if __name__ == "__main__":
    main()
