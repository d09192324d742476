"Shared by all tests."
from pathlib import Path
import pytest

@pytest.fixture(scope="session")
def root():
    "The project's root."
    return Path(__file__).parent.parent
