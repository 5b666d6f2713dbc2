"""Silero VAD as its ONNX file: 32 ms of sound and a state in, how likely a voice and a state out.

    headrace compile examples/voice_activity/recipe.py

A model with a memory: the client keeps the state, and sends it with the next frame. So any replica
can answer any frame. The file lies inside a package of `examples/weights.txt`; the sounds are made
here.
"""

from collections.abc import Iterator
from importlib.metadata import distribution
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
import sound  # type: ignore[import-not-found]  # beside this file, where only a build looks

from headrace.tensors import Array
from headrace_compiler import Recipe, TensorSpec

PACKAGE = distribution("silero-vad")  # pip install --no-deps -r examples/weights.txt
FILE = Path(str(PACKAGE.locate_file("silero_vad/data/silero_vad.onnx")))
CONTEXT = {16_000: 64, 8_000: 32}
"""How much of the last frame comes before the new one, by sampling rate."""
NEW = {16_000: 512, 8_000: 256}
SECONDS = 3.0


def frames(seed: int, rate: int, streams: int) -> Iterator[dict[str, Array]]:
    """The requests of some conversations that go on side by side.

    Each holds the state that the model gave for the one before; the first holds zeros.
    """
    generator = np.random.default_rng(seed)
    heard = np.stack([sound.conversation(generator, SECONDS, rate) for _ in range(streams)])
    heard = np.pad(heard, ((0, 0), (CONTEXT[rate], 0))).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the states' last bits depend on how many there are
    session = onnxruntime.InferenceSession(FILE, options, providers=["CPUExecutionProvider"])
    state = np.zeros((2, streams, 128), np.float32)
    for begin in range(0, heard.shape[1] - CONTEXT[rate] - NEW[rate] + 1, NEW[rate]):
        frame = heard[:, begin : begin + CONTEXT[rate] + NEW[rate]]
        request = {"input": frame, "state": state, "sr": np.array(rate)}
        yield request
        (state,) = session.run(["stateN"], request)


def samples() -> Iterator[dict[str, Array]]:
    """Both sampling rates, one stream and several, with states from the midst of a conversation."""
    for rate, streams in ((16_000, 1), (8_000, 1), (16_000, 3), (8_000, 2)):
        yield from islice(frames(0, rate, streams), 0, 48, 8)


def calibration() -> Iterator[dict[str, Array]]:
    """Frames for the ranges of quantization."""
    for rate in CONTEXT:
        yield from frames(1, rate, 1)


def evaluation() -> Iterator[tuple[dict[str, Array], None]]:
    """Frames for which a variant should give the probability that the fp32 graph gives."""
    for rate in CONTEXT:
        yield from ((frame, None) for frame in frames(2, rate, 1))


recipe = Recipe(
    name="silero-vad",
    version="1",
    description="Tells how likely 32 ms of sound hold a voice; the state goes from frame to frame.",
    model=FILE,
    inputs=(
        # Not `batch`: the state has its streams on the second axis, so requests cannot be joined.
        TensorSpec(name="input", datatype="FP32", shape=("streams", "samples")),
        TensorSpec(name="state", datatype="FP32", shape=(2, "streams", 128)),
        TensorSpec(name="sr", datatype="INT64", shape=()),
    ),
    samples=samples,
    calibration=calibration,
    evaluation=evaluation,
    metric="mean_error",
)
