"The ruler is what it was when it was frozen, its statistic tells the truth, and its queue loses nothing."

import csv, hashlib, inspect, json, math
from dataclasses import asdict, replace
from functools import lru_cache
from types import MappingProxyType
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from milr.codehash import code_hash
from milr.lab import development, opponents, verdicts
from milr.lab.benchmark import read_trials, run_trial, save_trials, trial_hash
from milr.lab.cli import execute_notebook
from milr.lab.data import load_dataset
from milr.lab.opponents import CONTROLS, SIGNALS, USUAL_LR
from milr.lab.plots import markdown_table
from milr.lab.protocol import Interval
from milr.lab.rivals import METHODS, Job, Trial, rows_of
from milr.lab.ruler import (
    BUDGET,
    CHANCE,
    DEVELOPMENT,
    ATTEMPTS,
    FIRST,
    HELDOUT,
    LOG_COLUMNS,
    MARGIN,
    MINUTES,
    POLICY,
    RESAMPLES,
    TUNING_SEEDS,
    Entry,
    anywhere,
    best_options,
    bootstrap,
    candidates,
    diverged,
    epochs_to,
    final_score,
    judge,
    points,
    policy_rows,
    queue,
    replayed,
    rival_rows,
    target_of,
    tuned_methods,
    variants,
    work,
)
from milr.lab.verdicts import differences, results, summary
from tests.notebooks import ROOT, said_in, section, shown_in
from milr.lab.tasks import Meter, Task, base_optimizer, shifted, task_data, task_model

tiny = Task("tiny", n_train=100, n_val=50, n_test=50, epochs=2)
small = tuple(replace(t, n_train=60, n_val=40, n_test=40, epochs=2, width=0.1) for t in HELDOUT)


FROZEN = (
    points,
    final_score,
    diverged,
    epochs_to,
    bootstrap,
    judge,
    candidates,
    best_options,
    target_of,
    replayed,
)


def fingerprint():
    "Of all that is frozen: the data and networks, tasks, rows, seeds, spaces, statistic and numbers."
    rows = {t.name: {name: asdict(row) for name, row in (rival_rows(t) | policy_rows("P")).items()} for t in HELDOUT}
    spaces = {m: METHODS[m].space for t in HELDOUT for m in tuned_methods(t)}
    statistic = [inspect.getsource(f) for f in FROZEN]
    facts = dict(
        statistic=statistic,
        code=code_hash("milr.lab.heldout"),
        tasks=[asdict(t) for t in HELDOUT],
        rows=rows,
        spaces=spaces,
        budget=BUDGET,
        tuning=TUNING_SEEDS,
        margin=MARGIN,
        resamples=RESAMPLES,
        chance=CHANCE,
    )
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def test_what_is_frozen_has_not_changed():
    assert fingerprint() == "db894a80142c1f9a", (
        "the ruler is frozen; a change needs a reason on its page, and every run anew"
    )


def test_held_out_tasks_are_not_those_that_are_spent():
    assert not {t.data for t in HELDOUT} & {t.data for t in DEVELOPMENT} and len(HELDOUT) >= 3
    assert sum(t.optimizer == "adamw" for t in HELDOUT) >= 2 and min(t.epochs for t in HELDOUT) >= 30
    names = [{type(m).__name__ for m in task_model(t, 0).modules()} for t in small]
    assert "BatchNorm2d" in names[0] and "LayerNorm" in names[1] and set(MINUTES) == {t.name for t in HELDOUT}


@pytest.mark.parametrize("t", small, ids=lambda t: t.name)
def test_a_seed_draws_the_samples_too(t):
    "The same seed gives the same, another one others; nothing that is trained on is looked at."
    first, again, other = task_data(t, 0), task_data(replace(t, name="again"), 0), task_data(t, 1)
    assert (
        torch.equal(first.x, again.x)
        and torch.equal(first.test_y, again.test_y)
        and not torch.equal(first.test_x, other.test_x)
    )
    rows = [{tuple(r.flatten().tolist()) for r in x} for x in (first.x, first.val_x, first.test_x)]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]


def test_other_data_are_split_once():
    assert task_data(tiny, 3) is task_data(tiny)


@pytest.mark.parametrize("t", small, ids=lambda t: t.name)
@pytest.mark.parametrize("method", ["adam", "adamw_cosine", "averaged_cosine"])
def test_rivals_train_on_the_held_out_tasks(t, method):
    rows = list(rows_of(Trial(t, method)))
    assert len(rows) == 2 and all(math.isfinite(r["loss"]) and 0 <= r["test"] <= 100 for r in rows)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("method", [method for method in sorted(CONTROLS) if METHODS[method].needs])
def test_a_control_from_another_package_trains_with_either_optimizer(method, optimizer):
    "All others do in their notebook, nbs/lab/19_opponents, which has to run where the package is not installed."
    pytest.importorskip(METHODS[method].needs)
    rows = list(rows_of(Trial(replace(tiny, optimizer=optimizer), method)))
    assert len(rows) == 2 and all(math.isfinite(r["loss"]) and r["seconds"] > 0 for r in rows)


@pytest.fixture
def few_steps(monkeypatch):
    "Information tests of a fifth of their length, where only what follows from them is looked at."
    monkeypatch.setattr(opponents, "FIRST_STEPS", 20)
    return 20


@pytest.mark.parametrize("policy", ["auto", "held"])
def test_a_policy_works_on_the_tasks_optimizer(policy, few_steps):
    model = task_model(tiny, 0)
    job = Job(replace(tiny, optimizer="adamw"), task_data(tiny), model, 0)
    assert type(METHODS[policy].build(job).optimizer).__name__ == "AdamW"
    assert type(METHODS[policy].build(replace(job, task=tiny)).optimizer).__name__ == "SGD"
    with pytest.raises(ValueError, match="choose sgd or adamw"):
        base_optimizer(replace(tiny, optimizer="lion"), model.parameters(), 0.1)


def test_range_test_rows_count_its_steps_and_use_its_share():
    for method in "range_cosine, 1/2", "range_fixed":
        assert next(rows_of(Trial(tiny, method)))["epochs"] > 1
    half, tenth = (
        METHODS[m].build(Job(tiny, task_data(tiny), task_model(tiny, 0), 0), **METHODS[m].fixed)
        for m in ("range_cosine, 1/2", "range_fixed")
    )
    assert half.optimizer.param_groups[0]["initial_lr"] == pytest.approx(5 * tenth.optimizer.param_groups[0]["lr"])


def test_a_permuted_layer_gets_anothers_information():
    model, data = task_model(tiny, 0), task_data(tiny)
    own, other = (Meter(kind, tiny, model, data, 0, "all")(1.0) for kind in ("mi", "mi of another layer"))
    assert other == shifted(own) and list(own) == list(other) and all(own[name] != other[name] for name in own)


@pytest.mark.parametrize("kind, trained", [("held-out loss", "probe loss"), ("held-out mi", "mi")])
def test_what_is_held_out_is_of_samples_that_are_not_trained_on(kind, trained):
    model, data = task_model(tiny, 0), task_data(tiny)
    measured = Meter(kind, tiny, model, data, 0)(1.0)
    blind = data._replace(x=torch.full_like(data.x, math.nan))
    assert Meter(kind, tiny, model, blind, 0)(1.0) == measured != Meter(trained, tiny, model, data, 0)(1.0)


def test_averaged_weights_are_what_is_scored():
    plain, averaged = (list(rows_of(Trial(tiny, m))) for m in ("cosine", "averaged_cosine"))
    assert [r["loss"] for r in plain] == [r["loss"] for r in averaged] and [r["val"] for r in plain] != [
        r["val"] for r in averaged
    ]


longer = replace(tiny, epochs=12)  # enough for the candidate to cool


def without(rows, *keys):
    return [{key: value for key, value in row.items() if key not in keys} for row in rows]


def test_a_replay_is_the_run_it_replays():
    fixed = list(rows_of(Trial(tiny, "fixed", (("lr", 0.03),))))
    again = list(rows_of(Trial(tiny, "replay", (("lrs", (0.03, 0.03)),))))
    assert without(again, "seconds") == without(fixed, "seconds")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_replay_of_the_candidate_is_its_run_without_the_trainings_that_lost(optimizer, few_steps):
    "To the bit with its own seed, the first steps and the average included; with another seed only the LR is the same."
    task = replace(longer, optimizer=optimizer)
    run = list(rows_of(Trial(task, "held")))
    again, other = (list(rows_of(replayed(task, run, seed))) for seed in (0, 1))
    assert run[0]["lr"] != run[-1]["lr"] and without(again, "seconds", "epochs") == without(run, "seconds", "epochs")
    assert [r["lr"] for r in other] == [r["lr"] for r in run] and [r["loss"] for r in other] != [r["loss"] for r in run]
    assert again[0]["epochs"] == 1 + few_steps / 4 < run[0]["epochs"]  # four batches an epoch


def test_a_form_of_the_candidate_lacks_one_thing(few_steps):
    "By nothing there is neither a choice of LR nor cooling; never cooled, it begins as the candidate does."
    held, nothing, never = (
        [row["lr"] for row in rows_of(Trial(longer, f"held{form}"))] for form in ("", ", nothing", ", never cooled")
    )
    assert nothing == [[USUAL_LR["sgd"]]] * 12 and never == [held[0]] * 12
    assert held[-1] < held[0] and held == sorted(held, reverse=True)


@pytest.mark.parametrize("kept, last", [("held", "held, last"), ("averaged_cosine, kept", "averaged_cosine")])
def test_the_best_of_averages_is_handed_over(kept, last, few_steps):
    "Where a network learns wrong labels by heart the best average comes before the last, and stays the result."
    task = replace(development.TASKS[-2], n_train=200, n_val=200, n_test=200, epochs=25)
    assert task.data == "rows"
    best, plain = (list(rows_of(Trial(task, method))) for method in (kept, last))
    assert [r["loss"] for r in best] == [r["loss"] for r in plain] and [r["lr"] for r in best] == [
        r["lr"] for r in plain
    ]
    assert best[0]["val"] == plain[0]["val"] and best[-1]["val"] != plain[-1]["val"]
    assert best[-1]["val"] in [r["val"] for r in plain[:-1]]


def test_each_signal_drives_the_test_and_the_policy(few_steps):
    made = {signal: METHODS[f"held, {signal}"] for signal in SIGNALS}
    assert all(method.own and method.fixed == dict(measure=signal) for signal, method in made.items())
    histories = {}
    for name in "held", *(f"held, {signal}" for signal in SIGNALS if signal != "nothing"):
        method = METHODS[name]
        rival = method.build(Job(tiny, task_data(tiny), task_model(tiny, 0), 0), **method.fixed)
        rival.each_epoch(0.5)
        histories[name] = rival.scheduler.history[0]["mi"]["output"]
    assert len(set(histories.values())) == 5 and histories["held, training loss"] == math.exp(-0.5)


# the statistic

points_of_seeds = st.lists(st.floats(-50, 50), min_size=2, max_size=20)


@settings(deadline=None)  # the cores are shared
@given(st.dictionaries(st.text(), points_of_seeds, min_size=1, max_size=4), st.booleans())
def test_an_interval_is_repeatable_within_its_data_and_holds_its_mean(made_up, over_tasks):
    interval = bootstrap(made_up, 200, over_tasks=over_tasks)
    everything = [v for values in made_up.values() for v in values]
    assert interval == bootstrap(made_up, 200, over_tasks=over_tasks)
    assert min(everything) - 1e-9 <= interval.low <= interval.high <= max(everything) + 1e-9
    assert interval.mean == pytest.approx(np.mean([np.mean(v) for v in made_up.values()]), abs=1e-9)


def test_a_constant_difference_has_no_width_and_a_shift_shifts():
    assert bootstrap({"a": [1.0] * 5, "b": [1.0] * 9}) == Interval(1, 1, 1, 5)
    rng = np.random.default_rng(0)
    values = {t: rng.normal(0, 1, 20) for t in "abc"}
    low, high = bootstrap(values), bootstrap({t: v + 3 for t, v in values.items()})
    assert (high.mean - low.mean, high.low - low.low, high.high - low.high) == pytest.approx((3, 3, 3))


def test_one_task_is_the_usual_bootstrap_of_its_mean():
    v = np.random.default_rng(0).normal(0, 1, 400)
    interval = bootstrap({"a": v})
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * v.std() / 20, rel=0.05)


def covered(between, tasks, over_tasks):
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        interval = bootstrap(
            {t: rng.normal(rng.normal(0, between), 0.5, 20) for t in range(tasks)}, 400, trial, over_tasks
        )
        hits += interval.low <= 0 <= interval.high
    return hits / 200


def test_coverage_on_made_up_studies():
    "Alike tasks: conservative. Three tasks that differ much: too narrow, as the page says; twelve: nearly right."
    assert covered(0, 3, True) >= 0.95 and 0.88 <= covered(0, 3, False) <= 0.98
    assert 0.6 <= covered(0.5, 3, True) <= 0.85 and covered(0.5, 12, True) >= 0.87
    assert covered(0.5, 3, False) < 0.5


def test_bad_differences_are_refused():
    for bad, why in (
        ({}, "at least one task"),
        ({"a": [1.0]}, "two differences"),
        ({"a": [1.0, math.inf]}, "not finite"),
    ):
        with pytest.raises(ValueError, match=why):
            bootstrap(bad)


def row(test, loss=1.0, epochs=1, seconds=1.0):
    return dict(test=test, loss=loss, epochs=epochs, seconds=seconds, val=test, lr=[0.1])


def test_a_diverged_run_counts_as_a_guess_and_is_counted():
    broken = [row(50.0), row(0.0, math.nan, 2)]
    assert diverged(broken) and diverged([row(50.0), row(50.0, 1.1)]) and not diverged([row(50.0), row(50.0, 1.0)])
    every = [t.name for t in HELDOUT + DEVELOPMENT]
    assert [final_score(name, broken) for name in every] == [CHANCE[name] for name in every]
    got_worse = [row(50.0, 1.0), row(60.0, 1.1, 2)]
    assert diverged(got_worse) and final_score("shapes", got_worse) == CHANCE["shapes"]
    sound = [row(80.0)] * 2
    names = [t.name for t in HELDOUT]
    found = {rival: {name: {0: sound, 1: sound} for name in names} for rival in ("cosine, tuned", "Adam, tuned")}
    found["policy"] = {name: {0: sound, 1: sound} for name in names} | {"shapes": {0: broken, 1: sound}}
    same = {name: [0.0, 0.0] for name in names}
    assert differences(found, "policy", "cosine, tuned") == same | {"shapes": [-67.5, 0.0]}
    line = summary(found, dict.fromkeys(names, 79.0))[2]
    assert (line["runs"], line["diverged"], line["reached"]) == (6, 1, 5)
    assert bootstrap(differences(found, "policy", "Adam, tuned")).mean == pytest.approx(-11.25)


def test_a_comparison_leaves_no_task_out_silently():
    sound = [row(80.0)] * 2
    found = {name: {t.name: {0: sound, 1: sound} for t in HELDOUT} for name in ("cosine, tuned", "policy")}
    del found["policy"]["table"]
    found["AdamW with cosine, tuned"] = {"shapes": {0: sound}}
    with pytest.raises(LookupError, match="no seed of table"):
        differences(found, "policy", "cosine, tuned")
    assert differences(found, "AdamW with cosine, tuned", "cosine, tuned") == {"shapes": [0.0]}
    assert verdicts.beside_rows(found, "cosine, tuned") == []  # runs of one row are missing, of the other a seed


def test_a_task_without_a_score_of_a_guess_is_refused():
    with pytest.raises(ValueError, match="add it to CHANCE"):
        final_score("another task", [row(50.0)])


def test_a_noisy_curve_does_not_reach_the_target_by_touching_it():
    rows = [row(s, epochs=i) for i, s in enumerate((90.0, 70.0, 90.0, 91.0), 1)]
    assert epochs_to(rows, 80.0) == 3 and epochs_to(rows[:2], 80.0) == math.inf and epochs_to(rows, 95.0) == math.inf


def test_points_and_verdicts():
    assert points("text", 0.01) == pytest.approx(MARGIN) and points("mnist", 0.2) == 0.2
    assert [judge(Interval(0, *ends, 20)) for ends in ((-0.19, 5), (-5, -0.21), (-0.2, 0.2))] == [
        "level or better",
        "worse",
        "not decided",
    ]


# tuning and the queue


def test_tuning_is_equal_for_all_and_apart_from_the_comparison():
    for task in HELDOUT:
        for method in tuned_methods(task):
            trials = candidates(task, method)
            assert len(trials) == BUDGET * len(TUNING_SEEDS) and len({t.options for t in trials}) == BUDGET
    assert len(TUNING_SEEDS) >= 3 and not set(TUNING_SEEDS) & set(range(20))


def test_options_are_chosen_by_the_mean_over_seeds_without_the_test_score():
    trials = candidates(HELDOUT[2], "adam")
    known = {t: [dict(val=50.0, test=99.0)] for t in trials}
    lucky, good = trials[0].options, trials[3].options
    known[trials[0]] = [dict(val=60.0, test=99.0)]
    for t in trials:
        if t.options == good:
            known[t] = [dict(val=55.0, test=0.0)]
    assert best_options(HELDOUT[2], "adam", known) == good != lucky


@lru_cache
def finished(policy):
    "All trials of the queue with made-up rows; three times, as tuned rows wait for the tuning, replays for the policy."
    known = {}
    for _ in range(3):
        known |= {e.trial: [row(50.0)] * 2 for e in queue(known, policy)}
    return MappingProxyType(known)


@lru_cache
def planned(policy):
    "The queue where all of it is known."
    return tuple(queue(finished(policy), policy))


def test_the_queue_waits_for_what_it_needs_and_fits():
    assert POLICY is None or POLICY in METHODS
    first = list(queue({}, "held"))
    waiting = {"cosine, tuned", "Adam, tuned", "another seed's LR"}
    assert not waiting & {e.row for e in first} and first[0].row.startswith("tuning")
    entries = planned("held")
    assert waiting <= {e.row for e in entries} and len({e.trial for e in entries}) == len(entries)
    assert sum(MINUTES[e.trial.task.name] for e in entries) < 20 * 60
    counts = {
        name: sum(e.row == name and e.trial.task == HELDOUT[0] for e in entries)
        for name in ("policy", "cosine, tuned", "Adam, tuned")
    }
    assert set(counts.values()) == {20}


def test_what_the_aim_speaks_of_comes_first_and_replays_last():
    entries = planned("held")
    kinds = {f"tuning of {method}" for task in HELDOUT for method in ("adam", rival_rows(task)["cosine, tuned"].method)}
    places = [0 if e.row in FIRST or e.row in kinds else 2 if e.row == "another seed's LR" else 1 for e in entries]
    of_shapes = [e.row for e in entries if e.trial.task.name == "shapes" and e.row != "tuning of adamw_cosine"]
    assert set(FIRST) <= set(rival_rows(HELDOUT[0]) | policy_rows("held"))
    last = max(i for i, row in enumerate(of_shapes) if row in FIRST)
    assert set(of_shapes[: last + 1]) == {*FIRST, "tuning of adam", "tuning of cosine"}
    assert places.count(2) == 30 and places[-30:] == [2] * 30
    for row in FIRST:
        seeds = [e.trial.seed for e in entries if e.row == row]
        assert seeds == sorted(seeds) and max(seeds) == 19


def test_later_attempts_come_after_what_the_aim_speaks_of():
    "Each on every task with twenty seeds, before any other row."
    rows = [e.row for e in planned("held") if not e.row.startswith("tuning")]
    later = [i for i, row in enumerate(rows) if row in ATTEMPTS]
    assert len(later) == len(ATTEMPTS) * 20 * len(HELDOUT)
    assert set(rows[: later[0]]) == set(FIRST) and not set(rows[later[-1] + 1 :]) & {*FIRST, *ATTEMPTS}
    assert {row.method for row in ATTEMPTS.values()} <= set(METHODS) and len(ATTEMPTS) <= 2


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_has_an_answer_of_its_own(attempt):
    found = results(finished("held"), "held")
    said = verdicts.answer(found, attempt, "held")
    assert said.startswith(f"The {attempt} ") and verdicts.answer(found, policy="held").startswith("The policy ")
    del found[attempt]["table"][3]
    assert verdicts.answer(found, attempt, "held").startswith("Not decided: 179 of the 180")


def test_every_row_is_a_method():
    for task in HELDOUT:
        assert {row.method for row in (rival_rows(task) | policy_rows("held")).values()} <= set(METHODS)
    forms = {row.method for row in policy_rows("held").values() if row.method.startswith("held")}
    assert len(forms) == 8 and {METHODS[form].build for form in forms} == {METHODS["held"].build}


def test_without_a_policy_nothing_of_it_runs():
    rows = {e.row for e in planned(None)}
    assert rows >= {"cosine, tuned", "Prodigy, tuned"} and not rows & set(policy_rows("held"))


def test_results_hold_what_is_recorded_without_the_tuning():
    found = results(finished("held"), "held")
    assert (
        len(found["policy"]["table"]) == 20
        and len(found["by training loss"]["table"]) == len(found["by training information"]["table"]) == 10
        and not any(r.startswith("tuning") for r in found)
    )
    assert len(found["AdamW with cosine, tuned"]) == 1


def test_records_come_back_as_the_trials_they_were(tmp_path, few_steps):
    trials = [Trial(tiny, "replay, averaged", (("lrs", (0.1, 0.05)),), 3), Trial(tiny, "range_cosine, 1/2")]
    save_trials(trials, [run_trial(t, tmp_path) for t in trials], tmp_path / "records")
    assert set(read_trials(tmp_path / "records")) == set(trials)


def test_work_goes_on_where_it_stopped_and_passes_over_what_is_taken(tmp_path):
    from filelock import FileLock

    entries = lambda known: [Entry("a trial", Trial(tiny, "fixed", seed=s)) for s in range(3)]
    (tmp_path / "ruler").mkdir()
    with FileLock(tmp_path / "ruler" / f"{trial_hash(Trial(tiny, 'fixed', seed=1))}.lock"):
        assert work(tmp_path / "records", tmp_path, entries) == 2
    assert work(tmp_path / "records", tmp_path, entries) == 1 and work(tmp_path / "records", tmp_path, entries) == 0


def test_a_record_counts_wherever_it_was_computed(tmp_path):
    "A GPU's is not computed again on a CPU, and its seconds are not a CPU's."
    entries = lambda known: [Entry("policy", Trial(tiny, "fixed", seed=s)) for s in range(2)]
    here, there = Trial(tiny, "fixed", seed=0), Trial(tiny, "fixed", seed=1, device="cuda")
    save_trials([there], [[row(80.0), row(81.0, epochs=2)]], tmp_path / "records")
    assert work(tmp_path / "records", tmp_path, entries) == 1
    known = anywhere(read_trials(tmp_path / "records"))
    assert list(known) == [replace(there, device="cpu"), here]
    assert [r["test"] for r in known[replace(there, device="cpu")]] == [80.0, 81.0]
    found = {"policy": {"tiny": {seed: rows for seed, rows in enumerate(known.values())}}}
    (line,) = summary(found, dict(tiny=0.0))
    assert line["seconds"] is None and line["runs"] == 2  # a median of the CPU's alone would be of other tasks
    found["policy"]["tiny"] = {0: known[here]}
    assert summary(found, dict(tiny=0.0))[0]["seconds"] == known[here][-1]["seconds"]


def test_the_store_knows_the_code_of_a_control(monkeypatch):
    import milr.lab.benchmark as benchmark

    asked = []
    monkeypatch.setattr(benchmark, "code_hash", lambda module: asked.append(module) or "x")
    for method in "replay", "fixed":
        trial_hash(Trial(tiny, method))
    assert asked == ["milr.lab.opponents", "milr.lab.rivals"]


def test_the_log_has_its_columns(root):
    assert isinstance(variants(root / "figures" / "ruler" / "variants.csv"), list) and len(set(LOG_COLUMNS)) == len(
        LOG_COLUMNS
    )


def test_the_page_of_development_shows_what_its_records_give():
    "Its table, recomputed; and every run that it names is recorded, but for those of the slow task that are left."
    known = read_trials(ROOT / "figures" / "development")
    named = {entry.trial for entry in development.planned_runs(known)}
    assert set(known) <= named and all(trial.task == development.SLOW_START for trial in named - set(known))
    shown = "\n".join(shown_in(ROOT / "nbs" / "lab" / "30_development.ipynb"))
    assert markdown_table(development.gain_rows(known)) in shown
    assert markdown_table(development.slow_rows(known)) in shown and str(development.beside_steady(known)) in shown


def test_digits_are_turned_by_their_seed():
    x, y = development.turned_digits(300, 0)
    again, other = development.turned_digits(300, 0)[0], development.turned_digits(300, 1)[0]
    assert x.shape == (300, 1, 16, 16) and torch.equal(x, again) and not torch.equal(x, other)
    darkest, brightest = x.flatten(1).min(1).values, x.flatten(1).max(1).values
    assert 0.4 < (brightest > -darkest).float().mean() < 0.6  # bright on dark as often as dark on bright
    assert len(y.unique()) == 10
    with pytest.raises(ValueError, match="60,000"):
        development.turned_digits(60_001, 0)


def test_the_best_cosine_is_chosen_without_a_look_at_the_test_score():
    task = development.TASKS[0]
    trials = development.cosine_trials(task)
    known = {t: [dict(val=1.0, test=99.0)] for t in trials}
    known |= {t: [dict(val=2.0, test=0.0)] for t in trials if t.options == (("lr", 0.03),)}
    assert [rows[-1]["test"] for rows in development.best_cosine(task, known).values()] == [0.0] * 5
    assert development.gains("held", known | {Trial(task, "held", seed=1): [dict(test=3.0)]}) == {"digits": [3.0]}


def test_wrong_labels_are_as_many_as_said():
    "15 % are drawn anew, so nine tenths of those are wrong, among the digits as among the rows."
    digits = load_dataset("digits")
    pixels = torch.cat([digits.inputs(split) for split in ("train", "test")]).flatten(1).tolist()
    labels = torch.cat([digits.labels(split) for split in ("train", "test")]).tolist()
    true = dict(zip(map(tuple, pixels), labels))
    x, y = development.noisy_digits(1797, 0)
    assert torch.equal(y, development.noisy_digits(1797, 0)[1])
    wrong = np.mean([true[tuple(row)] != label for row, label in zip(x.tolist(), y.tolist())])
    assert wrong == pytest.approx(0.9 * development.WRONG, abs=0.02)
    x, y = development.rows(4000, 0)
    assert x.shape == (4000, 20) and set(y.tolist()) == {0, 1, 2, 3}


PAGE = ROOT / "nbs" / "studies" / "heldout.ipynb"


@lru_cache
def published():
    "The trials in the repository."
    return anywhere(read_trials(ROOT / "figures" / "ruler"))


def test_the_page_of_held_out_tasks_shows_what_its_records_give(root, tmp_path):
    "As it is in the repository, and as it would be executed now."
    execute_notebook(PAGE, tmp_path / "again.ipynb", {}, root)
    assert shown_in(PAGE) == shown_in(tmp_path / "again.ipynb")
    known = published()
    answers = (f"**{verdicts.answer(results(known), row)}**" for row in ("policy", *ATTEMPTS))
    assert "\n\n".join(answers) in shown_in(PAGE)
    recommended = "second attempt"
    said = [str(bootstrap(verdicts.differences(results(known), recommended, rival))) for rival in verdicts.AIM]
    for file in "README.md", "docs/howto/choose.md":
        text = (root / file).read_text(encoding="utf-8").replace(" points [", " [")
        assert all(interval in text for interval in said), file
    named = {entry.trial for entry in queue(known)}
    assert set(known) <= named, "a record that the queue does not name"


def test_what_three_attempts_come_to_is_what_the_records_say():
    "Every number of that section of the page, recomputed."
    prose = section(said_in(PAGE), "What three attempts come to")
    found = results(published())
    beside_cosine = [bootstrap(differences(found, row, "cosine, tuned")) for row in ("policy", *ATTEMPTS)]
    first, second, third = (-interval.mean for interval in beside_cosine)
    assert f"{first:.2f}, {second:.2f} and {third:.2f} points below the tuned cosine" in prose
    assert max(interval.low for interval in beside_cosine) < -MARGIN
    assert all(bootstrap(differences(found, row, "Adam, tuned")).low > 0 for row in ("policy", *ATTEMPTS))
    runs = [rows for row in ("policy", *ATTEMPTS) for of_task in found[row].values() for rows in of_task.values()]
    assert f"none of their {len(runs)} runs" in prose and not any(map(diverged, runs))

    gains = differences(found, "third attempt", "second attempt")
    assert f"ends {np.mean(gains['shapes']):.2f} points above the second" in prose
    groups = {
        (line["task"], line["search"], line["first LR"]): line
        for line in verdicts.search_rows(found, "third attempt", "second attempt")
    }
    assert {search for task, search, _ in groups if task == "shapes"} == {"longer"}
    assert {search for task, search, _ in groups if task == "table"} == {"the same"}
    lower, undisturbed = (groups["expressions", *key] for key in (("longer", "lower"), ("the same", "the same")))
    raced = 20 - undisturbed["runs"]
    words = {3: "three", 4: "four", 5: "five", 7: "seven", 8: "eight", 9: "nine"}
    assert f"in {words[raced]} of twenty runs, and in {words[lower['runs']]} of them" in prose
    gain = "third attempt minus second attempt"
    assert f"ended {-float(lower[gain]):.1f} points lower" in prose
    for (_, search, rate), line in groups.items():
        if search == "the same":
            assert (rate, line[gain], line["sd"]) == ("the same", "+0.00", "0.00"), "not one rule"
    sds = [
        line["sd of one run"] for line in verdicts.twice_rows(read_trials(ROOT / "figures" / "ruler"), "second attempt")
    ]
    assert f"a single one scatters by {sds[0]}, {sds[1]} and {sds[2]} points" in prose

    def searches(row):
        return sorted(rows[0]["epochs"] - 1 for rows in found[row]["shapes"].values())

    shortest, *_, longest = searches("third attempt")
    assert f"as long as {shortest:.0f} to {longest:.0f} of the 36 epochs" in prose
    shortest, *_, longest = searches("second attempt")
    assert f"as long as {shortest:.0f} or {longest:.0f}." in prose


def test_what_the_page_says_of_the_policy_by_nothing_is_what_the_records_say():
    prose = section(said_in(PAGE), "Is it the information?")
    found = results(published())
    for name, rate in (("shapes", 0.1), ("expressions", 0.001), ("table", 0.001)):
        runs = found["by nothing"][name]
        assert len(runs) == 20 and {row["lr"][0] for rows in runs.values() for row in rows} == {rate}
    gains = differences(found, "second attempt", "by nothing")
    shapes, expressions, table = (np.mean(gains[name]) for name in verdicts.NAMES)
    assert f"{shapes:.1f} points above it on *shapes*, {expressions:.1f} on *expressions* and {table:.1f} on" in prose


def test_what_the_page_says_of_other_signals_is_what_the_records_say():
    prose = section(said_in(PAGE), "Is it the information?")
    found = results(published())
    signals = ("by training loss", "by probe loss")
    assert all(len(by_seed) == 10 for row in (*signals, "cosine, untuned") for by_seed in found[row].values())
    first, second = ([differences(found, ours, row) for row in signals] for ours in ("policy", "second attempt"))
    for gains in first:
        assert f"{bootstrap(gains)}" in prose.replace(" points beside", " beside")
    table, expressions = ([abs(np.mean(gains[name])) for gains in first] for name in ("table", "expressions"))
    assert "by {:.1f} and {:.1f} points, on *expressions*".format(*table) in prose
    assert "behind both, by {:.1f} and {:.1f}.".format(*expressions) in prose
    assert "({} and {})".format(*map(bootstrap, second)) in prose
    for row, said in (("cosine, untuned", "points below the second attempt"), ("range test, cosine from 1/2", "below")):
        interval = bootstrap(differences(found, "second attempt", row))
        assert f"{interval.mean:.2f} {said} [{interval.low:.2f}, {interval.high:.2f}]" in prose
    broken = sum(
        diverged(rows) for of_task in found["range test, cosine from 1/2"].values() for rows in of_task.values()
    )
    assert broken == 2 and "two of its sixty runs diverged" in prose


def test_what_the_how_to_says_of_controls_is_what_the_records_say(root):
    howto = (root / "docs" / "howto" / "choose.md").read_text(encoding="utf-8")
    found = results(published())
    untuned = bootstrap(differences(found, "second attempt", "cosine, untuned"))
    assert f"{untuned.mean:.2f} points lower [{untuned.low:.2f}, {untuned.high:.2f}] (ten seeds)" in howto
    by_loss = bootstrap(differences(found, "policy", "by training loss"))
    assert f"the first attempt ends {by_loss}, which decides nothing" in howto.replace(" points [", " [")


def test_what_the_policy_costs_is_what_was_measured(root):
    "On the page of the held-out tasks and in the how-to, from the rows of the speed study."
    with open(root / "figures" / "speed.csv", newline="", encoding="utf-8") as file:
        measured = {row["what"]: float(row["value"]) for row in csv.DictReader(file)}
    parts = ("search", "measurements", "average")
    shares = [
        [measured[f"policy, {part}, share of a bare training, {name}"] for part in parts] for name in verdicts.NAMES
    ]
    shapes, expressions, table = (f"{100 * sum(of_task):.0f}" for of_task in shares)
    low, *_, high = sorted(f"{100 * average:.0f}" for *_, average in shares)
    howto = (root / "docs" / "howto" / "choose.md").read_text(encoding="utf-8")
    assert f"adds {shapes}, {expressions} and {table} % to the CPU time" in howto
    assert f"its average {low} to {high} % of a step" in howto
    assert f"adds {shapes}, {expressions} and {table} % to the CPU time" in said_in(PAGE)


def test_the_log_says_what_the_records_of_development_give():
    "Its lines of what development records, recomputed: mean over tasks of the mean over seeds."
    known = read_trials(ROOT / "figures" / "development")
    auto = {task: np.mean(values) for task, values in development.gains("AutoPolicy", known).items()}
    lines = [line for line in variants(ROOT / "figures" / "ruler" / "variants.csv") if "lost" not in line["seeds"]]
    assert {line["variant"] for line in lines} == {*development.VARIANTS, development.FAIR_RIVAL}
    for line in lines:
        found = {task: np.mean(values) for task, values in development.gains(line["variant"], known).items()}
        assert line["minus tuned cosine (points)"] == f"{np.mean(list(found.values())):+.2f}"
        assert line["minus AutoPolicy (points)"] == f"{np.mean([found[task] - auto[task] for task in found]):+.2f}"


def test_what_the_gpu_gave_before_the_runs_were_made_again():
    every = read_trials(ROOT / "figures" / "ruler")

    def is_second(trial):
        return trial.method == "steady" and trial.device == "cpu" and replace(trial, device="cuda") in every

    found = results(anywhere({trial: rows for trial, rows in every.items() if not is_second(trial)}))
    prose = section(said_in(PAGE), "Made twice")
    for rival in verdicts.AIM:
        assert str(bootstrap(differences(found, "second attempt", rival))) in prose
