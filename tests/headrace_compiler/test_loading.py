"""Recipe files: how they are executed, and what is said of broken ones."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import UsageError
from headrace_compiler.loading import importable, load_recipe

Write = Callable[..., Path]


def refusal(path: Path) -> UsageError:
    """The error that loading a recipe raises."""
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    return caught.value


def test_a_recipe_is_loaded_with_its_defaults(write_recipe: Write) -> None:
    """A recipe that declares the least gets a parity budget, seed 0 and no processing."""
    recipe = load_recipe(write_recipe())
    assert (recipe.name, recipe.version, recipe.seed) == ("tiny", "1.0", 0)
    assert recipe.budget.parity.absolute == pytest.approx(1e-4)
    assert recipe.preprocessing is None
    assert recipe.batched


def test_declaring_a_recipe_imports_no_framework() -> None:
    """`from headrace_compiler import Recipe`, the CLI and `build` load neither torch nor onnx."""
    code = (
        "import sys, headrace_compiler, headrace_compiler.cli, headrace_compiler.build;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_recipe_imports_the_modules_beside_it(tmp_path: Path, write_recipe: Write) -> None:
    """Two folders may each hold a module of one name, and no byte code is left beside them."""
    for name in ("one", "two"):
        path = write_recipe(tmp_path / name, more="description=__import__('beside').TEXT")
        path.with_name("beside.py").write_text(f"TEXT = {name!r}")
        with importable(path.parent):
            assert load_recipe(path).description == name
        assert sorted(entry.name for entry in path.parent.iterdir()) == ["beside.py", "recipe.py"]
    assert "beside" not in sys.modules


def test_what_is_installed_below_the_recipe_stays(
    tmp_path: Path, write_recipe: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe beside the environment that it runs in leaves that environment's modules alone."""
    site = tmp_path / ".venv" / "site-packages"
    package = site / "installed_below"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("TEXT = 'installed'")
    (tmp_path / "beside.py").write_text("from installed_below import TEXT")
    monkeypatch.syspath_prepend(site)
    try:
        recipe = load_recipe(write_recipe(more="description=__import__('beside').TEXT"))
        assert recipe.description == "installed"
        assert "installed_below" in sys.modules
        assert "beside" not in sys.modules
    finally:
        sys.modules.pop("installed_below", None)


def test_a_model_file_is_relative_to_the_recipe(tmp_path: Path, write_recipe: Write) -> None:
    """The path of a model file is taken from the recipe's folder, not the current one."""
    recipe = load_recipe(write_recipe(tmp_path / "deep", model='"net.onnx"'))
    assert recipe.model == tmp_path / "deep" / "net.onnx"


def test_an_import_error_names_the_line(write_recipe: Write) -> None:
    """A recipe that raises is refused with the exception's type, message and line."""
    error = refusal(write_recipe(more="seed=int('many'),"))
    assert error.code == "recipe.import"
    assert "ValueError: invalid literal" in error.message
    assert "recipe.py:30: seed=int('many')" in error.message
    assert isinstance(error.__cause__, ValueError)


def test_a_syntax_error_names_the_line(tmp_path: Path) -> None:
    """A recipe that is no Python is refused with the line that is not."""
    path = tmp_path / "recipe.py"
    path.write_text("a = 1\nb = = 2\n")
    error = refusal(path)
    assert error.code == "recipe.import"
    assert "recipe.py:2: b = = 2" in error.message


def test_a_recipe_that_exits_is_an_error(write_recipe: Write) -> None:
    """`sys.exit` in a recipe does not end the program with the recipe's status."""
    assert refusal(write_recipe(more="seed=exit(0),")).code == "recipe.import"


def test_every_wrong_field_is_listed_at_once(write_recipe: Write) -> None:
    """One error lists the missing, the unknown and the invalid fields, and suggests a name."""
    path = write_recipe(more="sede=3, outputs=('y',), bugdet=None, description=1,")
    path.write_text(path.read_text().replace('version="1.0",', ""))
    error = refusal(path)
    assert error.code == "recipe.invalid"
    for part in ("version: is missing", "sede: is unknown", "description: Input should be"):
        assert part in error.message
    assert "did you mean 'seed' instead of 'sede'?" in error.hint
    assert "did you mean 'budget' instead of 'bugdet'?" in error.hint
    assert "recipe.py:" in error.message


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"model": '"net.bin"'}, "a model file ends in .pt2 or .onnx"),
        ({"more": 'outputs=("y", "y"),'}, "'y' names more than one"),
        ({"more": 'outputs=("x",),'}, "'x' names more than one"),
        ({"more": 'postprocessing=TopK(output="z"), outputs=("y",),'}, "reads 'z'"),
        ({"more": 'evaluation="data",'}, "evaluation: Input should be callable"),
        (
            {"inputs": '[TensorSpec(name="x", datatype="FP32", shape=(8, "batch"))]'},
            "the axis 'batch' stands first",
        ),
        (
            {"inputs": '[TensorSpec(name="x", datatype="BYTES", shape=("batch",))]'},
            "a model takes no BYTES",
        ),
        ({"inputs": '[TensorSpec(name="x", dtype="FP32", shape=())]'}, "dtype: is unknown"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    write_recipe: Write, parts: dict[str, str], sentence: str
) -> None:
    """Declarations that contradict each other are refused before anything runs."""
    error = refusal(write_recipe(**parts))
    assert error.code == "recipe.invalid"
    assert sentence in error.message


def test_a_file_holds_exactly_one_recipe(tmp_path: Path, write_recipe: Write) -> None:
    """None and several are refused; among several the one called `recipe` is taken."""
    assert refusal(tmp_path / "nothing.py").code == "recipe.missing"
    path = write_recipe()
    one = path.read_text()
    path.write_text(one.replace("recipe = Recipe(", "first = Recipe("))
    assert load_recipe(path).name == "tiny"
    path.write_text(path.read_text() + "second = first.model_copy()\n")
    assert refusal(path).code == "recipe.several"
    path.write_text(path.read_text() + "recipe = first.model_copy(update={'seed': 7})\n")
    assert load_recipe(path).seed == 7
    path.write_text("x = 1\n")
    assert refusal(path).code == "recipe.none"
