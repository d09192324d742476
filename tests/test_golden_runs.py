"""The same numbers: a small run of every method on digits, and a trial of every method of the comparison.

`python -m tests.test_golden_runs` writes the numbers anew, for when they are meant to change.

Not bit for bit: another processor sums floats in another order. In six epochs on 300 images that stays at rounding (a
millionth of a loss), whereas a different seed, neighbour, plan or constant shows in the second digit; the last test
says so. An image on the fence may change sides, and with it a neighbour of the estimate, so accuracies may differ by
one image and estimates by a fiftieth of a bit; in the longest run, of eight epochs, the LR that follows from them by
two in a hundred.
"""

import json, tempfile
from dataclasses import replace
from pathlib import Path
import pytest
from milr.lab.presets import preset_settings
from milr.lab.runs import run
from milr.lab.settings import METHODS, Settings
from milr.lab.opponents import CONTROLS
from milr.lab.rivals import METHODS as RIVALS, Trial
from milr.lab.tasks import Task
from milr.lab.benchmark import run_trial

FILE = Path(__file__).parent / "golden" / "runs.json"
KW = {k: v for k, v in preset_settings("fig3", "smoke", device="cpu")[0].items() if k != "jobs"} | dict(
    epochs=6, batch_size=10
)
RUNS = {m: Settings(**KW | dict(method=m, lrs=(0.05, 0.04, 0.03, 0.02, 0.02, 0.01))) for m in METHODS}
RUNS |= {
    "layerwise": Settings(**KW, layerwise=True),
    "momentum": Settings(**KW | dict(method="fixed", momentum=0.9)),
    "paper's estimator": Settings(**KW, estimator="paper"),
    "larger batch": Settings(**KW | dict(epochs=8, batch_size=50), continues=Settings(**KW)),
}
TRIALS = {
    m: Trial(Task("tiny", n_train=100, n_val=50, n_test=50, epochs=2), m)
    for m, method in RIVALS.items()
    if not method.needs and m not in CONTROLS
}


def numbers(row):
    "A row as {name: number}, without the seconds."
    flat = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{key} {layer}": v for layer, v in value.items()}
        elif isinstance(value, list):
            flat |= {f"{key} {i}": v for i, v in enumerate(value)}
        elif key != "seconds":
            flat[key] = value
    return flat


def differences(found, golden, lr_slack=1e-3):
    "The numbers that are not the same."
    out = []
    for epoch, (row, want) in enumerate(zip(found, golden, strict=True)):
        row = numbers(row)
        assert row.keys() == want.keys()
        for name, value in want.items():
            slacks = dict(accuracy=0.011, mi=0.02, val=2.01, test=2.01, lr=lr_slack * abs(value))
            if abs(row[name] - value) > slacks.get(name.split()[0], 1e-3 * abs(value)):
                out.append((epoch, name, row[name], value))
    return out


@pytest.fixture(scope="module")
def golden():
    return json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def test_each_method_is_there(golden):
    assert set(golden["runs"]) == set(RUNS) and set(golden["trials"]) == set(TRIALS)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_has_its_numbers(name, golden, store):
    lr_slack = 0.02 if name == "larger batch" else 1e-3
    assert differences(run(RUNS[name], store).rows, golden["runs"][name], lr_slack) == []


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_has_its_numbers(name, golden, store):
    assert differences(run_trial(TRIALS[name], store), golden["trials"][name]) == []


@pytest.mark.parametrize(
    "change",
    [
        dict(seed=1),
        dict(k=4),
        dict(dropout=0.0),
        dict(batch_size=11),
        dict(gammas=(0.101, 0.1, 0.1)),
        dict(tiles=1),
        dict(metric="chebyshev"),
        dict(width=0.26),
    ],
    ids=str,
)
def test_other_code_would_be_noticed(change, golden, store):
    "What a slip of code would do: each of these is beyond the slack."
    assert differences(run(replace(RUNS["value_change"], **change), store).rows, golden["runs"]["value_change"])


def write():
    "Compute everything and write it."
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: [numbers(r) for r in run(s, folder).rows] for name, s in RUNS.items()}
        trials = {name: [numbers(r) for r in run_trial(t, folder)] for name, t in TRIALS.items()}
    lines = [
        f'"{kind}": {{\n' + ",\n".join(f"{json.dumps(n)}: {json.dumps(rows)}" for n, rows in found.items()) + "}"
        for kind, found in dict(runs=runs, trials=trials).items()
    ]
    FILE.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    write()
