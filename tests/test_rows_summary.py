"""What the rows of a run amount to: convergence per epoch, from whichever checkpoint is near enough."""

import pytest

from cause_cases import history
from whatstuck.rows.summary import summary_of


def change_of(losses: list[float], epochs: dict[int, float]) -> tuple[float | None, bool | None, list[str]]:
    row = history("x", "-" * len(losses), losses)
    summary = summary_of([], [], {"x": row}, epochs)
    return summary["last_epoch_change"], summary["converged"], summary["statements"]


def test_the_last_epoch_begins_at_a_checkpoint() -> None:
    change, converged, said = change_of([4.0, 2.0, 1.0, 0.999], {0: 0, 10: 1, 20: 2, 30: 3})
    assert change == pytest.approx(-0.001)
    assert converged
    assert not said
    change, converged, said = change_of([4.0, 2.0, 1.0, 0.9], {0: 0, 10: 1, 20: 2, 30: 3})
    assert change == pytest.approx(-0.1)
    assert not converged
    assert "-10.0% per epoch" in said[0]


def test_an_earlier_checkpoint_is_taken_per_epoch() -> None:
    """The demo: checkpoints at 1, 2, 4, 8, 16 and 32 of 32 steps in three epochs."""
    change, *_ = change_of([4.0, 2.0, 1.0, 0.25], {0: 0.0, 10: 0.5, 20: 1.0, 30: 3.0})
    assert change == pytest.approx(-0.5)  # to a quarter in two epochs


@pytest.mark.parametrize("epochs", [{}, {30: 3.0}, {20: 2.5, 30: 3.0}, {10: 0.5, 30: 3.0}])
def test_no_checkpoint_says_how_the_training_ended(epochs: dict[int, float]) -> None:
    change, converged, said = change_of([4.0, 2.0, 1.0, 0.9], epochs)
    assert change is None
    assert converged is None
    assert not said


def test_rows_of_which_the_papers_rule_says_nothing_are_left_out() -> None:
    record = {"verdict": "unlearned", "asked_because": "loss"}
    records = [record | {"paper_unlearned": said} for said in (True, True, None, None, None)]
    assert summary_of(records, [], {}, {})["paper_share"][0] == pytest.approx(1.0)
    passed = {"verdict": "learned", "asked_because": ""}  # such a record has no answers
    summary = summary_of([*records, {**passed, "asked_because": "audit", "paper_unlearned": False}, passed], [], {}, {})
    assert summary["paper_share"][0] == pytest.approx(0.5)
    assert summary["learned"] == 2
