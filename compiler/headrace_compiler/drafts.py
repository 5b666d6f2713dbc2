"""Drafts: graphs that may become variants, and the place where they are opened."""

from dataclasses import dataclass
from pathlib import Path

from headrace.bundle.digest import hash_bytes
from headrace.bundle.manifest import Arithmetic, Engine, Precision, Tolerance, Variant
from headrace.engine.open import open_session
from headrace.engine.session import CPU, Session
from headrace.profile import Conditions
from headrace.timing import Told, told_nobody
from headrace_compiler.graph import Graph
from headrace_compiler.targets import TENSORRT, Target

ORT: Engine = "onnxruntime"
OPENVINO: Engine = "openvino"
EXACT = Tolerance(absolute=0, relative=0)


@dataclass(frozen=True)
class Draft:
    """A graph, a precision and an engine that are considered together.

    Attributes:
        made_by: The step that made the graph; drafts of one graph share its file.
        superseded: Why a sibling is better, where it is the same to run; empty otherwise.
    """

    name: str
    precision: Precision
    engine: Engine
    arithmetic: Arithmetic
    graph: Graph
    made_by: str
    superseded: str = ""

    @property
    def sha256(self) -> str:
        """Of its file."""
        return hash_bytes(self.graph.content).sha256

    @property
    def path(self) -> str:
        """Of its file in a bundle."""
        return f"model/{self.made_by}/model.onnx"

    def variant(self, tolerance: Tolerance = EXACT) -> Variant:
        """As a manifest lists it."""
        return Variant(
            name=self.name,
            precision=self.precision,
            engine=self.engine,
            arithmetic=self.arithmetic,
            path=self.path,
            tolerance=tolerance,
        )


@dataclass(frozen=True)
class Workbench:
    """This machine, on which drafts are opened as a runtime opens variants.

    Attributes:
        folder: Where the files of graphs go.
        conditions: Of measurements.
        told: Who is told how far a long measurement has come.
    """

    folder: Path
    conditions: Conditions
    told: Told = told_nobody

    @property
    def digest(self) -> str:
        """Of what results depend on here."""
        return repr((self.conditions.hardware.fingerprint, self.conditions.provider))

    def file(self, graph: Graph) -> Path:
        """The graph's file, written where it is not there yet."""
        path = self.folder / f"{hash_bytes(graph.content).sha256}.onnx"
        if not path.exists():
            path.write_bytes(graph.content)
        return path

    def open(self, draft: Draft, threads: int = 0) -> Session:
        """A session of a draft; on all cores where no number of threads is given.

        Raises:
            MissingError: Its engine, provider or arithmetic is not to be had here.
            BundleError: Its engine cannot load it.
        """
        provider, variant = self.conditions.provider, draft.variant()
        if provider == CPU and draft.engine == ORT:
            # What another provider is to be told of its arithmetic, the CPU's has no ear for: away
            # from its target, a graph is proven as it declares itself.
            variant = variant.model_copy(update={"arithmetic": "fp32"})
        return open_session(
            self.file(draft.graph),
            variant,
            provider=provider,
            threads=threads or self.conditions.hardware.cores,
        )


def exact_drafts(graph: Graph, fused: Graph | None) -> tuple[Draft, ...]:
    """What computes in float32: the graph on both engines, and with its attentions fused."""
    more = () if fused is None else (Draft("fp32-fused", "fp32", ORT, "fp32", fused, "fp32-fused"),)
    return (
        Draft("fp32", "fp32", ORT, "fp32", graph, "fp32"),
        *more,
        Draft("fp32-openvino", "fp32", OPENVINO, "fp32", graph, "fp32"),
    )


def on_openvino(made_by: str, graph: Graph, arithmetic: Arithmetic = "bf16") -> Draft:
    """A graph whose float32 parts OpenVINO computes in another arithmetic."""
    if made_by == "fp32":
        return Draft(f"{arithmetic}-openvino", arithmetic, OPENVINO, arithmetic, graph, "fp32")
    return Draft(f"{made_by}-openvino-{arithmetic}", "int8", OPENVINO, arithmetic, graph, made_by)


def on_both(name: str, graph: Graph) -> tuple[Draft, ...]:
    """One int8 graph on both engines."""
    return (
        Draft(name, "int8", ORT, "fp32", graph, name),
        Draft(f"{name}-openvino", "int8", OPENVINO, "fp32", graph, name),
    )


def on_onnxruntime(name: str, precision: Precision, graph: Graph | None) -> tuple[Draft, ...]:
    """A graph that was made for ONNX Runtime, if there was anything to make."""
    return () if graph is None else (Draft(name, precision, ORT, "fp32", graph, name),)


def in_half(graph: Graph, target: Target) -> Draft:
    """A graph of float16: CUDA runs it as it stands, and TensorRT has to be allowed to."""
    told: Arithmetic = "fp16" if target.provider == TENSORRT else "fp32"
    return Draft("fp16", "fp16", ORT, told, graph, "fp16")
