"""FastAPI: a `def` endpoint, which FastAPI runs in its thread pool, under uvicorn.

Takes and answers the tensor's bytes as application/octet-stream (`/predict`) or nested lists in
JSON (`/predict-json`); the idiom is that of https://fastapi.tiangolo.com/async/ ("Path operation
functions"), and of https://fastapi.tiangolo.com/advanced/response-directly/ for the bytes.
"""

# mypy: disable-error-code="untyped-decorator"
# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

from importlib import import_module
from typing import Annotated, Any

from headrace_bench.peers.program import HOST, Program, open_session, parse_program

NAME = "fastapi"
SUITES = ("serving", "coldstart")
REQUIREMENTS = (
    "fastapi==0.165.0",
    "numpy==2.4.6",
    "onnxruntime==1.32.0",
    "uvicorn[standard]==0.54.0",
)
_BYTES = "application/octet-stream"


def make_app(program: Program) -> Any:  # noqa: ANN401 - of a package that is not here
    """The application."""
    import numpy as np

    fastapi = import_module("fastapi")
    app = fastapi.FastAPI()
    session = open_session(program)

    @app.post("/predict", response_model=None)
    def predict(body: Annotated[bytes, fastapi.Body(media_type=_BYTES)]) -> Any:  # noqa: ANN401 - a response
        array = np.frombuffer(body, program.dtype).reshape(-1, *program.shape)
        (found,) = session.run([program.output], {program.input: array})
        return fastapi.Response(found.tobytes(), media_type=_BYTES)

    @app.post("/predict-json")
    def predict_json(body: dict[str, list[Any]]) -> dict[str, list[Any]]:
        array = np.asarray(body["array"], program.dtype)
        (found,) = session.run([program.output], {program.input: array})
        return {program.output: found.tolist()}

    return app


def main() -> None:
    """Serves until it is ended."""
    program = parse_program()
    app = make_app(program)
    import_module("uvicorn").run(app, host=HOST, port=program.port, access_log=False)


if __name__ == "__main__":
    main()
