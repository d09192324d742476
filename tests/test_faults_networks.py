"Odd networks, training that goes wrong or on for long: a number within its bounds, or an error that says why."

import gc, io, math, os, threading, warnings
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
import pytest, torch
from torch import nn
from torch.nn.utils import parametrizations
from milr.layerwise import layer_groups
from milr.policy import ChangePolicy, SequentialPolicy, ValueChangePolicy, ValuePolicy
from milr.probe import LayerProbe
from milr.scheduler import MutualInformationLR
from tests.test_probe import state_of

torch.set_num_threads(1)
PAPER = dict(lr_min=1e-3, lr_max=1e-1)
SLOW = "MILR_SLOW" in os.environ
g = torch.Generator().manual_seed(0)
Y = torch.arange(96) % 3
X = torch.randn(96, 6, generator=g) + Y[:, None]
IMAGES = torch.rand(96, 1, 8, 8, generator=g) + Y[:, None, None, None] / 3
TOKENS = torch.randint(0, 5, (96, 7), generator=g)
TOKENS[:, 0] = Y

# --- networks ----------------------------------------------------------------------------------------------------


class Of(nn.Module):
    "A network from its parts and a function of them and the input."

    def __init__(self, f, **parts):
        super().__init__()
        self.f = f
        [setattr(self, n, p) for n, p in parts.items()]

    def forward(self, *x):
        return self.f(self, *x)


def head(n=8):
    return nn.Linear(n, 3)


def mlp():
    return nn.Sequential(OrderedDict(a=nn.Linear(6, 8), act=nn.ReLU(), out=head()))


Pair = namedtuple("Pair", "scores hidden")


@dataclass
class Answer:
    scores: torch.Tensor


def packed(m, x):
    from torch.nn.utils.rnn import pack_padded_sequence as pack, pad_packed_sequence as pad

    return m.out(
        pad(m.rnn(pack(x.reshape(-1, 3, 2), torch.full((len(x),), 3), batch_first=True))[0], batch_first=True)[0][:, -1]
    )


def tied():
    m = Of(lambda m, x: m.back(torch.tanh(m.there(x)))[:, :3], there=nn.Linear(6, 6), back=nn.Linear(6, 6))
    m.back.weight = m.there.weight
    return m


def frozen(m):
    for p in m.parameters():
        p.requires_grad_(False)
    return m


def qat():
    m = nn.Sequential(
        OrderedDict(
            q=torch.ao.quantization.QuantStub(),
            a=nn.Linear(6, 8),
            act=nn.ReLU(),
            out=head(),
            d=torch.ao.quantization.DeQuantStub(),
        )
    )
    m.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    return torch.ao.quantization.prepare_qat(m.train())


def static():
    torch.backends.quantized.engine = next(e for e in torch.backends.quantized.supported_engines if e != "none")
    m = nn.Sequential(
        OrderedDict(
            q=torch.ao.quantization.QuantStub(),
            a=nn.Linear(6, 8),
            act=nn.ReLU(),
            out=head(),
            d=torch.ao.quantization.DeQuantStub(),
        )
    ).eval()
    m.qconfig = torch.ao.quantization.default_qconfig
    torch.ao.quantization.prepare(m, inplace=True)
    m(X)
    return torch.ao.quantization.convert(m)


class Counting(nn.Module):
    "Counts its calls in a buffer, in evaluation too."

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return self.out(x) + 0 * self.calls


MEASURED = {  # name: (network, inputs, keywords of the probe, layers there are)
    "residual": (
        lambda: Of(
            lambda m, x: m.out(x + torch.relu(m.bn(m.a(x)))), a=nn.Linear(6, 6), bn=nn.BatchNorm1d(6), out=head(6)
        ),
        X,
        {},
        "a out",
    ),
    "residual blocks, in place": (
        lambda: Of(
            lambda m, x: m.out(m.r2(m.a(x).add_(m.r1(x)))),
            r1=nn.Linear(6, 6),
            a=nn.Linear(6, 6),
            r2=nn.ReLU(inplace=True),
            out=head(6),
        ),
        X,
        {},
        "a r1 out",
    ),
    "LSTM": (
        lambda: Of(
            lambda m, x: m.out(m.rnn(x.reshape(-1, 3, 2))[0][:, -1]), rnn=nn.LSTM(2, 5, batch_first=True), out=head(5)
        ),
        X,
        {},
        "rnn out",
    ),
    "GRU, its tuple the output": (
        lambda: Of(lambda m, x: m.rnn(x.reshape(-1, 3, 2)), rnn=nn.GRU(2, 3, batch_first=True)),
        X,
        dict(transform=None),
        "rnn",
    ),
    "bidirectional RNN of packed sequences": (
        lambda: Of(packed, rnn=nn.RNN(2, 4, batch_first=True, bidirectional=True), out=head(8)),
        X,
        {},
        None,
    ),
    "attention": (
        lambda: Of(
            lambda m, x: m.out(m.att(*[m.e(x)] * 3)[0].mean(1)),
            e=nn.Embedding(5, 8),
            att=nn.MultiheadAttention(8, 2, batch_first=True),
            out=head(),
        ),
        TOKENS,
        {},
        "e att out",
    ),
    "transformer encoder": (
        lambda: nn.Sequential(
            OrderedDict(
                e=nn.Embedding(5, 8),
                enc=nn.TransformerEncoderLayer(8, 2, 8, batch_first=True),
                f=nn.Flatten(),
                out=nn.Linear(56, 3),
            )
        ),
        TOKENS,
        {},
        None,
    ),
    "dict of outputs": (
        lambda: Of(
            lambda m, x: dict(scores=m.out(h := torch.relu(m.a(x))), aux=m.aux(h), h=h),
            a=nn.Linear(6, 8),
            out=head(),
            aux=nn.Linear(8, 2),
        ),
        X,
        dict(output="scores"),
        "a out aux",
    ),
    "named tuple of outputs": (
        lambda: Of(lambda m, x: Pair(m.out(h := torch.relu(m.a(x))), h), a=nn.Linear(6, 8), out=head()),
        X,
        dict(output="scores"),
        "a out",
    ),
    "data class of outputs": (
        lambda: Of(lambda m, x: Answer(m.out(x)), out=nn.Linear(6, 3)),
        X,
        dict(output="scores"),
        "out",
    ),
    "list of outputs": (
        lambda: Of(lambda m, x: [m.out(x), m.aux(x)], out=nn.Linear(6, 3), aux=nn.Linear(6, 2)),
        X,
        dict(output=1),
        "out aux",
    ),
    "one layer run three times": (
        lambda: Of(
            lambda m, x: m.out(torch.tanh(m.a(torch.tanh(m.a(torch.tanh(m.a(x))))))), a=nn.Linear(6, 6), out=head(6)
        ),
        X,
        {},
        "a out",
    ),
    "tied weights": (tied, X, {}, "there back"),
    "batch norm": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)),
        IMAGES,
        {},
        "0 4",
    ),
    "batch norm without statistics": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), head()),
        X,
        {},
        "0 3",
    ),
    "group, layer and instance norm": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.GroupNorm(2, 4),
            nn.Conv2d(4, 4, 3),
            nn.InstanceNorm2d(4),
            nn.Flatten(),
            nn.LayerNorm(64),
            nn.Linear(64, 3),
        ),
        IMAGES,
        {},
        "0 2 6",
    ),
    "frozen layers": (lambda: Of(lambda m, x: m.out(m.a(x)), a=frozen(mlp().a), out=head()), X, {}, "a out"),
    "frozen altogether": (lambda: frozen(mlp()), X, {}, "a out"),
    "layers without anything in them": (
        lambda: nn.Sequential(
            OrderedDict(
                e=nn.Sequential(),
                a=nn.Linear(6, 8),
                i=nn.Identity(),
                d=nn.Dropout(0.0),
                l=nn.Sequential(nn.Sequential()),
                out=head(),
            )
        ),
        X,
        {},
        "a out",
    ),
    "nn.DataParallel": (lambda: nn.DataParallel(mlp()), X, {}, "a out"),
    "nn.DataParallel inside": (
        lambda: Of(lambda m, x: m.out(m.body(x)), body=nn.DataParallel(nn.Linear(6, 8)), out=head()),
        X,
        {},
        None,
    ),
    "quantised, dynamic": (lambda: torch.ao.quantization.quantize_dynamic(mlp().eval(), {nn.Linear}), X, {}, "output"),
    "quantised, static": (static, X, {}, "output"),
    "quantisation-aware training": (qat, X, {}, "a out"),
    "traced by fx": (lambda: torch.fx.symbolic_trace(mlp()), X, {}, "a out"),
    "weight norm and spectral norm": (
        lambda: nn.Sequential(
            parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(8, 3))
        ),
        X,
        {},
        None,
    ),
    "writes to its own input": (lambda: Of(lambda m, x: m.out(x.mul_(2)), out=nn.Linear(6, 3)), X, {}, "out"),
    "counts its calls": (Counting, X, {}, "out"),
    "weights of a ParameterList": (
        lambda: Of(lambda m, x: x @ m.w[0] @ m.w[1], w=nn.ParameterList([torch.randn(6, 4), torch.randn(4, 3)])),
        X,
        {},
        None,
    ),
    "chosen from a ModuleDict": (
        lambda: Of(
            lambda m, x: m.out(m.ways["b"](x)),
            ways=nn.ModuleDict(dict(a=nn.Linear(6, 8), b=nn.Linear(6, 8))),
            out=head(),
        ),
        X,
        {},
        "ways.b out",
    ),
    "checkpointed": (
        lambda: Of(
            lambda m, x: m.out(torch.utils.checkpoint.checkpoint(m.a, x, use_reentrant=False)),
            a=nn.Linear(6, 8),
            out=head(),
        ),
        X,
        {},
        "a out",
    ),
    "no parameters": (lambda: Of(lambda m, x: x[:, :3]), X, {}, "output"),
    "bfloat16": (lambda: mlp().bfloat16(), X.bfloat16(), {}, "a out"),
    "whole numbers out": (
        lambda: Of(lambda m, x: m.out(x).argmax(1), out=nn.Linear(6, 3)),
        X,
        dict(transform=None),
        "out",
    ),
    "one unit out": (lambda: nn.Linear(6, 1), X, {}, "output"),
    "half of the units dead": (
        lambda: Of(
            lambda m, x: m.out(torch.relu(m.a(x) - torch.tensor([0.0] * 4 + [1e4] * 4))), a=nn.Linear(6, 8), out=head()
        ),
        X,
        {},
        "a out",
    ),
}

REFUSED = {  # name: (network, inputs, keywords, what the message says)
    "an empty layer, zero units wide": (
        lambda: nn.Sequential(nn.Linear(6, 0), nn.Linear(0, 3)),
        X,
        dict(layers="all"),
        "no features",
    ),
    "scripted, inside": (lambda: torch.jit.script(mlp()), X, dict(layers="all"), "scripted module cannot be watched"),
    "scripted part, inside": (
        lambda: Of(lambda m, x: m.out(m.a(x)), a=torch.jit.script(nn.Linear(6, 8)), out=head()),
        X,
        dict(layers="all"),
        "scripted module cannot be watched",
    ),
    "packed sequences, inside": (
        MEASURED["bidirectional RNN of packed sequences"][0],
        X,
        dict(layers=["rnn"]),
        "layer 'rnn' gave shape",
    ),
    "lazy": (lambda: nn.LazyLinear(3), X, {}, "lazy"),
    "meta device": (lambda: nn.Linear(6, 3, device="meta"), X, {}, "meta"),
    "returns nothing": (lambda: Of(lambda m, x: None, a=nn.Linear(6, 3)), X, {}, "NoneType"),
    "returns text": (lambda: Of(lambda m, x: "cat", a=nn.Linear(6, 3)), X, {}, "str"),
    "returns a dict, nobody says which": (lambda: Of(lambda m, x: dict(a=x, b=x), a=nn.Linear(6, 3)), X, {}, "output="),
    "returns a dict without the entry named": (
        lambda: Of(lambda m, x: dict(a=x, b=x)),
        X,
        dict(output="c"),
        "'a', 'b'.*output='c'",
    ),
    "returns a tuple too short": (lambda: Of(lambda m, x: (x, x)), X, dict(output=2), "output=2"),
    "returns an object without the attribute": (
        lambda: Of(lambda m, x: Answer(x)),
        X,
        dict(output="logits"),
        "output='logits'",
    ),
    "returns complex numbers": (lambda: Of(lambda m, x: torch.complex(x, x)), X, {}, "complex"),
    "returns complex numbers, untransformed": (
        lambda: Of(lambda m, x: torch.complex(x, x)),
        X,
        dict(transform=None),
        "complex",
    ),
    "returns a sparse tensor": (lambda: Of(lambda m, x: x.to_sparse()), X, {}, "sparse"),
    "returns the mean of the batch": (lambda: Of(lambda m, x: x.mean(0)), X, {}, "samples along the first axis"),
    "returns a number": (lambda: Of(lambda m, x: x.mean()), X, {}, "samples along the first axis"),
    "batch second": (lambda: nn.RNN(6, 3), X[:, None].movedim(0, 1), {}, "must match"),
    "raises": (lambda: Of(lambda m, x: 1 / 0), X, {}, "division by zero"),
}


def quiet(f):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return f()


def learn(model, out, x, opt):
    "An epoch, where there is something to train."
    if not any(p.requires_grad for p in model.parameters()):
        return
    for i in torch.arange(96).split(32):
        o = model(x[i].clone())
        o = getattr(o, out) if isinstance(out, str) and not isinstance(o, dict) else o[out] if out is not None else o
        while isinstance(o, tuple):
            o = o[0]
        if not o.is_floating_point():
            return
        o = o.float() if o.ndim == 2 else o[:, -1].float()
        opt.zero_grad()
        nn.functional.cross_entropy(torch.cat([o, -o, 0 * o], 1) if o.shape[1] < 3 else o, Y[i]).backward()
        opt.step()


@pytest.mark.parametrize("layers", ["output", "all"])
@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.filterwarnings("ignore")
def test_measured_and_left_as_it_was(name, layers, tried):
    make, x, kw, there = MEASURED[name]
    model = quiet(make)
    probe = LayerProbe(model, x, Y, layers=layers, **kw)
    before = state_of(model)
    kept = x.clone()
    first = probe()
    assert state_of(model) == before and torch.equal(x, kept) and probe() == first, "measuring changed something"
    assert all(math.isfinite(v) and -1 < v < math.log2(3) + 0.1 for v in first.values()), first
    if layers == "output" or layers == "all" and there:
        assert list(first) == (["output"] if layers == "output" else there.split()), list(first)
    params = [p for p in model.parameters()]
    opt = torch.optim.SGD([dict(params=params)] if params else [nn.Parameter(torch.zeros(1))], lr=0.1)
    s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=probe, reference=math.log2(3))
    for _ in range(4):
        learn(model, kw.get("output"), x, opt)
        s.step()
        assert 1e-3 <= s.get_last_lr()[0] <= 0.1
    assert state_of(model)["hooks"] == before["hooks"]
    tried(
        "Odd networks that can be measured: %d kinds, output layer and all layers" % len(MEASURED),
        5,
        "finite MI, network and its state unchanged, LR within bounds",
    )


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_refused_in_words(name, tried):
    make, x, kw, says = REFUSED[name]
    model = quiet(make)
    flags = [m.training for m in model.modules()]
    with pytest.raises((TypeError, ValueError, ZeroDivisionError), match=says):
        LayerProbe(model, x, Y, **kw)()
    assert [m.training for m in model.modules()] == flags and not any(
        m._forward_hooks for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)
    )
    tried(
        "Odd networks that cannot be measured: %d kinds" % len(REFUSED),
        1,
        "refused with an error that says why, hooks and mode as before",
    )


def test_a_scripted_network_is_measured_at_its_output(tried):
    model = quiet(mlp)
    want = LayerProbe(model, X, Y)()
    assert (
        LayerProbe(quiet(lambda: torch.jit.script(model)), X, Y)()
        == want
        == LayerProbe(quiet(lambda: torch.jit.trace(model.eval(), X)), X, Y)()
    )
    tried("Scripted and traced networks, output layer", 2, "the same MI as the plain network")


# --- training gone wrong -----------------------------------------------------------------------------------------


class Net(nn.Sequential):
    def __init__(self):
        torch.manual_seed(1)
        super().__init__(OrderedDict(a=nn.Linear(6, 8), act=nn.ReLU(), out=nn.Linear(8, 3)))


SPOILED = {  # what happens after the second epoch
    "the loss becomes NaN": lambda m, opt: m.a.weight.data.fill_(math.nan),
    "one weight becomes NaN": lambda m, opt: m.out.weight.data[0].fill_(math.nan),
    "activations overflow": lambda m, opt: m.a.weight.data.mul_(1e38),
    "activations are infinite": lambda m, opt: m.out.bias.data.fill_(math.inf),
    "hidden units die": lambda m, opt: (m.a.weight.data.zero_(), m.a.bias.data.fill_(-1e3)),
    "everything is zero": lambda m, opt: [p.data.zero_() for p in m.parameters()],
    "the output is constant": lambda m, opt: m.out.weight.data.zero_(),
}
POLICIES = {
    "change": ChangePolicy(**PAPER),
    "value_change": ValueChangePolicy(**PAPER),
    "value": ValuePolicy(**PAPER),
    "in turn": SequentialPolicy([ValueChangePolicy(**PAPER), ValuePolicy(**PAPER), ChangePolicy(**PAPER)], [3, 6]),
}


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fault", SPOILED)
def test_training_that_goes_wrong(fault, policy, layerwise, tried):
    "Bounds hold, nothing is infinite, one warning; who knows nothing does not get the highest LR for rounding errors."
    model = Net()
    opt = torch.optim.SGD(layer_groups(model) if layerwise else model.parameters(), lr=0.05)
    s = MutualInformationLR(
        opt, POLICIES[policy], probe=LayerProbe(model, X, Y, layers="all" if layerwise else "output")
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for t in range(10):
            for i in torch.arange(96).split(32):
                loss = nn.functional.cross_entropy(model(X[i]), Y[i])
                opt.zero_grad()
                loss.backward()
                opt.step()
            if t >= 2:
                SPOILED[fault](model, opt)
            s.step()
            assert all(math.isfinite(lr) and 1e-3 <= lr <= 0.1 for lr in s.get_last_lr())
            for n, v in s.history[-1]["mi"].items():
                assert v == 0 or not math.isfinite(v) or abs(v) > 1e-6, f"{n}: {v} is rounding, not a measurement"
    said = [str(w.message) for w in said]
    assert sum("not finite and positive" in m for m in said) == 1 and len(said) == 1, said
    assert len({tuple(r["next_lr"]) for r in s.history[3:]}) == 1 or layerwise, "held"
    tried(
        "Training gone wrong: NaN loss, dead, constant, overflowing and infinite activations, "
        "by four policies, per network and per layer",
        10,
        "LR finite and within bounds after every epoch, the user told once",
    )


def test_a_probe_of_a_single_class(tried):
    for kw in ({}, dict(redraw=True), dict(layers="all"), dict(samples=5)):
        with pytest.raises(ValueError, match="fewer than two classes"):
            LayerProbe(Net(), X, Y * 0, **kw)
    tried("A probe with a single class", 4, "refused on construction")


def test_groups_that_are_not_what_was_measured(tried):
    "A group's name that no measured layer has: it follows the output layer, and the user is told once."
    model = Net()
    groups = layer_groups(model)
    groups[0]["name"] = "conv1"
    s = MutualInformationLR(torch.optim.SGD(groups, lr=0.1), ChangePolicy(**PAPER))
    with pytest.warns(UserWarning, match=r"\['conv1'\].*measured.*\['a', 'out'\]") as w:
        for mi in (1.0, 2.0, 2.5):
            s.step({"a": mi, "out": mi / 2})
    assert len(w) == 1 and s.get_last_lr()[0] == s.get_last_lr()[1]
    plain = MutualInformationLR(
        torch.optim.SGD([dict(params=[p], name=n) for n, p in Net().named_parameters()], lr=0.1), ChangePolicy(**PAPER)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mi in (1.0, {"output": 2.0}, 2.5):
            plain.step(mi)  # one number is everybody's
    with pytest.raises(ValueError, match="no policy for parameter group"):
        MutualInformationLR(torch.optim.SGD(layer_groups(Net()), lr=0.1), {"a": ChangePolicy(**PAPER)})
    opt = torch.optim.SGD(layer_groups(Net()), lr=0.1)
    s = MutualInformationLR(opt, ChangePolicy(**PAPER))
    s.step(1.0)
    opt.param_groups.pop()
    s.step(2.0)
    assert len(s.get_last_lr()) == 1
    for wrong in (None, "sgd", torch.nn.Linear(1, 1), [nn.Parameter(torch.zeros(1))]):
        with pytest.raises(TypeError, match="not an Optimizer"):
            MutualInformationLR(wrong, ChangePolicy(**PAPER))
    tried("An optimizer without the expected groups", 8, "told once and the output layer followed, or refused")


@pytest.mark.parametrize("lr", [math.nan, math.inf, -math.inf])
def test_a_rate_spoiled_by_others_is_said(lr, tried):
    opt = torch.optim.SGD(Net().parameters(), lr=0.1)
    s = MutualInformationLR(opt, ChangePolicy(**PAPER))
    s.step(1.0)
    opt.param_groups[0]["lr"] = lr
    with pytest.raises(ValueError, match="learning rate is"):
        s.step(2.0)
    assert len(s.history) == 1
    tried("Somebody else sets the LR to NaN or infinity", 1, "refused, history as before")


def test_step_before_training_and_twice_an_epoch(tried):
    for calls in ("before", "twice"):
        model = Net()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=LayerProbe(model, X, Y))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if calls == "before":
                [s.step() for _ in range(5)]
            for _ in range(5):
                nn.functional.cross_entropy(model(X), Y).backward()
                opt.step()
                opt.zero_grad()
                s.step()
                if calls == "twice":
                    s.step()
                assert 1e-3 <= s.get_last_lr()[0] <= 0.1
        assert [("no parameter seems to have changed" in str(w.message)) for w in said] == [True]
    tried("`step` before training, and twice an epoch", 2, "LR within bounds, the user told once")


def test_step_from_other_threads_while_training(tried):
    "One thread trains, four step: nothing is lost, doubled, or left in evaluation mode."
    model = Net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=LayerProbe(model, X, Y))
    failed = []

    def steps():
        try:
            [s.step() for _ in range(25)]
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=steps) for _ in range(4)]
    [t.start() for t in threads]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while any(t.is_alive() for t in threads):
            nn.functional.cross_entropy(model(X), Y).backward()
            opt.step()
            opt.zero_grad()
    assert not failed and [r["epoch"] for r in s.history] == list(range(100)) and s.last_epoch == 100
    assert all(1e-3 <= r["next_lr"][0] <= 0.1 for r in s.history) and all(m.training for m in model.modules())
    for a, b in zip(s.history, s.history[1:]):
        assert b["lr"] == a["next_lr"]
    tried(
        "`step` from four threads beside one that trains", 100, "every step recorded once, in order, LR within bounds"
    )


# --- a soak ------------------------------------------------------------------------------------------------------


def handles():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def rss():
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def test_soak(tried):
    "The history is what grows: one record an epoch."
    epochs = 2000 if SLOW else 150
    model = Net()
    opt = torch.optim.SGD(layer_groups(model), lr=0.05)
    s = MutualInformationLR(
        opt, ValueChangePolicy(**PAPER), probe=LayerProbe(model, X, Y, layers="all", redraw=True, samples=64)
    )

    def epoch():
        for i in torch.randperm(96).split(48):
            loss = nn.functional.cross_entropy(model(X[i]), Y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
        s.step()

    for _ in range(130):
        epoch()  # what torch and Python import late
    rss()
    gc.collect()
    objects, memory, files, threads, hooks = (
        len(gc.get_objects()),
        rss(),
        handles(),
        threading.active_count(),
        sum(len(m._forward_hooks) for m in model.modules()),
    )
    for _ in range(epochs):
        epoch()
    gc.collect()
    grown = rss() - memory
    per = (len(gc.get_objects()) - objects) / epochs
    assert (handles(), threading.active_count(), sum(len(m._forward_hooks) for m in model.modules())) == (
        files,
        threads,
        hooks,
    )
    assert len(s.history) == epochs + 130 and per < 8 and grown < 5 + epochs * 0.01, (per, grown)
    f = io.BytesIO()
    torch.save(s.state_dict(), f)
    tried(
        f"Soak: {epochs:,} epochs with the scheduler attached, layer-wise",
        epochs,
        f"{grown:+.1f} MiB, {per:.1f} objects an epoch (the history), file handles, threads and hooks unchanged; "
        f"checkpoint {len(f.getvalue()) / 1024:.0f} KiB",
    )
