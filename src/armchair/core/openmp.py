"""How long the threads of torch wait at full speed for more work, on Linux.

GNU's OpenMP has them spin for some milliseconds after each operation that they shared, on the
processors that threads of our own want (see core/jit.py): compiled loops in a training step take
half as long again. It reads its settings when torch is imported.

    wait_briefly()
    import torch
"""

from __future__ import annotations

import os

_SPINS = "1000"  # some tens of microseconds, by default 300,000; shorter costs small operations


def wait_briefly() -> None:
    """Have torch's threads give their processors up soon. Nothing changes what is set already."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
