"""What can be wrong in a task file of a user's own, or in its rows: one line says it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from own_task import BASE, ROWS, write_task
from whatstuck.errors import WhatStuckError


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Function that writes a task file and its rows, and loads it."""
    return partial(write_task, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{a} / {b} :",
            "{a} / {bb} :",
            r"template 'plain' has an unknown slot \{bb\}: did you mean 'b'\?; the columns",
        ),
        ("compare {b} with {a}", "compare {b}", r"template 'polite' lacks the slot \{a\}, which 'plain' has"),
        (
            "Say {no}, or {yes}.",
            "Say {no}.",
            r"template 'polite' lacks the slot \{yes\}, which says what a label means",
        ),
        (
            " : {yes} or {no}?",
            "?",
            r"template 'plain' lacks the slots \{yes\}, \{no\}: no prompt would show the mapping",
        ),
        ("{a} = {b}?", "{a} = {b}? {label}", r"template 'bare' shows the right answer by \{label\}"),
        ("{a} = {b}?", "{a} = {b? ", r"template 'bare' has a lone '\{' in '\{a\} = \{b\?': write \{\{ for a brace"),
        ("{a} = {b}?", "{a} = {b} {}", "has a slot without a name"),
        ("{a} = {b}?", " ", "template 'bare' is empty"),
        ("letters: {yes: A, no: B}", "letters: {yes: A}", "mapping 'letters' gives the label 'no' no meaning"),
        ("letters: {yes: A, no: B}", "letters: {yes: A, no: }", "mapping 'letters' gives the label 'no' no meaning"),
        (
            "letters: {yes: A, no: B}",
            "letters: {yes: A, no: a.}",
            "'yes' and 'no' the same meaning .*no reply tells them",
        ),
        ("{yes: A, no: B}", "{yes: A, no: B, so: C}", "mapping 'letters' has the label 'so', which 'words' has not"),
        ("{yes: Yes, no: No}\n  letters: {yes: A, no: B}\n  swapped: {yes: No, no: Yes}", "{yep: Yes, no: No}", "slot"),
        ("answer: label", "answer: lable", "no column 'lable': did you mean 'label'"),
        ("answer: label", "anwser: label", "unknown key 'anwser': did you mean 'answer'"),
        ("answer: label", "training: plane", "the training template 'plane' is none of .*did you mean 'plain'"),
        ("answer: label", "answer: label\nchecker: exakt", "unknown checker 'exakt': did you mean 'exact'"),
        ("answer: label", "answer: label\nchecker: 'regex: (a'", "regular expression '.a' is wrong"),
        ("answer: label", "answer: label\nchecker: gone.py:f", "the checker 'gone.py:f' cannot be loaded"),
        ("answer: label", "answer: label\nchecker: json:dupms", "cannot be loaded: .*no function of json"),
        ("answer: label", "answer: label\nchecker: number", "line 1: the answer 'No' holds no number"),
        ("answer: label", "answer: label\ntime_limit: -1", "time_limit: Input should be greater than 0"),
        (
            "answer: label",
            "answer: label\nheld_out: [poltie]",
            "no template or mapping 'poltie': did you mean 'polite'",
        ),
        ("answer: label", "answer: label\nheld_out: plain", "'plain' is that of the training"),
        ("answer: label", "answer: label\nfake: bare", "fake must name a mapping"),
        ("answer: label", "answer: label\nreply: so", r"the reply lacks the slot \{answer\}"),
        ("answer: label", "answer: label\nwords: [p, q]", "words must hold at least 4 for 2 labels, .* there are 2"),
        ("answer: label", "answer: label\nharder: {level: 9}", "no row is 'Harder'"),
        ("answer: label", "answer: label\nharder: {depth: 9}", "the column 'depth', which no row has"),
        ("answer: label", "answer: label\nharder: gone.jsonl", "no such file"),
        ("answer: label", "answer: label\nprefill: 'x '", "yaml: prefill: it ends in white space"),
        (
            "letters: {yes: A, no: B}",
            "letters: [A, B]",
            r"mappings.letters: it must hold keys and values .got \[.A., .B.\]",
        ),
        ("answer: label", "answer: label\nharder: {a: [1]}", "harder.a: it must be text .got"),
        ("answer: label", "answer: label\ntrain: [a]", "train: it must be text .got"),
        ("  bare:", "  plain:", "'plain' stands twice"),
        ("  bare:", "  letters:", "two things have the name 'letters'"),
        ("  bare:", "  a/b:", "the name 'a/b' cannot be that of a file"),
        ("  bare:", "  ..:", "the name '..' cannot be that of a file"),
        ("  bare:", '  "a\\0b":', r"the name 'a.x00b' cannot be that of a file"),
        ("  letters:", f"  {'x' * 300}:", "the name 'xxxxxxxxxxxxxxxxxxxx...' is too long: .* at most 100 bytes"),
        ("answer: label", "answer: label\nharder: {le/vel: {level: 1}}", "the name 'le/vel' cannot be that of a file"),
        ("data: rows.jsonl\n", "", "give the rows of the test"),
        ("data: rows.jsonl", "data: gone.jsonl", "no such file"),
        ("templates:", "templates: [", "is no readable YAML"),
    ],
)
def test_one_line_says_what_is_wrong(make: Any, old: str, new: str, message: str) -> None:
    assert BASE.count(old) == 1
    with pytest.raises(WhatStuckError, match=message) as caught:
        make(BASE.replace(old, new))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no rows in it"),
        ([*ROWS, {"a": "x", "b": "y", "label": "yess"}], "line 21: the label 'yess' has no meaning .*mean 'yes'"),
        ([*ROWS, {"a": "x", "label": "yes"}], "line 21: no column 'b'"),
        ([*ROWS, {"a": "x", "b": [], "label": "yes"}], "line 21: the column 'b' must be text or a number, found list"),
        ([*ROWS, {"a": "x", "b": None, "label": "yes"}], "line 21: the column 'b' .* found nothing"),
        ([{"a": "x", "b": "y", "label": "yes", "no": 1}], "'no' is a label and a column"),
        (["text"], "line 1: expected an object with columns, found str"),
    ],
)
def test_one_line_says_which_row_is_wrong(make: Any, rows: Any, message: str) -> None:
    with pytest.raises(WhatStuckError, match=message):
        make(rows=rows)
