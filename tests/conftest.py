"Shared by all tests. Two workers of one thread each use two cores better than torch's threads would."
import os
os.environ.setdefault("OMP_NUM_THREADS", "1")
from pathlib import Path
import pytest

@pytest.fixture(scope="session")
def root():
    "The project's root."
    return Path(__file__).parent.parent
