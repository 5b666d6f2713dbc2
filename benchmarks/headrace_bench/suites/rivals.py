"""What other tools make of a model by their defaults, and whether it keeps the accuracy budget.

Quantization needs data, so it is made here, with the recipe's; what came of it is measured in the
peer's own environment.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bundle.measurement import Accuracy
from headrace.bundle.open import Bundle
from headrace.engine.openvino import load_openvino
from headrace.engine.session import OrtSession
from headrace.tensors import Array
from headrace_compiler.datasets import Data, Dataset, draw_data
from headrace_compiler.loading import importable, load_recipe
from headrace_compiler.metrics import Metric, Rows, accuracy, metric_of
from headrace_compiler.recipe import Recipe
from headrace_compiler.steps.quantize_nncf import load_nncf, silenced

SAMPLES = 300
"""That NNCF looks at, by its default."""


@dataclass(frozen=True)
class Rival:
    """A model as another tool made it.

    Attributes:
        peer: Who runs it.
        model: Its file.
        precision: In which the peer computes what the file declares as float32.
        outside: Why it is not comparable: it loses more than the budget. Empty if it is.
    """

    name: str
    peer: str
    model: Path
    precision: str
    outside: str


def make_rivals(recipe: Path, bundle: Bundle, folder: Path) -> tuple[Rival, ...]:
    """The models that are no float32; none where the recipe has no evaluation data.

    They are ONNX Runtime's static quantization and NNCF's of OpenVINO, by their defaults, and
    OpenVINO in bf16.

    Args:
        folder: Where their files go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = recipe.resolve()
    with importable(path.parent), tempfile.TemporaryDirectory() as scratch:
        declared = load_recipe(path)
        data = draw_data(declared, path.parent, Path(scratch))
        if data is None:
            return ()
        graph = bundle.model_path(bundle.manifest.variants[0])
        names = tuple(spec.name for spec in bundle.manifest.outputs)
        judge = _Judge(declared, metric_of(declared, names, path.parent), data, graph)
        static = _ort_static(graph, data.calibration, folder / "static.onnx")
        nncf = _nncf(graph, data.calibration, folder / "nncf.xml", bundle)
        return (
            judge.rival("onnxruntime-static", "onnxruntime", static, "f32"),
            judge.rival("openvino-bf16", "openvino", graph, "bf16"),
            judge.rival("openvino-nncf", "openvino", nncf, "f32"),
            judge.rival("openvino-nncf-bf16", "openvino", nncf, "bf16"),
        )


class _Judge:
    """Scores models as the compiler scores its drafts."""

    def __init__(self, recipe: Recipe, metric: Metric, data: Data, fp32: Path) -> None:
        self._recipe = recipe
        self._metric = metric
        self._data = data
        session = OrtSession(fp32)
        self._answers = [session.run(inputs) for inputs in data.evaluation]
        self._fp32 = self._rows(self._answers)

    def rival(self, name: str, peer: str, model: Path, precision: str) -> Rival:
        """The model, with whether it keeps the recipe's budget."""
        session = OrtSession(model) if peer == "onnxruntime" else _OpenVino(model, precision)
        rows = self._rows([session.run(inputs) for inputs in self._data.evaluation])
        found = accuracy(self._metric, rows, self._fp32, seed=self._recipe.seed)
        return Rival(name, peer, model, precision, self._outside(found))

    def _rows(self, answers: list[dict[str, Array]]) -> Rows:
        triples = zip(answers, self._data.evaluation.labels, self._answers, strict=True)
        return np.concatenate([self._metric.of(*triple) for triple in triples])

    def _outside(self, found: Accuracy) -> str:
        budget = self._recipe.budget.accuracy_loss
        if found.loss_high <= budget:
            return ""
        return (
            f"outside the accuracy budget: it may lose {found.loss_high:.3g} of {found.metric},"
            f" and the budget is {budget:g}"
        )


class _OpenVino:
    """A file of any format that OpenVINO reads."""

    def __init__(self, model: Path, precision: str) -> None:
        settings = {"INFERENCE_PRECISION_HINT": precision}
        self._model = load_openvino().Core().compile_model(str(model), "CPU", settings)
        self._names = [port.any_name for port in self._model.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by its name."""
        found = self._model(dict(inputs))
        return {name: found[place] for place, name in enumerate(self._names)}


def _ort_static(graph: Path, calibration: Dataset, out: Path) -> Path:
    from onnxruntime.quantization import (  # noqa: PLC0415 - heavy
        CalibrationDataReader,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc] # it publishes no types
        def __init__(self) -> None:
            self._samples = iter(calibration)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self._samples, None)

    prepared = out.with_name("prepared.onnx")
    # Its symbolic shape inference gives up on graphs with several free axes.
    quant_pre_process(graph, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, out, Reader())
    return out


def _nncf(graph: Path, calibration: Dataset, out: Path, bundle: Bundle) -> Path:
    """NNCF as its guide says: a transformer is said to be one, all else is its default."""
    ov = load_openvino()
    takes_ids = any(spec.datatype == "INT64" for spec in bundle.manifest.inputs)
    with silenced():
        nncf = load_nncf()
        made: Any = nncf.quantize(
            ov.Core().read_model(str(graph)),
            nncf.Dataset(list(calibration)),
            subset_size=SAMPLES,
            model_type=nncf.ModelType.TRANSFORMER if takes_ids else None,
        )
    ov.save_model(made, out)
    return out
