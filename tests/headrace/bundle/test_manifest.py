"""The manifest: what it takes, what it refuses, and what it tells clients."""

import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from bundles import GOOD, LABELS, MODEL, PREPROCESSING, linear_model, parts
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.bundle.manifest import (
    GOLDEN,
    KERNELS,
    MAX_PATH,
    OUTSIDE_CONTENT,
    RESERVED,
    FileEntry,
    KernelEntry,
    Manifest,
    is_among,
    is_safe_path,
)
from headrace.postprocess.spec import Softmax, TopK
from headrace.tensors import TensorSpec

ENTRY = FileEntry(sha256="0" * 64, size=0)
PIXELS = TensorSpec(name="pixels", datatype="FP32", shape=("batch", 3, 6, 6))
LOGITS = TensorSpec(name="logits", datatype="FP32", shape=("batch", 4))
IMAGE: dict[str, object] = {"inputs": (PIXELS,), "preprocessing": PREPROCESSING}


def _manifest(**changes: object) -> Manifest:
    return Manifest.model_validate(parts(linear_model(), b"", **changes)[1])


def _document() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOOD / "headrace.json").read_bytes())
    return content


def test_manifest_is_written_as_it_was_read() -> None:
    """The bytes of a manifest are one function of its content, for earlier versions' too."""
    encoded = (GOOD / "headrace.json").read_bytes()
    assert Manifest.model_validate_json(encoded).to_json() == encoded


@pytest.mark.parametrize(
    "where",
    [
        (),
        ("lineage",),
        ("inputs", 0),
        ("variants", 0),
        ("variants", 0, "tolerance"),
        ("parity", 0),
        ("files", GOLDEN),
    ],
)
def test_unknown_key_is_refused_on_every_level(where: tuple[str | int, ...]) -> None:
    """A key that the schema does not have is an error wherever it stands."""
    document = _document()
    part = document
    for step in where:
        part = part[step]  # type: ignore[index]
    part["colour"] = "green"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Manifest.model_validate_json(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "Linear"),
        ("name", "../linear"),
        ("name", "linear\n"),
        ("name", ""),
        ("name", "a" * 65),
        ("version", "1.0.0.0"),
        ("version", "1-rc"),
        ("version", "\u0661"),
        ("version", 1),
        ("inputs", []),
        ("outputs", []),
        ("variants", []),
        ("files", {}),
        ("schema_version", 3),
        ("description", None),
    ],
)
def test_field_of_another_form_is_refused(key: str, value: object) -> None:
    """Names, versions and lists have one form, and nothing is converted to it."""
    with pytest.raises(ValidationError):
        Manifest.model_validate_json(json.dumps({**_document(), key: value}))


@pytest.mark.parametrize("key", ["inputs", "outputs", "variants"])
def test_names_are_unique(key: str) -> None:
    """Two tensors or two variants of one name are refused."""
    document = _document()
    with pytest.raises(ValidationError, match=f"two of the {key} have one name"):
        Manifest.model_validate_json(json.dumps({**document, key: document[key] * 2}))


@given(st.text(max_size=300))
def test_safe_path_stays_below_its_root(path: str) -> None:
    """Whatever is taken for a safe path is relative, plain and without a step upwards."""
    if is_safe_path(path):
        _assert_plain(path)


@given(st.from_regex(r"[A-Za-z0-9_./\-\\~\n]{0,20}", fullmatch=True))
def test_near_misses_stay_below_their_root(path: str) -> None:
    """So it is with text made of the letters that paths are made of."""
    if is_safe_path(path):
        _assert_plain(path)


def _assert_plain(path: str) -> None:
    components = path.split("/")
    assert PurePosixPath(path).as_posix() == path
    assert not path.startswith("/")
    assert all(part and not part.startswith((".", "-")) for part in components)
    assert path.isascii()
    assert path.isprintable()
    assert not set(path) & set("\\:~ \n")
    assert len(path) <= MAX_PATH


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("model/fp32/model.onnx", True),
        ("a.b-c_d/E9", True),
        ("a" * MAX_PATH, True),
        ("a" * (MAX_PATH + 1), False),
        ("model/.hidden", False),
        ("..", False),
        ("a/..", False),
        ("a/", False),
        ("a\n", False),
    ],
)
def test_paths_that_are_safe(path: str, *, safe: bool) -> None:
    """Ordinary names are safe; hidden, climbing, unended and endless ones are not."""
    assert is_safe_path(path) is safe


@pytest.mark.parametrize("name", ["headrace.json", *RESERVED, *OUTSIDE_CONTENT])
def test_reserved_names_are_no_content(name: str) -> None:
    """What is kept for later versions and for measurements cannot be content of this one."""
    path = f"{name}x" if name.endswith("/") else name
    files = parts(linear_model(), b"")[1]["files"]
    assert isinstance(files, dict)
    with pytest.raises(ValidationError, match="is reserved"):
        _manifest(files={**files, path: ENTRY})


def test_only_whole_names_are_reserved() -> None:
    """A name that merely begins like a reserved one is free."""
    assert is_among("measured/x.json", OUTSIDE_CONTENT)
    assert is_among("report.html", OUTSIDE_CONTENT)
    assert not is_among("report.html.so", OUTSIDE_CONTENT)
    assert not is_among("measured-too", OUTSIDE_CONTENT)
    assert not is_among("model/measured/x", OUTSIDE_CONTENT)


@pytest.mark.parametrize("path", ["manifest.json", "model/component.json", GOLDEN, MODEL])
def test_needed_files_are_listed(path: str) -> None:
    """A manifest without the package, the golden cases or a variant's graph is refused."""
    files = parts(linear_model(), b"")[1]["files"]
    assert isinstance(files, dict)
    kept = {name: entry for name, entry in files.items() if name != path}
    with pytest.raises(ValidationError, match="is not among the files"):
        _manifest(files=kept)


def test_without_processing_clients_see_the_model() -> None:
    """Without pre- and postprocessing a client sends and gets the model's own tensors."""
    manifest = _manifest()
    assert manifest.request_inputs == manifest.inputs
    assert manifest.answer_outputs == manifest.outputs
    assert manifest.batched


def test_preprocessing_offers_the_raw_input_first() -> None:
    """With preprocessing a client may send encoded images, or ready tensors still."""
    manifest = _manifest(**IMAGE)
    raw, ready = manifest.request_inputs
    assert (raw.name, raw.datatype, raw.shape) == ("image", "BYTES", ("batch",))
    assert ready == PIXELS


@pytest.mark.parametrize(
    ("postprocessing", "answers"),
    [
        (Softmax(output="logits"), [("probabilities", "FP32", ("batch", 4))]),
        (
            TopK(output="logits", k=2),
            [("scores", "FP32", ("batch", 2)), ("indices", "INT64", ("batch", 2))],
        ),
        (
            TopK(output="logits", k=4, labels=LABELS),
            [
                ("scores", "FP32", ("batch", 4)),
                ("indices", "INT64", ("batch", 4)),
                ("labels", "BYTES", ("batch", 4)),
            ],
        ),
    ],
)
def test_postprocessing_declares_its_answer(
    postprocessing: Softmax | TopK, answers: list[tuple[str, str, tuple[object, ...]]]
) -> None:
    """A client is told the tensors that postprocessing makes."""
    manifest = _manifest(outputs=(LOGITS,), postprocessing=postprocessing)
    found = [(spec.name, spec.datatype, spec.shape) for spec in manifest.answer_outputs]
    assert found == answers


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**IMAGE, "inputs": (PIXELS, LOGITS)}, "does not fill the input"),
        ({"preprocessing": PREPROCESSING}, "fills 'pixels', which is no input"),
        (
            {**IMAGE, "inputs": (PIXELS.model_copy(update={"datatype": "FP16"}),)},
            "which the input does not take",
        ),
        (
            {**IMAGE, "inputs": (PIXELS.model_copy(update={"shape": ("batch", 6, 6, 3)}),)},
            "which the input does not take",
        ),
        ({"postprocessing": Softmax(output="z")}, "reads 'z', which is no output"),
        ({"postprocessing": Softmax(output="y", result="a b\x1b")}, "is no name for a tensor"),
        ({"postprocessing": TopK(output="y", k=5)}, "k = 5, and there are 4 classes"),
        ({"postprocessing": TopK(output="y", k=1, labels=("a",))}, "1 labels for 4 classes"),
        (
            {
                "outputs": (TensorSpec(name="y", datatype="INT64", shape=("batch", 4)),),
                "postprocessing": Softmax(output="y"),
            },
            "reads an FP32 output",
        ),
        (
            {
                "outputs": (TensorSpec(name="y", datatype="FP32", shape=("batch", "n")),),
                "postprocessing": Softmax(output="y"),
            },
            "reads an FP32 output",
        ),
        (
            {
                "outputs": (TensorSpec(name="y", datatype="FP32", shape=("batch", 4, 1)),),
                "postprocessing": Softmax(output="y"),
            },
            "reads an FP32 output",
        ),
    ],
    ids=range(11),
)
def test_processing_fits_the_tensors(changes: dict[str, object], words: str) -> None:
    """Pre- and postprocessing that do not fit the model's tensors are refused."""
    with pytest.raises(ValidationError) as caught:
        _manifest(**changes)
    assert words in str(caught.value)


def test_model_without_a_batch_axis_is_not_batched() -> None:
    """A model is batched only if every tensor has the batch axis first."""
    fixed = TensorSpec(name="y", datatype="FP32", shape=(1, 4))
    assert not _manifest(outputs=(fixed,)).batched


def _with_kernels(version: int = 2, **changes: object) -> Manifest:
    entry = KernelEntry(target="x86_64-v3", path=f"{KERNELS}x86_64-v3.so")
    fields: dict[str, object] = {
        **IMAGE,
        "outputs": (LOGITS,),
        "schema_version": version,
        "kernels": (entry,),
    }
    base = _manifest()
    files = {**base.files, entry.path: ENTRY}
    return _manifest(**{**fields, "files": files, **changes})


def test_kernels_are_listed_with_their_files() -> None:
    """One a target, each among the files, and no other file beside them."""
    assert [each.target for each in _with_kernels().kernels] == ["x86_64-v3"]
    entry = _with_kernels().kernels[0]
    for changes, complaint in (
        ({"version": 1}, "schema version 2"),
        ({"preprocessing": None, "inputs": (PIXELS,)}, "with processing"),
        ({"kernels": (entry, entry)}, "one target"),
        ({"kernels": ()}, "not both"),
        ({"files": _manifest().files}, "not both"),
    ):
        with pytest.raises(ValidationError, match=complaint):
            _with_kernels(**changes)


def test_an_earlier_manifest_does_not_spell_what_came_later() -> None:
    """Version 1 with processing keeps the bytes it had."""
    written = json.loads(_manifest(**IMAGE, outputs=(LOGITS,)).to_json())
    assert "kernels" not in written
    operations = written["preprocessing"]
    assert operations.keys() == {
        *("kind", "input", "output", "decode", "resize", "crop", "normalize", "layout")
    }
    assert operations["decode"].keys() == {"op", "max_pixels"}
