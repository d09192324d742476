"The first page: short, its code runs with the core alone, its links lead somewhere, on a package index too."
import os, re, subprocess, sys
from distutils.core import run_setup
from pathlib import Path
from tests.test_structure import WITHOUT_THE_LAB, lab_requirements

ROOT = Path(__file__).parent.parent
README = (ROOT/"README.md").read_text(encoding="utf-8")

def words(text):
    "Words that a reader reads: no code, no addresses of links."
    text = re.sub(r"```.*?```|^    .*?$", "", text, flags=re.S | re.M)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return len(re.findall(r"[A-Za-z][\w'’-]*", text))

def test_it_is_short():
    assert 300 < words(README) <= 900

def test_its_code_runs_as_pasted_without_the_laboratory(tmp_path):
    "Measure, then steer, in one process in which what the extra `lab` brings cannot be imported."
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.S))
    lab, core = lab_requirements()
    absent = f"ABSENT = {(lab - core) | {'sklearn'}!r}\n"
    done = subprocess.run([sys.executable, "-c", absent + WITHOUT_THE_LAB + code], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONWARNINGS": "error::UserWarning"})
    assert done.returncode == 0, done.stderr[-3000:]
    bits = [float(b) for b in re.findall(r"I\(H;Y\) ([\d.]+) bits", done.stdout)]
    assert len(bits) == 8 and bits[-1] > bits[0] > 0, done.stdout

def test_the_output_that_it_shows_is_of_its_code():
    "As many lines, of the same form."
    shown = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    assert sum(line.startswith("epoch ") for line in shown) == 8
    assert any(line.startswith("inputs: ") for line in shown)

def test_links_hold_on_a_package_index(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = run_setup("setup.py", stop_after="init").metadata.long_description
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 20 and [link for link in links if not link.startswith(("https://", "#"))] == []
    ours = [link.split("/main/")[1].split("#")[0] for link in links if "/milr/milr/" in link]
    assert [path for path in ours if not (ROOT/path).exists()] == []
    picture = re.search(r"!\[[^]]*\]\(([^)]+)\)", text)[1]
    assert "/raw/" in picture and (ROOT/picture.split("/main/")[1]).stat().st_size < 150_000
