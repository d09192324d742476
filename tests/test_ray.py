"Runs sent to Ray have the results of runs in this process."

from dataclasses import replace
import pytest
from milr.lab.runs import run_all
from milr.lab.settings import Settings, run_hash

try:
    import ray
except ImportError:
    ray = None
pytestmark = pytest.mark.skipif(
    ray is None, reason="the optional package ray is not installed; pip install 'milr[ray]'"
)

SMALL = Settings(dataset="digits", n_train=200, n_test=100, width=0.25, epochs=2, batch_size=20, probe_size=100)


@pytest.fixture(scope="module")
def two_workers():
    "A local Ray of two CPUs; without it, `run_all` starts one of its own."
    for last in (False, True):  # Ray gives its own processes 30 seconds to start, which a busy machine may miss
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            break
        except Exception:
            ray.shutdown()
            if last:
                raise
    yield
    ray.shutdown()


def rows(runs):
    return [[{k: v for k, v in row.items() if k != "seconds"} for row in r.rows] for r in runs]


def test_same_results_as_serial(tmp_path, two_workers):
    "Dropout, a policy, a plan, and a run that continues another which nobody asked for."
    base = replace(SMALL, seed=2)
    many = [SMALL, replace(SMALL, seed=1, method="warmup"), replace(base, epochs=3, batch_size=50, continues=base)]
    serial, there = run_all(many, tmp_path / "serial", jobs=1), run_all(many, tmp_path / "ray", executor="ray")
    assert rows(there) == rows(serial)
    assert {p.name for p in (tmp_path / "ray").iterdir()} == {run_hash(s) for s in [*many, base]}


def test_store_is_shared(tmp_path, two_workers):
    "A stored run is read, not computed; one that continues it starts from the stored files."
    (first,) = run_all([SMALL], tmp_path, jobs=1)
    again, longer = run_all([SMALL, replace(SMALL, epochs=3, continues=SMALL)], tmp_path, executor="ray")
    assert again.rows == first.rows == longer.rows[:2]


def test_an_error_there_is_an_error_here(tmp_path, two_workers, monkeypatch):
    "A worker of another version refuses instead of storing a run under a wrong name."
    monkeypatch.setattr(
        "milr.lab.executors.run_hash", lambda s: "0" * 16
    )  # what this process believes; the workers know better
    with pytest.raises(RuntimeError, match="differs from the driver's"):
        run_all([SMALL], tmp_path, executor="ray")


def test_unknown_executor(tmp_path):
    with pytest.raises(ValueError, match='"processes", "ray" or "recorded"'):
        run_all([SMALL], tmp_path, executor="slurm")
