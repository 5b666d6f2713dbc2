"""Many starts and ends, clean ones and crashes: nothing is ever left behind.

Each run writes what it saw to `docs/soak/`, dated and with the machine's fingerprint.
"""

import json
import signal
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from services import GOOD, fetch, serving, wait_until

from headrace.hardware import detect_hardware

RESULTS = Path(__file__).parents[2] / "docs" / "soak"
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
CLEAR_S = 10.0


@pytest.mark.parametrize(("mode", "flags", "rounds"), [("edge", ["--edge"], 60), ("ray", [], 15)])
def test_restarts_leave_nothing(tmp_path: Path, mode: str, flags: list[str], rounds: int) -> None:
    """After every end, asked for or a crash, processes, ports and files are gone in ten seconds."""
    starts, ends = [], []
    for number in range(rounds):
        begin = time.monotonic()
        with serving(tmp_path, str(GOOD), *flags) as service:
            starts.append(time.monotonic() - begin)
            assert fetch(f"{service.url}/v2/health/ready")[0] == 200
            how = ENDS[number % len(ENDS)]
            begin = time.monotonic()
            service.end(how)
            if mode == "edge" and how is signal.SIGKILL:
                continue  # its one process is gone; its record goes at the next start
            assert wait_until(lambda: not service.leftovers(), CLEAR_S), service.leftovers()
            ends.append(time.monotonic() - begin)
    write_down(f"restarts-{mode}", rounds, starts, ends)


def write_down(case: str, rounds: int, starts: list[float], ends: list[float]) -> None:
    """One dated result; the newest of a machine replaces the one before."""
    hardware = detect_hardware()
    RESULTS.mkdir(exist_ok=True)
    result = {
        "case": case,
        "date": datetime.now(UTC).date().isoformat(),
        "fingerprint": hardware.fingerprint,
        "rounds": rounds,
        "left_behind": 0,
        "start_seconds_median": round(statistics.median(starts), 2),
        "start_seconds_max": round(max(starts), 2),
        "end_seconds_median": round(statistics.median(ends), 2),
        "end_seconds_max": round(max(ends), 2),
    }
    path = RESULTS / f"{case}-{hardware.fingerprint}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
