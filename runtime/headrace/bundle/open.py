"""Opens a bundle: nothing in it is believed until its digests are.

`verify` in the program is this plus a golden replay; a server does both at every load.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from headrace.bundle.digest import content_digest, hash_bytes, hash_file
from headrace.bundle.golden import MAX_GOLDEN_BYTES, GoldenCase, check_cases, decode_cases
from headrace.bundle.manifest import (
    BUILD_RECORD,
    GOLDEN,
    MANIFEST,
    MAX_PATH,
    OUTSIDE_CONTENT,
    SCHEMA_VERSION,
    BuildRecord,
    FileEntry,
    Manifest,
    Variant,
    is_among,
    is_safe_path,
)
from headrace.errors import BundleError, UsageError

_MAX_MANIFEST_BYTES = 16 << 20
_MAX_FILES = 10_000
_REBUILD = "get the bundle again from where it was built, or compile it anew"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, whose files were what its manifest says when it was opened.

    Attributes:
        path: Absolute.
        digest: The identity of the content.
    """

    path: Path
    manifest: Manifest
    digest: str

    @property
    def label(self) -> str:
        """Name and version, for people."""
        return f"{self.manifest.name} {self.manifest.version}"

    def model_path(self, variant: Variant) -> Path:
        """Where a variant's graph lies."""
        return self.path / variant.path

    def read_content(self, relative: str) -> bytes:
        """The bytes of a content file, which are what the manifest says at this moment.

        Raises:
            BundleError: They were changed since the bundle was opened.
        """
        content = (self.path / relative).read_bytes()
        if hash_bytes(content) != self.manifest.files[relative]:
            raise BundleError(
                "bundle.tampered",
                f"{relative} was changed after the bundle was opened: its sha256 does not match",
                _REBUILD,
            )
        return content

    def build_record(self) -> BuildRecord | None:
        """What the bundle says of its build, if it does; nothing vouches for it.

        Raises:
            BundleError: It cannot be read.
        """
        path = self.path / BUILD_RECORD
        if not path.exists():
            return None
        try:
            with path.open("rb") as file:
                return BuildRecord.model_validate_json(file.read(_MAX_MANIFEST_BYTES))
        except (ValidationError, IsADirectoryError) as error:
            raise BundleError(
                "bundle.build-record",
                f"{BUILD_RECORD} cannot be read",
                "remove it; it is no content",
            ) from error

    def golden_cases(self) -> tuple[GoldenCase, ...]:
        """The golden cases, which have the tensors that the manifest declares.

        Raises:
            BundleError: They cannot be read, or do not fit the manifest.
        """
        if self.manifest.files[GOLDEN].size > MAX_GOLDEN_BYTES:
            raise BundleError(
                "bundle.golden", f"the golden cases are larger than {MAX_GOLDEN_BYTES >> 20} MiB"
            )
        cases = decode_cases((self.path / GOLDEN).read_bytes())
        check_cases(cases, self.manifest)
        return cases


def open_bundle(path: Path) -> Bundle:
    """Opens a bundle and verifies every content file against its manifest.

    The order is: (0) the path is a directory; (1) the manifest is there, small, JSON and of a
    schema version known here; (2) no path in it leaves the bundle; (3) it parses, unknown keys
    being errors; (4) what lies in the directory is plain files, and (5) exactly those listed;
    (6) sizes, then (7) digests agree.

    Raises:
        UsageError: There is no directory at the path.
        BundleError: The bundle is not what it says it is; the code names the fault.
    """
    # (0) a directory
    if not path.is_dir() or path.is_symlink():
        raise UsageError("bundle.not-found", f"there is no bundle directory at {path}")
    path = path.resolve()
    # (1) its manifest, as bytes and as JSON
    encoded = _read_manifest(path)
    content = _parse_json(encoded)
    # (2) before anything else looks at a path
    _check_paths(content)
    # (3) the schema
    manifest = _parse_manifest(encoded)
    # (4) what lies there
    found = set(_walk(path))
    # (5) against what should
    _check_listing(path, manifest, found)
    # (6) sizes first, since they are cheap, then (7) digests
    for relative, entry in sorted(manifest.files.items()):
        _check_file(path, relative, entry)
    return Bundle(path=path, manifest=manifest, digest=content_digest(encoded, manifest.files))


def _read_manifest(path: Path) -> bytes:
    file = path / MANIFEST
    if file.is_symlink():
        raise BundleError("bundle.symlink", f"{MANIFEST} is a symbolic link", _REBUILD)
    if not file.is_file():
        raise BundleError("bundle.no-manifest", f"{path} holds no {MANIFEST}", "is it a bundle?")
    if file.stat().st_size > _MAX_MANIFEST_BYTES:
        raise BundleError("bundle.manifest", f"{MANIFEST} is larger than a manifest can be")
    return file.read_bytes()


def _parse_json(encoded: bytes) -> dict[str, object]:
    try:
        content = json.loads(encoded, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            "bundle.manifest", f"{MANIFEST} is not JSON: {error}", _REBUILD
        ) from error
    if not isinstance(content, dict):
        raise BundleError("bundle.manifest", f"{MANIFEST} is not a JSON object", _REBUILD)
    version = content.get("schema_version")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise BundleError(
            "bundle.schema-version",
            f"{MANIFEST} has schema version {version!r:.80};"
            f" this headrace reads 1 to {SCHEMA_VERSION}",
            "serve it with a newer headrace, or compile it anew with this one",
        )
    return content


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Two readers of a key that stands twice may each believe another value."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r:.80} stands twice in one object")
    return unique


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _check_paths(content: dict[str, object]) -> None:
    files = content.get("files")
    if not isinstance(files, dict):
        return  # for the schema to say
    if len(files) > _MAX_FILES:
        raise BundleError("bundle.manifest", f"{MANIFEST} lists over {_MAX_FILES} files")
    for relative in files:
        if not is_safe_path(relative):
            raise BundleError(
                "bundle.escaping",
                f"{MANIFEST} lists the path {relative!r:.300}, which may leave the bundle",
                "do not use this bundle: honest builds never write such a path",
            )


def _parse_manifest(encoded: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(encoded)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the manifest"
        raise BundleError(
            "bundle.manifest",
            f"{MANIFEST} does not fit its schema version: {where:.200}: {first['msg']:.300}",
            _REBUILD,
        ) from error


def _walk(root: Path) -> Iterator[str]:
    """Every file of the bundle, relative; anything but plain files and directories is refused."""
    pending, count = [root], 0
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                relative = Path(entry.path).relative_to(root).as_posix()
                count += 1
                if count > _MAX_FILES:
                    raise BundleError("bundle.extra", f"the bundle holds over {_MAX_FILES} files")
                if len(relative) > MAX_PATH:
                    raise BundleError(
                        "bundle.extra", f"the bundle holds a path of over {MAX_PATH} characters"
                    )
                if entry.is_symlink():
                    raise BundleError("bundle.symlink", f"{relative} is a symbolic link", _REBUILD)
                if entry.is_dir():
                    pending.append(Path(entry.path))
                elif entry.is_file():
                    yield relative
                else:
                    raise BundleError("bundle.extra", f"{relative} is not a plain file", _REBUILD)


def _check_listing(path: Path, manifest: Manifest, found: set[str]) -> None:
    missing = sorted(set(manifest.files) - found)
    if missing:
        raise BundleError("bundle.missing", f"{missing[0]} is missing from {path}", _REBUILD)
    extra = sorted(
        name
        for name in found - set(manifest.files) - {MANIFEST}
        if not is_among(name, OUTSIDE_CONTENT)
    )
    if extra:
        raise BundleError(
            "bundle.extra",
            f"{extra[0]} lies in {path}, and its manifest does not list it",
            "remove what was added, or compile anew",
        )


def _check_file(path: Path, relative: str, expected: FileEntry) -> None:
    size = (path / relative).stat().st_size
    if size != expected.size:
        raise BundleError(
            "bundle.truncated",
            f"{relative} has {size} bytes where its manifest says {expected.size}",
            _REBUILD,
        )
    if hash_file(path / relative) != expected:
        raise BundleError(
            "bundle.tampered",
            f"{relative} was changed after the bundle was built: its sha256 does not match",
            _REBUILD,
        )
