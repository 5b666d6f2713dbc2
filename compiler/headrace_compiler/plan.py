"""The plan of each target: the literal list of its steps."""

from collections.abc import Callable, Mapping

from headrace.engine.session import CPU
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace_compiler.datasets import Data, draw_data
from headrace_compiler.drafts import (
    OPENVINO,
    ORT,
    Draft,
    exact_drafts,
    in_half,
    on_both,
    on_onnxruntime,
    on_openvino,
)
from headrace_compiler.evidence import Evidence, gather, only
from headrace_compiler.job import Job, Model, Runner
from headrace_compiler.kernels.cuda import compile_ptx, find_ptxas
from headrace_compiler.kernels.lower import compile_kernels
from headrace_compiler.kernels.sources import Specs, sources
from headrace_compiler.quantizable import quantizable
from headrace_compiler.steps.best_ranges import best_ranges
from headrace_compiler.steps.calibrate import METHODS, calibrate
from headrace_compiler.steps.capture import capture
from headrace_compiler.steps.export import Exportable, export
from headrace_compiler.steps.fuse import fuse, has_attention
from headrace_compiler.steps.golden import golden
from headrace_compiler.steps.half import half
from headrace_compiler.steps.package import Extras, Package, package
from headrace_compiler.steps.parity import answer_batches, parity
from headrace_compiler.steps.prepare import prepare
from headrace_compiler.steps.quantize_dynamic import quantize_dynamic
from headrace_compiler.steps.quantize_nncf import quantize_nncf
from headrace_compiler.steps.quantize_static import activation_types
from headrace_compiler.steps.quantize_weights import quantize_weights
from headrace_compiler.steps.restore import Static
from headrace_compiler.steps.samples import draw_samples, named_files
from headrace_compiler.steps.simplify import simplify
from headrace_compiler.steps.sketch import Sketch, sketch
from headrace_compiler.targets import TENSORRT


def cpu(run: Runner, job: Job) -> Package:
    """From fp32 to int4, on ONNX Runtime and on OpenVINO."""
    model = _prove_fp32(run, job)
    if job.only_fp32:
        return _pack(run, job, only(run, job, model, exact_drafts(model.graph, None)[0]))
    fused = run.cached("fuse", fuse, model.graph)
    drafts = [*exact_drafts(model.graph, fused), on_openvino("fp32", model.graph)]
    data = run("data", draw_data, job.recipe, job.folder, job.scratch)
    static, whole = _int8(run, job, model, data)
    drafts += whole
    if static is not None and data is not None:
        drafts += _nncf(run, job, static, data, transformer=has_attention(fused))
        dynamic = run.cached(
            "quantize-dynamic",
            quantize_dynamic,
            fused or static.graph,
            reduce_range=static.reduce_range,
        )
        drafts += on_onnxruntime("int8-dynamic", "int8", dynamic)
        int4 = run.cached("quantize-weights", quantize_weights, fused or static.graph)
        drafts += on_onnxruntime("int4", "int4", int4)
    evidence = gather(run, job, model, drafts, data, static)
    return _pack(run, job, evidence)


def gpu(run: Runner, job: Job) -> Package:
    """fp32 and fp16 on CUDA or TensorRT, and int8 where TensorRT fuses it."""
    if _has_ptx(job):
        find_ptxas()  # rather now than after minutes
    model = _prove_fp32(run, job)
    fp32 = exact_drafts(model.graph, None)[0]
    if job.only_fp32:
        return _pack(run, job, only(run, job, model, fp32))
    fp16 = run.cached("half", half, model.graph)
    drafts = [fp32, in_half(fp16, job.target)]
    data = run("data", draw_data, job.recipe, job.folder, job.scratch)
    static, whole = None, list[Draft]()
    if job.target.name == "tensorrt":
        static, whole = _int8(run, job, model, data)
    drafts += [draft for draft in whole if draft.engine == ORT]
    return _pack(run, job, gather(run, job, model, drafts, data, static))


PLANS: Mapping[str, Callable[[Runner, Job], Package]] = {
    "cpu": cpu,
    "arm64": cpu,
    "cuda": gpu,
    "tensorrt": gpu,
}
"""By target."""


def _prove_fp32(run: Runner, job: Job) -> Model:
    """The graph in float32, which computes what the source model computes."""
    recipe, folder = job.recipe, job.folder
    samples = run("samples", draw_samples, recipe, folder)
    source = run("capture", capture, recipe, folder, samples)
    exported = run.cached("export", export, Exportable(recipe, folder, source))
    graph = run.cached("simplify", simplify, exported)
    references = run("reference", answer_batches, recipe, samples, source)
    run("parity", parity, references, source, graph, recipe.budget)
    cases = run("golden", golden, samples, source)
    return Model(samples, source, graph, references, cases)


def _int8(
    run: Runner, job: Job, model: Model, data: Data | None
) -> tuple[Static | None, list[Draft]]:
    """Static int8 with the best of the ranges that calibration found; nothing without layers."""
    target, hardware = job.target, job.bench.conditions.hardware
    prepared = run.cached("prepare", prepare, model.graph)
    if data is None or not quantizable(prepared):
        return None, []
    ranges = run.cached("calibrate", calibrate, prepared, data.calibration)
    types = activation_types(frozenset(target.sets(hardware)), target.architecture(hardware))
    if target.provider == TENSORRT:  # it knows no unsigned activations
        types = ("int8", False)
    each = {method: Static(prepared, ranges[method], *types) for method in METHODS}
    best = run.cached("int8", best_ranges, each, data.calibration)
    name = {method: "int8" if method == best.method else f"int8-{method}" for method in METHODS}
    siblings = [
        Draft(name[method], "int8", ORT, "fp32", best.graphs[method], "int8", why)
        for method, why in best.superseded.items()
    ]
    graph = best.graphs[best.method]
    return each[best.method], [
        *on_both("int8", graph),
        on_openvino("int8", graph),
        *siblings,
    ]


def _nncf(run: Runner, job: Job, static: Static, data: Data, *, transformer: bool) -> list[Draft]:
    """Static int8 by NNCF: for each engine in the form that it computes in int8 throughout."""
    graphs = {
        name: run.cached(
            f"quantize-{name}",
            quantize_nncf,
            static.graph,
            data.calibration,
            preset="mixed",
            transformer=transformer,
            seed=job.recipe.seed,
            reduce_range=static.reduce_range,
            uniform=uniform,
        )
        for name, uniform in (("nncf", True), ("nncf-openvino", False))
    }
    uniform, mixed = graphs.values()
    name = "int8-nncf-openvino"
    return [
        Draft("int8-nncf", "int8", ORT, "fp32", uniform, "int8-nncf"),
        Draft(name, "int8", OPENVINO, "fp32", mixed, name),
        Draft(f"{name}-bf16", "int8", OPENVINO, "bf16", mixed, name),
    ]


def _pack(run: Runner, job: Job, evidence: Evidence) -> Package:
    sketches = run("sketch", _sketch, evidence.model, job)
    extras = Extras(_kernels(run, job), named_files(job.recipe, job.folder), sketches)
    return run("package", package, job, evidence, extras, run.seconds)


def _kernels(run: Runner, job: Job) -> Mapping[str, bytes]:
    """Native code for what stands before and after the model, by target."""
    before = None if job.in_graph else job.recipe.preprocessing
    specs = Specs(preprocessing=before, postprocessing=job.recipe.postprocessing)
    kernels = run.cached("kernels", compile_kernels, specs) if sources(specs) else {}
    if isinstance(before, ImagePreprocessing) and _has_ptx(job):
        kernels = {**kernels, **run.cached("ptx", compile_ptx, before)}
    return kernels


def _has_ptx(job: Job) -> bool:
    images = isinstance(job.recipe.preprocessing, ImagePreprocessing) and not job.in_graph
    return images and job.target.provider != CPU


def _sketch(model: Model, job: Job) -> tuple[Sketch, ...]:
    """How inputs and the source model's outputs are distributed in the samples.

    Of decoded images, which differ in size, there are no sketches.
    """
    inputs = model.samples.inputs
    outputs = [model.source.run(sample) for sample in inputs]
    input_specs = () if job.in_graph else model.graph.inputs
    return sketch(inputs, outputs, input_specs, model.graph.outputs)
