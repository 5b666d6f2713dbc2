"""A scenario's process: `python -m headrace_bench.load.scenarios`.

One JSON document on standard input says what to drive, how, and where LoadGen's logs go:

    {"subject": {"factory": "package.module:function", "arguments": {...}},
     "settings": {...}, "logs": "/absolute/path"}

The answer is one line on what was standard output, the `Account`; whatever else is printed goes to
standard error. A subject that cannot be made is a traceback and status 1.
"""

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import Any

import mlperf_loadgen

from headrace_bench.load.loadgen import Account, LoadSettings, Subject
from headrace_bench.load.logs import LoadGenError
from headrace_bench.measure import machine_cpu_seconds

_MIN_OUTSTANDING = 1000
_TRIALS = 5
_TRIAL_S = 60.0
_FASTER = 3


def main() -> None:
    """Runs the scenario that standard input asks for.

    Raises:
        LoadGenError: The subject does not answer at all.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    order = json.load(sys.stdin)
    module, _, name = order["subject"]["factory"].partition(":")
    subject: Subject = getattr(import_module(module), name)(**order["subject"]["arguments"])
    try:
        account = run(subject, LoadSettings(**order["settings"]), order["logs"])
    finally:
        subject.close()
    answers.write(json.dumps(asdict(account)) + "\n")
    answers.flush()


def run(subject: Subject, settings: LoadSettings, logs: str) -> Account:
    """Has LoadGen drive a subject that is warm, until the last sample is answered."""
    ledger = _Ledger(subject)
    sut = mlperf_loadgen.ConstructSUT(ledger.issue, _nothing)
    library = mlperf_loadgen.ConstructQSL(subject.samples, subject.samples, _ignore, _ignore)
    try:
        asked, written = test_settings(settings, _quickest(subject)), log_settings(logs)
        machine, spent, own = machine_cpu_seconds(), subject.cpu_seconds(), time.process_time()
        begin = time.perf_counter()
        mlperf_loadgen.StartTestWithLogSettings(sut, library, asked, written, "")
        seconds = time.perf_counter() - begin
        own, spent = time.process_time() - own, subject.cpu_seconds() - spent
        machine = machine_cpu_seconds() - machine
    finally:
        mlperf_loadgen.DestroyQSL(library)
        mlperf_loadgen.DestroySUT(sut)
    return Account(
        samples=ledger.samples,
        errors=ledger.errors,
        first_error=ledger.first_error,
        seconds=seconds,
        cpu_seconds=spent,
        own_cpu_seconds=own if subject.in_process else own + spent,
        machine_cpu_seconds=machine,
    )


def test_settings(asked: LoadSettings, quickest: float) -> Any:  # noqa: ANN401 - no types there
    """The same in LoadGen's terms.

    Args:
        quickest: Seconds of the quickest answer. LoadGen makes its queries beforehand, as many as
            fill the time if each takes what is expected; too many do no harm, too few end the test.
    """
    expected_ns = max(1, round(quickest * 1e9 / _FASTER))
    settings = mlperf_loadgen.TestSettings()
    settings.scenario = getattr(mlperf_loadgen.TestScenario, asked.scenario)
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(asked.seconds * 1e3)
    settings.min_query_count = asked.queries
    settings.qsl_rng_seed = settings.sample_index_rng_seed = asked.seed
    settings.schedule_rng_seed = asked.seed
    if asked.scenario == "SingleStream":
        settings.single_stream_target_latency_percentile = asked.target
        settings.single_stream_expected_latency_ns = expected_ns
    elif asked.scenario == "MultiStream":
        settings.multi_stream_target_latency_percentile = asked.target
        settings.multi_stream_expected_latency_ns = expected_ns
        settings.multi_stream_samples_per_query = asked.samples_per_query
    elif asked.scenario == "Server":
        settings.server_target_latency_percentile = asked.target
        settings.server_target_latency_ns = round(asked.bound_s * 1e9)
        settings.server_target_qps = asked.rate
        # A server two seconds of arrivals behind is overloaded: LoadGen ends the test and says so.
        settings.server_max_async_queries = max(_MIN_OUTSTANDING, round(2 * asked.rate))
    else:
        settings.offline_expected_qps = asked.rate
    return settings


def log_settings(directory: str) -> Any:  # noqa: ANN401 - LoadGen has no types
    """Summary and detail into a directory; no trace."""
    settings = mlperf_loadgen.LogSettings()
    settings.enable_trace = False
    settings.log_output.outdir = directory
    settings.log_output.copy_summary_to_stdout = False
    return settings


class _Ledger:
    """Between LoadGen and the subject: keeps count, and completes failed samples too.

    LoadGen waits for every sample; one that failed is completed, and makes the run invalid here.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._lock = threading.Lock()
        self.samples = 0
        self.errors = 0
        self.first_error = ""

    def issue(self, samples: list[Any]) -> None:
        """Called by LoadGen, which goes on to the next arrival when it returns."""
        self.samples += len(samples)
        self._subject.issue([(sample.id, sample.index) for sample in samples], self.done)

    def done(self, identity: int, error: str) -> None:
        """Called by the subject, from any thread."""
        if error:
            with self._lock:
                self.errors += 1
                self.first_error = self.first_error or error
        response = mlperf_loadgen.QuerySampleResponse(identity, 0, 0)
        mlperf_loadgen.QuerySamplesComplete([response])


def _quickest(subject: Subject) -> float:
    """Seconds of the quickest of a few answers; what fails shows in the test itself."""
    found = []
    for _ in range(_TRIALS):
        answered = threading.Event()
        begin = time.perf_counter()
        subject.issue([(0, 0)], partial(_set, answered))
        if not answered.wait(_TRIAL_S):
            raise LoadGenError("bench.hung", f"the subject gave no answer in {_TRIAL_S:.0f} s")
        found.append(time.perf_counter() - begin)
    return min(found)


def _set(answered: threading.Event, _identity: int, _error: str) -> None:
    answered.set()


def _nothing() -> None:
    """LoadGen says that no more queries come for now; nobody waits for company here."""


def _ignore(_: list[int]) -> None:
    """LoadGen says which samples to hold in memory; all of them always are."""


if __name__ == "__main__":
    main()
