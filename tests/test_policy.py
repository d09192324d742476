"The policies against an independent restatement of the appendix, and properties for any history."

import math, subprocess, sys
from fractions import Fraction as F

import pytest
from hypothesis import assume, example, given, settings, strategies as st

from milr.policy import (
    CIFAR10_GAMMAS,
    ChangePolicy,
    SequentialPolicy,
    ValueChangePolicy,
    ValuePolicy,
    is_valid,
    last_valid,
    relative_change,
    shortfall,
)

PAPER = dict(lr_min=1e-3, lr_max=1e-1)  # the bounds for MNIST, from which the step sizes follow

# --- the appendix, restated in exact fractions, case by case, as printed -----------------------------------------


def appendix_change(lr, i1, i2, lo, hi, g1, g2, eps):
    delta = abs(i1 - i2) / i1
    if delta > eps:
        return min(hi, lr + g1 * delta)
    if delta <= eps:
        return max(lo, lr - g2 * delta)


def appendix_value_change(lr, i1, i2, ixy, lo, hi, g1, g2, g3, eps):
    d1, d2 = 1 - i1 / ixy, abs(i1 - i2) / i1
    cases = [
        (d1 > 0 and d2 > eps, min(hi, lr + g1 * d1)),
        (d1 > 0 and d2 <= eps, max(lo, lr - g2 * d1)),
        (d1 <= 0 and d2 > eps, max(lo, lr + g3 * d1)),
        (d1 <= 0 and d2 <= eps, max(lo, lr + g3 * d1)),
    ]
    chosen = [value for holds, value in cases if holds]
    assert len(chosen) == 1
    return chosen[0]


mi = st.floats(0.01, 8)
unit = st.floats(0, 1)
bounds = st.tuples(st.floats(1e-5, 1e-2), st.floats(1e-2, 1)).map(sorted)


def near_edge(*pairs):  # rounding may tip a comparison that is a tie in exact arithmetic
    return any(abs(float(a) - float(b)) < 1e-12 for a, b in pairs)


@given(bounds, unit, mi, mi, unit, unit, st.floats(0, 0.5))
def test_change_is_the_appendix(b, w, i1, i2, g1, g2, eps):
    lo, hi = b
    lr = lo + w * (hi - lo)
    assume(lo <= lr <= hi and not near_edge((abs(F(i1) - F(i2)) / F(i1), eps)))
    got = ChangePolicy(lo, hi, g1, g2, eps)(lr, [i2, i1])
    assert got == pytest.approx(float(appendix_change(*map(F, (lr, i1, i2, lo, hi, g1, g2, eps)))), rel=1e-9, abs=1e-12)


@given(bounds, unit, mi, mi, mi, unit, unit, unit, st.floats(0, 0.5))
def test_value_change_is_the_appendix(b, w, i1, i2, ixy, g1, g2, g3, eps):
    lo, hi = b
    lr = lo + w * (hi - lo)
    assume(lo <= lr <= hi and not near_edge((abs(F(i1) - F(i2)) / F(i1), eps), (F(i1) / F(ixy), 1)))
    got = ValueChangePolicy(lo, hi, g1, g2, g3, eps)(lr, [i2, i1], ixy)
    want = appendix_value_change(*map(F, (lr, i1, i2, ixy, lo, hi, g1, g2, g3, eps)))
    assert got == pytest.approx(float(want), rel=1e-9, abs=1e-12)


def test_edges_of_the_cases():
    "Exactly at ε the change counts as saturated; exactly at IXY as a violation. Both are exact in binary."
    assert ChangePolicy(**PAPER, epsilon=0.5, gamma1=0.01, gamma2=0.02).decide(0.05, [0.5, 1.0]) == (
        0.05 - 0.02 * 0.5,
        "decrease",
    )
    assert ValueChangePolicy(**PAPER, epsilon=0.5).decide(0.08, [0.5, 1.0], 2.0) == (0.08 - 0.1 * 0.5, "decrease")
    assert ValueChangePolicy(**PAPER).decide(0.05, [1.0, 2.0], 2.0) == (0.05, "violation")
    assert ValuePolicy(**PAPER).decide(0.05, [1.0, 2.0], 2.0) == (0.05, "violation")
    assert ChangePolicy(**PAPER, epsilon=0).decide(0.05, [2.0, 2.0]) == (0.05, "decrease")


def test_paper_settings():
    assert ChangePolicy().around(0.01, keep_start=False) == ChangePolicy(0.001, 0.1, 0.1, 1, 0.01)
    assert ValueChangePolicy().around(0.01, keep_start=False) == ValueChangePolicy(0.001, 0.1, 0.1, 0.1, 0.1, 0.01)
    assert ValuePolicy().around(0.01, keep_start=False) == ValuePolicy(0.001, 0.1, 0.1, 0.1)
    assert ChangePolicy(**PAPER, **CIFAR10_GAMMAS["change"]) == ChangePolicy(0.001, 0.1, 0.003, 0.003, 0.01)
    assert ValueChangePolicy(**PAPER, **CIFAR10_GAMMAS["value_change"]) == ValueChangePolicy(
        0.001, 0.1, 0.001, 0.001, 0.1, 0.01
    )
    assert ValuePolicy(**PAPER, **CIFAR10_GAMMAS["value"]) == ValuePolicy(0.001, 0.1, 0.001, 0.1)


def test_value_policy_by_hand():
    assert ValuePolicy(lr_min=1e-3, lr_max=1, gamma1=0.2, gamma3=0.3)(0.01, [2.0, 1.0], 4.0) == pytest.approx(
        0.01 + 0.2 * 0.75
    )
    assert ValuePolicy(lr_min=1e-3, lr_max=1, gamma1=0.2, gamma3=0.3)(0.5, [2.0, 5.0], 4.0) == pytest.approx(
        0.5 - 0.3 * 0.25
    )


# --- properties for every history --------------------------------------------------------------------------------

anything = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
histories = st.lists(st.one_of(mi, anything), max_size=12)
positive = st.floats(min_value=5e-324, allow_infinity=False)
gammas = st.one_of(st.just(0.0), st.floats(0, 1e300))
limits = st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)).map(sorted)


@st.composite
def policies(draw):
    lo, hi = draw(st.one_of(bounds, limits))
    eps = draw(st.floats(0, 10))
    g = [draw(gammas) for _ in range(3)]
    kind = draw(st.sampled_from("cvs"))
    return {
        "c": ChangePolicy(lo, hi, *g[:2], eps),
        "v": ValueChangePolicy(lo, hi, *g, eps),
        "s": ValuePolicy(lo, hi, *g[:2]),
    }[kind]


any_lr = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=600)
@given(policies(), any_lr, histories, st.one_of(mi, positive))
@example(ChangePolicy(**PAPER, gamma1=0.0), 0.01, [1.0, 5e-324], 1.0)
@example(ValueChangePolicy(**PAPER, gamma3=0.0), 0.01, [1.0, 1.7e308], 5e-324)
def test_within_bounds_finite_pure_and_as_the_branch_says(p, lr, history, ixy):
    before = list(history)
    new, branch = p.decide(lr, history, ixy)
    assert isinstance(new, float) and math.isfinite(new) and p.lr_min <= new <= p.lr_max
    assert repr(history) == repr(before), "the history was changed"
    assert (new, branch) == p.decide(lr, history, ixy) and new == p(lr, history, ixy)
    inside = p.bound(lr)
    if branch == "start":
        assert new == p.lr_min and len(last_valid(history)) < 2
    elif branch == "hold":
        assert new == inside and not is_valid(history[-1])
    elif branch == "increase":
        assert new >= inside
    else:
        assert branch in ("decrease", "violation") and new <= inside


@given(policies(), st.floats(1e-3, 0.1), histories, mi, mi, mi)
def test_invalid_measurements_leave_no_trace(p, lr, history, a, b, ixy):
    "A bad value only holds the rate once; afterwards it is as if it had not been."
    bad = [v for v in history if not is_valid(v)]
    assert p(lr, [a, *bad, b], ixy) == p(lr, [a, b], ixy)
    for v in bad:
        assert p.decide(lr, [a, b, v], ixy) == (p.bound(lr), "hold")


@given(policies(), st.floats(1e-3, 0.1), histories, st.one_of(mi, positive))
def test_only_the_last_two_valid_measurements_matter(p, lr, history, ixy):
    if history and is_valid(history[-1]):
        assert p(lr, history, ixy) == p(lr, last_valid(history)[::-1], ixy)


@given(st.floats(5e-324, allow_infinity=False), st.floats(5e-324, allow_infinity=False))
def test_measures_are_finite(a, b):
    assert 0 <= relative_change(a, b) < math.inf
    assert -math.inf < shortfall(a, b) <= 1


@given(st.lists(st.integers(1, 30), min_size=2, max_size=2, unique=True).map(sorted), st.lists(mi, max_size=30), mi)
def test_sequence_hands_over_at_its_milestones(ms, history, ixy):
    parts = (ValueChangePolicy(**PAPER), ValuePolicy(lr_min=0.02, lr_max=0.1), ChangePolicy(**PAPER))
    seq, t = SequentialPolicy(parts, ms), len(history)
    which = parts[0] if t < ms[0] else parts[1] if t < ms[1] else parts[2]
    assert seq.at(t) is which and seq.decide(0.01, history, ixy) == which.decide(0.01, history, ixy)


def test_sequence_needs_a_reference_only_while_a_member_does():
    seq = SequentialPolicy([ChangePolicy(**PAPER), ValuePolicy(**PAPER)], [4])
    assert seq.needs_reference and not SequentialPolicy([ChangePolicy(**PAPER)], []).needs_reference
    assert seq.decide(0.01, [1.0, 2.0, 3.0])[1] == "increase" and seq(0.01, [1.0, 2.0, 3.0]) == seq.decide(
        0.01, [1.0, 2.0, 3.0]
    )[0] == ChangePolicy(**PAPER)(0.01, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="reference"):
        seq(0.01, [1.0, 2.0, 3.0, 3.0])


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kw, error",
    [
        (dict(lr_min=0), ValueError),
        (dict(lr_min=-1e-3), ValueError),
        (dict(lr_min=0.2, lr_max=0.1), ValueError),
        (dict(lr_max=math.inf), ValueError),
        (dict(gamma1=math.nan), ValueError),
        (dict(gamma1=-0.1), ValueError),
        (dict(epsilon=-1), ValueError),
        (dict(lr_min="1e-3"), TypeError),
        (dict(epsilon=None), TypeError),
        (dict(epsilon=True), TypeError),
    ],
)
def test_bad_constants(kw, error):
    with pytest.raises(error, match=f"ChangePolicy.*{next(iter(kw))}"):
        ChangePolicy(**kw)


@pytest.mark.parametrize("reference", [None, 0.0, -1.0, math.nan, math.inf])
def test_bad_reference(reference):
    for p in (ValueChangePolicy(**PAPER), ValuePolicy(**PAPER)):
        assert p.decide(0.01, [1.0], reference)[1] == "start"  # not needed yet
        with pytest.raises(ValueError, match="IXY"):
            p(0.01, [1.0, 2.0], reference)
    assert ChangePolicy(**PAPER)(0.01, [1.0, 2.0], reference) > 0.01


def test_bad_rate_and_sequences():
    for lr in (math.nan, math.inf):
        pytest.raises(ValueError, ChangePolicy(**PAPER), lr, [1.0, 2.0])
    for ms in ([], [3, 3], [5, 2], [0, 3], [1.0, 2], [True, 3]):
        with pytest.raises(ValueError, match="milestones"):
            SequentialPolicy([ChangePolicy(**PAPER)] * 3, ms)
    for ms in ([1, 1, 2], [1, 2, 2], [2, 1, 3]):
        with pytest.raises(ValueError, match="milestones"):
            SequentialPolicy([ChangePolicy(**PAPER)] * 4, ms)
    for n, need in ((3, 2), (1, 0), (0, 0)):
        with pytest.raises(ValueError, match=f"{n} policies need {need} milestones between them, got 5"):
            SequentialPolicy([ChangePolicy(**PAPER)] * n, [1, 2, 3, 4, 5])
    with pytest.raises(TypeError, match="ChangePolicy"):
        SequentialPolicy([lambda *a: 0.1, ChangePolicy(**PAPER)], [3])


def test_frozen_and_equal():
    p = ChangePolicy(**PAPER)
    with pytest.raises(AttributeError):
        p.lr_min = 1.0
    assert hash(p) == hash(ChangePolicy(**PAPER)) and p != ChangePolicy(gamma2=0.5)
    with pytest.raises(AttributeError):
        SequentialPolicy([p, p], [3]).milestones = [5]


def test_long_histories_cost_the_same():
    "Only the tail is read, so a history of millions is no slower."

    class Tail(list):
        reads = 0

        def __reversed__(self):
            for v in super().__reversed__():
                self.reads += 1
                yield v

    h = Tail([1.0] * 100_000 + [1.5, 2.0])
    ChangePolicy(**PAPER)(0.01, h)
    assert h.reads <= 3


def test_imports_without_torch():
    code = "import sys; sys.modules['torch'] = None; import milr.policy; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
