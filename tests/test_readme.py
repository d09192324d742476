"The first page: short, its code runs with the core alone, its links lead somewhere, on a package index too."

import os, re, subprocess, sys
from distutils.core import run_setup
from pathlib import Path
from types import SimpleNamespace
from matplotlib.text import Text
from milr.lab.answers import FIRST_LOOK, plot_first_look
from tests.notebooks import github_anchors
from tests.test_structure import WITHOUT_THE_LAB, lab_requirements

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


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
    done = subprocess.run(
        [sys.executable, "-c", absent + WITHOUT_THE_LAB + code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error::UserWarning"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    bits = [float(b) for b in re.findall(r"I\(H;Y\) ([\d.]+) bits", done.stdout)]
    before, after = map(float, re.search(r"from (-?[\d.]+) to ([\d.]+) bits", done.stdout).groups())
    assert len(bits) == 8 and min(bits) > 0.9 * after > before, done.stdout


def test_the_output_that_it_shows_is_of_its_code():
    "As many lines, of the same form."
    shown = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    assert sum(line.startswith("epoch ") for line in shown) == 8
    assert any(line.startswith("inputs: ") for line in shown)


def test_links_hold_on_a_package_index(monkeypatch):
    "A page of its own, far from the repository: every link is whole, and what it names in the repository is there."
    monkeypatch.chdir(ROOT)
    text = run_setup("setup.py", stop_after="init").metadata.long_description
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 20 and broken(text) == []
    picture = re.search(r"!\[[^]]*\]\(([^)]+)\)", text)[1]
    assert "/raw/" in picture and (ROOT / picture.split("/main/")[1]).stat().st_size < 150_000


def test_the_picture_is_legible_on_a_phone():
    "Its smallest letters, on a page that is 358 pixels wide within its margins."
    rows = [dict(epoch=0, lr=0.1, accuracy=0.9)] * 2
    run = SimpleNamespace(rows=rows, series=lambda name: [row[name] for row in rows])
    figure = plot_first_look({row: {0: run} for row in FIRST_LOOK})
    figure.canvas.draw()
    page = 358 / (72 * figure.get_figwidth())
    letters = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
    assert len(letters) > 10 and min(letters) * page >= 9


def broken(text):
    "Links of a package's page that lead nowhere: of the repository's files, and of the page's own headings."
    anchors = github_anchors(text)
    wrong = []
    for link in re.findall(r"\]\(([^)]+)\)", text):
        ours = re.fullmatch(r"https://[^/]+/milr/milr/(?:blob|raw)/main/([^#]+)(?:#.*)?", link)
        if ours and not (ROOT / ours[1]).exists() or link.startswith("#") and link[1:] not in anchors:
            wrong.append(link)
        if not link.startswith(("https://", "#")):
            wrong.append(link)
    return wrong


def test_a_broken_link_is_noticed():
    text = "# One\n[a](#one) [b](#two) [c](https://github.com/milr/milr/blob/main/no.md) [d](docs/howto/gpu.md)"
    assert broken(text) == ["#two", "https://github.com/milr/milr/blob/main/no.md", "docs/howto/gpu.md"]


def test_what_contributors_are_told_to_edit_is_there():
    "Files, and what stands in them."
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`((?:nbs|tests|docs|milr)/[\w/]+\.\w+)`", text)) - {"nbs/figures/figN_name.ipynb"}
    assert len(files) > 15 and [file for file in sorted(files) if not (ROOT / file).exists()] == []
    inside = re.findall(r"`(\w+)` (?:of|in) `(nbs/[\w/]+\.ipynb)`", text)
    assert (
        len(inside) >= 3
        and [name for name, file in inside if name not in (ROOT / file).read_text(encoding="utf-8")] == []
    )
    targets = set(re.findall(r"`make ([a-z-]+)", text))
    assert (
        targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
        and len(targets) > 6
    )
