"One statement a line, lines of at most 120 columns, bodies below their headers: what is not there yet may not grow."

import ast, json, re, subprocess, sys, tomllib
from collections import Counter
from functools import lru_cache
from pathlib import Path
import pytest
from tests.notebooks import cells_of, github_anchors, headings, said_in

ROOT = Path(__file__).parent.parent
RULES = "E501,E702"
BLOCKS = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.If,
    ast.For,
    ast.While,
    ast.With,
    ast.Try,
    ast.ExceptHandler,
)
# These may stand behind a header's colon; ruff's E701 knows no exceptions.
SHORT = (ast.Raise, ast.Return, ast.Continue, ast.Break, ast.Pass)
# Modules that are still dense: how many findings are left. Lower a number when you mend some, delete the line with the
# last one.
OPEN = {
    "milr/lab/heldout.py": 1,
}


def bodies_on_headers(text):
    "Lines of blocks whose body stands on the header's line, although it is more than one short statement."
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, BLOCKS):
            continue
        header = [
            n
            for part in ast.iter_child_nodes(node)
            if not isinstance(part, (ast.stmt, ast.ExceptHandler))
            for n in ast.walk(part)
        ]
        header_end = max(node.lineno, *(getattr(n, "end_lineno", 0) for n in header)) if header else node.lineno
        beside = [s for s in node.body if s.lineno <= header_end]
        if beside and not (len(beside) == 1 and isinstance(beside[0], SHORT)):
            found.append(node.lineno)
    return found


def ruff(*arguments):
    return subprocess.run([sys.executable, "-m", "ruff", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def left():
    "{module: findings}, of the notebooks' exported cells, which are the modules."
    found = Counter()
    options = ("--isolated", "--line-length", "120", "--exclude", "_modidx.py")
    for finding in json.loads(ruff("check", "milr", "--select", RULES, "--output-format", "json", *options).stdout):
        found[Path(finding["filename"]).relative_to(ROOT).as_posix()] += 1
    for path in (ROOT / "milr").rglob("*.py"):
        found[path.relative_to(ROOT).as_posix()] += len(bodies_on_headers(path.read_text(encoding="utf-8")))
    return +found


@pytest.mark.parametrize("folder", ["milr", "tests"])
def test_ruff_finds_nothing(folder):
    done = ruff("check", folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_tests_are_formatted():
    done = ruff("format", "--check", "tests")
    assert done.returncode == 0, done.stdout + done.stderr + "`ruff format tests` does it"


def test_density_does_not_grow(left):
    grown = {module: f"{n}, were {OPEN.get(module, 0)}" for module, n in left.items() if n > OPEN.get(module, 0)}
    assert grown == {}, (
        "bodies on header lines, two statements a line, or lines over 120 columns (`house style` in CONTRIBUTING.md)"
    )


def test_what_is_mended_leaves_the_list(left):
    assert set(OPEN) <= set(left), "delete these from OPEN here, and from pyproject.toml"


def test_ruff_overlooks_only_what_is_on_the_list():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert set(settings["lint"]["per-file-ignores"]) <= set(OPEN)
    assert set(settings["lint"]["select"]) >= set(RULES.split(",")) and settings["line-length"] == 120


@pytest.mark.parametrize(
    "text, lines",
    [
        ("if a: b = 1", [1]),
        ("if a: return", []),
        ("if a:\n    b = 1", []),
        ("with a: raise b", []),
        ("try: a()\nexcept E: b()", [1, 2]),
        ("try:\n    a()\nexcept E: return", []),
        ("def f(a,\n  b): a = b", [1]),
        ("class A: pass", []),
    ],
)
def test_what_a_body_on_its_header_is(text, lines):
    assert bodies_on_headers(text) == lines


def lines_of(notebook):
    "(cell's id, line) of what is code, without the parameters, whose comments papermill reads from the same line."
    for cell in cells_of(notebook):
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", []):
            yield from ((cell["id"], line) for line in "".join(cell["source"]).splitlines())


def test_notebooks_fit_the_page_too():
    "Their examples and checks are read more often than the modules."
    long = [
        f"{notebook.relative_to(ROOT)} {cell}: {line}"
        for notebook in sorted((ROOT / "nbs").rglob("*.ipynb"))
        for cell, line in lines_of(notebook)
        if len(line) > 120
    ]
    assert long == [], "lines over 120 columns (`house style` in CONTRIBUTING.md)"
    done = ruff("check", "nbs", "--isolated", "--select", "E702")
    assert done.returncode == 0, done.stdout + done.stderr


def markdown_of(page):
    "The text of a notebook's Markdown cells, or of a Markdown file."
    return said_in(page) if page.suffix == ".ipynb" else page.read_text(encoding="utf-8")


@lru_cache
def anchors(page):
    "What links may call the sections of a page: JupyterLab's names of a notebook's, GitHub's of a Markdown file's."
    if page.suffix != ".ipynb":
        return github_anchors(markdown_of(page))
    return {title.replace(" ", "-") for title in headings(markdown_of(page))}


def links_to_sections():
    "(page, link to a section) of README, how-tos and notebooks."
    for page in [ROOT / "README.md", *(ROOT / "docs" / "howto").glob("*.md"), *(ROOT / "nbs").rglob("*.ipynb")]:
        if ".ipynb_checkpoints" in page.parts:
            continue
        yield from ((page, link) for link in re.findall(r"\]\(([^)\s:]*#[^)\s]+)\)", markdown_of(page)))


def test_a_link_to_a_section_names_one():
    "In plain letters, as the site's names of sections have no others."
    found = list(links_to_sections())
    assert len(found) > 15
    for page, link in found:
        file, _, section = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if page.name == "index.ipynb" and not file:
            target = ROOT / "README.md"
        assert section.isascii() and section in anchors(target), (page.name, link)
