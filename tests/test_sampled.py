"""Planted interactions are found from few masks, and what is claimed of the fit holds on masks never seen."""

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import helpers
from whatstuck.errors import WhatStuckError
from whatstuck.interactions import _atoms, _sampling, whole_prompt
from whatstuck.interactions._atoms import Atoms
from whatstuck.interactions._lasso import LassoPath
from whatstuck.interactions._sparse_fit import cost, fit_atoms
from whatstuck.interactions.extraction import Interactions
from whatstuck.interactions.sampled import SampledInteractions, fit_interactions, fit_quality

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Term = tuple[str, tuple[int, ...], float]


def planted(terms: list[Term], constant: float = 0.0) -> Callable[[Bools], Floats]:
    """A game that is a sum of ANDs and ORs."""

    def game(masks: Bools) -> Floats:
        values = np.full(len(masks), constant)
        for kind, players, value in terms:
            chosen = masks[:, list(players)]
            values += value * (chosen.all(1) if kind == "and" else chosen.any(1))
        return values

    return game


def as_dict(found: SampledInteractions) -> dict[tuple[str, tuple[int, ...]], float]:
    return {(k, p): v for k, p, v in zip(found.kinds, found.players, found.values.tolist(), strict=True)}


# No player is in two terms: else another set of interactions of less strength may make the same game.
DISJOINT: list[Term] = [
    ("and", (4,), 1.5),
    ("and", (17,), -0.8),
    ("and", (0, 39), 1.2),
    ("and", (5, 21), -1.0),
    ("and", (8, 9, 30), 1.4),
    ("or", (11, 12), 1.1),
    ("or", (2, 25, 33), -1.3),
]


# --- the fit


def test_planted_interactions_of_40_players_are_found_from_512_masks() -> None:
    game = planted(DISJOINT, constant=0.7)
    found = fit_interactions(game, players=40, masks=512, max_order=3, seed=3)
    strong = {key: value for key, value in as_dict(found).items() if abs(value) > 0.05}
    assert strong.keys() == {(kind, players) for kind, players, _ in DISJOINT}
    for kind, players, value in DISJOINT:
        assert strong[kind, players] == pytest.approx(value, abs=0.05)
    assert found.constant == pytest.approx(0.7, abs=0.1)
    assert found.r2 > 0.999
    fresh = np.random.default_rng(9).random((2000, 40)) < 0.5
    assert np.abs(found.predict(fresh) - game(fresh)).max() < 0.2
    assert (found.fitted_masks, found.held_out_masks) == (410, 102)
    assert found.settings["gap"] < 1e-4


def test_orders_that_are_not_listed_are_grown_from_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_atoms.Atoms.__init__, "__kwdefaults__", {"max_columns": 2000})
    terms: list[Term] = [("and", (1, 2, 3), 2.0), ("and", (10, 20, 29, 5), 2.0), ("or", (6, 7, 8), -1.5)]
    found = fit_interactions(planted(terms), players=30, masks=600, max_order=4)
    assert found.settings["candidates"] <= 2000
    assert set(as_dict(found)) >= {(kind, tuple(sorted(players))) for kind, players, _ in terms}
    assert found.r2 > 0.99


def test_the_same_seed_gives_the_same_result_and_another_seed_other_masks() -> None:
    game = planted(DISJOINT)
    first, again, other = (fit_interactions(game, players=40, masks=128, max_order=2, seed=s) for s in (1, 1, 2))
    assert as_dict(first) == as_dict(again)
    assert (first.r2, first.r2_low, first.r2_high) == (again.r2, again.r2_low, again.r2_high)
    assert first.r2 != other.r2


def test_a_constant_game_has_no_interactions_and_no_r2() -> None:
    found = fit_interactions(planted([], constant=-3.0), players=12, masks=64)
    assert found.kinds == ()
    assert found.constant == -3.0
    assert np.isnan([found.r2, found.r2_low, found.r2_high]).all()
    assert found.predict(np.ones(12, dtype=bool)).tolist() == [-3.0]


def test_nothing_held_out_is_nan() -> None:
    found = fit_interactions(planted(DISJOINT), players=40, masks=64, max_order=1, held_out=0)
    assert (found.fitted_masks, found.held_out_masks) == (64, 0)
    assert np.isnan(found.r2)


def test_noise_alone_is_not_explained() -> None:
    rng = np.random.default_rng(0)
    found = fit_interactions(lambda masks: rng.normal(size=len(masks)), players=15, masks=256)
    assert found.r2 < 0.1
    assert found.r2_low <= found.r2 <= found.r2_high


def test_the_held_out_fit_is_shown() -> None:
    found = fit_interactions(planted(DISJOINT), players=40, masks=128, max_order=2)
    assert f"R² {found.r2:.3f} ({found.r2_low:.3f} to {found.r2_high:.3f}) on 26 unseen masks" in str(found)
    assert "engine atoms, fitted to 102 masks" in repr(found)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_predictions_are_what_the_interactions_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 7)), int(rng.integers(0, 6))
    players = tuple(tuple(sorted(rng.permutation(n)[: rng.integers(1, n + 1)].tolist())) for _ in range(k))
    kinds = tuple(str(kind) for kind in rng.choice(["and", "or"], size=k))
    values = rng.normal(size=k)
    found = SampledInteractions(kinds, players, values, 0.25, n, (), "atoms", 1, 1, 1.0, 1.0, 1.0)
    every = [tuple(bool(s >> i & 1) for i in range(n)) for s in range(1 << n)]
    expected = [
        0.25 + sum(v for q, p, v in zip(kinds, players, values, strict=True) if (all, any)[q == "or"](m[i] for i in p))
        for m in every
    ]
    np.testing.assert_allclose(found.predict(np.array(every)), expected, atol=1e-12)
    assert found.masks.sum() == sum(map(len, players))
    assert all(found.masks[row, list(members)].all() for row, members in enumerate(players))


def test_the_chosen_fit_is_the_optimum_of_its_objective() -> None:
    """Against an independent solver of the whole problem, every column in memory."""
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is the independent solver")
    rng = np.random.default_rng(5)
    n, m = 6, 40
    masks = _sampling.sample_masks(n, m, rng)
    values = rng.normal(size=m) + 2 * masks[:, 0]
    fit = fit_atoms(masks, values, max_order=3, rng=rng)
    atoms = Atoms(masks, 3)
    columns = atoms.columns(np.arange(len(atoms)))
    price = cost(atoms.order, atoms.is_or)
    penalty = fit.penalty * m

    def loss(x: Floats) -> tuple[float, Floats]:
        coefficients, constant = x[:-1:2] - x[1:-1:2], x[-1]
        rest = values - constant - columns @ coefficients
        slope = -columns.T @ rest
        gradient = np.append(np.stack([slope + penalty * price, -slope + penalty * price], 1).ravel(), -rest.sum())
        return rest @ rest / 2 + penalty * price @ (x[:-1:2] + x[1:-1:2]), gradient

    bounds = [(0, None)] * (2 * len(atoms)) + [(None, None)]
    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-14, "gtol": 1e-9}
    best = optimize.minimize(loss, np.zeros(2 * len(atoms) + 1), jac=True, bounds=bounds, options=options)
    order = np.array([len(members) for members in fit.players])
    predicted = fit.constant + sum(
        v * (masks[:, p].any(1) if o else masks[:, p].all(1))
        for p, o, v in zip(fit.players, fit.is_or, fit.values, strict=True)
    )
    ours = ((values - predicted) ** 2).sum() / 2 + penalty * cost(order, fit.is_or) @ np.abs(fit.values)
    assert len(fit.values)
    assert ours <= best.fun * (1 + 1e-5)
    assert ours >= best.fun * (1 - 1e-3)


# --- its parts


def test_columns_are_the_definition_of_and_and_or() -> None:
    masks = np.random.default_rng(0).random((37, 6)) < 0.5
    atoms = Atoms(masks, 3)
    assert atoms.listed == 3
    expected = {(kind, p) for o in (1, 2, 3) for p in itertools.combinations(range(6), o) for kind in (False, o > 1)}
    columns = atoms.columns(np.arange(len(atoms)))
    found = set()
    for index in range(len(atoms)):
        players = tuple(atoms.members[index, : atoms.order[index]].tolist())
        found.add((bool(atoms.is_or[index]), players))
        chosen = masks[:, list(players)]
        wanted = chosen.any(1) if atoms.is_or[index] else chosen.all(1)
        assert columns[:, index].tolist() == wanted.astype(float).tolist()
    assert found == expected
    assert len(atoms) == len(expected)
    residuals = np.random.default_rng(1).normal(size=(37, 2))
    np.testing.assert_allclose(atoms.correlations(residuals), columns.T @ residuals, atol=1e-5)


def test_grown_atoms_hold_their_parent_and_come_once() -> None:
    masks = np.random.default_rng(0).random((50, 8)) < 0.5
    atoms = Atoms(masks, 4, max_columns=8 + 2 * 28)
    assert atoms.listed == 2
    pair = int(np.flatnonzero((atoms.order == 2) & atoms.is_or)[0])
    assert atoms.extend(np.array([pair])) == 0  # the bound is reached
    atoms = Atoms(masks, 4, max_columns=80)
    assert atoms.extend(np.array([pair])) == 6
    assert atoms.extend(np.array([pair])) == 0
    parent = set(atoms.members[pair, :2].tolist())
    for index in range(len(atoms) - 6, len(atoms)):
        members = atoms.members[index, :3].tolist()
        assert parent < set(members)
        assert atoms.is_or[index]
        assert atoms.columns(np.array([index]))[:, 0].tolist() == masks[:, members].any(1).astype(float).tolist()


def test_the_lasso_path_satisfies_its_optimality_conditions() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(30, 50))
    matrix[:, 49] = matrix[:, 0] + matrix[:, 1] - matrix[:, 2]  # dependent columns
    matrix[:, 48] = matrix[:, 3]
    target = matrix[:, :5] @ [3.0, -2.0, 1.0, 2.0, 0.5] + 4.0 + rng.normal(size=30)
    path = LassoPath(target, lambda indices: matrix[:, indices])
    largest = np.abs(matrix.T @ path.residual()).max()
    for penalty in largest * np.geomspace(1, 1e-3, 12):
        path.solve(float(penalty), np.arange(50))
        index, values, constant = path.active
        rest = target - constant - matrix[:, index] @ values
        product = matrix.T @ rest
        assert np.abs(product).max() <= penalty * (1 + 1e-6)
        np.testing.assert_allclose(product[index], penalty * np.sign(values), rtol=1e-5)
        assert rest.mean() == pytest.approx(0, abs=1e-9)
        assert path.gap(float(penalty), float(np.abs(product).max())) < 1e-6


@given(st.integers(1, 9), st.integers(0, 1000), st.data())
@settings(max_examples=40)
def test_masks_are_different_and_hold_the_empty_and_the_full_one(n: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 1 << n))
    masks = _sampling.sample_masks(n, count, np.random.default_rng(seed))
    assert masks.shape == (count, n)
    assert len({tuple(mask) for mask in masks.tolist()}) == count
    assert not masks[0].any()
    assert masks[1].all()


def test_masks_cover_all_sizes() -> None:
    sizes = _sampling.sample_masks(60, 1000, np.random.default_rng(0)).sum(1)
    assert ((sizes < 15) | (sizes > 45)).mean() == pytest.approx(0.25, abs=0.05)  # half of the sized half
    assert ((sizes > 22) & (sizes < 38)).mean() == pytest.approx(0.5 + 0.125, abs=0.06)


def test_r2_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the extra 'large'")
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    predicted = values + rng.normal(size=200) * 0.5
    r2, low, high = fit_quality(values, predicted, rng)
    assert r2 == pytest.approx(metrics.r2_score(values, predicted), abs=1e-12)
    resampled = [metrics.r2_score(values[i], predicted[i]) for i in rng.integers(0, 200, size=(500, 200))]
    np.testing.assert_allclose([low, high], np.quantile(resampled, [0.025, 0.975]), atol=0.02)


# --- ProxySPEX


def test_proxyspex_gives_the_same_kind_of_result() -> None:
    pytest.importorskip("shapiq", reason="needs the extra 'large'")
    pytest.importorskip("lightgbm", reason="needs the extra 'large'")
    asked: list[Bools] = []
    inner = planted([("and", (1, 2), 2.0), ("or", (5, 6), -1.5), ("and", (9,), 1.0)])

    def game(masks: Bools) -> Floats:
        asked.append(masks)
        return inner(masks)

    found = fit_interactions(game, players=12, masks=320, engine="proxyspex", max_order=3, seed=1)
    assert found.r2 > 0.97
    assert {("and", (1, 2)), ("or", (5, 6)), ("and", (9,))} <= as_dict(found).keys()
    fitted, unseen = {tuple(m) for m in asked[0].tolist()}, {tuple(m) for m in asked[1].tolist()}
    assert not fitted & unseen
    assert (found.fitted_masks, found.held_out_masks) == (256, 64)
    again = fit_interactions(game, players=12, masks=320, engine="proxyspex", max_order=3, seed=1)
    assert as_dict(again) == as_dict(found)


@given(st.dictionaries(st.frozensets(st.integers(0, 5), min_size=1, max_size=4), st.integers(-9, 9), max_size=8))
@settings(max_examples=30)
def test_the_split_of_least_strength_is_the_same_function(terms: dict[frozenset[int], int]) -> None:
    pytest.importorskip("scipy", reason="the linear program needs scipy, which comes with the extra 'large'")
    from whatstuck.interactions._proxyspex import least_strength

    moebius = {tuple(sorted(players)): float(value) for players, value in terms.items()}
    players, is_or, values = least_strength(moebius)
    every = np.array([[s >> i & 1 for i in range(6)] for s in range(64)], dtype=bool)
    split = [("or" if o else "and", p, v) for p, o, v in zip(players, is_or, values.tolist(), strict=True)]
    ands = [("and", p, v) for p, v in moebius.items()]
    np.testing.assert_allclose(planted(split)(every), planted(ands)(every), atol=1e-6)
    order, as_given = np.array([len(p) for p in players]), np.array([len(p) for p in moebius])
    dearest = cost(as_given, np.zeros(len(moebius), dtype=bool)) @ np.abs(list(moebius.values())) if moebius else 0.0
    assert (cost(order, is_or) @ np.abs(values) if len(values) else 0.0) <= dearest + 1e-6


def test_an_or_is_found_again_in_its_ands() -> None:
    pytest.importorskip("scipy", reason="the linear program needs scipy, which comes with the extra 'large'")
    from whatstuck.interactions._proxyspex import least_strength

    players, is_or, values = least_strength({(0,): 2.0, (1,): 2.0, (2,): 2.0, (0, 1): -2.0, (0, 2): -2.0,
                                             (1, 2): -2.0, (0, 1, 2): 2.0})  # fmt: skip
    assert (players, is_or.tolist()) == (((0, 1, 2),), [True])
    assert values.tolist() == pytest.approx([2.0])


# --- whole prompts


@pytest.fixture(scope="module")
def tiny_model(tiny_base: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    return LlamaForCausalLM.from_pretrained(tiny_base), PreTrainedTokenizerFast.from_pretrained(tiny_base)


PROMPT = helpers.scenes(1, seed=11)[0].prompt


def test_a_short_prompt_is_explained_exactly(tiny_model: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]) -> None:
    words = [(match.start(), match.end()) for match in re.finditer(r"\w+", PROMPT)][:5]
    found = whole_prompt.explain_prompt(*tiny_model, PROMPT, "glad", players=words, budget=32)
    assert (found.engine, found.scored) == ("exact", 32)
    assert found.game.player_names == [PROMPT[slice(*word)] for word in words]
    assert isinstance(found.interactions, Interactions)
    np.testing.assert_array_equal(found.values, found.game.table())
    assert "5 players, engine exact: from the full table of 32 masks, certified gap" in repr(found)


def test_a_long_prompt_is_explained_from_sampled_masks(
    tiny_model: tuple[LlamaForCausalLM, PreTrainedTokenizerFast],
) -> None:
    found = whole_prompt.explain_prompt(*tiny_model, PROMPT, "glad", budget=200)
    assert found.engine == "atoms"
    assert found.game.n_players >= 11  # every content word
    assert isinstance(found.interactions, SampledInteractions)
    assert found.interactions.fitted_masks + found.interactions.held_out_masks == found.scored == 200
    assert found.interactions.player_names == tuple(found.game.player_names)
    assert f"R² {found.interactions.r2:.3f}" in repr(found)
    fresh = np.random.default_rng(1).random((300, found.game.n_players)) < 0.5
    truth, guess = found.game(fresh), found.interactions.predict(fresh)
    assert 1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum() > 0.5


def test_prompts_that_cannot_be_explained_as_asked(
    tiny_model: tuple[LlamaForCausalLM, PreTrainedTokenizerFast],
) -> None:
    with pytest.raises(WhatStuckError, match="does not fit a budget of 64: use engine auto"):
        whole_prompt.explain_prompt(*tiny_model, PROMPT, "glad", budget=64, engine="exact")
    with pytest.raises(WhatStuckError, match="engine 'best' is unknown"):
        whole_prompt.explain_prompt(*tiny_model, PROMPT, "glad", engine="best")
    with pytest.raises(WhatStuckError, match="no content word"):
        whole_prompt.explain_prompt(*tiny_model, "?!", "glad")


# --- bad input


def fine(masks: Bools) -> Floats:
    return masks.sum(1).astype(np.float64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "magic"}, "engine 'magic' is unknown: the engines are 'atoms', 'proxyspex'"),
        ({"masks": 30}, "24 masks to fit are too few"),
        ({"masks": 5000}, "12 players have only 4096 masks, not 5000"),
        ({"held_out": 1.0}, "held_out is a share"),
        ({"max_order": 0}, "max_order must be at least 1"),
        ({"players": None}, "does not say how many players"),
        ({"players": 0}, "1 to 1000 players"),
        ({"players": 1001}, "1 to 1000 players"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(WhatStuckError, match=message) as caught:
        fit_interactions(fine, **{"players": 12, "masks": 64, **arguments})
    assert "\n" not in str(caught.value)


def test_a_wrong_number_of_players_is_refused() -> None:
    class Game:
        n_players = 12

        def __call__(self, masks: Bools) -> Floats:
            return fine(masks)

    assert fit_interactions(Game(), masks=64).n_players == 12
    with pytest.raises(WhatStuckError, match="the game has 12 players, not 13"):
        fit_interactions(Game(), masks=64, players=13)


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (lambda masks: np.ones((len(masks), 1)), r"returned shape \(64, 1\) for 64"),
        (lambda _: 1.0, r"returned shape \(\)"),
        (lambda masks: np.where(masks[:, 0], np.nan, 1.0), "NaN or infinite values for"),
        (lambda masks: np.where(masks.all(1), np.inf, 1.0), "NaN or infinite values for 1 of 64"),
    ],
)
def test_a_game_that_answers_wrongly_is_refused(game: Callable[[Bools], Floats], message: str) -> None:
    with pytest.raises(WhatStuckError, match=message):
        fit_interactions(game, players=12, masks=64)


def test_coalitions_of_another_width_are_refused() -> None:
    found = fit_interactions(fine, players=12, masks=64, max_order=1)
    with pytest.raises(WhatStuckError, match=r"must have shape \(m, 12\), got \(3, 11\)"):
        found.predict(np.ones((3, 11)))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(WhatStuckError, match=r"whatstuck\[large\]"):
        fit_interactions(fine, players=12, masks=64, engine="proxyspex")
