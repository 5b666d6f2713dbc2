"""Lowering to native code: what would need anything from outside ends the build."""

from pathlib import Path

import pytest

from headrace.errors import BundleError, CheckError
from headrace.native import TARGETS, Function, KernelTarget, NativeFunction
from headrace_compiler.kernels.lower import link, object_file

CODE = """
declare void @outside()

define i32 @kernel(ptr %retptr, ptr %excinfo, ptr %arg.numbers) {
  BODY
  ret i32 0
}
"""


def built(body: str, target: KernelTarget, folder: Path) -> bytes:
    """A library whose one function does this."""
    made = object_file(CODE.replace("BODY", body), "kernel", "headrace_test", target)
    link([made], target, folder)
    return (folder / f"{target.name}.so").read_bytes()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_symbol_from_outside_is_refused_and_named(target: KernelTarget, tmp_path: Path) -> None:
    """A library runs beside any libc, because it needs none."""
    with pytest.raises(CheckError, match="outside") as caught:
        built("call void @outside()", target, tmp_path)
    assert caught.value.code == "kernel.link"
    assert built("", target, tmp_path)[:4] == b"\x7fELF"


def test_loops_that_fill_memory_stay_loops(tmp_path: Path) -> None:
    """LLVM knows them for memset, which is in libc."""
    loop = """
  br label %loop
loop:
  %i = phi i64 [0, %0], [%next, %loop]
  %at = getelementptr i8, ptr %arg.numbers, i64 %i
  store i8 0, ptr %at
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, 100000
  br i1 %done, label %end, label %loop
end:"""
    assert b"memset" not in built(loop, TARGETS[1], tmp_path)


def test_a_function_that_is_not_there_is_the_bundles_fault(tmp_path: Path) -> None:
    """Its library was made for something else."""
    target = next(each for each in TARGETS if each.name == "x86_64-v2")
    with pytest.raises(BundleError) as caught:
        NativeFunction(built("", target, tmp_path), Function("headrace_other", ("float64*",)))
    assert caught.value.code == "bundle.kernel"
