"""How a contestant is run: a process that does one task, for each line that it is sent.

    python ours.py sample A 8 bf16

It prints a line of JSON once it is warm. A line that it is sent has the least seconds of a turn:
the work is done once, or as often as fills them, and a line of JSON printed with the seconds that
it took, the units of work that were done, and the peak of its memory. Imported by every
environment.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[], int]
"""Does the work once and says how many units it was: tokens, or pictures."""


def serve(build: Callable[[str, str, int, str], tuple[Run, dict[str, Any]]]) -> None:
    """Build what the command line names and run it as often as asked.

    Args:
        build: From task, shape, batch and variant to the work and what is to be said of it.
    """
    task, shape, batch, variant = sys.argv[1:5]
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints is no answer
    run, about = build(task, shape, int(batch), variant)
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        started, units = time.perf_counter(), run()
        while (seconds := time.perf_counter() - started) < float(line):
            units += run()
        answer = {"seconds": seconds, "units": units, "peak_bytes": peak_bytes()}
        print(json.dumps(answer), file=answers, flush=True)


def peak_bytes() -> int:
    """Of this process; `getrusage` would count what it was started from as well."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0
