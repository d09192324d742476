"The annotations hold within the package, and for a program that uses it strictly. A minute without mypy's cache, so only on demand: MILR_SLOW=1 python -m pytest tests/test_typing.py"
import os, subprocess, sys
import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("MILR_SLOW"), reason="takes a minute; set MILR_SLOW=1 to run it")

def test_mypy(root):
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", "mypy", "-p", "milr", "-m", "tests.typed_user"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
