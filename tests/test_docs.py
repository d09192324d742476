"The site builds without a warning, with every page and comment. Minutes and an environment of its own, so only on demand: MILR_SLOW=1 python -m pytest tests/test_docs.py"
import os, subprocess
import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("MILR_SLOW"), reason="takes minutes; set MILR_SLOW=1 to run it")

def test_site(root):
    done = subprocess.run(["make", "docs"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stdout[-3000:] + done.stderr[-3000:]
    site = root/"_docs"
    assert {p.stem for p in (root/"nbs").glob("[0-9]*.ipynb")} == {p.stem for p in (site/"nbs").glob("[0-9]*.html")}
    page = (site/"api"/"probe.html").read_text(encoding="utf-8")
    assert "size of the subset (the paper" in page and "MI in bits by layer" in page
