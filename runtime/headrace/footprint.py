"""What loading a variant costs: measured in a process of its own, which holds nothing else.

python -m headrace.footprint < request.json > footprint.json
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.bundle.manifest import Variant
from headrace.engine.open import open_session
from headrace.engine.openvino import load_openvino
from headrace.engine.session import load_onnxruntime
from headrace.errors import HeadraceError, InternalError
from headrace.tensors import Array

_STATUS = Path("/proc/self/status")
_LIMIT_S = 600


@dataclass(frozen=True)
class Footprint:
    """What one session costs.

    Attributes:
        load_seconds: From the file to a session that has answered once.
        memory_mib: The most that the process held, less what it held before.
    """

    load_seconds: float
    memory_mib: float


def measure_footprint(
    model: Path, variant: Variant, inputs: Path, *, provider: str, threads: int
) -> Footprint:
    """Loads a variant in a fresh process, runs it once, and says what that cost.

    Args:
        model: The ONNX file.
        inputs: An `.npz` file of one request, as `write_inputs` makes it.

    Raises:
        InternalError: The process failed.
    """
    request = {
        "model": str(model),
        "variant": variant.model_dump(mode="json"),
        "inputs": str(inputs),
        "provider": provider,
        "threads": threads,
    }
    done = subprocess.run(
        [sys.executable, "-m", "headrace.footprint"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InternalError("profile.load", f"{variant.name} does not load by itself: {last}")
    return Footprint(**json.loads(done.stdout))


def write_inputs(path: Path, inputs: Mapping[str, Array]) -> None:
    """Writes one request for `measure_footprint`."""
    # By place: as keywords, some names would be taken for np.savez's own.
    np.savez(path, *inputs.values(), names=np.array(list(inputs), dtype=np.str_))


def _measure(request: Mapping[str, str | int]) -> Footprint:
    variant = Variant.model_validate_json(json.dumps(request["variant"]))
    with np.load(str(request["inputs"]), allow_pickle=False) as archive:
        inputs = {str(name): archive[f"arr_{at}"] for at, name in enumerate(archive["names"])}
    # Engines are imported before: every process has its engine, whatever it loads.
    load_onnxruntime()
    if variant.engine == "openvino":
        load_openvino()
    before = _kibibytes("VmRSS")
    begin = time.perf_counter()
    session = open_session(
        Path(str(request["model"])),
        variant,
        provider=str(request["provider"]),
        threads=int(request["threads"]),
    )
    session.expect(inputs)
    session.run(inputs)
    seconds = time.perf_counter() - begin
    return Footprint(load_seconds=seconds, memory_mib=(_kibibytes("VmHWM") - before) / 1024)


def _kibibytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def main() -> None:
    """Reads a request from standard input; writes the footprint to standard output."""
    try:
        found = _measure(json.load(sys.stdin))
    except HeadraceError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(found.__dict__))


if __name__ == "__main__":
    main()
