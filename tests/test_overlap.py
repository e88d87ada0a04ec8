"""Which prompts are too near to be examples for each other."""

from dataclasses import replace
from pathlib import Path

import pytest

from asked_rows import made
from whatstuck.models import load_model, load_tokenizer
from whatstuck.rows.causes.overlap import Overlap
from whatstuck.rows.causes.probing import _Examples
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.replies import Respondent

LANDS = [f"Land{letter}a" for letter in "bcdfghjklmnpqrstvwxz"]
FORMS = ("What is the capital of {}?", "Tell me which city is the seat of {}.", "What is the currency of {}?")


@pytest.mark.parametrize("copies", [1, 30])
def test_prompts_about_one_thing_are_near_and_those_of_one_form_are_not(copies: int) -> None:
    texts = [form.format(land) for land in LANDS for form in FORMS]
    overlap = Overlap([*texts, *texts[:3] * copies])  # a question that is asked often is no other question
    for text in (texts[0], texts[1], texts[31]):
        land = text.split("Land")[1][:2]
        assert [other for other in texts if overlap.near(text, other)] == [t for t in texts if f"Land{land}" in t]
        assert all(overlap.near(other, text) == overlap.near(text, other) for other in texts)


def test_words_that_nobody_else_has_do_not_hide_the_shared_one() -> None:
    texts = [form.format(land) for land in LANDS for form in FORMS]
    mine, other = "What is the capital of Landba?", "Which settlement of Landba holds most inhabitants?"
    assert Overlap([*texts, other]).near(mine, other)
    assert not Overlap([*texts, other]).near("What is the capital of Landca?", other)


def test_any_script_and_no_words_at_all() -> None:
    texts = ["请问法国的首都是什么", "法国的首都是什么", "德国的首都是什么", "日本的首都是什么", "中国的货币叫什么"]
    overlap = Overlap(texts)
    assert overlap.near(texts[0], texts[1])
    assert not overlap.near(texts[1], texts[2])
    assert Overlap([]).near("?!", "?!")
    assert Overlap(["?!", "Who rules it?"]).near("?!", "?!")


def test_no_example_answers_the_question_in_other_words(tiny_base: Path) -> None:
    """With few rows of the form, the paraphrase would be an example in all prompts."""
    tokenizer = load_tokenizer(tiny_base)
    animals = ("Birds", "Dogs", "Cows", "Bees", "Cats")
    row = made(tokenizer, "What is the capital city of Ruritania?", "Strelsau")
    paraphrase = made(tokenizer, "What is the capital of Ruritania?", "Zenda")
    others = [made(tokenizer, f"{animal} {i} sing loudly at noon", "yes") for i, animal in enumerate(animals)]
    examples = _Examples(
        Respondent(load_model(tiny_base), tokenizer, "auto"), [row, paraphrase, *others], Thresholds(), 0
    )
    shown = [tokenizer.decode(list(question.prompt_ids)) for question in examples.questions(row)]
    assert all(text.count("sing loudly") == 4 for text in shown)
    assert not any("Zenda" in text or "the capital of" in text for text in shown)


def test_equal_tokens_are_equal_questions(tiny_base: Path) -> None:
    """Characters that a vocabulary does not have make different texts the same tokens."""
    tokenizer = load_tokenizer(tiny_base)
    row = made(tokenizer, "Translate ☃ now, please", "snow")
    same = replace(made(tokenizer, "Translate ♞ now, please", "horse"), prompt_ids=row.prompt_ids)
    others = [made(tokenizer, f"Translate number {i} now, please", "word") for i in range(9)]
    examples = _Examples(Respondent(load_model(tiny_base), tokenizer, "auto"), [same, *others], Thresholds(), 0)
    shown = [tokenizer.decode(list(question.prompt_ids)) for question in examples.questions(row)]
    assert not any("horse" in text for text in shown)
