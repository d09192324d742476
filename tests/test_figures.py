"What figure notebooks can be given: every field of `Settings` reaches the runs; an unknown or wrong one ends them."

import json, re, subprocess, sys
from dataclasses import fields
import pytest
from milr.lab.cli import execute_notebook, main
from milr.lab.settings import Settings
from milr.lab.store import Run, save_record
from milr.lab.figure_runs import figure_rows
from milr.lab.figures import DECIDED, OWN, Parameters, checked, declared, parameters, settings_parameters
from tests.notebooks import cells_of

NOTEBOOKS = {
    "fig1": "figures/fig1_sample_size",
    "fig2": "figures/fig2_models",
    "fig3": "figures/fig3_mnist",
    "fig4": "figures/fig4_cifar10",
    "fig5": "figures/fig5_batch_size",
    "fig6": "figures/fig6_layerwise",
    "sensitivity": "studies/sensitivity",
    "information_plane": "studies/information_plane",
}
TRAINED = ("fig3", "fig4", "fig5", "fig6", "sensitivity")
OTHER = {
    str: dict(
        dataset="mnist",
        model="all-cnn-c",
        signal="training loss",
        estimator="paper",
        metric="chebyshev",
        device="cpu",
        dtype="bfloat16",
    ),
    bool: True,
    int: 7,
    float: 0.125,
    tuple: (0.5, 0.25),
}  # a value of each kind that no default has
VARIED = {"k", "metric", "tiles", "redraw", "dtype", "probe_size"}  # by the rows of the study of sensitivity


def milr(root, *arguments):
    return subprocess.run([sys.executable, "-m", "milr", *arguments], cwd=root, capture_output=True, text=True)


def test_every_notebook_is_declared():
    assert set(NOTEBOOKS) == set(OWN)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_looks_at_what_it_is_given(name, root):
    "The first cell after the parameters is the check, and no other cell reads a parameter's global."
    cells = cells_of(root / "nbs" / f"{NOTEBOOKS[name]}.ipynb")
    at = next(i for i, c in enumerate(cells) if "parameters" in c["metadata"].get("tags", []))
    after = "".join(next(c for c in cells[at + 1 :] if c["cell_type"] == "code")["source"])
    assert f'parameters("{name}", globals())' in after
    assert (
        "".join(cells[at]["source"]).count("=") == 1
    )  # the preset alone: everything else is declared in milr.lab.figures


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("field", sorted(settings_parameters()))
def test_a_setting_reaches_the_runs_of_every_figure(name, field):
    kind = settings_parameters()[field].kind
    value = OTHER[kind][field] if kind is str else OTHER[kind]
    if field == "holdout":
        value = 100
    rows = figure_rows(Parameters(name, checked(name, dict(preset="smoke", **{field: value}))))
    settings = [s for many in rows.values() for s in many]
    if field == "batch_size" and name == "fig5":
        assert {s.batch_size for s in settings} == {7, 35}
    elif name == "sensitivity" and field in VARIED:
        assert getattr(rows["as in Figure 3"][0], field) == value
    else:
        assert {getattr(s, field) for s in settings} == {value}


def test_settings_come_by_themselves():
    assert set(settings_parameters()) == {f.name for f in fields(Settings)} - set(DECIDED)
    assert all(p.about for p in settings_parameters().values())


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(epsilon="small"), "epsilon must be a number"),
        (dict(epochs=2.5), "epochs must be a whole number"),
        (dict(redraw=1), "redraw must be True or False"),
        (dict(gammas="a"), "gammas must be numbers"),
        (dict(device=0), "device must be a text"),
        (dict(control="no"), "control must be True or False"),
    ],
)
def test_kinds_are_checked(bad, says):
    with pytest.raises(TypeError, match=says):
        parameters("fig5", bad)


FIG6 = "nbs/figures/fig6_layerwise.ipynb"


def test_an_unknown_parameter_ends_papermill(root, tmp_path):
    from papermill import PapermillExecutionError

    given = dict(preset="smoke", epsilonn=0.001, out=str(tmp_path / "files"))
    says = "fig6 has no parameter epsilonn (did you mean epsilon?); it has preset, out, seeds, records"
    with pytest.raises(PapermillExecutionError, match=re.escape(says)):
        execute_notebook(root / FIG6, tmp_path / "out.ipynb", given, root)
    assert not (tmp_path / "files").exists()


def test_a_setting_under_papermill(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MILR_RUNS", str(tmp_path / "runs"))
    given = dict(preset="smoke", epsilon=0.001, k=4, out=str(tmp_path / "files"))
    execute_notebook(root / FIG6, tmp_path / "out.ipynb", given, root)
    settings = [json.loads(f.read_text()) for f in (tmp_path / "runs").glob("*/settings.json")]
    assert [(s["epsilon"], s["k"]) for s in settings] == [(0.001, 4)] * 2
    facts = json.loads((tmp_path / "files" / "fig6_layerwise.json").read_text())
    assert facts["given"] == dict(epsilon=0.001, k=4) and facts["settings"]["epsilon"] == 0.001
    assert "(ε = 0.001)" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("fig6", "-p", "epsilonn", "1"), "fig6 has no parameter epsilonn"),
        (("fig3", "-p", "epochs", "ten"), "epochs must be a whole number"),
        (("fig2", "-p", "epsilon", "1"), "it has preset, out, width"),
        (("fig1", "--from-records", "figures/runs"), "fig1 has no parameter records"),
        (("fig9", "--list"), "unknown figure"),
        (("fig3", "--dataset", "foo"), "dataset is 'foo'; expected one of 'mnist', 'fashion', 'cifar10', 'digits'"),
        (("fig1", "--dataset", "digits,foo"), "dataset is 'foo'"),
        (("fig2", "-p", "variant", "foo"), "variant is 'foo'"),
        (("fig3", "-p", "lr_max", "0.0001"), "need 0 < lr_min <= lr_max, got lr_min=0.001, lr_max=0.0001"),
        (("fig4", "-p", "metric", "foo"), "metric is 'foo'"),
        (("fig6", "--device", "cuda:99"), "device 'cuda:99' is not available on this machine"),
        (("fig5", "-p", "at", "99"), "epochs=12 must exceed the 99 of the run it continues"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_the_command_refuses_before_a_kernel_starts(arguments, dry, says, root, tmp_path, monkeypatch, capsys):
    "A dry run, too, is answered only where the run could begin."
    monkeypatch.chdir(root)
    monkeypatch.setenv("MILR_RUNS", str(tmp_path / "runs"))
    assert main(["figure", *arguments, *dry, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_dry_run_asks_for_a_device_only_where_it_would_be_used(root, tmp_path, monkeypatch, capsys):
    "Not from records, and not on the machines of a Ray cluster."
    monkeypatch.chdir(root)
    given = ("figure", "fig3", "--preset", "smoke", "--device", "cuda:99", "--dry-run")
    assert main([*given, "--from-records", str(tmp_path)]) == 0
    monkeypatch.setenv("MILR_EXECUTOR", "ray")
    assert main([*given]) == 0
    assert capsys.readouterr().out.count("4 runs, 0 ") == 2


def test_the_command_lists_parameters_and_presets(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert main(["figure", "fig4", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in declared("fig4")) and "smoke sets gamma_factor=4.0" in out


def test_one_sample_size_and_a_device_where_nothing_is_computed(root, tmp_path):
    r = milr(root, "figure", "fig1", "--preset", "smoke", "-p", "sizes", "50", "--out", str(tmp_path))
    assert r.returncode == 0, r.stderr
    r = milr(root, "figure", "fig2", "--device", "cpu", "--out", str(tmp_path))
    assert r.returncode == 0, r.stderr
    assert "Nothing is computed here: device changed nothing." in (tmp_path / "fig2_models.ipynb").read_text()


def test_narrow_is_what_the_protocol_runs():
    "The figures at `narrow` ask for the very runs that are in the protocol's queue."
    from milr.lab.protocol import CIFAR10, FIGURE3, FIGURE4, NARROW

    for name, rows, size, seeds in (("fig3", FIGURE3, NARROW, 10), ("fig4", FIGURE4, CIFAR10, 3)):
        asked = {
            s for many in figure_rows(Parameters(name, dict(preset="narrow", device="cpu"))).values() for s in many
        }
        assert asked == {Settings(seed=i, **(size | row)) for row in rows.values() for i in range(seeds)}


def made_up(s):
    "A run of these settings that nobody has trained."
    layers = ["conv1", "conv2", "dense1", "output"] if s.layerwise else ["output"]
    rows = [
        dict(
            epoch=e,
            lr=dict.fromkeys(layers, 0.01),
            mi={n: 2 + 0.1 * e for n in layers},
            accuracy=0.5 + 0.1 * e,
            loss=1.0,
            seconds=1.0,
        )
        for e in range(s.epochs)
    ]
    return Run(s, rows, dict(IXY=3.3, source="CIFAR-10, a lossy JPEG copy (made up)", device="none"))


@pytest.mark.parametrize("name", ["fig3", "fig6"])
def test_a_figure_of_the_records_that_are_there(name, root, tmp_path):
    "A row without runs is left out and named, a row with some uses them."
    rows = figure_rows(Parameters(name, dict(preset="smoke", seeds=3)))
    first, second = list(rows)[:2]
    for s in [*rows[first], rows[second][1]]:
        save_record(made_up(s), tmp_path / "records")
    r = milr(
        root,
        "figure",
        name,
        "--preset",
        "smoke",
        "--seeds",
        "3",
        "--from-records",
        str(tmp_path / "records"),
        "--out",
        str(tmp_path / "out"),
    )
    assert r.returncode == 0, r.stderr
    facts = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert facts["missing"].startswith(f"Not run: {second} (seeds 0, 2)") and facts["missing"].endswith(
        "value_change." if name == "fig3" else "."
    )
    text = next((tmp_path / "out").glob("*.ipynb")).read_text()
    assert facts["missing"] in text
    assert name == "fig3" or "+0.00 points (1 seed)" in text  # the one seed that both rows have
