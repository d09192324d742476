"The annotations hold within the package, and for a program that uses it strictly."

import subprocess, sys


def test_mypy(root):
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "-p", "milr", "-m", "tests.typed_user"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
