"""Scores a draft on the evaluation data, row by row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headrace.engine.session import Session
from headrace.tensors import Array
from headrace_compiler.datasets import Dataset, read_array, write_array
from headrace_compiler.drafts import Draft, Workbench
from headrace_compiler.metrics import Metric, Rows


@dataclass(frozen=True)
class Answers:
    """What the fp32 graph answers to a data set; computed when it is first asked for.

    Attributes:
        fp32: The draft.
        path: Where the answers are kept.
    """

    data: Dataset
    fp32: Draft
    bench: Workbench
    path: Path

    @property
    def digest(self) -> str:
        """Of what decides the answers."""
        return f"{self.data.digest} {self.fp32.sha256}"

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        names = self._names
        with self.path.open("rb") as file:
            for _ in self.data.labels:
                yield {name: read_array(file) for name in names}

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """The outputs' names, once the answers lie on the disk."""
        session = self.bench.open(self.fp32)
        names = tuple(spec.name for spec in self.fp32.graph.outputs)
        with self.path.open("wb") as file:
            for inputs in self.data:
                _append(file, names, session.run(inputs))
        return names


def evaluate(metric: Metric, answers: Answers, draft: Draft, bench: Workbench) -> Rows:
    """The metric's numbers for each row of the evaluation data.

    Raises:
        UsageError: The metric raises, or does not fit the labels.
        InternalError: The graph fails on a sample.
    """
    return score(metric, answers, bench.open(draft))


def score(metric: Metric, answers: Answers, session: Session) -> Rows:
    """As `evaluate`, with a session."""
    data = answers.data
    agreement = any(label is None for label in data.labels)
    references = iter(answers) if agreement else iter([{}] * len(data))
    rows = [
        metric.of(session.run(inputs), label, reference)
        for inputs, label, reference in zip(data, data.labels, references, strict=True)
    ]
    return np.concatenate(rows)


def _append(file: BinaryIO, names: tuple[str, ...], outputs: Mapping[str, Array]) -> None:
    for name in names:
        write_array(file, outputs[name])
