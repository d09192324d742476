"An installed package draws the figures outside a clone: the notebooks travel in it."

import email, os, re, subprocess, sys, zipfile
from pathlib import Path
import pytest
from readme_renderer import markdown
from tests.test_readme import ROOT, broken


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    "The package as it is uploaded."
    built = tmp_path_factory.mktemp("built")
    arguments = ("--quiet", "build", "--build-base", built / "build", "bdist_wheel", "--dist-dir", built)
    subprocess.run([sys.executable, "setup.py", *arguments], cwd=root, check=True, capture_output=True)
    (made,) = built.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel):
    "The wheel, unpacked."
    zipfile.ZipFile(wheel).extractall(wheel.parent / "unpacked")
    return wheel.parent / "unpacked"


def milr(installed, folder, *arguments):
    "The command of the unpacked package, in a folder of its own."
    environment = os.environ | {"PYTHONPATH": str(installed), "MILR_RUNS": str(folder / "runs")}
    return subprocess.run(
        [sys.executable, "-m", "milr", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_package_index_can_show_its_page(wheel, installed):
    "As that index renders it; twine looks only at what surrounds a text in Markdown. Every link leads somewhere."
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel], capture_output=True, text=True)
    assert done.returncode == 0 and "PASSED" in done.stdout, done.stdout + done.stderr
    (metadata,) = installed.glob("*.dist-info/METADATA")
    page = email.message_from_string(metadata.read_text(encoding="utf-8"))
    assert page["Description-Content-Type"] == "text/markdown"
    text = page.get_payload()
    shown = markdown.render(text)
    assert broken(text) == [] and "<table>" in shown and "<img" in shown and shown.count("<pre") >= 5
    addresses = [address.split(", ")[1] for address in page.get_all("Project-URL")]
    ours = [address.split("/blob/main/")[1] for address in addresses if "/blob/main/" in address]
    assert ours and all((ROOT / path).exists() for path in ours)


def test_it_names_the_versions_of_python_it_was_run_on(installed):
    "From the oldest that it asks for, without a gap, and this one among them."
    (metadata,) = installed.glob("*.dist-info/METADATA")
    page = email.message_from_string(metadata.read_text(encoding="utf-8"))
    named = re.findall(r"Python :: 3\.(\d+)$", "\n".join(page.get_all("Classifier")), re.M)
    named = sorted(map(int, named))
    assert page["Requires-Python"] == f">=3.{named[0]}"
    assert named == list(range(named[0], named[-1] + 1)) and sys.version_info.minor in named


def test_the_notebooks_travel(root, installed):
    folders = (root / "nbs" / "figures", installed / "milr" / "lab" / "notebooks")
    ours, theirs = ({p.name: p.read_bytes() for p in folder.glob("*.ipynb")} for folder in folders)
    assert theirs == ours and len(theirs) == 6


def test_it_is_the_unpacked_package_that_runs(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    code = "from importlib.util import find_spec; print(find_spec('milr').origin)"
    where = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert Path(where.stdout.strip()).is_relative_to(installed), "the tests look at another installation"


FIG6 = ("figure", "fig6", "--preset", "smoke")


def test_a_figure_is_drawn_outside_a_clone(installed, tmp_path):
    "A dry run, which runs nothing, counts what is stored before and after."
    assert milr(installed, tmp_path, *FIG6, "--dry-run").stdout.endswith("2 runs, 0 stored\n")
    assert not (tmp_path / "figures").exists() and not (tmp_path / "runs").exists()
    done = milr(installed, tmp_path, *FIG6)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "figures" / "smoke"
    assert {p.suffix for p in folder.iterdir()} == {".csv", ".ipynb", ".json", ".png", ".svg"}
    assert str(installed) not in (folder / "fig6_layerwise.ipynb").read_text(encoding="utf-8")
    assert milr(installed, tmp_path, *FIG6, "--dry-run").stdout.endswith("2 runs, 2 stored\n")
