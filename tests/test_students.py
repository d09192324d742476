"What a student meets: notebooks that open with what they teach, formulas that are drawn, machines that cost nothing."

import copy, json, os, re, sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from unittest.mock import patch
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from tests.test_project import BOOKS, ROOT
from tests.test_structure import lab_requirements
from tests.notebooks import cells_of


def docs_module(name):
    "A script of docs/, imported."
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


free_machines = docs_module("free_machines")
PATH = free_machines.path_of_students()


def cells(path):
    return cells_of(ROOT / path)


def source(cell):
    return "".join(cell["source"])


def only_sets_up(cell):
    "Does nobody see this cell on the site?"
    return re.match(r"#\| *(hide|default_exp)", source(cell)) is not None


def opening(path):
    "The text above the first cell of code that a reader sees."
    text = []
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            text.append(source(cell))
        elif not only_sets_up(cell):
            break
    return "\n\n".join(text)


@pytest.mark.parametrize("book", [book.as_posix() for book in BOOKS])
def test_a_notebook_opens_with_what_it_teaches(book):
    "A title, a line below it, and a paragraph, before any import."
    assert cells(f"nbs/{book}")[0]["cell_type"] == "markdown"
    title, rest = opening(f"nbs/{book}").split("\n", 1)
    assert title.startswith("# ")
    subtitle, paragraphs = rest.strip().split("\n", 1)
    assert subtitle.startswith("> ") and len(subtitle.split()) >= 4
    prose = [part for part in paragraphs.split("\n\n") if not part.startswith("#")]
    assert len(" ".join(prose).split()) >= 15


@pytest.mark.parametrize("book", [book.as_posix() for book in BOOKS])
def test_formulas_are_written_as_formulas(book):
    "Subscripts in braces and commands of TeX stand between dollars, where they are drawn."
    for cell in cells(f"nbs/{book}"):
        if cell["cell_type"] != "markdown":
            continue
        text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$", "", source(cell), flags=re.S)
        assert re.findall(r".{0,30}(?:[_^]\{|\\frac|\\sum|\bI_t\b).{0,30}", text) == []


def test_the_path_begins_with_the_paper():
    assert PATH[:2] == ["nbs/00_paper.ipynb", "nbs/01_mi.ipynb"] and len(PATH) == len(set(PATH)) >= 8


@pytest.mark.parametrize("path", PATH)
def test_links_are_those_of_the_settings(path):
    notebook = json.loads((ROOT / path).read_text(encoding="utf-8"))
    made = free_machines.with_links(copy.deepcopy(notebook), path)
    assert made["cells"][:2] == notebook["cells"][:2], "run `python docs/free_machines.py`"
    address = free_machines.settings()["git_url"].removeprefix("https://github.com/")
    assert all(address in link for link in free_machines.links(path))
    assert source(notebook["cells"][0]).count("](https://colab.") == 1


def test_the_readme_opens_the_first_of_them():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert free_machines.renewed(text, PATH[0]) == text, "run `python docs/free_machines.py` and `make readme`"
    assert all(f"]({link})" in text for link in free_machines.links(PATH[0]))


def what_the_cell_does(path, milr_is_there):
    "The commands that the cell for Colab gives."
    given = []

    class Shell:
        def system(self, command):
            given.append(command)

        def run_line_magic(self, name, line):
            given.append(f"{name} {line}")

    (cell,) = [c for c in cells(path) if c["id"] == "colab"]
    code = TransformerManager().transform_cell(source(cell))
    found = find_spec if milr_is_there else lambda name: None
    with patch("importlib.util.find_spec", found):
        exec(code, {"get_ipython": Shell})
    return given


@pytest.mark.parametrize("path", PATH)
def test_the_cell_installs_milr_only_where_it_is_missing(path):
    assert what_the_cell_does(path, milr_is_there=True) == []
    clone, enter, install = what_the_cell_does(path, milr_is_there=False)
    assert clone.endswith(f"{free_machines.settings()['git_url']} project") and enter == "cd project"
    assert install.startswith("pip install ") and "'.[lab]'" in install


def imported(code):
    "The packages that some code imports."
    packages = re.findall(r"^ *from +(\w+)", code, re.M)
    for names in re.findall(r"^ *import +(.+)", code, re.M):
        packages += [re.match(r" *(\w+)", name)[1] for name in names.split(",")]
    return set(packages)


def test_what_is_installed_is_what_the_notebooks_import():
    "On Colab and on Binder alike."
    install = what_the_cell_does(PATH[0], milr_is_there=False)[-1]
    beside = install.split("'.[lab]'")[1].split()
    build = ROOT / "binder" / "postBuild"
    assert os.access(build, os.X_OK) and build.read_text().splitlines()[-1].split("'.[lab]'")[1].split() == beside
    lab, core = lab_requirements()
    there = {name.replace("scikit-learn", "sklearn") for name in lab | core} | set(beside) | {"IPython", "milr"}
    code = "\n".join(source(c) for path in PATH for c in cells(path) if c["cell_type"] == "code")
    assert imported(code) - sys.stdlib_module_names <= there
