"""Which peers stand beside headrace in a case of the suites `serving` and `coldstart`.

Each is asked in the form that it takes by itself: the tensor's bytes where it takes bytes, the Open
Inference Protocol where it speaks that, and nested lists in JSON where it knows nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from headrace.tensors import Array
from headrace_bench.load.requests import (
    OIP_GRPC,
    READY,
    AnswerCheck,
    Kind,
    http_request,
    oip_grpc,
    oip_http,
)
from headrace_bench.peers.environments import (
    Peer,
    PeerEnvironment,
    inspect_environment,
    installed_versions,
    select_peers,
)
from headrace_bench.peers.floors import PACKAGES
from headrace_bench.peers.program import write_flags
from headrace_bench.process import Contestant, package_alone
from headrace_bench.suites.options import SuiteOptions
from headrace_bench.suites.serving_case import Encoding, Layout, Road, ServingCase

Form = Literal["echo", "raw", "lists", "oip"]
"""`echo`: headrace's own request, which comes back as it is. `raw`: the tensor's bytes alone, both
ways. `lists`: nested lists in JSON. `oip`: the Open Inference Protocol."""


@dataclass(frozen=True)
class Way:
    """One way to ask one peer.

    Attributes:
        name: The contestant's; a floor's program is told it, too.
        cases: The encodings of the cases in which it takes part.
        form: What the peer takes.
        binary: Whether tensors travel as bytes, in the forms that leave the choice.
        path: For HTTP, where the form does not say it.
        ready: A path that answers 200 once the peer is ready; without it, the request itself tells.
    """

    peer: str
    name: str
    layout: Layout
    road: Road
    cases: tuple[Encoding, ...]
    form: Form
    binary: bool = True
    path: str = "/predict"
    ready: str = ""


_BOTH: tuple[Encoding, ...] = ("binary", "json")
_BINARY: tuple[Encoding, ...] = ("binary",)
_JSON: tuple[Encoding, ...] = ("json",)
WAYS = (
    Way("floors", "asgi-echo", "edge", "http", _BOTH, "echo"),
    Way("floors", "asgi-inline", "edge", "http", _BINARY, "raw"),
    Way("fastapi", "fastapi", "edge", "http", _BINARY, "raw"),
    Way("fastapi", "fastapi", "edge", "http", _JSON, "lists", path="/predict-json"),
    Way("litserve", "litserve", "edge", "http", _JSON, "lists"),
    Way("litserve", "litserve-json", "edge", "http", _BINARY, "lists"),
    Way("bentoml", "bentoml", "edge", "http", _JSON, "lists"),
    Way("bentoml", "bentoml-json", "edge", "http", _BINARY, "lists"),
    Way("mlserver", "mlserver", "edge", "http", _JSON, "oip", binary=False, ready=READY),
    Way("mlserver", "mlserver-json", "edge", "http", _BINARY, "oip", binary=False, ready=READY),
    Way("pytriton", "pytriton", "edge", "http", _JSON, "oip", binary=False, ready=READY),
    Way("pytriton", "pytriton", "edge", "http", _BINARY, "oip", ready=READY),
    Way("floors", "grpcio-sync-echo", "edge", "grpc", _BOTH, "echo"),
    Way("floors", "grpcio-aio-echo", "edge", "grpc", _BOTH, "echo"),
    Way("mlserver", "mlserver", "edge", "grpc", _BOTH, "oip"),
    Way("pytriton", "pytriton", "edge", "grpc", _BOTH, "oip"),
    Way("floors", "ray-own-socket-echo", "ray", "http", _BOTH, "echo"),
    Way("floors", "ray-direct-echo", "ray", "http", _BOTH, "echo"),
    Way("floors", "ray-haproxy-echo", "ray", "http", _BOTH, "echo"),
    Way("floors", "ray-haproxy-inline", "ray", "http", _BINARY, "raw"),
    Way("ray-serve", "ray-serve", "ray", "http", _BINARY, "raw"),
)
"""A peer that takes JSON alone says so in its name where others are sent bytes."""
_TWO_PORTS = ("mlserver", "pytriton")
"""They always answer both roads, each on a port of its own."""


def serving_contestants(case: ServingCase, options: SuiteOptions) -> list[Contestant]:
    """The contestants beside headrace that go by a case's road, in its layout.

    Their requests and checks are written to `options.scratch`.

    Raises:
        UsageError: One of `options.peers` is no peer's name.
    """
    place = options.scratch / "peers" / case.name
    place.mkdir(parents=True, exist_ok=True)
    fitting = [
        way
        for way in WAYS
        if (way.layout, way.road) == (case.layout, case.road) and case.encoding in way.cases
    ]
    contestants = []
    for peer in select_peers("serving", options.peers):
        ways = [way for way in fitting if way.peer == peer.name]
        if ways:
            found = inspect_environment(peer, options.home)
            contestants += [_contestant(case, way, peer, found, place) for way in ways]
    return contestants


def _contestant(
    case: ServingCase, way: Way, peer: Peer, found: PeerEnvironment, place: Path
) -> Contestant:
    array = np.load(case.input_npy, allow_pickle=False)
    expected = np.load(case.expected_npy, allow_pickle=False)
    request, kind = _request(case, way, array)
    sent = place / f"{way.name}.request"
    sent.write_bytes(request)
    check = AnswerCheck(kind=kind, output=case.output_name, expected=str(case.expected_npy))
    program = [str(found.python), "-m", peer.module]
    return Contestant(
        name=way.name,
        factory="headrace_bench.load.served:open_served",
        arguments={
            "command": [*program, *_flags(case, way, array, expected)],
            "environment": {**peer.environment, "PYTHONPATH": str(package_alone(place / "import"))},
            "port": 0,
            "road": way.road,
            "ready": way.ready,
            "request": str(sent),
            "method": OIP_GRPC if way.road == "grpc" else "",
            "expected": check.save(place / f"{way.name}.check.json"),
            "rows": len(array),
        },
        missing=found.missing,
        versions=found.versions or installed_versions(found.python, _packages(way)),
    )


def _request(case: ServingCase, way: Way, array: Array) -> tuple[bytes, Kind]:
    """What is sent, and how the tensor stands in the answer."""
    inputs = {case.input_name: array}
    if way.road == "grpc":
        return oip_grpc(case.model_name, inputs), "echo" if way.form == "echo" else "oip-grpc"
    if way.form == "raw":
        octets = {"Content-Type": "application/octet-stream"}
        return http_request(way.path, array.tobytes(), octets), "raw"
    if way.form == "lists":
        body = json.dumps({"array": array.tolist()}, separators=(",", ":")).encode()
        content = {"Content-Type": "application/json"}
        return http_request(way.path, body, content), "json-outputs"
    if way.form == "echo":
        return oip_http(case.model_name, inputs, binary=case.encoding == "binary"), "echo"
    kind: Kind = "oip-binary" if way.binary else "oip-json"
    return oip_http(case.model_name, inputs, binary=way.binary), kind


def _flags(case: ServingCase, way: Way, array: Array, expected: Array) -> list[str]:
    """Of the peer's program; what stands in braces is filled in by whoever starts it."""
    ports: Mapping[str, str] = {"port": "{port}"}
    if way.peer in _TWO_PORTS:
        names = ("port", "grpc_port") if way.road == "http" else ("grpc_port", "port")
        ports = dict(zip(names, ("{port}", "{other_port}"), strict=True))
    return write_flags(
        {
            "model": case.model_path,
            "name": case.model_name,
            "input": case.input_name,
            "shape": array.shape[1:],
            "dtype": array.dtype.name,
            "output": case.output_name,
            "answer_shape": expected.shape[1:],
            "answer_dtype": expected.dtype.name,
            **ports,
            "threads": case.threads,
            "scratch": "{scratch}",
            "road": way.name,
        }
    )


def _packages(way: Way) -> Sequence[str]:
    """What decides how fast a floor is."""
    return PACKAGES[way.name.partition("-")[0]] if way.peer == "floors" else ()
