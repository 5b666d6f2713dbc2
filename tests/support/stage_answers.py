"""What the stages of bundles make of their golden cases; a program too, for other processors.

    python stage_answers.py FOLDER ANSWERS

It needs the runtime alone.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from headrace.bundle.golden import decode_cases
from headrace.bundle.manifest import GOLDEN
from headrace.bundle.open import Bundle, open_bundle
from headrace.engine.stages import Stage, Stages, open_stages
from headrace.errors import HeadraceError
from headrace.hardware import detect_hardware
from headrace.preprocess.spec import raw_row
from headrace.tensors import Array


def stage_answers(bundle: Bundle, stages: Stages) -> dict[str, Array]:
    """What becomes of a bundle's golden cases, by `NAME/STAGE/CASE/TENSOR`.

    Raw rows are prepared one by one, and then all of them in one batch. What is refused leaves its
    sentence, as the bytes of a tensor.
    """
    cases = decode_cases(bundle.read_content(GOLDEN))
    rows = [raw_row(case.raw) for case in cases if case.raw]
    batch = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    outputs = [case.outputs for case in cases if case.outputs]
    return {
        f"{bundle.manifest.name}/{name}/{number}/{tensor}": array
        for name, stage, given in (
            ("prepare", stages.prepare, (*rows, batch)),
            ("finish", stages.finish, outputs),
        )
        if stage is not None
        for number, each in enumerate(given)
        for tensor, array in _outcome(stage, each).items()
    }


def _outcome(stage: Stage, given: Mapping[str, Array]) -> Mapping[str, Array]:
    try:
        return stage.run(given)
    except HeadraceError as error:
        sentence = f"{error.code}: {error.message}"
        return {"refused": np.frombuffer(sentence.encode(), np.uint8)}


def main() -> None:
    """Answers with the libraries of this processor, and says its architecture."""
    answers: dict[str, Array] = {}
    for path in Path(sys.argv[1]).iterdir():
        bundle = open_bundle(path)
        answers |= stage_answers(bundle, open_stages(bundle, threads=2))
    save_file(answers, sys.argv[2])
    sys.stdout.write(detect_hardware().architecture)


if __name__ == "__main__":
    main()
