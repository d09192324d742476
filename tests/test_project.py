"The notebooks are the source: export is in sync, notebooks are clean and run, modules import alone."

import os, re, shutil, subprocess, sys
from pathlib import Path
import papermill, pytest
from milr.lab.cli import execute_notebook
from tests.notebooks import cells_of, outcome

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "milr").rglob("*.py")
    if p.stem not in ("_modidx", "__main__")
)
BOOKS = sorted(
    p.relative_to(ROOT / "nbs") for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
NOTEBOOKS = [p.as_posix() for p in BOOKS if p.parts[0] not in ("figures", "studies")]
FIGURES = (
    [p.with_suffix("").as_posix() for p in BOOKS if p.parts[0] == "figures"]
    + ["studies/sensitivity"]
    + ["studies/information_plane"] * bool(os.environ.get("MILR_SLOW"))
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "The notebooks in a copy of the project, exported and cleaned there."
    to = tmp_path_factory.mktemp("copy")
    for name in ("settings.ini", "pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, to)
    for name in ("nbs", "milr"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([BIN / command], cwd=to, check=True)
    return to


@pytest.mark.parametrize("book", [b for b in BOOKS if b.parts[0] in ("figures", "studies")], ids=str)
def test_papermill_knows_every_parameter_and_none_is_overridden(book, caplog):
    "A cell that papermill once injected would win over what a reader sets by hand."
    cells = cells_of(ROOT / "nbs" / book)
    tagged = {tag: c for c in cells for tag in c["metadata"].get("tags", ())}
    assert "injected-parameters" not in tagged
    names = re.findall(r"^(\w+) = ", "".join(tagged.get("parameters", dict(source=""))["source"]), re.M)
    assert list(papermill.inspect_notebook(str(ROOT / "nbs" / book))) == names
    assert "Unable to parse" not in caplog.text


def differing(copy, folder, pattern):
    return [
        p.relative_to(ROOT).as_posix()
        for p in sorted((ROOT / folder).rglob(pattern))
        if ".ipynb_checkpoints" not in p.parts and p.read_bytes() != (copy / p.relative_to(ROOT)).read_bytes()
    ]


def test_modules_are_what_the_notebooks_export(copy):
    assert differing(copy, "milr", "*.py") == [], "run `make export` and commit what it writes"


def test_no_notebook_exports_a_file_that_is_missing(copy):
    ours, theirs = ({p.relative_to(folder) for p in (folder / "milr").rglob("*.py")} for folder in (ROOT, copy))
    assert ours == theirs and len(ours) >= 27


def test_nothing_is_left_out():
    "Files that move must not drop out of the tests here without notice."
    assert len(NOTEBOOKS) >= 24 and len(FIGURES) >= 7 and len(MODULES) >= 25
    tracked = subprocess.run(
        ["git", "ls-files", "nbs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {f for f in tracked if f.endswith(".ipynb")} <= {f"nbs/{p.as_posix()}" for p in BOOKS}


def test_notebooks_are_clean(copy):
    assert differing(copy, "nbs", "*.ipynb") == [], "run `make export` and commit what it writes"


def test_readme_is_the_index(tmp_path):
    subprocess.run(["make", "readme", f"README={tmp_path / 'README.md'}", f"BIN={BIN}"], cwd=ROOT, check=True)
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text(), (
        "run `make readme` and commit what it writes"
    )


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links and [l for l in links if not (ROOT / l).exists()] == []


def test_notebooks_are_small_enough_to_read():
    assert [
        p.name for folder in ("nbs", "figures") for p in (ROOT / folder).rglob("*.ipynb") if p.stat().st_size > 300_000
    ] == []


ALONE = """
import os, sys, torch, numba, papermill, matplotlib.pyplot, scipy.stats, sklearn   # what is not ours: once for all
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            __import__(name)
        except BaseException as e:
            print(f"{name}: {e!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(f"cannot be imported alone: {failed}" if failed else 0)
"""


def test_each_module_imports_alone():
    "Each in a process that has imported nothing of milr before."
    r = subprocess.run(
        [sys.executable, "-c", ALONE, *MODULES], capture_output=True, text=True, cwd=os.path.expanduser("~")
    )
    assert r.returncode == 0, r.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebook_runs(notebook, tmp_path):
    "Every cell of a notebook, its tests among them."
    code, said = outcome(ROOT / "nbs" / notebook, tmp_path / "said")
    assert code == 0, said[-3000:]


@pytest.mark.parametrize("figure", FIGURES)
def test_figure_runs_at_smoke(figure, tmp_path, monkeypatch):
    "Papermill runs a figure's notebook; it writes its files and leaves no others."
    name = Path(figure).name
    monkeypatch.setenv("MILR_RUNS", str(tmp_path / "runs"))
    given = dict(preset="smoke", out=str(tmp_path / "files"))
    execute_notebook(ROOT / "nbs" / f"{figure}.ipynb", tmp_path / "out.ipynb", given, tmp_path)
    assert {p.suffix for p in (tmp_path / "files").glob(f"{name}.*")} == {".csv", ".json", ".png", ".svg"}
    assert all(p.name.startswith(name) for p in (tmp_path / "files").iterdir())
    assert (tmp_path / "files" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


TEXT = {".py", ".ipynb", ".md", ".ini", ".toml", ".txt", ".csv", ".json"}


def test_no_file_names_a_local_path():
    "Tracked files name no path of the machine they were written on."
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    local = re.compile(
        r"/(work|root|tmp|home/\w+|Users/\w+)/|"
        + "|".join(map(re.escape, ("registry." + "npmjs", "python" + "hosted")))
    )
    assert [
        f
        for f in files
        if Path(f).suffix in TEXT
        and (ROOT / f).exists()
        and local.search((ROOT / f).read_text(encoding="utf-8"))
        and f != "tests/test_project.py"
    ] == []
