"""Formulas that a model wrote: read as Python would, computed exactly, and refused in no time where illegal."""

import ast
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatstuck.generalization.tasks.general_points.formulas import (
    Formula,
    Number,
    Operation,
    read_formula,
    steps_of,
    value_of,
)


def trees() -> st.SearchStrategy[Formula]:
    return st.recursive(
        st.builds(Number, st.integers(0, 99)),
        lambda inner: st.builds(Operation, st.sampled_from("+-*/"), inner, inner),
        max_leaves=6,
    )


def written(tree: Formula) -> str:
    return (
        str(tree.value) if isinstance(tree, Number) else f"({written(tree.left)}{tree.operator}{written(tree.right)})"
    )


@given(trees())
def test_a_written_formula_is_read_back(tree: Formula) -> None:
    assert read_formula(written(tree)) == tree


@given(st.lists(st.sampled_from([*"0123456789", "12", " ", *"+-*/()"]), min_size=1, max_size=12).map("".join))
def test_what_is_legal_is_what_python_can_read_without_signs(text: str) -> None:
    """An independent reader: Python's own, on formulas without signs before numbers and leading zeros."""
    formula = read_formula(text)
    if formula is None:
        return
    bare = " ".join(str(int(token)) if token.isdecimal() else token for token in _tokens(text))
    assert value_of(formula) == _exact(ast.parse(bare, mode="eval").body)


def _tokens(text: str) -> list[str]:
    spaced = "".join(f" {sign} " if sign in "+-*/()" else sign for sign in text)
    return spaced.split()


def _exact(node: ast.expr) -> Fraction | None:
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    assert isinstance(node, ast.BinOp)
    left, right = _exact(node.left), _exact(node.right)
    if left is None or right is None:
        return None
    if isinstance(node.op, ast.Div):
        return left / right if right else None
    return {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}[type(node.op)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8 / (3 - 8 / 3) = 24", Fraction(24)),
        ("2 × 3 − 1", Fraction(5)),
        ("10 - 2 - 3", Fraction(5)),
        ("12 / 2 / 3", Fraction(2)),
        ("1 / (2 - 2)", None),
    ],
)
def test_formulas_have_exact_values(text: str, value: Fraction | None) -> None:
    formula = read_formula(text)
    assert formula is not None
    assert value_of(formula) == value


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "= 24", "(1 + 2", "1 + 2)", "1 + ", "+ 1", "-5 + 29", "2 ** 3", "4 4", "1 + (2 3)", "()", "1.5 * 16",
        "__import__('os')", "J + 14", "٣ + ٢١", "1 // 2", "(" * 100_000, "9" * 7, "1+" * 100 + "1", "1\x00+2",
    ],
)  # fmt: skip
def test_illegal_formulas_are_refused_in_no_time(text: str) -> None:
    assert read_formula(text) is None


def test_brackets_in_brackets_do_not_exhaust_the_stack() -> None:
    assert read_formula("(" * 59 + "1" + ")" * 59) == Number(1)


def test_steps_show_every_partial_result() -> None:
    formula = read_formula("8 / (3 - 8 / 3)")
    assert formula is not None
    assert list(steps_of(formula)) == ["8 / 3 = 8/3", "3 - (8/3) = 1/3", "8 / (1/3) = 24"]
    broken = read_formula("3 + 1 / (2 - 2)")
    assert broken is not None
    assert list(steps_of(broken)) == ["2 - 2 = 0"]
