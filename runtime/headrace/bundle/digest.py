"""Digests: of one file, and of a bundle's content."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from headrace.bundle.manifest import FileEntry

_CHUNK = 1 << 20


def hash_file(path: Path) -> FileEntry:
    """The sha256 and size in bytes of one file.

    Raises:
        OSError: The file cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(sha256=digest.hexdigest(), size=size)


def hash_bytes(content: bytes) -> FileEntry:
    """The sha256 and size in bytes of what would be one file."""
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def content_digest(manifest: bytes, files: Mapping[str, FileEntry]) -> str:
    """The identity of a bundle: sha256 over the sorted lines `sha256 size path` of its content.

    Args:
        manifest: The bytes of `headrace.json`, which lists every other content file.
        files: That list.
    """
    entries = {**files, "headrace.json": hash_bytes(manifest)}
    lines = (f"{entry.sha256} {entry.size} {path}\n" for path, entry in sorted(entries.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
