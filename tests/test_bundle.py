"The folder of `make bundle` installs and runs with no index. Some 400 MB and minutes, so only on demand: MILR_SLOW=1 python -m pytest tests/test_bundle.py"
import os, subprocess, sys
import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("MILR_SLOW"), reason="takes minutes and gigabytes where the index's torch is the CUDA build; set MILR_SLOW=1 to run it")

def test_installs_and_runs_without_an_index(root, tmp_path):
    folder = tmp_path/"bundle"
    subprocess.run(["make", "bundle", f"BUNDLE={folder}"], cwd=root, check=True)
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "PYTHON": sys.executable}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MILR_", "PIP_", "PYTHONPATH"))} | nowhere
    def milr(*a): return subprocess.run([folder/"milr.sh", *a], env=env, check=True, capture_output=True, text=True).stdout
    assert "60,000 training" in milr("data", "mnist")
    made = milr("figure", "fig3", "--preset", "smoke").strip()
    assert made.startswith(str(folder/"project")) and os.path.exists(made)
