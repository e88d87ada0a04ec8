"""The fast transforms equal the sums that define them, and undo each other."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from whatstuck.errors import WhatStuckError
from whatstuck.interactions import transforms
from whatstuck.interactions._symmetric import SymmetricSpectrum, spin_basis

# whole numbers and their sums are exact in float64, so equality below means equality
ENTRIES = st.integers(-1000, 1000)


@st.composite
def tables(draw: st.DrawFn, largest: int = 5) -> Tensor:
    n = draw(st.integers(1, largest))
    rows = draw(st.integers(1, 3))
    entries = draw(st.lists(ENTRIES, min_size=rows << n, max_size=rows << n))
    return torch.tensor(entries, dtype=torch.float64).reshape(rows, 1 << n)


def subsets(mask: int) -> list[int]:
    return [part for part in range(mask + 1) if part & mask == part]


def sign(small: int, large: int) -> int:
    return (-1) ** (large.bit_count() - small.bit_count())


def by_definition(table: Tensor, entry: Callable[[list[float], int], float]) -> Tensor:
    """Apply `entry(row, S)` to every row and coalition, in plain Python."""
    rows = table.tolist()
    return torch.tensor([[entry(row, s) for s in range(len(row))] for row in rows], dtype=torch.float64)


@given(tables())
def test_mobius_is_its_definition(table: Tensor) -> None:
    expected = by_definition(table, lambda v, s: sum(sign(t, s) * v[t] for t in subsets(s)))
    assert torch.equal(transforms.mobius(table), expected)


@given(tables())
def test_zeta_is_its_definition(table: Tensor) -> None:
    expected = by_definition(table, lambda c, t: sum(c[s] for s in subsets(t)))
    assert torch.equal(transforms.zeta(table), expected)


@given(tables())
def test_superset_zeta_is_its_definition(table: Tensor) -> None:
    expected = by_definition(table, lambda c, t: sum(c[s] for s in range(len(c)) if s & t == t))
    assert torch.equal(transforms.superset_zeta(table), expected)


@given(tables())
def test_or_interactions_are_their_definition(table: Tensor) -> None:
    everyone = table.shape[1] - 1

    def entry(v: list[float], s: int) -> float:
        return -sum(sign(t, s) * v[everyone - t] for t in subsets(s)) if s else v[0]

    assert torch.equal(transforms.or_interactions(table), by_definition(table, entry))


@given(tables())
def test_reconstruct_is_its_definition(and_: Tensor) -> None:
    or_ = and_.flip(-1) * 3 - 1
    or_[:, 0] = 0
    size = and_.shape[1]
    or_of = {tuple(ands): ors for ands, ors in zip(and_.tolist(), or_.tolist(), strict=True)}

    def entry(ands: list[float], t: int) -> float:
        ors = or_of[tuple(ands)]
        return sum(ands[s] for s in subsets(t)) + sum(ors[s] for s in range(size) if s & t)

    assert torch.equal(transforms.reconstruct(and_, or_), by_definition(and_, entry))


@given(tables(largest=8))
@pytest.mark.parametrize(
    ("forward", "back"),
    [("mobius", "zeta"), ("or_interactions", "or_values"), ("superset_mobius", "superset_zeta")],
)
def test_pairs_undo_each_other(forward: str, back: str, table: Tensor) -> None:
    there, again = getattr(transforms, forward), getattr(transforms, back)
    assert torch.equal(again(there(table)), table)
    assert torch.equal(there(again(table)), table)


@given(tables(largest=6))
def test_any_split_into_and_and_or_matches_everywhere(table: Tensor) -> None:
    and_part = table.flip(0) * 7 - 2
    rebuilt = transforms.reconstruct(transforms.mobius(and_part), transforms.or_interactions(table - and_part))
    assert torch.equal(rebuilt, table)


def test_bit_i_of_the_index_is_player_i() -> None:
    # v = 10 when player 0 is there, 100 when players 1 and 2 are both there
    game = [10 * (s & 1) + 100 * (s >> 1 == 3) for s in range(8)]
    assert transforms.mobius(torch.tensor(game)).tolist() == [0, 10, 0, 0, 0, 0, 100, 0]


def test_an_or_game_has_one_or_interaction() -> None:
    game = torch.tensor([float(s & 5 != 0) for s in range(8)])
    assert transforms.or_interactions(game).tolist() == [0, 0, 0, 0, 0, 1, 0, 0]


def test_any_shape_and_dtype_gives_float64_without_gradient() -> None:
    table = torch.ones(2, 3, 4, requires_grad=True)
    for name in ("mobius", "zeta", "or_interactions", "or_values", "superset_zeta", "superset_mobius"):
        result = getattr(transforms, name)(table)
        assert result.shape == (2, 3, 4)
        assert result.dtype == torch.float64
        assert not result.requires_grad
    assert torch.equal(transforms.mobius(table[0, 0]), transforms.mobius(table)[0, 0])


def test_the_input_is_left_alone() -> None:
    table = torch.arange(8, dtype=torch.float64)
    transforms.or_values(table)
    transforms.or_interactions(table)
    assert table.tolist() == list(range(8))


def test_a_table_of_no_players_is_its_constant() -> None:
    assert transforms.reconstruct(torch.tensor([2.0]), torch.tensor([0.0])).tolist() == [2.0]


def test_orders_count_bits() -> None:
    assert transforms.orders(10).tolist() == [s.bit_count() for s in range(1024)]
    assert transforms.orders(0).tolist() == [0]
    assert transforms.orders(3).dtype == torch.int64


@pytest.mark.parametrize("shape", [(3,), (2, 6), (0,), ()])
def test_other_lengths_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WhatStuckError, match="2\\^n entries"):
        transforms.mobius(torch.zeros(shape))


@pytest.mark.parametrize("n", range(8))
def test_the_spin_basis_is_orthonormal_and_complete(n: int) -> None:
    basis = torch.cat([spin.flatten(1) for spin in spin_basis(n)], dim=1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(1 << n, dtype=torch.float64))


@pytest.mark.parametrize("n", range(1, 8))
def test_the_inverse_of_any_operator_that_treats_players_alike(n: int) -> None:
    # entry (S, T) may depend on |S \ T|, |T \ S| and |S ∩ T| only: a random such matrix, made positive definite
    rng = np.random.default_rng(n)
    entry = rng.normal(size=(n + 1, n + 1, n + 1))
    matrix = np.zeros((1 << n, 1 << n))
    for s, t in itertools.product(range(1 << n), repeat=2):
        matrix[s, t] = entry[(s & ~t).bit_count(), (t & ~s).bit_count(), (s & t).bit_count()]
    definite = torch.tensor(matrix @ matrix.T / len(matrix) + np.eye(1 << n))
    spectrum = SymmetricSpectrum(lambda table: table @ definite, n, torch.device("cpu"))
    table, shift = torch.tensor(rng.normal(size=(3, 1 << n))), torch.tensor([0.0, 0.5, 100.0], dtype=torch.float64)
    solved = spectrum.solve(table, shift)
    torch.testing.assert_close(solved @ definite + shift[:, None] * solved, table, rtol=1e-9, atol=1e-9)
