"""A contestant's process: `python -m headrace_bench.worker`. Standard library only.

The first line on standard input names what to measure; each further one asks for a block:

    {"factory": "package.module:function", "arguments": {...}}
    {"seconds": 0.5, "load": 1}
    {"facts": true}

Each is answered by one line on what was standard output; whatever the contestant itself prints goes
to standard error. The end of the input ends the process.
"""

import json
import os
import sys
from importlib import import_module
from typing import TextIO

from headrace_bench.measure import Workload


def main() -> None:
    """Makes the workload and answers until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    module, _, name = asked["factory"].partition(":")
    workload: Workload = getattr(import_module(module), name)(**asked["arguments"])
    try:
        answers.write('{"ready": true}\n')
        serve(workload, sys.stdin, answers)
    finally:
        workload.close()


def serve(workload: Workload, questions: TextIO, answers: TextIO) -> None:
    """Answers each question with one line."""
    for line in questions:
        question = json.loads(line)
        if "facts" in question:
            answers.write(json.dumps(workload.facts()) + "\n")
        else:
            answers.write(workload.block(question["seconds"], question["load"]).to_json() + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
