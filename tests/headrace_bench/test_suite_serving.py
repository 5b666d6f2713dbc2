"""The suites `serving` and `coldstart`: their cases, and those of them that need no peer."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import LABELS, PREPROCESSING, image_bundle
from services import GOOD

from headrace.bundle.open import open_bundle
from headrace.hardware import detect_hardware
from headrace.postprocess.spec import TopK
from headrace.preprocess.image.spec import ImagePreprocessing, Normalize
from headrace.processes import marked_processes
from headrace_bench.contest import Contest, Effort, run_contest
from headrace_bench.load.served import open_served
from headrace_bench.load.server import SERVER_MARK, Server
from headrace_bench.result import CaseResult
from headrace_bench.suites import coldstart, serving
from headrace_bench.suites.options import SuiteOptions
from headrace_compiler.kernels.lower import compile_kernels
from headrace_compiler.kernels.sources import Specs

SHORT = Effort(rounds=1, block_s=0.05, warm_s=0.05, allow_load=True)


def options(scratch: Path, bundle: Path | None = GOOD, case: str = "*") -> SuiteOptions:
    """What a suite is asked with: no peers."""
    opened = None if bundle is None else open_bundle(bundle)
    return SuiteOptions(opened, scratch, scratch / "home", quick=False, peers=(), case=case)


def compiled(spec: ImagePreprocessing) -> Mapping[str, bytes]:
    """The native libraries of a spec, with the postprocessing of `image_bundle`."""
    finish = TopK(output="logits", k=2, labels=LABELS)
    return compile_kernels(Specs(preprocessing=spec, postprocessing=finish))


def headrace_alone(contest: Contest) -> CaseResult:
    """The result of headrace in a contest without its peers."""
    own = tuple(each for each in contest.contestants if each.name == "headrace")
    (result,) = run_contest(replace(contest, contestants=own), SHORT, detect_hardware())
    return result


def test_cases_are_named_after_their_roads(tmp_path: Path) -> None:
    """Without a bundle the tiny model goes every road, with fewer of them where it is quick."""
    asked = options(tmp_path, None)
    names = [way.case("tiny") for way in serving.wanted_ways(asked)]
    assert names[:4] == ["edge-http-tiny", "edge-grpc-tiny", "ray-http-tiny", "ray-grpc-tiny"]
    assert names[4:] == ["edge-http-tiny-json", "ray-http-tiny-json"]
    quick = [way.case("tiny") for way in serving.wanted_ways(replace(asked, quick=True))]
    assert quick == names[:5]
    assert serving.contests(replace(asked, case="no-such-case")) == []
    assert not (tmp_path / "tiny").exists()


def test_a_bundle_is_measured_alone(tmp_path: Path) -> None:
    """With a bundle its tensors go every road, and its images where it takes some."""
    linear = serving.contests(options(tmp_path / "a"))
    assert [contest.case for contest in linear] == [
        *("edge-http-linear", "edge-grpc-linear", "ray-http-linear", "ray-grpc-linear")
    ]
    assert {contest.load for contest in linear} == {8}
    images = serving.wanted_ways(options(tmp_path / "b", image_bundle(tmp_path)))
    assert [way.image for way in images] == [False] * 4 + [True] * 2


def test_peers_get_the_same_model_and_request(tmp_path: Path) -> None:
    """A case for peers holds the graph, one row of the golden case, and the model's own output."""
    bundle = open_bundle(image_bundle(tmp_path))
    way = serving.TENSORS[0]
    case = serving.serving_case(bundle, way, tmp_path / "case")
    assert case is not None
    golden = bundle.golden_cases()[0]
    assert case.model_path == bundle.model_path(bundle.manifest.variants[0])
    sent, expected = np.load(case.input_npy), np.load(case.expected_npy)
    np.testing.assert_array_equal(sent, golden.inputs[case.input_name][:1])
    np.testing.assert_array_equal(expected, golden.outputs[case.output_name][:1])
    assert serving.serving_case(bundle, replace(way, image=True), tmp_path / "case") is None


def test_the_tiny_model_is_served(tmp_path: Path) -> None:
    """The tiny model is compiled, served and loaded by eight callers, in tensors and in JSON."""
    found = serving.contests(options(tmp_path, None, "edge-http-*"))
    assert [contest.case for contest in found] == ["edge-http-tiny", "edge-http-tiny-json"]
    for contest in found:
        result = headrace_alone(contest)
        assert (result.status, result.parameters["load"]) == ("ok", 8), result.reason
        assert {"latency_p50", "throughput", "cpu_per_operation", "start", "memory"} <= {
            metric.name for metric in result.metrics
        }
        assert result.bundle == contest.bundle is not None


@pytest.mark.ray
def test_every_process_of_a_ray_service_is_counted(tmp_path: Path) -> None:
    """Ray's own processes, HAProxy and the replicas belong to the server, and all end with it."""
    (contest,) = serving.contests(options(tmp_path, GOOD, "ray-http-*"))
    contestant = next(each for each in contest.contestants if each.name == "headrace")
    served = open_served(**contestant.arguments)
    try:
        assert served.block(0.2, 8).errors == 0
        server = served.__dict__["_server"]
        assert isinstance(server, Server)
        pids = server.pids()
        commands = " ".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)
        for part in ("gcs_server", "raylet", "haproxy", "ServeReplica:model-linear", "supervisor"):
            assert part in commands
        environment = Path(f"/proc/{pids[0]}/environ").read_text().split("\0")
    finally:
        served.close()
    mark = next(line.partition("=")[2] for line in environment if line.startswith(SERVER_MARK))
    assert marked_processes(mark, SERVER_MARK) == []


def test_without_a_source_tree_there_is_no_edge_install(tmp_path: Path) -> None:
    """Where the edge install cannot be built, its results say so and hold no figures."""
    install = coldstart.install_edge(tmp_path / "edge", source=tmp_path)
    assert "source tree" in install.missing
    asked = options(tmp_path, GOOD, "edge-*")
    (contest,) = coldstart.contests(asked)
    (size,) = coldstart.results(asked, detect_hardware(), lambda _: None)
    for result in (headrace_alone(contest), size):
        assert (result.status, result.metrics) == ("missing", ())
        assert result.reason == install.missing


def test_a_cold_start_is_timed(tmp_path: Path) -> None:
    """A case of the cold start starts its server for each block, one caller asking."""
    (contest,) = coldstart.contests(options(tmp_path, GOOD, "ray-*"))
    assert (contest.case, contest.load) == ("ray-first-answer", 1)
    own = next(each for each in contest.contestants if each.name == "headrace")
    assert own.factory == coldstart.STARTS
    edge = serving.headrace_contestant(open_bundle(GOOD), serving.TENSORS[0], tmp_path / "own")
    again = replace(edge, factory=coldstart.STARTS)
    result = headrace_alone(replace(contest, contestants=(again,)))
    assert result.status == "ok", result.reason
    assert {"latency_p50", "memory"} <= {metric.name for metric in result.metrics}


def without_jit(contest: Contest) -> Contest:
    """A contest in which Numba compiles once, after which its cache has what it made."""
    native, jit, cached = contest.contestants
    assert [native.name, jit.name, cached.name] == ["headrace", "numba-jit", "numba-cached"]
    assert jit == replace(cached, name=jit.name, environment={"NUMBA_CACHE_DIR": ""})
    return replace(contest, contestants=(native, cached))


def test_a_first_tensor_is_timed_natively_and_compiled_on_the_spot(tmp_path: Path) -> None:
    """All processes make the tensor of the reference; one that does not is not measured."""
    (found,) = coldstart.contests(options(tmp_path, GOOD, coldstart.TENSOR))
    contest = without_jit(found)
    for each in run_contest(contest, SHORT, detect_hardware()):
        assert each.status == "ok", each.reason  # which may say that the machine was busy
        assert each.metric("latency_p50") is not None
    expected = Path(str(contest.contestants[0].arguments["expected"]))
    np.save(expected, np.load(expected) + 1)
    for each in run_contest(contest, SHORT, detect_hardware()):
        assert (each.status, each.metrics) == ("failed", ())
        assert "the tensor is off by" in each.reason


def test_a_first_image_is_answered_natively(tmp_path: Path) -> None:
    """A case of the cold start has headrace answer an encoded image."""
    bundle = image_bundle(tmp_path, kernels=compiled(PREPROCESSING))
    (contest,) = coldstart.contests(options(tmp_path, bundle, coldstart.IMAGE))
    result = headrace_alone(contest)
    assert result.status == "ok", result.reason


def test_a_first_image_is_answered_by_what_numba_compiled(tmp_path: Path) -> None:
    """Numba's server has the kernel of the bundle's spec, even if the bundle's library has not."""
    other = Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    libraries = compiled(PREPROCESSING.model_copy(update={"normalize": other}))
    bundle = image_bundle(tmp_path, kernels=libraries)
    (contest,) = coldstart.contests(options(tmp_path, bundle, coldstart.IMAGE))
    native, cached = run_contest(without_jit(contest), SHORT, detect_hardware())
    assert native.status == "failed"
    assert "golden case 0: input 'pixels' is off by" in native.reason
    assert cached.status == "ok", cached.reason
    assert {"numba", "llvmlite"} <= cached.versions.keys()
    assert len([*tmp_path.rglob("*.nbc")]) == 1  # found by every start but the first


def test_what_prepares_no_images_natively_has_no_first_image(tmp_path: Path) -> None:
    """Numba is nobody's rival without a bundle, without images, or without a library."""
    for bundle in (None, GOOD, image_bundle(tmp_path)):
        assert coldstart.contests(options(tmp_path, bundle, coldstart.IMAGE)) == []


def test_sizes_are_those_of_files(tmp_path: Path) -> None:
    """A directory weighs what its files weigh, links not counted twice."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 500_000)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "file")
    assert coldstart.size_mb(tmp_path) == pytest.approx(0.5)
