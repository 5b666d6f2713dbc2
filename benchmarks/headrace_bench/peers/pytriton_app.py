"""PyTriton: Triton's own front, and behind it a Python function that runs the model.

Takes and answers the Open Inference Protocol, JSON or binary tensors by HTTP and raw contents by
gRPC; the idiom is that of https://triton-inference-server.github.io/pytriton/latest/binding_models/.
"""

# mypy: disable-error-code="untyped-decorator"
# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

import os
import signal
import sysconfig
from importlib import import_module
from typing import Any

from headrace_bench.peers.program import HOST, open_session, parse_program

NAME = "pytriton"
SUITES = ("serving", "coldstart")
REQUIREMENTS = ("numpy==1.26.4", "nvidia-pytriton==0.7.0", "onnxruntime==1.32.0")
_MAX_ROWS = 128


def main() -> None:
    """Serves until it is ended."""
    import numpy as np

    # PyTriton ends its processes on Ctrl-C; on SIGTERM it would leave them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Triton's stub links a libpython: it has to be the one of this interpreter's standard library.
    os.environ["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))
    configuration = import_module("pytriton.model_config")
    pytriton = import_module("pytriton.triton")
    program = parse_program()
    session = open_session(program)

    @import_module("pytriton.decorators").batch
    def infer(**inputs: Any) -> dict[str, Any]:  # noqa: ANN401 - arrays
        (found,) = session.run([program.output], inputs)
        return {program.output: found}

    def tensor(name: str, dtype: str, shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - PyTriton's
        return configuration.Tensor(name=name, dtype=np.dtype(dtype).type, shape=shape)

    config = pytriton.TritonConfig(
        http_address=HOST,
        http_port=program.port,
        grpc_address=HOST,
        grpc_port=program.grpc_port,
        allow_metrics=False,
    )
    workspace = program.scratch / f"triton-{os.getpid()}"
    with pytriton.Triton(config=config, workspace=workspace) as triton:
        triton.bind(
            model_name=program.name,
            infer_func=infer,
            inputs=[tensor(program.input, program.dtype, program.shape)],
            outputs=[tensor(program.output, program.answer_dtype, program.answer_shape)],
            config=configuration.ModelConfig(max_batch_size=_MAX_ROWS),
        )
        triton.serve()


if __name__ == "__main__":
    main()
