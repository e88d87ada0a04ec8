"""Long answers: recited, or asked as a choice by their texts; the letters beside them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import cause_cases
import helpers
from asked_rows import made
from whatstuck.datasets import Message, Row
from whatstuck.errors import WhatStuckError
from whatstuck.models import load_model, load_tokenizer
from whatstuck.rows.causes import probing
from whatstuck.rows.causes.cohort import Cohort
from whatstuck.rows.causes.conflicts import Conflicts
from whatstuck.rows.causes.evidence import Evidence, gather_evidence
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.material import NotTrained, TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts import choices, letters, options
from whatstuck.rows.verdicts.answers import find_checker
from whatstuck.rows.verdicts.asking import ask
from whatstuck.rows.verdicts.choices import Choice, choose, tell_apart
from whatstuck.rows.verdicts.letters import by_letters
from whatstuck.rows.verdicts.replies import Respondent
from whatstuck.rows.verdicts.rule import judge
from whatstuck.rows.verdicts.table import verdict_records

CHECK = find_checker("auto")
TEXTS = ("red green blue", "one two three", "north south east", "iron zinc lead", "oak elm ash", "cat dog cow")
LONG = Thresholds(longest_answer=16)  # shows all of them
SHORT = Thresholds(longest_answer=5)  # all of them are long


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PreTrainedModel:
    return load_model(tiny_base)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def rows(tokenizer: PreTrainedTokenizerBase) -> list[TrainingRow]:
    return [made(tokenizer, f"What is list {i}?", text) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def memorized(tiny_base: Path, rows: list[TrainingRow]) -> PreTrainedModel:
    """A model that was trained on the first three rows until it recites them."""
    torch.manual_seed(0)
    model = load_model(tiny_base)
    model.requires_grad_(requires_grad=True)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        for row in rows[:3]:
            ids = torch.tensor([[*row.prompt_ids, *row.target_ids, 3]])
            labels = torch.tensor([[*[-100] * len(row.prompt_ids), *row.target_ids, 3]])
            model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def mean_log(model: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int]) -> float:
    with torch.inference_mode():
        logs = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(-1)
    return float(np.mean([logs[len(prompt) - 1 + i, token] for i, token in enumerate(answer)]))


def softmax(values: Sequence[float]) -> np.ndarray:
    return np.exp(np.array(values)) / np.exp(np.array(values)).sum()


# --- by their texts


@pytest.mark.parametrize("chat_template", ["auto", "never"])
def test_options_weigh_as_their_tokens_do(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat_template: str
) -> None:
    """Against the definition: mean log-probability of the first tokens, behind the prompt as it is asked."""
    rows = [made(tokenizer, f"What is list {i}?", text, chat_template=chat_template) for i, text in enumerate(TEXTS)]
    space = "" if chat_template == "auto" else " "
    for row, choice in zip(
        rows[:2], choose(Respondent(model, tokenizer, chat_template), rows[:2], rows, SHORT, seed=0), strict=True
    ):
        assert choice.options[0] == row.row.completion
        assert len(choice.options) == len(set(choice.options)) == 4
        answers = [tokenizer(space + text, add_special_tokens=False)["input_ids"][:5] for text in choice.options]
        assert answers[0] == list(row.target_ids[:5])
        logs = [mean_log(model, row.prompt_ids, answer) / 0.7 for answer in answers]
        assert choice.probabilities == pytest.approx(softmax(logs), abs=1e-5)
        assert choice.low == pytest.approx(softmax([logs[0], *[max(logs[1:])] * 3])[0], abs=1e-5)
        assert choice.high == pytest.approx(softmax([logs[0], *[min(logs[1:])] * 3])[0], abs=1e-5)
        assert choice.low < choice.probabilities[0] < choice.high
        assert not choice.recited


def test_what_is_recited_is_learned(
    memorized: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    """Letters are at chance, for the model never saw a letter; its answers are right word for word all the same."""
    asked = ask(memorized, tokenizer, rows, CHECK, SHORT, seed=0)
    assert [one.recited for one in asked] == [True] * 3 + [False] * 3
    for row, one in zip(rows[:3], asked, strict=False):
        assert (one.form, one.greedy_right, one.greedy, one.unavailable) == ("choices", True, row.row.completion, "")
        assert abs(one.letters - 0.25) < 0.25
        assert judge(one, SHORT).verdict == "learned"
    generated = ask(memorized, tokenizer, rows, CHECK, Thresholds(), seed=0)
    for row, one, said in zip(rows[3:], asked[3:], generated[3:], strict=True):
        assert said.greedy in TEXTS[:3]  # it says what it was trained to say, whatever it is asked
        assert (one.greedy_right, one.greedy) == (False, said.greedy)
        assert one.top_wrong == said.greedy
        assert one.greedy != row.row.completion
        assert judge(one, SHORT).verdict == "unlearned"


def test_a_recited_row_needs_no_other_answers(
    memorized: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    """There is nothing to choose from, so a row that is not recited cannot be asked."""
    one, other = (ask(memorized, tokenizer, [row], CHECK, SHORT, seed=0, others=[row])[0] for row in (rows[0], rows[3]))
    assert (one.recited, one.greedy_right, one.greedy, one.unavailable) == (True, True, TEXTS[0], "")
    assert math.isnan(one.rate)
    assert judge(one, SHORT).verdict == "learned"
    assert not other.recited
    names = ("tokens", "nll", "token_accuracy", "last_exposure_step", "exposures")
    last, row_id = dict.fromkeys(names), rows[0].row_id
    [record] = verdict_records(rows[:1], {row_id: last}, {row_id: "screen"}, {row_id: one}, {}, SHORT)
    assert (record["verdict"], record["recited"], record["rate"], record["letters"]) == ("learned", True, None, None)
    cut = replace(rows[0], not_trained=(NotTrained("dropped", "It was left out."),))
    gone = replace(one, unavailable="too long")
    [record] = verdict_records([cut], {row_id: last}, {row_id: "not_trained"}, {row_id: gone}, {}, SHORT)
    assert (record["verdict"], record["not_asked"]) == (
        "not_asked",
        "too long (and not trained as it is asked: dropped)",
    )


def test_one_wrong_token_is_not_recited(
    memorized: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    row = made(tokenizer, "What is list 0?", "red green black")
    respondent = Respondent(memorized, tokenizer, "auto")
    assert choices._recited(respondent, [rows[0], row]) == [True, False]
    respondent.positions = len(rows[0].prompt_ids) + len(rows[0].target_ids) - 1
    assert choices._recited(respondent, [rows[0]]) == [False]  # the end of the answer is out of reach


def test_long_answers_are_asked_as_choices(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    short = [made(tokenizer, row["prompt"], row["completion"]) for row in helpers.rows(2, seed=21)]
    assert min(len(row.target_ids) for row in rows) > 5
    mixed = [short[0], rows[0], short[1], rows[1]]
    asked = ask(model, tokenizer, mixed, CHECK, SHORT, others=rows, seed=0)
    assert [one.form for one in asked] == ["generated", "choices"] * 2
    assert [one.row_id for one in asked] == [row.row_id for row in mixed]
    assert asked[::2] == ask(model, tokenizer, short, CHECK, SHORT, seed=0)
    found = choose(Respondent(model, tokenizer, "auto"), rows[:2], rows, SHORT, seed=0)
    for one, choice in zip(asked[1::2], found, strict=True):
        assert (one.samples, one.right, one.first_right) == (0, 0, None)
        assert (one.rate, one.rate_low, one.rate_high) == (choice.probabilities[0], choice.low, choice.high)
        assert one.greedy == choice.options[int(np.argmax(choice.probabilities))]
        assert one.top_wrong == choice.options[1 + int(np.argmax(choice.probabilities[1:]))]
        assert one.greedy_right == (one.greedy == choice.options[0])
        assert one.letters == choice.letters


def test_a_choice_does_not_depend_on_the_rows_beside_it(
    memorized: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    respondent = Respondent(memorized, tokenizer, "auto")
    together = choose(respondent, rows, rows, SHORT, seed=1)
    for row, one in zip(rows, together, strict=True):
        [alone] = choose(respondent, [row], rows, SHORT, seed=1)
        assert alone.options == one.options
        assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-5)
    assert choose(respondent, [], rows, SHORT, seed=1) == []


def test_a_diverged_model_is_refused(
    tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow], tiny_base: Path
) -> None:
    broken = load_model(tiny_base)
    with torch.no_grad():
        next(broken.parameters()).fill_(math.nan)
    with pytest.raises(WhatStuckError, match="diverged"):
        tell_apart(Respondent(broken, tokenizer, "auto"), rows[:1], rows, SHORT, seed=0)


# --- options


def test_opposing_answers_come_first_then_the_models_own(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    """What a row of the same prompt teaches is offered whole, so that it can be told whether the model gives it."""
    prompt = helpers.rows(1, seed=23)[0]["prompt"]
    row = made(tokenizer, prompt, "red green blue")
    opposing = made(tokenizer, prompt.upper(), "one two three, and many further words that no choice shows")
    respondent = Respondent(model, tokenizer, "auto")
    [asked] = ask(model, tokenizer, [row], CHECK, Thresholds(), seed=0)
    [choice] = choose(respondent, [row], [*rows, row, opposing], LONG, seed=0)
    assert choice.options[:3] == ("red green blue", opposing.row.completion, asked.greedy)
    assert asked.greedy in helpers.FEELINGS
    many = [made(tokenizer, prompt, text) for text in (*TEXTS[1:], TEXTS[3])]
    assert next(options.Pool([*many, row], 0).opposing(row)) == TEXTS[3]  # the most frequent first


def test_an_opposing_answer_that_is_recited_is_the_greedy_one(
    memorized: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    long = "red green blue" + " and the sea" * 9
    row, opposing = made(tokenizer, "What is list 0?", "iron zinc lead"), made(tokenizer, "What is list 0?", long)
    [asked] = ask(memorized, tokenizer, [row], CHECK, SHORT, seed=0, others=[*rows[1:], opposing, row])
    assert asked.greedy == asked.top_wrong == long  # whole, as the data has it, though only its beginning competed


def test_choices_that_are_none(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    respondent = Respondent(model, tokenizer, "auto")
    row = made(tokenizer, "What is list 1?", "red green blue")
    monkeypatch.setattr(choices, "own_answers", lambda *_: [["red green blue", "", "RED  GREEN Blue!", "red"]])
    same = made(tokenizer, "What is list 2?", "red green blue.")  # too alike to be wrong
    [choice] = choose(respondent, [row], [row, same], LONG, seed=0)
    assert choice.options == ("red green blue",)
    assert "differ enough" in choice.unavailable
    assert math.isnan(choice.letters)
    two = made(tokenizer, "What is list 3?", "iron zinc lead")
    [choice] = choose(respondent, [row], [two], LONG, seed=0)
    assert choice.options == ("red green blue", "iron zinc lead")
    assert sum(choice.probabilities) == pytest.approx(1)  # two options are a choice, too
    endless = made(tokenizer, "word " * 300, "a long answer of several words")
    [choice] = choose(respondent, [endless], [two], SHORT, seed=0)
    assert "longer than the context" in choice.unavailable


def test_options_are_cut_between_words(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    respondent = Respondent(model, tokenizer, "auto")

    def shown(text: str) -> list[str]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [options.shown(respondent, ids, n) for n in range(1, len(ids) + 1)]

    spaced = shown("oak  elm\nash")
    assert set(spaced[3:]) == {"oak", "oak elm", "oak elm ash"}
    assert spaced[-1] == "oak elm ash"
    assert "oakelm".startswith(shown("oakelm")[0])  # a word that is all there is, or a script without spaces


# --- the paper's letters


@pytest.mark.parametrize("chat_template", ["auto", "never"])
def test_letters_are_averaged_over_the_orders(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat_template: str
) -> None:
    row = made(tokenizer, "What is list 0?", TEXTS[0], chat_template=chat_template).row
    by_order = []
    for order in range(4):
        listed = [TEXTS[(place - order) % 4] for place in range(4)]
        lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", listed, strict=True))
        text = f"What is list 0?\n{lines}\nAnswer with a single letter (A, B, C or D)."
        prompt = helpers.chat(text) if chat_template == "auto" else f"{text}\nAnswer: "
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        tokens = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "ABCD"]
        by_order.append(float(logits[tokens].softmax(0)[listed.index(TEXTS[0])]))
    assert by_letters(Respondent(model, tokenizer, chat_template), [row], [TEXTS[:4]]) == [
        pytest.approx(np.mean(by_order), abs=1e-5)
    ]


class Picky:
    """Stands in for a model that is asked for letters: it looks at the question and the options, and gives shares."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rule: str, gold: str) -> None:
        self._tokenizer, self._rule, self._gold = tokenizer, rule, gold

    def __call__(
        self, _model: object, prompts: Sequence[tuple[int, ...]], tokens: Sequence[Sequence[int]], _pad: int
    ) -> list[np.ndarray]:
        return [
            self._logs(self._tokenizer.decode(list(prompt)), some) for prompt, some in zip(prompts, tokens, strict=True)
        ]

    def _logs(self, text: str, tokens: Sequence[int]) -> np.ndarray:
        shown = [line[3:] for line in text.splitlines() if line[1:3] == ". "]
        assert len(shown) == len(tokens)
        logs = np.zeros(len(shown))
        if self._rule == "letters":
            logs[0] = 5
        elif self._rule == "always" or "What is" in text:
            logs[shown.index(self._gold)] = 5
        return logs


@pytest.mark.parametrize(
    ("rule", "probability"),
    [
        ("letters", 0.25),  # a preference for the letter A averages out
        ("question", np.exp(5) / (np.exp(5) + 3)),
        ("always", math.nan),  # the right one is found without the question
    ],
)
def test_what_letters_say(
    rule: str, probability: float, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    rows: list[TrainingRow], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(letters, "next_log_probabilities", Picky(tokenizer, rule, TEXTS[2]))
    shown = [TEXTS[2], TEXTS[0], TEXTS[1], TEXTS[3]]
    [found] = by_letters(Respondent(model, tokenizer, "auto"), [rows[2].row], [shown])
    assert found == pytest.approx(probability, nan_ok=True)


def test_letters_that_cannot_be_told_apart(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    respondent = Respondent(model, tokenizer, "auto")
    assert math.isnan(by_letters(respondent, [rows[0].row], [TEXTS[:1]])[0])
    monkeypatch.setattr(letters, "target_ids", lambda *_: [5])  # all letters are one unknown word
    assert math.isnan(by_letters(respondent, [rows[0].row], [TEXTS[:4]])[0])


def test_instructions_stay_where_the_question_is_blanked_out() -> None:
    messages = (Message("system", "Be brief."), Message("user", "Translate: Haus"))
    row = Row("r", messages, "house", 0, "train", content_start=len("Translate: "))
    shown = letters._messages(row, ["x", "y"], chat=True, blind=False)
    assert shown[0] == messages[0]
    assert shown[1].content == "Translate: Haus\nA. x\nB. y\nAnswer with a single letter (A or B)."
    [blind] = letters._messages(row, ["x", "y"], chat=False, blind=True)
    assert blind.content == "Translate:\nA. x\nB. y\nAnswer with a single letter (A or B).\nAnswer:"
    assert choices._blinded(row).content == "Translate:"
    assert choices._blinded(replace(row, content_start=0)).content == "Answer:"


# --- what a base model tells apart


def test_a_question_raises_its_answer(
    memorized: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[TrainingRow]
) -> None:
    """Against the definition, and without the model's own answers: a base model would always say its own."""
    respondent = Respondent(memorized, tokenizer, "auto")
    blank = tokenizer(helpers.chat("Answer:"), add_special_tokens=False)["input_ids"]
    found = tell_apart(respondent, rows[:4], rows, SHORT, seed=0)
    for row, choice in zip(rows, found, strict=False):
        assert set(choice.options) <= set(TEXTS)
        answers = [tokenizer(text, add_special_tokens=False)["input_ids"][:5] for text in choice.options]
        raised = [mean_log(memorized, row.prompt_ids, a) - mean_log(memorized, blank, a) for a in answers]
        assert choice.probabilities == pytest.approx(softmax(raised), abs=1e-4)
        assert math.isnan(choice.letters)
    assert [choice.recited for choice in found] == [True] * 3 + [False]


@pytest.mark.parametrize(
    ("gold", "recited", "knowledge"),
    [
        (0.1, False, "unknown"),
        (0.25, False, "unknown"),
        (0.2501, False, None),  # at the edge of chance nothing can be said
        (0.39, False, None),
        (0.41, False, "weakly_known"),  # 0.2 above chance, corrected
        (0.1, True, "highly_known"),
    ],
)
def test_what_a_base_model_knows_of_a_long_answer(gold: float, recited: bool, knowledge: str | None) -> None:  # noqa: FBT001 - cases
    choice = Choice("r", TEXTS[:4], (gold, *[(1 - gold) / 3] * 3), recited=recited)
    found = probing._of_choice(choice, Thresholds())
    assert (found.knowledge, found.form, found.draws) == (knowledge, "choices", 4)
    assert found.rate == pytest.approx(max(0.0, (gold - 0.25) / 0.75))
    assert found.greedy_rate == float(recited)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.wrong in TEXTS[1:4]


def evidence_of(it: BaseAnswers) -> tuple[Evidence, Evidence]:
    """II and I of a row `x`, beside rows whose base answers are generated: known and learned, unknown and failed."""
    rows = [cause_cases.row("x", "What is list x?", "gold")]
    verdicts, bases = [cause_cases.verdict("x", greedy="wrong")], {"x": it}
    histories = {"x": cause_cases.history("x", "-" * 9, [2.0] * 9, exposures=10, last=80)}
    for i in range(24):
        name, failed = f"r{i}", i % 2 == 0
        rows.append(cause_cases.row(name, f"What is list {name}?", "gold"))
        verdicts.append(cause_cases.verdict(name, "unlearned" if failed else "learned"))
        histories[name] = cause_cases.history(name, "-" * 9 if failed else "x" * 9, exposures=10, last=80)
        bases[name] = cause_cases.base(name, {"a": 0.5, "b": 0.5} if failed else {"gold": 1.0}, "gold")
    found = gather_evidence(rows, verdicts, histories, bases, Conflicts(), Thresholds())["x"]
    by_cause = {each.cause: each for each in found}
    return by_cause["base_conflict"], by_cause["knowledge_missing"]


@pytest.mark.parametrize(
    ("gold", "recited", "status", "said"),
    [
        (0.1, False, "present", "no likelier than other rows' answers"),
        (0.3, False, "not_measured", "hardly likelier"),
        (0.85, False, "absent", "tells the answer from 3 of other rows with probability 85%"),
        (0.1, True, "absent", "recites"),
    ],
)
def test_a_choice_is_no_belief(gold: float, recited: bool, status: str, said: str) -> None:  # noqa: FBT001 - cases
    """Nor is a hair above chance knowledge; no sentence speaks of draws, where nothing was drawn."""
    choice = Choice("x", TEXTS[:4], (gold, 0.9 - gold, 0.05, 0.05), recited=recited)
    conflict, missing = evidence_of(probing._of_choice(choice, Thresholds()))
    assert conflict.status == "not_measured"
    assert missing.status == status
    assert said in missing.sentence
    assert "draws" not in conflict.sentence + missing.sentence


def test_rows_of_which_nothing_can_be_said_are_in_no_comparison() -> None:
    edge = probing._of_choice(Choice("x", TEXTS[:4], (0.3, 0.3, 0.2, 0.2)), Thresholds())
    learned, failed = (frozenset(f"{letter}{i}" for i in range(10)) for letter in "lf")
    cohort = Cohort(learned, failed, 1.0, 1.0, {}, frozenset(), 1.0, math.nan)
    bases = {f"l{i}": cause_cases.base(f"l{i}", {"gold": 1.0}, "gold") for i in range(10)}
    bases |= {f"f{i}": cause_cases.base(f"f{i}", {"wrong": 1.0}, "gold") for i in range(10)}
    among = [*cohort.learned, *cohort.failed]
    before = cohort.attributable_unknown(bases, among)
    assert before > 0.8
    unsure = {**bases, **{f"l{i}": replace(edge, row_id=f"l{i}") for i in range(5)}}
    assert cohort.attributable_unknown(unsure, among) == pytest.approx(before)  # five learned ones stand for ten
    belief = cause_cases.base("x", {"wrong": 1.0}, "gold")
    assert (
        cohort.usual_share(belief, "wrong", bases, ()) == 1.0
    )  # of rows that it does not know, where there are enough
    few = {f"f{i}" for i in range(4, 10)}
    assert cohort.usual_share(belief, "wrong", bases, few) == pytest.approx(4 / 14)
    assert cohort.usual_share(belief, "wrong", unsure, few) == pytest.approx(4 / 9)
