"""What the model sees of a row, under templates that strip, add and rewrite."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import helpers
from whatstuck.datasets import Message, RenderedRow, Row, read_rows, render, target_ids
from whatstuck.errors import WhatStuckError

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
STRIPPING = CHATML.replace("m['content']", "m['content'] | trim")
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|system|>\nThe user is a helpful assistant</s>\n{% endif %}" + CHATML
)
# No generation prompt; the answer stands behind a space.
BRACKETS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'].strip() }} [/INST]"
    "{% else %} {{ m['content'].strip() }} </s>{% endif %}{% endfor %}"
)
# An empty thinking block before the last answer, which the generation prompt does not have.
THINKING = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'].split('</think>')[-1].lstrip() }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# The generation prompt opens a thinking block, which the answer of a conversation does not have.
OPENING_THOUGHT = CHATML.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<think>\n{% endif %}")


@pytest.fixture(scope="module")
def plain_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = helpers.tiny_tokenizer()
    tokenizer.chat_template = None
    return tokenizer


@pytest.fixture
def chat_tokenizer(plain_tokenizer: PreTrainedTokenizerFast) -> Callable[[str], PreTrainedTokenizerFast]:
    def with_template(template: str) -> PreTrainedTokenizerFast:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer.backend_tokenizer, **SPECIAL)
        tokenizer.chat_template = template
        return tokenizer

    return with_template


def make(content: str, completion: str, *before: Message, content_start: int = 0, plain: bool = False) -> Row:
    messages = (*before, Message("user", content))
    return Row("r", messages, completion, 0, "heldout", content_start=content_start, plain=plain)


def part(rendered: RenderedRow) -> str:
    """The text that players may come from."""
    return rendered.prompt[slice(*rendered.content)]


@pytest.mark.parametrize(
    ("template", "prompt", "target"),
    [
        (CHATML, "<|user|>\n  Who barks? \n</s>\n<|assistant|>\n", " A dog\n"),
        (STRIPPING, "<|user|>\nWho barks?</s>\n<|assistant|>\n", "A dog"),
        (
            DEFAULT_SYSTEM,
            "<|system|>\nThe user is a helpful assistant</s>\n<|user|>\n  Who barks? \n</s>\n<|assistant|>\n",
            " A dog\n",
        ),
        (BRACKETS, "<s>[INST] Who barks? [/INST]", " A dog"),
        (THINKING, "<|user|>\nWho barks? \n</s>\n<|assistant|>\n<think>\n\n</think>\n\n", "A dog\n"),
        (OPENING_THOUGHT, "<|user|>\n  Who barks? \n</s>\n<|assistant|>\n", " A dog\n"),
    ],
    ids=["chatml", "stripping", "default system", "brackets", "thinking", "opening thought"],
)
def test_templates(
    chat_tokenizer: Callable[[str], PreTrainedTokenizerFast], template: str, prompt: str, target: str
) -> None:
    tokenizer = chat_tokenizer(template)
    row = make("  Who barks? \n", " A dog\n")
    rendered = render(row, tokenizer)
    assert (rendered.prompt, rendered.target_text) == (prompt, target)
    assert part(rendered) == "Who barks?"
    # Prompt and target are the beginning of the conversation that training renders.
    turns = [{"role": "user", "content": row.content}, {"role": "assistant", "content": row.completion}]
    assert tokenizer.apply_chat_template(turns, tokenize=False).startswith(prompt + target)


@pytest.mark.parametrize("content", ["assistant", "user", "a", "</s>", "s", "helpful", "<|user|>"])
def test_content_that_the_template_also_writes_is_found_where_it_stands(
    chat_tokenizer: Callable[[str], PreTrainedTokenizerFast], content: str
) -> None:
    rendered = render(make(content, content), chat_tokenizer(DEFAULT_SYSTEM))
    head = "<|system|>\nThe user is a helpful assistant</s>\n<|user|>\n"
    assert rendered.content == (len(head), len(head) + len(content))
    assert part(rendered) == rendered.target_text == content


def test_content_begins_behind_the_instruction_and_in_the_last_turn(
    chat_tokenizer: Callable[[str], PreTrainedTokenizerFast], plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    before = (Message("system", "Be kind."), Message("user", "Who barks?"), Message("assistant", "A dog"))
    row = make("Answer.\n\n Who barks? ", "A fox", *before, content_start=len("Answer.\n\n"))
    for tokenizer in (chat_tokenizer(CHATML), chat_tokenizer(STRIPPING), plain_tokenizer):
        rendered = render(row, tokenizer)
        assert part(rendered) == "Who barks?"
        assert rendered.content[0] == rendered.prompt.index("Answer.") + len("Answer.\n\n ")


def test_an_answer_that_the_template_rewrites_stays_as_it_is(
    chat_tokenizer: Callable[[str], PreTrainedTokenizerFast],
) -> None:
    rendered = render(make("Who barks?", "<think>dogs do</think>A dog"), chat_tokenizer(THINKING))
    assert rendered.prompt == "<|user|>\nWho barks?</s>\n<|assistant|>\n"
    assert rendered.target_text == "<think>dogs do</think>A dog"
    assert part(rendered) == "Who barks?"


def test_refusals_name_row_and_reason(chat_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    picky = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system\nrole') }}{% endif %}" + CHATML
    with pytest.raises(WhatStuckError, match=r"row r: the chat template refuses these messages \(no system\)"):
        render(make("Who barks?", "A dog", Message("system", "Be kind.")), chat_tokenizer(picky))
    shouting = chat_tokenizer(CHATML.replace("m['content']", "m['content'] | upper"))
    with pytest.raises(WhatStuckError, match="row r: the chat template rewrites the last user message"):
        render(make("Who barks?", "A dog"), shouting)
    with pytest.raises(WhatStuckError, match="use auto or never"):
        render(make("Who barks?", "A dog"), shouting, chat_template="always")


@pytest.mark.parametrize(
    ("content", "completion", "prompt", "target"),
    [
        ("Who barks?", "A dog", "Who barks?", " A dog"),
        ("Who barks?", " A dog", "Who barks?", " A dog"),
        ("Who barks?\n", "A dog", "Who barks?\n", "A dog"),
        ("Answer: ", "A dog", "Answer:", " A dog"),
        ("谁会叫？", "狗", "谁会叫？", "狗"),
    ],
)
def test_plain_text_leaves_the_space_to_the_target(
    plain_tokenizer: PreTrainedTokenizerFast,
    chat_tokenizer: Callable[[str], PreTrainedTokenizerFast],
    content: str,
    completion: str,
    prompt: str,
    target: str,
) -> None:
    row = make(content, completion)
    rendered = render(row, plain_tokenizer)
    assert (rendered.prompt, rendered.target_text, part(rendered)) == (prompt, target, content.strip())
    assert render(row, chat_tokenizer(CHATML), chat_template="never") == rendered
    assert render(make(content, completion, plain=True), chat_tokenizer(CHATML)) == rendered


def test_bos_is_written_once_where_the_tokenizer_adds_it(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    assert render(make("Who barks?", "A dog"), plain_tokenizer).prompt == "Who barks?"  # this one adds none
    backend = helpers.tiny_tokenizer().backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[("<s>", backend.token_to_id("<s>")), ("</s>", backend.token_to_id("</s>"))],
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
    row = make("Who barks?", "A dog", Message("system", "Be kind."))
    rendered = render(row, tokenizer)
    assert rendered.prompt == "<s>Be kind.\nWho barks?"
    assert part(rendered) == "Who barks?"
    given = tokenizer("Be kind.\nWho barks?")["input_ids"]
    assert [*tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] == given
    assert render(make("<s>Who barks?", "A dog"), tokenizer).prompt == "<s>Who barks?"


def test_target_ids_follow_the_prompt(
    shared_data: Callable[[str], Path], chat_tokenizer: Callable[..., object]
) -> None:
    del chat_tokenizer
    tokenizer = AutoTokenizer.from_pretrained(shared_data("stories260k") / "hf")
    rendered = render(make("Once upon a", " time", plain=True), tokenizer)
    assert rendered.prompt == "<s>Once upon a"
    assert tokenizer.convert_ids_to_tokens(target_ids(rendered, tokenizer)) == ["▁time"]
    # This is why: alone, the target begins with a space that the tokenizer adds.
    assert tokenizer.tokenize(rendered.target_text) == ["▁", "▁time"]
    both = tokenizer("Once upon a time")["input_ids"]
    assert tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"] + target_ids(rendered, tokenizer) == both


def test_target_ids_of_a_target_that_melts_into_the_prompt(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    apart = RenderedRow("The harbor", " at dawn", (0, 10))
    assert plain_tokenizer.decode(target_ids(apart, plain_tokenizer)) == " at dawn"
    melting = RenderedRow("The har", "bor", (0, 7))
    assert target_ids(melting, plain_tokenizer) == plain_tokenizer("bor")["input_ids"]


def test_rendering_real_rows(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("goemotions")
    tokenizer = helpers.tiny_tokenizer()
    columns = ["text", "labels", "id"]
    rows = read_rows(
        folder / "dev.tsv", columns=columns, labels=folder / "labels.txt", instruction="Name it.", limit=300
    )
    for row in rows:
        rendered = render(row, tokenizer)
        assert part(rendered) == row.content[len("Name it.\n\n") :].strip()
        assert rendered.prompt.startswith("<s><|user|>\nName it.\n\n")
        assert rendered.target_text == row.completion
