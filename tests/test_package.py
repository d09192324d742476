"""Wheel and sdist install in an empty environment and run the README's example.

Minutes and gigabytes, so only on demand: `MILR_SLOW=1 python -m pytest tests/test_package.py`.
"""

import os, re, subprocess, sys
import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("MILR_SLOW"), reason="takes minutes; set MILR_SLOW=1 to run it")


@pytest.fixture(scope="module")
def dist(root, tmp_path_factory):
    "What `python -m build` makes."
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, root], check=True, capture_output=True)
    return folder


def test_a_package_index_can_show_its_page(dist):
    files = sorted(dist.iterdir())
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True)
    assert len(files) == 2 and done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_installs_and_runs_the_example(root, dist, tmp_path, kind):
    (package,) = dist.glob(kind)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-compile", "--constraint", root / "constraints.txt", package],
        check=True,
    )
    example = "\n".join(re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.S))
    done = subprocess.run([python, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "epoch 7: I(H;Y) " in done.stdout, done.stdout + done.stderr[-3000:]
    files = subprocess.run(
        [
            python,
            "-c",
            "import milr, pathlib; print(milr.__version__, (pathlib.Path(milr.__file__).parent/'py.typed').exists())",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert files.stdout.endswith(" True\n"), files
    command = subprocess.run([tmp_path / "env" / "bin" / "milr", "--help"], capture_output=True, text=True)
    assert command.returncode != 0 and "pip install 'milr[lab]'" in command.stderr
