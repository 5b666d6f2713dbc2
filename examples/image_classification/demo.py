"""The main job, end to end: compile, verify, serve on Ray Serve, ask over HTTP and gRPC, end.

Run by `make demo`. Everything happens through the program and the stock `tritonclient`, as a user
would do it.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
OUT = Path(".demo")
HEADRACE = Path(sys.executable).with_name("headrace")
MODEL = "efficientnet-lite0"
PHOTOGRAPHS = {"chelsea.png": "cat", "coffee.png": "espresso"}
STAGES = ("decode", "queue", "preprocess", "session", "postprocess", "encode")
START_S = 120

console = Console()


def run(*arguments: str) -> dict[str, Any]:
    """Runs the program, and returns its JSON document."""
    console.print(f"[bold]$ headrace {' '.join(arguments)}[/bold]", soft_wrap=True)
    done = subprocess.run(  # noqa: S603 - our own program
        [HEADRACE, *arguments, "--json"], stdout=subprocess.PIPE, check=True
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@contextmanager
def serving(bundle: str) -> Iterator[dict[str, Any]]:
    """Serves a bundle for as long as the context lasts."""
    console.print(f"[bold]$ headrace serve {bundle}[/bold]")
    server = subprocess.Popen(  # noqa: S603 - our own program
        [HEADRACE, "serve", bundle, "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None  # noqa: S101 - asked for just above
        document, line = "", server.stdout.readline()
        while line and line.rstrip() != "}":
            document, line = document + line, server.stdout.readline()
        if not line:
            raise SystemExit(f"the service did not start: exit status {server.wait()}")
        yield json.loads(document + line)
    finally:
        server.send_signal(signal.SIGTERM)
        console.print(f"the service ended with exit status {server.wait(START_S)}", highlight=False)


def ask_http(client: tritonclient.http.InferenceServerClient, photograph: bytes) -> Any:  # noqa: ANN401
    """The labels and scores for one photograph, over HTTP."""
    image = tritonclient.http.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([photograph], dtype=object))
    return client.infer(MODEL, [image])


def ask_grpc(client: tritonclient.grpc.InferenceServerClient, photograph: bytes) -> Any:  # noqa: ANN401
    """The labels and scores for one photograph, over gRPC."""
    image = tritonclient.grpc.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([photograph], dtype=object))
    return client.infer(MODEL, [image])


def total(url: str, metric: str, label: str = "") -> float:
    """The sum of a metric's samples that have a label."""
    with urllib.request.urlopen(f"{url}/metrics") as response:  # noqa: S310 - our own service
        lines = response.read().decode().splitlines()
    found = [line for line in lines if line.startswith(f"{metric}{{")]
    if not found:
        raise SystemExit(f"the service has no metric {metric}")
    return sum(float(line.rpartition(" ")[2]) for line in found if label in line)


def stage_sums(url: str) -> dict[str, float]:
    """The seconds spent in each stage since the service started, from its metrics."""
    return {stage: total(url, "headrace_stage_seconds_sum", f'stage="{stage}"') for stage in STAGES}


def show(photograph: str, road: str, answer: Any, took: float, stages: dict[str, float]) -> str:  # noqa: ANN401
    """Prints one answer, and returns its best label."""
    scores, labels = answer.as_numpy("scores")[0], answer.as_numpy("labels")[0]
    console.print(f"[bold]{photograph}[/bold] over {road}: {took * 1e3:.1f} ms")
    table = Table(box=None, show_header=False, padding=(0, 1))
    for score, label in zip(scores, labels, strict=True):
        table.add_row(f"{score:.4f}", label.decode())
    console.print(table)
    times = "  ".join(f"{stage} {seconds * 1e3:.2f}" for stage, seconds in stages.items())
    console.print(f" server, ms: {times}\n", style="dim", highlight=False, soft_wrap=True)
    return str(labels[0].decode())


def ask_everything(service: dict[str, Any]) -> None:
    """Asks for both photographs over both roads, and checks what comes back."""
    url = service["url"]
    http = tritonclient.http.InferenceServerClient(url.removeprefix("http://"))
    grpc = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{service['grpc_port']}")
    roads = {"HTTP": (ask_http, http), "gRPC": (ask_grpc, grpc)}
    for name, expected in PHOTOGRAPHS.items():
        photograph = (files("skimage") / "data" / name).read_bytes()
        best = {}
        for road, (ask, client) in roads.items():
            ask(client, photograph)  # the first request opens the connection
            before = stage_sums(url)
            begin = time.perf_counter()
            answer = ask(client, photograph)
            took = time.perf_counter() - begin
            after = stage_sums(url)
            stages = {stage: after[stage] - before[stage] for stage in STAGES}
            best[road] = show(name, road, answer, took, stages)
        if not all(expected in label for label in best.values()):
            raise SystemExit(f"{name} was taken for {best}, and not for a kind of {expected}")
    http.close()
    grpc.close()
    slow = total(url, "headrace_reference_rows_total")
    console.print(f"photographs prepared by NumPy and not by the native kernel: {slow:.0f}")
    if slow:
        raise SystemExit("the bundle's native kernel was not used")


def main() -> None:
    """The whole journey."""
    os.environ.setdefault("HEADRACE_HOME", str(OUT.resolve() / "home"))
    recipe = os.path.relpath(HERE / "recipe.py")
    built = run("compile", recipe, "--out", str(OUT), "--force", "--measure", "quick")
    bundle = str(Path(built["path"]))
    console.print(f"built {bundle}\n      {built['digest']}")
    verified = run("verify", bundle)
    console.print(
        f"verified: {verified['files']} digests, {verified['golden_cases']} golden cases,"
        f" worst deviation {verified['worst']['error']:.2g}\n"
    )
    with serving(bundle) as service:
        ask_everything(service)


if __name__ == "__main__":
    main()
