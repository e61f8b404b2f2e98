"""A calculator without `eval`: numbers, + - * / // ** and brackets, over Python's own syntax tree.

Invariant: any text gives a number or a `ValueError` within milliseconds; length, depth and size are bounded before
anything is computed, so that `9**9**9` cannot hang a rollout.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

MAX_CHARS = 200
MAX_DEPTH = 20
MAX_VALUE = 1e15
_ALLOWED = frozenset("0123456789+-*/(). ")
Number = int | float

_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def calculate(expression: str) -> str:
    """The value of `expression`, rounded to two decimals, as text ("4.0"); raises `ValueError` with a short reason."""
    if len(expression) > MAX_CHARS:
        raise ValueError(f"the expression has {len(expression)} characters; at most {MAX_CHARS} are accepted")
    if not set(expression) <= _ALLOWED:
        raise ValueError("Invalid characters in expression")
    depth = 0
    for char in expression:  # before parsing: nested brackets are the parser's recursion, not ours
        depth += (char == "(") - (char == ")")
        if depth > MAX_DEPTH:
            raise ValueError(f"brackets are nested deeper than {MAX_DEPTH}")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"not an arithmetic expression: {expression[:60]}") from error
    try:
        return str(round(float(_value(tree.body, MAX_CHARS)), 2))
    except ArithmeticError as error:
        raise ValueError(str(error)) from error


def _value(node: ast.expr, room: int) -> Number:
    if room <= 0:
        raise ValueError("the expression is nested too deeply")
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        value = _value(node.operand, room - 1)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, room - 1), _value(node.right, room - 1)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in _BINARY:
            return _bounded(_BINARY[type(node.op)](left, right))
    raise ValueError("only numbers, + - * / // ** and brackets are accepted")


def _power(base: Number, exponent: Number) -> Number:
    if base < 0 and exponent != int(exponent):
        raise ValueError("a root of a negative number is not a number here")
    if base not in (0, 1, -1) and abs(exponent) * abs(math.log10(abs(base))) > math.log10(MAX_VALUE):
        raise ValueError(f"the result is larger than {MAX_VALUE:.0e} or too close to zero")
    if base in (1, -1):  # a huge exponent would still cost time with big integers
        return base if exponent % 2 else 1
    return _bounded(base**exponent)


def _bounded(value: Number) -> Number:
    if not math.isfinite(value) or abs(value) > MAX_VALUE:
        raise ValueError(f"a number larger than {MAX_VALUE:.0e} is not accepted")
    return value
