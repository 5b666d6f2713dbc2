"""How large the edge install is, and how long until its first answer.

    python -m headrace_bench.coldstart BUNDLE [--runs N]

Builds a virtual environment that holds `headrace[cpu]` and nothing else, weighs it, starts
`headrace serve --edge` in it again and again, and prints one JSON line a case, with the hardware
fingerprint. Beside it stands the service on Ray, from the environment this runs in.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path

from headrace.bundle.open import Bundle, open_bundle
from headrace.hardware import detect_hardware

_POLL_S = 0.005
_START_S = 120.0
_BANNED = ("torch", "onnx", "numba", "ray")


def main() -> None:
    """Runs every case."""
    parser = argparse.ArgumentParser(prog="headrace_bench.coldstart", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    with tempfile.TemporaryDirectory(prefix="headrace-coldstart-") as scratch:
        edge = install_edge(Path(scratch) / "edge")
        home = Path(scratch) / "home"
        report(
            "edge-install",
            bundle,
            {"megabytes": round(size_mb(edge.parent.parent / "lib"), 1), "absent": _BANNED},
        )
        for case, program, flags in (
            ("edge-first-answer", edge, ("--edge",)),
            ("ray-first-answer", Path(sys.executable).with_name("headrace"), ()),
        ):
            times = [first_answer(program, bundle, home, flags) for _ in range(options.runs)]
            report(case, bundle, summary(times))


def install_edge(directory: Path) -> Path:
    """An environment with `headrace[cpu]` alone; returns its program.

    Raises:
        SystemExit: It holds something that an edge is to be without.
    """
    source = Path(__file__).parents[2]
    venv.create(directory, with_pip=True)
    python = str(directory / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ("--constraint", str(source / "constraints.txt"))
    subprocess.run([*command, *constraints, f"{source}[cpu]"], check=True)  # noqa: S603 - ours
    probe = f"import importlib.util as u; print([m for m in {_BANNED} if u.find_spec(m)])"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True)  # noqa: S603
    if found.stdout.strip() != "[]":
        raise SystemExit(f"the edge install holds {found.stdout.strip()}")
    return directory / "bin" / "headrace"


def size_mb(directory: Path) -> float:
    """What the files of a directory take, in megabytes (10^6 bytes)."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6


def first_answer(program: Path, bundle: Bundle, home: Path, flags: Sequence[str]) -> float:
    """Seconds from starting the program to a right answer over HTTP; ends the service."""
    port, grpc = free_port(), free_port()
    ports = ("--port", str(port), "--grpc-port", str(grpc) if "--edge" not in flags else "0")
    url = f"http://127.0.0.1:{port}/v2/models/{bundle.manifest.name}/infer"
    body = request_body(bundle)
    begin = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own program
        [program, "serve", str(bundle.path), *flags, *ports],
        env={**os.environ, "HEADRACE_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not answers(url, body):
            if process.poll() is not None or time.perf_counter() - begin > _START_S:
                raise SystemExit(f"{program} did not serve {bundle.path}")
            time.sleep(_POLL_S)
        return time.perf_counter() - begin
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def request_body(bundle: Bundle) -> bytes:
    """A JSON request for the inputs of the first golden case."""
    case = bundle.golden_cases()[0]
    datatypes = {spec.name: spec.datatype for spec in bundle.manifest.inputs}
    inputs = [
        {
            "name": name,
            "shape": array.shape,
            "datatype": datatypes[name],
            "data": array.ravel().tolist(),
        }
        for name, array in case.inputs.items()
    ]
    return json.dumps({"inputs": inputs}).encode()


def answers(url: str, body: bytes) -> bool:
    """Whether a request is answered with 200."""
    request = urllib.request.Request(url, data=body, method="POST")  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def summary(seconds: Sequence[float]) -> dict[str, object]:
    """Smallest, median and largest of some times."""
    return {
        "runs": len(seconds),
        "seconds_min": round(min(seconds), 2),
        "seconds_median": round(statistics.median(seconds), 2),
        "seconds_max": round(max(seconds), 2),
    }


def report(case: str, bundle: Bundle, measured: dict[str, object]) -> None:
    """Prints one case as one JSON line."""
    fingerprint = detect_hardware().fingerprint
    line = {"case": case, "fingerprint": fingerprint, "bundle": bundle.label, **measured}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
