"Two processes on gloo: one decision, the same bits, and errors that reach every rank."

import json, os, subprocess, sys
from pathlib import Path

import pytest, torch.distributed as dist
from filelock import FileLock

here = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs torch.distributed with gloo"
)


def torchrun(*args):
    env = dict(
        os.environ,
        OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
        PYTHONPATH=os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")]),
    )
    cmd = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, args)]
    done = subprocess.run(cmd, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    "What both processes saw; run once, also when pytest itself runs in several processes."
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with FileLock(base / "ranks.lock"):
        if not (base / "rank1").exists():
            torchrun(here / "distributed_worker.py", base / "rank")
    return [json.loads((base / f"rank{r}").read_text()) for r in range(2)]


def test_replicas_with_different_noise_hold_the_same_bits(ranks):
    a, b = (r["replicas"] for r in ranks)
    assert a["own"] != b["own"], "the ranks should measure different numbers by themselves"
    assert (
        a["bits"] == b["bits"]
        and a["history"] == b["history"]
        and a["weights"] == b["weights"]
        and a["reference"] == b["reference"]
    )
    assert a["measured"] == 5 and b["measured"] == 0, "only the first rank measures"


def test_given_measurements_are_the_first_ranks(ranks):
    a, b = (r["given"] for r in ranks)
    assert a == b and a["mi"] == [1.0, 2.0, 2.5, 2.6]


def test_different_learning_rates_raise_on_every_rank(ranks):
    for r in ranks:
        assert r["mismatch"].startswith(
            "RuntimeError: the ranks train with different learning rates: {0: [0.001], 1: [0.07]}"
        )


def test_a_failed_measurement_reaches_every_rank(ranks):
    assert ranks[0]["failure"] == "RuntimeError: no memory left"
    assert (
        ranks[1]["failure"] == "RuntimeError: rank 0 could not decide the learning rate: RuntimeError: no memory left"
    )
    assert ranks[0]["after failure"] == ranks[1]["after failure"]


@pytest.mark.parametrize("kind", ["fully_shard", "FullyShardedDataParallel"])
def test_sharded_weights(ranks, kind):
    if kind not in ranks[0]:
        pytest.skip("this torch cannot do it on CPUs")
    a, b = (r[kind] for r in ranks)
    assert a["collective"] and a["bits"] == b["bits"]
    assert a["same"] and b["same"], "a sharded model should measure as a whole one does"
    assert not a["trace"] and not b["trace"], "measuring changed the training"


def test_example_runs():
    example = here.parent / "examples" / "distributed.py"
    assert len(example.read_text().splitlines()) < 60
    out = torchrun(example)
    assert "the same learning rate on every process: True" in out and out.count("LR ") == 12
