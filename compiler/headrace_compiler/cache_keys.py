"""Keys of cached steps: digests of all that a step's result may depend on.

What cannot be told from another by its content has no digest: to leave it out of a key would be to
miss what the step depends on. So functions, paths and open files raise a TypeError.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from types import FunctionType

import numpy as np
from pydantic import BaseModel

import headrace
import headrace_compiler
from headrace_compiler.cache_codec import NUMBERS, record_fields

_NAME = re.compile(r"[a-z0-9][a-z0-9_\-]*")


def step_key(
    name: str,
    step: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    tools: Mapping[str, str],
) -> str:
    """The key of one call of a step: `NAME-` and a sha256.

    It covers the name, the function, each argument, the versions of the tools, and the sources of
    headrace, so that an edit of theirs counts. Whether an argument is given by place or by name
    makes no difference.

    Args:
        name: Lower case letters, digits, `-` and `_`.
        step: A plain function; what lies in a closure or behind a method would be missed.
        tools: Versions by name.

    Raises:
        TypeError: An argument has no digest; the message names it.
        ValueError: The name is none for a file.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name of a step")
    if not isinstance(step, FunctionType) or step.__closure__ is not None:
        raise TypeError(f"step {name}: {step!r} is no plain function, and has no key")
    bound = inspect.signature(step).bind(*args, **kwargs).arguments
    of_arguments = {
        argument: digest(value, f"{name}: {argument}") for argument, value in bound.items()
    }
    whole = (_function(step), of_arguments, dict(sorted(tools.items())))
    return f"{name}-{digest((name, *whole, package_digest()))}"


def digest(value: object, where: str = "value") -> str:
    """sha256 of a value: of what a result may hold, and of lists, sets and objects with a digest.

    An object whose attribute `digest` is text stands for itself by it and by its class. Lists
    count as tuples; sets have no order, and mappings keep theirs.

    Args:
        where: What the value is called in errors.

    Raises:
        TypeError: It holds something that has no digest, for example a function, a path or a file.
    """
    found = hashlib.sha256()
    for part in _parts(value, where):
        found.update(b"%d:" % len(part))
        found.update(part)
    return found.hexdigest()


def source_digest(function: Callable[..., object]) -> str:
    """sha256 of a function of the user's: its file, its place in it, and what it was bound to.

    What it calls in other files is not covered.

    Raises:
        TypeError: It is no plain function, its source cannot be read, or a value in its closure or
            among its defaults has no digest.
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"{function!r} is no plain function, and its source tells too little")
    name = function.__qualname__
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError as error:
        raise TypeError(f"{name} is bound to what does not exist yet") from error
    bound = (cells, function.__defaults__, function.__kwdefaults__)
    # Where in the file, since a file may hold many functions of one name.
    place = repr(tuple(function.__code__.co_positions()))
    return digest((name, place, _file(function), digest(bound, f"what {name} is bound to")))


@cache  # What was loaded does not change when its files do.
def package_digest() -> str:
    """sha256 over the files of headrace and of its compiler."""
    roots = [Path(str(package.__file__)).parent for package in (headrace, headrace_compiler)]
    files = [
        (root.name, path.relative_to(root).as_posix(), path.read_bytes())
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return digest(tuple(files))


def _function(step: FunctionType) -> tuple[object, ...]:
    """What a step is: its place, and its file where that is no part of headrace."""
    ours = step.__module__.partition(".")[0] in {headrace.__name__, headrace_compiler.__name__}
    return step.__module__, step.__qualname__, b"" if ours else _file(step)


def _file(function: FunctionType) -> bytes:
    try:
        path = inspect.getsourcefile(function)
        return Path(path or "").read_bytes()
    except OSError as error:
        raise TypeError(f"the source of {function.__qualname__} cannot be read") from error


def _parts(value: object, where: str) -> Iterator[bytes]:
    """What a value is hashed by: its kind, and its content or the digests of what it holds."""
    scalar = _scalar(value)
    if scalar is not None:
        yield from (type(scalar[0]).__name__.encode(), scalar[1])
    elif isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in NUMBERS:
            raise TypeError(f"{where} holds {value.dtype}, which has no digest")
        yield from (b"array", f"{value.dtype.str}{value.shape}".encode(), value.tobytes())
    elif isinstance(value, tuple | list):
        yield b"tuple"
        for number, item in enumerate(value):
            yield digest(item, f"{where}[{number}]").encode()
    elif isinstance(value, AbstractSet):
        yield b"set"
        yield from sorted(digest(item, f"an item of {where}").encode() for item in value)
    elif isinstance(value, Mapping):
        yield b"mapping"
        for key, item in value.items():
            yield digest(key, f"a key of {where}").encode()
            yield digest(item, f"{where}[{key!r}]").encode()
    else:
        yield from _record_parts(value, where)


def _scalar(value: object) -> tuple[object, bytes] | None:
    """A plain value of a scalar's kind, and its spelling."""
    match value:
        case None | bool():
            return value, str(value).encode()
        case int():
            return 0, str(int(value)).encode()
        case float():
            return 0.0, repr(float(value)).encode()
        case str():
            return "", value.encode("utf-8", "surrogatepass")
        case bytes():
            return b"", value
    return None


def _record_parts(value: object, where: str) -> Iterator[bytes]:
    kind = type(value)
    own = getattr(value, "digest", None)
    names = record_fields(kind)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    # A model is told by all its fields: one that is called digest may be of something else.
    if isinstance(own, str) and not isinstance(value, BaseModel | type):
        yield own.encode()
    elif names is not None:
        for name in names:
            yield name.encode()
            yield digest(getattr(value, name), f"{where}.{name}").encode()
    else:
        raise TypeError(f"{where} is a {kind.__name__}, which has no digest: {value!r:.80}")
