"""MLServer: a custom runtime in the server's own process.

Takes and answers the Open Inference Protocol, JSON by HTTP and raw contents by gRPC; the idiom is
that of https://docs.seldon.ai/mlserver/user-guide/custom, and there is no pool of processes between
server and model (`parallel_workers` 0), as
https://docs.seldon.ai/mlserver/user-guide/parallel-inference has it.
"""

# mypy: disable-error-code="misc"

import asyncio
from importlib import import_module
from typing import Any

from headrace_bench.peers.program import HOST, Program, open_session, parse_program

NAME = "mlserver"
SUITES = ("serving", "coldstart")
REQUIREMENTS = ("mlserver==1.7.1", "numpy==2.4.6", "onnxruntime==1.32.0")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - MLServer imports its runtime by this name
    if name != "OnnxRuntime":
        raise AttributeError(name)
    return _runtime()


def _runtime() -> Any:  # noqa: ANN401 - of a package that is not here
    codec = import_module("mlserver.codecs").NumpyCodec
    response = import_module("mlserver.types").InferenceResponse

    class OnnxRuntime(import_module("mlserver").MLModel):
        async def load(self) -> bool:
            self.program = parse_program(self.settings.parameters.extra["flags"])
            self.session = open_session(self.program)
            return True

        async def predict(self, payload: Any) -> Any:  # noqa: ANN401 - MLServer's messages
            feeds = {self.program.input: codec.decode_input(payload.inputs[0])}
            (found,) = self.session.run([self.program.output], feeds)
            output = codec.encode_output(self.program.output, found)
            return response(model_name=self.name, outputs=[output])

    return OnnxRuntime


async def serve(program: Program) -> None:
    """Serves until it is ended."""
    mlserver = import_module("mlserver")
    settings = mlserver.Settings(
        debug=False,
        host=HOST,
        http_port=program.port,
        grpc_port=program.grpc_port,
        metrics_endpoint=None,
        parallel_workers=0,
    )
    parameters = import_module("mlserver.settings").ModelParameters
    model = mlserver.ModelSettings(
        name=program.name,
        implementation="headrace_bench.peers.mlserver_app.OnnxRuntime",
        parameters=parameters(extra={"flags": program.flags()}),
    )
    await mlserver.MLServer(settings).start([model])


def main() -> None:
    """Serves until it is ended."""
    asyncio.run(serve(parse_program()))


if __name__ == "__main__":
    main()
