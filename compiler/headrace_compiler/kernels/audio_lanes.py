"""Eight float64 side by side, for Numba: one vector of LLVM, of whatever registers a target has.

LLVM cannot see that two pointers never meet, so a butterfly written as a loop over numbers stays
one number at a time. Here it is told. Numba is imported with this module: in the process that
lowers alone.
"""

# ruff: noqa: ANN001, ANN201, ANN202, ANN401, ARG001 - Numba calls these, and publishes no types
# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from headrace_compiler.kernels.sums import Kernel

LANES = 8
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_PLACES = tuple(ir.Constant(ir.IntType(32), place) for place in range(LANES))


class _Lanes(types.Type):
    """The type of such a vector."""

    def __init__(self) -> None:
        super().__init__(name="lanes")


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    """How it is kept: as it is."""

    def __init__(self, manager: Any, lanes: Any) -> None:
        super().__init__(manager, lanes, _VECTOR)


_LANES = _Lanes()


def _spread(builder: Any, value: Any) -> Any:
    """A number as a vector of it; a vector as it is."""
    if value.type == _VECTOR:
        return value
    made = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, _PLACES[0])
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(made, made, mask)


def _define(operation: Kernel, instruction: str) -> None:
    """Lets two vectors, or a vector and a number, stand on either side of an operator."""
    mixed = ((_LANES, _LANES), (_LANES, types.float64), (types.float64, _LANES))

    class Template(ConcreteTemplate):
        cases = tuple(signature(_LANES, *pair) for pair in mixed)

    def emit(context, builder, sig, args):
        return getattr(builder, instruction)(*(_spread(builder, each) for each in args))

    infer_global(operation)(Template)
    for pair in mixed:
        lower_builtin(operation, *pair)(emit)


_define(operator.add, "fadd")
_define(operator.iadd, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")


def _emitted(define: Kernel) -> Kernel:
    """A function of kernels whose instructions are written out."""
    made: Kernel = intrinsic(define)
    return made


@_emitted
def load(typing, pointer, at):
    """The eight numbers from `pointer[at]` on."""

    def emit(context, builder, sig, args):
        return builder.load(_address(builder, *args), align=8)

    return _LANES(pointer, at), emit


@_emitted
def store(typing, pointer, at, lanes):
    """Writes a vector to `pointer[at]` and what follows."""

    def emit(context, builder, sig, args):
        builder.store(args[2], _address(builder, *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(pointer, at, lanes), emit


@_emitted
def store_turned(typing, pointer, at, real, imaginary, turns, place):
    """Writes a complex vector, times the number at `turns[place]`: real, then imaginary parts."""

    def emit(context, builder, sig, args):
        base, to, x, y, table, first = args
        places = (first, builder.add(first, first.type(1)))
        loaded = (builder.load(builder.gep(table, [each])) for each in places)
        cosine, sine = (_spread(builder, each) for each in loaded)
        turned = (
            builder.fsub(builder.fmul(x, cosine), builder.fmul(y, sine)),
            builder.fadd(builder.fmul(x, sine), builder.fmul(y, cosine)),
        )
        for each, part in enumerate(turned):
            address = _address(builder, base, builder.add(to, to.type(each * LANES)))
            builder.store(part, address, align=8)
        return context.get_dummy_value()

    return types.void(pointer, at, real, imaginary, turns, place), emit


@_emitted
def gather(typing, pointer, at, stride):
    """The numbers at `pointer[at]`, `pointer[at + stride]` and so on."""

    def emit(context, builder, sig, args):
        base, place, step = args
        made = ir.Constant(_VECTOR, ir.Undefined)
        for lane in _PLACES:
            made = builder.insert_element(made, builder.load(builder.gep(base, [place])), lane)
            place = builder.add(place, step)
        return made

    return _LANES(pointer, at, stride), emit


@_emitted
def zeros(typing):
    """Eight zeros."""

    def emit(context, builder, sig, args):
        return ir.Constant(_VECTOR, None)

    return _LANES(), emit


@_emitted
def total(typing, lanes):
    """The sum of a vector, by halves."""

    def emit(context, builder, sig, args):
        parts = [builder.extract_element(args[0], place) for place in _PLACES]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [builder.fadd(parts[i], parts[i + half]) for i in range(half)]
        return parts[0]

    return types.float64(lanes), emit


@_emitted
def root(typing, value):
    """The square root of a number, or of each of a vector; every target has an instruction."""

    def emit(context, builder, sig, args):
        kind = ir.FunctionType(args[0].type, [args[0].type])
        name = "llvm.sqrt.v8f64" if args[0].type == _VECTOR else "llvm.sqrt.f64"
        declared = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(declared, args)

    return value(value), emit


def _address(builder: Any, pointer: Any, at: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [at]), _VECTOR.as_pointer())
