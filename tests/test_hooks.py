"The git hook that `make env` sets up: notebooks enter a commit clean."

import json, shutil, subprocess, sys
from pathlib import Path
import pytest


@pytest.fixture
def clone(root, tmp_path):
    "A repository with the hook, the settings and this environment."

    def git(*arguments):
        identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet")
    git("config", "core.hooksPath", ".githooks")
    shutil.copytree(root / ".githooks", tmp_path / ".githooks")
    shutil.copy(root / "settings.ini", tmp_path)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / "nbs").mkdir()
    return tmp_path, git


def write(folder, count, text="1 + 1"):
    "A notebook of one cell that was run as the `count`th."
    cell = dict(
        cell_type="code", id="one", source=[text], outputs=[], execution_count=count, metadata=dict(collapsed=True)
    )
    nb = dict(
        cells=[cell],
        metadata=dict(kernelspec=dict(name="python3", language="python", display_name="mine")),
        nbformat=4,
        nbformat_minor=5,
    )
    (folder / "nbs" / "a.ipynb").write_text(json.dumps(nb))


def committed(git):
    return json.loads(git("show", "HEAD:nbs/a.ipynb"))["cells"][0]


def test_a_notebook_enters_the_commit_clean(clone):
    folder, git = clone
    write(folder, 7)
    git("add", "nbs")
    git("commit", "--quiet", "-m", "a notebook")
    assert committed(git)["execution_count"] is None and committed(git)["metadata"] == {}
    assert git("status", "--porcelain", "nbs") == ""


def test_what_is_not_staged_stays_out(clone):
    folder, git = clone
    write(folder, 7)
    git("add", "nbs")
    write(folder, 7, text="1 + 2")
    git("commit", "--quiet", "-m", "a part of it")
    assert committed(git)["source"] == ["1 + 1"] and git("status", "--porcelain", "nbs") == " M nbs/a.ipynb\n"


def test_without_an_environment_the_commit_is_let_through(clone):
    folder, git = clone
    (folder / ".venv").unlink()
    write(folder, 7)
    git("add", "nbs")
    git("commit", "--quiet", "-m", "a notebook")
    assert committed(git)["execution_count"] == 7
