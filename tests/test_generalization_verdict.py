"""The verdict: every word of it rests on an interval, and what was not asked or cannot be told is said."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_generalization import FakeGeneralization, cell, share_columns
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.preparing import manifest_of
from whatstuck.generalization.survival import THRESHOLDS, above_chance, beyond_range, quotient
from whatstuck.generalization.tasks.micro_points import micro_points
from whatstuck.generalization.verdict import judge
from whatstuck.rows.verdicts.intervals import Share, wilson


def arm(*rows: dict[str, Any]) -> dict[str, Any]:
    """The verdict on the only arm."""
    (found,) = judge(rows)["arms"].values()
    assert isinstance(found, dict)
    return found


def asked(
    training: int = 300, instruction: tuple[int, ...] = (0, 0), fake: int | None = 280, items: int = 300
) -> list[dict[str, Any]]:
    rows = [cell("ID", "training", training, items=items)]
    rows += [cell(f"All-{i}", "instruction", right, items=items) for i, right in enumerate(instruction)]
    return rows + ([cell("Fake", "fake", fake, items=items)] if fake is not None else [])


@pytest.mark.parametrize(
    ("rows", "verdict", "fake"),
    [
        (asked(), "frozen", "yes"),
        (asked(instruction=(0, 6), fake=240), "frozen", "yes"),
        (asked(fake=0), "loses both", "no"),
        (asked(fake=None), "training wording only", "not asked"),
        (asked(fake=100), "training wording only", "partly"),
        (asked(instruction=(295, 280), fake=0), "follows instructions", "no"),
        (asked(training=180, instruction=(170, 172), fake=0), "cannot tell", "no"),  # 0.95 of it, ± 0.17
        (asked(instruction=(295, 3), fake=0), "partly", "no"),
        (asked(instruction=(150, 150), fake=10), "partly", "no"),
        (asked(instruction=(295, 295), fake=280), "partly", "yes"),  # follows these, ignores that of Fake
        (asked(instruction=(295, 295), fake=150), "partly", "partly"),  # ignores every second
        (asked(instruction=(295, 295), fake=190), "cannot tell", "cannot tell"),  # 58 to 69 %
        (asked(instruction=(295, 295), fake=None), "follows instructions", "not asked"),
        (asked(training=3), "cannot do the task", "cannot tell"),
        (asked(training=30), "cannot tell", "cannot tell"),  # 10 %: able or not
        (asked(training=6, instruction=(0, 0), fake=5, items=6), "cannot tell", "cannot tell"),
        (asked(instruction=(), fake=0), "not asked", "no"),
    ],
)
def test_the_word_follows_from_intervals(rows: list[dict[str, Any]], verdict: str, fake: str) -> None:
    found = arm(*rows)
    assert found["verdict"] == verdict
    assert found["fake"] == fake


@pytest.mark.parametrize(
    ("right", "transfer"),
    [((290, 285), "yes"), ((0, 20), "no"), ((150,), "partly"), ((290, 0), "partly"), ((), "not asked")],
)
def test_harder_cases_are_judged_apart(right: tuple[int, ...], transfer: str) -> None:
    found = arm(*asked(), *(cell(f"Hard-{i}", "harder", count) for i, count in enumerate(right)))
    assert found["transfer"] == transfer
    assert found["verdict"] == "frozen"


@pytest.mark.parametrize(
    ("old", "fake", "verdict", "obeys"),
    [
        ((290, 280), None, "frozen", "yes"),
        (
            (290, 280),
            0,
            "frozen",
            "yes",
        ),  # no item of Fake can be solved by the old meaning: replies tell it all the same
        ((2, 3), None, "loses both", "no"),
        ((2, 3), 240, "frozen", "no"),
        ((290, 3), None, "training wording only", "partly"),
        ((190, 190), None, "training wording only", "cannot tell"),
        ((190, 190), 0, "training wording only", "cannot tell"),
        ((100, 100), None, "training wording only", "partly"),
    ],
)
def test_replies_that_obey_the_old_instruction_tell_what_fake_tells(
    old: tuple[int, int], fake: int | None, verdict: str, obeys: str
) -> None:
    rows = asked(fake=fake)
    for place, count in enumerate(old, start=1):
        rows[place] |= share_columns(count, 300, "old")
    found = arm(*rows)
    assert (found["verdict"], found["old"]) == (verdict, obeys)
    assert found["numbers"]["All-0"]["old"][0] == pytest.approx(old[0] / 300)
    said = " ".join(found["sentences"])
    assert "Replies that obey the old instruction and not the new one: All-0 " in said
    assert said.count("So it ") == 1
    assert "tells whether an instruction is ignored" not in said


def test_instructions_that_are_ignored_are_named_where_others_are_not() -> None:
    rows = asked(instruction=(0, 120, 5), fake=75)
    for place, count in enumerate((298, 80, 5), start=1):
        rows[place] |= share_columns(count, 300, "old")
    found = arm(*rows)
    assert found["verdict"] == "partly"
    assert "Under All-0 it does what the old instruction said." in found["sentences"]
    rows[1] |= share_columns(100, 300, "old")
    assert "does what the old" not in " ".join(arm(*rows)["sentences"])
    assert not any("Under All" in sentence for sentence in arm(*asked())["sentences"])  # the verdict says it of all


def test_answers_that_go_on_are_no_lack_of_ability() -> None:
    rows = [row | {"step": step} for step in (0, 800) for row in asked(instruction=(0, 0))]
    never = "may never have been there"
    assert never in " ".join(arm(*rows)["sentences"])
    rows[1]["longer"] = 150
    said = " ".join(arm(*rows)["sentences"])
    assert never not in said
    assert "but up to 50 % of the replies to a variant began with an answer and went on." in said


def test_harder_meanings_are_no_harder_cases() -> None:
    """A frozen arm fails them as it fails any other meaning: they do not tell whether it does harder cases."""
    rows = [*asked(), cell("Regular", "harder", 0), cell("Four", "harder", 290)]
    (found,) = judge(rows, beyond={"Regular"})["arms"].values()
    assert (found["transfer"], found["beyond"]) == ("yes", "no")
    assert found["numbers"]["Regular"]["kind"] == "beyond"
    assert "It transfers to harder cases. Right replies: Four 97 % (94 to 98)." in found["sentences"]
    said = "It does not follow meanings beyond the range of the training's. Right replies: Regular 0 % (0 to 1.3)."
    assert said in found["sentences"]
    assert arm(*rows)["transfer"] == "partly"
    (alone,) = judge(rows[:-1], beyond={"Regular"})["arms"].values()
    assert (alone["transfer"], alone["beyond"]) == ("not asked", "no")
    assert any("Not asked: other wordings and harder cases" in sentence for sentence in alone["sentences"])


def test_which_meanings_are_beyond_the_range() -> None:
    def variant(name: str, kind: str, *values: str) -> dict[str, Any]:
        return {"name": name, "kind": kind, "shown": {"pairs": list(zip("JQ", values, strict=True))}}

    variants = [variant("ID", "training", "10", "10"), variant("All-5", "instruction", "5", "5")]
    variants += [variant("All-12", "harder", "12", "12"), variant("Four", "harder", "10", "10")]
    assert beyond_range(variants) == {"All-12"}
    assert beyond_range(variants[1:]) == beyond_range([]) == beyond_range([{"name": "x", "kind": "harder"}]) == set()
    real = [manifest_of(variant) for variant in micro_points().variants]
    assert beyond_range(real) == {"All-12", "Regular"}


@pytest.mark.parametrize("few", ["ID", "All-0", "Fake"])
def test_nothing_is_concluded_from_very_few_contents(few: str) -> None:
    """Whatever an interval says: these are the intervals of 300."""
    for contents, verdict in ((19, {"ID": "cannot tell", "All-0": "cannot tell"}), (20, {})):
        rows = [row | ({"contents": contents} if row["variant"] == few else {}) for row in asked()]
        expected = "training wording only" if few == "Fake" and contents < 20 else "frozen"
        assert arm(*rows)["verdict"] == verdict.get(few, expected)
        said = (
            f"Fewer than 20 different contents stand behind {few} (the fewest: 19): nothing is concluded from so few."
        )
        assert (said in judge(rows)["caveats"]) == (contents < 20)


@pytest.mark.parametrize("outcome", ["failed", "timed_out"])
def test_a_broken_check_is_no_verdict_on_the_model(outcome: str) -> None:
    for failed, verdict in ((0, "frozen"), (3, "frozen"), (90, "cannot tell"), (300, "cannot tell")):
        rows = [row | ({outcome: failed} if row["kind"] == "instruction" else {}) for row in asked()]
        assert arm(*rows)["verdict"] == verdict
    for failed, verdict in ((0, "follows instructions"), (90, "cannot tell")):
        rows = asked(instruction=(295, 295 - failed), fake=0)
        assert arm(*rows[:2], rows[2] | {outcome: failed}, rows[3])["verdict"] == verdict
    assert arm(cell("ID", "training", 0, **{outcome: 300}))["verdict"] == "cannot tell"
    assert arm(cell("ID", "training", 0))["verdict"] == "cannot do the task"


@given(right=st.integers(0, 100), failed=st.integers(0, 100), items=st.integers(200, 300))
def test_success_lies_in_its_interval_whatever_failed_checks_hid(right: int, failed: int, items: int) -> None:
    found = above_chance({**cell("ID", "training", right, items=items, failed=failed), "chance": None})
    assert found.low == wilson(right, items).low
    assert found.high >= wilson(right + failed, items).high - 1e-12
    assert found.value == right / items


def test_wordings_are_judged_apart_from_instructions() -> None:
    found = arm(*asked(), cell("Reworded", "wording", 295))
    assert (found["verdict"], found["wording"]) == ("frozen", "yes")
    alone = arm(cell("ID", "training", 300), cell("Reworded", "wording", 20))
    assert (alone["verdict"], alone["wording"], alone["transfer"]) == ("not asked", "no", "not asked")


def test_an_uncertain_variant_does_not_hide_a_certain_one_and_is_not_hidden() -> None:
    few = cell("Few", "instruction", 5, items=6)
    assert arm(*asked(instruction=(295,), fake=0), few)["verdict"] == "cannot tell"
    assert arm(*asked(instruction=(295, 0), fake=0), few)["verdict"] == "partly"


def test_what_is_right_by_chance_is_taken_out() -> None:
    by_chance = share_columns(150, 300, "chance")
    rows = [
        cell("ID", "training", 290, **by_chance),
        cell("Swapped", "instruction", 130, valid=300, **by_chance),
        cell("Fake", "fake", 285, **by_chance),
    ]
    assert arm(*rows)["verdict"] == "frozen"  # fewer are right than by chance
    assert arm(*[row | share_columns(0, 300, "chance") for row in rows])["verdict"] == "partly"
    everywhere = [row | share_columns(285, 300, "chance") for row in rows]
    assert arm(*everywhere)["verdict"] in ("cannot tell", "cannot do the task")
    assert "dealt to other items, 50 % (44 to 56) would be" in arm(*rows)["sentences"][0]


def test_above_chance_is_exact_and_its_interval_the_widest() -> None:
    row = {"success": 0.75, "low": 0.7, "high": 0.8, "chance": 0.5, "chance_low": 0.4, "chance_high": 0.6}
    found = above_chance(row)
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx((0.7 - 0.6) / 0.4)
    assert found.high == pytest.approx((0.8 - 0.4) / 0.6)
    unknown = above_chance(row | {"chance": math.nan, "chance_low": math.nan, "chance_high": None})
    assert (unknown.value, unknown.low, unknown.high) == (0.75, 0.7, 0.8)
    assert math.isnan(above_chance(row | {"success": None, "low": None, "high": None}).value)


@given(
    one=st.tuples(st.integers(0, 60), st.integers(60, 80)),
    other=st.tuples(st.integers(20, 60), st.integers(60, 80)),
)
def test_a_quotient_lies_in_its_interval(one: tuple[int, int], other: tuple[int, int]) -> None:
    top, bottom = wilson(*one), wilson(*other)
    found = quotient(top, bottom)
    assert found.low <= found.value <= found.high
    for over in (top.low, top.high):
        for under in (bottom.low, bottom.high):
            assert found.low - 1e-12 <= over / under <= found.high + 1e-12


def test_a_quotient_below_zero_keeps_its_ends_in_order() -> None:
    found = quotient(Share(-0.4, -0.6, -0.2), Share(0.8, 0.5, 1.0))
    assert (found.low, found.value, found.high) == pytest.approx((-1.2, -0.5, -0.2))


def test_the_last_step_decides_not_the_best() -> None:
    early = [row | {"step": 20} for row in asked(instruction=(295, 295), fake=0)]
    found = arm(*early, *asked())
    assert found["step"] == 800
    assert found["verdict"] == "frozen"
    assert set(found["numbers"]) == {"ID", "All-0", "All-1", "Fake"}
    assert arm(*asked(), *early)["verdict"] == "frozen"  # whatever the order


def test_greedy_replies_decide_and_others_are_said() -> None:
    drawn = [row | {"decoding": "temperature 0.5"} for row in asked(instruction=(295, 295), fake=0)]
    assert arm(*drawn, *asked())["verdict"] == "frozen"
    only = judge(drawn)
    assert only["arms"]["sft"]["verdict"] == "follows instructions"
    assert any("temperature 0.5" in caveat for caveat in only["caveats"])


def validity(*shares: int, steps: tuple[int, ...] = (0, 20, 800)) -> list[str]:
    rows = [cell("ID", "training", 300), cell("Fake", "fake", 280)]
    rows += [cell("All-5", "instruction", 0, valid=valid, step=step) for step, valid in zip(steps, shares, strict=True)]
    sentences: list[str] = arm(*rows)["sentences"]
    return sentences


def test_validity_that_rose_and_fell_is_said_with_its_steps() -> None:
    (said,) = (sentence for sentence in validity(3, 270, 0) if sentence.startswith("Validity"))
    assert said == (
        "Validity rose and then fell: All-5 from 1 % at step 0 to 90 % (86 to 93) at step 20, then to 0 % "
        "(0 to 1.3) at step 800."
    )
    (fell,) = (sentence for sentence in validity(240, 200, 0) if sentence.startswith("Validity"))
    assert (
        fell == "Validity fell during the training: All-5 from 80 % (75 to 84) at step 0 to 0 % (0 to 1.3) at step 800."
    )


@pytest.mark.parametrize("shares", [(0, 150, 290), (150, 155, 150), (0, 8, 5)])
def test_what_lies_within_intervals_is_no_rise_and_fall(shares: tuple[int, ...]) -> None:
    assert not [sentence for sentence in validity(*shares) if sentence.startswith("Validity")]


def test_what_the_untouched_model_could_do_is_said() -> None:
    assert any(
        "Before the training (step 0) valid replies were: All-5 50 % (44 to 56)." in s for s in validity(150, 9, 9)
    )
    assert any("may never have been there" in sentence for sentence in validity(0, 2, 0))
    assert not any("may never have been there" in sentence for sentence in validity(0, 200, 0))
    assert "Step 0 was not asked, so what the untouched model could do is not known." in validity(
        3, 2, 1, steps=(10, 20, 800)
    )


def test_what_was_not_asked_is_said() -> None:
    said = arm(cell("ID", "training", 300), cell("All-5", "instruction", 0))["sentences"]
    assert "Not asked: other wordings, harder cases and Fake, which tells whether an instruction is ignored." in said
    without = arm(cell("All-5", "instruction", 100))
    assert without["verdict"] == "cannot tell"
    assert "The training wording was not asked at step 800" in without["sentences"][0]
    earlier = arm(*asked(), cell("Five", "harder", 3, step=20))
    assert "Asked at earlier steps only: Five." in earlier["sentences"]
    base = arm(*[row | {"step": 0} for row in asked()])
    assert "before any training (step 0)" in base["sentences"][0]


def test_failures_are_counted_in_words() -> None:
    rows = asked()
    rows[0] |= {"no_answer": 4, "failed": 2, "timed_out": 1}
    rows[1] |= {"unsolvable": 1700}
    said = arm(*rows)["sentences"]
    assert (  # Fake asks the same once more
        "Of 900 replies at step 800, 4 had no answer, 2 made the check fail and 1 ran out of the check's time: "
        "counted as wrong, but the verdict allows for those to be right that could not be checked." in said
    )
    assert "1,700 contents were passed over for All-0, since no item could be made of them." in said
    rows[2] |= {"unsolvable": 1650}  # of the same contents, so that the sum would count them twice
    said = arm(*rows)["sentences"]
    assert (
        "1,700 contents were passed over for All-0, the most of any variant, since no item could be made of them."
        in said
    )
    rows[0] |= {"failed": 0, "timed_out": 0}
    assert "Of 900 replies at step 800, 4 had no answer: counted as wrong." in arm(*rows)["sentences"]
    one = arm(cell("ID", "training", 0, items=1, no_answer=1, unsolvable=1))["sentences"]
    assert "Of 1 reply at step 800, 1 had no answer: counted as wrong." in one
    assert "1 content was passed over for ID, since no item could be made of them." in one


def test_replies_that_were_cut_are_said_where_they_are_many() -> None:
    rows = asked()
    for row, cut in zip(rows, (14, 15, 150, None), strict=True):
        row["cut"] = cut
    (said,) = (sentence for sentence in arm(*rows)["sentences"] if "cut at the longest length" in sentence)
    assert "step 800 were cut at the longest length: 5 % of All-0 and 50 % of All-1. An answer" in said
    assert not any("cut at" in sentence for sentence in arm(*asked())["sentences"])
    wordings = [cell(f"w{i}", "wording", 290, cut=30 + i) for i in range(8)]
    assert any("up to 12 % of 8 variants" in sentence for sentence in arm(*asked(), *wordings)["sentences"])


def test_reasons_not_to_read_too_much_into_it() -> None:
    found = judge([cell("ID", "training", 300), cell("All-5", "instruction", 290, contents=22)])
    assert any("one training" in caveat for caveat in found["caveats"])
    assert any("Fewer than 100 different contents stand behind All-5 (the fewest: 22)" in c for c in found["caveats"])
    assert any("of 2 cells" in caveat for caveat in found["caveats"])
    assert judge([])["caveats"] == ["Nothing was asked."]


def test_several_arms_are_named() -> None:
    found = judge([*asked(), *(row | {"arm": "random"} for row in asked(instruction=(295, 295), fake=0))])
    assert [entry["verdict"] for entry in found["arms"].values()] == ["frozen", "follows instructions"]
    assert all(sentence.startswith(("sft: ", "random: ")) for sentence in found["sentences"])
    assert judge(asked())["sentences"] == arm(*asked())["sentences"]


def test_many_variants_are_said_by_their_ends() -> None:
    rows = [cell("training", "training", 300), *(cell(f"w{i}", "wording", 300 - 10 * i) for i in range(12))]
    (said,) = (sentence for sentence in arm(*rows)["sentences"] if "wordings of the same" in sentence)
    assert "between 63 % (58 to 69) (w11) and 100 % (99 to 100) (w0) of 12 variants" in said


def test_it_goes_through_json_unchanged_even_where_nothing_is_known() -> None:
    nothing = {"success": math.nan, "low": math.nan, "high": math.nan, "validity": math.nan, "contents": 0, "items": 0}
    nothing |= {"validity_low": math.nan, "validity_high": math.nan, "chance": math.nan, "no_answer": None}
    found = judge([*asked(), cell("Empty", "instruction", 0) | nothing, cell("Hole", "training", 0, arm="b") | nothing])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["arms"]["b"]["verdict"] == "cannot tell"
    assert found["arms"]["sft"]["numbers"]["Empty"]["success"] == [None, None, None]
    assert not any("nan" in sentence for sentence in (*found["sentences"], *found["caveats"]))


def test_rows_of_two_tasks_are_refused() -> None:
    with pytest.raises(WhatStuckError, match="several tasks"):
        judge([cell("ID", "training", 3), cell("ID", "training", 3, task="sokoban")])


def test_thresholds_are_told_with_the_verdict(tmp_path: Any) -> None:
    folder = FakeGeneralization().write(tmp_path / "run")
    verdict = json.loads((folder / "run.json").read_text())["generalize"]["verdict"]
    assert verdict["thresholds"] == {
        "able": 0.1,
        "kept": 0.8,
        "lost": 0.2,
        "wide": 0.4,
        "ignores": 0.6,
        "least_contents": 20,
        "few_contents": 100,
    }
    assert verdict["thresholds"]["kept"] == THRESHOLDS.kept
    assert verdict["arms"]["frozen"]["verdict"] == "frozen"
    assert verdict["arms"]["random"]["verdict"] == "follows instructions"
