"An installed package draws the figures outside a clone: the notebooks travel in it."
import os, subprocess, sys, zipfile
from pathlib import Path
import pytest

@pytest.fixture(scope="module")
def installed(root, tmp_path_factory):
    "A wheel, unpacked."
    built = tmp_path_factory.mktemp("built")
    arguments = ("--quiet", "build", "--build-base", built/"build", "bdist_wheel", "--dist-dir", built)
    subprocess.run([sys.executable, "setup.py", *arguments], cwd=root, check=True, capture_output=True)
    wheel, = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(built/"unpacked")
    return built/"unpacked"

def milr(installed, folder, *arguments):
    "The command of the unpacked package, in a folder of its own."
    environment = os.environ | {"PYTHONPATH": str(installed), "MILR_RUNS": str(folder/"runs")}
    return subprocess.run([sys.executable, "-m", "milr", *arguments], cwd=folder, env=environment, capture_output=True, text=True)

def test_the_notebooks_travel(root, installed):
    folders = (root/"nbs"/"figures", installed/"milr"/"lab"/"notebooks")
    ours, theirs = ({p.name: p.read_bytes() for p in folder.glob("*.ipynb")} for folder in folders)
    assert theirs == ours and len(theirs) == 6

def test_a_figure_is_drawn_outside_a_clone(installed, tmp_path):
    code = "import milr; print(milr.__file__)"
    where = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True)
    assert Path(where.stdout.strip()).is_relative_to(installed), "the test looks at another installation"
    done = milr(installed, tmp_path, "figure", "fig3", "--preset", "smoke")
    assert done.returncode == 0, done.stderr
    assert {p.suffix for p in (tmp_path/"figures"/"smoke").iterdir()} == {".csv", ".ipynb", ".json", ".png", ".svg"}
    assert str(installed) not in (tmp_path/"figures"/"smoke"/"fig3_mnist.ipynb").read_text(encoding="utf-8")

def test_what_is_run_again_is_what_was_stored(installed, tmp_path):
    "A dry run runs nothing, and counts what is there."
    dry = ("figure", "fig6", "--preset", "smoke", "--dry-run")
    assert milr(installed, tmp_path, *dry).stdout.endswith("2 runs, 0 stored\n")
    assert not (tmp_path/"figures").exists() and not (tmp_path/"runs").exists()
    done = milr(installed, tmp_path, "figure", "fig6", "--preset", "smoke")
    assert done.returncode == 0, done.stderr
    assert milr(installed, tmp_path, *dry).stdout.endswith("2 runs, 2 stored\n")
