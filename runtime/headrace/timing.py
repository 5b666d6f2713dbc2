"""Times variants on this machine: needs neither torch nor the compiler, so a device can.

At each point all contenders take turns within a round, in an order that changes with the round, so
that what disturbs the machine disturbs all of them alike. Contenders that are clearly slower leave
the race early; the others run until their order is known or the rounds are used up.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from headrace.bundle.measurement import Point, Timing
from headrace.engine.session import Session
from headrace.selection import ratio_interval
from headrace.tensors import Array

_MEMINFO = Path("/proc/meminfo")
_LOWEST_SHARE = 0.15  # of the memory: larger batches stop before it gets scarcer than this
_SLOWEST_RUN_S = 4.0  # batches that take longer serve nobody


class Told(Protocol):
    """Who is told how far a long measurement has come."""

    def __call__(self, what: str, done: int, of: int) -> None:
        """So much of it is done."""
        ...


def told_nobody(what: str, done: int, of: int) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Effort:
    """How thoroughly to measure.

    Attributes:
        race: Batch sizes at which all contenders are compared, on every number of threads.
        curve: Batch sizes of those that won somewhere, and of the most precise. Empty leaves out
            all but the race: side by side, load, and memory unless it is limited.
        rounds: Of one point, at least and at most.
        block_s: How long one contender runs in one round.
        close: Contenders whose interval lies within this much of the fastest are equal.
    """

    race: tuple[int, ...]
    curve: tuple[int, ...]
    rounds: tuple[int, int]
    block_s: float
    close: float = 0.02


FULL = Effort(race=(1, 8), curve=(1, 2, 4, 8, 16, 32), rounds=(7, 15), block_s=0.025)
QUICK = Effort(race=(1,), curve=(), rounds=(6, 6), block_s=0.005)
_LEAVING = MappingProxyType({2: 1.6, 3: 1.3, 6: 1.1})
"""After so many rounds, who took longer than the leader by this factor in each of them leaves."""
_CURVE_ROUNDS = 3
_SETTLE_S = 0.05
"""So long do the workers of an ONNX Runtime session spin after a run, and take a core from whoever
comes next."""


@dataclass(frozen=True)
class Contender:
    """A candidate that can be run.

    Attributes:
        open: A session on so many threads.
    """

    name: str
    open: Callable[[int], Session]


@dataclass(frozen=True)
class Request:
    """What is asked again and again.

    Attributes:
        inputs: One sample, each array with its batch axis where the model is batched.
        batched: Whether batches of other sizes can be made of it; else it counts as one row.
    """

    inputs: Mapping[str, Array]
    batched: bool

    def of(self, rows: int) -> Mapping[str, Array]:
        """A batch of exactly so many rows; the sample as it is where it cannot be batched."""
        return repeat_rows(self.inputs, rows) if self.batched else self.inputs


Timings = dict[str, tuple[Timing, ...]]


def thread_counts(cores: int) -> tuple[int, ...]:
    """The numbers of threads that are measured: the powers of two, and all cores."""
    powers = itertools.takewhile(lambda n: n < cores, (2**k for k in itertools.count()))
    return (*powers, cores)


def race(
    contenders: Sequence[Contender],
    request: Request,
    *,
    cores: int,
    effort: Effort,
    told: Told = told_nobody,
) -> Timings:
    """Compares all contenders at the race's batch sizes, on each number of threads.

    Args:
        cores: That this process may use.

    Returns:
        By name. All contenders have the same points.
    """
    batches = effort.race if request.batched else (1,)
    points = [Point(batch=b, threads=t) for t in thread_counts(cores) for b in batches]
    found: dict[str, list[Timing]] = {contender.name: [] for contender in contenders}
    for threads, group in itertools.groupby(points, key=lambda point: point.threads):
        sessions = {contender.name: contender.open(threads) for contender in contenders}
        for point in group:
            told("compare", sum(map(len, found.values())), len(points) * len(contenders))
            for name, timing in _race(sessions, request.of(point.batch), point, effort).items():
                found[name].append(timing)
        del sessions
    return {name: tuple(timings) for name, timings in found.items()}


def curves(
    contenders: Sequence[Contender],
    request: Request,
    *,
    cores: int,
    effort: Effort,
    told: Told = told_nobody,
) -> Timings:
    """The other batch sizes, several sessions side by side, and several callers of one session.

    Sizes end where memory gets scarce or a run takes more than a few seconds.
    """
    others = [size for size in effort.curve if size not in effort.race]
    sizes = others if request.batched else []
    found: dict[str, list[Timing]] = {contender.name: [] for contender in contenders}
    for number, threads in enumerate(thread_counts(cores)):
        sessions = {contender.name: contender.open(threads) for contender in contenders}
        for size in sizes:
            told("profile", number * len(sizes) + sizes.index(size), cores * len(sizes))
            if _memory_is_scarce():
                break
            point = Point(batch=size, threads=threads)
            for name, timing in _few_rounds(sessions, request.of(size), point, effort).items():
                found[name].append(timing)
            if any(timings[-1].p50 > _SLOWEST_RUN_S for timings in found.values() if timings):
                break
        del sessions
    for contender in contenders:
        found[contender.name] += _together(contender, request, cores, effort)
    return {name: tuple(timings) for name, timings in found.items()}


def repeat_rows(inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """A batch of exactly `rows` rows: those of a sample, again and again."""
    return {
        name: np.ascontiguousarray(array[np.arange(rows) % len(array)])
        for name, array in inputs.items()
    }


def _race(
    sessions: Mapping[str, Session], feed: Mapping[str, Array], point: Point, effort: Effort
) -> dict[str, Timing]:
    rounds = _expecting(sessions, feed)
    least, most = effort.rounds
    running = list(sessions)
    # The first is what the others are measured against, so it stays to the end.
    first = running[0]
    for number in range(most):
        _round(sessions, running, feed, number, rounds, point, effort)
        medians = {name: _medians(blocks) for name, blocks in rounds.items()}
        leader = min(running, key=lambda name: float(np.median(medians[name])))
        factor = _LEAVING.get(number + 1)
        if factor is not None:
            running = [
                name
                for name in running
                if name in {leader, first} or not _far(medians[name], medians[leader], factor)
            ]
        if number + 1 >= least and _decided(medians, running, leader, effort.close):
            break
    return {name: _timing(point, blocks) for name, blocks in rounds.items()}


def _few_rounds(
    sessions: Mapping[str, Session], feed: Mapping[str, Array], point: Point, effort: Effort
) -> dict[str, Timing]:
    rounds = _expecting(sessions, feed)
    for number in range(_CURVE_ROUNDS):
        _round(sessions, list(sessions), feed, number, rounds, point, effort)
    return {name: _timing(point, blocks) for name, blocks in rounds.items()}


def _expecting(
    sessions: Mapping[str, Session], feed: Mapping[str, Array]
) -> dict[str, list[list[float]]]:
    """No rounds yet; the sessions know what shapes will come."""
    for session in sessions.values():
        session.expect(feed)
    return {name: [] for name in sessions}


def _round(
    sessions: Mapping[str, Session],
    running: Sequence[str],
    feed: Mapping[str, Array],
    number: int,
    rounds: Mapping[str, list[list[float]]],
    point: Point,
    effort: Effort,
) -> None:
    """A turn for each contender that is still running."""
    for name in _shuffled(running, number):
        if point.threads > 1:
            time.sleep(_SETTLE_S)
        # What the others pushed out of the caches comes back within a long run by itself.
        long = number > 0 and rounds[name][-1][-1] > effort.block_s
        rounds[name].append(_block(sessions[name], feed, effort.block_s, warm=not long))


def _shuffled(names: Sequence[str], number: int) -> list[str]:
    """Another order in each round, the same in each measurement: nobody always follows another."""
    return random.Random(number).sample(names, len(names))  # noqa: S311 - an order, no secret


def _block(
    session: Session, feed: Mapping[str, Array], seconds: float, *, warm: bool = True
) -> list[float]:
    """The times of single runs within a stretch.

    At least three, unless they are so long that the first of them tells enough.
    """
    if warm:
        session.run(feed)
    latencies: list[float] = []
    begin = last = time.perf_counter()
    while not latencies or last - begin < seconds * (1 if len(latencies) >= 3 else 4):
        session.run(feed)
        now = time.perf_counter()
        latencies.append(now - last)
        last = now
    return latencies


def _medians(blocks: Sequence[Sequence[float]]) -> list[float]:
    return [float(np.median(block)) for block in blocks]


def _far(ours: Sequence[float], leaders: Sequence[float], factor: float) -> bool:
    """Whether even the round that favours us most leaves us far behind."""
    count = min(len(ours), len(leaders))
    return min(a / b for a, b in zip(ours[:count], leaders[:count], strict=True)) > factor


def _decided(
    medians: Mapping[str, Sequence[float]], running: Sequence[str], leader: str, close: float
) -> bool:
    """Whether each contender is known to be slower than the leader, or known to be equal."""
    for name in running:
        if name == leader:
            continue
        ratio = ratio_interval(medians[name], medians[leader])
        near = ratio.low > 1 / (1 + close) and ratio.high < 1 + close
        if ratio.low <= 1 <= ratio.high and not near:
            return False
    return True


def _timing(point: Point, blocks: Sequence[Sequence[float]]) -> Timing:
    runs = np.concatenate([np.asarray(block) for block in blocks])
    medians = _medians(blocks)
    middle = float(np.median(medians))
    spread = float(np.quantile(medians, 0.75) - np.quantile(medians, 0.25))
    p50, p95, p99 = (float(q) for q in np.quantile(runs, (0.5, 0.95, 0.99), method="higher"))
    together = point.sessions * point.callers
    return Timing(
        point=point,
        rounds=tuple(medians),
        p50=p50,
        p95=p95,
        p99=p99,
        rows_per_second=together * point.batch / middle,
        runs=len(runs),
        stable=spread <= 0.1 * middle,
    )


def _together(contender: Contender, request: Request, cores: int, effort: Effort) -> list[Timing]:
    """One-thread sessions side by side on all cores, and one such session with two callers."""
    if cores < 2:
        return []
    feed = request.of(1)
    side_by_side = Point(batch=1, threads=1, sessions=cores)
    shared = Point(batch=1, threads=1, callers=2)
    sessions = [contender.open(1) for _ in range(cores)]
    seconds = effort.block_s * 2
    return [
        _timing(side_by_side, [_parallel(sessions, feed, seconds) for _ in range(_CURVE_ROUNDS)]),
        _timing(
            shared, [_parallel([sessions[0]] * 2, feed, seconds) for _ in range(_CURVE_ROUNDS)]
        ),
    ]


def _parallel(
    sessions: Sequence[Session], feed: Mapping[str, Array], seconds: float
) -> list[float]:
    """The times of single runs while each session's caller keeps it busy."""
    together = threading.Barrier(len(sessions))

    def call(session: Session) -> list[float]:
        together.wait()
        return _block(session, feed, seconds)

    with ThreadPoolExecutor(len(sessions)) as callers:
        return list(itertools.chain.from_iterable(callers.map(call, sessions)))


def _memory_is_scarce() -> bool:
    fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    total, free = (int(fields[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return free < _LOWEST_SHARE * total
