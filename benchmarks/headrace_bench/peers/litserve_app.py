"""LitServe: a LitAPI whose one worker opens its session in `setup`.

Takes and answers nested lists in JSON; the idiom is that of
https://lightning.ai/docs/litserve/api-reference/litapi (`setup`, `decode_request`, `predict`,
`encode_response`).
"""

# mypy: disable-error-code="misc"
# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

import signal
from functools import cache
from importlib import import_module
from typing import Any

from headrace_bench.peers.program import HOST, Program, open_session, parse_program

NAME = "litserve"
SUITES = ("serving", "coldstart")
REQUIREMENTS = ("litserve==0.2.19", "numpy==2.4.6", "onnxruntime==1.32.0")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - its worker finds the class by this name
    if name != "OnnxModel":
        raise AttributeError(name)
    return _model()


@cache  # the worker is told the class's name, which has to stand for one class alone
def _model() -> Any:  # noqa: ANN401 - of a package that is not here
    import numpy as np

    class OnnxModel(import_module("litserve").LitAPI):
        def __init__(self, program: Program) -> None:
            super().__init__()
            self.program = program

        def setup(self, device: str) -> None:
            del device  # there is the processor and nothing else
            self.session = open_session(self.program)

        def decode_request(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - an array
            return np.asarray(request["array"], self.program.dtype)

        def predict(self, x: Any) -> Any:  # noqa: ANN401 - arrays
            return self.session.run([self.program.output], {self.program.input: x})[0]

        def encode_response(self, output: Any) -> dict[str, Any]:  # noqa: ANN401 - an array
            return {self.program.output: output.tolist()}

    OnnxModel.__qualname__ = OnnxModel.__name__
    return OnnxModel


def main() -> None:
    """Serves until it is ended."""
    # LitServe ends its processes on Ctrl-C; on SIGTERM it would leave them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    program = parse_program()
    model = _model()(program)
    server = import_module("litserve").LitServer(model, accelerator="cpu", workers_per_device=1)
    server.run(host=HOST, port=program.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
