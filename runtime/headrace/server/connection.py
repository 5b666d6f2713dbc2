"""One HTTP connection: uvicorn's, with a bound on what it lacks one for, and errors in our form."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headrace.errors import InvalidRequestError
from headrace.protocol.http import encode_error

MAX_HEAD = 64 << 10
"""Bytes of a request's line and headers, or of the trailers and extensions of a chunked body."""


class BoundedConnection(HttpToolsProtocol):
    """A connection that is closed when it sends on and on without finishing anything.

    The parser keeps a head until it is whole, however long it grows.
    """

    _unfinished = 0

    def data_received(self, data: bytes) -> None:
        """Parses; what neither is body nor finishes a head or a message adds up."""
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response(f"a request's head is longer than {MAX_HEAD} bytes")

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._unfinished = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._unfinished = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._unfinished = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP request, in the form of every other refusal."""
        content = encode_error(InvalidRequestError("request.http", msg))
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()
