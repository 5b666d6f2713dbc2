"""Targets: what a bundle is built for."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.engine.session import CPU
from headrace.hardware import Hardware

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class Target:
    """A kind of machine.

    Attributes:
        architectures: Those it may have, as `uname -m` says; the first is meant where this machine
            has none of them.
        provider: The execution provider of ONNX Runtime.
        instruction_sets: Those to build for on another machine than the target; on a machine of
            the target's kind its own count.
    """

    name: str
    architectures: tuple[str, ...]
    provider: str
    instruction_sets: tuple[str, ...] = ()

    def is_here(self, hardware: Hardware, providers: tuple[str, ...]) -> bool:
        """Whether this machine is one of the kind, so that variants can be measured on it."""
        return hardware.architecture in self.architectures and self.provider in providers

    def architecture(self, hardware: Hardware) -> str:
        """The architecture to build for: this machine's where the target has it."""
        here = hardware.architecture
        return here if here in self.architectures else self.architectures[0]

    def sets(self, hardware: Hardware) -> tuple[str, ...]:
        """The instruction sets to build for."""
        if hardware.architecture in self.architectures:
            return hardware.instruction_sets
        return self.instruction_sets


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("cpu", ("x86_64", "aarch64"), CPU),
        Target("arm64", ("aarch64",), CPU, instruction_sets=("asimd", "asimddp")),
        Target("cuda", ("x86_64", "aarch64"), CUDA),
        Target("tensorrt", ("x86_64", "aarch64"), TENSORRT),
    )
}
