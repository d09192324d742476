"LayerProbe: every kind of network it promises to measure, and no trace in any of them."

import math, os, random, subprocess, sys, threading, warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np, pytest, torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from milr.mi import mutual_information
from milr.lab.models import build_model, cifar10_cnn, mnist_cnn
from milr.forward import clean_name, kept_random_state, unwrap
from milr.layers import in_passes
from milr.probe import LayerProbe, to_probabilities
from milr.reference import reference_mi
from milr.vision import get_torchvision
from tests.memory import linux

torch.set_num_threads(1)
gen = torch.Generator().manual_seed(0)
Y = torch.arange(90) % 3
X = torch.randn(90, 6, generator=gen) + Y[:, None]
IMAGES = torch.rand(90, 1, 8, 8, generator=gen) + Y[:, None, None, None] / 3


def mlp():
    return nn.Sequential(
        OrderedDict(a=nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout()), out=nn.Linear(8, 3))
    )


# --- no side effects ---------------------------------------------------------------------------------------------


def state_of(model):
    "Everything a measurement could change."
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    hooks = [
        [
            list(getattr(m, h))
            for h in (
                "_forward_hooks",
                "_forward_pre_hooks",
                "_backward_hooks",
                "_backward_pre_hooks",
                "_forward_hooks_with_kwargs",
                "_forward_hooks_always_called",
            )
        ]
        for m in model.modules()
    ]
    t = lambda v: (
        None if v is None else (id(v), v.detach().cpu().reshape(-1).clone().view(torch.uint8).numpy().tobytes())
    )
    return dict(
        params=[t(p) for p in model.parameters()],
        grads=[t(p.grad) for p in model.parameters()],
        buffers=[t(b) for b in model.buffers()],
        needs=[p.requires_grad for p in model.parameters()],
        training=[m.training for m in model.modules()],
        hooks=hooks,
        rng=[torch.get_rng_state().numpy().tobytes(), *(c.numpy().tobytes() for c in cuda)],
        python=random.getstate(),
        numpy=str(np.random.get_state()),
        grad=torch.is_grad_enabled(),
        inference=torch.is_inference_mode_enabled(),
        autocast=(torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()),
    )


class Noisy(nn.Module):
    "Draws, counts and writes in evaluation mode too, and raises when told to."

    def __init__(self, fail=None):
        super().__init__()
        self.body, self.head, self.fail, self.calls = mlp(), nn.Linear(3, 3), fail, 0
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("none", None)

    def forward(self, x):
        self.calls += 1
        self.count.add_(1)
        self.seen = self.seen + 1
        x = x + torch.rand(1) * random.random() * np.random.rand() * 0
        x = self.body(x)
        if self.fail == self.calls:
            raise RuntimeError("on purpose")
        return self.head(x)


def prepare(model):
    "Gradients, mixed training flags, a hook of the user's."
    nn.functional.cross_entropy(model(X), Y).backward()
    model.body.a[3].eval()
    model.body.a[1].eval()
    model.calls = 0
    model.head.register_forward_hook(lambda *a: None)
    for p in model.body.a[0].parameters():
        p.requires_grad_(False)


@pytest.mark.parametrize("layers", ["output", "all", ["body.a", "body.a.0"]])
@pytest.mark.parametrize("fail", [None, 1, 2, 3])
def test_leaves_no_trace(layers, fail):
    model = Noisy()
    prepare(model)
    model.fail = fail
    probe = LayerProbe(model, X, Y, layers=layers, batch_size=25)
    before = state_of(model)
    if fail:
        pytest.raises(
            RuntimeError,
            probe,
        ).match("on purpose")
    else:
        probe()
    assert state_of(model) == before


def test_no_trace_when_a_hook_raises():
    "A layer whose activations have no sample axis makes the probe's own hook raise."
    model = nn.Sequential(nn.Linear(6, 4), nn.Flatten(0), nn.Unflatten(0, (90, 4)), nn.Linear(4, 3))
    model = nn.Sequential(
        OrderedDict(a=nn.Linear(6, 4), b=nn.Flatten(0), c=nn.Unflatten(0, (-1, 4)), d=nn.Linear(4, 3))
    )
    before = state_of(model)
    with pytest.raises(ValueError, match="samples along the first axis"):
        LayerProbe(model, X, Y, layers=["b"])()
    assert state_of(model) == before


def test_training_is_the_same_with_a_probe():
    "A run that measures between forward and backward ends with the same bits as one that does not."

    def train(measure):
        torch.manual_seed(3)
        model = Noisy()
        opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        probe = LayerProbe(model, X, Y, layers="all")
        for _ in range(5):
            loss = nn.functional.cross_entropy(model(X), Y)
            if measure:
                probe()
            opt.zero_grad()
            loss.backward()
            opt.step()
            if measure:
                probe()
        return [v.clone() for v in [*model.parameters(), *model.buffers()]]

    assert all(torch.equal(a, b) for a, b in zip(train(False), train(True)))


def test_between_forward_and_backward_with_frozen_batch_norm():
    "Running statistics saved for backward are not written to."
    model = mlp()
    model.a[1].eval()
    loss = model(X).sum()
    LayerProbe(model, X, Y)()
    loss.backward()


def test_concurrent_probes():
    model = mlp()
    probe = LayerProbe(model, X, Y, layers="all")
    want = probe()
    got = []
    threads = [threading.Thread(target=lambda: got.append(probe())) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == [want] * 8 and all(m.training for m in model.modules())


# --- autocast and compile ----------------------------------------------------------------------------------------


def test_inside_autocast_measures_the_same_and_keeps_gradients():
    model = mlp()
    probe = LayerProbe(model, X, Y, layers="all")
    want = probe()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = state_of(model)
        assert probe() == want and state_of(model) == before
        loss = model(X).float().sum()  # a cast cached without gradient would leave the weight without one
    loss.backward()
    assert model.out.weight.grad is not None


def test_autocast_on_request():
    model = mlp()
    plain, half = LayerProbe(model, X, Y), LayerProbe(model, X, Y, autocast=torch.bfloat16)
    before = state_of(model)
    h = half()["output"]
    assert state_of(model) == before and math.isfinite(h) and abs(h - plain()["output"]) < 0.3


def test_compiled_models_are_measured_uncompiled():
    graphs = []

    def backend(gm, inputs):
        graphs.append(gm)
        return gm.forward

    torch._dynamo.reset()
    model = nn.Sequential(
        OrderedDict(a=nn.Sequential(nn.Linear(6, 8), nn.ReLU()), out=nn.Linear(8, 3))
    )  # training leaves no statistics in it
    want = LayerProbe(model, X, Y, layers="all")()
    whole = torch.compile(model, backend=backend)
    assert LayerProbe(whole, X, Y, layers="all")() == want and not graphs
    whole(X)
    n = len(graphs)
    assert n
    before = state_of(whole)
    assert LayerProbe(whole, X, Y, layers="all")() == want
    assert state_of(whole) == before
    whole(X)
    assert len(graphs) == n, "the measurement made torch compile again"
    model.compile(backend=backend)  # in place
    model(X)
    n = len(graphs)
    assert LayerProbe(model, X, Y, layers="all")() == want
    model(X)
    assert len(graphs) == n
    part = nn.Sequential(OrderedDict(a=nn.Sequential(nn.Linear(6, 8), nn.ReLU()), out=nn.Linear(8, 3)))
    part.load_state_dict(model.state_dict())
    part.a = torch.compile(part.a, backend=backend)  # only a block
    assert LayerProbe(part, X, Y, layers=["a"])() == pytest.approx({"a": want["a"]})
    assert list(LayerProbe(part, X, Y, layers="all")()) == ["a", "out"]
    torch._dynamo.reset()


def test_wrappers_and_names():
    model = mlp()
    assert unwrap(nn.DataParallel(model)) is model and clean_name("a._orig_mod.0") == "a.0"
    assert LayerProbe(nn.DataParallel(model), X, Y, layers="all")() == LayerProbe(model, X, Y, layers="all")()


# --- what is a layer ---------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bn, self.act = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True)
        self.inner, self.bn2, self.head = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.act(self.bn(self.stem(x)))
        return self.head(self.act(self.bn2(self.inner(x)) + x))


def grab(model, module, x, nth=1):
    seen = []
    h = module.register_forward_hook(lambda m, i, o: seen.append(o.detach().clone()))
    model.eval()
    with torch.no_grad():
        model(x)
    h.remove()
    model.train()
    return seen[nth - 1]


def test_residual_network_with_shared_inplace_relu():
    "The stem is measured behind norm and ReLU (its first run); the inner layer behind its norm, before the sum."
    model = Residual()
    got = LayerProbe(model, X, Y, layers="all")()
    assert list(got) == ["stem", "inner", "head"]
    assert got["stem"] == mutual_information(grab(model, model.act, X), Y).item()
    assert got["inner"] == mutual_information(grab(model, model.bn2, X), Y).item()
    assert got["head"] == mutual_information(to_probabilities(grab(model, model.head, X)), Y).item()


def test_flat_and_blocked_models_agree():
    torch.manual_seed(0)
    flat = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    block = nn.Sequential(nn.Sequential(flat[0], flat[1]), flat[2], flat[3], nn.Sequential(flat[4], flat[5]), flat[6])
    a, b = (LayerProbe(m, IMAGES, Y, layers="all")() for m in (flat, block))
    assert list(a) == ["0", "4", "6"] and list(b) == ["0", "3", "4"] and list(a.values()) == list(b.values())


def test_names():
    model = Residual()
    got = LayerProbe(model, X, Y, layers=["head", "stem", "act", "output"])()
    everything = LayerProbe(model, X, Y, layers="all")()
    assert got["stem"] == everything["stem"] and got["head"] == everything["head"]
    assert got["act"] == mutual_information(grab(model, model.act, X, nth=2), Y).item()  # the last run
    assert LayerProbe(model, X, Y)() == {"output": everything["head"]}
    nested = Noisy()
    assert list(LayerProbe(nested, X, Y, layers=["body.a.0"])()) == ["body.a.0"]


def test_forward_order_not_registration_order():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first, self.unused = nn.Linear(4, 3), nn.Linear(6, 4), nn.Linear(2, 2)

        def forward(self, x):
            return self.last(self.first(x).relu())

    assert list(LayerProbe(Backwards(), X, Y, layers="all")()) == ["first", "last"]
    with pytest.raises(ValueError, match="unused.*did not run"):
        LayerProbe(Backwards(), X, Y, layers=["unused"])()


def test_the_papers_networks():
    assert list(LayerProbe(mnist_cnn((1, 8, 8), width=1 / 8), IMAGES, Y, layers="all")()) == [
        "conv1",
        "conv2",
        "dense1",
        "output",
    ]
    net = cifar10_cnn(in_shape=(1, 32, 32), width=1 / 16)
    got = LayerProbe(net, nn.functional.interpolate(IMAGES, (32, 32)), Y, layers="all")()
    assert list(got) == [*(f"conv{i}" for i in range(1, 9)), "output"]
    assert (
        got["output"] == LayerProbe(net, nn.functional.interpolate(IMAGES, (32, 32)), Y)()["output"]
    )  # behind the average pool


# --- kinds of networks -------------------------------------------------------------------------------------------


def finite(result):
    assert result and all(math.isfinite(v) for v in result.values())
    return result


def test_recurrent():
    class Rnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(2, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x):
            return self.out(self.rnn(x)[0][:, -1])

    assert list(finite(LayerProbe(Rnn(), X.reshape(90, 3, 2), Y, layers="all")())) == ["rnn", "out"]


def test_attention():
    enc = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2, enable_nested_tensor=False)
    model = nn.Sequential(OrderedDict(embed=nn.Linear(2, 4), enc=enc, flat=nn.Flatten(), out=nn.Linear(12, 3)))
    x = X.reshape(90, 3, 2)
    got = finite(LayerProbe(model, x, Y, layers="all")())
    assert "enc.layers.1.linear2" in got and "enc.layers.0.self_attn" in got and list(got)[-1] == "out"
    assert got["out"] == pytest.approx(LayerProbe(model, x, Y)()["output"], abs=0.05)


def test_several_outputs():
    class Two(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind, self.a, self.b = kind, nn.Linear(6, 3), nn.Linear(6, 2)

        def forward(self, x):
            a, b = self.a(x), self.b(x)
            return {"dict": dict(first=a, second=b), "tuple": (a, b), "logits": dict(logits=a, h=b)}[self.kind]

    model = Two("dict")
    with pytest.raises(TypeError, match=r"\['first', 'second'\].*output="):
        LayerProbe(model, X, Y)()
    a = LayerProbe(model, X, Y, output="first")()
    model.kind = "tuple"
    assert LayerProbe(model, X, Y)() == a and LayerProbe(model, X, Y, output=1)() != a
    model.kind = "logits"
    assert LayerProbe(model, X, Y)() == a


def test_several_inputs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(6, 3)

        def forward(self, left, right):
            return self.out(left + right)

    model = Sum()
    want = LayerProbe(model, (X, X * 0), Y)()
    assert (
        want
        == LayerProbe(model, {"right": X * 0, "left": X}, Y)()
        == LayerProbe(model, (X.numpy(), X.numpy() * 0), Y.numpy())()
    )


def test_shared_layer_is_measured_at_its_last_run():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.out(torch.tanh(self.mix(torch.tanh(self.mix(x)))))

    model = Twice()
    got = LayerProbe(model, X, Y, layers="all")()
    assert got["mix"] == mutual_information(grab(model, model.mix, X, nth=2), Y).item()


def test_frozen_empty_lazy_quantised_scripted_and_parameterless():
    model = mlp()
    want = LayerProbe(model, X, Y, layers="all")()
    for p in model.parameters():
        p.requires_grad_(False)
    assert LayerProbe(model, X, Y, layers="all")() == want
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        empty = nn.Sequential(nn.Linear(6, 0), nn.Linear(0, 3))
    with pytest.raises(ValueError, match="layer '0'"):
        LayerProbe(empty, X, Y, layers="all")()
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match="lazy"):
        LayerProbe(lazy, X, Y)()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(mlp().eval(), {nn.Linear})
        assert finite(LayerProbe(quantised, X, Y, layers=["a", "output"])())
        scripted = torch.jit.script(mlp())
        assert finite(LayerProbe(scripted, X, Y)()) and scripted.training
        with pytest.raises(TypeError, match="scripted"):
            LayerProbe(scripted, X, Y, layers="all")()
        traced = torch.jit.trace(mlp().eval(), X)
        finite(LayerProbe(traced, X, Y)())
    assert finite(LayerProbe(nn.Flatten(), X, Y, transform=None)()) and finite(
        LayerProbe(nn.Linear(6, 3), X, Y, layers="all")()
    )


def test_half_and_double_models():
    for dtype in (torch.bfloat16, torch.float64):
        finite(LayerProbe(mlp().to(dtype), X.to(dtype), Y, layers="all")())


def test_dead_exploding_and_nan_activations():
    model = mlp()
    model.a[0].weight.data.zero_()
    model.a[0].bias.data.fill_(-1)
    got = LayerProbe(model, X, Y, layers="all")()  # all samples alike: nothing is known
    assert abs(got["a"]) < 0.1 and abs(got["out"]) < 0.1
    model.a[0].bias.data.fill_(math.nan)
    assert all(math.isnan(v) for v in LayerProbe(model, X, Y, layers="all")().values())
    model.a[0].bias.data.fill_(math.inf)
    assert all(math.isnan(v) for v in LayerProbe(model, X, Y, layers="all")().values())
    big = nn.Linear(6, 3)
    big.weight.data.mul_(1e30)
    finite(LayerProbe(big, X, Y)())


def test_one_class():
    with pytest.raises(ValueError, match="fewer than two classes"):
        LayerProbe(mlp(), X, Y * 0)
    with pytest.raises(ValueError, match="fewer than two classes"):
        LayerProbe(nn.Embedding(3, 3), Y[:, None].repeat(1, 4), torch.full((90, 4), -100))
    sorted_labels = torch.cat([torch.zeros(80), torch.ones(10)]).long()
    p = LayerProbe(
        mlp(),
        X,
        sorted_labels,
        samples=4,
        redraw=True,
        seed=next(
            s
            for s in range(99)
            if sorted_labels[torch.randperm(90, generator=torch.Generator().manual_seed(s))[:4]].any()
        ),
    )
    drawn = [p() for _ in range(12)]
    assert {"output": 0.0} in drawn and all(math.isfinite(d["output"]) for d in drawn)


# --- samples, positions, transforms ------------------------------------------------------------------------------


def test_subset_is_fixed_by_the_seed():
    model = mlp().eval()
    p = lambda **kw: LayerProbe(model, X, Y, samples=40, **kw)
    assert p()() == p()() != p(seed=1)()
    a = p()
    assert a() == a() and len(a.subset.inputs) == 40
    r = p(redraw=True)
    first, second = r(), r()
    assert first != second and r(draw=0) == first and r(draw=1) == second


def test_batch_size_and_memory_do_not_change_the_result():
    model = mlp()
    want = LayerProbe(model, X, Y, layers="all", batch_size=90)()
    for kw in (
        dict(batch_size=1),
        dict(batch_size=7),
        dict(memory=1),
        dict(memory=1, batch_size=64),
        dict(batch_size=1000),
    ):
        assert LayerProbe(model, X, Y, layers="all", **kw)() == pytest.approx(want, abs=1e-6)


def test_layers_that_do_not_fit_together_come_one_after_another():
    model, runs = mlp(), []
    model.register_forward_hook(lambda m, i, o: runs.append(len(o)))
    probe = LayerProbe(model, X, Y, layers="all", memory=90 * 8 * 4, batch_size=90)
    probe()
    runs.clear()
    probe()
    assert runs == [90]  # the output needs no memory of its own beside the first
    probe = LayerProbe(
        nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)),
        X,
        Y,
        layers="all",
        memory=1,
        batch_size=90,
    )
    assert len(in_passes(dict(a=2, b=2, c=0), 1)) == 2 and len(probe()) == 3


def test_sequences_and_segmentation():
    torch.manual_seed(0)
    tokens = torch.randint(0, 3, (60, 7))
    labels = tokens.clone()
    labels[:, -2:] = -100
    labels[0] = -100
    emb = nn.Embedding(3, 4)
    last = nn.Sequential(OrderedDict(e=emb, out=nn.Linear(4, 3)))
    p = LayerProbe(last, tokens, labels, layers="all", samples=100)
    got = finite(p())
    assert got["out"] == pytest.approx(p.reference(), abs=0.1)
    rows, place, pos = p.subset.draw(0)
    assert (
        len(place) == 100
        and (p.subset.labels_of((rows, place, pos)) >= 0).all()
        and len(set(zip(place.tolist(), pos.tolist()))) == 100
    )

    class First(nn.Module):  # (n, classes, positions), as cross entropy wants it
        def __init__(self):
            super().__init__()
            self.m = last

        def forward(self, x):
            return self.m(x).movedim(-1, 1)

    assert LayerProbe(First(), tokens, labels, samples=100)()["output"] == pytest.approx(got["out"])
    seg = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    x = torch.rand(20, 1, 8, 8)
    q = LayerProbe(seg, x, (x[:, 0] > 0.5).long(), layers="all", samples=200)
    assert finite(q()) and q.reference() == pytest.approx(1, abs=0.1)
    square = nn.Sequential(nn.Embedding(3, 7))
    y = tokens
    with pytest.raises(ValueError, match="channel_dim"):
        LayerProbe(square, tokens, y)()
    assert finite(LayerProbe(square, tokens, y, channel_dim=-1)()) != LayerProbe(square, tokens, y, channel_dim=1)()


def test_transforms():
    model = nn.Linear(6, 3)
    logits = model(X).detach()
    auto, none = LayerProbe(model, X, Y)()["output"], LayerProbe(model, X, Y, transform=None)()["output"]
    assert (
        auto == mutual_information(logits.double().softmax(1), Y).item()
        and none == mutual_information(logits, Y).item()
    )
    assert LayerProbe(nn.Sequential(model, nn.Softmax(1)), X, Y)()["output"] == pytest.approx(auto, abs=0.02)
    assert LayerProbe(model, X, Y, transform=lambda z: z * 0)()["output"] == pytest.approx(0, abs=0.1)
    binary = nn.Linear(6, 1)
    assert finite(LayerProbe(binary, X, (Y > 0).long())())
    target = X[:, :2] * 2
    assert LayerProbe(nn.Identity(), X[:, :2], target)()["output"] == mutual_information(X[:, :2], target).item()


def test_other_estimators():
    seen = []
    LayerProbe(mlp(), X, Y, layers="all", k=5, estimator=lambda x, y, k: seen.append((tuple(x.shape), k)) or 1.0)()
    assert seen == [((90, 8), 5), ((90, 3), 5)]


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args, kw, error, match",
    [
        ((mlp, X, Y), {}, TypeError, "nn.Module"),
        ((mlp(), X, Y[:5]), {}, ValueError, "must match"),
        ((mlp(), X, Y.tolist()), {}, TypeError, "tensor or array"),
        ((mlp(), X[:3], Y[:3]), {}, ValueError, "too few"),
        ((mlp(), X, torch.tensor(1)), {}, ValueError, "no samples"),
        ((mlp(), "abc", Y), {}, ValueError, "must match"),
        ((mlp(), X, Y), dict(layers="b"), ValueError, "no module is called 'b'"),
        ((mlp(), X, Y), dict(layers=[]), ValueError, "empty"),
        ((mlp(), X, Y), dict(samples=1), ValueError, "samples"),
        ((mlp(), X, Y), dict(batch_size=0), ValueError, "batch_size"),
        ((mlp(), X, Y), dict(transform="sigmoid"), ValueError, "transform"),
    ],
)
def test_refusals(args, kw, error, match):
    with pytest.raises(error, match=match):
        LayerProbe(*args, **kw)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    model = Noisy().cuda()
    probe = LayerProbe(model, X, Y, layers="all")
    before = state_of(model)
    got = finite(probe())
    assert state_of(model) == before
    assert got == pytest.approx(LayerProbe(model.cpu(), X, Y, layers="all")(), abs=0.05)


@linux
def test_memory_of_a_wide_convolution():
    "1000 samples of a 21,632-wide layer: under 1 GiB beyond that layer's own activations."
    code = """if True:
        import torch
        from torch import nn
        from tests.memory import peak
        from milr.probe import LayerProbe
        torch.set_num_threads(1)
        model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(21632, 10))
        x, y = torch.rand(1000, 1, 28, 28), torch.arange(1000) % 10
        LayerProbe(model, x[:50], y[:50], layers="all")()                    # imports and compiled code
        print(peak(LayerProbe(model, x, y, layers="all")) - 1000*21632*4/2**20)
    """
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=Path(__file__).parent.parent,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )
    assert out.returncode == 0, out.stderr[-2000:]
    assert -50 < float(out.stdout) < 1024, f"{out.stdout} MiB"


# --- loaders, data sets, streams ---------------------------------------------------------------------------------


class Pictures(Dataset):
    "A picture of its own number, under a random augmentation; `form` says how a sample comes."

    def __init__(self, form="tuple", n=90, seen=True):
        self.form, self.n = form, n
        if seen:
            self.targets = [i % 3 for i in range(n)]

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        x = X[i % 90] + 0 * torch.rand(1) * random.random() * np.random.rand()
        return (x, i % 3) if self.form == "tuple" else dict(pixels=x, label=i % 3, name=f"picture {i}")


class Stream(IterableDataset):
    def __iter__(self):
        return ((X[i], int(Y[i])) for i in range(90))


def pairs_of(source, **kw):
    "Inputs and labels that a probe has drawn, as a sorted list."
    subset = LayerProbe(mlp(), source, **kw).subset
    return sorted((*x.tolist(), y.item()) for x, y in zip(subset.inputs, subset.labels))


EVERYTHING = sorted((*x.tolist(), y.item()) for x, y in zip(X, Y))


@pytest.mark.parametrize(
    "source",
    [
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True),
        Pictures(),
        DataLoader(Pictures(), 8),
        DataLoader(Pictures("dict"), 8),
        Pictures("dict", seen=False),
        Stream(),
        DataLoader(Stream(), 16),
        DataLoader(TensorDataset(X, Y), batch_size=None, sampler=BatchSampler(range(90), 7, False)),
        Subset(TensorDataset(X, Y), range(90)),
        ConcatDataset([Subset(Pictures(), range(40)), Subset(Pictures(), range(40, 90))]),
    ],
    ids=[
        "tensors",
        "loader",
        "data set",
        "its loader",
        "dict loader",
        "dict data set",
        "stream",
        "stream loader",
        "batches",
        "subset",
        "joined",
    ],
)
def test_takes_what_a_training_loop_reads(source):
    assert pairs_of(source) == EVERYTHING
    drawn = pairs_of(source, samples=30)
    assert len(drawn) == 30 and set(drawn) <= set(EVERYTHING) and drawn == pairs_of(source, samples=30)
    assert LayerProbe(mlp(), source, samples=30)()["output"] > -1


def test_the_draw_is_stratified_and_keeps_to_the_samplers_part():
    rare = torch.tensor([0] * 700 + [1] * 200 + [2] * 100)
    loader = DataLoader(TensorDataset(torch.randn(1000, 6), rare), 50)
    for seed in range(3):
        assert LayerProbe(mlp(), loader, samples=100, seed=seed).subset.labels.bincount().tolist() == [70, 20, 10]
    inputs = [LayerProbe(mlp(), loader, samples=100, seed=s).subset.inputs for s in (0, 0, 1)]
    assert torch.equal(inputs[0], inputs[1]) and not torch.equal(inputs[0], inputs[2])
    part = DataLoader(
        TensorDataset(torch.arange(1000.0)[:, None].repeat(1, 6), rare),
        50,
        sampler=SubsetRandomSampler(range(500, 1000, 2)),
    )
    assert (LayerProbe(mlp(), part, samples=100).subset.inputs[:, 0] % 2 == 0).all() and LayerProbe(
        mlp(), part, samples=999
    ).subset.inputs.min() == 500


def test_drawing_leaves_the_loaders_random_state():
    own = torch.Generator().manual_seed(3)
    loader = DataLoader(Pictures(), 8, shuffle=True, generator=own)
    shuffled = BatchSampler(RandomSampler(range(90), generator=own), 7, False)
    batches, model = DataLoader(TensorDataset(X, Y), batch_size=None, sampler=shuffled), mlp()
    before = own.get_state(), torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    for source in (loader, batches, Pictures()):
        LayerProbe(model, source, samples=40)
    after = own.get_state(), torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(before, after))


@pytest.mark.parametrize(
    "source, kw, error, match",
    [
        (X, {}, TypeError, "labels are missing"),
        ((X, Y), {}, TypeError, "labels are missing"),
        (DataLoader(TensorDataset(X, Y)), dict(labels=Y), TypeError, "its own labels"),
        (DataLoader(TensorDataset(X, Y)), dict(redraw=True), ValueError, "redraw"),
        (TensorDataset(X), {}, ValueError, "inputs, labels"),
        (DataLoader(TensorDataset(X, Y * 0)), {}, ValueError, "fewer than two classes"),
        (Subset(Pictures(), []), {}, ValueError, "no samples"),
    ],
)
def test_what_a_loader_cannot_be(source, kw, error, match):
    with pytest.raises(error, match=match):
        LayerProbe(mlp(), source, **kw)


# --- what cannot be measured -------------------------------------------------------------------------------------


class TimeFirst(nn.Module):
    "Time comes first inside, as nn.LSTM has it by default."

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(2, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.rnn(x.transpose(0, 1))[0][-1])


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_a_layer_with_time_first_is_left_out_and_said_once(steps):
    x = torch.randn(90, steps, 2, generator=torch.Generator().manual_seed(0))
    probe = LayerProbe(TimeFirst(), x, Y, layers="all", batch_size=steps)
    with pytest.warns(UserWarning, match="not measured: 'rnn'") as said:
        assert list(finite(probe())) == ["out"]
    assert len(said) == 1 and list(probe.skipped) == ["rnn"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe()
    with pytest.raises(ValueError, match="layer 'rnn' gave shape"):
        LayerProbe(TimeFirst(), x, Y, layers=["rnn"])()


class Vit(nn.Module):
    "A vision transformer of ten lines, its position embedding a module."

    def __init__(self):
        super().__init__()
        self.patch, self.position = nn.Conv2d(1, 12, 4, 4), nn.Embedding(4, 12)
        self.block, self.head = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.block(x + self.position(torch.arange(4)[None])).mean(1))


def test_a_vision_transformer():
    with pytest.warns(UserWarning, match="not measured: 'position'"):
        got = finite(LayerProbe(Vit(), IMAGES, Y, layers="all")())
    assert "patch" in got and "position" not in got and list(got)[-1] == "head"


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_networks_with_position_embeddings(name):
    get_torchvision()  # as it is without compiled operators, transformers imports it too
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "bert":
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=37,
            num_labels=3,
        )
        model = transformers.BertForSequenceClassification(config)
    else:
        config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, num_labels=3, pad_token_id=0)
        model = transformers.GPT2ForSequenceClassification(config)
    tokens = torch.randint(1, 50, (90, 12), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 1 + Y
    probe = LayerProbe(model, dict(input_ids=tokens), Y, layers="all", samples=60)
    with pytest.warns(UserWarning, match="position|wpe"):
        got = finite(probe())
    assert (
        len(got) > 8
        and not any("position_embeddings" in n or "wpe" in n for n in got)
        and list(got)[-1] in ("classifier", "score")
    )
    assert all(n in dict(model.named_modules()) for n in probe.skipped)


# --- several labels a sample -------------------------------------------------------------------------------------

BITS = torch.stack([Y == 0, Y == 1, X[:, 0] > 1], 1).long()


def test_several_labels_a_sample_are_not_taken_for_positions():
    model = nn.Linear(6, 3)
    with pytest.raises(ValueError, match="multilabel=True"):
        LayerProbe(model, X, BITS)()
    with pytest.raises(ValueError, match="multilabel=True"):
        LayerProbe(model, X, BITS.float())
    with pytest.raises(ValueError, match="multilabel=True"):
        LayerProbe(nn.Linear(6, 4), X, BITS)()
    rows = torch.unique(BITS, dim=0, return_inverse=True)[1]
    for labels in (BITS, BITS.float(), BITS.bool(), BITS.numpy()):
        probe = LayerProbe(model, X, labels, layers="all", multilabel=True)
        assert probe()["output"] == pytest.approx(
            mutual_information(model(X).double().sigmoid().detach(), rows).item(), abs=1e-5
        )
        assert probe.reference() == pytest.approx(reference_mi(X, rows).item())
    assert LayerProbe(model, X, BITS, multilabel=False).subset.positions == (3,)
    assert not LayerProbe(model, X, BITS.float(), multilabel=False).subset.classes
    for kw, labels, match in (dict(multilabel=True), Y, "expected"), (dict(multilabel=True), BITS / 2, "whole numbers"):
        with pytest.raises(ValueError, match=match):
            LayerProbe(model, X, labels, **kw)
    with pytest.raises(TypeError, match="multilabel"):
        LayerProbe(model, X, BITS, multilabel="yes")


def test_pictures_labels_are_still_positions():
    x = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for head in (nn.Conv2d(1, 2, 1), nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(1, 2))):
        assert finite(LayerProbe(head, x, (x[:, 0] > 0.5).long(), samples=200)())


# --- the reference -----------------------------------------------------------------------------------------------


def test_the_reference_of_a_probe_leaves_out_labels_that_occur_once():
    y = torch.cat([torch.arange(600) % 100, 1000 + torch.arange(400)])
    x = y[:, None] * 1000.0 + torch.rand(1000, 1, generator=torch.Generator().manual_seed(0))
    for inputs, kw in (x, {}), (x, dict(redraw=True)), ((x,), {}):
        probe = LayerProbe(nn.Identity(), inputs, y, transform=None, **kw)
        assert probe.reference() == pytest.approx(math.log2(100), abs=0.05)
        assert probe()["output"] == pytest.approx(probe.reference(), abs=0.2)


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0, 10.0, 100.0])
def test_the_reference_of_regression_has_no_scale_and_can_be_reached(scale):
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 8, generator=gen)
    perfect = nn.Linear(8, 1, bias=False)
    y = (perfect(x) * scale).detach()
    probe = LayerProbe(perfect, x, y)
    assert probe.reference() == pytest.approx(
        (math.log(1000) - 0.0005 - torch.digamma(torch.tensor(3.0)).item()) / math.log(2), abs=1e-3
    )
    assert probe.reference() >= probe()["output"] > 0.9 * probe.reference()
    with pytest.raises(ValueError, match="all alike"):
        LayerProbe(perfect, x, y * 0).reference()
    assert LayerProbe(perfect, (x,), y).reference() == probe.reference()
    assert LayerProbe(perfect, x, y).reference(tiles=1) < 2  # I(X;Y) of eight dimensions, when asked for


# --- random state and transfers ----------------------------------------------------------------------------------


def test_a_seed_set_on_the_cpu_leaves_the_gpus(monkeypatch):
    "`torch.manual_seed` reseeds every GPU in use; a GPU of numbers in Python stands in for one."
    gpus = [torch.tensor([7], dtype=torch.uint8), torch.tensor([8], dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: gpus[device].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: gpus.__setitem__(device, state))
    with kept_random_state(torch.device("cpu")):
        torch.rand(1)
        for i in range(2):
            gpus[i] = torch.tensor([0], dtype=torch.uint8)
    assert [int(g) for g in gpus] == [7, 8]


def test_building_a_model_seeds_no_gpu(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b = (build_model("mnist_cnn", (1, 28, 28), seed=5, width=1 / 8) for _ in range(2))
    assert seeded == [1] and torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


def test_indices_and_labels_are_moved_once(monkeypatch):
    "Their calls of `Tensor.to`, which copies to a model's device: as many with ten batches as with one."
    tokens = X[:, None].repeat(1, 4, 1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3))
    probes = [
        LayerProbe(model, tokens, Y[:, None].repeat(1, 4), layers="all", batch_size=size, channel_dim=-1)
        for size in (90, 9)
    ]
    for probe in probes:
        probe()
    moved, to = [], torch.Tensor.to

    def count(tensor, *args, **kw):
        if tensor.dtype == torch.long and args and isinstance(args[0], torch.device):
            moved[-1].append(len(tensor))
        return to(tensor, *args, **kw)

    monkeypatch.setattr(torch.Tensor, "to", count)
    for probe in probes:
        moved.append([])
        probe()
    assert moved[0] == moved[1] and len(moved[0]) < 10


# --- what two readers found --------------------------------------------------------------------------------------


def test_a_reference_by_tiles_is_one_of_its_own():
    "Neither is handed out for the other, in any order."
    model = nn.Linear(6, 3)
    probe, other = LayerProbe(model, X, Y), LayerProbe(model, X, Y)
    first, untiled = probe.reference(), probe.reference(tiles=1)
    assert (other.reference(tiles=1), other.reference()) == (untiled, first) and untiled < first
    pairs = LayerProbe(lambda_model(), dict(x=X), Y)
    with pytest.raises(ValueError, match="leave tiles out"):
        pairs.reference(tiles=1)


def lambda_model():
    class OfNames(nn.Module):
        def forward(self, x):
            return x

    return OfNames()


def test_inputs_of_a_tokenizer_are_a_mapping():
    from collections import UserDict

    inputs = UserDict(x=X)
    assert LayerProbe(lambda_model(), inputs, Y)() == LayerProbe(lambda_model(), dict(x=X), Y)()


def test_a_list_of_batches_is_data():
    batches = list(zip(X.split(30), Y.split(30)))
    assert LayerProbe(nn.Identity(), batches)() == LayerProbe(nn.Identity(), X, Y)()
    with pytest.raises(ValueError, match="a list is read as batches"):
        LayerProbe(nn.Identity(), [(x, int(y)) for x, y in zip(X, Y)])


@pytest.mark.parametrize("given", [dict(samples=2.5), dict(k=3.0), dict(batch_size=True)], ids=str)
def test_options_are_whole_numbers(given):
    with pytest.raises(TypeError, match="must be a whole number"):
        LayerProbe(nn.Identity(), X, Y, **given)


def test_no_neighbours_are_refused_at_once():
    with pytest.raises(ValueError, match="k must be at least 1"):
        LayerProbe(nn.Identity(), X, Y, k=0)


def test_labels_that_are_text_name_the_cure():
    import numpy as np

    with pytest.raises(TypeError, match="np.unique"):
        LayerProbe(nn.Identity(), X, np.array(["a", "b", "c"] * 30))
