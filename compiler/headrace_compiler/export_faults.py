"""What `torch.export` and the ONNX exporter say when they fail, in one sentence each."""

import itertools
import logging
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch.fx
from torch.export import ExportedProgram

from headrace.errors import UsageError
from headrace.tensors import TensorSpec
from headrace_compiler.boundary import Line, Translated, at, first_line, innermost, user_line

_SPECIALISED = re.compile(r"L\['(\w+)'\].*?size\(\)\[(\d+)\].*?constant \((\d+)\)")
_STACK_LINE = re.compile(r'File "([^"]+)", line (\d+)')
_MISSING_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


def export_fault(
    error: BaseException,
    folder: Path,
    specs: Sequence[TensorSpec],
    again: Callable[[], ExportedProgram],
) -> UsageError:
    """Why `torch.export` refused a model.

    Args:
        again: Exports once more; called only where that tells the line at fault.
    """
    specialised = _SPECIALISED.search(str(error))
    if specialised is not None:
        name, place, size = specialised[1], int(specialised[2]), specialised[3]
        where = at(_guard_line(again, folder, size), folder)
        return specialised_fault(_spec(specs, name), place, size, where)
    where = at(user_line(error, folder), folder)
    if type(error).__name__ == "GuardOnDataDependentSymNode":
        return UsageError(
            "model.data-dependent",
            f"the model decides by the values of a tensor, which no graph can hold{where}",
            "use torch.where or torch.cond instead of a Python branch",
        )
    return UsageError("model.export", f"the model cannot be exported: {first_line(error)}{where}")


def specialised_fault(spec: TensorSpec, place: int, size: object, where: str = "") -> UsageError:
    """The error for a declared dynamic axis that the model fixes."""
    return UsageError(
        "model.specialised",
        f"axis {place} ('{spec.shape[place]}') of input '{spec.name}' is declared dynamic,"
        f" and the model fixes it to {size}{where}",
        "take sizes from the input's shape instead of writing numbers, or declare the axis"
        f" as {size}",
    )


def conversion_fault(error: BaseException, folder: Path) -> UsageError:
    """Why the ONNX exporter could not convert a program: the operator and the user's line."""
    chain = _chain(error)
    text = "\n".join(str(link) for link in chain)
    operator = _MISSING_OPERATOR.search(text)
    line = next((found for link in chain if (found := _node_line(link, folder))), None)
    if operator is not None:
        return UsageError(
            "model.operator",
            f"the model uses {operator[1]}, which has no counterpart in ONNX{at(line, folder)}",
            "write that part with other operators, or compute it before or after the model",
        )
    return UsageError(
        "model.conversion",
        f"the model cannot be converted to ONNX: {first_line(chain[-1])}{at(line, folder)}",
    )


def _spec(specs: Sequence[TensorSpec], name: str) -> TensorSpec:
    named = {spec.name: spec for spec in specs}
    # Arguments that were passed by position go by the names that forward gives them.
    return named.get(name, specs[0])


def _guard_line(export: Callable[[], ExportedProgram], folder: Path, size: str) -> Line | None:
    """The user's line at which an axis was fixed to a size.

    `torch.export` notes only in its log when it fixes one. At that moment the user's code is on
    the stack, so the export runs once more with an ear on that log.
    """
    listener = _Listener(re.compile(rf"set_replacement \w+ = {size}\b"), folder)
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        with Translated(lambda error: UsageError("model.export", first_line(error))):
            export()
    except UsageError:
        return listener.line
    finally:
        logger.setLevel(level)
        logger.removeHandler(listener)
    return listener.line


class _Listener(logging.Handler):
    """Notes the user's line on the stack when the first fitting record is logged."""

    def __init__(self, wanted: re.Pattern[str], folder: Path) -> None:
        super().__init__()
        self._wanted = wanted
        self._folder = folder
        self.line: Line | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.line is None and self._wanted.search(record.getMessage()):
            # The stack comes innermost first; only what the model called is of interest.
            calls = itertools.takewhile(
                lambda place: place[0].f_code is not _guard_line.__code__,
                traceback.walk_stack(None),
            )
            lines = [Line(Path(frame.f_code.co_filename), number) for frame, number in calls]
            self.line = innermost(lines[::-1], self._folder)


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain


def _node_line(error: BaseException, folder: Path) -> Line | None:
    """The user's line of the node that the exporter was converting when it failed."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node) and node.stack_trace:
            found = _STACK_LINE.findall(node.stack_trace)
            return innermost([Line(Path(path), int(number)) for path, number in found], folder)
    return None
