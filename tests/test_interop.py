"""Our games run in shapiq and its games in ours, to the last digits; exports say what they mean."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch

from whatstuck.errors import WhatStuckError
from whatstuck.interactions import interop
from whatstuck.interactions.extraction import extract_interactions
from whatstuck.interactions.sampled import fit_interactions
from whatstuck.interactions.transforms import mobius, reconstruct

shapiq = pytest.importorskip("shapiq", reason="these adapters need the extra 'large', which brings shapiq")

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class TableGame:
    """A game of ours with given values."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n_players = n
        self.player_names = [f"word{player}" for player in range(n)]
        self.values = np.random.default_rng(seed).normal(size=1 << n)

    def __call__(self, masks: Bools) -> Floats:
        assert masks.dtype == bool
        found: Floats = self.values[masks @ (1 << np.arange(self.n_players))]
        return found


def bits(n: int) -> Bools:
    return ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1).astype(bool)


@pytest.mark.parametrize("n", [1, 4, 7, 10])
def test_our_interactions_are_those_of_the_exact_computer(n: int) -> None:
    game = TableGame(n)
    exact = shapiq.ExactComputer(interop.to_shapiq(game))
    found = exact("Moebius").dict_values
    ours = mobius(torch.from_numpy(game.values))
    assert len(found) == 1 << n
    for players, value in found.items():
        assert abs(value - float(ours[sum(1 << player for player in players)])) < 1e-8


def test_our_game_runs_in_approximators() -> None:
    weights = np.arange(1.0, 9.0)

    def game(masks: Bools) -> Floats:
        return 5 + masks @ weights

    adapter = interop.to_shapiq(game, players=8)
    assert isinstance(adapter, shapiq.Game)
    assert adapter(np.zeros(8, dtype=int)).tolist() == [5.0]  # shapiq's normalization is off
    for approximator in (shapiq.KernelSHAP(n=8, random_state=0), shapiq.PermutationSamplingSV(n=8, random_state=0)):
        found = approximator.approximate(200, adapter)
        np.testing.assert_allclose([found[(player,)] for player in range(8)], weights, atol=1e-4)


def test_players_keep_their_names_even_where_a_word_stands_twice() -> None:
    game = TableGame(3)
    assert interop.to_shapiq(game)(("word1",)) == game.values[2]
    game.player_names = ["the", "cat", "the"]
    assert list(interop.to_shapiq(game).player_name_lookup) == ["the#0", "cat#1", "the#2"]


@pytest.mark.parametrize("stored", [False, True])
def test_a_shapiq_game_goes_into_our_extraction(*, stored: bool) -> None:
    table = np.random.default_rng(3).normal(size=32)

    class Theirs(shapiq.Game):  # type: ignore[misc]
        def value_function(self, coalitions: npt.NDArray[Any]) -> Floats:
            return np.array([table[sum(1 << i for i in np.flatnonzero(row))] for row in coalitions])

    game = Theirs(n_players=5, normalize=True, normalization_value=float(table[0]), player_names=list("abcde"))
    if stored:
        game.precompute()
    ours = interop.from_shapiq(game)
    assert ours.n_players == 5
    assert ours.player_names == tuple("abcde")
    np.testing.assert_allclose(ours.table(), table - table[0], atol=1e-12)
    found = extract_interactions(ours.table()[None], mode="paper", noise_bound=0.0)
    np.testing.assert_allclose(reconstruct(found.and_, found.or_)[0], table - table[0], atol=1e-3)


def test_a_shapiq_game_goes_into_the_sampled_fit() -> None:
    class Theirs(shapiq.Game):  # type: ignore[misc]
        def value_function(self, coalitions: npt.NDArray[Any]) -> Floats:
            return 2.0 * coalitions[:, 3] * coalitions[:, 7]

    found = fit_interactions(interop.from_shapiq(Theirs(n_players=20, normalize=False)), masks=128)
    assert (found.kinds[0], found.players[0]) == ("and", (3, 7))


def test_there_and_back_is_the_same_game() -> None:
    game = TableGame(6)
    np.testing.assert_array_equal(interop.from_shapiq(interop.to_shapiq(game)).table(), game.values)


def predicted(found: Any, masks: Bools) -> Floats:
    """What shapiq's Moebius coefficients say of masks."""
    values = np.zeros(len(masks))
    for players, value in found.dict_values.items():
        values += value * masks[:, list(players)].all(1)
    return values


def test_an_exact_extraction_becomes_moebius_values() -> None:
    tables = np.random.default_rng(1).normal(size=(2, 16))
    found = extract_interactions(tables, mode="paper", noise_bound=0.0)
    for row in (0, 1):
        exported = interop.to_interaction_values(found, row=row, baseline=float(tables[row, 0]))
        assert (exported.index, exported.n_players, exported.estimated) == ("Moebius", 4, False)
        fitted = reconstruct(found.and_, found.or_)[row].numpy() + tables[row, 0]
        np.testing.assert_allclose(predicted(exported, bits(4)), fitted, atol=1e-9)
    ands = interop.to_interaction_values(found, kind="and")
    assert {p: v for p, v in ands.dict_values.items() if p} == {
        p: v for k, p, v in interop.interaction_rows(found) if k == "and"
    }
    ors = interop.to_interaction_values(found, kind="or")
    assert {p: v for p, v in ors.dict_values.items() if p} == {
        p: v for k, p, v in interop.interaction_rows(found) if k == "or"
    }


def test_a_sampled_fit_becomes_moebius_values_that_predict_the_same() -> None:
    found = fit_interactions(TableGame(6), masks=64, held_out=0.25, max_order=3)
    exported = interop.to_interaction_values(found)
    assert (exported.estimated, exported.estimation_budget) == (True, 64)
    np.testing.assert_allclose(predicted(exported, bits(6)), found.predict(bits(6)), atol=1e-9)
    # shapiq's own converter takes it: Shapley values add up to v(all) - v(none)
    from shapiq.game_theory.moebius_converter import MoebiusConverter

    shapley = MoebiusConverter(exported)("SV", order=1)
    total = sum(value for players, value in shapley.dict_values.items() if len(players) == 1)
    ends = found.predict(np.array([[False] * 6, [True] * 6]))
    assert total == pytest.approx(ends[1] - ends[0], abs=1e-9)


def test_rows_are_sorted_and_complete() -> None:
    found = extract_interactions(np.random.default_rng(1).normal(size=(1, 32)), mode="paper", noise_bound=0.1)
    rows = interop.interaction_rows(found)
    assert len(rows) == int((found.and_ != 0).sum() + (found.or_ != 0).sum())
    assert all(abs(a[2]) >= abs(b[2]) for a, b in itertools.pairwise(rows))
    for kind, players, value in rows:
        table = found.and_ if kind == "and" else found.or_
        assert float(table[0, sum(1 << player for player in players)]) == value


def test_parquet_holds_an_extraction(tmp_path: Path) -> None:
    found = extract_interactions(np.random.default_rng(1).normal(size=(2, 16)), mode="paper", noise_bound=0.1)
    interop.to_parquet(found, tmp_path / "exact.parquet")
    table = pq.read_table(tmp_path / "exact.parquet")
    assert table.column_names == ["row", "step", "kind", "players", "order", "value"]
    for row in (0, 1):
        part = [(r["kind"], tuple(r["players"]), r["value"]) for r in table.to_pylist() if r["row"] == row]
        assert part == interop.interaction_rows(found, row=row)
    metadata = json.loads(table.schema.metadata[b"whatstuck"])
    assert metadata["gap"] == found.gap.tolist()


def test_checkpoints_that_were_extracted_together_are_told_apart(tmp_path: Path) -> None:
    found = extract_interactions(np.random.default_rng(1).normal(size=(2, 3, 16)), mode="joint")
    interop.to_parquet(found, tmp_path / "joint.parquet")
    rows = pq.read_table(tmp_path / "joint.parquet").to_pylist()
    for row, step in itertools.product(range(2), range(3)):
        part = [(r["kind"], tuple(r["players"]), r["value"]) for r in rows if (r["row"], r["step"]) == (row, step)]
        assert part == interop.interaction_rows(found, row=row, step=step)
        exported = interop.to_interaction_values(found, row=row, step=step)
        fitted = reconstruct(found.and_, found.or_)[row, step].numpy()
        np.testing.assert_allclose(predicted(exported, bits(4)), fitted, atol=1e-9)
    with pytest.raises(WhatStuckError, match="row 0, step None: the interactions have 2 rows and 3 steps"):
        interop.interaction_rows(found)


def test_parquet_holds_a_sampled_fit_of_many_players(tmp_path: Path) -> None:
    def game(masks: Bools) -> Floats:
        return 1.0 * masks[:, 3] * masks[:, 90] + 2.0

    found = fit_interactions(game, players=100, masks=64, max_order=2)
    found.to_parquet(tmp_path / "sampled.parquet")
    table = pq.read_table(tmp_path / "sampled.parquet")
    assert [tuple(players) for players in table["players"].to_pylist()] == list(found.players)
    assert table["value"].to_pylist() == found.values.tolist()
    metadata = json.loads(table.schema.metadata[b"whatstuck"])
    assert (metadata["r2"], metadata["held_out_masks"]) == (found.r2, found.held_out_masks)
    assert metadata["constant"] == found.constant


def test_no_interaction_is_an_empty_table(tmp_path: Path) -> None:
    found = fit_interactions(lambda masks: np.ones(len(masks)), players=12, masks=64)
    found.to_parquet(tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    exported = interop.to_interaction_values(found)
    assert exported.dict_values == {(): 1.0}


def test_bad_input_is_refused_in_one_line() -> None:
    with pytest.raises(WhatStuckError, match="does not say how many players"):
        interop.to_shapiq(lambda masks: masks.sum(1))
    with pytest.raises(WhatStuckError, match=r"this is a TableGame, not a shapiq\.Game"):
        interop.from_shapiq(TableGame(3))
    found = extract_interactions(np.zeros((1, 4)), mode="paper", noise_bound=0.0)
    with pytest.raises(WhatStuckError, match="kind 'xor' is unknown"):
        interop.to_interaction_values(found, kind="xor")
    with pytest.raises(WhatStuckError, match="no table at row 1, step None: the interactions have 1 rows"):
        interop.interaction_rows(found, row=1)
    large = shapiq.Game(n_players=17, normalize=False)
    with pytest.raises(WhatStuckError, match="possible up to 16 players, not 17: use fit_interactions"):
        interop.from_shapiq(large).table()
    part = interop.to_shapiq(TableGame(3))
    part.precompute(coalitions=bits(3)[:4])
    with pytest.raises(WhatStuckError, match="no stored value for some coalition"):
        interop.from_shapiq(part).table()


def test_shapiq_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, whatstuck.interactions.whole_prompt; print('shapiq' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapiq", None)
    with pytest.raises(WhatStuckError, match=r"whatstuck\[large\]"):
        interop.to_shapiq(TableGame(3))
