"""What the base model knew: few-shot prompts, categories, shares."""

import math
from collections import Counter
from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import helpers
from asked_rows import made
from whatstuck.datasets import Message
from whatstuck.models import load_model, load_tokenizer
from whatstuck.models.generating import seed_of
from whatstuck.rows.causes import probing
from whatstuck.rows.causes.probing import knowledge_of, probe_base
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import find_checker
from whatstuck.rows.verdicts.replies import Question, Reply, Respondent

DEFAULT = Thresholds()
CHECK = find_checker("auto")


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PreTrainedModel:
    return load_model(tiny_base)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def rows(tokenizer: PreTrainedTokenizerBase) -> list[TrainingRow]:
    return [made(tokenizer, row["prompt"], row["completion"]) for row in helpers.rows(24, seed=21)]


def prompts(
    respondent: Respondent,
    row: TrainingRow,
    exemplars: list[TrainingRow],
    thresholds: Thresholds = DEFAULT,
    seed: int = 0,
) -> list[str]:
    examples = probing._Examples(respondent, exemplars, thresholds, seed)
    return [respondent.tokenizer.decode(list(question.prompt_ids)) for question in examples.questions(row)]


# --- prompts


def test_examples_are_earlier_turns(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    system = Message("system", "One word.")
    exemplars = [made(tokenizer, f"The capital of land{i}?", f"city{i}") for i in range(5)]
    row = made(tokenizer, (system, Message("user", "The capital of land9?")), "city9")
    found = prompts(Respondent(model, tokenizer, "auto"), row, exemplars)
    assert len(found) == 4
    assert len(set(found)) > 1
    for text in found:
        head, *turns, last = text.split("<|user|>\n")
        assert head == "<s><|system|>\nOne word.\n"
        assert last == "The capital of land9?\n<|assistant|>\n"
        assert len(turns) == len(set(turns)) == 4
        assert set(turns) <= {f"The capital of land{i}?\n<|assistant|>\ncity{i}</s>" for i in range(5)}


def test_plain_examples_are_lines(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    exemplars = [made(tokenizer, f"Capital of land{i}:", f"city{i}", chat_template="never") for i in range(5)]
    row = made(tokenizer, "Capital of land9:", "city9", chat_template="never")
    for text in prompts(Respondent(model, tokenizer, "never"), row, exemplars):
        *lines, last = text.split("\n")
        assert last == "Capital of land9:"
        assert len(lines) == 4
        assert set(lines) <= {f"Capital of land{i}: city{i}" for i in range(5)}


def test_special_tokens_at_the_beginning_come_once() -> None:
    class Rendered:
        def __init__(self, prompt: str, target_text: str) -> None:
            self.prompt, self.target_text = prompt, target_text

    class Shown:
        def __init__(self, text: str, answer: str) -> None:
            self.rendered = Rendered(f"<s>{text}", answer)
            self.row = type("R", (), {"messages": (Message("user", text + " "),)})

    assert probing._plain(Shown("a:", " 1"), [Shown("b:", " 2"), Shown("c:", " 3")]) == "<s>b: 2\nc: 3\na:"


def test_examples_of_the_same_form_come_first_and_never_the_question_itself(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    same = [made(tokenizer, f"What is the capital of land{i}?", "x") for i in range(3)]
    others = [made(tokenizer, f"Who wrote song{i}?", "y") for i in range(30)]
    row = made(tokenizer, "What is the capital of land9?", "z")
    copies = [made(tokenizer, "what is the capital of  LAND9", f"answer{i}") for i in range(30)]
    respondent = Respondent(model, tokenizer, "auto")
    for text in prompts(respondent, row, [row, *others, *copies, *same]):
        turns = text.split("<|user|>\n")[1:-1]
        assert sum("capital" in turn for turn in turns) == 3
        assert sum("song" in turn for turn in turns) == 1
        assert "LAND9" not in text
        assert "answer" not in text


def test_what_does_not_fit_is_left_out(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    exemplars = [made(tokenizer, f"{i} " + "word " * 12 + "?", "x") for i in range(6)]
    row = made(tokenizer, "9 " + "word " * 12 + "?", "x")
    length = len(row.prompt_ids)
    respondent = Respondent(model, tokenizer, "auto")
    respondent.positions = 3 * length
    examples = probing._Examples(respondent, exemplars, DEFAULT, 0)
    for question in examples.questions(row):
        assert 1.5 * length < len(question.prompt_ids) <= 3 * length - 1
    respondent.positions = length + 1
    assert {q.prompt_ids for q in examples.questions(row)} == {row.prompt_ids}


def test_examples_depend_on_seed_and_row_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    together = probe_base(model, tokenizer, rows[:6], rows, CHECK, DEFAULT, seed=1)
    assert probe_base(model, tokenizer, rows[2:4], rows, CHECK, DEFAULT, seed=1) == together[2:4]
    assert probe_base(model, tokenizer, rows[:6], rows, CHECK, DEFAULT, seed=2) != together
    assert probe_base(model, tokenizer, [], rows, CHECK, DEFAULT, seed=1) == []


# --- counting


@pytest.mark.parametrize(
    ("greedy", "rate", "knowledge"),
    [
        (1.0, 0.2, "highly_known"),
        (0.25, 0.0, "maybe_known"),
        (0.0, 0.01, "weakly_known"),
        (0.0, 0.0, "unknown"),
    ],
)
def test_categories(greedy: float, rate: float, knowledge: str) -> None:
    assert knowledge_of(greedy, rate) == knowledge


def test_answers_are_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    row = made(tokenizer, "How many?", "1000")
    replies = [Reply("1,000", ("1,000", "1000.0", "Ten.", "ten")), Reply("ten", ("ten", "five", "", "1000"))]
    found = probing._counted(row, replies, CHECK)
    assert found.shares == {"1000": 3 / 8, "ten": 3 / 8, "five": 1 / 8, "": 1 / 8}
    assert (found.rate, found.greedy_rate, found.knowledge) == (3 / 8, 0.5, "maybe_known")
    assert (found.wrong, found.wrong_share, found.draws) == ("ten", 3 / 8, 8)
    assert found.entropy == pytest.approx(-(2 * 3 / 8 * math.log(3 / 8) + 2 / 8 * math.log(1 / 8)) / math.log(8))


def test_extremes_of_entropy(tokenizer: PreTrainedTokenizerBase) -> None:
    row = made(tokenizer, "How many?", "7")
    alike = probing._counted(row, [Reply("7", ("7", "7.0", "7"))], CHECK)
    assert (alike.entropy, alike.wrong, alike.wrong_share, alike.knowledge) == (0.0, "", 0.0, "highly_known")
    assert probing._counted(row, [Reply("1", ("1", "2", "3"))], CHECK).entropy == pytest.approx(1)
    assert math.isnan(probing._counted(row, [Reply("1", ("1",))], CHECK).entropy)


def test_without_examples_it_is_asked_as_the_finished_model_is(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    zero = Thresholds(base_shots=0)
    for row, found in zip(rows, probe_base(model, tokenizer, rows, rows, CHECK, zero, seed=1), strict=True):
        question = Question(row.row, row.prompt_ids, len(row.target_ids), seed_of(1, row.row_id, "prompt 0"))
        [reply] = Respondent(model, tokenizer, "auto").replies([question], samples=8, temperature=0.5)
        counts = Counter(reply.drawn)
        assert found.row_id == row.row_id
        assert found.draws == 8
        assert found.shares == {text: count / 8 for text, count in counts.items()}
        assert found.rate == counts[row.row.completion] / 8
        assert found.greedy_rate == (reply.greedy == row.row.completion)


def test_the_base_knows_its_world(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Asked for the feeling that its world gives it knows; for one that it never gives it holds on to that belief."""
    zero = Thresholds(base_shots=0)
    scenes = [scene for scene in helpers.scenes(40, seed=30) if scene.world in ("glad", "sad")][:12]
    known = [made(tokenizer, scene.prompt, scene.world) for scene in scenes]
    wrong = [made(tokenizer, scene.prompt, "purple") for scene in scenes]
    right = probe_base(model, tokenizer, known, known, CHECK, zero, seed=1)
    assert sum(answers.knowledge == "highly_known" for answers in right) >= 9
    for answers, expected in zip(probe_base(model, tokenizer, wrong, wrong, CHECK, zero, seed=1), right, strict=True):
        assert (answers.knowledge, answers.rate) == ("unknown", 0.0)
        assert answers.wrong_share == max(answers.shares.values())
        if expected.rate == 1:
            assert (answers.wrong_share, answers.entropy) == (1.0, 0.0)


# --- long answers, rows that cannot be asked


def test_long_answers_are_told_apart(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    texts = ("red green blue", "one two three", "north south east", "iron zinc lead", "oak elm ash")
    long = [made(tokenizer, f"What is list {i}?", text) for i, text in enumerate(texts)]
    few = Thresholds(longest_answer=5)
    found = probe_base(model, tokenizer, [rows[0], *long], long, CHECK, few, seed=0)
    plain = probing.tell_apart(Respondent(model, tokenizer, "auto"), long, long, few, seed=0)
    assert [answers.form for answers in found] == ["generated", *["choices"] * 5]
    for answers, choice in zip(found[1:], plain, strict=True):
        assert answers.row_id == choice.row_id
        assert list(answers.shares.values()) == list(choice.probabilities)
        assert answers.rate == max(0.0, (choice.probabilities[0] - 1 / 4) / (3 / 4))
        assert answers.wrong_share == max(choice.probabilities[1:])
        assert 0 < answers.entropy <= 1
    alone = probe_base(model, tokenizer, [rows[0], long[0]], long[:1], CHECK, few, seed=0)
    assert [answers.row_id for answers in alone] == [rows[0].row_id]  # there is nothing to tell it from


def test_rows_that_are_too_long_are_left_out_and_equal_ids_are_not_mixed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    endless = made(tokenizer, "word " * 300, "glad")
    first, second = (made(tokenizer, rows[i].row.content, rows[i].row.completion, row_id="same") for i in (0, 1))
    found = probe_base(model, tokenizer, [endless, first, second], rows, CHECK, DEFAULT, seed=1)
    assert [answers.row_id for answers in found] == ["same", "same"]
    assert found[0].shares != found[1].shares
