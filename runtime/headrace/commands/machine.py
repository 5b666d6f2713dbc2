"""`doctor`: what this machine is, what is installed on it, what is missing or in conflict."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import typer

from headrace.commands.screen import AsJson, print_json, print_table
from headrace.engine.session import load_onnxruntime
from headrace.errors import CheckError, MissingError
from headrace.hardware import detect_hardware, installed_version
from headrace.settings import Settings

# One module that only this extra brings; `cpu` and `gpu` bring the same one.
EXTRAS = {
    "cpu": "onnxruntime",
    "grpc": "tritonclient",
    "serve": "ray",
    "openvino": "openvino",
    "text": "tokenizers",
    "cuda-kernels": "numba_cuda",
    "compiler": "torch",
}


def register(app: typer.Typer) -> None:
    """Adds this command to the program."""
    app.command("doctor")(doctor)


def doctor(*, as_json: AsJson = False) -> None:
    """Describe this machine: fingerprint, engines and providers, extras, conflicts."""
    hardware = detect_hardware()
    extras = {extra: find_spec(module) is not None for extra, module in EXTRAS.items()}
    providers = load_onnxruntime().get_available_providers() if extras["cpu"] else []
    home = Settings().home
    conflicts = find_conflicts()
    if as_json:
        print_json(
            {
                "fingerprint": hardware.fingerprint,
                "hardware": hardware.model_dump(mode="json"),
                "providers": providers,
                "extras": extras,
                "home": str(home),
                "conflicts": conflicts,
            }
        )
        # The document says what is wrong; an error would print a second one.
        raise typer.Exit(1 if conflicts else 0 if extras["cpu"] else 3)
    print_table(
        f"this machine: {hardware.fingerprint}",
        ("", ""),
        [
            ("headrace", installed_version("headrace")),
            ("processor", f"{hardware.processor}, {hardware.cores} cores for this process"),
            ("instruction sets", " ".join(hardware.instruction_sets) or "none known"),
            ("memory", f"{hardware.memory_mib} MiB"),
            ("engines", ", ".join(f"{k} {v}" for k, v in hardware.engines.items()) or "none"),
            ("providers", ", ".join(providers) or "none"),
            ("state", f"{home}, {shutil.disk_usage(_existing(home)).free / 1e9:.0f} GB free"),
        ],
    )
    rows = [
        (extra, "installed" if there else f"missing: pip install 'headrace[{extra}]'")
        for extra, there in extras.items()
    ]
    print_table("extras", ("extra", ""), rows)
    for conflict in conflicts:
        print_table("conflict", ("",), [(conflict,)])
    if conflicts:
        raise CheckError("doctor.conflict", conflicts[0])
    if not extras["cpu"]:
        raise MissingError("extra.engine", "no engine is installed", "pip install 'headrace[cpu]'")


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def find_conflicts() -> list[str]:
    """What is installed together and must not be, a sentence each."""
    conflicts = []
    if installed_version("onnxruntime") and installed_version("onnxruntime-gpu"):
        conflicts.append(
            "onnxruntime and onnxruntime-gpu are both installed and hold the same module:"
            " uninstall both, then install exactly one"
        )
    return conflicts
