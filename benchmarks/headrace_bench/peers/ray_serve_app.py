"""Plain Ray Serve: one replica behind its proxy, as it comes out of the box.

Takes and answers the tensor's bytes as application/octet-stream; the idiom is that of
https://docs.ray.io/en/latest/serve/http-guide.html (`__call__` with a Starlette request).
"""

# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

import os
import secrets
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headrace_bench.peers.program import HOST, open_session, parse_program

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

NAME = "ray-serve"
SUITES = ("serving", "coldstart")
REQUIREMENTS = ("numpy==2.4.6", "onnxruntime==1.32.0", "ray[serve]==2.60.0")


@contextmanager
def own_ray(cores: int, environment: Mapping[str, str]) -> Iterator[None]:
    """A Ray of this program's own, on loopback and behind a token, until SIGTERM.

    Args:
        cores: What its replicas and actors may ask for.
        environment: Further variables, which Ray reads when it is imported.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-ray-", ignore_cleanup_errors=True) as place:
        token = Path(place) / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ.update(
            {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(token),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                # Only where it forms no clusters does Ray take a loopback address for its own.
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                **environment,
            }
        )
        import ray

        # A socket's path has 107 bytes, so it is not the program's scratch directory.
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=place,
        )
        # Ray has put a handler of its own in place, which aborts.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            from ray import serve

            serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()


def main() -> None:
    """Serves until it is ended."""
    program = parse_program()
    with own_ray(program.threads, {}):
        import numpy as np
        from ray import serve
        from ray.serve.config import HTTPOptions
        from starlette.responses import Response

        class OnnxModel:
            def __init__(self) -> None:
                self.session = open_session(program)

            async def __call__(self, request: "Request") -> "Response":
                array = np.frombuffer(await request.body(), program.dtype)
                feeds = {program.input: array.reshape(-1, *program.shape)}
                (found,) = self.session.run([program.output], feeds)
                return Response(found.tobytes(), media_type="application/octet-stream")

        serve.start(http_options=HTTPOptions(host=HOST, port=program.port))
        replica = serve.deployment(ray_actor_options={"num_cpus": program.threads})(OnnxModel)
        serve.run(replica.bind())
        signal.pause()


if __name__ == "__main__":
    main()
