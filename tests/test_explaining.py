"""Ranges on disk: rounded outwards, small, and read back as bounds of the very same interactions."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from whatstuck.dynamics import explaining
from whatstuck.dynamics.certainty import Ranges
from whatstuck.dynamics.explaining import RANGE_SHARE, Setting, ValueTables, explain, settings_of
from whatstuck.dynamics.probing import effects_of, ranges_of, read_probe
from whatstuck.interactions.extraction import DEFAULT_TILT, extract_interactions
from whatstuck.runs import read_table, table_metadata

ROWS, PLAYERS = 5, 4
SIZE = 1 << PLAYERS
IDS = [f"row {index}" for index in range(ROWS)]
POSITIONS = {row_id: index for index, row_id in enumerate(IDS)}
ROBUST = Setting(0.1, "step", mode="robust", certainty=True)


def tables(digest: str = "a") -> ValueTables:
    values = torch.randn(ROWS, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return ValueTables(3, values, list(range(ROWS)), 1e-5, digest)


def made_up() -> tuple[np.ndarray, Ranges]:
    """Interactions of which half are 0; of those, some have a range and most have next to none."""
    generator = np.random.default_rng(0)
    shape = (ROWS, 2, SIZE)
    effects = generator.normal(size=shape) * (generator.random(shape) < 0.5)
    wide = np.where(generator.random(shape) < 0.4, 0.3, 1e-7)
    ranges = Ranges(effects - wide * generator.random(shape), effects + wide * generator.random(shape))
    orders = np.bitwise_count(np.arange(SIZE))
    for array in (effects, ranges.low, ranges.high):
        array[:, 0, orders == 0] = array[:, 1, orders < 2] = 0
    return effects, ranges


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the solver, and tells what it was asked for."""
    asked: list[dict[str, Any]] = []

    def extract(values: torch.Tensor, **options: Any) -> SimpleNamespace:
        asked.append(options | {"rows": len(values)})
        effects, ranges = made_up()
        found: dict[str, Any] = {"gap": torch.zeros(len(values)), "violation": torch.full((len(values),), np.nan)}
        for index, kind in enumerate(("and", "or")):
            found[f"{kind}_"] = torch.from_numpy(effects[: len(values), index])
            if options["certainty"]:
                found["strength_low"], found["strength_high"] = torch.zeros(len(values)), torch.ones(len(values))
                found[f"{kind}_low"] = torch.from_numpy(ranges.low[:, index])
                found[f"{kind}_high"] = torch.from_numpy(ranges.high[:, index])
        return SimpleNamespace(**found)

    monkeypatch.setattr(explaining, "extract_interactions", extract)
    return asked


@pytest.mark.usefixtures("calls")
def test_ranges_come_back_as_bounds(tmp_path: Path) -> None:
    assert explain(tmp_path, tables(), IDS, [ROBUST], 1.0, 0)
    table = read_table(tmp_path / "step-000003.parquet")
    effects, ranges = made_up()
    np.testing.assert_array_equal(effects_of(table, ROBUST.name, POSITIONS, ROWS, PLAYERS), effects)
    back = ranges_of(table, ROBUST.name, POSITIONS, ROWS, PLAYERS)
    assert back is not None
    grid = table_metadata(table)[ROBUST.name]["range_floor"]
    assert grid == pytest.approx(RANGE_SHARE * tables().scale / (2 * SIZE))
    for wider, true in ((-back.low, -ranges.low), (back.high, ranges.high)):
        slack = wider - true
        assert slack.min() > -1e-12
        assert slack.max() <= grid * (1 + 1e-9)
    assert (back.low <= effects).all()
    assert (back.high >= effects).all()
    # what rounding adds to the mass of a row is bounded too
    assert (back.most - ranges.most).sum((1, 2)).max() <= RANGE_SHARE * tables().scale


@pytest.mark.usefixtures("calls")
def test_what_is_nothing_by_every_explanation_is_not_stored(tmp_path: Path) -> None:
    explain(tmp_path, tables(), IDS, [ROBUST], 1.0, 0)
    table = read_table(tmp_path / "step-000003.parquet")
    effects, ranges = made_up()
    grid = table_metadata(table)[ROBUST.name]["range_floor"]
    stored = sum(name == ROBUST.name for name in table["setting"].to_pylist())
    assert stored == ((effects != 0) | (ranges.most > grid)).sum()
    assert (effects != 0).sum() < stored < effects.size
    # one that is not stored has the floor as its range; what cannot be at all has none
    back = ranges_of(table, ROBUST.name, POSITIONS, ROWS, PLAYERS)
    assert back is not None
    rest = (effects == 0) & (ranges.most <= grid)
    orders = np.bitwise_count(np.arange(SIZE))
    rest[:, 0, orders == 0] = rest[:, 1, orders < 2] = False
    assert rest.any()
    assert set(back.high[rest]) == {grid}
    assert not back.most[:, 1, orders < 2].any()
    assert not back.most[:, :, 0].any()


@pytest.mark.usefixtures("calls")
def test_without_certainty_no_range_is_known(tmp_path: Path) -> None:
    paper = Setting(0.05, "base")
    explain(tmp_path, tables(), IDS, [paper, ROBUST], 1.0, 0)
    table = read_table(tmp_path / "step-000003.parquet")
    assert ranges_of(table, paper.name, POSITIONS, ROWS, PLAYERS) is None
    assert read_probe(tables(), table, paper.name, IDS, PLAYERS).ranges is None
    assert read_probe(tables(), table, ROBUST.name, IDS, PLAYERS).ranges is not None
    bare = table.replace_schema_metadata(None)  # as of a run of before there were ranges
    assert ranges_of(bare, ROBUST.name, POSITIONS, ROWS, PLAYERS) is None


@pytest.mark.usefixtures("calls")
def test_a_range_that_is_not_known_is_unbounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract = explaining.extract_interactions

    def partly(values: torch.Tensor, **options: Any) -> Any:
        found = extract(values, **options)
        if options["certainty"]:
            found.and_low[0, 3], found.and_high[0, 3] = float("-inf"), float("nan")
        return found

    monkeypatch.setattr(explaining, "extract_interactions", partly)
    explain(tmp_path, tables(), IDS, [ROBUST], 1.0, 0)
    back = ranges_of(read_table(tmp_path / "step-000003.parquet"), ROBUST.name, POSITIONS, ROWS, PLAYERS)
    assert back is not None
    assert (back.low[0, 0, 3], back.high[0, 0, 3]) == (-np.inf, np.inf)
    assert np.isfinite(back.low).sum() == np.isfinite(back.high).sum() == back.low.size - 1


def test_only_the_real_tables_get_ranges(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    explain(tmp_path, tables(), IDS, [ROBUST, Setting(0.05, "base", certainty=True)], 2.0, 0)
    scale = tables().scale
    assert calls == [
        {
            "mode": "robust",
            "misfit": 0.1 * scale,
            "order_tilt": DEFAULT_TILT,
            "certainty": True,
            "noise_floor": 1e-5,
            "rows": ROWS,
        },
        {
            "mode": "robust",
            "misfit": 0.1 * scale,
            "order_tilt": DEFAULT_TILT,
            "certainty": False,
            "noise_floor": 0.0,
            "rows": 4,
        },
        {"mode": "paper", "noise_bound": 0.1, "certainty": True, "noise_floor": 1e-5, "rows": ROWS},
    ]


def test_a_part_is_made_again_only_for_other_inputs(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    plain = Setting(0.1, "step", mode="robust")
    assert explain(tmp_path, tables(), IDS, [plain], 1.0, 0)
    assert not explain(tmp_path, tables(), IDS, [plain], 1.0, 0)
    assert explain(tmp_path, tables(), IDS, [ROBUST], 1.0, 0)
    before = (tmp_path / "step-000003.parquet").read_bytes()
    assert not explain(tmp_path, tables(), IDS, [ROBUST], 1.0, 0)
    assert explain(tmp_path, tables("b"), IDS, [ROBUST], 1.0, 0)
    assert len(calls) == 6
    (tmp_path / "step-000003.parquet").unlink()
    explain(tmp_path, tables(), IDS, [ROBUST], 1.0, 0)
    assert (tmp_path / "step-000003.parquet").read_bytes() == before


def test_settings_of_a_run_and_of_an_old_run() -> None:
    old = {"noise_bound": [0.05, 0.1], "noise_scale": "step"}
    assert settings_of(old) == [Setting(0.05, "step"), Setting(0.1, "step")]
    new = {
        "mode": ["robust", "paper"],
        "misfit": [0.1],
        "order_tilt": [0.3, 0.1],
        "noise_bound": [0.05],
        "noise_scale": "base",
        "certainty": True,
    }
    assert settings_of(new) == [
        Setting(0.1, "base", mode="robust", tilt=(0.3, 0.1), certainty=True),
        Setting(0.05, "base", mode="paper", tilt=(0.3, 0.1), certainty=True),
    ]
    assert [setting.name for setting in settings_of(new)] == [
        "robust misfit=0.1*base tilt=0.3,0.1",
        "paper kappa=0.05*base",
    ]


def test_the_ranges_of_the_solver_hold_other_explanations(tmp_path: Path) -> None:
    given, misfit = tables(), 0.1 * tables().scale
    explain(tmp_path, given, IDS, [ROBUST], 1.0, 0)
    back = ranges_of(read_table(tmp_path / "step-000003.parquet"), ROBUST.name, POSITIONS, ROWS, PLAYERS)
    assert back is not None
    # a less exact solution is another explanation, within the slack of a thousandth
    other = extract_interactions(given.values, misfit=misfit, gap_tolerance=1e-3)
    probe = read_probe(given, read_table(tmp_path / "step-000003.parquet"), ROBUST.name, list(POSITIONS), PLAYERS)
    assert probe.ranges is not None
    assert probe.ranges.total is not None
    strength = (other.and_.abs() + other.or_.abs()).sum(1).numpy()
    assert (probe.ranges.total[:, 0] <= strength).all()
    assert (probe.ranges.total[:, 1] >= strength).all()
    assert (probe.ranges.total[:, 1] < 1.2 * strength).all()
    assert (probe.ranges.total[:, 0] > 0.8 * strength).all()
    effects = torch.stack([other.and_, other.or_], dim=1).numpy()
    assert (back.low <= effects + 1e-9).all()
    assert (back.high >= effects - 1e-9).all()
    assert np.median(back.high - back.low) < np.abs(effects).max()
