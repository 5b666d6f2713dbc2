"""The suite `compile`: one model file for everybody, and the right answer before any figure."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import GOOD, WEIGHT, linear_bundle, linear_case, linear_model

from headrace.bundle.golden import encode_cases
from headrace.bundle.manifest import Tolerance
from headrace.bundle.open import open_bundle
from headrace.errors import UsageError
from headrace.hardware import detect_hardware
from headrace.tensors import TensorSpec
from headrace_bench.contest import Contest, Effort, run_contest
from headrace_bench.process import Contestant
from headrace_bench.result import CaseResult
from headrace_bench.suites import compile as suite
from headrace_bench.suites.options import SuiteOptions
from headrace_bench.suites.rivals import make_rivals
from headrace_compiler.build import build
from headrace_compiler.loading import load_recipe
from headrace_compiler.seeds import seeded

BRIEF = Effort(rounds=1, block_s=0.01, warm_s=0.01, allow_load=True)
TORCH = ("eager", "torch-compile")
RECIPE = """
import numpy as np
import torch

from headrace_compiler import Recipe, TensorSpec


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, first, second):
        return {"sum": self.linear(first) + second, "doubled": first * 2}


def samples():
    generator = np.random.default_rng(0)
    for _ in range(3):
        yield {
            "first": generator.standard_normal((1, 3), np.float32),
            "second": generator.standard_normal((1, 4), np.float32),
        }


recipe = Recipe(
    name="tiny",
    version="1",
    model=Net,
    inputs=[
        TensorSpec(name="first", datatype="FP32", shape=("batch", 3)),
        TensorSpec(name="second", datatype="FP32", shape=("batch", 4)),
    ],
    samples=samples,
)
"""


def options(
    directory: Path, *peers: str, bundle: Path | None = GOOD, quick: bool = True
) -> SuiteOptions:
    """A home without peers."""
    return SuiteOptions(
        bundle=None if bundle is None else open_bundle(bundle),
        scratch=directory,
        home=directory / "home",
        quick=quick,
        peers=peers,
    )


def here(contestant: Contestant) -> Contestant:
    """Raw ONNX Runtime in headrace's own environment, which has it too."""
    if contestant.name != "onnxruntime":
        return contestant
    return replace(contestant, python=Path(sys.executable), missing="")


def run(contest: Contest) -> dict[str, CaseResult]:
    """The results by contestant, as short as can be."""
    contest = replace(contest, contestants=tuple(map(here, contest.contestants)))
    return {each.contestant: each for each in run_contest(contest, BRIEF, detect_hardware())}


def test_bundle_of_the_user_is_measured(tmp_path: Path) -> None:
    """With a bundle, engines run its graph on its golden inputs; PyTorch has no module to run."""
    (contest,) = suite.contests(options(tmp_path, "onnxruntime", "openvino", *TORCH))
    assert (contest.case, contest.bundle) == ("linear-b1-t1", open_bundle(GOOD).digest)
    results = run(contest)
    assert list(results) == ["headrace", "onnxruntime", "openvino", *TORCH]
    for name in ("headrace", "onnxruntime"):
        assert results[name].status == "ok", results[name].reason
        assert results[name].metric("load") is not None
    assert results["openvino"].status == "missing"
    assert "headrace bench peers install openvino" in results["openvino"].reason
    for name in TORCH:
        assert results[name].status == "missing"
        assert results[name].reason == "a bundle holds no module for PyTorch to run"


def test_wrong_answer_fails_with_a_sentence(tmp_path: Path) -> None:
    """A peer whose answer is not the bundle's golden one is not measured; the others are."""
    (contest,) = suite.contests(options(tmp_path, "onnxruntime"))
    other = tmp_path / "other.onnx"
    other.write_bytes(linear_model(WEIGHT + 1))
    own, peer = contest.contestants
    wrong = replace(peer, arguments={**peer.arguments, "model": str(other)})
    results = run(replace(contest, contestants=(own, wrong)))
    assert results["headrace"].status == "ok"
    assert (results["onnxruntime"].status, results["onnxruntime"].metrics) == ("failed", ())
    assert "output 'y' is off by" in results["onnxruntime"].reason


def test_recipe_is_built_and_run_by_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bundle the recipe is compiled, and PyTorch runs its module to the same answers."""
    (tmp_path / "recipe.py").write_text(RECIPE)
    monkeypatch.setattr(suite, "EXAMPLE", tmp_path / "recipe.py")
    (contest,) = suite.contests(options(tmp_path, "onnxruntime", *TORCH, bundle=None))
    assert contest.case == "tiny-b1-t1"
    results = run(contest)
    assert list(results) == ["headrace", "onnxruntime", *TORCH]
    assert {name: each.reason for name, each in results.items() if each.status != "ok"} == {}
    assert "torch" in results["eager"].versions
    assert any((tmp_path / "inductor").rglob("*.so"))


def test_example_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no source tree the suite asks for a bundle."""
    monkeypatch.setattr(suite, "EXAMPLE", tmp_path / "recipe.py")
    with pytest.raises(UsageError) as caught:
        suite.contests(options(tmp_path, bundle=None))
    assert (caught.value.code, "--bundle" in caught.value.hint) == ("bench.no-example", True)


def test_cases_cover_batches_and_threads(tmp_path: Path) -> None:
    """A batched model is run at two batch sizes, each on one thread and on two."""
    contests = suite.contests(options(tmp_path, "onnxruntime", quick=False))
    assert [contest.case for contest in contests] == [
        f"linear-b{rows}-t{threads}" for rows in (1, 8) for threads in (1, 2)
    ]
    results = run(contests[-1])
    assert {each.status for each in results.values()} == {"ok"}
    assert results["headrace"].parameters == {
        "model": "linear",
        "batch": 8,
        "threads": 2,
        "load": 1,
        "rounds": 1,
    }


def test_model_that_is_not_batched_has_one_size(tmp_path: Path) -> None:
    """A model with fixed shapes is run on its golden case as it is."""
    path = linear_bundle(
        tmp_path,
        golden=encode_cases([linear_case(2)]),
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(2, 3)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(2, 4)),),
    )
    contests = suite.contests(options(tmp_path, "onnxruntime", bundle=path, quick=False))
    assert [contest.case for contest in contests] == ["linear-b1-t1", "linear-b1-t2"]
    assert {each.status for each in run(contests[0]).values()} == {"ok"}


JUDGED = (
    RECIPE.replace(
        "    samples=samples,",
        """    samples=samples,
    calibration=lambda: noise(1),
    evaluation=lambda: ((sample, None) for sample in noise(2)),
    metric="cosine",
    budget=Budget(accuracy_loss=LOSS),""",
    )
    .replace(
        "def samples():",
        """def noise(seed):
    generator = np.random.default_rng(seed)
    for _ in range(8):
        yield {
            "first": generator.standard_normal((1, 3), np.float32),
            "second": generator.standard_normal((1, 4), np.float32),
        }


def samples():""",
    )
    .replace("import Recipe,", "import Budget, Recipe,")
)
RIVALS = ["onnxruntime-static", "openvino-bf16", "openvino-nncf", "openvino-nncf-bf16"]


@pytest.mark.parametrize("loss", [1.0, 0.0])
def test_what_others_make_of_a_model_is_held_to_its_budget(tmp_path: Path, loss: float) -> None:
    """Rivals in less than float32 are made from the recipe's data; outside the budget says so."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(JUDGED.replace("LOSS", str(loss)))
    bundle = open_bundle(build(recipe, out=tmp_path, measure="none").path)
    rivals = make_rivals(recipe, bundle, tmp_path / "rivals")
    assert [rival.name for rival in rivals] == RIVALS
    assert all(rival.model.is_file() for rival in rivals)
    for rival in rivals:
        if loss:
            assert rival.outside == ""
        else:
            assert rival.outside.startswith("outside the accuracy budget: it may lose ")


def test_rivals_need_data_to_judge_by(tmp_path: Path) -> None:
    """Of a recipe without evaluation data nothing but float32 is compared."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE)
    bundle = open_bundle(build(recipe, out=tmp_path, measure="none").path)
    assert make_rivals(recipe, bundle, tmp_path / "rivals") == ()


def test_bf16_needs_a_processor_that_has_it() -> None:
    """Without bf16 instructions the contestant is missing, with a sentence."""
    assert suite._no_bf16(("avx2", "fma")) == "this processor does not compute in bf16"
    assert suite._no_bf16(("avx2", "avx512_bf16")) == ""


def test_golden_cases_become_batches() -> None:
    """A batch takes the rows of the golden cases in turn, inputs and outputs alike."""
    cases = [linear_case(1), linear_case(2)]
    batch = suite.compose_golden(cases, 8)
    assert batch.inputs["x"].shape == (8, 3)
    expected = batch.inputs["x"].astype(np.float32) @ WEIGHT
    np.testing.assert_allclose(batch.outputs["y"].astype(np.float32), expected, atol=1e-6)
    np.testing.assert_array_equal(batch.inputs["x"][3:6], batch.inputs["x"][:3])


def test_tolerance_follows_the_variant() -> None:
    """A variant that was proven to lie further off may do so here, and none less than fp32 sums."""
    outputs = {"y": np.array([-4.0, 2.0])}
    tight = suite.relative_tolerance(Tolerance(absolute=0.0, relative=0.0), outputs)
    wide = suite.relative_tolerance(Tolerance(absolute=0.4, relative=0.1), outputs)
    assert tight == suite.FP32
    assert wide == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "parameters", "shape"),
    [
        ("resnet50", 25_557_032, (1, 1000)),
    ],
)
def test_models_have_their_usual_shape(name: str, parameters: int, shape: tuple[int, int]) -> None:
    """The random models have as many parameters as the real ones, and answer."""
    (path,) = (path for path in suite.MODELS if path.stem == name)
    recipe = load_recipe(path)
    assert callable(recipe.model)
    with seeded(recipe.seed):
        module = recipe.model()
    assert isinstance(module, torch.nn.Module)
    assert sum(weight.numel() for weight in module.parameters()) == parameters
    sample = next(iter(recipe.samples()))
    with torch.inference_mode():
        found = module.eval()(*(torch.from_numpy(sample[spec.name]) for spec in recipe.inputs))
    assert found.shape == shape
    assert torch.isfinite(found).all()
