"""The folders of `make bundle` install and run with no index.

Hundreds of megabytes and minutes, so only on demand: MILR_SLOW=1 python -m pytest tests/test_bundle.py"""

import os, subprocess, sys
import pytest
from bundle import THERE, carried

slow = pytest.mark.skipif(
    not os.environ.get("MILR_SLOW"),
    reason="takes minutes and gigabytes where the index's torch is the CUDA build; set MILR_SLOW=1 to run it",
)


def offline(python):
    "An environment that reaches no index."
    nowhere = {name: "http://127.0.0.1:9" for name in ("PIP_INDEX_URL", "http_proxy", "https_proxy")}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MILR_", "PIP_", "PYTHONPATH"))}
    return kept | nowhere | {"PYTHON": str(python)}


def command(folder, python):
    "`milr.sh` of a bundle: (arguments) -> what it says."

    def milr(*a):
        return subprocess.run(
            [folder / "milr.sh", *a], env=offline(python), check=True, capture_output=True, text=True
        ).stdout

    return milr


def test_the_smallest_leaves_out_what_comes_with_torch():
    "What only those need stays behind too; the other machine's Python decides on what is asked for there."
    names = carried(["milr[lab]", "pytest"], "3.11")
    assert {"papermill", "ipykernel", "pyzmq", "pytest", "psutil"} <= set(names)
    assert not {*THERE, "milr", "llvmlite", "sympy", "joblib", "fonttools"} & set(names)
    assert set(carried(["papermill"], "3.12.3")) - set(carried(["papermill"], "3.11")) >= {"aiohttp", "yarl"}


@slow
def test_installs_and_runs_without_an_index(root, tmp_path):
    folder = tmp_path / "bundle"
    subprocess.run(["make", "bundle", f"BUNDLE={folder}"], cwd=root, check=True)
    milr = command(folder, sys.executable)
    assert "60,000 training" in milr("data", "mnist")
    made = milr("figure", "fig3", "--preset", "smoke").strip()
    assert made.startswith(str(folder / "project")) and os.path.exists(made)
    assert milr("gpu", "--device", "cpu", "--preset", "smoke", "--part", "values") == "values: done\n"


@slow
def test_the_smallest_runs_where_torch_is(root, tmp_path):
    "In an environment with `THERE` and no more; 64 MiB in all."
    folder, there = tmp_path / "bundle", tmp_path / "there"
    subprocess.run(["make", "bundle", "SMALL=1", f"BUNDLE={folder}"], cwd=root, check=True)
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 64 * 2**20
    subprocess.run([sys.executable, "-m", "venv", there], check=True)
    install = [
        there / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--constraint",
        root / "constraints.txt",
        *THERE,
    ]
    subprocess.run(install, check=True)
    milr = command(folder, there / "bin" / "python")
    assert "60,000 training" in milr("data", "mnist")
    said = milr("gpu", "--device", "cpu", "--preset", "smoke", "--part", "fig3")
    assert said == "fig3: done\n" and (folder / "project" / "figures" / "smoke" / "gpu" / "fig3_mnist.png").exists()
    checks = [there / "bin" / "python", "-m", "pytest", "-q", "-o", "addopts=", "tests/test_cuda.py"]
    subprocess.run(
        checks, cwd=folder / "project", env=offline(sys.executable) | {"PYTHONPATH": str(folder / "site")}, check=True
    )
