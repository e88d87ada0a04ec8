"""What counts as the right answer."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatstuck.datasets import Message, Row
from whatstuck.errors import WhatStuckError
from whatstuck.rows.verdicts.answers import find_checker, normalized


def row(gold: str) -> Row:
    return Row("r7", (Message("user", "Who?"),), gold, 0, "train")


@pytest.mark.parametrize(
    ("name", "gold", "right", "wrong"),
    [
        ("exact", "New York", ["new york", " New  York.", '"New York"', "**New York**"], ["York", "New York City", ""]),
        ("exact", "東京", ["東京。", "「東京」"], ["京都", "東京都"]),
        ("exact", "Straße", ["STRASSE"], ["Strase"]),
        ("exact", "москва", ["Москва!"], ["Минск"]),
        ("exact", "C#", ["c#"], ["C", "C++"]),
        ("exact", "joy, love", ["Joy, love"], ["love, joy"]),
        ("exact", "?!", ["?!"], ["", "!"]),
        ("labels", "joy, love", ["love, joy", "Joy,love."], ["joy", "joy, love, fear"]),
        (
            "number",
            "so 6 * 12 = 72",
            ["72", "it is 72.", "72.0", "144/2"],
            ["so 6 * 12", "7", "172", "none", "80 - 72 is 8"],
        ),
        ("number", "no number", [], ["no number", "3"]),
        ("number", "-5", ["−5", "x = -5"], ["5", "10-5", "10 - 5"]),
        ("contains", "Paris", ["It is Paris.", "paris"], ["Parisian", "Lyon", ""]),
        ("contains", "4", ["x = 4!"], ["14", "4x"]),
        ("contains", "東京", ["それは東京です"], ["京都"]),
        ("contains", "กรุงเทพ", ["คือกรุงเทพครับ"], ["เชียงใหม่"]),
        ("auto", "1,000", ["1000", "1000.00", "$1,000"], ["1", "100", "one"]),
        ("auto", "50%", ["50", "50 %"], ["5"]),
        ("auto", "½", ["0.5", "1/2"], ["2"]),
        ("auto", "٤٢", ["42"], ["24"]),
        ("auto", "007", ["007"], ["7"]),
        ("auto", "1e3", ["1000"], ["1"]),
        ("auto", "2024-05-01", ["2024-05-01"], ["2024-06-01"]),
        ("auto", "1/0", ["1/0"], ["1"]),
        ("auto", "Paris", ["paris"], ["It is Paris"]),
        ("auto", "3 apples", ["3 apples"], ["3", "3 pears"]),
    ],
)
def test_checkers(name: str, gold: str, right: list[str], wrong: list[str]) -> None:
    check = find_checker(name)
    assert [answer for answer in right if not check(row(gold), answer)] == []
    assert [answer for answer in wrong if check(row(gold), answer)] == []


@given(st.text())
def test_normalizing_is_done_once_and_empties_nothing(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)
    assert bool(normalized(text)) == bool(text.strip())


@given(st.text().filter(str.strip))
def test_gold_passes_its_own_checker(gold: str) -> None:
    for name in ("auto", "exact", "contains", "labels"):
        assert find_checker(name)(row(gold), gold)


def test_a_judge_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my_judge_of_rows.py"
    file.write_text(
        "def first_letter(row, answer): return answer[:1] == row.completion[:1]\n"
        "def broken(row, answer): raise ValueError('no\\nidea')\n"
        "def silent(row, answer): pass\n"
        "number = 3\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    for where in ("my_judge_of_rows", str(file)):
        check = find_checker(f"{where}:first_letter")
        assert check(row("Paris"), "Pau")
        assert not check(row("Paris"), "Rome")
    with pytest.raises(WhatStuckError, match=r"^the checker .*:broken failed on row r7: ValueError: no idea$"):
        find_checker("my_judge_of_rows:broken")(row("x"), "y")
    with pytest.raises(WhatStuckError, match="row r7: it returned None"):
        find_checker("my_judge_of_rows:silent")(row("x"), "y")
    with pytest.raises(WhatStuckError, match="no function"):
        find_checker("my_judge_of_rows:number")
    with pytest.raises(WhatStuckError, match="cannot be loaded: ModuleNotFoundError"):
        find_checker("no_such_module_here:f")
    with pytest.raises(WhatStuckError, match="cannot be loaded: FileNotFoundError"):
        find_checker("missing.py:f")
    with pytest.raises(WhatStuckError, match="unknown checker 'fuzzy': use auto, exact"):
        find_checker("fuzzy")
    for name in (":f", "module:"):
        with pytest.raises(WhatStuckError, match="not understood"):
            find_checker(name)
