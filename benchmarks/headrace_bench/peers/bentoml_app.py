"""BentoML: a service with one worker and one API that takes a NumPy array.

Takes and answers nested lists in JSON; the idiom is that of
https://docs.bentoml.com/en/latest/build-with-bentoml/services.html, with the program's flags given
as https://docs.bentoml.com/en/latest/build-with-bentoml/template-arguments.html has it.
"""

# mypy: disable-error-code="untyped-decorator"
# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

import os
import sys
from importlib import import_module
from typing import Any

from headrace_bench.peers.program import HOST, open_session, parse_program

NAME = "bentoml"
SUITES = ("serving", "coldstart")
REQUIREMENTS = ("bentoml==1.4.39", "numpy==2.4.6", "onnxruntime==1.32.0")
ENVIRONMENT = {
    "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",
    "BENTOML_DO_NOT_TRACK": "true",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - BentoML imports its service by this name
    if name != "OnnxModel":
        raise AttributeError(name)
    return _service()


def _service() -> Any:  # noqa: ANN401 - of a package that is not here
    import numpy as np

    bentoml = import_module("bentoml")
    program = parse_program(bentoml.use_arguments().flags.split("\n"))

    @bentoml.service(name="onnx_model", workers=1)
    class OnnxModel:
        def __init__(self) -> None:
            self.session = open_session(program)

        @bentoml.api
        def predict(self, array: np.ndarray) -> dict[str, np.ndarray]:
            feeds = {program.input: array.astype(program.dtype, copy=False)}
            (found,) = self.session.run([program.output], feeds)
            return {program.output: found}

    return OnnxModel


def main() -> None:
    """Becomes `bentoml serve`, which serves until it is ended."""
    program = parse_program()
    service = "headrace_bench.peers.bentoml_app:OnnxModel"
    words = ["-m", "bentoml", "serve", service, "--host", HOST, "--port", str(program.port)]
    arguments = ["--arg", "flags=" + "\n".join(program.flags())]
    os.execv(sys.executable, [sys.executable, *words, *arguments])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
