"""Which values a few numbers can make, each number used once, and a plain formula for one of them.

Every formula joins two formulas over two parts of the numbers, so the values of all parts give those of the whole:
complete for any number of cards, five included. The last joining looks only for what is missing from the target.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations

from whatstuck.generalization.tasks.general_points.formulas import combined

OPERATORS = "+-*/"
_COST = {"+": 1, "*": 1, "-": 2, "/": 3}  # plain formulas first: a model shall learn the game, not a taste
_BRACKETS = 1
_SUM, _PRODUCT, _NUMBER = 1, 2, 3  # how tightly a formula holds together


@dataclass(frozen=True, order=True, slots=True)
class _Found:
    """A formula in text. Ordered by cost, then by text, so that the best one does not depend on the search."""

    cost: int
    text: str
    tightness: int


def find_formula(numbers: tuple[int, ...], target: int, operators: str = OPERATORS) -> str | None:
    """A formula that makes a target, always the same one.

    Args:
        numbers: Each is used once; their order does not matter.
        target: The value.
        operators: Those that may be used.

    Returns:
        Such as `"6 * (8 - 4)"`, with few differences, quotients and brackets. None if there is none.
    """
    return _find_formula(tuple(sorted(numbers)), target, operators)


@lru_cache(maxsize=65536)
def _find_formula(numbers: tuple[int, ...], target: int, operators: str) -> str | None:
    if len(numbers) == 1 or target == 0:  # 0 times anything is 0: nothing definite is missing
        whole = _values(numbers, operators).get(Fraction(target))
        return None if whole is None else whole.text
    found = [
        formula
        for left, right in _splits(numbers)
        for x, lefts in _values(left, operators).items()
        for y in _missing(x, Fraction(target))
        if (rights := _values(right, operators).get(y)) is not None
        for value, formula in _joined(x, lefts, y, rights, operators)
        if value == target
    ]
    return min(found).text if found else None


def whole_values(numbers: tuple[int, ...], operators: str = OPERATORS) -> frozenset[int]:
    """Every whole value that the numbers can make, each used once; may be negative."""
    values = _values(tuple(sorted(numbers)), operators)
    return frozenset(value.numerator for value in values if value.denominator == 1)


@lru_cache(maxsize=2048)  # four numbers make up to 3,000 values
def _values(numbers: tuple[int, ...], operators: str) -> dict[Fraction, _Found]:
    if len(numbers) == 1:
        return {Fraction(numbers[0]): _Found(0, str(numbers[0]), _NUMBER)}
    values: dict[Fraction, _Found] = {}
    for left, right in _splits(numbers):
        for x, lefts in _values(left, operators).items():
            for y, rights in _values(right, operators).items():
                for value, formula in _joined(x, lefts, y, rights, operators):
                    if value not in values or formula < values[value]:
                        values[value] = formula
    return values


def _splits(numbers: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Sorted numbers in two parts, both orders of the parts left to the joining; the same parts once."""
    places = range(len(numbers))
    parts = {
        (tuple(numbers[i] for i in chosen), tuple(numbers[i] for i in places if i not in chosen))
        for size in range(1, len(numbers) // 2 + 1)
        for chosen in combinations(places, size)
    }
    return sorted(parts)


def _missing(x: Fraction, target: Fraction) -> set[Fraction]:
    """Every value that makes a target other than 0 with x, whatever the operator and the order."""
    found = {target - x, x - target, x + target}
    if x:
        found |= {target / x, x * target, x / target}
    return found


def _joined(x: Fraction, left: _Found, y: Fraction, right: _Found, operators: str) -> Iterator[tuple[Fraction, _Found]]:
    """Everything that two formulas make; sums and products with the plainer, else smaller, text first."""
    for operator in operators:
        pairs = [(x, left, y, right), (y, right, x, left)]
        if operator in "+*":
            pairs = [min(pairs, key=lambda pair: (pair[1], pair[3]))]
        for first_value, first, second_value, second in pairs:
            value = combined(first_value, operator, second_value)
            if value is not None:
                yield value, _written(first, operator, second)


def _written(first: _Found, operator: str, second: _Found) -> _Found:
    """A formula with no bracket more than it needs."""
    tightness = _SUM if operator in "+-" else _PRODUCT
    loose = first.tightness < tightness
    # a - (b + c), a / (b * c); while a + (b - c) and a * (b / c) may lose their brackets
    loose_second = second.tightness < tightness or (operator in "-/" and second.tightness == tightness)
    text = f"{f'({first.text})' if loose else first.text} {operator} "
    text += f"({second.text})" if loose_second else second.text
    cost = first.cost + second.cost + _COST[operator] + _BRACKETS * (loose + loose_second)
    return _Found(cost, text, tightness)
