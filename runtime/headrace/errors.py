"""One root error: a code for machines, a sentence for people, a hint at what to do.

The library raises; only the program prints and exits (`headrace.cli`), and only the edges of the
server turn an error into an HTTP or gRPC status (`headrace.server`). The class says whose turn it
is to act; the code says exactly what happened and is stable across versions.
"""


class HeadraceError(Exception):
    """The root of every error that headrace raises on purpose.

    Args:
        code: Stable and machine-readable, as `area.fault`, for example `bundle.tampered`.
        message: One sentence that says what happened and where.
        hint: One sentence that says what to do about it; may be empty.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class CheckError(HeadraceError):
    """A check said no: a gate, a verification, a parity test."""


class BundleError(CheckError):
    """A bundle is not what it says it is, or not a bundle."""


class UsageError(HeadraceError):
    """The input or the usage is wrong, and only the user can mend it."""


class MissingError(HeadraceError):
    """Something needed is not there: an extra, a provider, a free port."""


class RequestError(HeadraceError):
    """A request cannot be answered. Each subclass maps to one HTTP and one gRPC status."""


class InvalidRequestError(RequestError):
    """The request itself is wrong; sending it again changes nothing."""


class NotFoundError(RequestError):
    """There is no such model, version or path here."""


class TooLargeError(RequestError):
    """The request is larger than this server takes."""


class UnsupportedError(RequestError):
    """The request is well formed, and asks for something this server does not do."""


class UnavailableError(RequestError):
    """The server cannot answer now, and may later."""


class InternalError(RequestError):
    """The model or the server failed on a valid request."""
