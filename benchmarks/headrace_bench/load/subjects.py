"""What LoadGen drives: a model in this process, a server over HTTP or gRPC, or a constant time.

Each factory is named in a `loadgen.SubjectSpec`, and called in the scenario's process.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from headrace.bundle.open import Bundle, open_bundle
from headrace.engine.model import load_model
from headrace.preprocess.spec import raw_row
from headrace.tensors import Array
from headrace_bench.load.loadgen import Done, Query
from headrace_bench.load.open import Grpc, Http
from headrace_bench.load.requests import oip_grpc, oip_http


class Workers:
    """Callers in this process, who take samples from a common queue in the order of arrival.

    Args:
        answer: Answers the sample of an index; called by several threads at once.
        samples: How many different ones there are.
        callers: Threads.
    """

    in_process = True

    def __init__(self, answer: Callable[[int], object], *, samples: int, callers: int) -> None:
        self.samples = samples
        self._answer = answer
        self._pool = ThreadPoolExecutor(callers)

    def issue(self, queries: Sequence[Query], done: Done) -> None:
        """See `Subject.issue`."""
        for identity, index in queries:
            future = self._pool.submit(self._answer, index)
            future.add_done_callback(partial(_report, identity, done))

    def cpu_seconds(self) -> float:
        """Of this process, LoadGen's threads in it included."""
        return time.process_time()

    def close(self) -> None:
        """Ends the callers."""
        self._pool.shutdown()


class Constant:
    """Takes exactly `seconds` a sample, one at a time, first come first served: by calculation.

    Each end is reckoned from the arrival and the end before it, and slept until, so that the time
    by which a sleep is too long does not add up along a queue. It needs no processor meanwhile.
    """

    in_process = True
    samples = 8

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._free = 0.0
        self._pool = ThreadPoolExecutor(1)

    def issue(self, queries: Sequence[Query], done: Done) -> None:
        """See `Subject.issue`."""
        now = time.perf_counter()
        for identity, _ in queries:
            self._free = max(self._free, now) + self._seconds
            future = self._pool.submit(_sleep_until, self._free)
            future.add_done_callback(partial(_report, identity, done))

    def cpu_seconds(self) -> float:
        """Of this process."""
        return time.process_time()

    def close(self) -> None:
        """Ends its thread."""
        self._pool.shutdown()


def constant(seconds: float) -> Constant:
    """A factory: see `Constant`."""
    return Constant(seconds)


def in_process(bundle: str, callers: int) -> Workers:
    """A factory: a bundle's own pipeline in this process, asked by `callers` threads.

    Raises:
        CheckError: It does not load, or a golden case comes out otherwise than at build.
    """
    model = load_model(open_bundle(Path(bundle)))
    rows = one_row_inputs(model.bundle)
    for row in rows:
        model.answer(row)
    return Workers(lambda index: model.answer(rows[index]), samples=len(rows), callers=callers)


def http(bundle: str, port: int, connections: int, pids: Sequence[int] = ()) -> Http:
    """A factory: a server of a bundle over HTTP; see `Http`.

    Raises:
        CheckError: It does not answer.
    """
    opened = open_bundle(Path(bundle))
    name = opened.manifest.name
    requests = [oip_http(name, row, binary=True) for row in one_row_inputs(opened)]
    return Http(port, requests, connections=connections, pids=pids)


def grpc(bundle: str, port: int, limit: int, channels: int = 2, pids: Sequence[int] = ()) -> Grpc:
    """A factory: a server of a bundle over gRPC; see `Grpc`.

    Raises:
        CheckError: It does not answer.
    """
    opened = open_bundle(Path(bundle))
    requests = [oip_grpc(opened.manifest.name, row) for row in one_row_inputs(opened)]
    return Grpc(port, requests, limit=limit, channels=channels, pids=pids)


def one_row_inputs(bundle: Bundle) -> list[dict[str, Array]]:
    """The samples: one row of each golden case, as its encoded image where it has one.

    Raises:
        BundleError: The golden cases cannot be read.
    """
    manifest = bundle.manifest
    found = []
    for case in bundle.golden_cases():
        if case.raw:
            found.append(raw_row(case.raw))
        elif manifest.batched:
            found.append({name: array[:1] for name, array in case.inputs.items()})
        else:
            found.append(dict(case.inputs))
    return found


def _report(identity: int, done: Done, future: "Future[object]") -> None:
    failed = future.exception()
    done(identity, "" if failed is None else f"{type(failed).__name__}: {failed}")


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))
