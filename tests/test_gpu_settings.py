"What a run asks of a GPU, as far as a machine without one can tell: its device, its switches, how many share it."

import subprocess, sys
from dataclasses import replace
import pytest, torch
from milr.lab import devices, runs, store
from milr.lab.devices import gpu_arithmetic, run_bytes, runs_that_fit
from milr.lab.runs import run, run_all
from milr.lab.settings import Settings, check_device, run_hash
from milr.lab.models import build_model

SMALL = Settings(dataset="digits", n_train=100, n_test=50, width=0.25, epochs=2, batch_size=20, probe_size=50)
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens where there is no GPU")


@NO_GPU
def test_a_machine_without_a_gpu_plans_for_one(tmp_path):
    "The settings can be built and named; running them is refused before any file is written."
    planned = replace(SMALL, device="cuda")
    assert len(run_hash(planned)) == 16
    with pytest.raises(ValueError, match="'cuda' is not available on this machine"):
        run(planned, tmp_path)
    with pytest.raises(ValueError, match="is not available"):
        run_all([planned], tmp_path / "all")
    assert not list(tmp_path.glob("*/settings.json"))


@pytest.mark.parametrize("device", ["mps:3", "cuda:99"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ValueError, match="is not available on this machine"):
        check_device(device)


def test_one_gpu_is_as_good_as_another():
    "The index of a GPU decides nothing, also that of a run which is continued."
    longer = lambda device: replace(SMALL, epochs=4, device=device, continues=replace(SMALL, device=device))
    assert (
        run_hash(longer("cuda")) == run_hash(longer("cuda:0")) == run_hash(longer("cuda:1")) != run_hash(longer("cpu"))
    )


def test_a_cpu_run_keeps_no_state_of_a_gpu(tmp_path, monkeypatch):
    "Not even where there are GPUs: its checkpoint must load on a machine with fewer."
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: pytest.fail("asked for the state of every GPU"))
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: pytest.fail("set the state of every GPU"))
    run(SMALL, tmp_path)
    assert store.load_checked(tmp_path / run_hash(SMALL) / "state.pt")["gpu"] is None


def test_building_a_model_seeds_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded the GPUs"))
    build_model("mnist_cnn", (1, 8, 8), width=0.25, seed=3)


def test_a_run_computes_in_true_float32_and_puts_the_switches_back(tmp_path, monkeypatch):
    seen, before = (
        [],
        (torch.backends.cudnn.deterministic, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
    )

    def look(s, row):
        seen.append(
            (torch.backends.cudnn.deterministic, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
        )

    for tf32 in (False, True):
        run(replace(SMALL, epochs=1, tf32=tf32), tmp_path, look)
    assert seen == [(True, False, False), (True, True, True)]
    assert before == (
        torch.backends.cudnn.deterministic,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )
    with pytest.raises(KeyError), gpu_arithmetic(True):
        raise KeyError
    assert before == (
        torch.backends.cudnn.deterministic,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has the older switches only")
def test_the_newer_switches_of_torch_may_be_in_use():
    "Torch refuses to read its older switches then."
    code = """
import torch
from milr.lab.devices import gpu_arithmetic
conv = torch.backends.cudnn.conv
conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = "ieee", "tf32"
with gpu_arithmetic(True): assert conv.fp32_precision == "tf32"
with gpu_arithmetic(False): assert torch.backends.cuda.matmul.fp32_precision == "ieee"
assert (conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision) == ("ieee", "tf32")"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tf32_is_part_of_the_run_and_not_of_old_records():
    assert run_hash(SMALL) != run_hash(replace(SMALL, tf32=True))
    assert "tf32" not in store.what_differs(SMALL) and store.what_differs(replace(SMALL, tf32=True))["tf32"]


def test_as_many_runs_as_fit(monkeypatch):
    "Free memory, cores and the cap decide; a wider network takes more."
    monkeypatch.setattr(devices, "cores", lambda: 16)
    one = run_bytes(SMALL)
    assert run_bytes(replace(SMALL, width=1.0)) > one and run_bytes(replace(SMALL, batch_size=5000)) > one
    assert [runs_that_fit([SMALL], int(n * one)) for n in (0.5, 2.3, 3.4, 1000)] == [1, 2, 3, devices.MOST_ON_A_GPU]


def test_runs_share_a_gpu_by_default(tmp_path, monkeypatch):
    "Without jobs as many as fit; with jobs or MILR_JOBS what was asked for."
    asked = []
    monkeypatch.setattr(runs, "in_processes", lambda function, todo, jobs, on_row: asked.append(jobs))
    monkeypatch.setattr(runs, "run", lambda s, *_: s)
    monkeypatch.setattr(runs, "check_device", lambda device: None)
    monkeypatch.setattr(devices, "cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * run_bytes(SMALL), 2**40))
    monkeypatch.delenv("MILR_JOBS", raising=False)
    many = [replace(SMALL, device="cuda", seed=i) for i in range(5)]
    run_all(many, tmp_path)
    run_all(many, tmp_path, jobs=4)
    monkeypatch.setenv("MILR_JOBS", "5")
    run_all(many, tmp_path)
    assert asked == [2, 4, 5]
