"""Runs PTX without a GPU, one thread after another: as much of it as image kernels are made of.

A register holds bits; the type of an instruction says what they mean. Memory is checked: an
address outside of what an argument points to, or one that is not aligned, ends the test. Source:
NVIDIA, "Parallel Thread Execution ISA", version 9.0.
"""

import operator
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from headrace.tensors import Array

Number = Any
"""An int, a float, or a bool, by the type of the instruction."""
_FLOATS = {"f16": "<e", "f32": "<f", "f64": "<d"}
_ROOM = 40
"""Bits of an address that say where in its memory it points; those above say which memory."""
_COMPARED: Mapping[str, Callable[[Number, Number], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "gt": operator.gt,
    "ge": operator.ge,
    "geu": lambda a, b: not a < b,
}
_COMPUTED: Mapping[str, Callable[..., Number]] = {
    "mov": lambda a: a,
    "cvta": lambda a: a,
    "abs": abs,
    "neg": operator.neg,
    "not": operator.invert,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "fma": lambda a, b, c: a * b + c,  # rounded once more than by a GPU
    "min": min,
    "max": max,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "shl": operator.lshift,
    "shr": operator.rshift,
}


def launch(module: str, symbol: str, threads: int, block: int, *arguments: int | Array) -> None:
    """Runs an entry point in blocks of threads, at least so many; arrays are memory."""
    body = rf"\.entry {symbol}\([^)]*\)\n\{{\n(.*?)^\}}"
    found = re.search(body, module, re.MULTILINE | re.DOTALL)
    assert found is not None
    program = _Program(found[1])
    memories = [each for each in arguments if isinstance(each, np.ndarray)]
    places = iter(range(1, len(memories) + 1))
    given = [each if isinstance(each, int) else next(places) << _ROOM for each in arguments]
    for thread in range(-(-threads // block) * block):
        at = {"%tid.x": thread % block, "%ntid.x": block, "%ctaid.x": thread // block}
        _Thread(given, [each.view(np.uint8) for each in memories], at).run(program)


class _Program:
    """Instructions and labels."""

    def __init__(self, text: str) -> None:
        self.labels: dict[str, int] = {}
        self.lines: list[tuple[str, list[str], list[str]]] = []
        for line in (each.strip(" \t{};") for each in text.splitlines()):
            if line.startswith("$"):
                self.labels[line.rstrip(":")] = len(self.lines)
            elif line and not line.startswith("."):
                guard, instruction = line.split(maxsplit=1) if line[0] == "@" else ("", line)
                op, _, operands = instruction.partition(" ")
                parts = [each.strip(" \t[];") for each in operands.split(",")]
                self.lines.append((guard.removeprefix("@"), op.split("."), parts))


class _Thread:
    """One thread: its registers, and the memory of all."""

    def __init__(self, given: list[int], memories: list[Array], special: dict[str, int]) -> None:
        self._given, self._memories = given, memories
        self._registers: dict[str, Number] = {**special}

    def run(self, program: _Program) -> None:
        """From the beginning to `ret`."""
        line = 0
        while True:
            guard, op, operands = program.lines[line]
            line += 1
            if guard and self._registers[guard.lstrip("!")] is guard.startswith("!"):
                continue
            if op[0] == "ret":
                return
            if op[0] == "bra":
                line = program.labels[operands[0]]
            elif op[0] == "st":
                self._store(op[-1], *operands)
            else:
                self._registers[operands[0]] = self._value(op, operands[1:])

    def _value(self, op: list[str], operands: list[str]) -> Number:
        """The bits that an instruction leaves in its register."""
        name, kind = op[0], op[-1]
        if name == "ld":
            return self._load(op[1], kind, operands[0])
        if name == "setp":
            return _COMPARED[op[1]](*(self._read(each, kind) for each in operands))
        if name == "selp":
            return self._bits(operands[0 if self._registers[operands[2]] else 1], kind)
        if name == "cvt":
            value = self._read(operands[0], kind)
            return _packed(int(value) if "rzi" in op else value, op[-2])
        kinds = [kind, "u32"] if name in {"shl", "shr"} else [kind] * len(operands)
        values = [self._read(*each) for each in zip(operands, kinds, strict=True)]
        made = _divided(*values) if name == "div" else _COMPUTED[name](*values)
        high = name == "mul" and op[1] == "hi"
        wide = name == "mul" and op[1] == "wide"
        return _packed(made >> int(kind[1:]) if high else made, "s64" if wide else kind)

    def _bits(self, operand: str, kind: str) -> Number:
        if operand.startswith(("0f", "0d")):
            return int(f"0x{operand[2:]}", 0)
        value = self._registers[operand] if operand.startswith("%") else int(operand)
        return value if kind == "pred" else value & ((1 << int(kind[1:])) - 1)

    def _read(self, operand: str, kind: str) -> Number:
        bits = self._bits(operand, kind)
        if kind == "pred":
            return bits
        if kind in _FLOATS:
            return struct.unpack(_FLOATS[kind], bits.to_bytes(int(kind[1:]) // 8, "little"))[0]
        width = int(kind[1:])
        return bits - (1 << width) if kind[0] == "s" and bits >> (width - 1) else bits

    def _load(self, space: str, kind: str, operand: str) -> int:
        if space == "param":
            return self._given[int(operand.rpartition("_")[2])]
        return int.from_bytes(self._span(operand, kind).tobytes(), "little")

    def _store(self, kind: str, to: str, operand: str) -> None:
        size = int(kind[1:]) // 8
        content = self._bits(operand, kind).to_bytes(size, "little")
        self._span(to, kind)[:] = np.frombuffer(content, np.uint8)

    def _span(self, operand: str, kind: str) -> Array:
        base, _, offset = operand.partition("+")
        address, size = self._registers[base] + int(offset or 0), int(kind[1:]) // 8
        memory = self._memories[(address >> _ROOM) - 1]
        at = address & ((1 << _ROOM) - 1)
        assert address >> _ROOM
        assert at + size <= len(memory)
        assert at % size == 0
        span: Array = memory[at : at + size]
        return span


def _packed(value: Number, kind: str) -> Number:
    if kind == "pred":
        return bool(value)
    if kind in _FLOATS:
        return int.from_bytes(struct.pack(_FLOATS[kind], value), "little")
    return int(value) & ((1 << int(kind[1:])) - 1)


def _divided(a: Number, b: Number) -> Number:
    """Whole numbers are divided towards zero."""
    if isinstance(a, float):
        return a / b
    whole = abs(a) // abs(b)
    return whole if (a < 0) == (b < 0) else -whole
