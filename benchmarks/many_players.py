"""How well few masks stand for all of them: our sampled AND-OR fit, ProxySPEX and an order-1 fit on real tables.

Every mask of a full value table is known, so the R² here is over all masks that a fit has not seen. Give a run folder
with 10 to 16 players:

    whatstuck track --players 12 ... --out RUN
    python benchmarks/many_players.py --run RUN --json FILE

Each engine is called as a user calls it, with its own masks, nothing held out. Also: one synthetic table of 16
players, extracted whole.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ratios import Ratio, Results, Skipped
from value_tables import parts_of_run
from whatstuck.errors import MissingExtraError, WhatStuckError
from whatstuck.interactions import _proxyspex
from whatstuck.interactions.extraction import extract_interactions
from whatstuck.interactions.sampled import fit_interactions
from whatstuck.interactions.transforms import orders, reconstruct

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

MASKS = (128, 256, 512, 1024)
ENGINES = ("order 1", "atoms", "proxyspex")
THEIR_GRID = {"n_estimators": [500, 1000], "learning_rate": [0.01, 0.1]}
"""What ProxySPEX of shapiq 1.4.1 searches by default, beside the same depths."""

BARS = (0.95, 0.99)


class Table:
    """A full table as a game that remembers what it was asked."""

    def __init__(self, values: Floats) -> None:
        self.values = values
        self.n_players = len(values).bit_length() - 1
        self.seen: set[int] = set()

    def __call__(self, masks: Bools) -> Floats:
        """Values of masks."""
        index = masks.astype(bool) @ (1 << np.arange(self.n_players))
        self.seen |= set(index.tolist())
        return self.values[index]

    def unseen(self) -> tuple[Bools, Floats]:
        """The masks that were never asked for, and their values."""
        index = np.setdiff1d(np.arange(len(self.values)), list(self.seen))
        return ((index[:, None] >> np.arange(self.n_players)) & 1).astype(bool), self.values[index]


def r2_on_unseen(table: Table, predict: Callable[[Bools], Floats]) -> float:
    """R² over all masks that the fit has not seen."""
    masks, values = table.unseen()
    return float(1 - ((values - predict(masks)) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def measure(values: Floats, masks: int, seed: int) -> dict[str, tuple[float, float]]:
    """R² on unseen masks and seconds of each engine on one table."""
    found = {}
    for engine in ENGINES[1:]:
        table = Table(values)
        before = time.perf_counter()
        try:
            fit = fit_interactions(table, masks=masks, engine=engine, held_out=0, seed=seed)
        except MissingExtraError:
            continue
        seconds = time.perf_counter() - before
        found[engine] = (r2_on_unseen(table, fit.predict), seconds)
        if engine == "atoms":
            found["order 1"] = _order_one(table)
    return found


def _order_one(table: Table) -> tuple[float, float]:
    """Least squares on single players, on the masks that the table was asked for."""
    index = np.array(sorted(table.seen))
    design = np.column_stack([(index[:, None] >> np.arange(table.n_players)) & 1, np.ones(len(index))])
    before = time.perf_counter()
    weights = np.linalg.lstsq(design, table.values[index], rcond=None)[0]
    seconds = time.perf_counter() - before
    return r2_on_unseen(table, lambda masks: masks @ weights[:-1] + weights[-1]), seconds


def real_tables(run: Path) -> list[Floats]:
    """Every value table of the model under study, of all rows and steps."""
    _, parts = parts_of_run(run)
    return [row.numpy() for part in parts for row in part.values]


def many_masks(tables: list[Floats], sizes: tuple[int, ...], results: Results) -> None:
    """Fill the results with the comparison."""
    n = len(tables[0]).bit_length() - 1
    single = []
    for masks in sizes:
        if masks >= len(tables[0]):
            results.skipped.append(Skipped(f"{masks} masks", f"there are only {len(tables[0])} for {n} players"))
            continue
        per_table = [measure(values, masks, seed) for seed, values in enumerate(tables)]
        single += [
            {"table": index, "masks": masks, "engine": engine, "r2": r2, "seconds": seconds}
            for index, one in enumerate(per_table)
            for engine, (r2, seconds) in one.items()
        ]
        for engine in ENGINES:
            scores = [one[engine][0] for one in per_table if engine in one]
            if not scores:
                results.skipped.append(Skipped(f"{engine}, {masks} masks", "needs pip install 'whatstuck[large]'"))
                continue
            print(
                f"{masks:5d} masks  {engine:10s} R² median {np.median(scores):.3f}, worst {min(scores):.3f}", flush=True
            )
        results.rows += _compared(per_table, f"n={n}, {masks} masks, {len(tables)} tables")
    results.details[f"single, n={n}"] = single
    for bar in BARS:
        for engine in ENGINES:
            reached = {
                masks: sum(one["r2"] >= bar for one in single if (one["masks"], one["engine"]) == (masks, engine))
                for masks in sizes
            }
            results.details[f"tables with R² >= {bar}, {engine}, n={n}"] = reached
            print(f"tables (of {len(tables)}) with R² of {bar} or more, {engine}: {reached}")


def _compared(per_table: list[dict[str, tuple[float, float]]], where: str) -> list[Ratio]:
    rows = []
    ours = np.array([one["atoms"] for one in per_table])
    for peer in ("order 1", "proxyspex"):
        if peer not in per_table[0]:
            continue
        theirs = np.array([one[peer] for one in per_table])
        mine, other = float(np.median(ours[:, 0])), float(np.median(theirs[:, 0]))
        worst = f"worst {ours[:, 0].min():.3f} and {theirs[:, 0].min():.3f}"
        rows.append(Ratio(f"R² on unseen masks against {peer}, {where}", mine, other, mine / other, "", 1.0, worst))
        if peer == "proxyspex":
            seconds = [float(np.median(each[:, 1])) for each in (ours, theirs)]
            rows.append(Ratio.of_times(f"time of a fit against {peer}, {where}", ours=seconds[0], peer=seconds[1]))
    return rows


def sixteen_players(results: Results) -> None:
    """Extract one synthetic table of 2^16 values, and say how certain and how long."""
    rng = np.random.default_rng(16)
    size = 1 << 16
    planted = torch.zeros(2, size, dtype=torch.float64)
    order = orders(16)
    for kind in (0, 1):
        few = torch.from_numpy(rng.choice(np.flatnonzero((order >= 1 + kind) & (order <= 4)), 15, replace=False))
        planted[kind, few] = torch.from_numpy(rng.normal(size=15))
    values = reconstruct(planted[0], planted[1])
    values += values.std() * 0.01 * torch.from_numpy(rng.normal(size=size))
    before = time.perf_counter()
    found = extract_interactions(values[None], max_iterations=1000)
    seconds = time.perf_counter() - before
    results.details["n=16"] = {"seconds": seconds, "gap": float(found.gap[0]), "iterations": int(found.iterations[0])}
    print(f"n=16: gap {float(found.gap[0]):.1e} after {seconds:.0f} s, {int(found.iterations[0])} iterations")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", action="append", type=Path, default=[], help="run folder with value tables; repeatable"
    )
    parser.add_argument("--masks", type=int, nargs="+", default=MASKS)
    parser.add_argument("--tables", type=int, help="take only so many tables")
    parser.add_argument("--quick", action="store_true", help="3 tables, 128 and 256 masks, no table of 16 players")
    parser.add_argument("--their-grid", action="store_true", help="let ProxySPEX search its own, larger grid")
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.their_grid:
        _proxyspex.GRID = THEIR_GRID
    results = Results("many_players")
    results.details["grid"] = _proxyspex.GRID
    sizes = (128, 256) if options.quick else tuple(options.masks)
    for run in options.run:
        try:
            tables = real_tables(run)[: 3 if options.quick else options.tables]
        except WhatStuckError as error:
            results.skipped.append(Skipped(f"R² on unseen masks, {run.name}", str(error)))
            continue
        many_masks(tables, sizes, results)
    if not options.run:
        results.skipped.append(Skipped("R² on unseen masks", "needs --run, a run folder with value tables"))
    if not options.quick:
        sixteen_players(results)
    print(results.table())
    if options.json:
        results.write(options.json)


if __name__ == "__main__":
    main()
