"""Evidence for each cause: when it is there, when it is not, and when nobody can know."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from cause_cases import base, history, row, verdict
from whatstuck.rows.causes.conflicts import Conflicts, Judge, find_conflicts
from whatstuck.rows.causes.evidence import Evidence, gather_evidence
from whatstuck.rows.causes.from_base import divergence
from whatstuck.rows.causes.names import PRECEDENCE, Cause
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.histories import History
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds

LIMITS = Thresholds()
FLAT = [2.0] * 9
FALLING = [4.0, 3.8, 3.6, 3.4, 3.2, 3.0, 2.8, 2.6, 2.4]


class World:
    """A case `x` among learned rows; every one of them is seen ten times and known to the base model."""

    def __init__(self, case: TrainingRow | None = None, learned: int = 12) -> None:
        self.rows = [case or row("x", "What is the sum of x?", "gold")]
        self.histories: dict[str, History] = {"x": history("x", "-" * 9, FLAT, exposures=10, last=80)}
        self.verdicts: list[dict[str, Any]] = [verdict("x", greedy="wrong")]
        self.bases: dict[str, BaseAnswers] = {}
        for i in range(learned):
            self.add(f"l{i}", "learned", exposures=10)

    def add(self, name: str, kind: str, *, exposures: int | None = 10, last: int | None = 80, tokens: int = 2) -> None:
        hits = "--xxxxxxx" if kind == "learned" else "-" * 9
        self.rows.append(row(name, f"What is the sum of {name}?", f"gold {name}"))
        self.histories[name] = history(name, hits, exposures=exposures, last=last, tokens=tokens)
        self.verdicts.append(verdict(name, kind))

    def find(self, name: str = "x", conflicts: Conflicts | None = None, **given: Any) -> Mapping[Cause, Evidence]:
        found = gather_evidence(
            self.rows, self.verdicts, self.histories, self.bases, conflicts or Conflicts(), LIMITS, **given
        )
        return {each.cause: each for each in found[name]}


def test_every_cause_has_evidence_in_order_and_only_for_rows_that_are_not_learned() -> None:
    world = World()
    found = gather_evidence(world.rows, world.verdicts, world.histories, {}, Conflicts(), LIMITS)
    assert list(found) == ["x"]
    assert tuple(each.cause for each in found["x"]) == PRECEDENCE
    for each in found["x"]:
        assert each.sentence.endswith(".")
        record = each.record()
        json.loads(record["numbers"], parse_constant=pytest.fail)
        assert (record["score"] is None) == (each.status == "not_measured")


# --- 0


def test_a_failed_test_of_the_feeding_is_cause_0() -> None:
    assert World(row("x", "Say x", "gold", problem="answer_cut")).find()["not_trained"].score == 1
    assert World().find()["not_trained"].status == "absent"
    assert World().find(fed_known=False)["not_trained"].status == "not_measured"
    world = World()
    world.histories["x"] = history("x", "-" * 9, exposures=0)
    assert world.find()["not_trained"].status == "present"


# --- III


def conflict(answers: Sequence[str], judge: Judge | None = None, **said: Any) -> Evidence:
    """Evidence of a row `x` with the answer `gold` among rows with other answers to its question."""
    world = World()
    for i, answer in enumerate(answers):
        world.rows.append(row(f"v{i}", "What is the sum of x?", answer))
        world.verdicts.append(verdict(f"v{i}", "learned"))
    world.verdicts[0] = verdict("x", **said)
    return world.find(conflicts=find_conflicts(world.rows, LIMITS, judge=judge))["data_conflict"]


def test_a_tie_is_a_conflict_whatever_the_model_says() -> None:
    assert conflict(["other"], greedy="third").status == "present"
    echoed = conflict(["other"], greedy="Other.")
    assert echoed.numbers["echoed"]
    assert echoed.score == pytest.approx(math.sqrt(0.5))
    assert conflict(["other"], greedy="third").score == pytest.approx(0.5)


def test_the_majority_is_in_conflict_only_where_the_model_gives_the_other_answer() -> None:
    votes = ["gold", "gold", "other"]
    assert conflict(votes, greedy="third").status == "absent"
    assert conflict(votes, greedy="other").status == "present"
    assert conflict(votes, greedy=None).status == "present"  # a quarter of the votes, and no answer is known
    weak = conflict(["gold"] * 18 + ["other"], greedy="other")
    assert weak.status == "present"
    assert weak.score == pytest.approx(math.sqrt(0.05))
    assert conflict(["gold"] * 18 + ["other"], greedy=None).status == "absent"


def test_what_was_not_compared_is_not_absent() -> None:
    long = "A long answer that has many words in it and no number at all"
    assert conflict([long]).status == "not_measured"
    assert "1 of 2 rows that ask the same were not compared with it" in conflict([long]).sentence
    assert conflict([long]).sentence.endswith("too long to compare; give a judge.")
    assert conflict([long], judge=lambda _one, _other: None).sentence.endswith("the judge could not say.")
    assert conflict(["one", "two", "three"]).status == "not_measured"  # four facts, or four right answers
    assert conflict(["one", "two", "three"], judge=lambda _one, _other: True).status == "present"
    assert World().find(conflicts=Conflicts(blind="nothing was compared"))["data_conflict"].status == "not_measured"
    assert World().find()["data_conflict"].status == "absent"


def test_a_right_answer_in_other_words_is_no_sign_that_the_model_says_something_else() -> None:
    """A checker may call an answer right that is not the gold one, letter by letter."""
    votes = ["gold", "gold", "other"]
    assert conflict(votes, greedy="It is gold.", top_wrong=None, greedy_right=True).status == "present"
    assert conflict(votes, greedy="It is lead.", top_wrong=None, greedy_right=False).status == "absent"
    assert conflict(votes, greedy="It is gold.", top_wrong="third", greedy_right=True).status == "absent"


# --- IV


def forgotten(correct: str, **given: Any) -> Evidence:
    world = World()
    world.histories["x"] = history("x", correct, **given)
    return world.find()["forgotten"]


def test_learned_early_and_left_behind_is_forgotten() -> None:
    found = forgotten("-xxx-----", last=30, exposures=3)
    assert found.status == "present"
    assert found.score == pytest.approx(math.exp(-0.1) - math.exp(-2))
    assert forgotten("-xxx-----", last=70, exposures=9).status == "absent"  # learned until the end
    assert forgotten("-xxx----x", last=30, exposures=3).status == "absent"  # right at the end
    assert forgotten("---------", last=30, exposures=3).status == "absent"  # never right
    assert forgotten("x--------", last=30, exposures=3).status == "absent"  # right before, never after
    little = [2.0] * 9
    little[1:4] = [1.9] * 3
    assert forgotten("-xxx-----", nll=little, last=30, exposures=3).status == "absent"


def test_unknown_exposures_take_a_lasting_loss() -> None:
    assert forgotten("-xxx-----").status == "present"
    assert forgotten("-xxx--x--").status == "absent"  # right in the second half
    assert forgotten("xxxx-----").status == "not_measured"  # the base had it right: pushed away, or left behind?
    assert forgotten("-xxx-----", last=30, exposures=3, steps=(0, 1, 2, 3, 4, 5, 6, 7, 80)).status == "present"
    assert forgotten("-xxx-----", steps=(0, 1, 2, 3, 4, 5, 6, 7, 80)).status == "not_measured"  # one late checkpoint


def test_few_checkpoints_or_none_do_not_measure_forgetting() -> None:
    assert forgotten("-xx-", steps=(0, 10, 20, 30)).status == "not_measured"
    world = World()
    del world.histories["x"]
    assert world.find()["forgotten"].status == "not_measured"
    assert world.find()["more_training"].status == "not_measured"


# --- II


def committed(shares: Mapping[str, float], usual: Mapping[str, float], greedy: str | None = None) -> Evidence:
    world = World()
    world.verdicts[0] = verdict("x", greedy=greedy)
    world.bases = {each.row_id: base(each.row_id, usual) for each in world.rows[1:]}
    world.bases["x"] = base("x", shares, "gold", entropy=0.1)
    return world.find()["base_conflict"]


def test_a_base_model_is_committed_to_one_wrong_answer_of_this_row() -> None:
    scattered = {str(i): 0.1 for i in range(10)}
    found = committed({"blue": 0.8, "gold": 0.1, "red": 0.1}, scattered, "Blue")
    assert found.status == "present"
    assert found.score == pytest.approx(1 - 0.3 / 2)
    assert committed({"blue": 0.8, "gold": 0.1, "red": 0.1}, scattered, "red").score == pytest.approx(0.35)
    assert committed({"blue": 0.5, "red": 0.5}, scattered).status == "absent"
    assert committed({"blue": 0.7, "gold": 0.3}, scattered).status == "absent"


def test_a_base_model_that_always_says_the_same_is_not_committed() -> None:
    assert committed({"blue": 1.0}, {"blue": 0.9, "red": 0.1}).status == "absent"
    assert committed({"blue": 1.0}, {"blue": 0.4, "red": 0.6}).status == "present"


def test_what_a_base_model_says_when_it_does_not_know_is_no_belief() -> None:
    """Most rows are known to it, so its favourite wrong answer is rare among all, and usual among unknown ones."""
    world = World()
    world.bases = {each.row_id: base(each.row_id, {"gold": 1.0}, "gold") for each in world.rows[1:]}
    world.bases["x"] = base("x", {"blue": 1.0}, "gold", entropy=0.1)
    assert world.find()["base_conflict"].status == "present"
    for i in range(5):
        world.bases[f"l{i}"] = base(f"l{i}", {"blue": 0.8, "red": 0.2})
    assert world.find()["base_conflict"].status == "absent"


def test_a_belief_that_was_not_compared_with_others_says_so() -> None:
    world = World()
    world.bases = {"x": base("x", {"blue": 1.0}, "gold", entropy=0.1)}
    alone = world.find()["base_conflict"]
    world.bases |= {f"l{i}": base(f"l{i}", {"red": 1.0}) for i in range(5)}
    compared = world.find()["base_conflict"]
    assert (alone.status, compared.status) == ("present", "present")
    assert alone.score == pytest.approx(compared.score / 2)
    assert "too few other rows were asked" in alone.sentence
    assert "too few" not in compared.sentence


def test_no_base_model_measures_neither_belief_nor_knowledge() -> None:
    found = World().find()
    assert {found["base_conflict"].status, found["knowledge_missing"].status} == {"not_measured"}


def test_the_divergence_is_in_bits() -> None:
    # the scale of a belief of 0.8 that moves to 0.8 on another option of four: 0.366 nats
    before, after = np.full(4, 0.2 / 3), np.full(4, 0.2 / 3)
    before[0] = after[1] = 0.8
    assert divergence(before, after) == pytest.approx(0.528, abs=1e-3)
    assert divergence(before, before) == 0


# --- I


def unknown(world: World) -> World:
    """The case and four others that fail are unknown to the base model, which knows all that is learned."""
    world.bases = {f"{each.row_id}": base(each.row_id, {"gold": 1.0}, "gold") for each in world.rows[1:]}
    for i in range(4):
        world.add(f"u{i}", "unlearned")
    for name in ("x", "u0", "u1", "u2", "u3"):
        world.bases[name] = base(name, {str(i): 0.1 for i in range(10)}, "gold", entropy=0.7)
    return world


def test_an_unknown_row_that_had_its_exposures_lacks_knowledge() -> None:
    found = unknown(World()).find()["knowledge_missing"]
    assert found.status == "present"
    assert found.score == pytest.approx(0.85 * (1 - (0.5 / 13) / (5.5 / 6)))
    world = World()
    world.bases["x"] = base("x", {"gold": 0.3, "red": 0.7}, "gold")
    assert world.find()["knowledge_missing"].status == "absent"


def test_not_knowing_is_no_reason_where_nothing_can_be_compared() -> None:
    """A base model that knows hardly any row says nothing about the few that were not learned."""
    world = unknown(World())
    for i in range(8):
        world.bases[f"l{i}"] = base(f"l{i}", {str(k): 0.1 for k in range(10)}, "gold")
    found = world.find()["knowledge_missing"]  # it knows four rows of all
    assert found.status == "not_measured"
    assert "to say whether that matters" in found.sentence
    world.bases = {"x": world.bases["x"]}
    assert world.find()["knowledge_missing"].status == "not_measured"


def test_a_guess_is_no_knowledge() -> None:
    """Among ten answers, one in ten is right by chance; one half is more than what counts as a guess."""
    for gold, others, status in ((0.1, 0.1, "present"), (0.1, 0.0, "absent"), (0.5, 0.5, "absent")):
        world = unknown(World())
        rest = {str(i): (1 - gold) / 9 for i in range(9)}
        for name in ("u0", "u1", "u2", "u3"):
            world.bases[name] = base(name, {"gold": others, "else": 1 - others}, f"gold {name}")
        world.add("u4", "unlearned")
        world.bases["u4"] = base("u4", {"gold": others, "else": 1 - others}, "gold u4")
        world.bases["x"] = base("x", {"gold": gold} | rest, "gold")
        found = world.find()["knowledge_missing"]
        assert found.status == status
        assert ("by guessing" in found.sentence) == (status == "present")


def test_a_belief_needs_a_fair_chance_to_give_way() -> None:
    world = World()
    world.bases["x"] = base("x", {"blue": 1.0}, "gold", entropy=0.0)
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=2, last=70)
    assert world.find()["base_conflict"].status == "present"  # nothing says that few exposures matter
    for i in range(5):
        world.add(f"seldom{i}", "unlearned", exposures=2, last=70)
    found = world.find()
    assert found["base_conflict"].status == "absent"
    assert "was learned rarely" in found["base_conflict"].sentence
    assert found["more_training"].status == "present"
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=10, last=80)
    assert world.find()["base_conflict"].status == "present"


def test_belief_comes_before_missing_knowledge() -> None:
    world = World()
    world.bases["x"] = base("x", {"blue": 1.0}, "gold", entropy=0.0)
    found = world.find()
    assert found["base_conflict"].status == "present"
    assert found["knowledge_missing"].status == "absent"


@pytest.mark.parametrize(("failed", "status"), [(30, "present"), (0, "absent")])
def test_not_knowing_is_a_reason_only_if_such_rows_fail_more_often(failed: int, status: str) -> None:
    """Half of the learned rows are unknown, too; with 30 more failures, unknown rows fail far more often."""
    world = unknown(World(learned=40))
    for i in range(40):
        shares = {f"gold l{i}": 1.0} if i % 2 else {str(k): 0.1 for k in range(10)}
        world.bases[f"l{i}"] = base(f"l{i}", shares, f"gold l{i}")
    for i in range(failed):
        world.add(f"f{i}", "unlearned")
        world.bases[f"f{i}"] = base(f"f{i}", {str(k): 0.1 for k in range(10)}, "gold")
    if not failed:  # a known row fails as well
        for i in range(3):
            world.add(f"f{i}", "unlearned")
            world.bases[f"f{i}"] = base(f"f{i}", {f"gold f{i}": 1.0}, f"gold f{i}")
    assert world.find()["knowledge_missing"].status == status


def test_an_unknown_row_that_still_falls_waits_for_its_exposures() -> None:
    world = unknown(World())
    world.histories["x"] = history("x", "-" * 9, FALLING)
    assert world.find()["knowledge_missing"].status == "not_measured"
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=10, last=80)
    assert world.find()["knowledge_missing"].status == "present"


# --- V


def test_a_row_that_was_hardly_shown_and_gets_better_needs_more_training() -> None:
    world = unknown(World())
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=2, last=70)
    found = world.find()
    assert found["more_training"].status == "present"
    assert found["more_training"].score == pytest.approx(0.8)
    assert found["knowledge_missing"].status == "absent"  # it is on its way
    world.histories["x"] = history("x", "-" * 9, [4.0] + [3.0] * 8, exposures=2, last=10)  # fell when it was shown
    assert world.find()["more_training"].status == "present"
    world.histories["x"] = history("x", "-" * 9, [3.0] * 9, exposures=2, last=10)
    assert world.find()["more_training"].status == "absent"
    assert "right as it is fed" not in found["more_training"].sentence
    world.histories["x"] = history("x", "-" * 7 + "xx", FALLING, exposures=2, last=70)  # and yet not learned
    found = world.find()
    assert found["more_training"].status == "present"
    assert found["more_training"].sentence.startswith("It is right as it is fed, though other answers are drawn. Its")


def test_without_a_checkpoint_in_the_middle_nothing_shows_a_falling_loss() -> None:
    world = World()
    for name in world.histories:
        world.histories[name] = history(name, "--" if name == "x" else "-x", exposures=10, last=80, steps=(0, 80))
    for i in range(9):
        world.add(f"long{i}", "unlearned", tokens=30)
        world.histories[f"long{i}"] = history(f"long{i}", "--", exposures=10, last=80, tokens=30, steps=(0, 80))
    world.histories["x"] = history("x", "--", [4, 2], exposures=10, last=80, tokens=30, steps=(0, 80))
    found = world.find()["more_training"]
    assert found.status == "not_measured"
    assert "No checkpoint in the middle" in found.sentence


def test_few_exposures_that_are_known_to_matter_need_no_trend() -> None:
    for correct in ("-" * 9, "--xx-x---"):
        world = World()
        world.histories["x"] = history("x", correct, [1.0] + [1.5] * 8, exposures=2, last=70)
        assert world.find()["more_training"].status == "absent"
        for i in range(5):
            world.add(f"seldom{i}", "unlearned", exposures=2, last=70)
        found = world.find()["more_training"]
        assert found.status == "present"
        assert found.sentence.startswith("Few exposures account for")


def test_most_learned_rows_were_never_shown() -> None:
    """Half an epoch, of a base model that had most rows right: nothing is rare compared with never."""
    for exposures in (0, 1):
        world = World(learned=0)
        for i in range(12):
            world.add(f"l{i}", "learned", exposures=0 if i < 8 else 1)
        world.histories["x"] = history("x", "-" * 9, FALLING, exposures=exposures)
        found = world.find()
        assert found["more_training"].status == "not_measured"
        assert "as often as others is not known" in found["more_training"].sentence
        assert found["not_trained"].status == ("absent" if exposures else "present")


def test_few_exposures_are_no_reason_where_such_rows_are_learned() -> None:
    world = World(learned=12)
    for i in range(8):
        world.add(f"seldom{i}", "learned", exposures=2)
    for i in range(4):
        world.add(f"often{i}", "unlearned", exposures=10)
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=2, last=70)
    assert world.find()["more_training"].status == "absent"


def test_a_falling_loss_alone_is_no_reason() -> None:
    world = World()
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=10, last=80)
    assert world.find()["more_training"].status == "absent"
    world.histories["x"] = history("x", "-" * 9, FALLING)
    assert world.find()["more_training"].status == "not_measured"
    world.histories["x"] = history("x", "-xx------", FALLING, exposures=10, last=80)
    assert world.find()["more_training"].status == "absent"  # it was right, and lost


def test_rows_were_still_being_learned_late() -> None:
    world = World()
    for i in range(12):
        world.histories[f"l{i}"] = history(f"l{i}", "------xxx", [3, 3, 3, 3, 3, 3, 0.1, 0.1, 0.1], exposures=10)
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=10, last=80)
    assert world.find()["more_training"].status == "present"
    world.histories["x"] = history("x", "-" * 9, [2 + loss for loss in FALLING], exposures=10, last=80)
    assert world.find()["more_training"].status == "absent"  # far from where those rows were


def test_a_training_that_was_too_short_as_a_whole() -> None:
    """Most rows are wrong at the end, and the typical one still got better: no row has a reason of its own."""
    for falls, learned, status in ((True, 5, "present"), (False, 5, "absent"), (True, 25, "absent")):
        world = World(learned=learned)
        for i in range(12):
            world.add(f"behind{i}", "unlearned")
            world.histories[f"behind{i}"] = history(
                f"behind{i}", "-" * 9, FALLING if falls else [2.0] * 9, exposures=10
            )
        world.histories["x"] = history("x", "-" * 9, FALLING, exposures=10, last=80)
        found = world.find()["more_training"]
        assert found.status == status
        assert ("too short as a whole" in found.sentence) == (status == "present")


def test_long_answers_are_a_reason_where_they_raise_the_risk() -> None:
    world = World(learned=40)
    for i in range(9):
        world.add(f"long{i}", "unlearned", tokens=30)
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=10, last=80, tokens=30)
    found = world.find()["more_training"]
    assert found.status == "present"
    assert "long" in found.sentence
    easy = World(learned=40)
    for i in range(9):
        easy.add(f"long{i}", "learned", tokens=30)
    easy.histories["x"] = history("x", "-" * 9, FALLING, exposures=10, last=80, tokens=30)
    for i in range(9):
        easy.add(f"short{i}", "unlearned")
    assert easy.find()["more_training"].status == "absent"


def test_rare_forms_are_a_reason_where_they_raise_the_risk() -> None:
    world = World(row("x", "Please multiply quickly x", "gold"), learned=60)
    for i in range(3):
        world.add(f"r{i}", "unlearned")
        world.rows[-1] = row(f"r{i}", f"Please multiply quickly r{i}", "gold")
    for i in range(3):  # another rare form, so that there are enough rows to compare
        world.add(f"s{i}", "unlearned")
        world.rows[-1] = row(f"s{i}", f"Divide s{i}", "gold")
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=10, last=80)
    found = world.find()["more_training"]
    assert found.status == "present"
    assert "rare" in found.sentence


def test_rows_with_another_cause_do_not_make_a_trait_a_reason() -> None:
    """Many forgotten rows are long; that does not make length a reason for the case."""
    world = World(learned=40)
    for i in range(9):
        world.add(f"long{i}", "unlearned", tokens=30)
        world.histories[f"long{i}"] = history(f"long{i}", "-xxx-----", exposures=3, last=30, tokens=30)
    world.histories["x"] = history("x", "-" * 9, FALLING, exposures=10, last=80, tokens=30)
    assert world.find()["more_training"].status == "absent"
