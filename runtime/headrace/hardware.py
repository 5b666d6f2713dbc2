"""The fingerprint of a machine: what measured numbers belong to.

Read from the operating system alone, so that an edge device fingerprints itself.
"""

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from headrace.tensors import Frozen

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
# What decides which kernels and precisions are quick: the names that Linux gives them.
_INSTRUCTION_SETS = frozenset(
    {
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "asimd",
        "asimdhp",
        "asimddp",
        "i8mm",
        "bf16",
        "sve",
        "sve2",
    }
)
_ENGINES = ("onnxruntime", "onnxruntime-gpu", "openvino")


class Hardware(Frozen):
    """One machine, as far as speed depends on it.

    Attributes:
        cores: Processors this process may use.
        memory_mib: Of the whole machine.
        engines: Installed engine packages and their versions.
    """

    architecture: str
    processor: str
    instruction_sets: tuple[str, ...]
    cores: int
    memory_mib: int
    engines: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Short and stable: equal for machines whose measurements may be compared.

        Memory is left out: it varies by a few MiB between boots of one machine.
        """
        parts = (
            self.architecture,
            self.processor,
            ",".join(self.instruction_sets),
            str(self.cores),
            ",".join(f"{name}={number}" for name, number in sorted(self.engines.items())),
        )
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return f"{self.architecture}-{self.cores}c-{digest[:12]}"


def detect_hardware() -> Hardware:
    """Fingerprints this machine."""
    fields = _first_processor(_CPUINFO.read_text() if _CPUINFO.exists() else "")
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Hardware(
        architecture=platform.machine(),
        processor=fields.get("model name") or fields.get("CPU part") or "unknown",
        instruction_sets=tuple(sorted(flags & _INSTRUCTION_SETS)),
        cores=len(os.sched_getaffinity(0)),
        memory_mib=_memory_mib(_MEMINFO.read_text() if _MEMINFO.exists() else ""),
        engines={name: found for name in _ENGINES if (found := installed_version(name))},
    )


def installed_version(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _first_processor(cpuinfo: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in cpuinfo.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_mib(meminfo: str) -> int:
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0
