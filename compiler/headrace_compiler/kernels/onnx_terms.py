"""Arithmetic that is written down as standard ONNX operators instead of being computed."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from headrace.tensors import Array

_HELD = {int: np.int64, tuple: np.int64, float: np.float32}


@dataclass(frozen=True, eq=False)
class Writer:
    """Writes nodes and constants.

    Attributes:
        tape: Takes the nodes; its graph takes the constants.
        prefix: Of all names.
    """

    tape: Tape
    prefix: str

    def term(self, operand: "Operand") -> "Term":
        """A number as a constant: int64 of ints, float32 of a float, an array as it is."""
        if isinstance(operand, Term):
            return operand
        array = np.asarray(operand, _HELD.get(type(operand)))
        name = f"{self.prefix}/constant_{len(self.tape.initializers)}"
        return Term(self, self.tape.initializer(ir.tensor(array, name=name)))

    def op(self, kind: str, *inputs: "Operand", **attributes: int | list[int]) -> "Term":
        """The result of one operator."""
        values = [self.term(each).value for each in inputs]
        name = f"{self.prefix}/{kind}_{len(self.tape.nodes)}"
        made = self.tape.op(kind, values, attributes, name=name)
        made.name = name
        return Term(self, made)


@dataclass(frozen=True, eq=False)
class Term:
    """A value of the graph, to compute on with."""

    writer: Writer
    value: ir.Value

    def op(self, kind: str, *others: "Operand", **attributes: int | list[int]) -> "Term":
        """The result of an operator whose first input this is."""
        return self.writer.op(kind, self, *others, **attributes)

    def cast(self, datatype: ir.DataType) -> "Term":
        """As another datatype."""
        return self.op("Cast", to=int(datatype))

    def unsqueeze(self, *axes: int) -> "Term":
        """With axes of one more."""
        return self.op("Unsqueeze", axes)

    def __add__(self, other: "Operand") -> "Term":
        return self.op("Add", other)

    def __sub__(self, other: "Operand") -> "Term":
        return self.op("Sub", other)

    def __mul__(self, other: "Operand") -> "Term":
        return self.op("Mul", other)

    def __truediv__(self, other: "Operand") -> "Term":
        """The quotient; of whole numbers rounded towards zero, and right below 2**24."""
        return self.op("Div", other)

    def __lt__(self, other: "Operand") -> "Term":
        return self.op("Less", other)

    def __ge__(self, other: "Operand") -> "Term":
        return self.op("GreaterOrEqual", other)


Operand = Term | int | float | tuple[int, ...] | Array


def divided(numerator: Term, denominator: Term) -> tuple[Term, Term]:
    """The quotient of whole numbers, rounded down, and the remainder; the denominator is positive.

    OpenVINO divides whole numbers as float32, and a quotient can be off by as much as 64. What is
    left over is divided once more; then it is off by one at most, which the remainder shows.
    """
    quotient = numerator / denominator
    quotient += (numerator - quotient * denominator) / denominator
    left = numerator - quotient * denominator
    above, below, far_below = left >= denominator, left < 0, left < denominator * -1
    for each, step in ((above, 1), (below, -1), (far_below, -1)):
        quotient += each.cast(ir.DataType.INT64) * step
    return quotient, numerator - quotient * denominator


def rounded(numerator: Term, denominator: Term) -> Term:
    """The quotient of two whole numbers above zero, halves up."""
    quotient, _ = divided(numerator + denominator / 2, denominator)
    return quotient
