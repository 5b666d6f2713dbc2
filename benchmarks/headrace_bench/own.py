"""headrace itself as a contestant: what its runtime does, in the process of a suite."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headrace.bundle.open import open_bundle
from headrace.choice import choose_variant
from headrace.engine.model import load_model
from headrace.hardware import detect_hardware
from headrace.tensors import Array
from headrace_bench.measure import Workload
from headrace_bench.peers import model_workload


def open_bundle_session(
    *, bundle: str, inputs: str, expected: str, rows: int, threads: int, tolerance: float
) -> Workload:
    """The session of a bundle, loaded as the runtime loads it: verified, warmed and replayed."""

    def load(feeds: Mapping[str, Array], names: Sequence[str]) -> Callable[[], Sequence[Array]]:
        opened = open_bundle(Path(bundle))
        chosen = choose_variant(opened, detect_hardware(), threads=threads, batch=rows)
        model = load_model(opened, variant=chosen.variant, threads=threads)
        model.session.expect(feeds)  # as a batcher does for the sizes that it makes

        def run() -> Sequence[Array]:
            outputs = model.session.run(feeds)
            return [outputs[name] for name in names]

        return run

    return model_workload(load, inputs=inputs, expected=expected, rows=rows, tolerance=tolerance)
