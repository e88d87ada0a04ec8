"""One cause from evidence, what others would call it, and the table that comes of it."""

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cause_cases import base, history, row, verdict
from whatstuck.rows.causes.attribution import attribute, loss_only, paper_cause, printed_order
from whatstuck.rows.causes.case import Evidence, absent, not_measured, present
from whatstuck.rows.causes.conflicts import Conflict, find_conflicts
from whatstuck.rows.causes.names import PRECEDENCE, Cause
from whatstuck.rows.causes.naming import name_causes
from whatstuck.rows.histories import History
from whatstuck.rows.material import Problem
from whatstuck.rows.schemas import UNLEARNED
from whatstuck.rows.thresholds import Thresholds

LIMITS = Thresholds()


def _evidence(drawn: tuple[str, float], cause: Cause) -> Evidence:
    status, score = drawn
    if status == "present":
        return present(cause, score, {}, "It is.")
    return absent(cause, {}, "It is not.") if status == "absent" else not_measured(cause, {}, "Who knows.")


SIGNALS = st.tuples(
    *[st.tuples(st.sampled_from(("present", "absent", "not_measured")), st.floats(0, 1)) for _ in PRECEDENCE]
)


@given(SIGNALS, st.permutations(range(len(PRECEDENCE))))
def test_the_first_present_cause_is_primary_in_any_order(
    drawn: tuple[tuple[str, float], ...], order: list[int]
) -> None:
    evidence = [_evidence(signal, cause) for signal, cause in zip(drawn, PRECEDENCE, strict=True)]
    found = attribute([evidence[i] for i in order], LIMITS)
    there = [cause for (status, _), cause in zip(drawn, PRECEDENCE, strict=True) if status == "present"]
    if not there:
        assert found.cause == "unexplained"
        assert math.isnan(found.margin)
        assert not found.ambiguous
        return
    assert (found.cause, *found.secondary) == tuple(there)
    scores = dict(zip(PRECEDENCE, (score for _, score in drawn), strict=True))
    best = max((scores[cause] for cause in there[1:]), default=0)
    assert found.margin == pytest.approx(scores[there[0]] - best)
    assert found.ambiguous == (found.margin < 0.15)


def test_what_is_not_present_never_counts() -> None:
    nothing = [not_measured(cause, {}, "") for cause in PRECEDENCE]
    assert attribute(nothing, LIMITS).cause == "unexplained"
    assert attribute([], LIMITS).cause == "unexplained"


def test_the_printed_order_and_its_two_readings() -> None:
    blind = base("a", {"blue": 1.0}, "gold")
    half = base("a", {"blue": 0.7, "gold": 0.3}, "gold")
    known = base("a", {"gold": 1.0}, "gold")
    lost, falling, flat = history("a", "-xx--"), history("a", "-----", [4, 3, 2, 1.5, 1]), history("a", "-----")
    alone, opposed = Conflict(), Conflict(votes=2, own=1, opposing=1)

    def named(answers: Any, conflict: Conflict, past: History | None) -> list[Cause | None]:
        literal = printed_order(answers, conflict, past, LIMITS, knowledge="exists")
        return [paper_cause(answers, conflict, past, LIMITS), literal]

    assert named(blind, opposed, lost) == ["knowledge_missing", "knowledge_missing"]
    assert named(half, opposed, lost) == ["base_conflict", "knowledge_missing"]
    assert named(known, opposed, lost) == ["data_conflict"] * 2
    assert named(known, alone, lost) == ["forgotten"] * 2
    assert named(known, alone, falling) == ["more_training"] * 2
    assert named(known, alone, flat) == ["unexplained"] * 2
    assert named(None, opposed, lost) == [None, "data_conflict"]  # what comes first was not looked at
    assert named(None, alone, None) == [None, "unexplained"]


def test_a_guess_from_losses_alone() -> None:
    assert loss_only(None, LIMITS) == "not_trained"
    assert loss_only(history("a", "-x-x-x---"), LIMITS) == "data_conflict"
    assert loss_only(history("a", "-xx------"), LIMITS) == "forgotten"
    assert loss_only(history("a", "-----", [4, 3, 2, 1.5, 1]), LIMITS) == "more_training"
    assert loss_only(history("a", "-----", [3, 2, 2, 2, 2]), LIMITS) == "base_conflict"
    assert loss_only(history("a", "-----", [2, 2, 2, 2, 2]), LIMITS) == "knowledge_missing"
    assert loss_only(history("a", "--xxx"), LIMITS) == "unexplained"


def _table(**problems: Problem) -> pa.Table:
    rows = [
        row("cut", "What is the sum of one?", "gold", problem="answer_cut"),
        row("a", "What is the sum of two?", "gold"),
        row("b", "What is the sum of two?", "lead"),
        row("lost", "What is the sum of four?", "gold"),
        row("belief", "What is the sum of five?", "gold"),
        row("why", "What is the sum of six?", "gold"),
        row("fine", "What is the sum of seven?", "gold"),
    ]
    rows += [row(name, f"What is the sum of {name}?", "gold", problem=problem) for name, problem in problems.items()]
    past = {each.row_id: history(each.row_id, "-" * 9, exposures=9, last=80) for each in rows}
    past["lost"] = history("lost", "-xxx-----", exposures=3, last=30)
    said = [verdict(each.row_id, nll=float(i)) for i, each in enumerate(rows)]
    said[1] = verdict("a", greedy="lead")
    said[2] = verdict("b", "unstable", greedy="gold")
    said[6] = verdict("fine", "learned")
    bases = {each.row_id: base(each.row_id, {"gold": 1.0}, "gold") for each in rows}
    bases["belief"] = base("belief", {"blue": 1.0}, "gold", entropy=0.0)
    return name_causes(rows, said, past, bases, find_conflicts(rows, LIMITS), LIMITS)


def test_the_table_names_a_cause_for_every_row_that_is_not_learned() -> None:
    table = _table()
    assert table.schema == UNLEARNED
    found = {record["row_id"]: record for record in table.to_pylist()}
    assert {name: record["cause"] for name, record in found.items()} == {
        "cut": "not_trained",
        "a": "data_conflict",
        "b": "data_conflict",
        "lost": "forgotten",
        "belief": "base_conflict",
        "why": "unexplained",
    }
    assert found["why"]["margin"] is None
    assert found["belief"]["paper_cause"] == "knowledge_missing"
    assert [each["cause"] for each in found["why"]["evidence"]] == list(PRECEDENCE)
    assert (found["a"]["conflict_group"], found["lost"]["conflict_group"]) == ("conflict-1", "")
    assert found["a"]["neighbours"] == [{"row_id": "b", "gold": "lead", "similarity": 1.0}]


def test_without_base_answers_there_is_no_cause_of_the_papers() -> None:
    rows = [row("a", "What is the sum of two?", "gold"), row("b", "What is the sum of two?", "lead")]
    said = [verdict("a"), verdict("b")]
    bases = {"a": base("a", {"gold": 1.0}, "gold")}
    table = name_causes(rows, said, {}, bases, find_conflicts(rows, LIMITS), LIMITS)
    assert dict(zip(table["row_id"].to_pylist(), table["paper_cause"].to_pylist(), strict=True)) == {
        "a": "data_conflict",
        "b": None,
    }


def test_a_number_that_is_not_one_keeps_the_order() -> None:
    rates = (0.9, math.nan, 0.0, 0.5, math.nan, 0.1, None)
    rows = [row(str(i), f"What is the sum of {i}?", "gold") for i in range(len(rates))]
    said = [verdict(str(i), rate=rate, source_index=i) for i, rate in enumerate(rates)]
    table = name_causes(rows, said, {}, {}, find_conflicts(rows, LIMITS), LIMITS)
    assert table["row_id"].to_pylist() == ["2", "5", "3", "0", "1", "4", "6"]
    said = [verdict(str(i), nll=nll, source_index=i) for i, nll in enumerate((1.0, math.nan, 3.0, 2.0))]
    table = name_causes(rows, said, {}, {}, find_conflicts(rows, LIMITS), LIMITS)
    assert table["row_id"].to_pylist() == ["1", "2", "3", "0"]  # no loss at all is worst


def test_the_most_severe_row_comes_first() -> None:
    order = _table()["row_id"].to_pylist()
    assert order[-1] == "b"  # half right
    assert order.index("why") < order.index("lost") < order.index("cut")  # by loss


def test_advice_has_the_numbers_and_says_how_to_prove_it() -> None:
    found = {record["row_id"]: record for record in _table(hidden="answer_masked").to_pylist()}
    for record in found.values():
        proves = f"whatstuck intervene RUN --cause {record['cause']}"
        assert (proves in record["advice"]) == (record["cause"] != "unexplained")
    assert "1 of 2 rows say 'gold', 1 say otherwise, such as 'lead' (row b)" in found["a"]["advice"]
    assert "step 30 of 80" in found["lost"]["advice"]
    assert "believes 'blue'" in found["belief"]["advice"]
    assert "max_length" in found["cut"]["advice"]
    assert "loss mask" in found["hidden"]["advice"]


def test_no_rows_give_an_empty_table() -> None:
    table = name_causes([], [], {}, {}, find_conflicts([], LIMITS), LIMITS)
    assert table.schema == UNLEARNED
    assert table.num_rows == 0
