"""Lowers a kernel from Numba's typed form to a shared library for each target.

Run as a program, in a process of its own: Numba reads its configuration when it is imported, and
must not optimise for the processor it runs on, since what it makes then holds instructions of
this processor alone. LLVM optimises for each target by itself.

    python -m headrace_compiler.kernels.lower FOLDER < specs.json
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from headrace.errors import CheckError
from headrace.native import TARGETS, KernelTarget
from headrace_compiler.kernels.sources import Source, Specs, sources

UNOPTIMISED: Mapping[str, str] = {
    "NUMBA_OPT": "0",
    "NUMBA_LOOP_VECTORIZE": "0",
    "NUMBA_SLP_VECTORIZE": "0",
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
}
"""What keeps the machine that compiles out of the intermediate code."""
_DEFINE = re.compile(r"^(define .*) \{$", re.MULTILINE)
OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract"}}
"""How Numba reads kernels."""
GLIBC = "2.17"
"""The oldest whose symbol versions a library may name; it names none."""


def compile_kernels(specs: Specs) -> Mapping[str, bytes]:
    """The shared library of some specs for each target, by the target's name.

    Equal specs give equal bytes on every machine.

    Args:
        specs: Of which there are sources.

    Raises:
        CheckError: It cannot be compiled, or needs a symbol from outside.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-kernels-") as folder:
        done = subprocess.run(  # noqa: S603 - this program, in a process of its own
            [sys.executable, "-P", "-m", "headrace_compiler.kernels.lower", folder],
            input=specs.model_dump_json(),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **UNOPTIMISED},
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise CheckError("kernel.compile", f"the kernels cannot be compiled: {last}")
        return {
            target.name: (Path(folder) / f"{target.name}.so").read_bytes() for target in TARGETS
        }


def numba_type(argument: str) -> Any:  # noqa: ANN401 - numba publishes no types
    """The type of a function's argument: a number's name, with a star that of a pointer to such."""
    from numba import types  # noqa: PLC0415 - in a process of its own

    pointer: Callable[[Any], Any] = types.CPointer
    element = getattr(types, argument.removesuffix("*"))
    return pointer(element) if argument.endswith("*") else element


def intermediate(source: Source) -> tuple[str, str]:
    """LLVM's code of a kernel, not optimised, and the name of the function in it."""
    from numba import njit, types  # noqa: PLC0415 - in a process of its own

    lowered: Any = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    signature = types.int64(*map(numba_type, source.function.arguments))
    # LLVM puts the helpers into the kernel; Numba would copy what it has got so far each time.
    kernel = source.make(njit(**OPTIONS, **lowered))
    made: Any = njit(signature, **OPTIONS, **lowered)(kernel)
    (overload,) = made.overloads.values()
    return overload.library.get_llvm_str(), overload.fndesc.llvm_func_name


def object_file(code: str, function: str, symbol: str, target: KernelTarget) -> bytes:
    """Machine code for a target, in which only the function is visible, as `symbol`."""
    from llvmlite import binding  # noqa: PLC0415

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    known = _DEFINE.sub(partial(_annotated, function), code)
    module = binding.parse_assembly(known.replace(function, symbol))
    module.triple = f"{target.architecture}-unknown-linux-gnu"
    machine = binding.Target.from_triple(module.triple).create_target_machine(
        cpu=target.processor, features="", opt=3, reloc="pic", codemodel="default"
    )
    module.data_layout = str(machine.target_data)
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration:
            value.linkage = "external" if value.name == symbol else "internal"
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    emitted: bytes = machine.emit_object(module)
    return emitted


def _annotated(kernel: str, definition: re.Match[str]) -> str:
    """A function's head, with what LLVM cannot know.

    A kernel's arguments point to different memory. A loop that fills memory must not become a call
    of memset, for which the library would need libc. And half of the widest registers is what LLVM
    takes by itself, for the sake of the first processors that had them.
    """
    head = definition[1]
    if kernel in head:
        head = head.replace("ptr %arg", "ptr noalias %arg")
    return f'{head} "no-builtins" "prefer-vector-width"="512" {{'


def link(machine_code: Sequence[bytes], target: KernelTarget, folder: Path) -> None:
    """Links object files to a shared library that needs nothing, as `FOLDER/TARGET.so`.

    Raises:
        CheckError: It needs a symbol, or the linker fails.
    """
    objects = [folder / f"{target.name}-{place}.o" for place in range(len(machine_code))]
    for path, content in zip(objects, machine_code, strict=True):
        path.write_bytes(content)
    done = subprocess.run(  # noqa: S603 - the linker that pip installed
        [
            *(sys.executable, "-P", "-m", "ziglang", "cc"),
            *("-target", f"{target.architecture}-linux-gnu.{GLIBC}"),
            *("-shared", "-nostdlib", "-s", "-Wl,-z,defs", "-Wl,--build-id=none"),
            *("-Wl,-soname,headrace-kernel", "-o", str(folder / f"{target.name}.so")),
            *(path.name for path in objects),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"),
            "ZIG_LOCAL_CACHE_DIR": str(folder / "zig"),
        },
    )
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise CheckError("kernel.link", f"the library for {target.name} cannot be linked: {said}")


def main() -> None:
    """Reads specs from standard input; writes a library a target into the folder."""
    made = sources(Specs.model_validate_json(sys.stdin.read()))
    functions = [(*intermediate(source), source.function.symbol) for source in made]
    try:
        for target in TARGETS:
            objects = [object_file(*function, target) for function in functions]
            link(objects, target, Path(sys.argv[1]))
    except CheckError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
