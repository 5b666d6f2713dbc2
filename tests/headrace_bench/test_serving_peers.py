"""The serving peers and the floors: which stand in a case, and those that can run here."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from services import GOOD

import headrace_bench
from headrace.bundle.open import open_bundle
from headrace.errors import UsageError
from headrace.processes import marked_processes
from headrace_bench.load.requests import golden_exchange, load_check
from headrace_bench.peers.environments import PEERS, Peer
from headrace_bench.peers.program import Program, parse_program
from headrace_bench.peers.serving import WAYS, serving_contestants
from headrace_bench.process import MARK, Contestant, Worker, WorkerError
from headrace_bench.suites.options import SuiteOptions
from headrace_bench.suites.serving_case import Encoding, Layout, Road, ServingCase

SERVING = tuple(peer for peer in PEERS if "serving" in peer.suites)
HERE = ("asgi-echo", "asgi-inline", "fastapi")
"""What stands on packages that headrace stands on, too."""


def make_case(
    folder: Path, layout: Layout = "edge", road: Road = "http", encoding: Encoding = "binary"
) -> ServingCase:
    """The case of the bundle that is an asset."""
    bundle = open_bundle(GOOD)
    exchange = golden_exchange(bundle)
    ((name, array),) = exchange.inputs.items()
    np.save(folder / "input.npy", array)
    np.save(folder / "expected.npy", exchange.expected)
    return ServingCase(
        name=f"{layout}-{road}-{encoding}",
        road=road,
        layout=layout,
        encoding=encoding,
        model_path=bundle.model_path(bundle.manifest.variants[0]),
        input_name=name,
        input_npy=folder / "input.npy",
        output_name=exchange.output,
        expected_npy=folder / "expected.npy",
        model_name=bundle.manifest.name,
        threads=1,
    )


def make_options(folder: Path, *peers: str) -> SuiteOptions:
    """Options with an empty home; without names, with every serving peer."""
    return SuiteOptions(
        bundle=None,
        scratch=folder / "scratch",
        home=folder / "home",
        quick=True,
        peers=peers or tuple(peer.name for peer in SERVING),
    )


def contestants(folder: Path, case: ServingCase, *peers: str) -> dict[str, Contestant]:
    """The contestants of a case by their names."""
    found = serving_contestants(case, make_options(folder, *peers))
    named = {contestant.name: contestant for contestant in found}
    assert len(named) == len(found)
    return named


def check_works(contestant: Contestant, load: int = 2) -> None:
    """Starts a contestant, has it answer, and finds nothing of it when it has ended."""
    mark = f"test-{uuid4().hex[:12]}"
    with Worker(contestant, mark) as worker:
        block = worker.block(0.05, load)
        assert (block.errors, block.first_error) == (0, "")
        assert len(block.latencies) >= load
        assert block.cpu_seconds > 0
        assert worker.facts().keys() == {"start_s", "memory_mb"}
    assert marked_processes(mark, MARK) == []


@pytest.mark.parametrize("peer", SERVING, ids=lambda peer: peer.name)
def test_peer_is_read_with_the_standard_library_alone(peer: Peer) -> None:
    """A peer's file is importable where neither headrace nor anything else is installed."""
    root = Path(headrace_bench.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import {peer.module}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_peers_are_pinned() -> None:
    """Every requirement of a serving peer names one version, and each peer is asked in some way."""
    assert {peer.name for peer in SERVING} == {way.peer for way in WAYS}
    for peer in SERVING:
        assert all(requirement.count("==") == 1 for requirement in peer.requirements)


def test_program_reads_the_flags_it_writes() -> None:
    """What a program hands to its worker is what it was told."""
    program = Program(
        model=Path("/models/a b.onnx"),
        name="m",
        input="pixel values",
        shape=(3, 224, 224),
        dtype="float32",
        output="logits",
        answer_shape=(),
        answer_dtype="int64",
        port=8001,
        threads=2,
        grpc_port=8002,
        scratch=Path("/scratch"),
        road="asgi-echo",
    )
    assert parse_program(program.flags()) == program


@pytest.mark.parametrize(
    ("layout", "road", "encoding", "names"),
    [
        (
            "edge",
            "http",
            "binary",
            "asgi-echo asgi-inline bentoml-json fastapi litserve-json mlserver-json pytriton",
        ),
        ("edge", "http", "json", "asgi-echo bentoml fastapi litserve mlserver pytriton"),
        ("edge", "grpc", "binary", "grpcio-aio-echo grpcio-sync-echo mlserver pytriton"),
        (
            "ray",
            "http",
            "binary",
            "ray-direct-echo ray-haproxy-echo ray-haproxy-inline ray-own-socket-echo ray-serve",
        ),
        ("ray", "http", "json", "ray-direct-echo ray-haproxy-echo ray-own-socket-echo"),
        ("ray", "grpc", "binary", ""),
    ],
)
def test_case_has_the_contestants_of_its_road(
    tmp_path: Path, layout: Layout, road: Road, encoding: Encoding, names: str
) -> None:
    """Road, layout and encoding decide who stands in a case; JSON among bytes is called so."""
    found = contestants(tmp_path, make_case(tmp_path, layout, road, encoding))
    assert sorted(found) == names.split()


def test_missing_environment_is_a_sentence(tmp_path: Path) -> None:
    """A peer that is not installed is a contestant that says so; the floors need nothing."""
    found = contestants(tmp_path, make_case(tmp_path))
    for name, contestant in found.items():
        peer = name.removesuffix("-json")
        said = f"peer '{peer}' is not installed: headrace bench peers install {peer}"
        assert contestant.missing == ("" if name.startswith("asgi") else said)
    assert set(found["asgi-echo"].versions) == {"onnxruntime", "uvicorn", "uvloop"}


def test_only_peers_asked_for_take_part(tmp_path: Path) -> None:
    """The names that were given decide; one that is no peer's is an error."""
    case = make_case(tmp_path)
    assert sorted(contestants(tmp_path, case, "fastapi")) == ["fastapi"]
    assert sorted(contestants(tmp_path, case, "pillow")) == []
    with pytest.raises(UsageError, match="no peer 'nobody'"):
        contestants(tmp_path, case, "nobody")


def test_requests_carry_the_same_tensor(tmp_path: Path) -> None:
    """Bytes and lists hold the case's input, and each check expects the case's output."""
    case = make_case(tmp_path)
    array = np.load(case.input_npy)
    found = contestants(tmp_path, case)

    def body(name: str) -> bytes:
        head, _, content = (
            Path(found[name].arguments["request"]).read_bytes().partition(b"\r\n\r\n")
        )
        assert b"Content-Length: %d" % len(content) in head
        return content

    assert body("fastapi") == body("asgi-inline") == array.tobytes()
    assert body("asgi-echo") == body("pytriton")
    assert body("asgi-echo").endswith(array.tobytes())
    for name in ("litserve-json", "bentoml-json"):
        assert json.loads(body(name)) == {"array": array.tolist()}
    assert json.loads(body("mlserver-json"))["inputs"][0]["data"] == array.ravel().tolist()
    for name, contestant in found.items():
        check = load_check(Path(contestant.arguments["expected"]))
        assert (check.kind == "echo") == name.endswith("-echo")
        assert (check.output, check.expected) == (case.output_name, str(case.expected_npy))


@pytest.mark.parametrize(("road", "flag"), [("http", "--port"), ("grpc", "--grpc-port")])
def test_each_road_has_its_port(tmp_path: Path, road: Road, flag: str) -> None:
    """Who answers two roads has the port of the one that is measured, and a free one beside it."""
    found = contestants(tmp_path, make_case(tmp_path, "edge", road), "mlserver", "pytriton")
    assert len(found) == 2
    for contestant in found.values():
        command = contestant.arguments["command"]
        assert command[command.index(flag) + 1] == "{port}"
        assert command.count("{other_port}") == 1


@pytest.mark.parametrize("name", HERE)
def test_http_contestant_answers_right(tmp_path: Path, name: str) -> None:
    """The floors of HTTP, and FastAPI with this environment's packages, start, answer and end."""
    check_works(replace(contestants(tmp_path, make_case(tmp_path))[name], missing=""))


def test_fastapi_answers_json(tmp_path: Path) -> None:
    """FastAPI, with this environment's packages, answers lists with lists."""
    case = make_case(tmp_path, encoding="json")
    check_works(replace(contestants(tmp_path, case, "fastapi")["fastapi"], missing=""))


@pytest.mark.parametrize("name", ["grpcio-sync-echo", "grpcio-aio-echo"])
def test_grpc_floor_answers_right(tmp_path: Path, name: str) -> None:
    """Both of grpcio's servers start, send back what they were sent, and end."""
    check_works(contestants(tmp_path, make_case(tmp_path, road="grpc"))[name])


def test_large_body_comes_back_whole(tmp_path: Path) -> None:
    """A body that arrives in pieces is echoed as one."""
    case = make_case(tmp_path)
    np.save(case.input_npy, np.arange(3 << 18, dtype=np.float32).reshape(-1, 3))
    check_works(contestants(tmp_path, case)["asgi-echo"])


def test_wrong_answer_ends_a_contestant(tmp_path: Path) -> None:
    """A contestant whose answer is not the case's is not measured."""
    case = make_case(tmp_path)
    np.save(case.expected_npy, np.load(case.expected_npy) + 1)
    contestant = contestants(tmp_path, case)["asgi-inline"]
    with pytest.raises(WorkerError, match="the answer is wrong"):
        check_works(contestant)


@pytest.mark.ray
def test_rays_stand_beside_each_other(tmp_path: Path) -> None:
    """Floors on Ray start at once, each on a Ray of its own, and each gives its own answer."""
    named = contestants(tmp_path, make_case(tmp_path, "ray"), "floors")
    found = [named["ray-haproxy-inline"], named["ray-own-socket-echo"]]
    marks = [f"test-{uuid4().hex[:12]}" for _ in found]
    with ExitStack() as stack, ThreadPoolExecutor(len(found)) as pool:

        def start(contestant: Contestant, mark: str) -> Worker:
            return stack.enter_context(Worker(contestant, mark))

        for worker in list(pool.map(start, found, marks)):
            block = worker.block(0.2, 2)
            assert (block.errors, block.first_error) == (0, "")
    assert [pid for mark in marks for pid in marked_processes(mark, MARK)] == []
