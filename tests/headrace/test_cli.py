"""The program as a user meets it: exit statuses, one JSON document, and tables for people."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import ASSETS, GOOD, LABELS, image_bundle, linear_bundle, png
from services import HEADRACE, environment, free_port, run, serving

from headrace.bundle.open import open_bundle
from headrace.cli import exit_status
from headrace.errors import (
    BundleError,
    CheckError,
    HeadraceError,
    InternalError,
    InvalidRequestError,
    MissingError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
    UsageError,
)

DIGEST = open_bundle(GOOD).digest
TAMPERED = ASSETS / "tampered.bundle"
OTHER = ASSETS / "golden-mismatch.bundle"
Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program, with a home of its own."""
    return partial(run, tmp_path / "home")


@pytest.fixture
def row(tmp_path: Path) -> Path:
    """One row for the linear model."""
    np.save(tmp_path / "row.npy", np.array([[1.0, 2.0, 3.0]], np.float32))
    return tmp_path / "row.npy"


def _document(ended: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The one document on standard output; anything before or behind it is an error."""
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (HeadraceError, 1),
        (CheckError, 1),
        (BundleError, 1),
        (InternalError, 1),
        (UsageError, 2),
        (InvalidRequestError, 2),
        (NotFoundError, 2),
        (TooLargeError, 2),
        (UnsupportedError, 2),
        (MissingError, 3),
        (UnavailableError, 3),
    ],
)
def test_error_has_its_exit_status(kind: type[HeadraceError], status: int) -> None:
    """1 is a check that said no, 2 what the user can mend, 3 what is missing."""
    assert exit_status(kind("area.fault", "a sentence")) == status


CASES: list[tuple[list[str | Path], int, str]] = [
    (["verify", GOOD], 0, ""),
    (["verify", TAMPERED], 1, "bundle.tampered"),
    (["verify", OTHER], 1, "bundle.golden-mismatch"),
    (["verify", ASSETS / "broken-graph.bundle"], 1, "bundle.graph"),
    (["verify", "/no/such/bundle"], 2, "bundle.not-found"),
    (["verify", GOOD, "--provider", "NoSuchProvider"], 3, "provider.missing"),
    (["verify", GOOD, "--colour"], 2, "usage.command"),
    (["inspect", GOOD], 0, ""),
    (["inspect", TAMPERED], 1, "bundle.tampered"),
    (["diff", GOOD, GOOD], 0, ""),
    (["diff", GOOD, OTHER], 1, ""),
    (["diff", GOOD, TAMPERED], 1, "bundle.tampered"),
    (["diff", GOOD], 2, "usage.command"),
    (["doctor"], 0, ""),
    (["predict", GOOD], 2, "usage.command"),
    (["predict", GOOD, "--input", "x"], 2, "predict.input"),
    (["predict", GOOD, "--input", "x=/no/such/file"], 2, "predict.input"),
    (["predict", GOOD, "--input", "x=/etc/hostname"], 2, "request.datatype"),
    (["predict", GOOD, "--input", "x=a.npy", "--threads", "-1"], 2, "usage.command"),
    (["predict", TAMPERED, "--input", "x=/etc/hostname"], 1, "bundle.tampered"),
    (["serve", GOOD, "--edge", "--host", "192.0.2.1"], 2, "serve.exposed"),
    (["serve", GOOD, "--edge", "--port", "99999"], 2, "usage.value"),
    (["serve", TAMPERED, "--edge"], 1, "bundle.tampered"),
    (["nothing"], 2, "usage.command"),
]


@pytest.mark.parametrize(
    ("arguments", "status", "code"), CASES, ids=lambda value: str(value)[:60].replace("/", ".")
)
def test_status_and_the_one_document(
    program: Program, arguments: list[str | Path], status: int, code: str
) -> None:
    """Every command ends with its status, and with --json prints exactly one document."""
    ended = program(*map(str, arguments), "--json")
    assert ended.returncode == status, ended.stderr
    document = _document(ended)
    assert "Traceback" not in ended.stderr
    if code:
        assert document["error"]["code"] == code
        assert document["error"]["message"] in " ".join(ended.stderr.split())
    else:
        assert "error" not in document


@pytest.mark.parametrize("arguments", [["status"], ["stop"], ["stop", "0" * 12]], ids=str)
def test_without_services_there_is_nothing_to_show(program: Program, arguments: list[str]) -> None:
    """Where no service runs, `status` and `stop` end with 1 and say so on standard error."""
    ended = program(*arguments)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "no " in ended.stderr


@pytest.mark.parametrize("command", ["status", "stop"])
def test_nothing_to_show_is_one_document_too(program: Program, command: str) -> None:
    """Where no service runs, --json still prints exactly one document."""
    ended = program(command, "--json")
    assert ended.returncode == 1
    assert _document(ended)


def test_errors_go_to_standard_error_alone(program: Program) -> None:
    """For people an error is a sentence and a hint on standard error, and no table."""
    ended = program("verify", str(TAMPERED))
    assert ended.returncode == 1
    assert ended.stdout == ""
    first, hint = ended.stderr.splitlines()
    assert first.startswith("error: model/fp32/model.onnx was changed")
    assert hint.startswith("  get the bundle again")


def test_no_command_shows_the_help(program: Program) -> None:
    """Without a command the program says what it can do, and ends with 2."""
    ended = program()
    assert ended.returncode == 2
    assert "verify" in ended.stdout + ended.stderr


def test_help_and_version(program: Program) -> None:
    """Help and version are no errors, and the module runs as the program does."""
    assert program("--help").returncode == 0
    assert program("verify", "--help").returncode == 0
    version = program("--version")
    assert version.returncode == 0
    assert version.stdout.startswith("headrace 0.")
    module = subprocess.run(
        [sys.executable, "-m", "headrace.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert module.stdout == version.stdout


def test_verify_shows_the_whole_digest(program: Program) -> None:
    """A digest stands in one piece, so that it can be compared and copied."""
    ended = program("verify", str(GOOD))
    assert ended.returncode == 0
    assert DIGEST in ended.stdout
    assert "5 files as their manifest says" in ended.stdout
    assert "1 replayed on CPUExecutionProvider" in ended.stdout
    document = _document(program("verify", str(GOOD), "--json"))
    assert document["digest"] == DIGEST
    assert (document["files"], document["golden_cases"]) == (5, 1)


def test_inspect_shows_tensors_as_they_are(program: Program) -> None:
    """Shapes keep their brackets and names, and every digest is whole."""
    shown = program("inspect", str(GOOD)).stdout
    assert "x: FP32 [batch, 3]" in shown
    assert "y: FP32 [batch, 4]" in shown
    assert DIGEST in shown
    assert "0" * 64 in shown
    document = _document(program("inspect", str(GOOD), "--json"))
    assert document["digest"] == DIGEST
    assert document["manifest"] == json.loads((GOOD / "headrace.json").read_bytes())


def test_inspect_shows_what_clients_see(program: Program, tmp_path: Path) -> None:
    """With pre- and postprocessing the raw input and the answer's own tensors are shown."""
    shown = program("inspect", str(image_bundle(tmp_path))).stdout
    for line in (
        "image: BYTES [batch]",
        "pixels: FP32 [batch, 3, 6, 6]",
        "scores: FP32 [batch, 2]",
        "labels: BYTES [batch, 2]",
    ):
        assert line in shown
    kernels = program("inspect", str(image_bundle(tmp_path / "native", kernels={"aarch64": b""})))
    assert re.search(r"kernels +aarch64", kernels.stdout)


def test_diff_names_what_changed(program: Program, tmp_path: Path) -> None:
    """Each leaf of the manifest that differs is named with both values, digests in full."""
    files = json.loads((OTHER / "headrace.json").read_bytes())["files"]
    ended = program("diff", str(GOOD), str(OTHER))
    assert "files.model/fp32/model.onnx.sha256" in ended.stdout
    assert files["model/fp32/model.onnx"]["sha256"] in ended.stdout
    document = _document(program("diff", str(GOOD), str(OTHER), "--json"))
    assert not document["same"]
    assert list(document["changes"]) == ["files.model/fp32/model.onnx.sha256"]
    copy = shutil.copytree(GOOD, tmp_path / "copy.bundle")
    same = program("diff", str(GOOD), str(copy))
    assert same.returncode == 0
    assert DIGEST in same.stdout


def test_doctor_describes_this_machine(program: Program, tmp_path: Path) -> None:
    """Fingerprint, providers and extras are shown, and where the state lies."""
    document = _document(program("doctor", "--json"))
    assert document["fingerprint"].startswith(document["hardware"]["architecture"])
    assert "CPUExecutionProvider" in document["providers"]
    assert document["extras"]["cpu"] is True
    assert document["home"] == str(tmp_path / "home")
    assert document["fingerprint"] in program("doctor").stdout


def test_doctor_makes_no_home(program: Program, tmp_path: Path) -> None:
    """Looking leaves no trace."""
    assert program("doctor").returncode == 0
    assert program("status").returncode == 1
    assert not (tmp_path / "home").exists()


def test_empty_home_is_the_usual_one(tmp_path: Path) -> None:
    """An empty HEADRACE_HOME does not put the state into the working directory."""
    ended = subprocess.run(
        [HEADRACE, "doctor", "--json"],
        env={**os.environ, "HEADRACE_HOME": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert _document(ended)["home"] == str(tmp_path / ".headrace")


def test_predict_answers(program: Program, row: Path) -> None:
    """A bundle answers an array, as a table and as one document."""
    document = _document(program("predict", str(GOOD), "--input", f"x={row}", "--json"))
    assert document["outputs"] == {"y": [[4.0, 4.75, 5.5, 6.25]]}
    assert set(document["seconds"]) == {"preprocess", "session", "postprocess"}
    shown = program("predict", str(GOOD), "--input", f"x={row}").stdout
    assert "[[4.0, 4.75, 5.5, 6.25]]" in shown
    assert " ms" in shown


def test_predict_reads_numbers_of_any_byte_order(program: Program, tmp_path: Path) -> None:
    """An array of big-endian numbers gives the answer of the numbers that it holds."""
    np.save(tmp_path / "big.npy", np.array([[1.0, 2.0, 3.0]], ">f4"))
    ended = program("predict", str(GOOD), "--input", f"x={tmp_path / 'big.npy'}", "--json")
    assert _document(ended)["outputs"] == {"y": [[4.0, 4.75, 5.5, 6.25]]}


def test_predict_ranks_images(program: Program, tmp_path: Path) -> None:
    """Encoded images are rows, and a ranking is one table a row, with its labels."""
    bundle = str(image_bundle(tmp_path))
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    inputs = [part for n in range(2) for part in ("--input", f"image={tmp_path / f'{n}.png'}")]
    document = _document(program("predict", bundle, *inputs, "--json"))
    assert np.shape(document["outputs"]["labels"]) == (2, 2)
    assert {label for row in document["outputs"]["labels"] for label in row} <= set(LABELS)
    shown = program("predict", bundle, *inputs).stdout
    assert "row 0" in shown
    assert "row 1" in shown
    assert document["outputs"]["labels"][0][0] in shown


def test_predict_says_infinity_in_json(program: Program, tmp_path: Path) -> None:
    """Numbers that JSON does not have are told as text, so that the document stays JSON."""
    np.save(tmp_path / "x.npy", np.array([[np.inf, 0, 0]], np.float32))
    ended = program("predict", str(GOOD), "--input", f"x={tmp_path / 'x.npy'}", "--json")
    assert "NaN" not in ended.stdout
    assert _document(ended)["outputs"] == {"y": [["nan", "inf", "inf", "inf"]]}


def test_hostile_text_does_not_steer_the_terminal(program: Program, tmp_path: Path) -> None:
    """Control characters from a bundle are shown as escapes, in tables and in errors."""
    bundle = linear_bundle(tmp_path, description="\x1b]0;owned\x07\x9b31m\u202e end")
    shown = program("inspect", str(bundle)).stdout
    assert r"\x1b]0;owned\x07\x9b31m\u202e end" in shown
    manifest = bundle / "headrace.json"
    manifest.write_text(manifest.read_text().replace('"description"', r'"\u001b[31m"'))
    ended = program("inspect", str(bundle))
    assert ended.returncode == 1
    assert "\x1b" not in ended.stdout + ended.stderr


def test_file_names_that_are_no_text_can_be_told(program: Program, tmp_path: Path) -> None:
    """A bundle with a file whose name is not UTF-8 is refused like any other."""
    copy = Path(shutil.copytree(GOOD, tmp_path / "copy.bundle"))
    (copy / os.fsdecode(b"\xff")).touch()
    ended = program("verify", str(copy), "--json")
    assert ended.returncode == 1
    assert _document(ended)["error"]["code"] == "bundle.extra"
    assert program("verify", str(copy)).returncode == 1


def test_output_survives_an_ascii_terminal(tmp_path: Path) -> None:
    """The one document can be written where only ASCII can."""
    bundle = image_bundle(tmp_path)
    ended = subprocess.run(
        [HEADRACE, "inspect", bundle, "--json"],
        env={**environment(tmp_path), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(ended.stdout)["manifest"]["postprocessing"]["labels"] == list(LABELS)


def test_what_the_system_refuses_is_told(program: Program, tmp_path: Path) -> None:
    """An error of the system is one sentence with the file's name, and ends with 3."""
    home = tmp_path / "home"
    home.write_text("a file, and no directory")
    ended = program("serve", str(GOOD), "--edge", "--port", str(free_port()), "--json")
    assert ended.returncode == 3
    error = _document(ended)["error"]
    assert error["code"] == "system.refused"
    assert str(home) in error["message"]


def test_interrupt_ends_with_130(tmp_path: Path, row: Path) -> None:
    """Ctrl-C ends a command with the status that shells expect, and without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v2/models/linear"
        process = subprocess.Popen(
            [HEADRACE, "predict", url, "--input", f"x={row}"],
            env=environment(tmp_path),
            stderr=subprocess.PIPE,
            text=True,
        )
        asked, _ = deaf.accept()
        with asked:
            asked.recv(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_service_is_asked_shown_and_stopped(program: Program, tmp_path: Path, row: Path) -> None:
    """A running service answers `predict`, is shown by `status`, and is ended by `stop`."""
    with serving(tmp_path / "home", str(GOOD), "--edge") as service:
        url = f"{service.url}/v2/models/linear"
        answer = _document(program("predict", url, "--input", f"x={row}", "--json"))
        assert answer["outputs"] == {"y": [[4.0, 4.75, 5.5, 6.25]]}
        wrong = program("predict", f"{service.url}/v2/models/other", "--input", f"x={row}")
        assert wrong.returncode == 2
        assert "no model 'other'" in wrong.stderr
        (shown,) = _document(program("status", "--json"))["services"]
        assert (shown["id"], shown["state"]) == (service.announced["id"], "ready")
        assert service.announced["id"] in program("status").stdout
        again = program(
            "serve", str(GOOD), "--edge", "--port", str(service.announced["http_port"]), "--json"
        )
        assert again.returncode == 3
        assert _document(again)["error"]["code"] == "port.in-use"
        assert program("stop", "0" * 12).returncode == 1
        stopped = program("stop", "--json")
        assert stopped.returncode == 0
        assert _document(stopped) == {"stopped": [service.announced["id"]], "reclaimed": []}
        assert service.process.wait(30) == 0
        assert service.leftovers() == []
    assert program("status").returncode == 1
