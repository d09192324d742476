"Data flows one way: a module imports only what stands below it, and the core nothing of the laboratory."

import ast, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
import pytest
from milr.codehash import imports_of, source_file
from milr.lab import REQUIRED
from tests.notebooks import cells_of

ROOT = Path(__file__).parent.parent
BY_HAND = {"milr", "milr.__main__", "milr._modidx", "milr.integrations", "milr.lab"}
MODULES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in (ROOT / "milr").rglob("*.py")
} - BY_HAND


def exported(notebook):
    "The module that a notebook exports; None if it exports none."
    text = "\n".join("".join(c["source"]) for c in cells_of(notebook) if c["cell_type"] == "code")
    found = re.search(r"^#\| *default_exp (\S+)", text, re.M)
    return found and f"milr.{found[1]}"


BOOKS = {
    name: p.relative_to(ROOT / "nbs").as_posix()
    for p in sorted((ROOT / "nbs").rglob("*.ipynb"))
    if ".ipynb_checkpoints" not in p.parts and (name := exported(p))
}

# A reader meets `mutual_information` before the parts that it stands on, 02 to 04.
STANDS_ABOVE = {"01_mi.ipynb": "04_neighbours.ipynb, on top"}


def floor(module):
    "Where a module stands: what a reader may skip at the bottom, then the core in its order, integrations, the lab."
    book = BOOKS[module]
    folder, _, name = book.rpartition("/")
    name = STANDS_ABOVE.get(name, name)
    return {"integrations": 2, "lab": 3}.get(folder, 0 if name.startswith("9") else 1), name


def is_lab(module):
    return module.split(".")[1] == "lab"


def upward(module, imports):
    "What a module imports and may not."
    return sorted(m for m in imports if m in BOOKS and (floor(m) >= floor(module) or is_lab(m) and not is_lab(module)))


def test_each_module_has_its_notebook():
    "None is forgotten by the other tests here."
    assert set(BOOKS) == MODULES and len(BOOKS) >= 22


@pytest.mark.parametrize("module", sorted(BOOKS))
def test_imports_lead_down(module):
    assert upward(module, imports_of(module)) == []


def test_a_wrong_direction_is_noticed():
    assert upward("milr.policy", {"milr.probe", "milr.codehash"}) == ["milr.probe"]
    assert upward("milr.auto", {"milr.lab.data", "milr.policy"}) == ["milr.lab.data"]
    assert upward("milr.probe", {"milr.integrations.lightning"}) == ["milr.integrations.lightning"]


def test_results_are_imported_where_a_hash_sees_them():
    "Nothing but the doors of packages and other people's libraries is imported by a name made at run time."
    callers = {
        m
        for m in MODULES | {"milr", "milr.integrations"}
        if "import_module(" in source_file(m).read_text(encoding="utf-8")
    }
    assert callers == {"milr", "milr.integrations", "milr.integrations.lightning", "milr.lab.rivals"}


WITHOUT_THE_LAB = """
import importlib.util, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in ABSENT else found(name, package)
"""
USE = """
import importlib, milr, milr.integrations, torch
for name in milr.__all__:
    getattr(milr, name)
for module in MODULES:
    importlib.import_module(module)
x, y = torch.rand(60, 5), torch.arange(60) % 3
model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=.01)
probe = milr.LayerProbe(model, x, y, samples=60)
scheduler = milr.MutualInformationLR(optimizer, milr.ValueChangePolicy(), probe=probe)
for _ in range(2):
    scheduler.step()
estimate = milr.mutual_information(x, x + .1*torch.rand(60, 5))
print(len(scheduler.history), float(estimate) > 1, float(milr.reference_mi(x, y)) > 1)
print(sorted({name.split(".")[0] for name in sys.modules} & ABSENT))
"""


def lab_requirements():
    "The packages of the extra, and the core's."
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    return [
        {re.split("[<>=]", r)[0] for r in settings["DEFAULT"][f"{part}requirements"].split()} for part in ("lab_", "")
    ]


def python(code, **names):
    given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    return subprocess.run([sys.executable, "-c", given + code], capture_output=True, text=True)


def test_the_core_works_without_the_laboratory():
    "Its names, an estimate, a probe and a scheduler, where nothing that only the laboratory needs can be imported."
    core = sorted(m for m in MODULES if not m.startswith(("milr.lab", "milr.integrations")))
    done = python(WITHOUT_THE_LAB + USE, ABSENT=set(REQUIRED), MODULES=core)
    assert done.stdout.splitlines() == ["2 True True", "[]"], done.stderr[-3000:]


def test_the_extra_is_what_the_laboratory_asks_for():
    lab, core = lab_requirements()
    assert lab == set(REQUIRED.values()) and not lab & core


def test_without_the_extra_the_command_says_so_in_one_line():
    done = python(WITHOUT_THE_LAB + "from milr.__main__ import main; sys.exit(main())", ABSENT={"papermill", "psutil"})
    assert done.returncode == 1 and done.stderr == "milr: milr.lab needs papermill, psutil; pip install 'milr[lab]'\n"


PRIVATE_NAME = re.compile(r"_[A-Za-z]\w*")
OF_OTHERS = {"_last_lr"}  # torch's schedulers have it, so milr's has


def private_names():
    "What milr keeps for itself: functions, classes, methods and values whose names begin with one underscore."
    found = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(source_file(module).read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return {name for name in found if PRIVATE_NAME.fullmatch(name)} - OF_OTHERS


PRIVATE = private_names()


def private_uses(text):
    "The private names of milr that a test imports, reads or names in a text, also in programs that it holds as texts."
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "milr":
            yield from (alias.name for alias in node.names if PRIVATE_NAME.fullmatch(alias.name))
        elif isinstance(node, ast.Attribute) and node.attr in PRIVATE:
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"(milr\.[\w.]*)?_\w+", node.value) and node.value.split(".")[-1] in PRIVATE:
                yield node.value
            elif "milr" in node.value:
                yield from private_uses_of_program(node.value)


def private_uses_of_program(text):
    try:
        return list(private_uses(text))
    except SyntaxError:
        return []  # no program


@pytest.mark.parametrize("file", sorted((ROOT / "tests").glob("*.py")), ids=lambda file: file.stem)
def test_tests_use_public_names(file):
    "So that a module's inside can change and its tests stay."
    assert sorted(private_uses(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text, found",
    [
        ("from milr.lab.cli import HIDDEN, main", ["HIDDEN"]),
        ("from milr.lab import cli; cli.HIDDEN()", ["HIDDEN"]),
        ("policy = AutoPolicy(); policy.HIDDEN(0.1, [])", ["HIDDEN"]),
        ("patch.object(cli, 'HIDDEN')", ["HIDDEN"]),
        ("patch('milr.lab.cli.HIDDEN')", ["milr.lab.cli.HIDDEN"]),
        ("CODE = 'from milr.lab.cli import HIDDEN'", ["HIDDEN"]),
        ("from milr import __version__; module._forward_hooks; row._replace()", []),
    ],
)
def test_a_private_name_is_noticed(text, found):
    "HIDDEN stands for one, so that none stands here."
    hidden = min(PRIVATE)
    assert list(private_uses(text.replace("HIDDEN", hidden))) == [name.replace("HIDDEN", hidden) for name in found]
