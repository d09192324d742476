"MutualInformationLR against torch's contract and against things going wrong."

import copy, gc, inspect, io, json, math, threading, warnings, weakref

import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau

from milr.auto import AutoPolicy
from milr.layerwise import layer_groups
from milr.policy import ChangePolicy, SequentialPolicy, ValueChangePolicy, ValuePolicy
from milr.probe import LayerProbe
from milr.scheduler import MutualInformationLR, is_fresh

torch.set_num_threads(1)
PAPER = dict(lr_min=1e-3, lr_max=1e-1)  # the bounds for MNIST, from which the step sizes follow
pytestmark = pytest.mark.filterwarnings(
    "ignore:no parameter seems to have changed",
    "ignore:measurement .* is not finite",
    "ignore:the learning rate has not left LR_min",
    "ignore:a number was handed to step",
)


def sgd(lr=0.5, n=1, **kw):
    return torch.optim.SGD([dict(params=[nn.Parameter(torch.zeros(2))]) for _ in range(n)], lr=lr, **kw)


def steps(s, *mis):
    for m in mis:
        s.step(m)
    return s


def through_file(state, weights_only=True):
    f = io.BytesIO()
    torch.save(state, f)
    f.seek(0)
    return torch.load(f, weights_only=weights_only)


# --- the contract of torch ---------------------------------------------------------------------------------------


def test_is_a_scheduler_of_torch():
    s = MutualInformationLR(sgd(), ChangePolicy(**PAPER))
    assert isinstance(s, LRScheduler)
    plateau = ReduceLROnPlateau(sgd())
    for name in ("optimizer", "last_epoch", "_last_lr"):
        assert hasattr(s, name) and hasattr(plateau, name)
    assert s.last_epoch == plateau.last_epoch == 0
    steps(s, 1.0, 2.0)
    [plateau.step(1.0) for _ in range(2)]
    assert s.last_epoch == plateau.last_epoch == 2
    assert [type(v) for v in s.get_last_lr()] == [type(v) for v in plateau.get_last_lr()] == [float]
    assert next(iter(inspect.signature(MutualInformationLR).parameters)) == "optimizer"


def test_optimizer_step_is_not_patched():
    opt = sgd()
    step = opt.step
    s = MutualInformationLR(opt, ChangePolicy(**PAPER))
    steps(s, 1.0, 2.0)
    assert opt.step.__func__ is step.__func__ and "step" not in opt.__dict__


def test_wrong_optimizer():
    with pytest.raises(TypeError, match="not an Optimizer"):
        MutualInformationLR(nn.Linear(1, 1), ChangePolicy(**PAPER))


def test_construction_measures_nothing():
    def probe():
        raise AssertionError("measured")

    probe.reference = lambda: 3.3
    MutualInformationLR(sgd(), ValueChangePolicy(**PAPER), probe=probe)


def test_start_until_two_measurements():
    opt = sgd(0.5, n=3)
    s = MutualInformationLR(opt, ChangePolicy(**PAPER | dict(lr_min=0.002)))
    assert s.get_last_lr() == [g["lr"] for g in opt.param_groups] == [0.002] * 3
    s.step(1.0)
    assert s.get_last_lr() == [0.002] * 3
    s.step(2.0)
    assert s.get_last_lr() == [0.002 + 0.1 * 0.5] * 3


def test_with_other_schedulers():
    opt = sgd(0.5)
    mi = MutualInformationLR(opt, ChangePolicy(**PAPER), probe=iter([1.0, 2.0, 3.0, 3.0]).__next__)
    chain = ChainedScheduler([torch.optim.lr_scheduler.ConstantLR(opt, factor=1.0), mi])
    for _ in range(2):
        opt.step()
        chain.step()
    assert chain.get_last_lr() == mi.get_last_lr() == [1e-3 + 0.1 * 0.5]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1)),
        lambda p: torch.optim.RMSprop(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=torch.tensor(0.1, dtype=torch.float64)),
    ],
)
def test_with_any_optimizer(make):
    model = nn.Linear(4, 3)
    opt = make(model.parameters())
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    lr = opt.param_groups[0]["lr"]
    s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=LayerProbe(model, x, y))
    for _ in range(4):
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
        s.step()
    if isinstance(lr, torch.Tensor):
        assert opt.param_groups[0]["lr"] is lr and s.get_last_lr()[0] is not lr and s.get_last_lr()[0] == lr
    copied = copy.deepcopy(opt.state_dict())
    json.dumps(s.state_dict())
    assert copied["param_groups"][0]["lr"] == opt.param_groups[0]["lr"]


def test_handed_out_tensors_are_copies():
    opt = torch.optim.Adam([nn.Parameter(torch.zeros(2))], lr=torch.tensor(0.5))
    s = MutualInformationLR(opt, ChangePolicy(**PAPER))
    s.get_last_lr()[0].fill_(9.0)
    assert float(opt.param_groups[0]["lr"]) == pytest.approx(1e-3)


def test_new_parameter_group():
    opt = sgd()
    s = steps(MutualInformationLR(opt, ChangePolicy(**PAPER)), 1.0, 2.0)
    opt.add_param_group(dict(params=[nn.Parameter(torch.zeros(1))], lr=0.01))
    s.step(3.0)
    assert s.get_last_lr() == pytest.approx([1e-3 + 0.05 + 0.1 / 3, 0.01 + 0.1 / 3])
    s.plot()


# --- state -------------------------------------------------------------------------------------------------------


def plain(v):
    if isinstance(v, dict):
        return all(isinstance(k, str) and plain(x) for k, x in v.items())
    if isinstance(v, list):
        return all(map(plain, v))
    return v is None or type(v) in (int, float, str, bool)


def test_state_is_plain_and_detached():
    model = nn.Linear(4, 3)
    opt = torch.optim.Adam(layer_groups(model), lr=torch.tensor(0.1))
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=LayerProbe(model, x, y, layers="all"))
    for _ in range(3):
        s.step()
    state = s.state_dict()
    assert plain(state)
    again = through_file(state)
    assert again == state
    kept = copy.deepcopy(state)
    s.step()
    s.history[0]["mi"]["output"] = 0.0
    assert state == kept, "a saved state changes when training goes on"
    s.load_state_dict(state)
    s.step(1.0)
    assert state == kept, "or when a loaded one does"


def test_nan_survives_the_file():
    s = steps(MutualInformationLR(sgd(), ChangePolicy(**PAPER)), 1.0, math.nan, -math.inf)
    assert repr(through_file(s.state_dict())) == repr(s.state_dict())


def test_foreign_state_is_refused():
    with pytest.raises(ValueError, match="missing"):
        MutualInformationLR(sgd(), ChangePolicy(**PAPER)).load_state_dict(ReduceLROnPlateau(sgd()).state_dict())


def test_fresh_and_used():
    assert is_fresh(sgd())
    saved = steps(MutualInformationLR(sgd(), ChangePolicy(**PAPER)), 1.0, 2.0).optimizer.state_dict()
    opt = sgd()
    opt.load_state_dict(through_file(saved))
    lr = opt.param_groups[0]["lr"]
    assert lr > 0.05 and MutualInformationLR(opt, ChangePolicy(**PAPER)).get_last_lr() == [
        lr
    ]  # loaded, then constructed
    opt = sgd()
    s = MutualInformationLR(opt, ChangePolicy(**PAPER))
    opt.load_state_dict(saved)  # constructed, then loaded
    assert opt.param_groups[0]["lr"] == lr
    adam = torch.optim.Adam([nn.Parameter(torch.zeros(2))], lr=0.03)
    adam.param_groups[0]["params"][0].grad = torch.ones(2)
    adam.step()
    other = torch.optim.Adam([nn.Parameter(torch.zeros(2))], lr=0.5)
    other.load_state_dict(adam.state_dict())
    assert MutualInformationLR(other, ChangePolicy(**PAPER)).get_last_lr() == [0.03]  # saved without any scheduler
    cosine = sgd(0.2)
    torch.optim.lr_scheduler.CosineAnnealingLR(cosine, 10)
    assert MutualInformationLR(cosine, ChangePolicy(**PAPER)).get_last_lr() == [0.2]


class Net(nn.Sequential):
    def __init__(self):
        torch.manual_seed(1)
        super().__init__(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


X = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def build(tensor_lr, layerwise, redraw, policy):
    model = Net()
    groups = layer_groups(model) if layerwise else model.parameters()
    opt = torch.optim.SGD(groups, lr=torch.tensor(0.1) if tensor_lr else 0.1, momentum=0.9)
    probe = LayerProbe(model, X, Y, layers="all" if layerwise else "output", samples=80, redraw=redraw)
    return model, opt, MutualInformationLR(opt, policy, probe=probe)


def epoch(model, opt, s):
    for i in torch.randperm(len(X)).split(30):
        loss = nn.functional.cross_entropy(model(X[i]), Y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    s.step()


@pytest.mark.parametrize(
    "tensor_lr, layerwise, redraw",
    [(False, False, False), (True, False, False), (False, True, False), (False, True, True)],
)
@pytest.mark.parametrize("scheduler_first", [False, True])
def test_resumed_run_is_the_same_bit_for_bit(tensor_lr, layerwise, redraw, scheduler_first):
    policy = SequentialPolicy([ValueChangePolicy(**PAPER), ValuePolicy(**PAPER), ChangePolicy(**PAPER)], [3, 5])
    args = tensor_lr, layerwise, redraw, policy
    torch.manual_seed(0)
    run = build(*args)
    files = []
    for _ in range(7):
        files.append((run[0].state_dict(), run[1].state_dict(), run[2].state_dict(), torch.get_rng_state()))
        files[-1] = through_file(files[-1])
        epoch(*run)
    for stop, (m, o, s, rng) in enumerate(files):
        torch.manual_seed(99)
        model, opt, sched = build(*args)
        if scheduler_first:
            sched.load_state_dict(s)
        model.load_state_dict(m)
        opt.load_state_dict(o)
        if not scheduler_first:
            sched = build(*args)[2]
            sched = MutualInformationLR(
                opt,
                policy,
                probe=LayerProbe(model, X, Y, layers="all" if layerwise else "output", samples=80, redraw=redraw),
            )
            sched.load_state_dict(s)
        torch.set_rng_state(rng)
        for _ in range(7 - stop):
            epoch(model, opt, sched)
        assert sched.history == run[2].history and sched.state_dict() == run[2].state_dict()
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), run[0].state_dict().values()))


def test_a_few_epochs_with_another_policy_from_a_checkpoint():
    "Figure 5 goes on from the third checkpoint of another run."
    base = steps(MutualInformationLR(sgd(), ValueChangePolicy(**PAPER), reference=3.3), 2.0, 2.9, 3.0)
    s = MutualInformationLR(
        sgd(),
        SequentialPolicy([ValueChangePolicy(**PAPER), ValuePolicy(**PAPER), ValueChangePolicy(**PAPER)], [4, 6]),
        reference=3.3,
    )
    s.optimizer.load_state_dict(base.optimizer.state_dict())
    s.load_state_dict(base.state_dict())
    steps(s, 3.0, 3.0, 3.0)
    assert [r["branch"][0] for r in s.history[3:]] == ["increase", "increase", "decrease"] and s.reference == 3.3


# --- measurements ------------------------------------------------------------------------------------------------


def test_kinds_of_measurements():
    for mi in (
        1.0,
        torch.tensor(1.0),
        torch.tensor(1.0, dtype=torch.float64),
        {"output": torch.tensor(1.0)},
        {"a": 3.0, "fc": 1.0},
    ):
        s = steps(MutualInformationLR(sgd(), ChangePolicy(**PAPER)), mi)
        assert plain(s.state_dict()) and list(s.history[0]["mi"].values())[-1] == 1.0
    for mi, error in (
        ("1", TypeError),
        (1, TypeError),
        (torch.tensor(1), TypeError),
        ({}, ValueError),
        (torch.ones(2), (RuntimeError, ValueError)),
        ({"a": None}, TypeError),
    ):
        s = MutualInformationLR(sgd(), ChangePolicy(**PAPER))
        with pytest.raises(error):
            s.step(mi)
        assert s.history == [] and s.last_epoch == 0


def test_failed_measurement_leaves_the_state():
    def probe():
        raise RuntimeError("out of memory")

    s = MutualInformationLR(sgd(), ChangePolicy(**PAPER), probe=probe)
    steps(s, 1.0, 2.0)
    before = s.state_dict()
    with pytest.raises(RuntimeError, match="out of memory"):
        s.step()
    after = s.state_dict()
    after.pop("calls")
    before.pop("calls")
    after.pop("told")
    before.pop("told")
    assert after == before


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -0.3])
def test_bad_measurements_hold_and_warn_once(bad):
    s = steps(MutualInformationLR(sgd(), ChangePolicy(**PAPER)), 1.0, 2.0)
    lr = s.get_last_lr()
    with pytest.warns(UserWarning, match="not finite and positive") as w:
        steps(s, bad, bad, bad)
    assert len(w) == 1 and s.get_last_lr() == lr and w[0].filename == __file__
    assert [r["branch"] for r in s.history[-3:]] == [["hold"]] * 3 and repr(s.history[-1]["mi"]["output"]) == repr(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t = MutualInformationLR(sgd(), ChangePolicy(**PAPER))
        t.load_state_dict(s.state_dict())
        t.step(bad)
    s.step(2.5)
    assert s.get_last_lr() == pytest.approx([lr[0] + 0.1 * 0.2])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.floats(0.01, 5), st.floats()), max_size=12),
    st.sampled_from([ChangePolicy(**PAPER), ValueChangePolicy(**PAPER), ValuePolicy(**PAPER)]),
)
def test_rates_stay_within_bounds_whatever_is_measured(mis, policy):
    s = MutualInformationLR(sgd(n=2), policy, reference=3.3)
    for m in mis:
        s.step(m)
        assert all(policy.lr_min <= lr <= policy.lr_max for lr in s.get_last_lr())
    assert len(s.history) == len(mis)
    direction = dict(
        increase=lambda a, b: b >= a,
        decrease=lambda a, b: b <= a,
        violation=lambda a, b: b <= a,
        hold=lambda a, b: a == b,
        start=lambda a, b: b == policy.lr_min,
    )
    for r in s.history:
        for a, b, branch in zip(r["lr"], r["next_lr"], r["branch"]):
            assert direction[branch](a, b)


def test_reference_is_asked_for_late_and_once():
    asked = []

    class Probe:
        def __call__(self):
            return 1.0 + len(asked) / 10 + self.n

        def reference(self):
            asked.append(1)
            return torch.tensor(3.3)

    p = Probe()
    s = MutualInformationLR(sgd(), ValueChangePolicy(**PAPER), probe=p)
    for p.n in (0, 1, 2):
        s.step()
    assert asked == [1] and s.reference == pytest.approx(3.3)
    p.n = 0
    s = MutualInformationLR(sgd(), ChangePolicy(**PAPER), probe=p)
    s.step()
    s.step()
    assert asked == [1]
    with pytest.raises(ValueError, match="reference"):
        MutualInformationLR(sgd(), ValueChangePolicy(**PAPER), reference=-1.0)


def test_layers_groups_and_policies():
    model = Net()
    opt = torch.optim.SGD(layer_groups(model), lr=0.1)
    assert [g["name"] for g in opt.param_groups] == ["0", "4"]
    s = MutualInformationLR(opt, {"0": ChangePolicy(**PAPER | dict(lr_min=0.01)), "default": ChangePolicy(**PAPER)})
    assert s.get_last_lr() == [0.01, 0.001]
    steps(s, {"0": 2.0, "4": 1.0}, {"0": 2.0, "4": 2.0})
    assert s.get_last_lr() == [0.01, pytest.approx(0.001 + 0.05)]
    steps(s, 3.0)
    assert s.history[-1]["mi"] == {"output": 3.0}  # a single number is everybody's
    with pytest.raises(ValueError, match="no policy for parameter group '4'"):
        MutualInformationLR(opt, {"0": ChangePolicy(**PAPER)})


def test_function_as_policy():
    s = steps(
        MutualInformationLR(sgd(), lambda lr, history, reference: 0.01 * len(history) + 0.01, reference=1.0), 1.0, 2.0
    )
    assert s.get_last_lr() == [0.03] and s.history[-1]["branch"] == ["custom"]
    with pytest.raises(ValueError, match="nan"):
        MutualInformationLR(sgd(), lambda *a: math.nan, reference=1.0)


# --- training gone wrong -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
def test_step_before_training_or_twice_is_said_once():
    model = Net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=LayerProbe(model, X, Y))
    with pytest.warns(UserWarning, match="no parameter seems to have changed") as w:
        s.step()
        s.step()
    assert len(w) == 1
    model2 = Net()
    opt = torch.optim.SGD(model2.parameters(), lr=0.1)
    s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=LayerProbe(model2, X, Y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            epoch(model2, opt, s)


def test_a_network_that_dies_or_explodes():
    for spoil in (
        lambda m: m[0].weight.data.fill_(math.nan),
        lambda m: m[0].bias.data.fill_(-1e9),
        lambda m: m[0].weight.data.mul_(1e38),
    ):
        model = Net()
        opt = torch.optim.SGD(layer_groups(model), lr=0.1)
        s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=LayerProbe(model, X, Y, layers="all"))
        for _ in range(3):
            epoch(model, opt, s)
        spoil(model)
        held = s.get_last_lr()
        for _ in range(3):
            epoch(model, opt, s)
            assert all(1e-3 <= lr <= 0.1 for lr in s.get_last_lr())
        if any(math.isnan(v) for v in s.history[-1]["mi"].values()):
            assert s.get_last_lr() == held


def test_one_class_in_the_probe():
    model = Net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    rare = torch.zeros(120).long()
    rare[:60] = 1
    probe = LayerProbe(model, X, rare, samples=4, redraw=True)
    s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=probe)
    for _ in range(30):
        epoch(model, opt, s)
        assert 1e-3 <= s.get_last_lr()[0] <= 0.1
    assert any(r["mi"]["output"] == 0 and r["branch"][0] in ("hold", "start") for r in s.history)


def test_every():
    seen = []
    s = MutualInformationLR(sgd(), ChangePolicy(**PAPER), probe=lambda: seen.append(1) or 1.0, every=4)
    for _ in range(9):
        s.step()
    assert len(seen) == s.last_epoch == 2
    s.step(2.0)
    assert s.last_epoch == 3  # a given measurement always counts
    t = MutualInformationLR(sgd(), ChangePolicy(**PAPER), probe=lambda: 1.0, every=4)
    t.load_state_dict(s.state_dict())
    for _ in range(2):
        t.step()
    assert t.last_epoch == 3
    t.step()
    assert t.last_epoch == 4  # the count of calls is resumed
    with pytest.raises(ValueError, match="every"):
        MutualInformationLR(sgd(), ChangePolicy(**PAPER), every=0)


def test_from_other_threads():
    model = Net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    s = MutualInformationLR(opt, ChangePolicy(**PAPER), probe=LayerProbe(model, X, Y))
    threads = [threading.Thread(target=s.step) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert s.last_epoch == len(s.history) == 8 and [r["epoch"] for r in s.history] == list(range(8)) and model.training


def test_soak():
    "Hundreds of epochs: nothing grows but the history, and nothing keeps the scheduler alive."
    model = Net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=LayerProbe(model, X[:30], Y[:30], layers="all"))
    for _ in range(5):
        s.step()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        s.step()
    gc.collect()
    grown = len(gc.get_objects()) - before
    assert grown < 200 * 8, grown
    assert all(not m._forward_hooks for m in model.modules()) and len(s.history) == 205
    alive = weakref.ref(s)
    del s
    gc.collect()
    assert alive() is None


def test_plot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    s = steps(
        MutualInformationLR(sgd(n=2), ChangePolicy(**PAPER)),
        {"a": 1.0, "b": 2.0},
        math.nan,
        {"a": 2.0, "b": 2.0},
        {"a": 2.0, "b": 2.01},
    )
    left, right = s.plot()
    assert len(left.lines) == 3 and len(right.lines) >= 4
    plt.close("all")
    MutualInformationLR(sgd(), ChangePolicy(**PAPER)).plot()
    plt.close("all")


# --- a user's own learning rate, and a word in time --------------------------------------------------------------


def adamw(lr=3e-4, **kw):
    return torch.optim.AdamW([nn.Parameter(torch.zeros(2))], lr=lr, **kw)


def said(f):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        f()
    return [str(w.message) for w in found]


@pytest.mark.parametrize(
    "policy",
    [
        ChangePolicy(),
        ValueChangePolicy(),
        ValuePolicy(),
        AutoPolicy(),
        SequentialPolicy([ValueChangePolicy(), ChangePolicy()], [3]),
    ],
)
@pytest.mark.parametrize("make, factor", [(lambda: sgd(0.1), 3), (adamw, 3)])
def test_a_default_never_overwrites_the_users_rate(policy, make, factor):
    opt = make()
    lr = opt.param_groups[0]["lr"]
    s = MutualInformationLR(opt, policy, reference=3.3)
    assert s.get_last_lr() == [lr]
    steps(s, 1.0)
    assert s.get_last_lr() == [lr]
    for mi in (2.0, 2.5, 2.9, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        s.step(mi)
        assert lr / factor <= s.get_last_lr()[0] <= lr * factor * (1 + 1e-12)


def test_a_used_sgd_without_momentum_keeps_its_rate():
    for policy in (ValueChangePolicy(), ValueChangePolicy(**PAPER)):
        model = Net()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        nn.functional.cross_entropy(model(X), Y).backward()
        opt.step()
        assert MutualInformationLR(opt, policy, reference=3.3).get_last_lr() == [0.1]


def test_given_bounds_are_the_papers_rule():
    s = steps(MutualInformationLR(sgd(0.5), ChangePolicy(**PAPER)), 1.0, 2.0)
    assert [r["lr"] for r in s.history] == [[1e-3], [1e-3]] and s.get_last_lr() == [1e-3 + 0.1 * 0.5]


def test_construction_says_what_it_will_do():
    text = repr(MutualInformationLR(adamw(), ValueChangePolicy(), reference=3.3))
    for part in ("AdamW", "ValueChangePolicy", "LR 0.0003 now", "0.0001 … 0.0009", "the optimizer's"):
        assert part in text
    assert "as given" in repr(MutualInformationLR(sgd(), ChangePolicy(**PAPER)))
    repr(MutualInformationLR(sgd(n=2), lambda lr, history, reference: 0.1))


def test_open_bounds_are_resumed_with_another_rate_in_the_script():
    whole = steps(MutualInformationLR(sgd(0.1), ChangePolicy()), 1.0, 2.0, 2.5)
    first = steps(MutualInformationLR(sgd(0.1), ChangePolicy()), 1.0)
    again = MutualInformationLR(sgd(7.0), ChangePolicy())
    again.optimizer.load_state_dict(first.optimizer.state_dict())
    again.load_state_dict(through_file(first.state_dict()))
    assert steps(again, 2.0, 2.5).state_dict() == whole.state_dict()


@pytest.mark.filterwarnings("default")
def test_a_dead_start_is_said_once():
    s = MutualInformationLR(sgd(), ChangePolicy(lr_min=1e-4))
    found = said(lambda: steps(s, *[2 + 0.001 * t for t in range(12)]))
    assert len(found) == 1 and "has not left LR_min" in found[0] and "epsilon" in found[0]
    found = said(lambda: steps(MutualInformationLR(sgd(), ValueChangePolicy(), reference=1.0), *[2.0] * 9))
    assert len(found) == 1 and "AutoPolicy" in found[0]


def test_sequential_lr_hands_over_at_its_milestone():
    linear, values = torch.optim.lr_scheduler.LinearLR, iter([1.0, 2.0, 2.2])
    opt = sgd(0.3)
    ours = MutualInformationLR(opt, ChangePolicy(), probe=lambda: next(values))
    sequence = torch.optim.lr_scheduler.SequentialLR(opt, [linear(opt, total_iters=3), ours], [3])
    rates = sequence.get_last_lr()
    for _ in range(4):
        sequence.step()
        rates += sequence.get_last_lr()
    assert (
        rates == pytest.approx([0.1, 0.1 + 0.2 / 3, 0.1 + 0.4 / 3, 0.3, 0.3 + 0.9 * 0.5])
        and ours.last_epoch == len(ours.history) == 2
    )


def test_sequential_lr_begins_with_it_and_older_torch_hands_over_by_zero():
    opt = sgd(0.3)
    ours = MutualInformationLR(opt, ChangePolicy(**PAPER), probe=iter([1.0, 2.0, 3.0]).__next__)
    sequence = torch.optim.lr_scheduler.SequentialLR(opt, [ours, torch.optim.lr_scheduler.ConstantLR(opt, 1.0)], [3])
    assert sequence.get_last_lr() == [1e-3] and ours.history == []
    sequence.step()
    assert len(ours.history) == 1
    other = MutualInformationLR(sgd(0.3), ChangePolicy(), probe=lambda: 1.0)
    other.step(0)
    assert other.get_last_lr() == [0.3] and len(other.history) == 1


def test_chained_scheduler_keeps_a_warm_up():
    opt = sgd(0.3)
    warm = torch.optim.lr_scheduler.LinearLR(opt, total_iters=2)
    chain = ChainedScheduler([warm, MutualInformationLR(opt, ChangePolicy(), probe=iter([1.0, 1.0, 1.0]).__next__)])
    for _ in range(2):
        opt.step()
        chain.step()
    assert chain.get_last_lr() == pytest.approx([0.3])


@pytest.mark.parametrize("ixy", [0.0, -0.046, math.nan])
def test_an_unusable_reference_is_said_on_construction(ixy):
    def probe():
        return 1.0

    probe.reference = lambda: ixy
    with pytest.raises(ValueError, match="AutoPolicy or ChangePolicy"):
        MutualInformationLR(sgd(), ValueChangePolicy(), probe=probe)
    MutualInformationLR(sgd(), ChangePolicy(), probe=probe)
    with pytest.raises(ValueError, match="pass reference="):
        MutualInformationLR(sgd(), ValueChangePolicy())


@pytest.mark.filterwarnings("default")
def test_an_epoch_and_a_loss_are_not_measurements():
    with pytest.raises(TypeError, match="old epoch argument"):
        MutualInformationLR(sgd(), ChangePolicy()).step(3)
    s = MutualInformationLR(sgd(), ChangePolicy(), probe=LayerProbe(Net(), X, Y))
    found = said(lambda: steps(s, torch.tensor(2.7), 2.6))
    assert len(found) == 1 and "3 classes" in found[0] and "a loss" in found[0]
    assert (
        said(
            lambda: steps(
                MutualInformationLR(sgd(), ChangePolicy(), probe=lambda: 1.0), {"output": 1.0}, {"output": 2.0}
            )
        )
        == []
    )
    assert said(lambda: steps(MutualInformationLR(sgd(), ChangePolicy()), 1.0, 2.0)) == []


@pytest.mark.filterwarnings("default")
def test_groups_may_say_which_layer_they_follow():
    def groups(**kw):
        return [dict(params=[nn.Parameter(torch.zeros(2))], name=n, **kw) for n in ("decay", "no_decay")]

    mis = [{"a": 1.0, "b": 2.0}, {"a": 1.5, "b": 3.0}]
    assert len(said(lambda: steps(MutualInformationLR(torch.optim.SGD(groups(), lr=0.1), ChangePolicy()), *mis))) == 1
    s = MutualInformationLR(torch.optim.SGD(groups(follows="output"), lr=0.1), ChangePolicy())
    assert said(lambda: steps(s, *mis)) == [] and s.get_last_lr() == pytest.approx([0.1 + 0.3 / 3] * 2)
    s = steps(MutualInformationLR(torch.optim.SGD(groups(follows="a"), lr=0.1), ChangePolicy()), *mis)
    assert s.get_last_lr() == pytest.approx([0.1 + 0.3 / 3] * 2)


def test_last_epoch_as_skorch_passes_it():
    assert MutualInformationLR(sgd(), ChangePolicy(**PAPER), last_epoch=-1).get_last_lr() == [1e-3]
    assert MutualInformationLR(sgd(), ChangePolicy(**PAPER), last_epoch=4).get_last_lr() == [0.5]


def test_the_plot_and_the_table_name_a_group_alike():
    import matplotlib

    matplotlib.use("Agg")
    s = steps(MutualInformationLR(sgd(), ChangePolicy()), 1.0, 2.0)
    assert s.plot()[1].lines[0].get_label() == "output" and "next_lr/output" in s.table()


def test_a_bare_auto_policy_does_not_starve():
    s = steps(MutualInformationLR(adamw(), AutoPolicy()), *[2.5] * 10)
    assert s.get_last_lr() == pytest.approx([1e-4])


# --- dead starts of real networks ---------------------------------------------------------------------------------


def after_epochs(model, inputs, labels, optimizer, policy, epochs, batch_size):
    "The scheduler after some epochs of training, and what was warned about."
    torch.manual_seed(1)
    scheduler = MutualInformationLR(optimizer, policy, probe=LayerProbe(model, inputs, labels))

    def train():
        for _ in range(epochs):
            for index in torch.randperm(len(inputs)).split(batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs[index]), labels[index]).backward()
                optimizer.step()
            scheduler.step()

    return scheduler, said(train)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "policy, lr, least",
    [  # the least share of right answers; None: dead
        (ValueChangePolicy(**PAPER), 0.05, None),
        (ValueChangePolicy(), 0.05, 0.7),
        (ValueChangePolicy(), 0.01, 0.4),
    ],
)
def test_the_papers_start_can_be_dead_and_the_default_is_not(policy, lr, least):
    from sklearn.datasets import load_digits

    digits = load_digits()
    inputs, labels = torch.tensor(digits.data[:1000], dtype=torch.float32) / 16, torch.tensor(digits.target[:1000])
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    scheduler, found = after_epochs(model, inputs, labels, torch.optim.SGD(model.parameters(), lr=lr), policy, 8, 20)
    right = (model(inputs).argmax(1) == labels).float().mean().item()
    if least is None:
        assert len(found) == 1 and "has not left LR_min" in found[0] and "leave lr_min out" in found[0]
        assert right < 0.3 and {r["next_lr"][0] for r in scheduler.history} == {1e-3}
    else:
        assert found == [] and right > least and max(r["next_lr"][0] for r in scheduler.history) > lr


@pytest.mark.filterwarnings("default")
def test_a_dead_start_in_the_laboratory_is_said(tmp_path):
    from milr.lab.runs import run
    from milr.lab.settings import Settings

    found = said(lambda: run(Settings(dataset="digits", width=0.5, epochs=7, batch_size=100, seed=1), tmp_path))
    assert [("has not left LR_min, 0.001" in text, "leave lr_min out" in text) for text in found] == [(True, True)]


# --- skorch -------------------------------------------------------------------------------------------------------


class LikeSkorch:
    "What skorch's LRScheduler does with a schedule: made with last_epoch= when a fit begins, stepped after each epoch."

    def __init__(self, schedule):
        self.schedule, self.epochs = schedule, 0

    def fit(self, optimizer, epochs):
        scheduler, rates = self.schedule(optimizer, last_epoch=self.epochs - 1), []
        for _ in range(epochs):
            rates.append(scheduler.get_last_lr()[0])
            optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
            optimizer.step()
            scheduler.step()
            self.epochs += 1
        return rates


def test_skorch_trains_and_goes_on():
    information = iter([1.0, 2.0, 2.5, 2.8, 2.9, 2.95])
    optimizer = sgd(0.1)
    net = LikeSkorch(
        lambda optimizer, **kw: MutualInformationLR(optimizer, ChangePolicy(), probe=lambda: next(information), **kw)
    )
    rates = net.fit(optimizer, 3)
    assert rates == pytest.approx([0.1, 0.1, 0.1 + 0.3 * 0.5])  # γ1 is the open LR_max, 0.3; the change is one half
    kept = optimizer.param_groups[0]["lr"]
    again = net.fit(optimizer, 3)  # as partial_fit: the rate goes on, and the bounds stay the first fit's
    assert again[:2] == [kept, kept] and max(again) <= 1


# --- what two readers found --------------------------------------------------------------------------------------


def test_a_function_needs_no_reference_and_gets_the_one_there_is():
    seen = []

    def policy(lr, history, reference):
        seen.append(reference)
        return 0.9 * lr

    steps(MutualInformationLR(sgd(), policy), 1.0, 2.0, 2.5)
    assert seen[-1] is None
    steps(MutualInformationLR(sgd(), policy, reference=3.0), 1.0, 2.0)
    assert seen[-1] == 3


def test_zero_is_the_old_epoch_only_before_the_first_measurement():
    "As SequentialLR hands over; later it is no measurement, and nothing is reset."
    s = steps(MutualInformationLR(sgd(), AutoPolicy()), 1.0, 2.0)
    lr = s.get_last_lr()
    for zero in 0, False:
        with pytest.raises(TypeError, match="measurement is a float"):
            s.step(zero)
    assert s.get_last_lr() == lr and len(s.history) == 2
    optimizer = sgd()
    optimizer.param_groups[0]["initial_lr"] = 0.01
    fresh = MutualInformationLR(optimizer, AutoPolicy())
    with pytest.raises(ValueError, match="nothing to measure with"):
        fresh.step(0)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    "given, said",
    [
        (dict(policy=AutoPolicy), r"class AutoPolicy; pass AutoPolicy\(\)"),
        (dict(policy="auto"), "'auto' is no policy"),
        (dict(policy={"default": 3}), "3 is no policy"),
        (dict(probe="x"), "probe must be"),
        (dict(every=2.5), "every must be a whole number"),
    ],
    ids=lambda v: str(v)[:12],
)
def test_what_would_fail_only_later_is_refused(given, said):
    with pytest.raises(TypeError, match=said):
        MutualInformationLR(sgd(), **(dict(policy=AutoPolicy()) | given))


def test_another_schedule_beside_it_is_said_once():
    optimizer = sgd()
    ours = MutualInformationLR(optimizer, AutoPolicy(lr_min=0.1, lr_max=1.0))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    with pytest.warns(UserWarning, match="Does another schedule set them too"):
        for bits in 1.0, 1.1, 1.2, 1.3, 1.4:
            ours.step(bits)
            cosine.step()


def test_a_policy_without_epsilon_at_its_minimum_is_not_accused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(MutualInformationLR(sgd(0.01), AutoPolicy(lr_min=0.01, lr_max=0.1)), *(3.0 - 0.4 * i for i in range(7)))
