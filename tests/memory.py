"""How much memory a call takes at its highest.

`ru_maxrss` cannot tell: it begins at the peak of the parent process, and compiling or importing leaves a peak that
hides a later one.
"""

import sys
from pathlib import Path
import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")


def _kib(name):
    return next(
        int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name + ":")
    )


def peak(call):
    "MiB beyond what the process held before, on Linux."
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak
    before = _kib("VmRSS")
    call()
    return (_kib("VmHWM") - before) / 1024
