"""Every CUDA branch that runs without a GPU: the CPU's values, and where it synchronises.

Nowhere inside the batch loop, and a stated number of times an estimate.
`fake_cuda` says what it cannot see.
"""

import warnings
from dataclasses import replace
import pytest, torch
from milr import LayerProbe, MutualInformationLR, ValueChangePolicy, mutual_information, reference_mi
from milr.lab.data import load_dataset
from milr.lab import opponents, store
from milr.lab.models import build_model
from milr.lab.runs import run
from milr.lab.settings import Settings, run_hash
from milr.lab.rivals import METHODS, Trial, rows_of
from milr.lab.tasks import Task
from milr.lab.training import train
from tests.fake_cuda import fake_cuda

# Synchronisations of an estimate with labels (finite? how many share a label, twice; which classes? any, all of two
# members? largest k? ties?), of ties, and of a wide layer's products for each block of samples (which pairs may be the
# k-th, which are near it?).
ESTIMATE, TIES, WIDE = 8, 3, 2


@pytest.fixture
def gpu(monkeypatch):
    with fake_cuda(monkeypatch) as syncs, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield syncs


def samples(features):
    "Samples of four classes with ties and a copy, and their labels."
    x = torch.randn(200, features, generator=torch.Generator().manual_seed(0))
    y = torch.arange(200) % 4
    x[:, 0] += y
    x[:20] = x[:20].relu()
    x[30] = x[31]
    return x, y


def test_devices_are_not_mixed(gpu):
    x, y = samples(3)
    for mixed in (lambda: x.to("cuda") + x, lambda: torch.cat([x, x.to("cuda")]), lambda: x[y.to("cuda")]):
        with pytest.raises(RuntimeError, match="same device|indices should be"):
            mixed()
    assert (x.to("cuda") * torch.tensor(2.0))[y].device.type == "cuda"


def test_synchronisations_are_counted(gpu):
    x = samples(3)[0].to("cuda")
    for waits in (
        lambda: x.sum().item(),
        lambda: x.tolist(),
        lambda: x.cpu(),
        lambda: x.nonzero(),
        lambda: bool(x.any()),
        lambda: float(x[0, 0]),
        lambda: x[x > 0],
        lambda: torch.equal(x, x),
    ):
        gpu.clear()
        waits()
        assert gpu.total() == 1
    gpu.clear()
    (x @ x.T).relu().sum().to("cuda")
    assert gpu.total() == 0


@pytest.mark.parametrize(
    "features, options",
    [
        (1, {}),
        (4, {}),
        (4, dict(metric="chebyshev")),
        (50, {}),
        (50, dict(metric="chebyshev")),
        (100, {}),
        (100, dict(chunk=1000)),
        (4, dict(chunk=1000)),
        (4, dict(return_error=True)),
        (12, dict(projection="lda")),
    ],
)
def test_estimate(gpu, features, options):
    x, y = samples(features)
    here, there = mutual_information(x, y, **options), mutual_information(x.to("cuda"), y, **options)
    if not options.get("return_error"):
        here, there = [here], [there]
    for a, b in zip(here, there):
        assert b.device.type == "cuda" and float(b) == pytest.approx(float(a), abs=1e-9)


@pytest.mark.parametrize("algorithm", [1, 2])
def test_estimate_of_a_continuous_variable(gpu, algorithm):
    x, y = samples(3)[0], samples(4)[0][:, :1]
    here, there = [mutual_information(x.to(d), y, algorithm=algorithm) for d in ("cpu", "cuda")]
    assert float(there) == pytest.approx(float(here), abs=1e-9)


@pytest.mark.parametrize(
    "features, metric, more",
    [
        (2, "euclidean", 0),
        (4, "euclidean", 0),
        (2, "chebyshev", 0),
        (4, "chebyshev", 0),
        (100, "euclidean", WIDE),
        (100, "chebyshev", 0),
    ],
)
def test_an_estimate_waits_a_stated_number_of_times(gpu, features, metric, more):
    x = torch.randn(200, features, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(200) % 4).to("cuda")
    ties = x.round() * (torch.arange(features) < 4)  # the rest of a wide layer is dead
    for v, expected in ((x, ESTIMATE + more), (ties, ESTIMATE + TIES + more)):
        v = v.to("cuda")
        gpu.clear()
        mutual_information(v, y, metric=metric)
        assert gpu.total() == expected, gpu


@pytest.mark.parametrize("tiles", [None, 1, 2])
def test_reference(gpu, tiles):
    x, y = samples(4)
    here, there = [reference_mi(x.to(d), y, tiles=tiles) for d in ("cpu", "cuda")]
    assert there.device.type == "cuda" and float(there) == pytest.approx(float(here), abs=1e-9)


def parts(device, layers="all"):
    "A network without dropout, whose masks are a device's own, its probe and its data."
    data = load_dataset("digits")
    x, y = data.inputs()[:300].double().to(device), data.labels()[:300].to(device)
    model = build_model("mnist_cnn", tuple(x.shape[1:]), width=0.25, dropout=0.0).double().to(device)
    return model, LayerProbe(model, x, y, layers=layers, samples=150), x, y


def test_probe(gpu):
    "All layers at once: positions, order and values; one transfer of numbers for all of them."
    (here, there), (ixy, same) = zip(*[(p(), p.reference()) for p in (parts(d)[1] for d in ("cpu", "cuda"))])
    assert list(there) == list(here) and there == pytest.approx(here, abs=1e-9) and same == pytest.approx(ixy, abs=1e-9)


def epochs(device, n=2):
    "The rows of a short training, and the synchronisations of its batch loops."
    model, probe, x, y = parts(device, "output")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    scheduler = MutualInformationLR(optimizer, ValueChangePolicy(lr_min=0.01, lr_max=0.1), probe=probe)
    return list(train(model, optimizer, scheduler, probe, x, y, x[:100], y[:100], n, batch_size=50))


def test_training_epoch(gpu):
    for here, there in zip(epochs("cpu"), epochs("cuda")):
        for name in ("loss", "accuracy", "lr", "mi"):
            assert there[name] == pytest.approx(here[name], abs=1e-9)


def test_the_batch_loop_does_not_wait(gpu):
    "More batches, as many synchronisations."
    count = []
    for batch_size in (150, 10):
        model, probe, x, y = parts("cuda", "output")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scheduler = MutualInformationLR(optimizer, ValueChangePolicy(lr_min=0.01, lr_max=0.1), probe=probe)
        gpu.clear()
        list(train(model, optimizer, scheduler, probe, x, y, x[:100], y[:100], 1, batch_size))
        count.append(gpu.total())
    assert count[0] == count[1] and not any(where.startswith("data.py") for where in gpu), gpu


class GpuRandom:
    "A GPU's own random numbers, which the stand-in lacks: a state that is taken, and put back."

    def __init__(self, monkeypatch):
        self.state = torch.arange(16, dtype=torch.uint8)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device=None: self.state.clone())
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.put)

    def put(self, state, device=None):
        self.state = state.clone()


RUN = Settings(
    dataset="digits", n_train=100, n_test=50, width=0.25, epochs=3, batch_size=20, probe_size=50, dropout=0.0
)


@pytest.mark.parametrize(
    "more", [{}, dict(layerwise=True), dict(method="fixed", momentum=0.9), dict(signal="probe accuracy")]
)
def test_run(gpu, tmp_path, more):
    "The history of a run is the CPU's, up to the rounding of sums in another order."
    here, there = (run(replace(RUN, device=device, **more), tmp_path) for device in ("cpu", "cuda"))
    assert there.info["device"] == "a GPU that is not there" and there.info["IXY"] == pytest.approx(
        here.info["IXY"], abs=1e-9
    )
    for a, b in zip(here.rows, there.rows, strict=True):
        assert b["lr"] == pytest.approx(a["lr"]) and b["mi"] == pytest.approx(a["mi"], abs=1e-6)
        assert (b["loss"], b["accuracy"]) == pytest.approx((a["loss"], a["accuracy"]), abs=1e-6)


@pytest.mark.parametrize("more", [dict(dropout=1.0), dict(dtype="bfloat16")])
def test_run_with_what_a_device_does_its_own_way(gpu, tmp_path, more):
    "Masks and rounding are a device's own: here only that it runs, and learns."
    losses = run(replace(RUN, device="cuda", method="fixed", lr=0.1, epochs=6, **more), tmp_path).series("loss")
    assert losses[-1] < losses[0]


def test_a_run_goes_on_with_the_gpus_random_numbers(gpu, tmp_path, monkeypatch):
    "Interrupted after its second checkpoint, with the GPU's numbers moved on since: they are put back."
    random, s = GpuRandom(monkeypatch), replace(RUN, device="cuda")

    def stop(s, row):
        random.state = random.state + 1
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(s, tmp_path, stop, save_every=0)
    kept = store.load_checked(tmp_path / run_hash(s) / "state.pt")["gpu"]
    assert kept.tolist() == list(range(2, 18)) and random.state.tolist() == list(range(3, 19))
    seen = []
    went_on = run(s, tmp_path, lambda s, row: seen.append((row["epoch"], random.state.tolist())))
    assert seen == [(2, kept.tolist())]
    assert went_on.series("accuracy") == run(s, tmp_path / "whole").series("accuracy")


SCHEDULED = Task(n_train=100, n_val=50, n_test=50, epochs=3)
KINDS = ("adam", "plateau", "prodigy", "schedulefree_adamw", "averaged_cosine, kept", "range_cosine, 1/2", "held")


@pytest.mark.parametrize("method", KINDS)
def test_trial(gpu, method, monkeypatch):
    "A method of the comparison of schedules gives what it gives on a CPU; information tests are shorter here."
    if METHODS[method].needs:
        pytest.importorskip(METHODS[method].needs)
    monkeypatch.setattr(opponents, "FIRST_STEPS", 20)
    here, there = (list(rows_of(Trial(SCHEDULED, method, device=device))) for device in ("cpu", "cuda"))
    for a, b in zip(here, there, strict=True):
        for name in ("lr", "loss", "val", "test", "epochs"):
            assert b[name] == pytest.approx(a[name], abs=1e-6)
