"""Read and compute formulas of whole numbers, + - * / and brackets, exactly and without `eval`.

Fractions, because 8 / (3 - 8 / 3) is 24 and floating point says that it is not. A model writes the formula, so
nothing in it may hang or overflow: it is cut off by length before it is read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_TOKEN = re.compile(r"\s*(?:([0-9]+)|([-+*/()]))")
_TYPED = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})
_LONGEST = 120  # characters; five cards take 30, and brackets in brackets must not exhaust the stack
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number."""

    value: int


@dataclass(frozen=True, slots=True)
class Operation:
    """Two formulas and what is done with them."""

    operator: str
    left: "Formula"
    right: "Formula"


Formula = Number | Operation


def read_formula(text: str) -> Formula | None:
    """Read a formula; what follows an equals sign is left out.

    Args:
        text: Such as `"(8 - 4) * 6 = 24"`. A sign before a number, a missing operator, and a bracket that is not
            closed are illegal.

    Returns:
        The formula; None if it is illegal.
    """
    tokens = _tokens(text.partition("=")[0].translate(_TYPED).rstrip())
    if not tokens:
        return None
    reader = _Reader(tokens)
    formula = reader.terms()
    return formula if reader.done else None


def value_of(formula: Formula) -> Fraction | None:
    """Its value; None where it divides by zero."""
    if isinstance(formula, Number):
        return Fraction(formula.value)
    left, right = value_of(formula.left), value_of(formula.right)
    return None if left is None or right is None else combined(left, formula.operator, right)


def combined(left: Fraction, operator: str, right: Fraction) -> Fraction | None:
    """The value of one operation; None where it divides by zero."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    return left / right if right else None


def numbers_in(formula: Formula) -> Iterator[int]:
    """Its numbers, from left to right."""
    if isinstance(formula, Number):
        yield formula.value
    else:
        yield from numbers_in(formula.left)
        yield from numbers_in(formula.right)


def steps_of(formula: Formula) -> Iterator[str]:
    """How it is computed, innermost first: `"8 - 4 = 4"`, `"4 * 6 = 24"`.

    A formula that divides by zero has no steps from there on.
    """
    if isinstance(formula, Number):
        return
    yield from steps_of(formula.left)
    yield from steps_of(formula.right)
    left, right = value_of(formula.left), value_of(formula.right)
    result = None if left is None or right is None else combined(left, formula.operator, right)
    if left is not None and right is not None and result is not None:
        yield f"{_in_text(left)} {formula.operator} {_in_text(right)} = {result}"


def _in_text(value: Fraction) -> str:
    """A value inside a step: a fraction or a negative number would otherwise change what the step says."""
    return str(value) if value.denominator == 1 and value >= 0 else f"({value})"


def _tokens(text: str) -> list[str]:
    """The tokens; none where there is anything else in the text."""
    tokens, at = [], 0
    while at < len(text) <= _LONGEST:
        match = _TOKEN.match(text, at)
        if match is None or len(match[1] or "") > _DIGITS:
            return []
        tokens.append(match[0].strip())
        at = match.end()
    return tokens


class _Reader:
    """Recursive descent: terms are added and subtracted, factors multiplied and divided, from the left."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._tokens)

    def terms(self) -> Formula | None:
        formula = self._factors()
        while formula is not None and (operator := self._next_of("+-")):
            right = self._factors()
            formula = None if right is None else Operation(operator, formula, right)
        return formula

    def _factors(self) -> Formula | None:
        formula = self._atom()
        while formula is not None and (operator := self._next_of("*/")):
            right = self._atom()
            formula = None if right is None else Operation(operator, formula, right)
        return formula

    def _atom(self) -> Formula | None:
        if self._next_of("("):
            formula = self.terms()
            return formula if formula is not None and self._next_of(")") else None
        if self.done or not self._tokens[self._at].isdecimal():
            return None
        self._at += 1
        return Number(int(self._tokens[self._at - 1]))

    def _next_of(self, wanted: str) -> str:
        """The next token if it is one of these; else nothing, and nothing is read."""
        if self.done or self._tokens[self._at] not in wanted:
            return ""
        self._at += 1
        return self._tokens[self._at - 1]
