"""Executes a recipe file and finds its `Recipe`."""

import ast
import contextlib
import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ValidationError

from headrace.bundle.digest import hash_file
from headrace.errors import HeadraceError, UsageError
from headrace.tensors import Frozen
from headrace_compiler.boundary import Translated, at, first_line, user_line
from headrace_compiler.recipe import Recipe


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Lets a recipe import the modules beside it, for as long as the context lasts.

    Those modules are forgotten afterwards, so that another folder's modules of the same name are
    not mistaken for them; no byte code is written into the folder.
    """
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        for name in _modules_in(folder):
            del sys.modules[name]


def load_recipe(path: Path) -> Recipe:
    """The one recipe that a Python file holds.

    Its functions may import from its folder later on: call them inside `importable`.

    Raises:
        UsageError: The file is not there, does not import, or does not hold one valid recipe.
    """
    path = path.resolve()
    if not path.is_file():
        raise UsageError("recipe.missing", f"there is no recipe {path}")
    with importable(path.parent), Translated(lambda error: _import_fault(error, path)):
        module = _execute(path)
    recipe = _only_recipe(module, path)
    if isinstance(recipe.model, str | Path):
        return recipe.model_copy(update={"model": path.parent / recipe.model})
    return recipe


def recipe_digest(path: Path) -> str:
    """sha256 of a recipe file and of the modules beside it that it imports, wherever in the code.

    Raises:
        OSError: A file cannot be read.
    """
    found = {path: hash_file(path).sha256}
    pending = [path]
    while pending:
        for module in _beside(pending.pop(), path.parent):
            if module not in found:
                found[module] = hash_file(module).sha256
                pending.append(module)
    if len(found) == 1:
        return found[path]
    lines = sorted(f"{sha256} {file.relative_to(path.parent)}\n" for file, sha256 in found.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _beside(path: Path, folder: Path) -> Iterator[Path]:
    """The files in a folder that a Python file imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            module = folder.joinpath(*name.split("."))
            for file in (module.with_suffix(".py"), module / "__init__.py"):
                if file.is_file():
                    yield file


def _execute(path: Path) -> ModuleType:
    name = f"headrace_recipe_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("recipe.missing", f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and torch look a function's module up by name while it is being defined.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _only_recipe(module: ModuleType, path: Path) -> Recipe:
    found = {name: value for name, value in vars(module).items() if isinstance(value, Recipe)}
    if "recipe" in found:
        return found["recipe"]
    if not found:
        raise UsageError(
            "recipe.none", f"{path.name} holds no Recipe", "assign one: recipe = Recipe(...)"
        )
    if len(found) > 1:
        raise UsageError(
            "recipe.several",
            f"{path.name} holds several recipes: {', '.join(sorted(found))}",
            "call the one to build `recipe`",
        )
    return next(iter(found.values()))


def _modules_in(folder: Path) -> list[str]:
    """What was imported from the folder itself; not what is installed somewhere below it.

    A recipe often lies in a project's root, beside the environment that holds torch and headrace.
    """
    tops = {
        name
        for name, module in sys.modules.items()
        if "." not in name and folder in _found_in(module)
    }
    return [name for name in sys.modules if name.partition(".")[0] in tops]


def _found_in(module: ModuleType) -> list[Path]:
    """The folders in which a top-level module or package was found."""
    file = getattr(module, "__file__", None)
    places = getattr(module, "__path__", () if file is None else (file,))
    return [Path(place).parent for place in places]


def _import_fault(error: BaseException, path: Path) -> HeadraceError:
    where = at(user_line(error, path.parent), path.parent)
    if isinstance(error, ValidationError):
        return UsageError(
            "recipe.invalid", f"{error.title} is not valid: {_faults(error)}{where}", _hint(error)
        )
    return UsageError("recipe.import", f"{path.name} does not import: {first_line(error)}{where}")


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {_sentence(fault['type'], fault['msg'])}"
        if fault["loc"]
        else _sentence(fault["type"], fault["msg"])
        for fault in error.errors(include_url=False)
    )


def _sentence(kind: str, message: str) -> str:
    plain = {"missing": "is missing", "extra_forbidden": "is unknown"}
    return plain.get(kind, message.removeprefix("Value error, "))


def _hint(error: ValidationError) -> str:
    fields = _fields(Frozen).get(error.title, [])
    unknown = [
        str(fault["loc"][-1]) for fault in error.errors() if fault["type"] == "extra_forbidden"
    ]
    meant = [
        f"did you mean '{close[0]}' instead of '{name}'?"
        for name in unknown
        if (close := difflib.get_close_matches(name, fields, n=1))
    ]
    return " ".join(meant)


def _fields(base: type[BaseModel]) -> dict[str, list[str]]:
    """The field names of every declared model, by the model's name."""
    found = {base.__name__: list(base.model_fields)}
    for model in base.__subclasses__():
        found |= _fields(model)
    return found
