"""Lowers a kernel from Numba's typed form to a shared library for each target.

Run as a program, in a process of its own: Numba reads its configuration when it is imported, and
must not optimise for the processor it runs on, since what it makes then holds instructions of
this processor alone. LLVM optimises for each target by itself.

    python -m headrace_compiler.kernels.lower FOLDER < spec.json
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headrace.errors import CheckError
from headrace.preprocess.native import SYMBOL, TARGETS, KernelTarget
from headrace.preprocess.spec import ImagePreprocessing

UNOPTIMISED: Mapping[str, str] = {
    "NUMBA_OPT": "0",
    "NUMBA_LOOP_VECTORIZE": "0",
    "NUMBA_SLP_VECTORIZE": "0",
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
}
"""What keeps the machine that compiles out of the intermediate code."""
GLIBC = "2.17"
"""The oldest whose symbol versions a library may name; it names none."""


def compile_kernels(spec: ImagePreprocessing) -> Mapping[str, bytes]:
    """The shared library of a spec for each target, by the target's name.

    Equal specs give equal bytes on every machine.

    Raises:
        CheckError: It cannot be compiled, or needs a symbol from outside.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-kernels-") as folder:
        done = subprocess.run(  # noqa: S603 - this program, in a process of its own
            [sys.executable, "-P", "-m", "headrace_compiler.kernels.lower", folder],
            input=spec.model_dump_json(),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **UNOPTIMISED},
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise CheckError("kernel.compile", f"the preprocessing cannot be compiled: {last}")
        return {
            target.name: (Path(folder) / f"{target.name}.so").read_bytes() for target in TARGETS
        }


def intermediate(spec: ImagePreprocessing) -> tuple[str, str]:
    """LLVM's code of a spec's kernel, not optimised, and the name of the function in it."""
    from numba import njit, types  # noqa: PLC0415 - in a process of its own

    from headrace_compiler.kernels.image import image_kernel  # noqa: PLC0415

    options: Any = {"error_model": "numpy", "fastmath": {"contract"}}
    pointer: Callable[[Any], Any] = types.CPointer
    element = {"FP32": types.float32, "FP16": types.uint16, "UINT8": types.uint8}
    signature = types.int64(
        pointer(types.uint8),
        *(types.int64,) * 13,
        *(pointer(types.float32),) * 3,
        pointer(types.int32),
        types.int64,
        pointer(element[spec.cast.datatype]),
    )
    lowered: Any = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    made: Any = njit(signature, **options, **lowered)(
        image_kernel(spec, njit(inline="always", **options))
    )
    (overload,) = made.overloads.values()
    return overload.library.get_llvm_str(), overload.fndesc.llvm_func_name


def object_file(code: str, function: str, target: KernelTarget) -> bytes:
    """Machine code for a target, in which only the function is visible, as `SYMBOL`."""
    from llvmlite import binding  # noqa: PLC0415

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    # Otherwise a loop that fills memory becomes a call of memset, and the library needs libc.
    alone = re.sub(r"^(define .*) \{$", r'\1 "no-builtins" {', code, flags=re.MULTILINE)
    module = binding.parse_assembly(alone.replace(function, SYMBOL))
    module.triple = f"{target.architecture}-unknown-linux-gnu"
    machine = binding.Target.from_triple(module.triple).create_target_machine(
        cpu=target.processor, features="", opt=3, reloc="pic", codemodel="default"
    )
    module.data_layout = str(machine.target_data)
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration:
            value.linkage = "external" if value.name == SYMBOL else "internal"
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    emitted: bytes = machine.emit_object(module)
    return emitted


def link(machine_code: bytes, target: KernelTarget, folder: Path) -> None:
    """Links a shared library that needs nothing, as `FOLDER/TARGET.so`.

    Raises:
        CheckError: It needs a symbol, or the linker fails.
    """
    source = folder / f"{target.name}.o"
    source.write_bytes(machine_code)
    done = subprocess.run(  # noqa: S603 - the linker that pip installed
        [
            *(sys.executable, "-P", "-m", "ziglang", "cc"),
            *("-target", f"{target.architecture}-linux-gnu.{GLIBC}"),
            *("-shared", "-nostdlib", "-s", "-Wl,-z,defs", "-Wl,--build-id=none"),
            *("-Wl,-soname,headrace-kernel", "-o", str(folder / f"{target.name}.so")),
            source.name,
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
    """Reads a spec from standard input; writes a library a target into the folder."""
    spec = ImagePreprocessing.model_validate_json(sys.stdin.read())
    code, function = intermediate(spec)
    folder = Path(sys.argv[1])
    try:
        for target in TARGETS:
            link(object_file(code, function, target), target, folder)
    except CheckError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
