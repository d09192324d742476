"The average, the policy that holds, and the information test: what it finds, goes on from, and leaves as it was."

import copy, math, random, warnings
from itertools import cycle, islice
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from milr import mutual_information
from milr.probe import LayerProbe
from milr.scheduler import MutualInformationLR
from milr.hold import (
    BestNetwork,
    HoldPolicy,
    averaged,
    calibrated_information,
    polynomial_average,
    since_highest,
    usable_information,
)
from milr.start import climb, first_steps, information_test

STEPS = 20


def data(batches=12, size=32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batches * size, 4, generator=generator)
    return list(zip(x.split(size), x[:, :3].argmax(1).split(size)))


X, Y = (torch.cat(parts) for parts in zip(*data()))


def net(*layers):
    "Linear, what is given, ReLU, linear."
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), *layers, nn.ReLU(), nn.Linear(32, 3))


def sgd(model, lr=0.1, **kw):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, **kw)


def probe(network):
    return LayerProbe(network, X, Y)


def search(model, optimizer, loss_fn=F.cross_entropy, batches=None, probe=probe, steps=STEPS, **kw):
    return information_test(model, optimizer, loss_fn, data() if batches is None else batches, probe, steps, **kw)


def plain(value):
    "Nested tensors and arrays as numbers, which compare."
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def random_states():
    return plain([random.getstate(), np.random.get_state(), torch.get_rng_state()])


def everything(model, optimizer):
    "What a test that failed may not have changed."
    modes = [module.training for module in model.modules()]
    gradients = [parameter.grad for parameter in model.parameters()]
    return plain([model.state_dict(), optimizer.state_dict(), modes, gradients]) + random_states()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# the average


def recursion(values, eta):
    "Shamir and Zhang, section 4, in NumPy: the first value is the first average."
    average = np.array(values[0], float)
    for t, value in enumerate(values[1:], 2):
        share = (eta + 1) / (t + eta)
        average = (1 - share) * average + share * np.array(value, float)
    return average


def torch_average(values, eta):
    average = torch.tensor(values[0], dtype=torch.float64)
    for n, value in enumerate(values[1:], 1):
        polynomial_average(eta)([average], [torch.tensor(value, dtype=torch.float64)], torch.tensor(n))
    return average.numpy()


numbers = st.lists(st.lists(st.floats(-10, 10), min_size=2, max_size=2), min_size=1, max_size=30)


@given(numbers, st.floats(0, 50))
def test_the_polynomial_average_is_that_of_the_paper(values, eta):
    assert torch_average(values, eta) == pytest.approx(recursion(values, eta), abs=1e-5)


@given(numbers)
def test_without_forgetting_it_is_the_mean(values):
    assert torch_average(values, 0.0) == pytest.approx(np.mean(values, 0), abs=1e-5)


def test_the_more_it_forgets_the_nearer_it_is_to_the_last_value():
    values = [[float(n)] for n in range(100)]
    lags = [99 - torch_average(values, eta).item() for eta in (0.0, 2.0, 8.0, 50.0, 1e9)]
    assert lags == sorted(lags, reverse=True) and lags[0] == pytest.approx(49.5) and lags[-1] < 1e-3
    assert lags[2] == pytest.approx(99 / 10, rel=0.1)  # the mean age is t/(eta + 2)


def test_counters_are_copied_and_not_averaged():
    average, value = torch.tensor([3]), torch.tensor([8])
    polynomial_average()([average], [value], torch.tensor(5))
    assert average.item() == 8 and average.dtype == torch.int64


def test_an_average_follows_the_steps_of_its_optimizer():
    model = net(nn.BatchNorm1d(32))
    optimizer = sgd(model)
    average = averaged(model, optimizer, eta=2.0)
    seen, means = [], []
    for x, y in data(6):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        seen.append(weights(model).tolist())
        means.append(model[1].running_mean.tolist())
    assert weights(average.module).numpy() == pytest.approx(recursion(seen, 2.0), abs=1e-6)
    assert average.module[1].running_mean.numpy() == pytest.approx(recursion(means, 2.0), abs=1e-6)
    assert average.module[1].num_batches_tracked.item() == 6 and int(average.n_averaged) == 6
    assert weights(model).tolist() == seen[-1] != weights(average.module).tolist()


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")], ids=["DataParallel", "compiled"]
)
def test_a_wrapped_model_is_averaged_without_its_wrapping(wrap):
    model = net()
    bare, wrapped = averaged(model, sgd(model)), wrap(model)
    optimizer = sgd(wrapped)
    average = averaged(wrapped, optimizer)
    assert list(average.module.state_dict()) == list(bare.module.state_dict())
    for x, y in data(2):
        F.cross_entropy(wrapped(x), y).backward()
        optimizer.step()
    assert int(average.n_averaged) == 2 and not torch.equal(weights(average.module), weights(model))


def test_a_step_that_is_skipped_is_not_averaged():
    "As a scaler of mixed precision does where a gradient is not finite."
    model = net()
    optimizer = sgd(model)
    average = averaged(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for poison in (0.0, math.inf, 0.0):
        optimizer.zero_grad()
        scaler.scale(weights(model).sum() * 0 + F.cross_entropy(model(X), Y)).backward()
        model[0].weight.grad += poison
        scaler.step(optimizer)
        scaler.update()
    assert int(average.n_averaged) == 2 and weights(average.module).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_not_averaged(dtype):
    model = net().to(dtype)
    with pytest.raises(ValueError, match="use autocast"):
        averaged(model, sgd(model))


def test_sharded_weights_are_not_averaged():
    class FullyShardedDataParallel(nn.Sequential):
        "Told by its name, as the real one is."

    model = nn.Sequential(FullyShardedDataParallel(nn.Linear(4, 3)))
    with pytest.raises(ValueError, match="FSDP"):
        averaged(model, sgd(model))


# the policy


def branches_of(policy, history):
    return [policy.decide(1.0, history[:t])[1] for t in range(1, len(history) + 1)]


def branches(history, patience):
    return branches_of(HoldPolicy(patience, share=0.0), history)


NAN, INF = math.nan, math.inf
hold, down = "hold", "decrease"


@pytest.mark.parametrize(
    "history, once, twice",
    [
        ([1.0, 2.0, 3.0], [hold] * 3, [hold] * 3),
        ([3.0, 2.0, 2.5, 2.9], [hold, down, down, down], [hold, hold, down, hold]),
        ([3.0, 2.0, 4.0, 3.0, 3.0], [hold, down, hold, down, down], [hold, hold, hold, hold, down]),
        ([2.0, 2.0, 2.0], [hold, down, down], [hold, hold, down]),
        ([1.0, NAN, -INF, 2.0], [hold, down, down, hold], [hold, hold, down, hold]),
        ([NAN, NAN, NAN], [hold, down, down], [hold, hold, down]),
        ([1.0, INF, 0.5], [hold, down, down], [hold, hold, down]),
        ([-3.0, -2.0, -2.5, -1.0], [hold, hold, down, hold], [hold] * 4),
        ([NAN, -5.0], [hold, hold], [hold, hold]),
    ],
)
def test_the_branches_of_a_history(history, once, twice):
    assert (branches(history, 1), branches(history, 2)) == (once, twice)


anything = st.lists(st.floats(), min_size=1, max_size=12)


@given(anything, st.integers(1, 4), st.floats(0, 3), st.floats(0, 1e300))
def test_lr_stays_or_is_halved_for_every_history(history, patience, share, lr):
    policy = HoldPolicy(patience, share)
    new, branch = policy.decide(lr, history)
    finite = [v if math.isfinite(v) else -INF for v in history]
    waited = since_highest(history)
    assert finite[-1 - waited] == max(finite) and all(v < max(finite) for v in finite[: len(finite) - 1 - waited])
    wait = max(patience, math.ceil(share * (len(history) - waited)))
    halved = waited > 0 and waited % wait == 0
    assert (new, branch) == ((lr / 2, "decrease") if halved else (lr, "hold"))
    assert policy(lr, history) == new and (waited > 0 or branch == "hold")


def test_it_begins_where_the_optimizer_is_and_refuses_what_it_cannot_use():
    assert HoldPolicy().decide(0.3, []) == (0.3, "start") and HoldPolicy()(0.3, [], 2.0) == 0.3
    for lr in NAN, INF:
        with pytest.raises(ValueError, match="finite one"):
            HoldPolicy().decide(lr, [1.0])
    for bad in 0, -1:
        with pytest.raises(ValueError, match="at least 1"):
            HoldPolicy(bad)
    for bad in True, 2.0, "2", None:
        with pytest.raises(TypeError, match="whole number"):
            HoldPolicy(bad)
    for bad in -0.1, NAN, INF:
        with pytest.raises(ValueError, match="share must be"):
            HoldPolicy(share=bad)


def test_it_waits_longer_the_longer_it_has_risen():
    "A third of twelve measurements is four; of three it is less than the two that it waits at least."
    rises = [float(t) for t in range(12)]
    assert branches_of(HoldPolicy(), rises + [0.0] * 8) == [hold] * 15 + [down] + [hold] * 3 + [down]
    assert branches_of(HoldPolicy(), rises[:3] + [0.0] * 4) == [hold] * 4 + [down, hold, down]


def test_a_scheduler_halves_a_lr_of_each_group():
    model = net()
    groups = [dict(params=model[0].parameters(), lr=0.4), dict(params=model[2].parameters(), lr=0.1)]
    scheduler = MutualInformationLR(torch.optim.SGD(groups), HoldPolicy())
    rates = []
    for bits in (1.0, 1.2, 1.1, 1.1, 1.3):
        scheduler.step(bits)
        rates.append(scheduler.get_last_lr())
    assert rates == [[0.4, 0.1]] * 3 + [[0.2, 0.05]] * 2


@pytest.mark.filterwarnings("default")
def test_a_scheduler_takes_negative_information_and_says_what_becomes_of_a_nan():
    "Each new high counts, below 0 too; a NaN is the lowest of all, and the second one without a high cools."
    scheduler = MutualInformationLR(torch.optim.SGD(net().parameters(), lr=0.4), HoldPolicy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for bits in (-2.0, -1.0, -1.5, -0.5):
            scheduler.step(bits)
    assert scheduler.get_last_lr() == [0.4]
    with pytest.warns(UserWarning, match="not finite; it counts as the lowest") as said:
        scheduler.step(math.nan)
        scheduler.step(math.nan)
    assert len(said) == 1 and scheduler.get_last_lr() == [0.2]


# the LRs that are tried


def tries(curve, **kw):
    "The powers in the order in which they were tried, and the best."
    asked = []
    known = climb(lambda power: asked.append(power) or curve(power), **kw)
    assert len(set(asked)) == len(asked) and list(known) == asked
    return asked, max(known, key=known.get)


def hill(top):
    return lambda power: -float((power - top) ** 2)


@pytest.mark.parametrize("top", range(-9, 10))
def test_a_hill_is_climbed_from_either_side(top):
    asked, best = tries(hill(top))
    assert best == top and min(-2, top - 2) <= min(asked) and max(asked) <= max(2, top + 2)
    assert len(asked) <= abs(top) // 2 + 5


def test_nothing_is_tried_below_where_more_is_better():
    assert tries(hill(4))[0] == [0, 2, 4, 6, 3, 5] and min(tries(float)[0]) == 0


def test_alike_lrs_leave_the_one_that_was_there():
    assert tries(lambda power: 1.0, before=0.0) == ([0, 2, -2, -1, 1], 0)


def test_below_a_lr_that_teaches_nothing_more_decades_are_tried():
    "Above power -8 it breaks or teaches nothing; what an untrained network knows is no success."
    for high in (-INF, 0.1, 0.05):
        assert tries(lambda power: high if power > -8 else 1.0 + power / 100, before=0.1)[1] in (-8, -9, -7)


def test_it_ends_where_nothing_can_be_learnt_and_where_all_is_better():
    for curve in (lambda power: -INF), (lambda power: 0.0):
        assert len(tries(curve, before=0.0)[0]) == 14 and len(tries(curve, before=0.0, most=4)[0]) == 6
    assert tries(float, most=5) == ([0, 2, 4, 6, 8, 7, 9], 9)


# the first steps


def test_lr_rises_in_the_first_half_of_the_steps():
    model, seen = net(), []
    optimizer = torch.optim.SGD([dict(params=model[0].parameters()), dict(params=model[2].parameters())], lr=1.0)

    def loss_of(batch):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return F.cross_entropy(model(batch[0]), batch[1])

    assert first_steps(optimizer, loss_of, data(3), [0.2, 0.02], 10)
    shares = [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert [first for first, _ in seen] == pytest.approx([0.2 * share for share in shares])
    assert [second for _, second in seen] == pytest.approx([0.02 * share for share in shares])


def test_a_lr_that_is_a_tensor_stays_one():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.5))
    first_steps(optimizer, lambda batch: F.cross_entropy(model(batch[0]), batch[1]), data(3), [0.25], 10)
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) and optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_loss_that_is_not_finite_ends_the_steps_before_it_is_followed(bad):
    model, losses = net(), []
    optimizer = sgd(model)

    def loss_of(batch):
        losses.append(weights(model))
        return F.cross_entropy(model(batch[0]), batch[1]) * (bad if len(losses) == 4 else 1)

    assert not first_steps(optimizer, loss_of, data(), [0.1], 10)
    assert len(losses) == 4 and torch.equal(losses[-1], weights(model))


def test_no_batches_are_refused():
    model = net()
    with pytest.raises(ValueError, match="no batches"):
        first_steps(sgd(model), lambda batch: None, [], [0.1], 10)
    with pytest.raises(ValueError, match="no batches"):
        search(model, sgd(model), batches=[])


# the information test


def trained(model, optimizer, batches, lr, steps=STEPS):
    "By hand: what the information test says it does at one LR, and its race with more steps."
    average = averaged(model, optimizer)
    model.train()
    for step, (x, y) in enumerate(islice(cycle(batches), steps), 1):
        optimizer.param_groups[0]["lr"] = lr * min(1, 2 * step / STEPS)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return average


KINDS = {"SGD": sgd, "AdamW": lambda model: torch.optim.AdamW(model.parameters())}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [(), (nn.BatchNorm1d(32),)], ids=["plain", "BatchNorm"])
@pytest.mark.parametrize("count", [12, 3])
def test_it_goes_on_from_a_plain_training_at_the_lr_it_chose(kind, layers, count):
    "Weights, buffers, optimizer and average, to the bit; also one step later, and where batches come round again."
    model, again = net(*copy.deepcopy(layers)), net(*copy.deepcopy(layers))
    optimizer, other = KINDS[kind](model), KINDS[kind](again)
    found = search(model, optimizer, batches=data(count))
    average = trained(again, other, data(count), found.lr)
    assert optimizer.param_groups[0]["lr"] == found.lr in found.lrs
    assert all(parameter.grad is None for parameter in model.parameters())
    for step in range(2):
        assert plain(model.state_dict()) == plain(again.state_dict())
        assert plain(optimizer.state_dict()) == plain(other.state_dict())
        assert plain(found.average.state_dict()) == plain(average.state_dict())
        for network, steps in (model, optimizer), (again, other):
            steps.zero_grad()
            F.cross_entropy(network(X), Y).backward()
            steps.step()
    assert found.probe() == probe(average.module)() != probe(model)()


def test_it_reports_what_each_lr_taught():
    model = net()
    untrained = probe(copy.deepcopy(model))()["output"]
    found = search(model, sgd(model))
    assert found.lrs == sorted(found.lrs) and len(found.lrs) == len(found.bits) and found.before == untrained
    assert found.steps == STEPS * len(found.lrs) and not found.problem
    assert found.bits[found.lrs.index(found.lr)] == found.probe()["output"] > found.before
    for lr, bits in zip(found.lrs, found.bits):
        again = net()
        assert probe(trained(again, sgd(again), data(), lr).module)()["output"] == bits


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.3, 0.99])
def test_of_lrs_that_taught_about_as_much_it_takes_the_highest(tolerance):
    found = search(model := net(), sgd(model), tolerance=tolerance)
    least = max(found.bits) * (1 - tolerance)
    assert found.lr == max(lr for lr, bits in zip(found.lrs, found.bits) if bits >= least)
    assert found.bits[found.lrs.index(found.lr)] == found.probe()["output"]


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, NAN])
def test_a_tolerance_is_a_share(tolerance):
    with pytest.raises(ValueError, match="a share from 0 to below 1"):
        search(model := net(), sgd(model), tolerance=tolerance)


def test_it_finds_the_same_lr_from_far_below_and_above():
    for lr in (1e-4, 1e3):
        model = net()
        found = search(model, sgd(model, lr))
        assert 0.01 < found.lr < 3 and max(found.bits) > 0.8


def test_groups_keep_their_ratios():
    model = net()
    groups = [dict(params=model[0].parameters(), lr=0.002), dict(params=model[2].parameters(), lr=0.0005)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    found = search(model, optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([found.lr, found.lr / 4]) and found.lr > 0.002


# the race


def doubling(network):
    "A probe whose number doubles with every gain of 0.035 bits, so that there is a race."
    return lambda: math.exp(20 * probe(network)()["output"])


def race(model, optimizer, loss_fn=F.cross_entropy, **kw):
    return search(model, optimizer, loss_fn, probe=doubling, race=True, **kw)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [12, 3])
def test_who_races_is_trained_as_if_it_had_never_stopped(kind, count):
    "Every LR of every round, and what the test leaves, to the bit."
    model = net()
    optimizer = KINDS[kind](model)
    found = race(model, optimizer, batches=data(count))
    assert [len(bits) for bits in found.rounds] in ([3], [3, 2])
    assert found.steps == STEPS * (len(found.lrs) + sum(2**lap * len(bits) for lap, bits in enumerate(found.rounds)))
    for lap, bits_of in enumerate(found.rounds, 1):
        for lr, bits in bits_of.items():
            again = net()
            average = trained(again, KINDS[kind](again), data(count), lr, STEPS * 2**lap)
            assert doubling(average.module)() == bits
    other = KINDS[kind](again := net())
    average = trained(again, other, data(count), found.lr, STEPS * 2 ** len(found.rounds))
    assert plain(model.state_dict()) == plain(again.state_dict())
    assert plain(optimizer.state_dict()) == plain(other.state_dict())
    assert plain(found.average.state_dict()) == plain(average.state_dict())


def test_the_best_three_race_and_then_two():
    found = race(model := net(), sgd(model))
    entrants = [dict(zip(found.lrs, found.bits)), *found.rounds]
    for before, after, few in zip(entrants, entrants[1:], (3, 2)):
        assert set(after) == set(sorted(before, key=before.get)[-few:])
    assert found.lr in entrants[-1] and entrants[-1][found.lr] >= 0.95 * max(entrants[-1].values())


def test_where_much_is_learnt_there_is_no_race():
    model, again = net(), net()
    found, alone = search(model, sgd(model), race=True), search(again, sgd(again))
    assert found.rounds == [] and found.steps == alone.steps and found.bits == alone.bits and found.lr == alone.lr
    assert plain(model.state_dict()) == plain(again.state_dict())


def test_a_race_goes_on_with_batches_that_were_not_seen_yet():
    seen = []

    def loss(out, y):
        seen.append(y.tolist())
        return F.cross_entropy(out, y)

    torch.manual_seed(0)
    found = race(model := net(), sgd(model), loss, batches=loader())
    first = STEPS * len(found.lrs)
    begun = [seen[i : i + STEPS] for i in range(0, first, STEPS)]
    further = [seen[i : i + STEPS] for i in range(first, first + STEPS * len(found.rounds[0]), STEPS)]
    assert len(further) == 3 and all(each == further[0] for each in further) and further[0] != begun[0]


def test_if_all_break_in_a_race_it_goes_on_from_before():
    model, again = net(), net()
    alone, steps = search(again, sgd(again), probe=doubling), []

    def breaks_later(out, y):
        steps.append(1)
        return F.cross_entropy(out, y) * (1 if len(steps) <= alone.steps else NAN)

    found = race(model, sgd(model), breaks_later)
    assert [set(bits.values()) for bits in found.rounds] == [{-INF}]
    assert (found.lr, found.bits) == (alone.lr, alone.bits) and plain(model.state_dict()) == plain(again.state_dict())


def loader(**kw):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=32, shuffle=True, **kw)


def found_with(seed, batches):
    "Of a network that draws random numbers, with a probe of the test's own."
    model = net(nn.Dropout())
    torch.manual_seed(seed)
    found = information_test(model, sgd(model), F.cross_entropy, batches, (X, Y), STEPS)
    return found.lrs, found.bits, plain(model.state_dict())


def test_a_seed_decides_the_outcome():
    assert found_with(1, loader()) == found_with(1, loader()) != found_with(2, loader())
    assert found_with(1, data()) == found_with(1, data()) != found_with(2, data())


def test_every_lr_sees_the_same_batches():
    seen, model = [], net()

    def step(model, batch):
        seen.append(batch[0].sum().item())
        return F.cross_entropy(model(batch[0]), batch[1])

    found = search(model, sgd(model), None, loader(), training_step=step)
    runs = [seen[i : i + STEPS] for i in range(0, len(seen), STEPS)]
    assert len(runs) == len(found.lrs) and runs == [runs[0]] * len(runs) and len(set(runs[0])) == STEPS


def test_a_loader_with_a_generator_of_its_own_gives_every_lr_the_same_batches():
    own = torch.Generator().manual_seed(3)
    before = own.get_state()
    seen = []

    def loss(out, y):
        seen.append(y.tolist())
        return F.cross_entropy(out, y)

    found = search(model := net(), sgd(model), loss, loader(generator=own))
    trainings = [seen[i : i + STEPS] for i in range(0, len(seen), STEPS)]
    assert len(trainings) == len(found.lrs) and all(each == trainings[0] for each in trainings)
    assert torch.equal(own.get_state(), before)


def test_an_iterator_is_refused_as_it_does_not_begin_again():
    model = net()
    with pytest.raises(TypeError, match="iterator"):
        search(model, sgd(model), batches=iter(data(100)))


def test_random_state_and_modes_are_afterwards_as_before():
    model = net(nn.BatchNorm1d(32), nn.Dropout())
    model.eval()
    model[0].train()
    modes = [module.training for module in model.modules()]
    trained_in = []

    def step(model, batch):
        trained_in.append(all(module.training for module in model.modules()))
        random.random(), np.random.rand()
        return F.cross_entropy(model(batch[0]), batch[1])

    torch.manual_seed(3)
    before = random_states()
    for batches in data(), loader():
        information_test(model, sgd(model), None, batches, (X, Y), STEPS, training_step=step)
    assert random_states() == before and [module.training for module in model.modules()] == modes and all(trained_in)


def test_mixed_precision_is_used():
    seen, model = [], net()

    def step(model, batch):
        out = model(batch[0])
        seen.append(out.dtype)
        return F.cross_entropy(out.float(), batch[1])

    search(model, sgd(model), None, training_step=step, autocast=torch.bfloat16)
    assert set(seen) == {torch.bfloat16} and {p.dtype for p in model.parameters()} == {torch.float32}


def test_batches_are_moved_to_the_model():
    class Batch:
        "Says where it was moved, as a tokenizer's batches can be."

        def to(self, device):
            return X, Y, device

    def step(model, batch):
        x, y, device = batch
        assert device == torch.device("cpu")
        return F.cross_entropy(model(x), y)

    model = net()
    assert not search(model, sgd(model), None, [Batch()], training_step=step).problem


def test_a_probe_of_ones_own_drives_it():
    "By any number that grows: here closeness to a norm of the weights."
    model = net()
    found = search(model, sgd(model), probe=lambda network: lambda: -abs(float(weights(network).norm()) - 6))
    model = net()
    by_layer = search(model, sgd(model), probe=lambda network: LayerProbe(network, X, Y, layers="all"))
    model = net()
    assert found.bits != by_layer.bits == search(model, sgd(model)).bits


# what goes wrong


def test_a_loss_that_is_nan_at_high_lr_only_leads_below():
    model = net()
    optimizer = sgd(model)

    def step(model, batch):
        limit = NAN if optimizer.param_groups[0]["lr"] > 0.02 else 1
        return F.cross_entropy(model(batch[0]), batch[1]) * limit

    found = search(model, optimizer, None, training_step=step)
    assert all((bits == -INF) == (lr > 0.02) for lr, bits in zip(found.lrs, found.bits))
    assert 0.001 < found.lr < 0.02 and not found.problem and weights(model).isfinite().all()
    assert weights(found.average.module).isfinite().all()


def test_a_measurement_that_is_not_finite_is_not_chosen():
    model, measured = net(), []

    def often_nan(network):
        return lambda: measured.append(1) or (NAN if len(measured) % 2 == 0 else probe(network)()["output"])

    found = search(model, sgd(model), probe=often_nan)
    assert -INF in found.bits and math.isfinite(found.bits[found.lrs.index(found.lr)])


class Boom(Exception):
    pass


def failing_at(count, what, error=Boom):
    "A function that fails when it is called for the count-th time."
    calls = []

    def called(*arguments):
        calls.append(1)
        if len(calls) == count:
            raise error
        return what(*arguments)

    return called


def broken(out, y):
    return F.cross_entropy(out, y) * NAN


def knows_nothing(network):
    return lambda: 0.0


def failing_probe(count):
    return lambda network: failing_at(count, probe(network))


FAULTS = {
    "the loss is never finite": (lambda: dict(loss_fn=broken), ValueError, "broke at every LR"),
    "nothing is learnt": (lambda: dict(probe=knows_nothing), ValueError, "taught nothing at any LR"),
    "the probe is never finite": (lambda: dict(probe=lambda network: lambda: NAN), ValueError, "broke at every LR"),
    "the probe fails before": (lambda: dict(probe=failing_probe(1)), Boom, None),
    "the probe fails between": (lambda: dict(probe=failing_probe(3)), Boom, None),
    "the probe cannot be made": (lambda: dict(probe=failing_at(1, probe)), Boom, None),
    "the loss fails": (lambda: dict(loss_fn=failing_at(30, F.cross_entropy)), Boom, None),
    "someone interrupts": (
        lambda: dict(loss_fn=failing_at(50, F.cross_entropy, KeyboardInterrupt)),
        KeyboardInterrupt,
        None,
    ),
    "no loss is given": (lambda: dict(loss_fn=None), TypeError, "training_step="),
    "a batch is none": (lambda: dict(batches=[*data(2), "no batch"]), TypeError, "training_step="),
    "there are no batches": (lambda: dict(batches=[]), ValueError, "no batches"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_after_a_failure_all_is_as_it_was(fault, kind, monkeypatch):
    "Also the optimizer, which no average follows."
    arguments, error, words = FAULTS[fault]
    model = net(nn.BatchNorm1d(32), nn.Dropout())
    model[1].eval()
    optimizer = KINDS[kind](model)
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()
    optimizer.zero_grad()
    before = everything(model, optimizer)
    with pytest.raises(error, match=words):
        search(model, optimizer, **arguments())
    assert everything(model, optimizer) == before
    followed = []
    monkeypatch.setattr(AveragedModel, "update_parameters", lambda *a: followed.append(1))
    optimizer.step()
    assert not followed


def test_unchecked_a_failure_is_told_and_the_lr_stays():
    for arguments, words in (
        (dict(loss_fn=broken), "broke at every LR"),
        (dict(probe=knows_nothing), "taught nothing at any LR"),
    ):
        model = net()
        optimizer = sgd(model)
        found = search(model, optimizer, check=False, **arguments)
        assert words in found.problem and found.lr == optimizer.param_groups[0]["lr"] == 0.1
        assert len(found.lrs) == 14 and weights(model).isfinite().all()
        optimizer.step()
        assert int(found.average.n_averaged) > 0


def test_it_can_be_tried_again_after_a_failure():
    model, fresh = net(), net()
    optimizer = sgd(model)
    with pytest.raises(ValueError, match="found no LR"):
        search(model, optimizer, broken)
    assert search(model, optimizer).bits == search(fresh, sgd(fresh)).bits


@pytest.mark.parametrize("lr", [0.0, INF, NAN])
def test_lrs_to_begin_at_must_be_positive(lr):
    model = net()
    optimizer = sgd(model)
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(ValueError, match="must be positive"):
        search(model, optimizer)


def test_too_few_steps_are_refused():
    model = net()
    with pytest.raises(ValueError, match="at least 10"):
        search(model, sgd(model), steps=9)
    with pytest.raises(ValueError, match="use autocast"):
        half = net().bfloat16()
        search(half, sgd(half))


def test_processes_that_train_together_are_refused(monkeypatch):
    "Each would measure its own samples and choose for itself."
    monkeypatch.setattr("milr.start.world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="run the test in one process"):
        search(model := net(), sgd(model))


def test_the_network_that_knew_most_is_kept():
    "Of equals the first; what is not finite never; buffers too; by layer the output counts."
    model = net(nn.BatchNorm1d(32))
    best, seen = BestNetwork(model), []
    for bits in (1.0, {"first": 9.0, "output": 2.0}, 2.0, math.nan, -math.inf, 1.5):
        for part in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            part.data.add_(1)
        seen.append((best.offer(bits), plain(model.state_dict())))
    assert [taken for taken, _ in seen] == [True, True, False, False, False, False]
    assert plain(best.network.state_dict()) == seen[1][1] and best.highest == 2
    assert not {id(p) for p in best.network.parameters()} & {id(p) for p in model.parameters()}


def test_a_network_that_never_knew_anything_is_kept_as_it_was():
    model = net()
    best, before = BestNetwork(model), plain(model.state_dict())
    assert not best.offer(math.nan) and plain(best.network.state_dict()) == before


@given(st.integers(0, 10**6))
def test_usable_information_is_the_saving_of_bits(seed):
    "Against scikit-learn's cross-entropy; at most the entropy of the labels, and less than it when unsure."
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(4), rng.integers(0, 4, 60)]
    said = rng.dirichlet(np.ones(4), 64)
    entropy = -sum(p * math.log2(p) for p in np.bincount(y) / 64)
    bits = usable_information(torch.tensor(said), torch.tensor(y))
    assert bits == pytest.approx(entropy - log_loss(y, said) / math.log(2)) and bits < entropy


def test_usable_information_of_numbers_is_a_normal_guess():
    y = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(5000, 1, generator=torch.Generator().manual_seed(1))
    assert usable_information(y + noise / 4, y) == pytest.approx(math.log2(4), abs=0.05)
    assert usable_information(y, y[:, 0]) > 100 and usable_information(torch.zeros(5000, 1), y) == pytest.approx(
        0, abs=1e-3
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.05, 20))
def test_calibrated_information_is_the_most_that_a_temperature_gives(seed, sureness):
    "Against SciPy's minimiser, whatever the sureness; never less than what is said as it is."
    rng = np.random.default_rng(seed)
    y, logits = np.r_[np.arange(4), rng.integers(0, 4, 60)], rng.normal(size=(64, 4)) * sureness
    said = torch.tensor(logits).softmax(1)

    def lost(scale):
        return log_loss(y, torch.tensor(logits * scale).softmax(1).numpy(), labels=range(4)) / math.log(2)

    best = minimize_scalar(lost, bounds=(0, 4), method="bounded", options=dict(xatol=1e-9)).fun
    entropy = -sum(p * math.log2(p) for p in np.bincount(y) / 64)
    bits = calibrated_information(said, torch.tensor(y))
    usable = usable_information(said, torch.tensor(y))
    assert (
        bits == pytest.approx(entropy - best if entropy - best > 0.05 else usable, abs=1e-6) and bits >= usable - 1e-9
    )


def test_calibrated_information_of_numbers_and_of_what_is_not_finite_is_the_usable():
    y = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    assert calibrated_information(y + 1, y) == usable_information(y + 1, y)
    classes = torch.arange(2).repeat(5)
    assert math.isnan(calibrated_information(torch.full((10, 2), NAN), classes))


def test_sure_and_wrong_is_worth_less_than_nothing():
    y = torch.arange(4).repeat(10)
    assert -200 < usable_information(F.one_hot((y + 1) % 4).float(), y) < -100
    with pytest.raises(ValueError, match="class numbers"):
        usable_information(torch.ones(40, 2), y)


def test_it_asks_what_the_network_says_and_not_what_its_output_knows():
    "Classes kept apart under wrong names: nearest neighbours find all two bits, the user none."
    y = torch.arange(4).repeat(100)
    shifted = F.one_hot((y + 1) % 4).float() * 3 + torch.randn(400, 4, generator=torch.Generator().manual_seed(0)) / 9
    assert float(mutual_information(shifted, y)) > 1.9 and usable_information(shifted.softmax(1), y) < 0


def test_held_out_samples_come_in_any_form():
    found = {}
    for name, held_out in {
        "tensors": (X, Y),
        "a data set": torch.utils.data.TensorDataset(X, Y),
        "a probe": lambda network: LayerProbe(network, X, Y, estimator=calibrated_information),
    }.items():
        found[name] = search(model := net(), sgd(model), probe=held_out).bits
    assert found["tensors"] == found["a probe"] == pytest.approx(found["a data set"])
    with pytest.raises(TypeError, match="held-out samples are missing"):
        search(model := net(), sgd(model), probe=None)


# what two readers found


def one_logit(targets):
    "A network with one logit, its loss and its batches; `targets` makes what the loss wants of class numbers."
    torch.manual_seed(0)
    x = torch.randn(600, 4)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    batches = [(x[i], targets(y[i])) for i in torch.arange(400).split(32)]
    return model, batches, (x[400:], y[400:])


def test_a_network_with_one_logit_is_read_the_right_way_round():
    model, batches, (x, y) = one_logit(lambda y: y.float()[:, None])
    start = information_test(model, sgd(model), F.binary_cross_entropy_with_logits, batches, (x, y), STEPS)
    right = ((start.average.module(x)[:, 0] > 0) == y).float().mean()
    assert start.after > 0.5 and right > 0.9
    sure = 20.0 * (2 * y - 1)[:, None].float()
    bits = LayerProbe(nn.Identity(), sure, y, estimator=calibrated_information)()["output"]
    assert bits == pytest.approx(1, abs=0.01)
    assert LayerProbe(nn.Identity(), -sure, y, estimator=calibrated_information)()["output"] < -5


@pytest.mark.parametrize("shape", [lambda y: y[:, None], lambda y: y])
def test_zeros_and_ones_that_are_floats_are_asked_about(shape):
    model, batches, (x, y) = one_logit(lambda y: y.float()[:, None])
    with pytest.raises(ValueError, match=r"y\.long\(\)"):
        information_test(model, sgd(model), F.binary_cross_entropy_with_logits, batches, (x, shape(y.float())), STEPS)


def test_labels_of_noise_teach_nothing():
    torch.manual_seed(0)
    x, y = torch.randn(600, 4), torch.randint(3, (600,))
    batches = [(x[i], y[i]) for i in torch.arange(400).split(32)]
    model = net()
    with pytest.raises(ValueError, match="more than noise"):
        information_test(model, sgd(model), F.cross_entropy, batches, (x[400:], y[400:]), STEPS)


def test_an_easy_task_does_not_drive_the_lr_up():
    "All LRs teach all that there is to know, so none that is higher than half a decade is tried."
    torch.manual_seed(0)
    y = torch.randint(2, (600,))
    x = torch.randn(600, 4) + 20.0 * y[:, None]
    batches = [(x[i], y[i]) for i in torch.arange(400).split(32)]
    model = nn.Linear(4, 2)
    start = information_test(
        model, torch.optim.AdamW(model.parameters(), lr=0.1), F.cross_entropy, batches, (x[400:], y[400:]), 100
    )
    assert start.after > 0.95 and start.lr < 0.4


def test_a_second_scheduler_begins_where_the_test_ended():
    "Bounds lie around the LR that was found, also where there was a scheduler before."
    model = net()
    optimizer = sgd(model, lr=0.001)
    torch.optim.lr_scheduler.ConstantLR(optimizer)
    start = search(model, optimizer)
    assert optimizer.param_groups[0]["initial_lr"] == optimizer.param_groups[0]["lr"] == start.lr != 0.001


def test_held_out_samples_in_any_form():
    "A pair as a list, a list of batches, a data set and a loader are the same samples."
    dataset = torch.utils.data.TensorDataset(X, Y)
    forms = ([X, Y], (X, Y), list(zip(X.split(50), Y.split(50))), dataset, torch.utils.data.DataLoader(dataset, 64))
    found = []
    for form in forms:
        model = net()
        found.append(information_test(model, sgd(model), F.cross_entropy, data(), form, STEPS).bits)
    assert all(bits == found[0] for bits in found)
    model = net()
    with pytest.raises(ValueError, match=r"held_out: .*held_out=lambda network"):
        information_test(model, sgd(model), F.cross_entropy, data(), (X, F.one_hot(Y).float()), STEPS)


def test_information_of_several_numbers_is_their_sum():
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(300, 2, generator=generator) + torch.tensor([0.0, 100.0])
    assert usable_information(y.mean(0).expand_as(y), y) == pytest.approx(0, abs=1e-6)
    guess = y + 0.1 * torch.randn(300, 2, generator=generator)
    alone = [usable_information(guess[:, i], y[:, i]) for i in (0, 1)]
    assert usable_information(guess, y) == pytest.approx(sum(alone))
    with pytest.raises(ValueError, match="a guess for each"):
        usable_information(torch.zeros(300, 4), y)


def test_the_average_and_the_best_network_come_back_from_a_file(tmp_path):
    import pickle

    model = net(nn.BatchNorm1d(32), nn.Dropout(0.5))
    start = search(model, sgd(model))
    best = BestNetwork(start.average.module)
    best.offer(1.0)
    assert not any(module.training for module in best.network.modules())
    pickle.loads(pickle.dumps(start.average))
    torch.save(best.state_dict(), tmp_path / "best")
    other = BestNetwork(net(nn.BatchNorm1d(32), nn.Dropout(0.5)))
    other.load_state_dict(torch.load(tmp_path / "best", weights_only=True))
    assert other.highest == 1 and torch.equal(other.network(X), best.network(X))


def test_an_optimizer_that_needs_a_closure_is_refused():
    model = net()
    with pytest.raises(TypeError, match="LBFGS.step needs closure"):
        search(model, torch.optim.LBFGS(model.parameters()))
