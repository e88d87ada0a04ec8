"""Our Moebius transform against shapiq's exact one: same numbers, O(n 2^n) against a loop over all pairs of subsets.

python benchmarks/transforms.py --json FILE
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ratios import Ratio, Results, Skipped
from whatstuck.errors import MissingExtraError, require
from whatstuck.interactions.interop import to_shapiq
from whatstuck.interactions.transforms import mobius

PLAYERS = (8, 10, 12)


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median time of one call, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def compare(n: int, repeats: int, results: Results) -> None:
    """One row of the table: medians, and the largest difference of the two results."""
    shapiq = require("shapiq", "large")
    values = np.random.default_rng(n).normal(size=1 << n)
    weights = 1 << np.arange(n)
    game = to_shapiq(lambda masks: values[masks @ weights], players=n)
    table = torch.from_numpy(values)

    def theirs() -> Any:
        computer = shapiq.ExactComputer(game)  # a computer keeps what it has computed
        computer.game_values  # noqa: B018 - scoring the game is no part of the transform
        before = time.perf_counter()
        found = computer("Moebius")
        return time.perf_counter() - before, found

    ours = median_seconds(lambda: mobius(table), 50)
    runs = [theirs() for _ in range(repeats)]
    mine = mobius(table)
    difference = max(
        abs(value - float(mine[sum(1 << player for player in players)]))
        for players, value in runs[0][1].dict_values.items()
    )
    peer = statistics.median(seconds for seconds, _ in runs)
    results.rows.append(
        Ratio.of_times(f"Moebius transform, n={n}", ours=ours, peer=peer, note=f"largest difference {difference:.0e}")
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repetition of the slow side")
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results("transforms")
    for n in PLAYERS:
        try:
            compare(n, 1 if options.quick else 5, results)
        except MissingExtraError as error:
            results.skipped.append(Skipped(f"Moebius transform, n={n}", str(error)))
    print(results.table())
    if options.json:
        results.write(options.json)


if __name__ == "__main__":
    main()
