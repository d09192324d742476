"""The site builds without a warning, with every page and comment, and a browser finds nothing wrong with it.

Minutes and an environment of its own, so only on demand: MILR_SLOW=1 python -m pytest tests/test_docs.py
"""

import os, re, subprocess
import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("MILR_SLOW"), reason="takes minutes; set MILR_SLOW=1 to run it")

FIRST_NAMES = ["MutualInformationLR", "LayerProbe", "AutoPolicy", "mutual_information"]


def test_site(root):
    done = subprocess.run(["make", "docs"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, (
        done.stdout[-3000:] + done.stderr[-3000:]
    )
    site = root / "_docs"
    made, books = (
        {
            p.relative_to(folder).with_suffix("")
            for p in folder.rglob(f"[0-9]*{ending}")
            if ".ipynb_checkpoints" not in p.parts
        }
        for folder, ending in ((site / "nbs", ".html"), (root / "nbs", ".ipynb"))
    )
    assert made == books and len(books) >= 20
    first = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert "size of the subset (the paper" in first and "MI in bits by layer" in first
    assert re.findall(r'<h2 id="milr\.\w+\.(\w+)"', first) == FIRST_NAMES
    home = (site / "index.html").read_text(encoding="utf-8")
    assert re.search(r'href="(api/[^"]+)"', home)[1] == "api/index.html", "the API begins with another page"
    modules = [
        (site / "api" / f"{module}.html").read_text(encoding="utf-8") for module in ("scheduler", "probe", "auto", "mi")
    ]
    assert not any(re.search(r'<h2 id="milr\.\w+\.(' + "|".join(FIRST_NAMES) + ')"', page) for page in modules)
    assert done.stdout.splitlines()[-1].endswith(" 0 problems") or "no browser here" in done.stdout
