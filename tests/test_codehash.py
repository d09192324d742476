"A stored number is void when code it depends on changes, however far away, and not otherwise."

import importlib, subprocess, sys
import pytest, torch
from milr.codehash import code_hash, function_hash, sources_of
from milr.reference import mi_by_sample_size

CHAIN = dict(
    front="from .middle import g",
    middle="from . import kernel",
    kernel='def k(x):\n    "a docstring"\n    return x',
    stranger="y = 1",
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    "A package in which front imports middle, and middle imports kernel."
    folder = tmp_path / "chained"
    folder.mkdir()
    for name, text in dict(CHAIN, __init__="").items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "chained"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def hash_now(module):
    code_hash.cache_clear()
    return code_hash(module)


@pytest.mark.parametrize(
    "name, old, new, felt",
    [
        ("kernel", "return x", "return 2*x", True),
        ("kernel", "a docstring", "another", False),
        ("kernel", "return x", "return x   # said", False),
        ("middle", "kernel", "kernel, stranger", True),
        ("stranger", "1", "2", False),
    ],
)
def test_what_changes_the_hash(package, name, old, new, felt):
    "A formula two imports away does; a docstring, a comment and a module that nobody imports do not."
    before = hash_now("chained.front")
    file = package / f"{name}.py"
    file.write_text(file.read_text().replace(old, new))
    assert file.read_text() != CHAIN[name]
    assert (hash_now("chained.front") != before) is felt


@pytest.mark.parametrize(
    "statement",
    [
        "from .kernel import k",
        "from chained.kernel import k",
        "import chained.kernel",
        "from . import kernel",
        "def f():\n    from .kernel import k",
        "if True:\n    from chained import kernel as other",
    ],
)
def test_every_way_to_import_is_followed(package, statement):
    (package / "front.py").write_text(statement)
    assert "chained.kernel" in sources_of("chained.front")


def test_no_module_is_imported_by_a_hash():
    "It must not wait for torch."
    code = """
import sys
from milr.codehash import code_hash
code_hash("milr.lab.benchmark")
print([module for module in ("torch", "milr.mi", "numba") if module in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_stored_numbers_depend_on_the_estimator():
    "Runs, trials and curves: each stands on the estimator, the probe and the policies."
    need = {"milr.mi", "milr.probe", "milr.policy", "milr.scheduler"}
    for module in ("milr.lab.runs", "milr.lab.rivals"):
        assert need <= set(sources_of(module)), module
    assert "milr.mi" in sources_of("milr.reference")


def test_a_curve_is_kept_under_the_code_behind_its_estimator(package, tmp_path):
    "An estimator that imports its kernel: when the kernel changes, the estimates are computed again."
    x, y = torch.rand(30, 2), torch.arange(30) % 3
    (package / "kernel.py").write_text("VALUE = 1.")
    (package / "middle.py").write_text("from .kernel import VALUE\ndef estimate(x, y): return VALUE")

    def curve():
        code_hash.cache_clear()
        importlib.invalidate_caches()
        for name in ("chained.middle", "chained.kernel"):
            sys.modules.pop(name, None)
        return mi_by_sample_size(
            x, y, [20], 1, estimator=importlib.import_module("chained.middle").estimate, cache=tmp_path / "cache"
        ).values.item()

    assert curve() == 1
    (package / "kernel.py").write_text("VALUE = 2.5")
    assert curve() == 2.5


def test_no_hash_without_a_source():
    with pytest.raises(ValueError, match="no Python source"):
        code_hash("math")
    with pytest.raises(ValueError, match="cannot be read"):
        function_hash(len)
