"Shared by all tests. Two workers of one thread each use two cores better than torch's threads would."

import json, os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process a test starts compiles torch anew
from pathlib import Path
import pytest


@pytest.fixture(scope="session")
def root():
    "The project's root."
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def tried():
    "Note a fault, how often it was tried and what came of it, in the file that MILR_FAULTS names (`make faults`)."

    def note(fault, times, outcome):
        if path := os.environ.get("MILR_FAULTS"):
            with open(path, "a", encoding="utf-8") as f:
                f.write(json.dumps(dict(fault=fault, times=times, outcome=outcome), ensure_ascii=False) + "\n")

    return note
