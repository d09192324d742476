"The milr command in a process of its own."

import csv, io, json, os, subprocess, sys
import pytest


def milr(*arguments, cwd, **env):
    return subprocess.run(
        [sys.executable, "-m", "milr", *arguments], cwd=cwd, capture_output=True, text=True, env=os.environ | env
    )


def test_help_and_unknown_commands(root):
    assert milr("--help", cwd=root).returncode == 0
    assert milr("figment", cwd=root).returncode == 2


def test_outside_of_the_clone_that_milr_is_installed_from(tmp_path):
    "Its notebooks are found; a wheel's, which travel in it, are in tests/test_outside.py."
    r = milr("figure", "fig1", "--list", cwd=tmp_path)
    assert (r.returncode, r.stderr) == (0, "") and r.stdout.startswith("fig1 takes")


def test_an_installation_without_notebooks_says_what_to_do(tmp_path, monkeypatch, capsys):
    from milr.lab import cli

    monkeypatch.setattr(cli, "notebook_folders", lambda: (tmp_path / "none", tmp_path))
    assert cli.main(["figure", "fig1", "--list"]) == 1
    error = capsys.readouterr().err
    assert "clone of the project" in error and len(error.splitlines()) == 1


def test_missing_data_is_one_line(root, tmp_path):
    "No network, no file: the message says what to do, and nothing is left behind."
    r = milr("data", "cifar10", cwd=root, MILR_CIFAR10=str(tmp_path / "nothing"))
    assert r.returncode == 1 and "does not exist" in r.stderr and len(r.stderr.splitlines()) == 1


def test_runs_are_listed(root, tmp_path, monkeypatch, capsys):
    "By the command in its own process; then in other forms, by what it calls."
    from milr.lab.cli import main
    from tests.test_experiments import SMALL, replace, run

    def listed(form):
        assert main(["runs", form]) == 0
        return capsys.readouterr().out

    monkeypatch.setenv("MILR_RUNS", str(tmp_path))
    run(replace(SMALL, epochs=1), tmp_path)
    out = milr("runs", cwd=root).stdout
    assert "finished value_change seed=0" in out and "epochs=1" in out
    (row,) = json.loads(listed("--json"))
    assert row["epochs"] == 1 and 0 <= row["accuracy"] <= 1
    table = csv.DictReader(io.StringIO(listed("--csv")))
    assert [(r["hash"], float(r["accuracy"]), r["epochs"]) for r in table] == [(row["hash"], row["accuracy"], "1")]


def test_version(root):
    from milr import __version__

    assert milr("--version", cwd=root).stdout == f"milr {__version__}\n"


def test_no_jobs(root):
    r = milr("figure", "fig3", "--preset", "smoke", "--jobs", "0", cwd=root)
    assert r.returncode == 1 and "--jobs must be at least 1" in r.stderr


def test_figure_from_records(root, tmp_path, monkeypatch):
    "A figure's runs are recorded; from the records it is drawn again with the same table and without computing."
    from milr.lab.cli import main

    figure = ("figure", "fig6", "--preset", "smoke")
    records = str(tmp_path / "records")
    r = milr(*figure, "--record", records, "--out", str(tmp_path / "a"), cwd=root, MILR_RUNS=str(tmp_path / "runs"))
    assert r.returncode == 0, r.stderr
    monkeypatch.chdir(root)
    monkeypatch.setenv("MILR_RUNS", str(tmp_path / "none"))
    assert main([*figure, "--from-records", records, "--out", str(tmp_path / "b")]) == 0
    a, b = ((tmp_path / f / "fig6_layerwise.csv").read_text() for f in "ab")
    assert a == b and len(os.listdir(records)) == 2 and not (tmp_path / "none").exists()


def test_figure_without_its_records(root, tmp_path, monkeypatch, capsys):
    from milr.lab.cli import main

    monkeypatch.chdir(root)
    figure = ("figure", "fig3", "--preset", "smoke")
    assert main([*figure, "--from-records", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "is not among the records" in error and "Traceback" not in error
    assert main(["figure", "fig3", "--from-records", "a", "--record", "b"]) == 1
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [("figure", "fig3"), ("figure", "fig3", "--dry-run"), ("figures",)],
    ids=" ".join,
)
def test_a_folder_of_records_that_is_not_there(arguments, tmp_path, monkeypatch, capsys):
    "One line that names it as it was given; no figure is tried."
    from milr.lab.cli import main

    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--from-records", "nowhere", "--out", "out"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("milr: there is no folder nowhere to read records from; give one that")
    assert len(error.splitlines()) == 1 and list(tmp_path.iterdir()) == []


def test_the_environments_folder_of_records_is_looked_for_too(tmp_path, monkeypatch, capsys):
    from milr.lab.cli import main

    monkeypatch.setenv("MILR_EXECUTOR", "recorded")
    monkeypatch.setenv("MILR_RECORDS", str(tmp_path / "nowhere"))
    assert main(["figure", "fig3", "--dry-run"]) == 1
    assert "nowhere to read records from" in capsys.readouterr().err
    monkeypatch.setenv("MILR_RECORDS", str(tmp_path))
    assert main(["figure", "fig3", "--preset", "smoke", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("4 runs, 0 recorded\n")


def test_a_dry_run_counts_the_same_records_from_every_folder_of_the_clone(root, monkeypatch, capsys):
    from milr.lab.cli import main

    said = []
    for folder, records in (root, "figures/runs"), (root / "nbs", "../figures/runs"):
        monkeypatch.chdir(folder)
        assert main(["figure", "fig3", "--preset", "narrow", "--from-records", records, "--dry-run"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "\n40 runs, 40 recorded\n" in said[0]


def test_a_kernel_that_dies_is_named(root, tmp_path):
    "A notebook whose kernel ends by itself (memory runs out) is an error of one line; one that ends well is written."
    import nbformat
    from milr.lab.cli import CommandError, execute_notebook

    def notebook(code):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        nb.metadata["kernelspec"] = dict(name="python3", display_name="python3", language="python")
        nbformat.write(nb, tmp_path / "in.ipynb")
        return tmp_path / "in.ipynb"

    execute_notebook(notebook("import os; os.getcwd()"), tmp_path / "out.ipynb", {}, root)
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs[0].data["text/plain"] == repr(str(root))
    with pytest.raises(CommandError, match="kernel ended by itself.*goes on from the last checkpoint.* out of cheese$"):
        execute_notebook(
            notebook("import os; os.write(2, b'out of cheese'); os.kill(os.getpid(), 9)"),
            tmp_path / "out.ipynb",
            {},
            root,
        )


def test_no_runs_are_said(tmp_path, monkeypatch, capsys):
    from milr.lab.cli import main

    monkeypatch.setenv("MILR_RUNS", str(tmp_path / "none"))
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path / 'none'} yet\n"


def stored(root, **changed):
    "A finished run, as `run` leaves it; its hash."
    from dataclasses import asdict, replace
    from milr.lab.settings import Settings, run_hash
    from milr.lab.store import save_checked

    s = replace(Settings(dataset="digits", epochs=2), **changed)
    rows = [
        dict(epoch=e, accuracy=0.9 + 0.01 * e, lr={"output": 0.01}, mi={"output": 3.0}, loss=0.1, seconds=1.0)
        for e in range(2)
    ]
    (root / run_hash(s)).mkdir()
    (root / run_hash(s) / "settings.json").write_text(json.dumps(asdict(s)))
    save_checked(dict(rows=rows, info=dict(IXY=3.3, source="digits")), root / run_hash(s) / "result.pt")
    return run_hash(s)


def test_runs_are_compared_in_one_picture(root, tmp_path):
    "Two stored runs by the beginning of their hashes, and a record by its file."
    from PIL import Image

    (tmp_path / "runs").mkdir()
    names = [stored(tmp_path / "runs", seed=seed)[:8] for seed in range(2)]
    record = str(root / "figures" / "runs" / "mnist-fixed-seed0-88ed379b.json")
    r = milr(
        "compare", *names, record, "--out", str(tmp_path / "three.png"), cwd=root, MILR_RUNS=str(tmp_path / "runs")
    )
    assert (r.returncode, r.stdout) == (0, f"{tmp_path / 'three.png'}\n"), r.stderr
    assert Image.open(tmp_path / "three.png").width > 1000


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("nothing", "none"), "no run 'nothing'"),
        (("none.json", "b"), "no record none.json"),
        ((), "needs two runs"),
        (("--out", "a.pdf"), "ends in .png"),
    ],
)
def test_what_cannot_be_compared_is_said(arguments, says, tmp_path, monkeypatch, capsys):
    from milr.lab.cli import main

    monkeypatch.setenv("MILR_RUNS", str(tmp_path))
    one = [stored(tmp_path)] if not arguments or arguments[0] == "--out" else []
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *one, *arguments]) == 1
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1 and not list(tmp_path.glob("*.p*"))


def test_a_beginning_that_two_runs_share_is_no_name(tmp_path):
    from milr.lab.listing import find_run

    hashes = [stored(tmp_path, seed=seed) for seed in range(17)]  # 16 digits: two begin alike
    shared = next(h[0] for h in hashes if sum(other[0] == h[0] for other in hashes) > 1)
    with pytest.raises(LookupError, match="give more of the hash"):
        find_run(shared, tmp_path)


def test_what_differs_is_in_the_legend_and_what_does_not_in_the_title(tmp_path):
    from milr.lab.listing import find_run, plot_runs, runs_differ

    runs = [find_run(stored(tmp_path, width=0.5, epsilon=e), tmp_path) for e in (0.01, 0.002)]
    assert runs_differ(runs) == [dict(epsilon=0.01), dict(epsilon=0.002)]
    fig = plot_runs(runs)
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["ε = 0.01", "ε = 0.002"]
    assert fig.get_suptitle().splitlines()[0] == "digits, MI: value + change, width = 0.5, epochs = 2"
    assert [len(ax.lines) for ax in fig.axes] == [2, 2, 4]
