"AutoPolicy for every history, the range test, the protocol of the comparison, and its notebook."

import json, math, os
from dataclasses import replace
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch import nn
from milr.auto import AutoPolicy, RangeTest, batch_loss, noise_of, range_test
from milr.lab.cli import execute_notebook
from milr.lab.comparison import Comparison, beside_rows, score_rows
from milr.lab.rivals import METHODS, Trial, rows_of, sampled
from milr.lab.tasks import Meter, Task, task_data, task_model
from milr.probe import LayerProbe
from tests.fake_cuda import fake_cuda
from milr.lab.benchmark import (
    PILOT_SEEDS,
    PRESETS,
    TUNING_SEED,
    chosen,
    final_trials,
    pilot_trials,
    profile,
    run_trial,
    run_trials,
    read_trials,
    save_trials,
    target_of,
    to_target,
    trial_facts,
    trial_hash,
    tuning_trials,
)

anything = st.lists(st.floats(), max_size=12)  # NaN, infinities and negative numbers too
bits = st.lists(st.floats(0.01, 5), min_size=3, max_size=12)
tiny = Task("tiny", n_train=100, n_val=50, n_test=50, epochs=2)


@given(st.floats(0, 1e300), anything, st.floats(1e-8, 1e-3), st.floats(1e-3, 1e3))
def test_lr_is_finite_and_within_bounds_for_every_history(lr, history, low, high):
    new = AutoPolicy(lr_min=low, lr_max=high)(lr, history)
    assert math.isfinite(new) and low <= new <= high


@given(bits)
def test_up_only_for_a_rise_beyond_the_noise(history):
    lr, branch = AutoPolicy(lr_min=1e-6, lr_max=10.0).decide(0.1, history)
    rise = history[-1] - history[-3]
    up = 0.2 if history == sorted(set(history)) else 0.1 * math.sqrt(2)
    assert (branch, lr) == (("increase", up) if rise > noise_of(history) else ("decrease", 0.05))
    if rise <= 0:
        assert branch == "decrease"


@given(st.lists(st.floats(0.01, 5), max_size=30), st.integers(1, 30))
def test_a_known_length_cools_to_the_minimum(history, n):
    "Never above the rule's LR, never faster than the line unless the rule is, and at the minimum when it is over."
    known, open_end = (AutoPolicy(lr_min=1e-3, lr_max=0.5, epochs=e) for e in (n, 0))
    unbounded, lr = AutoPolicy(lr_min=1e-9, lr_max=1e9), 0.1
    for t in range(1, len(history) + 1):
        new, branch = known.decide(lr, history[:t])
        rule = open_end(lr, history[:t])
        assert 1e-3 <= new <= rule and (branch == "cool") == (
            n - t < 0.4 * n and lr * max(0, n - t) / (max(0, n - t) + 1) < unbounded(lr, history[:t])
        )
        if t >= n:
            assert new == 1e-3
        if n - t >= 0.4 * n:
            assert new == rule
        lr = new


@given(bits, st.floats(0.01, 100))
def test_the_unit_does_not_matter(history, unit):
    d, noise = history[-1] - history[-3], noise_of(history)
    if abs(d - noise) < 1e-6:
        return  # a tie that rounding may turn
    assert AutoPolicy(lr_min=1e-6, lr_max=10.0).decide(0.1, history) == AutoPolicy(lr_min=1e-6, lr_max=10.0).decide(
        0.1, [unit * v for v in history]
    )


@given(st.floats(-5, 5), st.floats(-1, 1))
def test_a_straight_line_has_no_noise(start, slope):
    assert noise_of([start + slope * t for t in range(9)]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_learning_rate_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        AutoPolicy(lr_min=1e-6, lr_max=10.0)(bad, [1.0, 2.0])


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def data():
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 4, generator=g), torch.randint(3, (16,), generator=g)) for _ in range(7)]


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9), lambda p: torch.optim.Adam(p)])
def test_a_range_test_leaves_all_as_it_was(make):
    model = net()
    model[3].eval()
    optimizer = make(model.parameters())
    before, flags, random = (
        {k: v.clone() for k, v in model.state_dict().items()},
        [m.training for m in model.modules()],
        torch.get_rng_state(),
    )
    test = range_test(model, optimizer, F.cross_entropy, data(), check=False)
    assert (
        all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        and [m.training for m in model.modules()] == flags
    )
    assert torch.equal(random, torch.get_rng_state()) and not optimizer.state
    assert (
        optimizer.param_groups[0]["lr"] == test.lr
        and test.lr <= test.lr_max / 10
        and len(test.lrs) == len(test.losses) <= 60
    )
    assert (
        AutoPolicy.from_range_test(test) == AutoPolicy(lr_min=test.lr / 1000, lr_max=test.lr_max / 2)
        and AutoPolicy.from_range_test(test, 9).epochs == 9
    )


def test_a_range_test_of_nonsense_is_refused():
    model = net()
    with pytest.raises(ValueError, match="not finite"):
        range_test(model, torch.optim.SGD(model.parameters()), lambda out, y: out.sum() * math.nan, data())
    with pytest.raises(ValueError, match="at least 10"):
        range_test(model, torch.optim.SGD(model.parameters()), F.cross_entropy, data(), steps=3)


def test_every_method_has_equal_budgets_from_its_own_space():
    for name, m in METHODS.items():
        options = sampled(name, 5)
        assert len(options) == (5 if m.space else 1) and options == sampled(name, 5)
        for o in options:
            assert set(o) == set(m.space) and all(m.space[k][0] <= v <= m.space[k][1] for k, v in o.items())


def test_seeds_of_pilot_tuning_and_comparison_differ():
    for _, _, seeds, *_ in PRESETS.values():
        assert not set(range(seeds)) & {TUNING_SEED, *PILOT_SEEDS} and TUNING_SEED not in PILOT_SEEDS
    assert {t.seed for t in pilot_trials(tiny)} == set(PILOT_SEEDS) and {
        t.seed for t in tuning_trials(tiny, "adam", 3)
    } == {TUNING_SEED}


def test_validation_and_test_samples_are_not_trained_on():
    for t in (tiny, Task("friedman", "friedman", 100, 50, 50)):
        d = task_data(t)
        rows = lambda x: {tuple(r.flatten().tolist()) for r in x}
        assert not rows(d.x) & rows(d.val_x) and not rows(d.x) & rows(d.test_x)


def test_settings_are_chosen_without_a_look_at_the_test_score():
    trials = tuning_trials(tiny, "fixed", 2)
    assert chosen(trials, [[dict(val=1.0, test=99.0)], [dict(val=2.0, test=0.0)]]) == trials[1].options


def test_a_miss_counts_as_a_miss():
    rows = [dict(test=1.0, epochs=1, seconds=0.1), dict(test=2.0, epochs=2, seconds=0.2)]
    assert to_target(rows, 2.0) == 2 and to_target(rows, 2.0, "seconds") == 0.2 and to_target(rows, 2.1) == math.inf
    assert profile({"a": {0: math.inf}, "b": {0: math.inf}}, (1, 9)) == {"a": [0, 0], "b": [0, 0]}


def beside(ours, theirs, task=tiny):
    "AutoPolicy beside a fixed LR, by their final scores, one a seed; both reach the target at every second seed."
    columns, found, seeds = {}, {}, range(len(ours))
    for method, scores in (("auto", ours), ("fixed", theirs)):
        columns[task, method] = [Trial(task, method, seed=seed) for seed in seeds]
        for trial, score in zip(columns[task, method], scores, strict=True):
            epochs = [dict(test=100.0 if trial.seed % 2 else -100.0, epochs=trial.seed), dict(test=score, epochs=99)]
            found[trial] = epochs
    return Comparison((task,), ("fixed", "auto"), seeds, {task: 99.0}, dict(untuned=columns, tuned={}), found, ())


def test_ours_is_judged_by_differences_of_the_same_seed():
    "Half a point behind on every seed is worse, however far apart the seeds are; the seeds in another order are not."
    theirs = [60.0, 70.0, 80.0, 90.0]
    ours = [score - 0.5 - 0.01 * seed for seed, score in enumerate(theirs)]
    (line,) = beside_rows(beside(ours, theirs))
    assert line["verdict"] == "worse" and line["seeds won"] == "0 of 4"
    assert line["ours minus it (points)"] == "-0.52 [-0.54, -0.49]"
    (line,) = beside_rows(beside(ours[::-1], theirs))
    assert line["verdict"] == "not decided" and line["seeds won"] == "2 of 4"
    (line,) = beside_rows(beside([score - 0.1 for score in theirs[:3]], theirs[:3]))
    assert line["verdict"] == "level or better"
    (line,) = beside_rows(beside(theirs[:1], theirs[:1]))
    assert line["verdict"] == "not decided"  # one seed says nothing


def test_more_seeds_do_not_make_it_easier_to_be_level():
    "One seed more on which the rival is broken, and ours ahead, does not undo ten on which ours is behind."
    theirs = [70.0 + seed for seed in range(10)]
    ours = [score - 1 - 0.01 * seed for seed, score in enumerate(theirs)]
    (line,) = beside_rows(beside([*ours, 60.0], [*theirs, 30.0]))
    assert line["verdict"] == "not decided" and line["seeds won"] == "1 of 11"


def test_bits_are_judged_by_a_margin_of_their_own():
    text = replace(tiny, data="text")
    for behind, verdict in ((0.005, "level or better"), (0.02, "worse")):
        theirs = [-3.1, -3.2, -3.3]
        (line,) = beside_rows(beside([score - behind for score in theirs], theirs, text))
        assert line["verdict"] == verdict and line["its final score"] == "3.20 [3.10, 3.30]"


def test_scores_have_a_median_and_epochs_one_that_was_measured():
    "Of an even number of seeds; a negative R² keeps its sign."
    friedman = replace(tiny, data="friedman")
    cells = [list(line.values())[2] for line in score_rows(beside([4.0, -8.0, 1.0, 2.0], [0.0] * 4, friedman))]
    assert "1.50 [-8.00, 4.00]; 3.0 ep" in cells
    (line,) = beside_rows(beside([4.0, -8.0, 1.0, 2.0], [1.0, 2.0, 4.0, 8.0]))
    assert line["its final score"] == "3.00 [1.00, 8.00]" and line["epochs to target, rival / ours"] == "3.0 / 3.0"


@given(
    st.dictionaries(
        st.integers(0, 5), st.tuples(st.floats(0.1, 100) | st.just(math.inf), st.floats(0.1, 100)), min_size=1
    )
)
def test_a_profile_never_falls(costs):
    shares = profile(
        {"a": {k: v[0] for k, v in costs.items()}, "b": {k: v[1] for k, v in costs.items()}}, (1, 2, 5, 1e9)
    )
    assert all(s == sorted(s) and 0 <= s[0] and s[-1] <= 1 for s in shares.values())
    assert shares["b"][-1] == 1 and shares["a"][0] + shares["b"][0] >= 1 - 1e-9


@pytest.mark.parametrize("method", [m for m, v in METHODS.items() if not v.needs])
def test_every_method_trains_and_is_stored_once(method, tmp_path):
    t = Trial(tiny, method)
    rows = run_trial(t, tmp_path)
    assert (
        len(rows) == 2 and all(math.isfinite(r["test"]) and r["seconds"] > 0 for r in rows) and rows[1]["epochs"] >= 2
    )
    stored = tmp_path / "schedules" / f"{trial_hash(t)}.json"
    stored.write_text(json.dumps(dict(rows="kept")))
    assert run_trials([t, t], tmp_path) == ["kept", "kept"]


@pytest.mark.parametrize("method", [m for m, v in METHODS.items() if v.needs])
def test_methods_of_other_packages_train(method, tmp_path):
    pytest.importorskip(METHODS[method].needs)
    assert all(math.isfinite(r["test"]) for r in run_trial(Trial(tiny, method), tmp_path))


def test_text_in_two_processes_and_a_target(tmp_path):
    "Two processes give what one gives; the pilot's target is a score that was reached."
    text = Task("text", "text", 300, 50, 100, 2, 64)
    trials = [Trial(text, "auto"), Trial(text, "plateau")]
    alone = [r["test"] for r in rows_of(trials[0])]
    both = run_trials(trials, tmp_path, jobs=2)
    assert [r["test"] for r in both[0]] == alone and all(
        -20 < v < 0 for rows in both for v in (r["test"] for r in rows)
    )
    pilots = run_trials(pilot_trials(tiny), tmp_path)
    assert target_of(tiny, pilots) in {r["test"] for rows in pilots for r in rows}


def test_a_range_test_is_drawn():
    ax = RangeTest(0.1, 1.0, [0.01, 0.1, 1.0], [2.0, 1.5, 1.0]).plot()
    assert ax.get_xscale() == "log" and [t.get_text() for t in ax.get_legend().get_texts()] == [
        "start 0.1",
        "maximum 1",
    ]


def test_a_network_that_diverges_scores_as_a_guess(tmp_path):
    rows = run_trial(Trial(replace(tiny, data="friedman"), "fixed", (("lr", 1e6),)), tmp_path)
    assert rows[-1]["test"] == 0 or rows[-1]["test"] < 0 and math.isfinite(rows[-1]["test"])


# a device


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize(
    "t, method",
    [
        (tiny, "auto_layers"),
        (tiny, "plateau"),
        (tiny, "adam"),
        (tiny, "value_change, probe accuracy"),
        (replace(tiny, data="friedman"), "fixed"),
        (Task("text", "text", 100, 50, 50, 2, 50), "onecycle"),
        (Task("shapes", "shapes", 60, 40, 40, 2, 20, 0.2), "auto"),
    ],
)
def test_a_trial_on_a_gpu_that_is_not_there(t, method, monkeypatch):
    """Networks, data, range test and probe get there, and nothing mixes devices.

    The numbers are a CPU's, so they are the CPU's but for rounding. What it cannot see: a GPU's kernels and random
    numbers, and its clock.
    """
    expected = without_seconds(rows_of(Trial(t, method)))
    with fake_cuda(monkeypatch):
        found = without_seconds(rows_of(Trial(t, method, device="cuda")))
    for row, want in zip(found, expected, strict=True):
        assert row["lr"] == pytest.approx(want["lr"], rel=1e-3) and row["loss"] == pytest.approx(want["loss"], rel=1e-3)
        assert (row["epochs"], row["val"], row["test"]) == pytest.approx(
            (want["epochs"], want["val"], want["test"]), abs=2.01
        )


def test_tensors_left_on_the_cpu_would_be_noticed(monkeypatch):
    monkeypatch.setattr("milr.lab.rivals.task_data", lambda task, seed: Still(task_data(task, seed)))
    with fake_cuda(monkeypatch), pytest.raises(RuntimeError, match="same device"):
        list(rows_of(Trial(tiny, "fixed", device="cuda")))


class Still:
    "Data that do not move."

    def __init__(self, data):
        self.data = data

    def to(self, device):
        return self.data


def test_the_batch_loop_waits_for_a_gpu_once_an_epoch(monkeypatch):
    "The steps of an epoch cause no synchronisation; its mean loss is one."
    with fake_cuda(monkeypatch) as syncs:
        rows = rows_of(Trial(tiny, "cosine", device="cuda"))
        next(rows), syncs.clear(), next(rows)
    assert sum(n for where, n in syncs.items() if where.startswith("rivals.py")) == 1


def test_trials_of_the_cpu_are_what_they_were_before_there_were_devices(tmp_path):
    "No word of a device in facts, records and hash; another device is another trial."
    here, there = Trial(tiny, "fixed"), Trial(tiny, "fixed", device="cuda")
    assert "device" not in trial_facts(here) and trial_facts(there) == trial_facts(here) | dict(device="cuda")
    assert trial_hash(here) != trial_hash(there)
    rows = [[dict(test=1.0)] * 2, [dict(test=2.0)] * 2]
    (file,) = save_trials([here, there], rows, tmp_path)
    first, second = map(json.loads, file.read_text().splitlines())
    assert sorted([len(first["trial"]), len(second["trial"])]) == [4, 5]
    assert read_trials(tmp_path) == {here: rows[0], there: rows[1]}


def test_the_protocol_is_of_one_device():
    trials = [
        *pilot_trials(tiny, "cuda"),
        *tuning_trials(tiny, "adam", 2, "cuda"),
        *final_trials(tiny, "adam", (), range(2), "cuda"),
    ]
    assert {t.device for t in trials} == {"cuda"} and {t.device for t in pilot_trials(tiny)} == {"cpu"}


def test_a_device_that_is_not_here_is_refused(tmp_path):
    for name, why in (("cuda:99", "not available"), ("tpu", "tpu")):
        with pytest.raises(ValueError, match=why):
            run_trial(Trial(tiny, "fixed", device=name), tmp_path)


def test_unknown_measures_are_refused():
    with pytest.raises(ValueError, match="unknown measure"):
        Meter("luck", tiny, task_model(tiny, 0), task_data(tiny), 0)


@pytest.mark.skipif(not os.environ.get("MILR_SLOW"), reason="half a minute; set MILR_SLOW=1")
def test_the_study_runs_at_smoke(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MILR_RUNS", str(tmp_path / "runs"))
    study = root / "nbs" / "studies" / "schedules.ipynb"
    given = dict(preset="smoke", jobs=1, out=str(tmp_path / "files"))
    execute_notebook(study, tmp_path / "out.ipynb", given, tmp_path)
    assert {p.name for p in (tmp_path / "files").iterdir()} == {f"schedules.{e}" for e in ("png", "svg", "csv", "json")}


# what two readers found


def test_a_range_test_keeps_ratios_and_the_loaders_generator():
    model = net()
    groups = [dict(params=list(model[0].parameters()), lr=1e-4), dict(params=list(model[4].parameters()), lr=1e-2)]
    optimizer = torch.optim.AdamW(groups)
    generator = torch.Generator().manual_seed(3)
    samples = torch.utils.data.TensorDataset(*(torch.cat(parts) for parts in zip(*data())))
    loader = torch.utils.data.DataLoader(samples, 16, shuffle=True, generator=generator)
    before = generator.get_state()
    found = range_test(model, optimizer, F.cross_entropy, loader, check=False)
    assert torch.equal(generator.get_state(), before)
    low, high = (group["lr"] for group in optimizer.param_groups)
    assert high == found.lr and low == pytest.approx(high / 100)


def test_a_range_test_refuses_what_it_would_use_up():
    model = net()
    with pytest.raises(TypeError, match="iterator"):
        range_test(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy, iter(data()))
    with pytest.raises(TypeError, match="closure"):
        range_test(model, torch.optim.LBFGS(model.parameters()), F.cross_entropy, data())


def test_a_batch_of_names_may_hold_more_than_the_model_takes():
    "As for a probe: what the model does not take is left out."
    model = net()
    x, y = data()[0]
    batches = dict(input=x, label=y, id=torch.arange(16)), dict(image=x, y=y)
    losses = [batch_loss(model.eval(), batch, F.cross_entropy) for batch in batches]
    assert losses[0] == losses[1] == F.cross_entropy(model(x), y)
    assert LayerProbe(model, list(batches), samples=16)().keys() == {"output"}
