"""The suite `compile`: a model's session, as headrace loads it and as its peers run the model."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bundle.golden import GoldenCase
from headrace.bundle.manifest import Tolerance
from headrace.bundle.open import Bundle, open_bundle
from headrace.choice import choose_variant
from headrace.errors import UsageError
from headrace.hardware import detect_hardware, installed_version
from headrace.settings import Settings
from headrace.tensors import Array
from headrace_bench.contest import Contest
from headrace_bench.peers import write_arrays
from headrace_bench.peers.environments import (
    Peer,
    PeerEnvironment,
    inspect_environment,
    select_peers,
)
from headrace_bench.process import Contestant
from headrace_bench.suites.options import SuiteOptions
from headrace_bench.suites.rivals import Rival, make_rivals
from headrace_compiler.build import Caching, build
from headrace_compiler.loading import importable, load_recipe

SUITE = "compile"
EXAMPLE = Path(__file__).parents[3] / "examples" / "image_classification" / "recipe.py"
MODELS = (
    EXAMPLE.parents[1] / "sentence_embedding" / "recipe.py",
    Path(__file__).parent / "models" / "resnet50.py",
)
"""MiniLM with its weights, and a network of ResNet-50's shape with random ones."""

FP32 = 1e-4
"""Of an output's largest value: what reordered float32 sums of a deep network may come to."""
STARTS = 5
"""Of every process in a case."""
REDUCED = 0.5
"""Of an output's largest value: what keeps a budget of accuracy may err by so much somewhere."""
_BF16_SETS = ("amx_bf16", "avx512_bf16", "bf16")
_TORCH = ("eager", "torch-compile")
_COMPILERS = ("g++", "clang++", "c++")
_SHAPES = tuple((rows, threads) for rows in (1, 8) for threads in (1, 2))


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        recipe: What its bundle was built from, where that is known.
        rivals: What other tools made of it in less than float32.
    """

    bundle: Bundle
    recipe: Path | None
    rivals: tuple[Rival, ...] = ()


@dataclass(frozen=True)
class Case:
    """A model at one size.

    Attributes:
        rows: Of the batch of inputs; 1 where a model's requests are not batched.
        tolerance: Of fp32 answers, as a part of an output's largest value.
        own: Of the variant that headrace runs.
    """

    name: str
    subject: Subject
    inputs: Path
    expected: Path
    rows: int
    threads: int
    tolerance: float
    own: float


def contests(options: SuiteOptions) -> list[Contest]:
    """A contest for each model, batch size and number of threads.

    Raises:
        UsageError: No bundle was given, and the example is not here.
        HeadraceError: A model does not build.
    """
    peers = [
        (peer, inspect_environment(peer, options.home))
        for peer in select_peers(SUITE, options.peers)
    ]
    shapes = _SHAPES[:1] if options.quick else _SHAPES
    return [
        _contest(case, peers, options.scratch)
        for subject in _subjects(options)
        for case in _cases(subject, shapes, options.scratch)
    ]


def _subjects(options: SuiteOptions) -> list[Subject]:
    if options.bundle is not None:
        return [Subject(options.bundle, None)]
    if not EXAMPLE.is_file():
        raise UsageError(
            "bench.no-example",
            f"the suite {SUITE} measures a recipe of headrace's source tree, and this is none",
            "give a bundle of your own: headrace bench run compile --bundle my.bundle",
        )
    recipes = (EXAMPLE,) if options.quick else (EXAMPLE, *MODELS)
    return [_subject(recipe, options) for recipe in recipes if _is_wanted(recipe, options)]


def _subject(recipe: Path, options: SuiteOptions) -> Subject:
    """The bundle that `headrace compile` makes here, and what others make of the same model."""
    settings = Settings()
    kept = Caching(options.home / "cache" / "steps", int(settings.cache_limit))
    built = build(recipe, out=options.scratch / "bundles", replace=True, caching=kept)
    bundle = open_bundle(built.path)
    folder = options.scratch / "rivals" / bundle.manifest.name
    asked = {"onnxruntime", "openvino"} & {*options.peers}
    rivals = make_rivals(recipe, bundle, folder) if asked else ()
    return Subject(bundle, recipe, rivals)


def _is_wanted(recipe: Path, options: SuiteOptions) -> bool:
    """Whether a case of the model may be meant: compiling it takes minutes."""
    with importable(recipe.parent):
        name = load_recipe(recipe).name
    return any(fnmatch(f"{name}-b{rows}-t{threads}", options.case) for rows, threads in _SHAPES)


def _cases(subject: Subject, shapes: Sequence[tuple[int, int]], scratch: Path) -> list[Case]:
    """The cases of one model; a model whose requests are not batched has one batch size."""
    manifest, golden = subject.bundle.manifest, subject.bundle.golden_cases()
    cases = []
    for rows, threads in shapes:
        if rows > 1 and not manifest.batched:
            continue
        name = f"{manifest.name}-b{rows}-t{threads}"
        inputs, expected = scratch / f"{name}.inputs.npz", scratch / f"{name}.expected.npz"
        batch = compose_golden(golden, rows) if manifest.batched else golden[0]
        write_arrays(inputs, {spec.name: batch.inputs[spec.name] for spec in manifest.inputs})
        outputs = {spec.name: batch.outputs[spec.name] for spec in manifest.outputs}
        write_arrays(expected, outputs)
        chosen = choose_variant(subject.bundle, detect_hardware(), threads=threads, batch=rows)
        exact, own = (
            relative_tolerance(variant.tolerance, outputs)
            for variant in (manifest.variants[0], chosen.variant)
        )
        # Batches other than the golden ones err by more than those where precision is reduced.
        own = own if chosen.variant.precision == "fp32" else max(own, REDUCED)
        cases.append(Case(name, subject, inputs, expected, rows, threads, exact, own))
    return cases


def compose_golden(golden: Sequence[GoldenCase], rows: int) -> GoldenCase:
    """A batch of exactly `rows` rows, made of those golden cases that can stand in one batch."""

    def shape(case: GoldenCase) -> dict[str, tuple[int, ...]]:
        return {name: array.shape[1:] for name, array in case.inputs.items()}

    alike = [case for case in golden if shape(case) == shape(golden[0])]

    def batch(samples: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        stacked = {name: np.concatenate([each[name] for each in samples]) for name in samples[0]}
        return {name: array[np.arange(rows) % len(array)] for name, array in stacked.items()}

    return GoldenCase(
        raw={},
        inputs=batch([case.inputs for case in alike]),
        outputs=batch([case.outputs for case in alike]),
    )


def relative_tolerance(tolerance: Tolerance, outputs: Mapping[str, Array]) -> float:
    """A variant's tolerance as a part of an output's largest value, and at least `FP32`."""
    largest = [float(np.abs(array.astype(np.float64)).max(initial=0)) for array in outputs.values()]
    parts = [tolerance.relative + tolerance.absolute / (value or 1.0) for value in largest]
    return max(FP32, *parts)


def _contest(case: Case, peers: Sequence[tuple[Peer, PeerEnvironment]], scratch: Path) -> Contest:
    bundle = case.subject.bundle
    own = Contestant(
        name="headrace",
        factory="headrace_bench.own:open_bundle_session",
        arguments={**_arguments(case), "bundle": str(bundle.path), "tolerance": case.own},
        versions=_versions("headrace", "onnxruntime", "openvino", "numpy"),
    )
    others = [
        contestant
        for peer, found in peers
        for contestant in (
            [_torch(case, peer, scratch)]
            if peer.name in _TORCH
            else _graph_runners(case, peer, found)
        )
    ]
    return Contest(
        suite=SUITE,
        case=case.name,
        contestants=(own, *others),
        parameters={
            "model": bundle.manifest.name,
            "batch": case.rows,
            "threads": case.threads,
        },
        bundle=bundle.digest,
        starts=STARTS,
    )


def _arguments(case: Case) -> dict[str, Any]:
    return {
        "inputs": str(case.inputs),
        "expected": str(case.expected),
        "rows": case.rows,
        "threads": case.threads,
        "tolerance": case.tolerance,
    }


def _graph_runners(case: Case, peer: Peer, found: PeerEnvironment) -> list[Contestant]:
    """Contestants that read the bundle's ONNX file: one, or one a precision."""
    bundle, sets = case.subject.bundle, detect_hardware().instruction_sets
    model = str(bundle.model_path(bundle.manifest.variants[0]))

    def contestant(name: str, missing: str, arguments: Mapping[str, Any]) -> Contestant:
        return Contestant(
            name=name,
            factory=f"{peer.module}:open_model",
            arguments={**_arguments(case), "model": model, **arguments},
            python=found.python,
            environment=peer.environment,
            missing=found.missing or missing,
            versions=found.versions,
        )

    rivals = [
        contestant(
            rival.name,
            rival.outside or (_no_bf16(sets) if rival.precision == "bf16" else ""),
            {
                "model": str(rival.model),
                "tolerance": REDUCED,
                **({"precision": rival.precision} if peer.name == "openvino" else {}),
            },
        )
        for rival in case.subject.rivals
        if rival.peer == peer.name
    ]
    return [contestant(peer.name, "", {}), *rivals]


def _no_bf16(instruction_sets: Sequence[str]) -> str:
    if set(_BF16_SETS) & set(instruction_sets):
        return ""
    return "this processor does not compute in bf16"


def _torch(case: Case, peer: Peer, scratch: Path) -> Contestant:
    """A contestant that runs the recipe's own module."""
    recipe = case.subject.recipe
    missing = ""
    if recipe is None:
        missing = "a bundle holds no module for PyTorch to run"
    elif peer.name == "torch-compile" and not any(map(shutil.which, _COMPILERS)):
        missing = f"torch.compile needs a C++ compiler: none of {', '.join(_COMPILERS)} is here"
    return Contestant(
        name=peer.name,
        factory=f"{peer.module}:open_model",
        arguments={**_arguments(case), "recipe": str(recipe)},
        # A cache of its own for each case: what it loads, it has compiled.
        environment={
            **peer.environment,
            "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor" / f"{case.name}-{peer.name}"),
        },
        missing=missing,
        versions=_versions("torch", "numpy"),
    )


def _versions(*names: str) -> dict[str, str]:
    return {name: found for name in names if (found := installed_version(name))}
