"""What ships of the graphs that were judged: they, or they with the preprocessing in front.

Drafts are made, scored and compared as graphs of prepared tensors. Where the preprocessing goes
into the graph, what is timed, proven and packed takes decoded images instead.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headrace.bundle.golden import GoldenCase
from headrace.errors import UsageError
from headrace.preprocess.image.reference import decode_row
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace.preprocess.spec import raw_row
from headrace_compiler.drafts import Draft
from headrace_compiler.job import Job, Model, Runner
from headrace_compiler.recipe import Recipe
from headrace_compiler.steps.fuse_preprocessing import fuse_preprocessing
from headrace_compiler.steps.parity import Reference

_REPEATED = 3
"""Rows of the batch that is compared: one image, again and again."""


def fusible(recipe: Recipe) -> ImagePreprocessing:
    """A recipe's preprocessing, which can go into the graph.

    Raises:
        UsageError: It is not of images, or there is none.
    """
    spec = recipe.preprocessing
    if isinstance(spec, ImagePreprocessing):
        return spec
    raise UsageError(
        "fuse.kind",
        "only the preprocessing of images can go into the graph, and the recipe has"
        f" {'none' if spec is None else f'one of kind {spec.kind}'}",
        "compile it without --fuse-preprocessing graph",
    )


def shippable(job: Job, drafts: Sequence[Draft]) -> tuple[Draft, ...]:
    """The drafts that can ship.

    An engine that is told to compute float32 in less would do so with pixels and weights, too.
    """
    exact = job.in_graph is None
    return tuple(draft for draft in drafts if exact or draft.arithmetic == "fp32")


def ship(
    run: Runner, job: Job, model: Model, drafts: Sequence[Draft]
) -> tuple[Model, tuple[Draft, ...]]:
    """The model and the drafts as they ship, in order.

    Returns:
        The model with the signature, the golden cases and the references of what ships.
    """
    spec = job.in_graph
    if spec is None:
        return model, tuple(drafts)
    graphs = dict.fromkeys((model.graph, *(draft.graph for draft in drafts)))
    fused = {
        graph: run.cached("fuse-preprocessing", fuse_preprocessing, graph, spec) for graph in graphs
    }
    made = fused[model.graph]
    cases = tuple(_decoded(spec, case) for case in model.cases)
    references = [Reference(1, case.inputs, case.outputs) for case in cases]
    if made.batched:
        references.append(_repeated(cases[0]))
    shipped = replace(model, graph=made, references=references, cases=cases)
    return shipped, tuple(replace(draft, graph=fused[draft.graph]) for draft in drafts)


def _decoded(spec: ImagePreprocessing, case: GoldenCase) -> GoldenCase:
    """A case whose input is the decoded image, so that no decoder has a part in a replay."""
    contents = raw_row(case.raw)[spec.input].tolist()
    image = decode_row(spec, contents, 0)
    return GoldenCase(raw={}, inputs={spec.input: image[np.newaxis]}, outputs=case.outputs)


def _repeated(case: GoldenCase) -> Reference:
    inputs = {name: np.repeat(array, _REPEATED, axis=0) for name, array in case.inputs.items()}
    outputs = {name: np.repeat(array, _REPEATED, axis=0) for name, array in case.outputs.items()}
    return Reference(_REPEATED, inputs, outputs)
