"The milr command in a process of its own."
import csv, io, json, os, subprocess, sys
import pytest

def milr(*arguments, cwd, **env):
    return subprocess.run([sys.executable, "-m", "milr", *arguments], cwd=cwd, capture_output=True, text=True, env=os.environ | env)

def test_help_and_unknown_commands(root):
    assert milr("--help", cwd=root).returncode == 0
    assert milr("figment", cwd=root).returncode == 2

def test_outside_of_the_project(tmp_path):
    r = milr("figure", "fig3", cwd=tmp_path)
    assert r.returncode == 1 and "clone of the project" in r.stderr and "Traceback" not in r.stderr

def test_missing_data_is_one_line(root, tmp_path):
    "No network, no file: the message says what to do, and nothing is left behind."
    r = milr("data", "cifar10", cwd=root, MILR_CIFAR10=str(tmp_path/"nothing"))
    assert r.returncode == 1 and "does not exist" in r.stderr and len(r.stderr.splitlines()) == 1

def test_runs_are_listed(root, tmp_path):
    from tests.test_experiments import SMALL, replace, run
    run(replace(SMALL, epochs=1), tmp_path)
    out = milr("runs", cwd=root, MILR_RUNS=str(tmp_path)).stdout
    assert "finished value_change seed=0" in out and "epochs=1" in out
    row, = json.loads(milr("runs", "--json", cwd=root, MILR_RUNS=str(tmp_path)).stdout)
    assert row["epochs"] == 1 and 0 <= row["accuracy"] <= 1
    table = csv.DictReader(io.StringIO(milr("runs", "--csv", cwd=root, MILR_RUNS=str(tmp_path)).stdout))
    assert [(r["hash"], float(r["accuracy"]), r["epochs"]) for r in table] == [(row["hash"], row["accuracy"], "1")]

def test_version(root):
    from milr import __version__
    assert milr("--version", cwd=root).stdout == f"milr {__version__}\n"

def test_no_jobs(root):
    r = milr("figure", "fig3", "--preset", "smoke", "--jobs", "0", cwd=root)
    assert r.returncode == 1 and "--jobs must be at least 1" in r.stderr

def test_figure_from_records(root, tmp_path):
    "A figure's runs are recorded; from the records it is drawn again with the same table and without computing."
    figure = ("figure", "fig6", "--preset", "smoke"); records = str(tmp_path/"records")
    r = milr(*figure, "--record", records, "--out", str(tmp_path/"a"), cwd=root, MILR_RUNS=str(tmp_path/"runs")); assert r.returncode == 0, r.stderr
    r = milr(*figure, "--from-records", records, "--out", str(tmp_path/"b"), cwd=root, MILR_RUNS=str(tmp_path/"none")); assert r.returncode == 0, r.stderr
    a, b = ((tmp_path/f/"fig6_layerwise.csv").read_text() for f in "ab")
    assert a == b and len(os.listdir(records)) == 2 and not (tmp_path/"none").exists()

def test_figure_without_its_records(root, tmp_path):
    r = milr("figure", "fig3", "--preset", "smoke", "--from-records", str(tmp_path), "--out", str(tmp_path/"out"), cwd=root)
    assert r.returncode == 1 and "is not among the records" in r.stderr and "Traceback" not in r.stderr
    r = milr("figure", "fig3", "--from-records", "a", "--record", "b", cwd=root)
    assert r.returncode == 1 and "give one of them" in r.stderr

def test_a_kernel_that_dies_is_named(root, tmp_path):
    "A notebook whose kernel ends by itself, as when memory runs out, is an error of one line; one that ends well is written."
    import nbformat
    from milr.lab.cli import CommandError, _execute
    def notebook(code):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]); nb.metadata["kernelspec"] = dict(name="python3", display_name="python3", language="python")
        nbformat.write(nb, tmp_path/"in.ipynb"); return tmp_path/"in.ipynb"
    _execute(notebook("import os; os.getcwd()"), tmp_path/"out.ipynb", {}, root)
    assert nbformat.read(tmp_path/"out.ipynb", 4).cells[0].outputs[0].data["text/plain"] == repr(str(root))
    with pytest.raises(CommandError, match="kernel ended by itself.*goes on from the last checkpoint.* out of cheese$"):
        _execute(notebook("import os; os.write(2, b'out of cheese'); os.kill(os.getpid(), 9)"), tmp_path/"out.ipynb", {}, root)

def test_no_runs_are_said(tmp_path, monkeypatch, capsys):
    from milr.lab.cli import main
    monkeypatch.setenv("MILR_RUNS", str(tmp_path/"none"))
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path/'none'} yet\n"
