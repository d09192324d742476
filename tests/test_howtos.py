"The code in the how-tos runs as it stands."

import re, subprocess, sys
from pathlib import Path
import pytest

HOWTOS = [
    p for p in sorted((Path(__file__).parent.parent / "docs" / "howto").glob("*.md")) if "```python" in p.read_text()
]

# What a page prints, where running through is not enough.
SAID = {"tracking": r"MLflow has \[\d\.\d+(, \d\.\d+){3}\] bits\n(.|\n)*W&B has \d\.\d+ bits at the end"}


@pytest.mark.parametrize("page", HOWTOS, ids=lambda p: p.stem)
def test_code_runs(page, tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(SAID.get(page.stem, ""), done.stdout), done.stdout[-3000:]
