"""The fingerprint of a machine."""

import os
import platform
import subprocess
import sys

import pytest

from headrace.hardware import (
    Hardware,
    _first_processor,
    _memory_mib,
    detect_hardware,
    installed_version,
)

X86 = """processor\t: 0
model name\t: Quick CPU @ 3.0GHz: fast
flags\t\t: fpu sse4_2 avx2 avx512_vnni

processor\t: 1
model name\t: Slow CPU
"""
ARM = """processor\t: 0
Features\t: fp asimd i8mm
CPU part\t: 0xd0c
"""


def test_this_machine_is_what_the_system_says() -> None:
    """Architecture, cores and engines are those that this process can use."""
    hardware = detect_hardware()
    assert hardware.architecture == platform.machine()
    assert hardware.cores == len(os.sched_getaffinity(0))
    assert hardware.memory_mib > 0
    assert hardware.engines["onnxruntime"] == installed_version("onnxruntime")
    assert list(hardware.instruction_sets) == sorted(hardware.instruction_sets)


def test_fingerprint_is_the_same_in_another_process() -> None:
    """Two processes on one machine agree on its fingerprint."""
    program = "from headrace.hardware import detect_hardware; print(detect_hardware().fingerprint)"
    seed = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", program], env=seed, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == detect_hardware().fingerprint


def test_fingerprint_is_a_file_name() -> None:
    """A measurement is kept under the fingerprint, so it is one plain path component."""
    fingerprint = detect_hardware().fingerprint
    assert fingerprint.startswith(f"{platform.machine()}-")
    assert fingerprint.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"memory_mib": 1}, True),
        ({"cores": 64}, False),
        ({"processor": "another"}, False),
        ({"architecture": "another"}, False),
        ({"instruction_sets": ()}, False),
        ({"engines": {"onnxruntime": "0.1"}}, False),
    ],
    ids=str,
)
def test_fingerprint_follows_what_speed_depends_on(
    change: dict[str, object], *, same: bool
) -> None:
    """Processor, cores and engines change the fingerprint; a few MiB of memory do not."""
    hardware = Hardware(
        architecture="x86_64",
        processor="CPU",
        instruction_sets=("avx2",),
        cores=2,
        memory_mib=1000,
        engines={"onnxruntime": "1.32.0"},
    )
    changed = hardware.model_copy(update=change)
    assert (changed.fingerprint == hardware.fingerprint) is same


def test_first_processor_speaks_for_all() -> None:
    """Of several processors the first is described, on either architecture."""
    assert _first_processor(X86)["model name"] == "Quick CPU @ 3.0GHz: fast"
    assert _first_processor(X86)["flags"].split() == ["fpu", "sse4_2", "avx2", "avx512_vnni"]
    assert _first_processor(ARM) == {
        "processor": "0",
        "Features": "fp asimd i8mm",
        "CPU part": "0xd0c",
    }
    assert _first_processor("") == {}


def test_memory_is_told_in_mib() -> None:
    """The kernel's kB become MiB, and nothing becomes zero."""
    assert _memory_mib("MemFree: 1 kB\nMemTotal:       2097152 kB\n") == 2048
    assert _memory_mib("") == 0


def test_package_that_is_not_there_has_no_version() -> None:
    """An absent distribution is None, a present one a version."""
    assert installed_version("no-such-distribution") is None
    assert installed_version("headrace")
