"""Sentences, numbers and axes of the page: what is not known, or not certain, is never said."""

import itertools
from typing import Any

import pytest

from whatstuck.report.metrics import Stat
from whatstuck.report.svg import nice_ticks, step_axis
from whatstuck.report.words import against_null, larger, mass_changes, pushes, rules_agree


def test_sentences_about_interactions() -> None:
    one, two = [("x", 1)], [("x", 1), ("y", 3)]

    def plain(*effect: Any) -> str:
        return pushes(*effect).striptags()

    assert plain(two, "and", 0.0, 1.2, "emerged") == (
        "x1 and y3 together push towards the answer (+1.2 log-odds); before training nothing."
    )
    assert plain(two, "or", -0.5, -0.7, "preserved") == (
        "Any one of x1 or y3 pushes away from the answer (−0.7 log-odds); before training −0.5."
    )
    assert plain(one, "and", 0.5, 0.01, "removed") == (
        "Before training, x1 alone pushed towards the answer (+0.5 log-odds); now +0.01, below the threshold."
    )
    assert plain(one, "and", 0.5, 1e-5, "removed").endswith("now next to nothing.")
    assert plain(one, "and", 0.5, -0.5, "sign_changed") == (
        "x1 alone pushes away from the answer (−0.5 log-odds); "
        "before training pushed towards the answer (+0.5 log-odds)."
    )


def test_mass_changes_are_seen_only_outside_the_interval() -> None:
    steps = (0, 1, 2, 4)
    up, flat, down = Stat(1.0, 0.5, 1.5), Stat(0.1, -0.1, 0.3), Stat(-1.0, -1.5, -0.5)
    assert "none seen" in mass_changes({1: flat, 2: flat, 4: flat}, steps, "emerged")
    said = mass_changes({1: up, 2: up, 4: down}, steps, "removed").replace("\xa0", " ")
    assert said == (
        "Removed mass rises over steps 0 → 1 → 2 and falls over steps 2 → 4, each time outside its interval."
    )
    assert mass_changes({1: up, 2: flat}, steps, "removed").endswith("elsewhere none seen.")
    assert "no interval" in mass_changes({1: Stat(1.0)}, steps, "removed")
    assert "no interval" in mass_changes({}, (0,), "removed")


def test_larger_needs_intervals_apart() -> None:
    low, high, wide = Stat(1, 0.5, 1.5), Stat(3, 2, 4), Stat(2, 0, 5)
    assert larger(low, high) == "emerged"
    assert larger(high, low) == "removed"
    assert larger(low, wide) == "unclear"
    assert larger(Stat(1), high) == "unclear"
    assert larger(None, high) == ""


@pytest.mark.parametrize(
    ("relative", "fixed", "free", "said"),
    [
        ("removed", "emerged", "emerged", "The two rules say opposite things"),
        ("removed", "unclear", "", "Under the relative rule only, more is removed than emerges"),
        ("unclear", "emerged", "emerged", "Under the fixed rule only, more emerges than is removed"),
        ("emerged", "emerged", "unclear", "Under both rules more emerges than is removed"),
        ("unclear", "unclear", "", "neither is seen to be larger"),
        ("", "emerged", "", "cannot be compared"),
    ],
)
def test_what_holds_under_one_rule_only_is_said_to(relative: str, fixed: str, free: str, said: str) -> None:
    assert said in rules_agree({"relative": relative, "fixed": fixed, "none": free})


def test_a_value_beside_its_null() -> None:
    assert against_null(Stat(0.5, 0.4, 0.6, "sign_flip", 0.2, 0.1, 0.3)) == "above"
    assert against_null(Stat(0.05, 0.0, 0.1, "sign_flip", 0.2, 0.1, 0.3)) == "below"
    assert against_null(Stat(0.2, 0.0, 0.4, "sign_flip", 0.2, 0.1, 0.3)) == "inside"
    assert against_null(Stat(0.2)) == ""


@pytest.mark.parametrize("steps", [(0, 1, 2, 4, 8, 16, 32, 64), tuple(range(0, 5001, 100)), (0,), (7,), (0, 10**6)])
def test_step_labels_are_true_and_do_not_collide(steps: tuple[int, ...]) -> None:
    width = 300.0
    axis = step_axis(steps, width=width)
    places = [axis.place(step) for step in steps]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    assert {label for _, label in axis.labels} >= {str(steps[0]), str(steps[-1])}
    assert all(label == str(value) and value in steps for value, label in axis.labels)
    spans = [(axis.place(v) * width - 3 * len(s), axis.place(v) * width + 3 * len(s)) for v, s in axis.labels]
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (-3.2, 1e-9), (1e-7, 3e-7), (5, 5), (0, 12345)])
def test_ticks_cover_the_range(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    slack = 1e-6 * (high - low)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 7
