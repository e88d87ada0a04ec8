"""Whether what is called certain is true, how much is called certain, and what it costs.

Games of 8 players are planted: 4 to 32 AND and OR effects of orders up to 2, 4 or 8, and noise. Two ways to name
the salient ones are compared, above a threshold of 0.03 of the table's largest effect: those whose range lies beyond it
(certain), and those whose value does (the point estimate, which is what everybody reports). A name is right if the
effect was planted above the threshold, with this sign.

Not every planted set is the one to be found: with many effects, another set often explains the same noise-free table at
less strength. So the numbers are also given for the games whose planted set is within 0.2 % of the sparsest one
(mode `paper`, noise bound 0). A strong tilt of the weights is measured too: it makes ties look certain.

The cost is the time of one extraction with ranges over one without. As everywhere here, larger is better: the ratio is
without over with, and three times the time is a ratio of 0.333.

    python benchmarks/certainty.py [--quick] [--run RUN]... [--json FILE]

`--quick` takes few games, one noise level, and 8 and 10 players only; about a minute. Intervals are 95 % bootstrap
intervals over games.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ratios import Ratio, Results, Skipped, argument_parser, number, say
from value_tables import Tables, from_runs
from value_tables import planted as planted_tables
from whatstuck.interactions.extraction import DEFAULT_TILT, extract_interactions
from whatstuck.interactions.transforms import orders, reconstruct

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

PLAYERS = 8
ATOMS = (4, 8, 16, 32)
ORDERS = (2, 4, 8)
STRENGTHS = (0.3, 1.5)
NOISES = (0.0, 0.01, 0.05)  # of the standard deviation of a table
TILTS = {"no": (0.0, 0.0), "default": DEFAULT_TILT, "strong": (0.2, 0.05)}
THRESHOLD = 0.03  # of the largest effect
SPARSEST_WITHIN = 1.002
GOALS = {"right": 0.99, "found": 0.5}  # at 1 % noise and the default tilt
COST_GOAL = 1 / 3
COUNTS = {8: 48, 10: 12, 12: 2}  # tables timed
QUICK_COUNTS = {8: 12, 10: 4}
REPEATS = 3
_EXACT_LIMIT = 4000  # iterations for the sparsest explanation


@dataclass(frozen=True, slots=True)
class Games:
    """Planted games of one density; the first dimension of each field is the game.

    Attributes:
        atoms: Number of effects.
        highest: Largest order.
        effects: (B, 2, 2^n) what was planted.
        clean: (B, 2^n) values without noise.
        noise: (B, 2^n) standard normal.
        sparsest: (B,) whether no other explanation of the clean values is sparser.
    """

    atoms: int
    highest: int
    effects: Floats
    clean: Floats
    noise: Floats
    sparsest: Bools


def planted(atoms: int, highest: int, count: int) -> Games:
    """Games of one density, and whether they are their own sparsest explanation."""
    rng = np.random.default_rng((PLAYERS, atoms, highest))
    sizes = orders(PLAYERS).numpy()
    effects = np.zeros((count, 2, 1 << PLAYERS))
    for game in effects:
        while np.count_nonzero(game) < atoms:
            order = int(rng.integers(1, highest + 1))
            place = int(rng.integers(2)) if order > 1 else 0, int(rng.choice(np.flatnonzero(sizes == order)))
            if game[place] == 0:
                game[place] = rng.choice([-1, 1]) * rng.uniform(*STRENGTHS)
    clean = reconstruct(*torch.from_numpy(effects).unbind(1)).numpy()
    best = extract_interactions(clean, mode="paper", noise_bound=0.0, max_iterations=_EXACT_LIMIT)
    sparsest = np.abs(effects).sum((1, 2)) <= SPARSEST_WITHIN * best.objective.numpy()
    return Games(atoms, highest, effects, clean, rng.standard_normal(clean.shape), sparsest)


@dataclass(frozen=True, slots=True)
class Score:
    """Counts per game, (B,) each: names given, names that are right, and effects that could be named."""

    named: Ints
    right: Ints
    there: Ints

    def take(self, games: Bools) -> "Score":
        """Of some of the games."""
        return Score(self.named[games], self.right[games], self.there[games])

    @classmethod
    def join(cls, scores: list["Score"]) -> "Score":
        """Of games of several densities."""
        return cls(*(np.concatenate([getattr(one, name) for one in scores]) for name in ("named", "right", "there")))

    @property
    def precision(self) -> float:
        """Right ones among those named; NaN where none is named."""
        return share(self.right, self.named)

    @property
    def recall(self) -> float:
        """Right ones among those that are there."""
        return share(self.right, self.there)

    def text(self) -> str:
        """Both with intervals."""
        parts = [f"{share(self.right, of):.3f} {interval(self.right, of)}" for of in (self.named, self.there)]
        return f"right {parts[0]}, found {parts[1]}"


def share(some: Ints, of: Ints) -> float:
    """Pooled over games; NaN of nothing."""
    return float(some.sum() / of.sum()) if of.sum() else math.nan


def interval(some: Ints, of: Ints) -> str:
    """95 % bootstrap interval over games of the pooled share."""
    if not len(some) or not of.sum():
        return "[–]"
    drawn = np.random.default_rng(0).integers(len(some), size=(2000, len(some)))
    with np.errstate(invalid="ignore"):
        shares = some[drawn].sum(1) / of[drawn].sum(1)
    low, high = np.nanquantile(shares, [0.025, 0.975])
    return f"[{low:.3f}, {high:.3f}]"


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one density, noise and tilt: of the certain ones, of the point estimate, and of what is certainly absent."""

    certain: Score
    point: Score
    absent: Score

    def take(self, games: Bools) -> "Scores":
        """Of some of the games."""
        return Scores(self.certain.take(games), self.point.take(games), self.absent.take(games))

    @classmethod
    def join(cls, scores: list["Scores"]) -> "Scores":
        """Of games of several densities."""
        return cls(*(Score.join([getattr(one, name) for one in scores]) for name in ("certain", "point", "absent")))


def measure(games: Games, noise: float, tilt: tuple[float, float]) -> Scores:
    """Name what is salient in noisy tables, and count."""
    sigma = noise * games.clean.std(1)
    values = games.clean + sigma[:, None] * games.noise
    found = extract_interactions(values, order_tilt=tilt, certainty=True, noise_floor=sigma)
    low, value, high = (
        torch.stack([getattr(found, f"{kind}_{end}") for kind in ("and", "or")], dim=1).numpy()
        for end in ("low", "", "high")
    )
    threshold = THRESHOLD * np.abs(values - values[:, :1]).max(1)[:, None, None]
    truth = np.sign(games.effects) * (np.abs(games.effects) > threshold)

    def score(named: npt.NDArray[Any]) -> Score:
        """From signs of what was named."""
        right = (named != 0) & (named == truth)
        return Score(*(np.count_nonzero(part, axis=(1, 2)) for part in (named, right, truth)))

    certain = score((low > threshold) * 1 - (high < -threshold))
    point = score(np.sign(value) * (np.abs(value) > threshold))
    missing = (low >= -threshold) & (high <= threshold)
    absent = Score(*(np.count_nonzero(part, axis=(1, 2)) for part in (missing, missing & (truth == 0), truth == 0)))
    return Scores(certain, point, absent)


def compared(title: str, scores: Scores, *, goals: bool) -> list[Ratio]:
    """Rows for one set of games."""
    certain, point, absent = scores.certain, scores.point, scores.absent
    wrong, peer_wrong = 1 - certain.precision, 1 - point.precision
    gain = peer_wrong / wrong if wrong else (math.inf if peer_wrong else 1.0)
    return [
        Ratio(
            f"{title}: wrong among those named, against the point estimate",
            ours=wrong,
            peer=peer_wrong,
            ratio=gain,
            note=f"certain: {certain.text()}; point estimate: {point.text()}",
        ),
        Ratio(
            f"{title}: right among the certain",
            math.nan,
            math.nan,
            certain.precision,
            goal=GOALS["right"] if goals else None,
            note=f"{certain.named.sum()} named in {len(certain.named)} games",
        ),
        Ratio(
            f"{title}: planted ones that are certain",
            math.nan,
            math.nan,
            certain.recall,
            goal=GOALS["found"] if goals else None,
            note=f"certainly not salient: {absent.text()}",
        ),
    ]


def truth(count: int, noises: tuple[float, ...]) -> Results:
    """Whether certain ones are right."""
    results = Results("certainty")
    everything = []
    for atoms in ATOMS:
        for highest in ORDERS:
            say(f"{count} planted games, {atoms} effects of order up to {highest}")
            everything.append(planted(atoms, highest, count))
    sparsest = np.concatenate([games.sparsest for games in everything])
    densities = ", ".join(
        f"{games.atoms} of order ≤ {games.highest}: {games.sparsest.mean():.0%}" for games in everything
    )
    results.rows.append(
        Ratio("planted games that are the sparsest explanation", math.nan, math.nan, sparsest.mean(), note=densities)
    )
    for noise in noises:
        for name, tilt in TILTS.items():
            say(f"noise {noise:g}, {name} tilt")
            cells = [measure(games, noise, tilt) for games in everything]
            scores = Scores.join(cells)
            title = f"n={PLAYERS}, noise {noise:.0%}, {name} tilt"
            goals = noise == 0.01 and tilt == DEFAULT_TILT
            results.rows += compared(f"{title}, sparsest", scores.take(sparsest), goals=goals)
            results.rows += compared(f"{title}, all", scores, goals=goals)
            results.details[title] = [_details(games, cell) for games, cell in zip(everything, cells, strict=True)]
    return results


def _details(games: Games, scores: Scores) -> dict[str, Any]:
    """Of one density, for all its games and for those that are the sparsest."""
    entry: dict[str, Any] = {"atoms": games.atoms, "highest order": games.highest, "sparsest": games.sparsest.mean()}
    for which, part in (("all", scores), ("sparsest", scores.take(games.sparsest))):
        for name in ("certain", "point", "absent"):
            score: Score = getattr(part, name)
            entry[f"{name}, {which}"] = {"precision": score.precision, "recall": score.recall}
    return entry


def median_seconds(work: Callable[[], object]) -> float:
    """Median time of a few runs, after one to warm up."""
    seconds = []
    for _ in range(REPEATS + 1):
        before = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - before)
    return float(np.median(seconds[1:]))


def cost(tables: Tables, count: int) -> Ratio:
    """Time of an extraction without ranges over one with them."""
    values, _ = tables.flat(count)
    say(f"cost of ranges, {tables.name}, n={tables.n}, {len(values)} tables")
    plain = median_seconds(lambda: extract_interactions(values))
    ranged = median_seconds(lambda: extract_interactions(values, certainty=True))
    return Ratio.of_times(
        f"{tables.name}, n={tables.n}: time without ranges over time with",
        ours=ranged / len(values),
        peer=plain / len(values),
        goal=round(COST_GOAL, 3),
        note=f"{number(ranged / plain)} times the time; a table, in a batch of {len(values)}, median of {REPEATS}",
    )


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table and write the JSON."""
    parser = argument_parser(__doc__)
    parser.add_argument("--run", action="append", default=[], help="a run folder with value tables; may be repeated")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = truth(4, NOISES[1:2]) if options.quick else truth(24, NOISES)
    counts = QUICK_COUNTS if options.quick else COUNTS
    sources = [planted_tables(n, rows=-(-count // 3)) for n, count in counts.items()]
    real, missing = from_runs(options.run)
    results.skipped.extend(missing)
    for tables in [*sources, *real]:
        if tables.n in counts:
            results.rows.append(cost(tables, counts[tables.n]))
        else:
            results.skipped.append(Skipped(f"{tables.name}, n={tables.n}", "this number of players is not timed"))
    results.finish(options.json)


if __name__ == "__main__":
    main()
