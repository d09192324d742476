"Runs survive kill -9, agree with themselves, and do not disturb each other."

import subprocess, sys
from dataclasses import replace
import pytest, torch
from milr.lab.executors import progress
from milr.lab.presets import preset_settings
from milr.lab.runs import run, run_all, run_grid
from milr.lab.settings import Settings, check_device, run_hash
from milr.lab.store import git_commit, load_record, save_record
from milr.lab.plots import run_rows

SMALL = Settings(dataset="digits", n_train=300, n_test=100, width=0.25, epochs=12, batch_size=10, probe_size=200)
SCRIPT = "import sys; from tests.test_experiments import *; run(SMALL, sys.argv[1], save_every=0)"


def strip(rows):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in rows]


def start(root, folder):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], cwd=root, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return strip(run(SMALL, tmp_path_factory.mktemp("whole")).rows)


def test_two_processes_at_once(root, tmp_path, undisturbed):
    "Both end well, with one result."
    both = [start(root, tmp_path) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    assert strip(run(SMALL, tmp_path).rows) == undisturbed


@pytest.mark.parametrize("name", ["state.pt", "result.pt"])
def test_damage_is_noticed(tmp_path, undisturbed, name):
    short = replace(SMALL, epochs=2)
    first = run(short, tmp_path)
    f = tmp_path / run_hash(short) / name
    f.write_bytes(f.read_bytes()[:-1] + b"!")
    if name == "state.pt":
        (tmp_path / run_hash(short) / "result.pt").unlink()
    with pytest.warns(UserWarning, match="damaged"):
        again = run(short, tmp_path)
    assert strip(again.rows) == strip(first.rows) == undisturbed[:2]


def test_a_redrawn_probe_resumes(tmp_path):
    "Which samples are drawn depends on the epoch, not on how often the process was started."
    s = replace(SMALL, epochs=4, redraw=True)
    whole = run(s, tmp_path / "a")

    def stop(s, row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(s, tmp_path / "b", stop, save_every=0)
    assert strip(run(s, tmp_path / "b").rows) == strip(whole.rows)
    assert [r["mi"] for r in whole.rows] != [r["mi"] for r in run(replace(s, redraw=False), tmp_path / "a").rows]


def test_same_seed_same_table(tmp_path):
    "Two computations of a figure's runs give the same table but for the seconds."
    kw, seeds = preset_settings("fig3", "smoke")
    a, b = (
        [
            {k: v for k, v in r.items() if k != "seconds"}
            for r in run_rows(run_grid(["fixed", "value_change"], seeds, tmp_path / i, **kw))
        ]
        for i in "ab"
    )
    assert a == b and len(a) == 6


def test_bad_parameters_leave_no_file(tmp_path, root):
    r = subprocess.run(
        [
            sys.executable,
            "-m",
            "milr",
            "figure",
            "fig3",
            "--preset",
            "smoke",
            "--dataset",
            "minst",
            "--out",
            tmp_path / "out",
        ],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert r.returncode == 1 and "dataset is 'minst'; expected one of" in r.stderr and "Traceback" not in r.stderr
    assert list(tmp_path.iterdir()) == []


FIXED, POLICY = Settings("fixed", epochs=2), Settings(epochs=2)


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(method="magic"), "unknown method 'magic'"),
        (dict(method="given", epochs=2), "a LR for each of 2 epochs"),
        (dict(epochs=-1), "epochs must be a whole number of at least 1, got -1"),
        (dict(epochs=2.5), "epochs must be a whole number of at least 1, got 2.5"),
        (dict(epochs=True), "epochs must be a whole number"),
        (dict(batch_size=0), "batch_size must be a whole number of at least 1"),
        (dict(n_train=-5), "n_train must be a whole number of at least 0, got -5"),
        (dict(k=0), "k must be a whole number of at least 1, got 0"),
        (dict(warmup_epochs=0, method="warmup"), "warmup_epochs must be a whole number of at least 1"),
        (dict(lr=0), "lr must be a finite number above 0, got 0"),
        (dict(lr=float("nan")), "lr must be a finite number above 0, got nan"),
        (dict(width="1"), "width must be a finite number"),
        (dict(momentum=-0.1), "momentum must be a finite number of at least 0"),
        (dict(gammas=(1,)), r"gammas must be \(γ1, γ2\) or"),
        (dict(device="tpu9"), "unknown device 'tpu9'"),
        (dict(device="meta"), "unknown device 'meta'; choose cpu, cuda or mps"),
        (dict(device=None), "unknown device None"),
        (dict(continues=FIXED, epochs=4), "'fixed' keeps none; let it continue one of change"),
        (dict(continues=POLICY, epochs=2), "must exceed the 2 of the run it continues"),
        (dict(continues=POLICY, width=0.5), "width=0.5 is another network"),
        (dict(continues=POLICY, layerwise=True), "layerwise=True is another network"),
    ],
)
def test_bad_settings(bad, says):
    with pytest.raises(ValueError, match=says):
        Settings(**bad)


@pytest.mark.parametrize("device", ["mps", "cuda"])
def test_a_device_that_is_not_here(device, monkeypatch):
    for backend in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device '{device}' is not available on this machine; choose cpu"):
        check_device(device)


def test_a_plan_may_continue_a_policy_and_a_policy_a_policy():
    for method in ("fixed", "change"):
        assert Settings(method, epochs=4, continues=POLICY).continues == POLICY
    assert Settings("warmup", epochs=4, continues=FIXED).continues == FIXED


def test_the_bar_of_a_resumed_run_starts_where_it_stands(tmp_path, monkeypatch):
    "Two of four epochs are in the checkpoint; of a continued run only its own epochs count."
    seen = []

    def note(total, desc, done):
        seen.append((total, done))
        return progress(total, desc, done)

    monkeypatch.setattr("milr.lab.executors.progress", note)
    four = replace(SMALL, epochs=4, n_train=100)

    def stop(s, row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(four, tmp_path, stop, save_every=0)
    run_all([four, replace(four, seed=1)], tmp_path, jobs=1)
    assert seen == [(8, 2)]
    five = replace(four, epochs=5, continues=four)
    run_all([five], tmp_path, jobs=1)
    assert seen[1:] == [(1, 0)]


@pytest.mark.parametrize("seeds", [0, -1, 1.5, True, "two"])
def test_bad_seeds(seeds):
    with pytest.raises(ValueError, match="seeds must be"):
        preset_settings("fig3", "smoke", seeds=seeds)


def test_unknown_preset(root):
    r = subprocess.run(
        [sys.executable, "-m", "milr", "figure", "fig3", "--preset", "fast"], cwd=root, capture_output=True, text=True
    )
    assert r.returncode == 2 and "invalid choice: 'fast'" in r.stderr


def test_parallel_runs_equal_serial_ones(tmp_path):
    "Two worker processes give what one process gives, also for runs that continue the same run."
    first = replace(SMALL, epochs=2)
    many = [first, replace(first, seed=1), *(replace(SMALL, epochs=3, batch_size=b, continues=first) for b in (10, 30))]
    a, b = run_all(many, tmp_path / "a", jobs=2), run_all(many, tmp_path / "b", jobs=1)
    assert [strip(r.rows) for r in a] == [strip(r.rows) for r in b]


def test_records(tmp_path):
    "What was recorded is read again exactly, also of a run that continues another; what was not is named."
    one = replace(SMALL, epochs=2)
    more = replace(one, epochs=3, batch_size=30, continues=one)
    first = run_all([one, more], tmp_path, jobs=1, records=tmp_path / "records")
    again = run_all(
        [replace(one, device="cpu:0"), more], tmp_path / "empty", executor="recorded", records=tmp_path / "records"
    )
    assert [(r.rows, r.info) for r in again] == [(r.rows, r.info) for r in first] and not (tmp_path / "empty").exists()
    with pytest.raises(LookupError, match="is not among the records .*'seed': 1"):
        run_all([one, replace(one, seed=1)], executor="recorded", records=tmp_path / "records")
    with pytest.raises(ValueError, match="MILR_RECORDS"):
        run_all([one], executor="recorded")


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t[: len(t) // 2],
        lambda t: t.replace('"seed"', '"sown"'),
        lambda t: "[]",
        lambda t: t.replace('"epoch": 1', '"epoch": 7'),
    ],
)
def test_unsound_record(tmp_path, damage):
    s = replace(SMALL, epochs=2, seed=5)
    path = save_record(run(s, tmp_path), tmp_path)
    sound = path.read_text()
    path.write_text(damage(sound))
    assert path.read_text() != sound
    with pytest.raises(ValueError, match="not a sound record"):
        load_record(s, tmp_path)


def test_an_error_in_a_worker_ends_the_call(tmp_path):
    with pytest.raises(ValueError, match="at least 6×6|cannot draw"):
        run_all([replace(SMALL, n_train=10**6, seed=i) for i in range(3)], tmp_path, jobs=2)


def test_the_commit(root, tmp_path, monkeypatch):
    "Of a clone's root, marked when milr/ differs; None elsewhere and without git."
    git = lambda *a: subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *a],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert git_commit(tmp_path) is None
    (tmp_path / "milr").mkdir()
    (tmp_path / "milr" / "a.py").write_text("1\n")
    (tmp_path / "b.txt").write_text("1\n")
    git("init")
    assert git_commit(tmp_path) is None
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD")
    (tmp_path / "b.txt").write_text("2\n")
    assert git_commit(tmp_path) == head and git_commit(tmp_path / "milr") is None
    (tmp_path / "milr" / "a.py").write_text("2\n")
    assert git_commit(tmp_path) == head + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) is None
