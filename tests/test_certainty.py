"""What is certain about ranges: three-valued sets and mass bounds, against every value that the ranges allow."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatstuck.dynamics.categories import categorize, masses
from whatstuck.dynamics.certainty import (
    CertainCategories,
    Kleene,
    Ranges,
    categorize_ranges,
    mass_bounds,
    row_bounds,
    salient,
)

SETS = ("all", "removed", "preserved", "emerged")
TAU = 1.0
# on and around the threshold and zero, where the answers change
ENDS = st.sampled_from([-3.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 3.0])
SPANS = st.tuples(ENDS, ENDS).map(lambda pair: (min(pair), max(pair)))
PATHS = st.lists(SPANS, min_size=1, max_size=4)


def ranges(*spans: tuple[float, float]) -> Ranges:
    """One row, kind AND only, one interaction per span."""
    low, high = (np.array([[ends, [0.0] * len(spans)]]) for ends in zip(*spans, strict=True))
    return Ranges(low, high)


def point(value: float) -> np.ndarray:
    return np.array([[[value], [0.0]]])


def saliences(span: tuple[float, float]) -> list[float]:
    """Values in the range, one for each answer that is possible."""
    low, high = span
    inside = [value for value in (low, high, 0.0) if low <= value <= high]
    return list({abs(value) > TAU: value for value in inside}.values())


@given(PATHS)
def test_sets_are_what_holds_for_all_and_for_some_values(path: list[tuple[float, float]]) -> None:
    three = categorize_ranges([ranges(span) for span in path], [TAU] * len(path))
    outcomes = [
        categorize([point(value) for value in values], [TAU] * len(path))
        for values in itertools.product(*(saliences(span) for span in path))
    ]
    for step in range(len(path)):
        for name in SETS:
            found = [bool(getattr(outcome[step], name)[0, 0, 0]) for outcome in outcomes]
            part: Kleene = getattr(three[step], name)
            assert part.certain[0, 0, 0] == all(found), (name, step)
            assert part.possible[0, 0, 0] == any(found), (name, step)


def test_what_was_certainly_preserved_cannot_emerge() -> None:
    """The trap of `now & ~preserved`: an unknown `now` on both sides would count as possibly emerged."""
    sure, unknown = ranges((2, 3)), ranges((0, 3))
    last = categorize_ranges([sure, sure, unknown], [TAU] * 3)[-1]
    assert last.preserved.possible[0, 0, 0]
    assert last.removed.possible[0, 0, 0]
    assert not last.emerged.possible[0, 0, 0]


def test_a_range_over_both_signs_is_never_certain() -> None:
    part = salient(ranges((-5, 5), (1.5, 2), (-1, 1), (-9, -1.5)), TAU)
    assert part.certain[0, 0].tolist() == [False, True, False, True]
    assert part.possible[0, 0].tolist() == [True, True, False, True]


def mass_of(before: float, after: float) -> dict[str, float]:
    parts = masses(np.array([before]), np.array([after]))
    sizes = {name: float(abs(getattr(parts, name)[0])) for name in ("removed", "preserved", "emerged")}
    return sizes | {"all": abs(after), "shrunk": abs(before) - abs(after)}


@given(SPANS, SPANS)
def test_mass_bounds_are_reached_and_never_left(before: tuple[float, float], after: tuple[float, float]) -> None:
    bounds = mass_bounds(ranges(before), ranges(after))
    corners = [*before, *after, 0.0]  # where the masses, piecewise linear, can have their least and most
    tries: list[list[float]] = [
        [value for value in [*corners, *np.linspace(low, high, 9).tolist()] if low <= value <= high]
        for low, high in (before, after)
    ]
    seen = [mass_of(*pair) for pair in itertools.product(*tries)]
    for name in ("all", "removed", "preserved", "emerged", "shrunk"):
        values = [entry[name] for entry in seen]
        assert bounds.least[name][0, 0, 0] == pytest.approx(min(values), abs=1e-12), name
        assert bounds.most[name][0, 0, 0] == pytest.approx(max(values), abs=1e-12), name


def test_exact_values_leave_nothing_open() -> None:
    generator = np.random.default_rng(0)
    effects = [generator.normal(size=(4, 2, 8)) * 2 for _ in range(3)]
    three = categorize_ranges([Ranges(effect, effect) for effect in effects], [TAU] * 3)
    for found, part in zip(categorize(effects, [TAU] * 3), three, strict=True):
        for name in SETS:
            assert (getattr(part, name).certain == getattr(found, name)).all()
            assert (getattr(part, name).possible == getattr(found, name)).all()
    bounds = mass_bounds(Ranges(effects[0], effects[0]), Ranges(effects[1], effects[1]))
    parts = masses(effects[0], effects[1])
    for name in ("removed", "preserved", "emerged"):
        np.testing.assert_allclose(bounds.least[name], np.abs(getattr(parts, name)), atol=1e-12)
        np.testing.assert_allclose(bounds.most[name], np.abs(getattr(parts, name)), atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0, 3))
def test_wider_ranges_are_never_more_certain(seed: int, growth: float) -> None:
    generator = np.random.default_rng(seed)
    steps = [generator.normal(size=(2, 2, 8)) * 2 for _ in range(3)]
    widths = [generator.exponential(size=(2, 2, 8)) for _ in range(3)]

    def of(factor: float) -> list[CertainCategories]:
        wide = [Ranges(value - factor * w, value + factor * w) for value, w in zip(steps, widths, strict=True)]
        return categorize_ranges(wide, [TAU] * 3)

    for narrow, wide in zip(of(0.5), of(0.5 + growth), strict=True):
        for name in SETS:
            assert (getattr(wide, name).certain <= getattr(narrow, name).certain).all()
            assert (getattr(wide, name).possible >= getattr(narrow, name).possible).all()


def test_where_nothing_is_known_everything_is_possible() -> None:
    unknown = ranges((-np.inf, np.inf))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, last = categorize_ranges([unknown, unknown], [TAU] * 2)
        bounds = mass_bounds(unknown, unknown)
    for name in SETS:
        assert not getattr(last, name).certain[0, 0, 0]
        assert getattr(last, name).possible[0, 0, 0]
        assert bounds.least[name][0, 0, 0] == 0
        assert bounds.most[name][0, 0, 0] == np.inf
    assert (bounds.least["shrunk"][0, 0, 0], bounds.most["shrunk"][0, 0, 0]) == (-np.inf, np.inf)


def test_certain_signs_need_the_whole_range() -> None:
    signs = ranges((1.5, 2), (-2, -1.5), (0.5, 2), (-5, 5)).certain_signs(TAU)
    assert signs[0, 0].tolist() == [1, -1, 0, 0]


@given(st.integers(0, 10_000))
def test_totals_tighten_and_never_exclude_what_may_be(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shape = (3, 2, 4)
    truths = [generator.normal(size=shape) * (generator.random(shape) < 0.6) for _ in range(2)]
    given_ranges = []
    for truth in truths:
        width = generator.exponential(0.5, size=(2, *shape))
        strength = np.abs(truth).sum((1, 2))
        total = np.stack([strength - generator.random(3), strength + generator.random(3)], axis=1)
        given_ranges.append(Ranges(truth - width[0], truth + width[1], total))
    least, most = row_bounds(*given_ranges)
    loose_least, loose_most = row_bounds(*(Ranges(entry.low, entry.high) for entry in given_ranges))
    true = masses(*truths)
    sums = {name: np.abs(getattr(true, name)).sum((1, 2)) for name in ("removed", "preserved", "emerged")}
    sums["all"] = np.abs(truths[1]).sum((1, 2))
    sums["shrunk"] = np.abs(truths[0]).sum((1, 2)) - sums["all"]
    for name, value in sums.items():
        assert (loose_least[name] <= least[name]).all()
        assert (least[name] <= value + 1e-9).all()
        assert (value <= most[name] + 1e-9).all()
        assert (most[name] <= loose_most[name]).all()
