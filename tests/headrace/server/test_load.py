"""Many clients at once, and what the metrics then say of them."""

import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import tritonclient.grpc as triton
from edge_bundles import LABELS, png
from prometheus_client.parser import text_string_to_metric_families
from services import Service
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from headrace.observe.metrics import STAGES

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
INFER = "/v2/models/linear/infer"
THREADS = 32
EACH = 20
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(http: httpx.Client) -> Samples:
    """Every sample of the metrics, by name and labels."""
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def grown(before: Samples, after: Samples, name: str, label: str) -> dict[str, float]:
    """By how much the samples of a name grew, by model and one more label."""
    found: Counter[str] = Counter()
    for (sample, labels), value in after.items():
        if sample == name:
            named = dict(labels)
            growth = value - before.get((sample, labels), 0.0)
            found[f"{named['model']} {named.get(label, '')}".strip()] += growth  # type: ignore[assignment]
    return {key: value for key, value in found.items() if value}


def test_every_answer_is_its_own(edge: Service) -> None:
    """32 clients at once, over both transports and both models, all get their own rows."""
    start = threading.Barrier(THREADS)

    def over_http(seed: int) -> None:
        generator = np.random.default_rng(seed)
        with httpx.Client(base_url=edge.url, timeout=60) as client:
            start.wait(30)
            for number in range(EACH):
                x = generator.normal(size=(1 + number % 5, 3)).astype(np.float32)
                entry = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.tolist()}
                identity = f"{seed}-{number}"
                answer = client.post(INFER, json={"id": identity, "inputs": [entry]}).json()
                assert answer["id"] == identity
                found = np.reshape(answer["outputs"][0]["data"], answer["outputs"][0]["shape"])
                assert np.allclose(found, x @ WEIGHT, atol=1e-5)

    def over_grpc(seed: int) -> None:
        generator = np.random.default_rng(seed)
        with triton.InferenceServerClient(edge.grpc) as client:
            start.wait(30)
            for number in range(EACH):
                x = generator.normal(size=(1 + number % 5, 3)).astype(np.float32)
                tensor = triton.InferInput("x", list(x.shape), "FP32")
                tensor.set_data_from_numpy(x)
                result = client.infer("linear", [tensor], request_id=f"{seed}-{number}")
                assert result.get_response().id == f"{seed}-{number}"
                assert np.allclose(result.as_numpy("y"), x @ WEIGHT, atol=1e-5)

    def images(seed: int) -> None:
        with triton.InferenceServerClient(edge.grpc) as client:
            start.wait(30)
            for number in range(EACH):
                main = (seed + number) % 3
                picture = png((230 * (main == 0), 230 * (main == 1), 230 * (main == 2)))
                tensor = triton.InferInput("image", [1], "BYTES")
                tensor.set_data_from_numpy(np.array([picture], dtype=object))
                labels = client.infer("colours", [tensor]).as_numpy("labels")
                assert labels[0, 0].decode() == LABELS[main]

    kinds = (over_http, over_grpc, over_http, images)
    with ThreadPoolExecutor(THREADS) as pool:
        tasks = [pool.submit(kinds[seed % 4], seed) for seed in range(THREADS)]
        for task in tasks:
            task.result(timeout=120)


def test_counts_are_right(edge: Service, http: httpx.Client) -> None:
    """After N requests the metrics hold N, by outcome, with their rows and every stage of each."""
    x = {"name": "x", "datatype": "FP32", "shape": [4, 3], "data": [0] * 12}
    raw = messages.ModelInferRequest(
        model_name="linear",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [4, 3]}],
        raw_input_contents=[bytes(48)],
    )
    before = samples(http)
    for _ in range(7):
        assert http.post(INFER, json={"inputs": [x]}).status_code == 200
    for _ in range(3):
        assert http.post(INFER, content=b"{").status_code == 400
    with grpc.insecure_channel(edge.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(5):
            stub.ModelInfer(raw)
    after = samples(http)
    assert grown(before, after, "headrace_request_seconds_count", "outcome") == {
        "linear ok": 12,
        "linear request.json": 3,
    }
    assert grown(before, after, "headrace_rows_total", "version") == {"linear 1": 48}
    stages = grown(before, after, "headrace_stage_seconds_count", "stage")
    assert stages == {f"linear {stage}": 12 for stage in STAGES}


def test_rows_on_which_the_reference_works_are_counted(edge: Service, http: httpx.Client) -> None:
    """A bundle of before has no native library; without any processing nobody needs one."""
    before = samples(http)
    assert before["headrace_reference_rows_total", (("model", "colours"), ("version", "1"))] >= 0
    pictures = triton.InferInput("image", [2], "BYTES")
    pictures.set_data_from_numpy(np.array([png((9, 9, 9))] * 2, dtype=object))
    ready = triton.InferInput("x", [3, 3], "FP32")
    ready.set_data_from_numpy(np.zeros((3, 3), np.float32))
    with triton.InferenceServerClient(edge.grpc) as client:
        client.infer("colours", [pictures])
        client.infer("linear", [ready])
    assert grown(before, samples(http), "headrace_reference_rows_total", "version") == {
        "colours 1": 2
    }


def test_strangers_make_no_labels(http: httpx.Client) -> None:
    """Names, versions and codes in the labels are the server's own, whatever clients send."""
    strange = ("strange-model", 'a"b', "%0aheadrace_rows_total{model=x} 9", "x" * 5000)
    for name in strange:
        http.post(f"/v2/models/{name}/infer", content=b"{}")
        http.get(f"/v2/models/{name}")
        http.post(f"/v2/models/linear/versions/{name}/infer", content=b"{}")
    for name in ("x", "strange-input"):
        x = {"name": name, "datatype": "FP32", "shape": [1, 3], "data": [0] * 3}
        http.post(INFER, json={"inputs": [x]})
    found = samples(http)
    labels: dict[str, set[str]] = {}
    for _, pairs in found:
        for key, value in pairs:
            labels.setdefault(key, set()).add(value)
    assert labels["model"] <= {"", "linear", "colours"}
    assert labels["version"] <= {"", "1"}
    assert labels["stage"] == set(STAGES)
    assert all(re.fullmatch(r"ok|[a-z]+\.[a-z0-9-]+", outcome) for outcome in labels["outcome"])
    assert "strange" not in http.get("/metrics").text
