"Properties of the estimators that a notebook cell cannot check: generated inputs, other processes, all paths on ties."

import math, os, subprocess, sys, warnings
from pathlib import Path
from unittest.mock import patch
import numpy as np, pytest, torch
from hypothesis import example, given, settings, strategies as st
from milr import products
from milr.neighbours import count
from milr.mi import ksg_mi, ksg_reference, mutual_information, paper_mi, ross_mi, ross_reference
from milr.ties import expected_digamma
from tests.memory import linux

torch.set_num_threads(1)
few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10**6)
metrics = st.sampled_from(["euclidean", "chebyshev"])


def classes(seed, n=120, d=3, C=4):
    gen = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % C
    return torch.randn(C, d, generator=gen, dtype=torch.float64)[y] + torch.randn(
        n, d, generator=gen, dtype=torch.float64
    ), y


def awkward(seed):
    "Samples with ties of one kind or another, and labels of which some are rare."
    gen = torch.Generator().manual_seed(seed)
    n, d, kind = (int(torch.randint(lo, hi, (1,), generator=gen)) for lo, hi in ((6, 60), (1, 6), (0, 6)))
    x = torch.randn(n, d, generator=gen)
    x = [
        torch.relu(x),
        x.round(),
        x[torch.randint(0, n, (n,), generator=gen)],
        torch.zeros(n, d),
        (3 * x).round() * 1e-6 + 1e6,
        x.double() * 1e-9 + 1,
    ][kind]
    return x, torch.randint(0, 3, (n,), generator=gen) * 7 - 5


def applicable(d, metric):
    wide = ["matmul", "products"] if metric == "euclidean" else ["tiled"]
    return ["torch", "tree", "direct", *wide] + ["sort"] * (d == 1)


@few
@given(seeds, st.integers(1, 5), st.sampled_from([1, 2, 7, 65]), metrics)
def test_every_path_is_the_reference(seed, k, d, metric):
    x, y = classes(seed, d=d)
    expected = float(ross_reference(x, y, k, 2.0 if metric == "euclidean" else math.inf))
    for method in applicable(d, metric):
        assert abs(float(ross_mi(x, y, k, metric=metric, base=math.e, method=method)) - expected) < 1e-10, method


@settings(max_examples=80, deadline=None)
@given(seeds, st.integers(1, 4), metrics, st.sampled_from([50, 2**22]))
def test_every_path_agrees_on_ties(seed, k, metric, chunk):
    x, y = awkward(seed)
    values = {
        m: float(mutual_information(x, y, k, metric=metric, method=m, chunk=chunk))
        for m in applicable(x.shape[1], metric)
    }
    assert max(values.values()) - min(values.values()) < 1e-10 and math.isfinite(values["torch"]), values


def wide(seed, kind):
    "Samples of some hundred features, of a kind that a matrix product alone would miscount."
    gen = torch.Generator().manual_seed(seed)
    n, d = (int(torch.randint(low, high, (1,), generator=gen)) for low, high in ((20, 90), (65, 700)))
    x = torch.relu(torch.randn(n, d, generator=gen))
    kinds = dict(
        float32=lambda: x,
        float64=lambda: x.double(),
        copies=lambda: x[torch.randint(0, n // 3, (n,), generator=gen)],
        ties=lambda: x.round(),
        constant=lambda: x * 0,
        far_away=lambda: x.double() + 1e7,
        dead=lambda: x * (torch.arange(d) < 5),
        near_duplicates=lambda: x[:1] + 1e-4 * torch.randn(n, d, generator=gen),
        two_scales=lambda: x * 10.0 ** torch.randint(-25, 1, (n, 1), generator=gen).float(),
        no_larger_than_underflow=lambda: torch.cat([x[: n // 2] * 1e-22, x[n // 2 :]]),
    )
    return kinds[kind](), torch.randint(0, 3, (n,), generator=gen)


@settings(max_examples=80, deadline=None)
@given(
    seeds,
    st.integers(1, 4),
    st.sampled_from(
        [
            "float32",
            "float64",
            "copies",
            "ties",
            "constant",
            "far_away",
            "dead",
            "near_duplicates",
            "two_scales",
            "no_larger_than_underflow",
        ]
    ),
    st.sampled_from([500, 2**22]),
    st.sampled_from(["highest", "high", "medium"]),
)
def test_products_count_as_the_plain_path_does(seed, k, kind, chunk, precision):
    "To the last tie, whatever is in doubt and whatever the user lets products round."
    x, y = wide(seed, kind)
    size = torch.bincount(y, minlength=3)[y]
    x, y, neighbours = x[size > 1], y[size > 1], (size[size > 1] - 1).clamp(max=k)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = count("products", x, y, neighbours, 2.0, chunk)
    finally:
        torch.set_float32_matmul_precision(before)
    for name, a, b in zip(found._fields, found, count("torch", x, y, neighbours, 2.0, chunk)):
        assert torch.equal(a, b), name


def test_few_pairs_are_measured_twice():
    "What a product saves: of ten classes in 3000 dimensions under 1 % of the pairs are in doubt, with TF32 under 10 %."
    gen = torch.Generator().manual_seed(0)
    y = torch.arange(1000) % 10
    x = torch.relu(torch.randn(10, 3000, generator=gen)[y] + torch.randn(1000, 3000, generator=gen))
    for precision, most in (("highest", 0.01), ("high", 0.1)):
        measured = []

        def counted(x, i, j, chunk, distances=products.pair_distances):
            measured.append(len(i))
            return distances(x, i, j, chunk)

        with (
            patch.object(products, "pair_distances", counted),
            patch("torch.get_float32_matmul_precision", lambda: precision),
        ):
            count("products", x, y, torch.full((1000,), 3), 2.0, 2**22)
        assert 0 < sum(measured) < most * 1000**2, precision


def test_a_setting_of_products_that_torch_cannot_report_is_the_coarsest():
    def refuses():
        raise RuntimeError("mix of the legacy and new APIs")

    with patch("torch.get_float32_matmul_precision", refuses):
        assert products.factor_rounding() == 2.0**-7
    with patch.dict(os.environ, NVIDIA_TF32_OVERRIDE="1"):
        assert products.factor_rounding() == 2.0**-10
    assert products.factor_rounding() == 0


@few
@given(seeds, st.integers(2, 6), st.sampled_from([0.1, 0.3, 1 / 7]))
def test_crowds_on_decimals(seed, k, step):
    "Copies on a lattice whose steps are rounded, so that a difference and a sum disagree about who is at the radius."
    gen = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (150,), generator=gen)
    x = step * torch.randint(0, 9, (150, 1), generator=gen).double() + step * y[:, None] * torch.randint(
        0, 2, (150, 1), generator=gen
    )
    values = [float(mutual_information(x, y, k, method=m)) for m in applicable(1, "euclidean")]
    assert max(values) - min(values) < 1e-10, values


@few
@given(seeds, st.integers(1, 4), metrics, st.sampled_from([1, 2]))
def test_ksg_is_the_reference_and_symmetric(seed, k, metric, algorithm):
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(80, 2, generator=gen, dtype=torch.float64)
    y = x[:, :1] * 0.8 + torch.randn(80, 1, generator=gen, dtype=torch.float64)
    a, b = (
        float(ksg_mi(*pair, k, metric=metric, algorithm=algorithm, base=math.e, chunk=1000))
        for pair in ((x, y), (y, x))
    )
    assert (
        abs(a - float(ksg_reference(x, y, k, 2.0 if metric == "euclidean" else math.inf, algorithm))) < 1e-10
        and abs(a - b) < 1e-10
    )


@few
@given(seeds)
def test_ksg_on_ties_is_symmetric_and_bounded(seed):
    x, _ = awkward(seed)
    z = x[:, :1] * 2 + torch.randint(0, 2, (len(x), 1), generator=torch.Generator().manual_seed(seed))
    for algorithm in (1, 2):
        a, b = float(ksg_mi(x, z, algorithm=algorithm)), float(ksg_mi(z, x, algorithm=algorithm))
        assert math.isfinite(a) and abs(a - b) < 1e-10 and a < math.log2(len(x)) + 1


@few
@example(429, "euclidean", "lda")
@given(seeds, metrics, st.sampled_from([None, "lda"]))
def test_invariances(seed, metric, projection):
    x, y = classes(seed, n=100)
    gen = torch.Generator().manual_seed(seed)
    mi = lambda x, y: float(mutual_information(x, y, metric=metric, projection=projection))
    base, order = mi(x, y), torch.randperm(100, generator=gen)
    if not projection:
        assert abs(mi(x[order], y[order]) - base) < 1e-10  # folds depend on the order
    se = (
        float(mutual_information(x, y, metric=metric, projection=projection, return_error=True)[1])
        if projection
        else 0.0
    )
    assert abs(mi(x, torch.tensor([9, -3, 2**40, 0])[y]) - base) < (
        3 * se if projection else 1e-10
    )  # other names, other folds: the change is one of the error's size
    assert (
        abs(mi(x * 1024.0, y) - base) < 1e-6
        and abs(mi(x * 2.0**-60, y) - base) < 1e-6
        and abs(mi(x + 1.0, y) - base) < 1e-6
    )


@few
@given(seeds)
def test_repeated_features_and_containers_change_nothing(seed):
    x, y = classes(seed)
    base = mutual_information(x, y)
    assert abs(float(mutual_information(torch.cat([x, x], 1), y) - base)) < 1e-10
    both = mutual_information({"a": x, "b": x.numpy()}, y.numpy())
    assert list(both) == ["a", "b"] and both["b"] == base
    assert (
        mutual_information([x, x.reshape(120, 3, 1)], y) == [base, base]
        and base.dtype == torch.float64
        and base.ndim == 0
    )


@few
@given(seeds, st.sampled_from([None, "lda"]))
def test_independence_is_near_zero(seed, projection):
    gen = torch.Generator().manual_seed(seed)
    x, y = torch.randn(600, 3, generator=gen), torch.randint(0, 4, (600,), generator=gen)
    assert abs(float(mutual_information(x, y, projection=projection, base=math.e))) < 0.15


@few
@given(seeds, st.integers(2, 8))
def test_a_determined_label_gives_its_entropy(seed, C):
    y = torch.randint(0, C, (400,), generator=torch.Generator().manual_seed(seed))
    p = y.bincount() / 400
    p = p[p > 0]
    H = float(-(p * p.log2()).sum())
    for x in (y, y.double() * 1e6, y.half(), torch.nn.functional.one_hot(y)):
        assert abs(float(mutual_information(x, y)) - H) < 0.05


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint16,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ],
)
def test_dtypes(dtype):
    x, y = torch.arange(60) % 2, torch.arange(60) % 2
    assert abs(float(mutual_information(x.to(dtype), y)) - 1) < 0.05
    assert abs(float(mutual_information(x, y.bool())) - 1) < 0.05


def test_array_layouts():
    x, y = classes(0)
    base = mutual_information(x, y)
    a = x.numpy()
    frozen = a.copy()
    frozen.flags.writeable = False
    for v in (a[::-1][::-1], np.asfortranarray(a), a.astype(">f8"), frozen, x.T.contiguous().T, torch.nn.Parameter(x)):
        assert mutual_information(v, y) == base


@pytest.mark.parametrize(
    "x, y, value",
    [
        (torch.zeros(20, 3), torch.arange(20) % 2, 0.0),  # a constant
        (torch.randn(20, 3), torch.full((20,), 5), 0.0),  # one class
    ],
)
def test_nothing_to_know_is_zero(x, y, value):
    assert abs(float(mutual_information(x, y)) - value) < 1e-9


def test_small_classes():
    x, y = classes(0, n=40)
    y = y.clone()
    y[0], y[1:3] = 77, 78
    assert math.isfinite(float(mutual_information(x, y, 5))) and math.isfinite(
        float(mutual_information(x, y, 5, projection="lda"))
    )
    assert math.isfinite(float(mutual_information(x[:4], torch.tensor([0, 0, 1, 1]), 3)))  # n = k+1


def test_relu_unit():
    truth = 0.6086  # max(0, ±2+noise), by quadrature in the notebook
    for seed in range(5):
        gen = torch.Generator().manual_seed(seed)
        y = torch.randint(0, 2, (1000,), generator=gen)
        x = torch.relu(torch.randn(1000, generator=gen) + 4.0 * y - 2)
        assert abs(float(mutual_information(x, y, base=math.e)) - truth) < 0.03


def test_scales_and_near_duplicates():
    x, y = classes(0, n=300, d=80)
    base = float(mutual_information(x, y, method="torch"))
    for s in (1e-300, 1e-30, 1e-6, 1e6, 1e30, 1e300):
        assert abs(float(mutual_information(x * s, y)) - base) < 1e-6, s
    close = torch.cat([x, x + 1e-9 * torch.randn(300, 80, dtype=torch.float64)])
    far = close + 1e4 * torch.arange(2).repeat_interleave(300)[:, None]
    for v in (close, far):
        assert (
            abs(float(mutual_information(v, y.repeat(2)) - mutual_information(v, y.repeat(2), method="torch"))) < 1e-10
        )


def test_ties_by_enumeration():
    gen = torch.Generator().manual_seed(0)
    for a, s, s_c, j in ((0, 5, 2, 1), (3, 9, 4, 3), (1, 6, 6, 2), (10, 40, 3, 2)):
        place = torch.rand(100_000, s, generator=gen).argsort(1)[:, :s_c].sort(1).values[:, j - 1] + 1
        assert (
            abs(
                float(torch.digamma(a + place.double()).mean())
                - float(expected_digamma(*(torch.tensor([v]) for v in (a, s, s_c, j)))[0])
            )
            < 0.01
        )


def test_bad_input():
    x, y = classes(0)
    for args, err in [
        ((x, y, 0), ValueError),
        ((x, y, 120), ValueError),
        ((x, y, True), TypeError),
        ((x, y, 3.0), TypeError),
        ((x[:0], y[:0]), ValueError),
        ((x, y[:5]), ValueError),
        ((x * math.inf, y), ValueError),
        ((x + 0j, y), TypeError),
        ((x.to_sparse(), y), TypeError),
        ((x.to("meta"), y), TypeError),
        (("abc", y), TypeError),
        (([1, 2], y), TypeError),
        ((x[:, :0], y), ValueError),
        ((x, y[:, None]), ValueError),
        ((x, torch.arange(120)), ValueError),
        ((x, [0] * 120), TypeError),
        ((torch.tensor(1.0), y), ValueError),
        ((np.array([object()] * 120), y), TypeError),
        ((np.ma.masked_array(x.numpy(), x.numpy() > 0), y), TypeError),
        ((torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8), y), TypeError),
    ]:
        with pytest.raises(err):
            mutual_information(*args)
    for kwargs in (
        dict(base=0),
        dict(base=1),
        dict(base=-2),
        dict(base=math.inf),
        dict(metric="l1"),
        dict(algorithm=3),
        dict(projection="pca"),
        dict(method="sort"),
        dict(method="fast"),
        dict(chunk=0),
    ):
        with pytest.raises(ValueError):
            mutual_information(x, y, **kwargs)
    with pytest.raises(TypeError):
        ross_mi(x, y.double())
    with pytest.raises(ValueError):
        mutual_information(x, x, projection="lda")
    with pytest.warns(UserWarning, match="class labels"):
        mutual_information(x, y.double())


def test_the_papers_estimator():
    x, y = classes(0, n=400, d=2)
    x = x / 100  # well inside the gap of 1 between one-hot labels
    assert abs(float(paper_mi(x, y) - mutual_information(x, y, metric="chebyshev"))) < 1e-6
    assert float(paper_mi(x * 1e4, y)) < 0.2 * float(mutual_information(x * 1e4, y))  # outside it


def test_error_bar_and_drift():
    x, y = classes(1, n=600, d=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mi, se = mutual_information(x, y, return_error=True)
    assert mi == mutual_information(x, y) and 0 < float(se) < 0.2
    gen = torch.Generator().manual_seed(0)
    u = torch.randn(600, 5, generator=gen)
    with pytest.warns(UserWarning, match="not converged"):
        mutual_information(u, 0.99 * u + 0.14 * torch.randn(600, 5, generator=gen), return_error=True)


@pytest.mark.parametrize(
    "n, classes, d, gap, kw", [(300, 4, 20, 0.5, dict(projection="lda")), (400, 40, 2, 2.0, {}), (200, 4, 2, 1.0, {})]
)
def test_the_error_bar_is_the_spread(n, classes, d, gap, kw):
    "Over fresh samples, with the projection, with classes of about ten members, with few samples."
    centres = gap * torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    answers = []
    for seed in range(25):
        gen = torch.Generator().manual_seed(seed)
        y = torch.randint(0, classes, (n,), generator=gen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers.append(
                [
                    float(v)
                    for v in mutual_information(
                        centres[y] + torch.randn(n, d, generator=gen), y, return_error=True, **kw
                    )
                ]
            )
    mi, se = torch.tensor(answers).T
    assert 0.6 < se.mean() / mi.std() < 1.9
    assert ((mi - mi.mean()).abs() < 2 * se).float().mean() >= 0.8


def test_projection_never_invents():
    x = torch.randn(400, 300, generator=torch.Generator().manual_seed(0))
    y = torch.arange(400) % 5
    assert (
        abs(float(mutual_information(x, y, projection="lda", base=math.e))) < 0.05
    )  # 300 features to overfit, nothing to find


@pytest.mark.parametrize("kind, noise", [("means", 60), ("spreads", 0), ("both", 12)])
def test_projection_is_near_the_truth(kind, noise):
    """Classes that differ by their mean, by their spread, or both, among features that tell nothing.

    The truth is by Monte Carlo. Then in another unit.
    """
    C, d, n = 3, 3, 1500
    gen = torch.Generator().manual_seed(0)
    means = 2 * torch.randn(C, d, generator=gen) if kind != "spreads" else torch.zeros(C, d)
    spreads = torch.tensor([1.0, 1.0, 1.0] if kind == "means" else [0.5, 1.0, 4.0])

    def draw(m):
        y = torch.randint(0, C, (m,), generator=gen)
        return means[y] + spreads[y, None] * torch.randn(m, d, generator=gen), y

    x, y = draw(100_000)
    log_p = torch.stack(
        [-((x - means[c]) ** 2).sum(1) / 2 / spreads[c] ** 2 - d * spreads[c].log() for c in range(C)], 1
    )
    truth = math.log(C) + float(log_p.log_softmax(1).gather(1, y[:, None]).mean())
    x, y = draw(n)
    x = torch.cat([x, torch.randn(n, noise, generator=gen)], 1)
    nats = mutual_information(x, y, projection="lda", base=math.e)
    assert abs(float(nats) - truth) < 0.05, (float(nats), truth)
    assert mutual_information(x, y, projection="lda") == pytest.approx(float(nats) / math.log(2), rel=1e-12)
    mi, se = mutual_information(x, y, projection="lda", return_error=True)
    nat, nat_se = mutual_information(x, y, projection="lda", return_error=True, base=math.e)
    assert (mi, se) == (pytest.approx(float(nat) / math.log(2)), pytest.approx(float(nat_se) / math.log(2)))


def test_without_numba():
    code = """
import sys
sys.modules["numba"] = None
import torch
from milr.mi import mutual_information
from milr.neighbours import choose_path
assert choose_path("auto", 200, 40, 2., True) == "torch"
x, y = torch.randn(200, 40, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 4
print(repr(float(mutual_information(x, y))))
"""
    gen = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 40, generator=gen), torch.arange(200) % 4
    plain = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert abs(plain - float(mutual_information(x, y, method="matmul"))) < 1e-10


def test_what_is_slow_to_import_waits_for_an_estimate_that_wants_it():
    "Numba and scipy.special together take as long as half of torch."
    code = """import sys, torch, milr.mi
slow = {"numba", "scipy", "milr.kernels"}
print(sorted(slow & set(sys.modules)))
x, y = torch.rand(50, 5), torch.arange(50) % 2
milr.mi.mutual_information(x[:, 0], y)
print(sorted(slow & set(sys.modules)))
milr.mi.mutual_information(x, y)
print(sorted(slow & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[:2] == ["[]", "[]"] and "milr.kernels" in said[2]


def peak(code):
    "Growth of a fresh process's memory in MiB while `code` runs, after inputs and compiled code are in place."
    program = f"""
import torch
from tests.memory import peak
from milr import mutual_information as mi
torch.set_num_threads(1)
x, y = torch.randn(60000, 10), torch.arange(60000) % 10
mi(x[:500], y[:500])
mi(x[:500, :2], y[:500])
print(peak(lambda: {code}))
"""
    return float(
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )


@linux
def test_the_peak_is_seen():
    assert 350 < peak("torch.ones(100, 2**20)") < 450


@linux
def test_memory():
    assert peak("mi(x, y)") < 1024


@linux
@pytest.mark.skipif("MILR_SLOW" not in os.environ, reason="slow: set MILR_SLOW=1")
@pytest.mark.parametrize(
    "code",
    [
        "mi(x, y, method='torch')",
        "mi(x, y, method='matmul')",
        "mi(x[:20000], x[:20000, :1])",
        "mi(x, y, projection='lda')",
    ],
)
def test_memory_of_other_paths(code):
    assert peak(code) < 1024


# --- a continuous variable has no unit ---------------------------------------------------------------------------


def correlated(seed=0, n=1000, rho=0.9):
    "Two normals with correlation `rho`, and their MI in nats."
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, generator=gen, dtype=torch.float64)
    y = rho * x + math.sqrt(1 - rho**2) * torch.randn(n, 1, generator=gen, dtype=torch.float64)
    return x, y, -0.5 * math.log(1 - rho**2)


@pytest.mark.parametrize("metric", ["euclidean", "chebyshev"])
@pytest.mark.parametrize("algorithm", [1, 2])
@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_the_unit_of_a_continuous_variable_does_not_matter(metric, algorithm, factor):
    x, y, truth = correlated()
    for pair in ((x, y * factor), (x * factor, y)):
        assert abs(float(mutual_information(*pair, metric=metric, algorithm=algorithm, base=math.e)) - truth) < 0.08


def test_numbers_as_they_are():
    x, y, truth = correlated()
    assert float(mutual_information(x, y * 1e6, rescale=False)) < 0.01  # what the default avoids
    assert abs(float(mutual_information(x, y, rescale=False, base=math.e)) - truth) < 0.08
    with pytest.raises(TypeError, match="rescale"):
        mutual_information(x, y, rescale="yes")


def test_an_outlier_does_not_set_the_unit():
    x, y, truth = correlated()
    y[0] = 1e4
    assert abs(float(mutual_information(x, y, base=math.e)) - truth) < 0.08


def test_units_keep_exact_ties():
    "Whole numbers in units of 7: the distances 2-1 and 3-2 must stay equal, and the estimate the same."
    gen = torch.Generator().manual_seed(0)
    a = torch.poisson(torch.full((500, 2), 3.0), generator=gen)
    b = a[:, :1] + torch.poisson(torch.full((500, 1), 1.0), generator=gen)
    for algorithm in (1, 2):
        assert float(ksg_mi(a, b * 7, algorithm=algorithm)) == pytest.approx(
            float(ksg_mi(a, b, algorithm=algorithm)), abs=1e-10
        )


# --- several labels a sample -------------------------------------------------------------------------------------


def test_several_labels_a_sample_are_not_taken_for_numbers():
    x, y = torch.randn(100, 3), torch.randint(0, 2, (100, 5), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="return_inverse"):
        mutual_information(x, y)
    with pytest.warns(UserWarning, match="several labels a sample"):
        mutual_information(x, y.float())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ksg_mi(x, y.float())
        mutual_information(x, torch.unique(y, dim=0, return_inverse=True)[1])


# --- many classes ------------------------------------------------------------------------------------------------


def test_many_classes_are_noisy_not_biased_and_it_is_said():
    "1000 tokens of a vocabulary of 50,257, independent of x: about 20 share their label."
    found = []
    for seed in range(30):
        gen = torch.Generator().manual_seed(seed)
        x, y = torch.randn(1000, 4, generator=gen), torch.randint(0, 50257, (1000,), generator=gen)
        with pytest.warns(UserWarning, match=r"only \d+ of 1000 samples share their label"):
            found.append(float(mutual_information(x, y)))
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(30) and 0.2 < np.std(found) < 0.6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mutual_information(x, y % 500)


def test_a_column_of_class_numbers_that_are_floats_is_doubted_at_the_users_line():
    x, y = torch.randn(60, 2), (torch.arange(60) % 2).float()
    for labels in y, y[:, None]:
        with pytest.warns(UserWarning, match=r"y\.long\(\)") as told:
            mutual_information(x, labels)
        assert told[0].filename == __file__
