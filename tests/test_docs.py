"The site builds without a warning, with every page and comment. Minutes and an environment of its own, so only on demand: MILR_SLOW=1 python -m pytest tests/test_docs.py"
import os, subprocess
import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("MILR_SLOW"), reason="takes minutes; set MILR_SLOW=1 to run it")

def test_site(root):
    done = subprocess.run(["make", "docs"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stdout[-3000:] + done.stderr[-3000:]
    site = root/"_docs"
    made, books = ({p.relative_to(folder).with_suffix("") for p in folder.rglob(f"[0-9]*{ending}") if ".ipynb_checkpoints" not in p.parts}
                   for folder, ending in ((site/"nbs", ".html"), (root/"nbs", ".ipynb")))
    assert made == books and len(books) >= 20
    page = (site/"api"/"probe.html").read_text(encoding="utf-8")
    assert "size of the subset (the paper" in page and "MI in bits by layer" in page
