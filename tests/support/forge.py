"""A stand-in for GitHub and GitLab on a loopback port: comments, notes and packages."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Forge:
    """A server that keeps comments and packages as GitHub and GitLab do.

    Attributes:
        files: What a GET finds, by path without its query.
        seen: Method, path without query, and headers of every request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    comments: dict[int, str] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """The status and body for a request."""
        if method == "GET" and path.endswith(("/comments", "/notes")):
            found = [{"id": number, "body": text} for number, text in self.comments.items()]
            return 200, json.dumps(found).encode()
        if method == "GET":
            return (200, self.files[path]) if path in self.files else (404, b"{}")
        if "/packages/" in path:
            self.files[path] = body
            return 201, b"{}"
        last = path.rsplit("/", 1)[1]
        number = int(last) if last.isdigit() else len(self.comments) + 1
        assert (method == "POST") == (number not in self.comments)
        self.comments[number] = json.loads(body)["body"]
        return 200, b"{}"


@contextmanager
def serving(forge: Forge, context: ssl.SSLContext | None = None) -> Iterator[Forge]:
    """A forge on a loopback port, with TLS where a context is given."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            forge.seen.append((self.command, path, dict(self.headers)))
            status, content = forge.answer(self.command, path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815 - http.server calls them so

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme, port = ("https" if context else "http"), server.server_address[1]
        forge.url = f"{scheme}://127.0.0.1:{port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield forge
        finally:
            server.shutdown()
            thread.join()
