"""The results page of a machine, and the numbers of other pages, from stored benchmark runs.

python docs/results.py measure [--quick] [SUITE...]   runs suites here, stores what they measured
python docs/results.py [--check]                      writes pages and numbers; or compares

Runs are stored as `docs/results/FINGERPRINT/SUITE.jsonl`, one JSON line a contestant of a case.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headrace.hardware import detect_hardware
from headrace_bench.report.cells import times
from headrace_bench.report.markdown import markdown
from headrace_bench.result import RESULTS, CaseResult, Metric, read_results

ROOT = Path(__file__).parents[1]
STORED = ROOT / "docs" / "results"
SOAK = ROOT / "docs" / "soak"
README = ROOT / "README.md"
KERNELS = ROOT / "docs" / "explanation" / "kernels.md"
SUITES = ("kernels", "compile", "serving", "coldstart", "endtoend")
NUMBA = ("headrace", "numba-jit", "numba-cached")
# The cold start of a model of real size says more than that of the suite's tiny one.
FLAGS = {"coldstart": ("--bundle", ".demo/efficientnet-lite0-1.bundle")}

INTRODUCTION = """
Measured by `make results` with nothing else running, and written by `python docs/results.py`.
Contestants of a case work in alternation in one run: their ratios mean more than the times of a
shared machine. `rounds` says how many blocks each had: five in a quick run. What the suites measure
stands in [the reference](../reference/benchmarks.md).
""".strip()


def measure(suites: Sequence[str], *, quick: bool) -> None:
    """Runs suites on this machine; a run that fails stores nothing."""
    place = STORED / detect_hardware().fingerprint
    place.mkdir(parents=True, exist_ok=True)
    for suite in suites:
        with tempfile.TemporaryDirectory() as out:
            command: list[str | Path] = [
                Path(sys.executable).with_name("headrace"),
                "bench",
                "run",
                suite,
            ]
            flags = [*FLAGS.get(suite, ()), *(("--quick",) if quick else ()), "--out", out]
            done = subprocess.run([*command, *flags], cwd=ROOT, check=False)  # noqa: S603 - ours
            if done.returncode not in {0, 1, 4}:
                raise SystemExit(done.returncode)
            (place / f"{suite}.jsonl").write_text((Path(out) / RESULTS).read_text())


def pages() -> dict[Path, str]:
    """Every generated page, the README, and the explanation of kernels."""
    found = {
        place.with_suffix(".md"): page(place)
        for place in sorted(STORED.iterdir())
        if place.is_dir()
    }
    found[README] = _filled(README, "results", numbers(_newest("edge-install")))
    found[KERNELS] = _filled(KERNELS, "starts", starts(_newest("edge-first-image")))
    return found


def _newest(case: str) -> Path:
    """The place where a case of cold starts was measured last."""
    runs = {
        result.started: path.parent
        for path in STORED.glob("*/coldstart.jsonl")
        for result in read_results(path)
        if result.case == case
    }
    return runs[max(runs)]


def _filled(path: Path, name: str, made: str) -> str:
    """A page with a table where it has the place for it."""
    place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
    text = path.read_text()
    if not place.search(text):
        raise SystemExit(f"{path.name} has no place for {name}")
    return place.sub(lambda _: made, text)


def page(place: Path) -> str:
    """All that was measured on one machine."""
    parts = [
        f"# Results on `{place.name}`",
        INTRODUCTION,
    ]
    for suite in SUITES:
        stored = place / f"{suite}.jsonl"
        if stored.exists():
            results = read_results(stored)
            day = results[0].started[:10]
            parts += [f"## {suite}, {day}", markdown(results).strip()]
    soak = [json.loads(path.read_text()) for path in sorted(SOAK.glob(f"*-{place.name}.json"))]
    if soak:
        parts.append("## soak\n\nWhat `make soak` wrote down last.")
        parts += [_soaked(result) for result in soak]
    return "\n\n".join(parts) + "\n"


def numbers(place: Path) -> str:
    """The README's table."""
    results = read_results(place / "coldstart.jsonl")
    size = _metric(results, "edge-install", "size")
    rows = [
        f"| size of the edge install (site-packages, dependencies included) | {size.value:.0f} MB |"
    ]
    for case, what in (
        ("edge-first-answer", "start of `headrace serve --edge` to its first right answer"),
        ("ray-first-answer", "the same on Ray Serve"),
    ):
        found = _metric(results, case, "latency_p50")
        low, high = (found.low or found.value) / 1e3, (found.high or found.value) / 1e3
        model = next(each for each in results if each.case == case).parameters["model"]
        rows.append(f"| {what}, {model} | {found.value / 1e3:.2f} s ({low:.2f} to {high:.2f}) |")
    one = results[0]
    head = f"| measured on `{one.fingerprint}` ({one.processor}), median and 95 % interval | |"
    link = f"[All results of this machine](docs/results/{place.name}.md)."
    return "\n".join([head, "|---|---|", *rows, "", link]) + "\n"


def starts(place: Path) -> str:
    """The table of starts with the native library, and with Numba in its place."""
    results = read_results(place / "coldstart.jsonl")
    first = _result(results, "edge-first-image", "headrace")
    answer = "`headrace serve --edge` to its first right answer to an encoded image"
    rows = [
        f"| {what} | {' | '.join(_start(results, case, who) for who in NUMBA)} |"
        for case, what in (
            ("first-tensor", "a process to its first prepared photograph of 1280 x 720"),
            ("edge-first-image", f"{answer}, {first.parameters['model']}"),
        )
    ]
    head = "| from the start of | native library | Numba's JIT | in Numba's cache |"
    said = f"Medians on `{first.fingerprint}` ({first.processor}), ratios with their 95 % interval."
    again = "`headrace bench run coldstart --bundle BUNDLE` measures them again."
    return "\n".join([head, "|---|---|---|---|", *rows, "", f"{said}\n{again}"]) + "\n"


def _start(results: Sequence[CaseResult], case: str, contestant: str) -> str:
    result = _result(results, case, contestant)
    metric = result.metric("latency_p50")
    if metric is None:
        raise SystemExit(f"the stored results hold no latency of {case}, {contestant}")
    ratio = next((each for each in result.ratios if each.metric == "latency_p50"), None)
    return f"{metric.value / 1e3:.2f} s" + (f", {times(ratio)}" if ratio else "")


def _metric(results: Sequence[CaseResult], case: str, name: str) -> Metric:
    metric = _result(results, case, "headrace").metric(name)
    if metric is None:
        raise SystemExit(f"the stored results hold no {name} of {case}")
    return metric


def _result(results: Sequence[CaseResult], case: str, contestant: str) -> CaseResult:
    for result in results:
        if (result.case, result.contestant) == (case, contestant):
            return result
    raise SystemExit(f"the stored results hold no {contestant} in {case}")


def _soaked(result: dict[str, object]) -> str:
    rows = [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in result.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {number}" for name, number in value.items()) or "none"
    return str(value)


def main() -> None:
    """Measures, writes, or compares."""
    if sys.argv[1:2] == ["measure"]:
        named = [argument for argument in sys.argv[2:] if argument != "--quick"]
        measure(named or SUITES, quick="--quick" in sys.argv)
    check = sys.argv[1:] == ["--check"]
    stale = [
        path for path, text in pages().items() if not path.exists() or path.read_text() != text
    ]
    if check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        raise SystemExit(f"stale: {names}; run `python docs/results.py`")
    for path in stale:
        path.write_text(pages()[path])


if __name__ == "__main__":
    main()
