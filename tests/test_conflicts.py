"""Which rows ask the same, and which of them contradict each other."""

import itertools
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cause_cases import row
from whatstuck.datasets import Row
from whatstuck.errors import MissingExtraError, WhatStuckError
from whatstuck.rows.causes import similarity
from whatstuck.rows.causes.conflicts import Conflict, contradiction, find_conflicts, find_judge
from whatstuck.rows.causes.questions import Questions, find_questions
from whatstuck.rows.causes.similarity import similar_prompts
from whatstuck.rows.causes.slots import leftover, same_slots, slots_of
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import find_checker

LIMITS = Thresholds()
PLACES = ("Aldania", "Borduria", "Cravonia", "Dunmark", "Elbonia", "Freedonia", "Genovia", "Hyrkania")


def ask_the_same(first: str, second: str) -> bool:
    one, other = slots_of(first), slots_of(second)
    return same_slots(one, other) and not leftover(one, other)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is the capital of Borduria?", "Tell me the capital of Borduria."),
        ("Borduria: what is its capital?", "What is the capital of Borduria?"),  # begins the sentence: still the name
        ("How far is 1,000 km?", "How far is 1000 km?"),
        ("List what Borduria's kings did.", "List what the king of Borduria did."),
        ("请问法国的首都是什么？", "法国的首都是什么"),
    ],
)
def test_wordings_of_one_question_have_equal_slots(first: str, second: str) -> None:
    assert ask_the_same(first, second)
    assert ask_the_same(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is the capital of Austria?", "What is the capital of Australia?"),
        ("When did WWI end?", "When did WWII end?"),
        ("May one take 20 mg a day?", "May one take 200 mg a day?"),
        ("Is the adult dose safe?", "Is the child dose safe?"),
        ("Is this safe to eat?", "Is this not safe to eat?"),
        ("Is it safe?", "Isn't it safe?"),
        ("Who wrote the novel?", "When was the novel written?"),
        ('What does "gift" mean?', 'What does "poison" mean?'),
        ("Convert 5 miles to km.", "Convert 5 km to miles."),
        ("Did Ann defeat Bob?", "Did Bob defeat Ann?"),
        ("What is 2 + 3?", "What is 2 - 3?"),
        ("What is 7 to the 3?", "What is 3 to the 7?"),
        ("法国的首都是什么", "德国的首都是什么"),
        ("столица Франции", "столица Германии"),
        ("the colour of zorba is", "the colour of zorbo is"),  # names in small letters
        ("the capital of Aldania", "the former capital of Aldania"),
    ],
)
def test_what_changes_the_answer_is_seen(first: str, second: str) -> None:
    assert not ask_the_same(first, second)
    assert not ask_the_same(second, first)


def test_answers_contradict_when_short_and_different() -> None:
    assert contradiction("巴黎", "里昂") == 1.0
    assert contradiction("joy", "joy, love") == 0.5
    assert contradiction(" Yes. ", "yes") == 0.0
    long = "because the water there is warm all the year"
    assert contradiction(f"Yes, {long}.", f"No, {long}.") == 0.9
    assert contradiction(f"It was in 1912 {long}.", f"It was in 1915 {long}.") == 0.7
    assert contradiction(f"So it is {long}.", "Nobody has ever said why that would be so.") is None
    assert contradiction("word " * 60, "other 1 " * 60) is None


def facts(wordings: tuple[str, ...], answer: str = "x{}") -> list[TrainingRow]:
    return [
        row(f"{i}-{j}", wording.format(place), answer.format(i))
        for i, place in enumerate(PLACES)
        for j, wording in enumerate(wordings)
    ]


def test_equal_prompts_with_two_answers_are_a_conflict() -> None:
    rows = [
        row("a", "What is the capital of Borduria?", "Szohod"),
        row("b", "what is the  capital of Borduria", "Szohod!"),
        row("c", "What is the capital of Borduria?", "Klow"),
        row("d", "What is the capital of Elbonia?", "Klow"),
    ]
    found = find_conflicts(rows, LIMITS)
    assert dict(found.groups) == {"conflict-1": ("a", "b", "c")}
    a, c = found.of("a"), found.of("c")
    assert (a.votes, a.own, a.opposing, a.mass, a.score) == (3, 2, 1, 1 / 3, 1 / 3)
    assert (c.votes, c.own, c.opposing, c.mass, c.score) == (3, 1, 2, 2 / 3, 2 / 3)
    assert [opponent.row_id for opponent in c.opponents] == ["a", "b"]
    assert a.answers == {"klow"}
    assert a.opponents[0].similarity == 1.0
    assert found.of("d").group == ""
    assert found.of("d").opposing == 0
    assert found.of("nobody").votes == 1


def test_a_word_is_a_synonym_where_the_answers_agree_and_another_thing_where_they_do_not() -> None:
    same = facts(("What is the hue of {}?", "What is the colour of {}?"))
    same[1] = row("0-1", "What is the colour of Aldania?", "other")
    found = find_conflicts(same, LIMITS)
    assert dict(found.groups) == {"conflict-1": ("0-0", "0-1")}
    assert found.of("0-0").opponents[0].similarity == pytest.approx(0.8, abs=0.2)

    other = facts(("What is the largest lake of {}?",)) + [
        row(f"small-{i}", f"What is the smallest lake of {place}?", f"y{i}") for i, place in enumerate(PLACES)
    ]
    assert not find_conflicts(other, LIMITS).groups


def test_agreement_by_chance_makes_no_synonym() -> None:
    chance = random.Random(0)
    rows = [
        row(f"{word}-{i}", f"Is the {word} of item {i} fine?", "yes" if chance.random() < 0.7 else "no")
        for word in ("front", "back")
        for i in range(60)
    ]
    assert not find_conflicts(rows, LIMITS).groups


def test_without_enough_pairs_a_replaced_word_is_another_question_unless_an_embedding_says_so() -> None:
    rows = [
        row("a", "What is the biggest town in Elbonia?", "x"),
        row("b", "What is the largest town in Elbonia?", "y"),
    ]
    assert not find_conflicts(rows, LIMITS).groups
    assert len(find_conflicts(rows, LIMITS, embed=lambda texts: np.ones((len(texts), 3))).groups) == 1
    # and never against the slots
    rows = [row("a", "What is the capital of Elbonia?", "x"), row("b", "What is the capital of Genovia?", "y")]
    assert not find_conflicts(rows, LIMITS, embed=lambda texts: np.ones((len(texts), 3))).groups


def test_another_system_prompt_is_another_question() -> None:
    rows = [
        row("a", "Say it.", "x", system="Be kind."),
        row("b", "Say it.", "y", system="Be rude."),
        row("c", "Say it.", "z", system="be  kind"),
    ]
    assert dict(find_conflicts(rows, LIMITS).groups) == {"conflict-1": ("a", "c")}


def test_texts_of_equal_tokens_are_a_conflict_that_says_so() -> None:
    rows = [row("a", "Translate ☃ now", "snow", ids=(5, 0, 6)), row("b", "Translate ♞ now", "horse", ids=(5, 0, 6))]
    found = find_conflicts(rows, LIMITS)
    assert found.groups
    assert found.of("a").same_tokens
    assert found.of("a").opponents[0].similarity == 1.0
    equal = [row("a", "Translate ☃ now", "snow", ids=(5, 0, 6)), row("b", "Translate ☃ now", "horse", ids=(5, 0, 6))]
    assert not find_conflicts(equal, LIMITS).of("a").same_tokens


def test_rows_that_taught_nothing_have_no_vote() -> None:
    rows = [row("a", "Say it.", "x"), row("b", "Say it.", "y", problem="dropped"), row("c", "Say it.", "x")]
    found = find_conflicts(rows, LIMITS)
    assert (found.of("a").votes, found.of("a").opposing) == (2, 0)
    assert found.of("b").opposing == 2


def test_prompts_with_many_right_answers_are_no_conflict_but_labels_are() -> None:
    stories = [row(f"s{i}", "Write a line about the sea.", f"line {i}") for i in range(3)]
    found = find_conflicts(stories, LIMITS)
    assert not found.groups
    assert found.of("s0").many_valued
    assert found.of("s0").opposing == 0

    labels = [row(f"l{i}", "Oh no, my tea is cold", label) for i, label in enumerate(("joy", "anger", "fear", "love"))]
    others = [row(f"o{i}", f"Text number {i}", label) for i, label in enumerate(("joy", "anger", "fear", "love"))]
    found = find_conflicts(labels + others, LIMITS)
    assert dict(found.groups) == {"conflict-1": ("l0", "l1", "l2", "l3")}
    assert found.of("l0").opposing == 3


def never(row: Row, answer: str) -> bool:
    pytest.fail(f"{row.row_id} was compared with {answer}")


def test_rows_of_which_no_two_agree_are_undecided_until_a_judge_decides() -> None:
    scattered = [row(f"p{i}", "Who rules Elbonia?", f"answer {i}") for i in range(4)]
    found = find_conflicts(scattered, LIMITS, checker=never)
    assert not found.groups
    p = found.of("p0")
    assert (p.many_valued, p.votes, p.own, p.opposing, p.undecided) == (False, 4, 1, 0, 3)
    assert p.why_undecided.startswith("no two agree")
    assert find_conflicts(scattered, LIMITS, judge=lambda _one, _other: True).of("p0").opposing == 3
    assert find_conflicts(scattered, LIMITS, judge=lambda _one, _other: False).of("p0").undecided == 0
    two = [*scattered, row("p4", "Who rules Elbonia?", "answer 0")]  # a vote: now one is known to be right
    assert find_conflicts(two, LIMITS).of("p0").opposing == 3


@pytest.mark.parametrize(("prompt", "many"), [("Write the next line.", True), ("Who rules Elbonia?", False)])
def test_thousands_of_equal_prompts_are_never_compared(prompt: str, *, many: bool) -> None:
    rows = [row(str(i), prompt, f"answer {i // 2}") for i in range(3000)]
    found = find_conflicts(rows, LIMITS, checker=never)  # a million pairs of answers
    assert not found.groups
    last = found.of("2999")
    assert (last.many_valued, last.votes) == (many, 3000)
    if not many:
        assert (last.own, last.opposing, last.undecided) == (2, 0, 2998)
        assert last.why_undecided == "there are more than 50 different answers"


def test_thousands_of_votes_for_a_few_answers_are_counted() -> None:
    rows = [row(str(i), "Who rules Elbonia?", ("Ann", "Bob", "Eve")[i % 3]) for i in range(3000)]
    compared: list[Row] = []

    def judge(one: Row, _other: Row) -> bool:
        compared.append(one)
        return True

    found = find_conflicts(rows, LIMITS, judge=judge)
    assert len(compared) == 3
    assert (found.of("7").votes, found.of("7").own, found.of("7").opposing) == (3000, 1000, 2000)
    assert [opponent.row_id for opponent in found.of("7").opponents] == ["0", "2", "3", "5", "6"]


def test_long_answers_are_undecided_until_a_judge_decides() -> None:
    texts = ("The heart pumps the blood through all the body.", "Nobody has found out what that organ is for.")
    rows = [row(str(i), "What does the heart do?", text) for i, text in enumerate(texts)]
    found = find_conflicts(rows, LIMITS)
    assert not found.groups
    assert (found.of("0").opposing, found.of("0").undecided) == (0, 1)
    assert found.of("0").why_undecided.endswith("give a judge")
    unsure = find_conflicts(rows, LIMITS, judge=lambda _one, _other: None).of("0")
    assert (unsure.undecided, unsure.why_undecided) == (1, "the judge could not say")
    assert find_conflicts(rows, LIMITS, judge=lambda _one, _other: True).groups
    agreed = find_conflicts(rows, LIMITS, judge=lambda _one, _other: False).of("0")
    assert (agreed.opposing, agreed.undecided) == (0, 0)


def test_answers_that_pass_each_others_check_agree() -> None:
    rows = [row("a", "How many?", "1,000"), row("b", "How many?", "1000"), row("c", "How many?", "1001")]
    found = find_conflicts(rows, LIMITS)
    assert (found.of("a").opposing, found.of("a").votes) == (1, 3)
    labels = [row("a", "Which?", "joy, love"), row("b", "Which?", "love, joy")]
    assert find_conflicts(labels, LIMITS).groups
    assert not find_conflicts(labels, LIMITS, checker=find_checker("labels")).groups


def test_a_judge_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def says(a, b):\n    return {'x': True, 'y': 'maybe'}[a.completion]\n", encoding="utf-8")
    judge = find_judge(f"{path}:says")
    pair = [row(name, "Say it.", name).row for name in "xyz"]
    assert judge(pair[0], pair[1]) is True
    with pytest.raises(WhatStuckError, match="returned 'maybe'"):
        judge(pair[1], pair[0])
    with pytest.raises(WhatStuckError, match="on rows z and x failed: KeyError"):
        judge(pair[2], pair[0])


def test_without_scikit_learn_only_equal_prompts_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_module: str, _extra: str) -> None:
        raise MissingExtraError("scikit-learn is missing")

    monkeypatch.setattr(similarity, "require", missing)
    rows = [row("a", "Say it.", "x"), row("b", "Say it.", "y"), row("c", "Please say it.", "z")]
    found = find_conflicts(rows, LIMITS)
    assert found.blind == "only equal prompts were compared, since scikit-learn is missing"
    assert dict(found.groups) == {"conflict-1": ("a", "b")}


def test_a_named_model_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    rows = [row("a", "Say it.", "x"), row("b", "Please do not.", "y")]
    with pytest.raises(MissingExtraError, match="embed"):
        find_conflicts(rows, LIMITS, embed="some-model")


def test_an_embedding_of_another_shape_is_refused() -> None:
    rows = [row("a", "Say it.", "x"), row("b", "Please do not.", "y")]
    with pytest.raises(WhatStuckError, match="shape"):
        find_conflicts(rows, LIMITS, embed=lambda _texts: np.ones(3))
    with pytest.raises(WhatStuckError, match="finite"):
        find_conflicts(rows, LIMITS, embed=lambda texts: np.full((len(texts), 2), np.nan))


def test_neighbours_are_those_of_a_full_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_BLOCK", 3)
    monkeypatch.setattr(similarity, "NEIGHBOURS", 100)
    vectors = np.random.default_rng(0).normal(size=(11, 2))
    rows = [row(str(i), f"{i} is number {i}", "x") for i in range(11)]
    found = similar_prompts(rows, Thresholds(similarity=0.8), embed=lambda _texts: vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    wanted = {(a, b): cosines[a, b] for a, b in itertools.combinations(range(11), 2) if cosines[a, b] >= 0.8}
    assert {(a, b): pytest.approx(cosine, abs=1e-6) for a, b, cosine in found.pairs} == wanted


def test_no_rows_and_one_row() -> None:
    assert not find_conflicts([], LIMITS).groups
    assert not find_conflicts([row("a", "Say it.", "x")], LIMITS).by_row


WORDS = st.sampled_from(("hue", "colour", "Elbonia", "Genovia", "red", "what", "is", "3", "4", "not", "蓝", "色"))


@given(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=5), st.sampled_from("pqr")), max_size=12))
@settings(max_examples=100)
def test_questions_divide_the_rows_and_standings_are_symmetric(drawn: list[tuple[list[str], str]]) -> None:
    rows = [row(str(i), " ".join(words), answer) for i, (words, answer) in enumerate(drawn)]
    questions = find_questions(rows, LIMITS, embed=None)
    members = questions.members
    assert sorted(itertools.chain.from_iterable(members)) == list(range(len(rows)))
    found = find_conflicts(rows, LIMITS)
    for name, ids in found.groups.items():
        assert any(found.of(row_id).opposing for row_id in ids)
        assert {found.of(row_id).group for row_id in ids} == {name}
    for row_id, standing in found.by_row.items():
        assert 0 <= standing.score <= standing.mass < 1
        for opponent in standing.opponents:
            assert row_id in found.of(row_id).alike
            assert found.of(opponent.row_id).opposing > 0
            assert math.isnan(opponent.similarity) or opponent.similarity > 0
        wanted = opponents(row_id, rows, questions, standing)
        assert [one.row_id for one in standing.opponents] == [name for name, _ in wanted]
        similarities = [similarity for _, similarity in wanted]
        assert [one.similarity for one in standing.opponents] == pytest.approx(similarities, nan_ok=True)


def opponents(
    row_id: str, rows: list[TrainingRow], questions: Questions, standing: Conflict
) -> list[tuple[str, float]]:
    """The first five of all that oppose a row, with their similarity: looked up one by one."""
    own = int(row_id)
    found = []
    for i, other in enumerate(rows):
        if str(i) in standing.alike and other.row.completion in standing.answers:
            a, b = sorted((questions.prompts[own], questions.prompts[i]))
            equal = a == b or other.prompt_ids == rows[own].prompt_ids
            found.append((str(i), 1.0 if equal else questions.links.get((a, b), math.nan)))
    return sorted(found, key=lambda one: math.inf if math.isnan(one[1]) else -one[1])[:5]
