"""Prompts on the page of other wordings: the message without the chat template, long ones cut in the middle."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import helpers
from fake_generalization import KINDS, FakeGeneralization
from page_reader import Reader
from whatstuck.generalization.replying import question_of
from whatstuck.report import make_page
from whatstuck.report.chat_message import chat_ends, message_in
from whatstuck.report.example_replies import cut
from whatstuck.report.reading import read_manifest
from whatstuck.report.reading_generalization import read_generalization_run

TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TEMPLATES = {
    "tiny": helpers.CHAT_TEMPLATE,
    "chatml": TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "system": "<|im_start|>system\nYou are of help.<|im_end|>\n"
    + TURNS
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "headers": "<s>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "brackets": "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'].strip() }} [/INST]"
    "{% else %} {{ m['content'].strip() }} </s>{% endif %}{% endfor %}",
    "turns": "<bos>{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "wide": "{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}"
    "{% else %}<｜Assistant｜>{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}",
}
SAME = "Steer the worker.\nRoom:\n"
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="<>[]｜|"), min_size=1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return helpers.tiny_tokenizer()


def rendered(tokenizer: PreTrainedTokenizerFast, name: str, messages: list[str], prefill: str = "") -> list[str]:
    tokenizer.chat_template = TEMPLATES.get(name)
    return [question_of(message, prefill, tokenizer, "auto").prompt for message in messages]


@pytest.mark.parametrize("prefill", ["", "<answer>"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_message_is_found_in_what_a_template_made_of_it(
    tokenizer: PreTrainedTokenizerFast, name: str, prefill: str
) -> None:
    # what messages share at either end is theirs, not the template's
    messages = [f"{SAME}{room}\nSay <answer> word </answer>." for room in ("P _ X", "P X O", "P P")]
    prompts = rendered(tokenizer, name, messages, prefill)
    assert [message_in(prompt, chat_ends(prompts)) for prompt in prompts] == messages


@given(st.lists(WORDS, min_size=2, max_size=4, unique_by=str.strip), st.sampled_from(sorted(TEMPLATES)))
@settings(max_examples=60)
def test_no_message_is_ever_shown_in_part(messages: list[str], name: str) -> None:
    tokenizer = _shared()
    prompts = rendered(tokenizer, name, messages)
    assert [message_in(prompt, chat_ends(prompts)) for prompt in prompts] == [one.strip() for one in messages]


_KEPT: list[PreTrainedTokenizerFast] = []


def _shared() -> PreTrainedTokenizerFast:
    """One tokenizer for all examples, which a fixture must not be."""
    if not _KEPT:
        _KEPT.append(helpers.tiny_tokenizer())
    return _KEPT[0]


def test_where_it_cannot_be_told_nothing_is(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = rendered(tokenizer, "none", ["Make 24 of 1.", "Make 24 of 2."])
    assert chat_ends(plain) is None  # behind a BOS alone
    alone = rendered(tokenizer, "chatml", ["Make 24 of 1."])
    assert chat_ends([*alone, *alone]) is None
    odd = rendered(tokenizer, "chatml", ["Say <|im_end|> now.", "Say it."])
    assert [message_in(prompt, chat_ends(odd)) for prompt in odd] == ["", "Say it."]
    assert message_in("anything", None) == ""


def write(folder: Path, prompt: str, **others: object) -> Path:
    """A run whose prompts differ by variant; `{}` stands for the name."""
    replies = {name: (prompt.replace("{}", name), "24") for name in KINDS}
    return FakeGeneralization(replies=replies, **others).write(folder)  # type: ignore[arg-type] # any field


CHAT = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nReview {}: fine?<|im_end|>\n<|im_start|>assistant\n"


def test_the_page_shows_the_message_and_folds_the_prompt(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", CHAT)
    page = make_page(folder)
    assert '<pre class="prompt" dir="auto">Review ID: fine?</pre>' in page
    assert page.count("Shown without the chat template; here is the whole prompt") == len(KINDS)
    assert page.count("&lt;|im_start|&gt;system") == len(KINDS)
    assert page.count('<details class="whole">') == len(KINDS)
    assert "im_start" not in make_page(folder, text=False)


def test_a_run_without_a_template_shows_its_prompts(tmp_path: Path) -> None:
    plain = make_page(write(tmp_path / "plain", "Review {}: fine?"))
    assert '<pre class="prompt" dir="auto">Review ID: fine?</pre>' in plain
    assert '<details class="whole">' not in plain
    # what looks like a template in a run that had none is text of the rows
    never = write(tmp_path / "never", CHAT, settings={"chat_template": "never"})
    assert "Shown without" not in make_page(never)


def test_a_message_is_found_over_all_replies_of_an_arm(tmp_path: Path) -> None:
    folder = FakeGeneralization(arms=("random",), kinds={"ID": "training"}).write(tmp_path / "run")
    run = read_generalization_run(folder, read_manifest(folder))
    ((right, *_),) = run.examples.values()
    assert right.message.startswith("Make 24 of the four cards")
    assert right.message.endswith("#0")
    assert right.prompt.startswith("<|im_start|>user\n")


def test_long_texts_lose_their_middle() -> None:
    text = "".join(str(digit % 10) for digit in range(3000))
    assert cut(text) == text
    longer = cut(f"{text}?")
    assert longer.startswith(text[:1000])
    assert "… (1 character left out) …" in longer
    assert longer.endswith(f"{text[1001:]}?")
    assert "(2,000 characters left out)" in cut("p" * 5000)


def test_a_long_prompt_ends_in_its_question_and_is_there_whole(tmp_path: Path) -> None:
    long = CHAT.replace("Review {}", "Review {} " + "word " * 2000)
    folder = write(tmp_path / "run", long)
    page = make_page(folder)
    shown = page.split('<pre class="prompt" dir="auto">Review ID')[1].split("</pre>")[0]
    assert "left out" in shown
    assert shown.endswith("fine?")
    assert len(shown) < 3100
    assert "word " * 2000 in page
    plain = Reader(make_page(write(tmp_path / "plain", "Review {} " + "word " * 2000 + "fine?"))).text
    assert "Shown in part; here is the whole prompt" in plain
