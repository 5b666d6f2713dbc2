"""Prometheus metrics of the data plane.

On Ray, replicas are processes of their own: they write to memory-mapped files in one directory
(prometheus-client's multiprocess mode), and whoever is scraped adds them up exactly.
"""

from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus-client when it is first imported in a process."""
# Sub-millisecond models are the normal case: 1, 2, 5 from 50 µs to 10 s.
BUCKETS = (
    *(5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2),
    *(2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
STAGES = ("decode", "preprocess", "queue", "session", "postprocess", "encode")


class Metrics:
    """The metrics of one process.

    Args:
        registry: Where they are registered; one for each server, so that tests can have many.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._stage = Histogram(
            "headrace_stage_seconds",
            "Time of one stage of a request.",
            ("model", "version", "stage"),
            buckets=BUCKETS,
            registry=registry,
        )
        self._request = Histogram(
            "headrace_request_seconds",
            "Time of a whole request, from its last byte in to its first byte out.",
            ("model", "version", "outcome"),
            buckets=BUCKETS,
            registry=registry,
        )
        self._rows = Counter(
            "headrace_rows", "Rows answered.", ("model", "version"), registry=registry
        )
        self._reference = Counter(
            "headrace_reference_rows",
            "Rows prepared or finished by the NumPy reference, not by a native library.",
            ("model", "version"),
            registry=registry,
        )
        self._loaded = Gauge(
            "headrace_model_load_seconds",
            "Time of the last load: verify, open, warm, replay golden cases.",
            ("model", "version", "variant"),
            registry=registry,
            multiprocess_mode="mostrecent",
        )

    def observe_stages(self, model: str, version: str, seconds: Mapping[str, float]) -> None:
        """Records the stages of one request."""
        for stage, value in seconds.items():
            self._stage.labels(model, version, stage).observe(value)

    def observe_request(self, model: str, version: str, outcome: str, seconds: float) -> None:
        """Records one request; the outcome is `ok` or an error's code."""
        self._request.labels(model, version, outcome).observe(seconds)

    def count_rows(self, model: str, version: str, rows: int) -> None:
        """Counts rows that were answered."""
        self._rows.labels(model, version).inc(rows)

    def count_reference_rows(self, model: str, version: str, rows: int) -> None:
        """Counts rows that were prepared or finished in NumPy."""
        self._reference.labels(model, version).inc(rows)

    def observe_load(self, model: str, version: str, variant: str, seconds: float) -> None:
        """Records one load of a model, whose counters are told from there on."""
        self._reference.labels(model, version)
        self._loaded.labels(model, version, variant).set(seconds)


def expose(registry: CollectorRegistry) -> bytes:
    """The text format of one process's metrics."""
    return generate_latest(registry)


def expose_directory(directory: Path) -> bytes:
    """The text format of the sums over every process that wrote to a directory."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return generate_latest(registry)
