"""LoadGen drives real subjects; its own logs decide what a run is worth."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import GOOD, Service, serving

from headrace.bundle.open import open_bundle
from headrace.hardware import detect_hardware
from headrace_bench.load.figures import judge, judge_peak, peak_metrics, scenario_metrics
from headrace_bench.load.loadgen import (
    LoadSettings,
    ScenarioResult,
    SubjectSpec,
    run_offline,
    run_scenario,
)
from headrace_bench.load.logs import DETAIL, SUMMARY, LoadGenError, read_logs
from headrace_bench.load.peak import Peak, Probe, find_peak, search
from headrace_bench.suites import endtoend
from headrace_bench.suites.options import SuiteOptions

SUBJECTS = "headrace_bench.load.subjects:"
CONSTANT = SubjectSpec(f"{SUBJECTS}constant", {"seconds": 0.002})
IN_PROCESS = SubjectSpec(f"{SUBJECTS}in_process", {"bundle": str(GOOD), "callers": 2})
LOOSE_S = 20.0
SCENARIOS = (
    LoadSettings("SingleStream", 0.2, queries=64),
    LoadSettings("MultiStream", 0.2, queries=64, percentile=0.9, samples_per_query=3),
    LoadSettings("Server", 0.2, queries=64, rate=200, bound_s=LOOSE_S, percentile=0.9),
    LoadSettings("Offline", 0.1, rate=2000),
)
BREAKING = '''
"""Subjects that fail, for tests."""
import os
from headrace_bench.load.subjects import Workers

def fails(every):
    asked = []
    def answer(index):
        asked.append(index)
        if len(asked) % every == 0:
            raise ValueError("the model fell over")
    return Workers(answer, samples=4, callers=1)

def dies():
    return Workers(lambda index: os._exit(9), samples=4, callers=1)

def hangs():
    import threading
    never = threading.Event()
    return Workers(lambda index: never.wait(), samples=4, callers=1)
'''


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server of the good bundle, with both edges."""
    with serving(tmp_path_factory.mktemp("home"), str(GOOD), "--edge") as running:
        yield running


def run(subject: SubjectSpec, settings: LoadSettings, logs: Path) -> ScenarioResult:
    """An offline run may need another size."""
    scenario = run_offline if settings.scenario == "Offline" else run_scenario
    return scenario(subject, settings, logs)


def assert_sound(found: ScenarioResult, logs: Path) -> None:
    """Valid, logged, and every sample accounted for."""
    assert found.valid, found.reasons
    assert found.reasons == ()
    assert found.shorter_than_mlperf
    assert (logs / SUMMARY).stat().st_size > 0
    assert (logs / DETAIL).stat().st_size > 0
    samples = found.settings.samples_per_query if found.settings.scenario == "MultiStream" else 1
    if found.settings.scenario != "Offline":
        assert found.account.samples == found.logged.queries * samples
    assert found.account.errors == 0
    assert 0 < found.logged.min_s <= found.logged.latencies_s[0.5] <= found.logged.max_s
    assert found.account.cpu_seconds <= found.account.own_cpu_seconds + 0.01
    assert scenario_metrics(found)


@pytest.mark.parametrize("settings", SCENARIOS, ids=lambda settings: settings.scenario)
def test_scenarios_in_process(settings: LoadSettings, tmp_path: Path) -> None:
    """Each scenario is VALID on a bundle in process, and LoadGen's logs are kept."""
    assert_sound(run(IN_PROCESS, settings, tmp_path / "logs"), tmp_path / "logs")


@pytest.mark.parametrize("settings", SCENARIOS, ids=lambda settings: settings.scenario)
def test_scenarios_over_http(settings: LoadSettings, tmp_path: Path, service: Service) -> None:
    """Each scenario is VALID over HTTP, and the server's processor time is counted."""
    port, pid = service.announced["http_port"], service.process.pid
    arguments = {"bundle": str(GOOD), "port": port, "connections": 16, "pids": [pid]}
    found = run(SubjectSpec(f"{SUBJECTS}http", arguments), settings, tmp_path)
    assert_sound(found, tmp_path)
    assert 0 < found.account.cpu_seconds < found.account.own_cpu_seconds


def test_server_scenario_over_grpc(tmp_path: Path, service: Service) -> None:
    """The open loop works over gRPC too."""
    arguments = {"bundle": str(GOOD), "port": service.announced["grpc_port"], "limit": 64}
    found = run(SubjectSpec(f"{SUBJECTS}grpc", arguments), SCENARIOS[2], tmp_path)
    assert_sound(found, tmp_path)


def test_server_scenario_does_not_wait_for_answers(tmp_path: Path) -> None:
    """Arrivals come at their rate at a subject that is far too slow, and their queue is counted."""
    slow = SubjectSpec(f"{SUBJECTS}constant", {"seconds": 0.01})
    settings = LoadSettings("Server", 0.3, rate=400, bound_s=0.02, percentile=0.9)
    found = run_scenario(slow, settings, tmp_path)
    assert not found.valid
    # A closed loop would have seen 10 ms each, however many came.
    assert found.logged.latencies_s[0.5] > 0.1
    assert found.logged.scheduled_rate is not None
    assert found.logged.rate is not None
    assert found.logged.scheduled_rate > 2 * found.logged.rate


def test_invalid_run_gives_reasons_and_no_figures(tmp_path: Path) -> None:
    """A latency bound that cannot be kept is INVALID, in LoadGen's words."""
    settings = LoadSettings("Server", 0.2, rate=100, bound_s=1e-6)
    found = run_scenario(CONSTANT, settings, tmp_path)
    assert not found.valid
    assert "Performance constraints satisfied: no" in found.reasons
    assert any("Reduce target QPS" in reason for reason in found.reasons)
    status, reason = judge(found, others=0.0, cores=2)
    assert status == "failed"
    assert "INVALID" in reason
    assert judge(found, others=1.9, cores=2)[0] == "disturbed"
    with pytest.raises(LoadGenError, match="Reduce target QPS"):
        found.require_valid()


def test_failed_samples_make_a_run_invalid(tmp_path: Path) -> None:
    """LoadGen may say VALID; a sample that failed makes the run invalid and says what it said."""
    subject = breaking(tmp_path, "fails", every=10)
    found = run_scenario(subject, LoadSettings("SingleStream", 0.1, queries=64), tmp_path)
    assert found.logged.verdict
    assert not found.valid
    assert found.account.errors > 0
    assert "ValueError: the model fell over" in found.reasons[0]
    assert judge(found, others=1.9, cores=2)[0] == "failed"


def test_http_refusals_are_errors(tmp_path: Path, service: Service) -> None:
    """A server that does not know the model is told before the test begins."""
    other = tmp_path / "other.bundle"
    shutil.copytree(GOOD, other)
    manifest = json.loads((other / "headrace.json").read_text())
    (other / "headrace.json").write_text(json.dumps({**manifest, "name": "stranger"}))
    arguments = {
        "bundle": str(other),
        "port": service.announced["http_port"],
        "connections": 1,
    }
    spec = SubjectSpec(f"{SUBJECTS}http", arguments)
    with pytest.raises(LoadGenError, match="HTTP 404"):
        run_scenario(spec, SCENARIOS[0], tmp_path / "logs")


def test_no_server_is_a_clear_error(tmp_path: Path) -> None:
    """Where nothing listens, the run ends with a sentence that says so."""
    spec = SubjectSpec(f"{SUBJECTS}http", {"bundle": str(GOOD), "port": 1, "connections": 1})
    with pytest.raises(LoadGenError, match=r"no connection to 127\.0\.0\.1:1"):
        run_scenario(spec, SCENARIOS[0], tmp_path)


def test_crash_is_a_clear_error(tmp_path: Path) -> None:
    """A process that ends in the midst of a test is told as such."""
    with pytest.raises(LoadGenError, match="ended with status 9") as caught:
        run_scenario(breaking(tmp_path, "dies"), SCENARIOS[0], tmp_path)
    assert caught.value.code == "bench.crashed"


def test_hang_is_a_clear_error(tmp_path: Path) -> None:
    """A subject that never answers is ended after its time."""
    settings = LoadSettings("SingleStream", 0.1, grace_s=2.0)
    with pytest.raises(LoadGenError, match="was ended") as caught:
        run_scenario(breaking(tmp_path, "hangs"), settings, tmp_path)
    assert caught.value.code == "bench.hung"


def test_logs_are_read_strictly(tmp_path: Path) -> None:
    """Logs that are missing, cut short, altered or of another scenario are refused."""
    run_scenario(CONSTANT, SCENARIOS[0], tmp_path)
    assert read_logs(tmp_path, "SingleStream").verdict
    with pytest.raises(LoadGenError, match="scenarios are"):
        read_logs(tmp_path, "Server")
    summary, detail = (tmp_path / SUMMARY).read_text(), (tmp_path / DETAIL).read_text()
    for name, text in (
        (SUMMARY, summary.replace(": VALID", ": INVALID")),
        (SUMMARY, ""),
        (DETAIL, detail[: len(detail) // 2]),
        (DETAIL, "not a log\n"),
        (DETAIL, detail.replace("result_query_count", "result_other")),
    ):
        damaged = tmp_path / "damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        damaged.mkdir()
        (damaged / SUMMARY).write_text(summary)
        (damaged / DETAIL).write_text(detail)
        (damaged / name).write_text(text)
        with pytest.raises(LoadGenError) as caught:
            read_logs(damaged, "SingleStream")
        assert caught.value.code == "bench.loadgen-log"
    (damaged / DETAIL).unlink()
    with pytest.raises(LoadGenError, match="no such file"):
        read_logs(damaged, "SingleStream")


@pytest.mark.parametrize("limit", [3.0, 97.0, 100.0, 812.5])
def test_search_brackets_the_limit(limit: float) -> None:
    """The bracket holds the limit and is at most 5 % wide; each rate in it was met twice."""
    found = search(lambda rate: rate <= limit, first=100.0, budget_s=60)
    assert found.complete
    assert found.missed is not None
    assert found.met <= limit < found.missed <= 1.05 * found.met
    assert [probe.met for probe in found.probes if probe.rate == found.met] == [True, True]
    assert len(found.probes) < 40


def test_flaky_probe_errs_downwards() -> None:
    """A rate that is met only every second time does not count as met."""
    asked: list[float] = []

    def probe(rate: float) -> bool:
        asked.append(rate)
        return rate <= 80 or (rate <= 160 and len(asked) % 2 == 0)

    found = search(probe, first=10.0, budget_s=60)
    assert found.complete
    assert found.missed is not None
    assert 80 / 1.05 <= found.met <= 80 < found.missed <= 1.05 * found.met


def test_search_ends_in_time() -> None:
    """When the time is up the bracket so far is given, and said to be incomplete."""
    now = [0.0]

    def probe(rate: float) -> bool:
        now[0] += 10
        return rate <= 1000

    found = search(probe, first=1.0, budget_s=45, clock=lambda: now[0])
    assert found == Peak(
        met=2.0,
        missed=None,
        probes=(Probe(1.0, met=True),) * 2 + (Probe(2.0, met=True),) * 2 + (Probe(4.0, met=True),),
        complete=False,
    )


def test_search_gives_up_where_nothing_is_met() -> None:
    """A probe that is never met ends the search without a peak."""
    found = search(lambda _: False, first=8.0, budget_s=60)
    assert (found.met, found.complete) == (0.0, False)
    assert found.missed is not None
    assert found.missed < 0.01
    with pytest.raises(ValueError, match="above 0"):
        search(lambda _: True, first=0.0, budget_s=60)


def test_peak_of_a_constant_subject_is_below_its_service_rate(tmp_path: Path) -> None:
    """The peak of a subject of 50 answers a second is found; each probe leaves a run."""
    slow = SubjectSpec(f"{SUBJECTS}constant", {"seconds": 0.02})
    settings = LoadSettings("Server", 0.3, rate=400, bound_s=0.2)
    said: list[str] = []
    found = find_peak(slow, settings, tmp_path, budget_s=2.5, progress=said.append)
    assert len(found.runs) == len(found.peak.probes) == len(said)
    assert found.peak.missed is not None
    assert found.peak.met < 400
    assert not found.peak.probes[0].met
    assert len({run.settings.seed for run in found.runs}) == len(found.runs)
    assert all((tmp_path / f"probe-{n + 1:02d}" / SUMMARY).exists() for n in range(len(said)))
    status, _ = judge_peak(found, others=0.0, cores=2)
    assert status == ("ok" if found.peak.met else "failed")
    assert peak_metrics(found)[0].value == pytest.approx(found.peak.met, rel=1e-3)


def test_suite_measures_what_was_asked_for(tmp_path: Path) -> None:
    """A case picked from the suite gives one result with its parameters and its logs."""
    options = SuiteOptions(
        bundle=open_bundle(GOOD),
        scratch=tmp_path / "scratch",
        home=tmp_path / "home",
        quick=True,
        peers=(),
        case="singlestream-in-*",
    )
    (found,) = endtoend.results(options, detect_hardware(), lambda _: None)
    assert (found.suite, found.case) == ("endtoend", "singlestream-in-process")
    assert found.status in {"ok", "disturbed"}, found.reason
    assert bool(found.metrics) == (found.status == "ok")
    assert (options.home / str(found.parameters["logs"]) / SUMMARY).exists()


def test_suite_tells_that_a_server_did_not_start(tmp_path: Path) -> None:
    """Every case of a stand whose server does not come up fails with its last words."""
    bundle = tmp_path / "broken.bundle"
    shutil.copytree(GOOD, bundle)
    opened = open_bundle(bundle)
    (bundle / "manifest.json").unlink()
    (tmp_path / "scratch").mkdir()
    options = SuiteOptions(
        opened, tmp_path / "scratch", tmp_path / "home", quick=True, peers=(), case="*-http"
    )
    found = endtoend.results(options, detect_hardware(), lambda _: None)
    assert [result.case for result in found] == [
        "singlestream-http",
        "multistream-http",
        "offline-http",
        "server-http",
        "peak-rate-http",
    ]
    assert all(result.status == "failed" and not result.metrics for result in found)
    assert "manifest.json" in found[0].reason


def breaking(folder: Path, name: str, **arguments: int) -> SubjectSpec:
    """A subject of the module above."""
    (folder / "breaking.py").write_text(BREAKING)
    return SubjectSpec(f"breaking:{name}", arguments, (folder,))
