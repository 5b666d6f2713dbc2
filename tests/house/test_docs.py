"""The documentation is true: what it shows of the program is what the program does."""

import re
import subprocess
import sys
from pathlib import Path

from services import run

ROOT = Path(__file__).parents[2]


def test_the_generated_reference_is_fresh() -> None:
    """Help texts and error codes in the reference are those of the code."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_number_in_the_readme_comes_from_stored_results() -> None:
    """The results pages and the README's table are those of the stored runs."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "results.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_tutorials_recipe_compiles(tmp_path: Path) -> None:
    """The recipe in the tutorial becomes a bundle that verifies."""
    text = (ROOT / "docs" / "tutorial" / "first-bundle.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    recipe = tmp_path / "digits.py"
    recipe.write_text(block)
    compiled = run(tmp_path, "compile", str(recipe), "--out", str(tmp_path), "--measure", "quick")
    assert compiled.returncode == 0, compiled.stderr
    verified = run(tmp_path, "verify", str(tmp_path / "digits-1.bundle"))
    assert verified.returncode == 0, verified.stderr


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link in the README and the documentation names a file that is there."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
