"Every published record can still be read, and stands for the settings it was computed with."

import csv, json
from dataclasses import MISSING, fields, make_dataclass, replace
from functools import partial
from pathlib import Path
import pytest
from milr.lab.settings import Settings
from milr.lab.store import load_record
from milr.lab.comparison import ablation_rows, beside_rows, compare, score_rows, trial_rows
from milr.lab.plots import markdown_table
from milr.lab.protocol import judge_tie, paired_interval
from milr.lab.rivals import Trial
from milr.lab.tasks import Task
from milr.lab.benchmark import PRESETS, final_trials, load_trials, read_trials, run_trials, save_trials
from tests.notebooks import said_in, shown_in

RUNS = Path(__file__).parent.parent / "figures" / "runs"
RECORDS = sorted(RUNS.rglob("*.json"))

# What a record leaves unsaid means these. A new field may join, with a default under which the recorded runs are what
# they were.
DEFAULTS = dict(
    method="value_change",
    seed=0,
    dataset="mnist",
    n_train=0,
    n_test=0,
    holdout=0,
    shrink=1,
    model="mnist_cnn",
    width=1.0,
    dropout=1.0,
    epochs=50,
    batch_size=100,
    lr=0.01,
    lr_min=1e-3,
    lr_max=1e-1,
    gammas=(),
    epsilon=0.01,
    epsilon_errors=0.0,
    warmup_epochs=5,
    lrs=(),
    value_epochs=(3, 8),
    momentum=0.0,
    layerwise=False,
    probe_size=1000,
    redraw=False,
    signal="mi",
    estimator="label_aware",
    k=3,
    metric="euclidean",
    tiles=0,
    device="cpu",
    threads=1,
    graph=False,
    dtype="float32",
    continues=None,
)


def orphaned(cls):
    "The fields that a record may leave unsaid and that do not mean any more what they meant."
    now = {f.name: f.default for f in fields(cls)}
    return [name for name, value in DEFAULTS.items() if now.get(name, MISSING) != value]


def settings_of(facts):
    "The settings that a record names."
    facts = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    if "continues" in facts:
        facts["continues"] = settings_of(facts["continues"])
    return Settings(**facts)


def test_all_records_are_looked_at():
    assert len(RECORDS) >= 239


@pytest.mark.parametrize("file", RECORDS, ids=lambda p: p.stem)
def test_a_published_record_loads(file):
    settings = settings_of(json.loads(file.read_text(encoding="utf-8"))["settings"])
    run = load_record(settings, file.parent)
    assert len(run.rows) == settings.epochs and 0 < run.info["IXY"] < 4
    assert all(0 <= row["accuracy"] <= 1 for row in run.rows)


def test_what_records_leave_unsaid_means_what_it_meant():
    assert orphaned(Settings) == []


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_renamed_field_or_another_default_is_noticed(name):
    "The test above fails when any one field is renamed, and when any one default changes."

    def altered(new_name, new_value):
        return make_dataclass(
            "Altered",
            [(new_name if n == name else n, object, new_value if n == name else v) for n, v in DEFAULTS.items()],
        )

    assert orphaned(altered(name, DEFAULTS[name])) == []
    assert orphaned(altered(f"{name}_", DEFAULTS[name])) == [name]
    assert orphaned(altered(name, "other")) == [name]


SMOKE = [replace(task, name=f"tiny {task.name}") for task in PRESETS["smoke"][0]]


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    "The smoke preset's tasks, three methods, and what they found."
    found = [t for task in SMOKE for m in ("fixed", "value_change", "auto") for t in final_trials(task, m, (), (0,))]
    return found, run_trials(found, tmp_path_factory.mktemp("store"))


def test_trials_are_recorded_a_file_a_task(trials, tmp_path):
    "In two goes, the second of which repeats one trial; then read in another order."
    asked, rows = trials
    save_trials(asked[:4], rows[:4], tmp_path)
    files = save_trials(asked[3:], rows[3:], tmp_path)
    assert len(list(tmp_path.iterdir())) == len(SMOKE) and {f.parent for f in files} == {tmp_path}
    assert load_trials(asked[::-1], tmp_path) == rows[::-1]
    assert sum(len(f.read_text().splitlines()) for f in tmp_path.iterdir()) == len(asked)


def test_the_same_trials_make_the_same_file(trials, tmp_path):
    asked, rows = trials
    for folder, order in (("a", 1), ("b", -1)):
        save_trials(asked[::order], rows[::order], tmp_path / folder)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_trial_that_was_not_recorded_is_named(trials, tmp_path):
    save_trials(*[part[:1] for part in trials], tmp_path)
    with pytest.raises(LookupError, match='"method": "adam"'):
        load_trials([replace(trials[0][0], method="adam")], tmp_path)
    with pytest.raises(LookupError, match="no record"):
        load_trials([Trial(Task("elsewhere"), "fixed")], tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t[: len(t) // 2],
        lambda t: t.replace('"rows"', '"row"'),
        lambda t: "[]\n" + t,
        lambda t: t.replace('"epochs": 3', '"epochs": 4'),
    ],
)
def test_an_unsound_record_is_refused(trials, tmp_path, damage):
    (file,) = save_trials(*[part[:1] for part in trials], tmp_path)
    file.write_text(damage(file.read_text()))
    with pytest.raises((ValueError, LookupError), match="not a sound record|no record"):
        load_trials(trials[0][:1], tmp_path)


@pytest.fixture(scope="module")
def study():
    "The comparison of schedules, from its records."
    return compare(PRESETS["full"], partial(load_trials, folder=RUNS.parent / "trials"))


def shown_and_said_in(page):
    "What a notebook of the project shows and says, as one text."
    notebook = RUNS.parent.parent / "nbs" / page
    return "\n".join([*shown_in(notebook), said_in(notebook)])


def test_the_study_of_schedules_shows_what_its_records_give(study):
    page = shown_and_said_in("studies/schedules.ipynb")
    for rows in score_rows(study), beside_rows(study), ablation_rows(study):
        assert markdown_table(rows) in page
    with open(RUNS.parent / "schedules.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert table == [{name: str(value) for name, value in row.items()} for row in trial_rows(study)]
    assert len(read_trials(RUNS.parent / "trials")) == len(study.found) == 6 * 527


def test_what_is_said_of_the_study_of_schedules_is_so(study):
    "Counts of the cases that reached the target, wherever a page names them."

    def solved(method, column="untuned"):
        return study.solved(column, method)

    choose = (RUNS.parent.parent / "docs" / "howto" / "choose.md").read_text(encoding="utf-8")
    for line in (
        f"| `AutoPolicy` after a range test | {solved('auto')} | {solved('auto_layers')} |",
        f"| the same, its length not told | {solved('auto_open')} | |",
        f"| warm-up and cosine from 0.1 | {solved('cosine')} | |",
        f"| OneCycle | {solved('onecycle')} | |",
        f"| `ValueChangePolicy` from 0.001 to 0.1 | {solved('value_change')} | {solved('value_change_layers')} |",
        f"a fixed rate reached the target in {solved('fixed', 'tuned')} of 60, Adam in {solved('adam', 'tuned')}",
    ):
        assert line in choose
    assert (
        f"it solves {solved('auto_layers')} of 60 pairs of task and seed instead of {solved('auto')}"
        in shown_and_said_in("13_auto.ipynb")
    )
    page = shown_and_said_in("studies/schedules.ipynb")
    for said in (
        f"No untuned method solved more: {solved('auto_layers')} of 60 pairs",
        f"warm-up + cosine {solved('cosine')} and OneCycle {solved('onecycle')}",
        f"Adam with a tuned LR solved {solved('adam', 'tuned')} of 60",
        f"the training loss, which costs nothing, solves {solved('value_change, training loss', 'tuned')} pairs and MI "
        f"{solved('value_change', 'tuned')}",
        f"{solved('auto')} with MI, {solved('auto, probe accuracy')} with probe accuracy",
    ):
        assert said in page, said
    lines = {(line["ours"], line["task"]): line for line in beside_rows(study)}
    assert {line["verdict"] for line in lines.values()} == {"worse", "not decided"}
    worse = [key for key, line in lines.items() if line["verdict"] == "worse"]
    one, layers = "MI: AutoPolicy", "MI: AutoPolicy, a LR a layer"
    assert worse == [(one, "fashion"), (one, "cifar10"), (layers, "fashion")]
    assert lines[one, "mnist"]["seeds won"] == "0 of 10"
    said = said_in(RUNS.parent.parent / "nbs" / "studies" / "schedules.ipynb").replace(" points]", "]")
    for key in ((layers, "fashion"), (layers, "cifar10"), (one, "mnist")):
        assert lines[key]["ours minus it (points)"] in said, key


def test_the_study_of_sensitivity_judges_differences_of_the_same_seed():
    "Its table again, from its CSV."
    ends = {}
    with open(RUNS.parent / "sensitivity.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):  # of a run the last epoch stays
            ends.setdefault(row["row"], {})[row["seed"]] = 100 * float(row["test_accuracy"])
    fixed, control = ends.pop("fixed LR"), ends.pop("as in Figure 3")

    def minus_control(row):
        return paired_interval([row[seed] - control[seed] for seed in control.keys() & row.keys()])

    intervals = {name: minus_control(row) for name, row in ends.items()}
    lines = [
        {"": name, "seeds": i.n, "minus the first row (points)": str(i), "verdict": judge_tie(i)}
        for name, i in intervals.items()
    ]
    page = shown_and_said_in("studies/sensitivity.ipynb")
    assert len(lines) == 9 and markdown_table(lines) in page
    gain = paired_interval([control[seed] - fixed[seed] for seed in fixed])
    assert f"The first row minus the fixed LR: {gain} points (seeds: {gain.n})" in page
