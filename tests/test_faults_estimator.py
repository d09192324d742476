"The estimator against inputs nobody should pass and some do: a right number, or an error that says what to do."

import math, os, subprocess, sys, warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path
import numpy as np, pytest, scipy.sparse, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from scipy.special import digamma
from milr.mi import ksg_mi, mutual_information, paper_mi, ross_mi
from milr.reference import label_entropy, reference_mi
from tests.memory import linux

torch.set_num_threads(1)
SLOW = "MILR_SLOW" in os.environ
many = settings(max_examples=1000 if SLOW else 40, deadline=None, suppress_health_check=list(HealthCheck))

# --- an oracle that shares no code with the estimator ------------------------------------------------------------


@lru_cache(None)
def tie_mean(a, s, c, j):
    "E[ψ(a+P)], P the place of the j-th of c marked items among s in random order, by exact counts."
    return sum(
        math.comb(p - 1, j - 1) * math.comb(s - p, c - j) * digamma(a + p) for p in range(j, s - c + j + 1)
    ) / math.comb(s, c)


def oracle(x, y, k, p):  # lattice points as Python numbers, so that ties are exact
    "The label-aware estimate in bits, sample by sample; classes of one are left out."
    size = Counter(y)
    rows = [i for i in range(len(y)) if size[y[i]] > 1]
    terms = []
    dist = (
        (lambda u, v: sum((a - b) ** 2 for a, b in zip(u, v)))
        if p == 2
        else (lambda u, v: max(abs(a - b) for a, b in zip(u, v)))
    )
    for i in rows:
        every = [(dist(x[i], x[j]), y[j]) for j in rows if j != i]
        own = sorted(d for d, c in every if c == y[i])
        kk = min(k, len(own))
        r = own[kk - 1]
        a, s, a_c, s_c = (
            sum(d < r for d, _ in every),
            sum(d == r for d, _ in every),
            sum(d < r for d in own),
            sum(d == r for d in own),
        )
        terms.append(digamma(len(rows)) - digamma(size[y[i]]) + digamma(kk) - tie_mean(a, s, s_c, kk - a_c))
    return math.fsum(terms) / len(terms) / math.log(2)


# --- inputs ------------------------------------------------------------------------------------------------------

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2, torch.float8_e4m3fn]
INTS = [torch.int8, torch.int16, torch.int32, torch.int64]
WHOLE = [torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
SHIFT = {
    torch.float16: (-10, 8),
    torch.bfloat16: (-100, 100),
    torch.float32: (-100, 100),
    torch.float64: (-900, 900),
    torch.float8_e5m2: (-8, 8),
    torch.float8_e4m3fn: (-2, 4),
}


@st.composite
def lattices(draw, dtypes=FLOATS + INTS + WHOLE):
    "(tensor, the same numbers as tuples, labels): few distinct values, hence duplicates, ties and constants."
    n, d, top, dtype = (
        draw(st.integers(4, 24)),
        draw(st.sampled_from([1, 1, 2, 3, 5, 40, 160])),
        draw(st.sampled_from([0, 1, 3, 8])),
        draw(st.sampled_from(dtypes)),
    )
    g = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    low = 0 if dtype in WHOLE else -top
    v = torch.randint(low, (1 if dtype == torch.bool else top) + 1, (n, d), generator=g)
    if draw(st.booleans()):
        v = v[torch.randint(0, n, (n,), generator=g)]  # whole samples repeated
    scale = 2.0 ** draw(st.integers(*SHIFT[dtype])) if dtype in SHIFT else 1
    x = (v.double() * scale).to(dtype)
    y = torch.randint(0, draw(st.integers(1, 4)), (n,), generator=g)
    return x, v.tolist(), y


def strided(x):
    "The same numbers, every second of each axis."
    out = torch.zeros([2 * s for s in x.shape], dtype=x.dtype)
    out[tuple(slice(None, None, 2) for _ in x.shape)] = x
    return out[tuple(slice(None, None, 2) for _ in x.shape)]


LAYOUTS = {
    "plain": lambda x: x,
    "transposed": lambda x: x.T.contiguous().T,
    "strided": strided,
    "trailing axes": lambda x: x.reshape(len(x), 1, -1, 1),
    "repeated without copies": lambda x: x[:, None].expand(-1, 3, -1),
    "duplicated features": lambda x: torch.cat([x.view(torch.uint8) if x.dtype.itemsize == 1 else x] * 2, 1).view(
        x.dtype
    ),
    "of a graph": lambda x: x.clone().requires_grad_() if x.is_floating_point() else x,
    "inference": lambda x: inference(x),
}


def inference(x):
    with torch.inference_mode():
        return x.clone()


LABELS = {
    "as they are": lambda y: y,
    "far apart": lambda y: torch.tensor([2**62, -(2**63), 2**63 - 1, 0])[y],
    "bytes": lambda y: y.to(torch.uint8),
    "int16": lambda y: y.short(),
    "NumPy": lambda y: y.numpy(),
    "strided": strided,
    "big-endian": lambda y: y.numpy().astype(">i4"),
}


@pytest.mark.parametrize("metric, p", [("euclidean", 2), ("chebyshev", math.inf)])
def test_any_lattice_gives_the_number_of_the_oracle(metric, p, tried):
    n = Counter()

    @many
    @given(
        lattices(),
        st.sampled_from(list(LAYOUTS)),
        st.sampled_from(list(LABELS)),
        st.integers(1, 23),
        st.sampled_from([1, 37, 2**22]),
    )
    def check(data, layout, labels, k, chunk):
        x, v, y = data
        k = min(k, len(y) - 1)
        if max(Counter(y.tolist()).values()) < 2:
            with pytest.raises(ValueError, match="every label in y occurs once"):
                mutual_information(x, y, k)
            n["refused"] += 1
            return
        got = float(mutual_information(LAYOUTS[layout](x), LABELS[labels](y), k, metric=metric, chunk=chunk))
        want = oracle(v, y.tolist(), k, p)
        assert abs(got - want) < 1e-9, (got, want)
        n["right"] += 1

    check()
    tried(
        f"Estimator: lattices of every dtype, layout and kind of label, {metric}",
        sum(n.values()),
        f"{n['right']} equal to an oracle within 1e-9 bits, {n['refused']} refused (every label once)",
    )


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "g", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">f8", ">i2", ">u4"]
)
def test_numpy_dtypes_and_layouts(dtype, tried):
    rng = np.random.default_rng(0)
    v = rng.integers(0, 2, (20, 4))
    y = rng.integers(0, 3, 20)
    want = oracle(v.tolist(), y.tolist(), 3, 2)
    a = v.astype(dtype)
    ro = a.copy()
    ro.flags.writeable = False
    for b in (
        a,
        np.asfortranarray(a),
        a[::-1][::-1],
        a[:, ::-1],
        np.repeat(a, 2, 0)[::2],
        ro,
        np.ma.masked_array(a),
        a.view(np.ndarray).reshape(20, 2, 2),
        np.broadcast_to(a, (1, 20, 4))[0],
    ):
        assert abs(float(mutual_information(b, y)) - want) < 1e-9
    tried("Estimator: NumPy arrays of 17 dtypes, 9 layouts", 9, "the same number for all")


def test_invariances_on_lattices(tried):
    n = Counter()

    @many
    @given(
        lattices(FLOATS[2:4]),
        st.integers(1, 5),
        st.sampled_from(["euclidean", "chebyshev"]),
        st.integers(0, 10**6),
        st.integers(-60, 60),
    )
    def check(data, k, metric, seed, e):
        x, _, y = data
        g = torch.Generator().manual_seed(seed)
        k = min(k, len(y) - 1)
        if max(Counter(y.tolist()).values()) < 2:
            return
        mi = lambda x, y: float(mutual_information(x, y, k, metric=metric))
        base = mi(x, y)
        order = torch.randperm(len(y), generator=g)
        names = torch.randperm(1000, generator=g)[:4] * 10**15 - 5 * 10**17
        for other in (
            mi(x[order], y[order]),
            mi(x, names[y]),
            mi(x[:, torch.randperm(x.shape[1], generator=g)], y),
            mi(torch.cat([x, x], 1), y),
            mi(x * 2.0**e if x.dtype == torch.float64 else x * 2.0 ** (e // 4), y),
            mi(-x, y),
        ):
            assert abs(other - base) < 1e-9
            n["same"] += 1

    check()
    tried(
        "Estimator: samples permuted, classes relabelled, features permuted, duplicated, scaled, mirrored",
        n["same"],
        "the same estimate within 1e-9 bits",
    )


def test_ksg_is_symmetric_and_finite_on_anything_real(tried):
    n = Counter()

    @many
    @given(
        lattices(FLOATS + INTS),
        lattices(FLOATS + INTS),
        st.integers(1, 6),
        st.sampled_from([1, 2]),
        st.sampled_from(["euclidean", "chebyshev"]),
    )
    def check(a, b, k, algorithm, metric):
        m = min(len(a[0]), len(b[0]))
        x, y = a[0][:m], b[0][:m]
        k = min(k, m - 1)
        one, two = (float(ksg_mi(*pair, k, algorithm=algorithm, metric=metric, chunk=100)) for pair in ((x, y), (y, x)))
        assert math.isfinite(one) and abs(one - two) < 1e-9 and one < math.log2(m) + 2
        order = torch.randperm(m, generator=torch.Generator().manual_seed(m)).numpy()
        assert (
            abs(
                float(
                    ksg_mi(x.double().numpy()[order], y.double().numpy()[order], k, algorithm=algorithm, metric=metric)
                )
                - one
            )
            < 1e-9
        )
        n["ok"] += 1

    check()
    tried(
        "KSG on lattices of any dtype: X and Y exchanged, samples permuted",
        n["ok"],
        "finite, symmetric and unmoved within 1e-9 bits",
    )


def test_independence_gives_about_zero(tried):
    n, worst = Counter(), 0.0
    kinds = dict(
        normal=lambda g, m: torch.randn(m, 2, generator=g),
        heavy=lambda g, m: torch.randn(m, 2, generator=g) / torch.rand(m, 1, generator=g).clamp(min=1e-6),
        atoms=lambda g, m: torch.relu(torch.randn(m, 3, generator=g)),
        counts=lambda g, m: torch.randint(0, 4, (m, 2), generator=g),
        copies=lambda g, m: torch.randn(m // 2, 2, generator=g)[torch.randint(0, m // 2, (m,), generator=g)],
        constant=lambda g, m: torch.ones(m, 3),
    )

    @settings(max_examples=100 if SLOW else 20, deadline=None)
    @given(st.sampled_from(list(kinds)), st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([0.5, 0.9]))
    def check(kind, seed, C, first):
        nonlocal worst
        g = torch.Generator().manual_seed(seed)
        x = kinds[kind](g, 500)
        y = torch.multinomial(torch.tensor([first, *[(1 - first) / (C - 1)] * (C - 1)]), 500, True, generator=g)
        for v in (
            mutual_information(x, y),
            mutual_information(x, torch.randn(500, 1, generator=g)) if kind != "constant" else torch.tensor(0.0),
        ):
            worst = max(worst, abs(float(v)))
            assert abs(float(v)) < 0.35, kind
            n["ok"] += 1

    check()
    tried("Independent X and Y of six kinds, 500 samples", n["ok"], f"all within 0.35 bits of 0, the worst {worst:.2f}")


# --- what must be refused ----------------------------------------------------------------------------------------

X, Y = torch.arange(36.0).reshape(12, 3) % 7, torch.arange(12) % 3


def bad_x():
    q = torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        csr = X.to_sparse_csr()
        nested = [
            torch.nested.nested_tensor([X[:2], X[2:6], *X[6:, None].repeat(1, 2, 1)][:4], layout=l)
            for l in (torch.strided, torch.jagged)
        ]
    return {
        "sparse COO": X.to_sparse(),
        "sparse CSR": csr,
        "sparse of SciPy": scipy.sparse.eye(12),
        "complex64": X + 0j,
        "complex128": X.double() + 1j,
        "complex NumPy": X.numpy() + 0j,
        "meta": X.to("meta"),
        "quantised": q,
        "nested": nested[0],
        "jagged": nested[1],
        "strings": np.array(list("abcdefghijkl")),
        "objects": X.numpy().astype(object),
        "dates": np.arange(12).astype("M8[s]"),
        "time spans": np.arange(12).astype("m8[s]"),
        "records": np.zeros(12, dtype=[("a", "f4")]),
        "masked": np.ma.masked_array(X.numpy(), X.numpy() > 2),
        "bytes": b"123456789012",
        "None": None,
        "a number": 3.5,
        "a set": {1, 2},
        "a generator": (v for v in X),
        "lists of lists": X.tolist(),
        "0-d": torch.tensor(1.0),
        "0-d NumPy": np.float64(1.0),
        "empty": X[:0],
        "zero-width": X[:, :0],
        "zero-width inside": torch.zeros(12, 3, 0),
        "NaN": X + math.nan,
        "one NaN": torch.where(X == 3, math.nan, X),
        "infinity": torch.where(X == 3, math.inf, X),
        "-infinity in NumPy": np.where(X == 3, -np.inf, X),
        "float16 overflow": (X * 1e5).half(),
        "too few samples": X[:3],
        "another number of samples": X[:8],
        "one sample": X[:1],
    }


def bad_y():
    return {
        "floats with NaN": torch.full((12,), math.nan),
        "one-hot": torch.eye(3, dtype=torch.long)[Y],
        "a column": Y[:, None],
        "0-d": torch.tensor(1),
        "a list": Y.tolist(),
        "strings": np.array(list("abcabcabcabc")),
        "None": None,
        "every label once": torch.arange(12),
        "empty": Y[:0],
        "too many": torch.cat([Y, Y]),
        "complex": Y + 0j,
        "sparse": Y.to_sparse(),
        "meta": Y.to("meta"),
        "zero-width floats": torch.zeros(12, 0),
        "objects": Y.numpy().astype(object),
    }


BAD_K = [0, -1, 12, 10**9, True, 3.0, "3", None, np.float32(3), torch.tensor(3), math.nan, [3]]
BAD_KW = (
    [dict(metric=v) for v in ("l2", None, 2, ["euclidean"])]
    + [dict(base=v) for v in (0, 1, -2, math.inf, math.nan, "2", None, True, 1j)]
    + [dict(algorithm=v) for v in (0, 3, "1", None, True, 1.5)]
    + [dict(seed=v) for v in (None, 1.5, "a", True)]
    + [dict(projection=v) for v in ("pca", True, 1)]
    + [dict(method=v) for v in ("fast", None, "sort", "tiled")]
    + [dict(chunk=v) for v in (0, -1, 1.5, None, True, "big")]
)


def refused(f, *args, **kw):
    "A TypeError or ValueError of ours: in one paragraph, naming what is wrong."
    with pytest.raises((TypeError, ValueError)) as e:
        f(*args, **kw)
    said = str(e.value)
    frame = e.traceback[-1]
    assert 15 < len(said) < 400 and "milr" in str(frame.path), f"not an error of ours: {type(e.value).__name__}: {said}"
    return said


def test_bad_inputs_are_refused_in_words(tried):
    n = 0
    for name, x in bad_x().items():
        if name != "lists of lists":
            assert "x" in refused(mutual_information, x, Y), name
        refused(mutual_information, {"layer": x}, Y)
        refused(ross_mi, x, Y)
        refused(reference_mi, x, Y)
        refused(paper_mi, x, Y)
        n += 5
        if name not in ("too few samples", "one sample"):
            refused(ksg_mi, X, x)
            n += 1
    for name, y in bad_y().items():
        refused(mutual_information, X, y)
        refused(ross_mi, X, y)
        n += 2
        if name != "every label once":
            refused(reference_mi, X, y)
            n += 1
        if name not in ("every label once", "too many"):
            refused(label_entropy, y)
            n += 1
    for k in BAD_K:
        refused(mutual_information, X, Y, k)
        refused(ksg_mi, X, X, k)
        refused(reference_mi, X, Y, k=k)
        n += 3
    for kw in BAD_KW:
        refused(mutual_information, X, Y, **kw)
        n += 1
    tried(
        "Estimator and reference: input and options that cannot be used",
        n,
        "TypeError or ValueError that names what is wrong",
    )


@pytest.mark.parametrize("e", [-1074, -1030, -660, -100, 100, 660, 1018])
def test_huge_and_tiny_scales(e, tried):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-8, 9, (60, 3), generator=g).double()
    y = torch.arange(60) % 3
    x[:, 0] += 3 * y
    scale = 2.0**e  # exact, so that ties stay ties
    for d in (3, 1):
        assert abs(float(mutual_information(x[:, :d] * scale, y)) - float(mutual_information(x[:, :d], y))) < 1e-9
        assert abs(float(ksg_mi(x[:, :d] * scale, x[:, :1] * scale)) - float(ksg_mi(x[:, :d], x[:, :1]))) < 1e-9
    tried("Estimator: scales from 5e-324 to 1e307", 4, "the same number as at scale 1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(tried):
    n = Counter()

    @settings(max_examples=100 if SLOW else 20, deadline=None)
    @given(lattices([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32]), st.integers(1, 5))
    def check(data, k):
        x, v, y = data
        k = min(k, len(y) - 1)
        if max(Counter(y.tolist()).values()) < 2:
            return
        got = mutual_information(x.cuda(), y, k)
        assert got.is_cuda and abs(float(got) - oracle(v, y.tolist(), k, 2)) < 1e-9
        n["ok"] += 1

    check()
    tried("Estimator: tensors on a GPU", n["ok"], "equal to the oracle within 1e-9 bits")


# --- memory ------------------------------------------------------------------------------------------------------

MEMORY = """if True:
    import torch
    from tests.memory import peak
    from milr.mi import mutual_information as mi
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn({n}, {d}, generator=g), torch.arange({n}) % 10
    x[:, :1] += y[:, None]
    call = lambda m: mi(x[:m], {y}, {kw})
    call(300)
    print(peak(lambda: call({n})))
"""
CASES = [
    ("60,000 × 1, labels", 1, "y[:m]", ""),
    ("60,000 × 10, labels", 10, "y[:m]", ""),
    ("60,000 × 10, labels, max-norm", 10, "y[:m]", "metric='chebyshev'"),
    ("60,000 × 784, labels", 784, "y[:m]", ""),
    ("60,000 × 784, labels, max-norm", 784, "y[:m]", "metric='chebyshev'"),
    ("60,000 × 10, projection", 10, "y[:m]", "projection='lda'"),
    ("60,000 × 2, paths of torch", 2, "y[:m]", "method='torch'"),
    ("60,000 × 1, KSG", 1, "x[:m, :1].neg()", ""),
]


@pytest.mark.parametrize("name, d, y, kw", CASES if SLOW else CASES[:2])
@linux
def test_memory_at_60000(name, d, y, kw, tried):
    out = subprocess.run(
        [sys.executable, "-c", MEMORY.format(n=60_000, d=d, y=y, kw=kw)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert out.returncode == 0, out.stderr[-2000:]
    mib = float(out.stdout)
    own = 60_000 * d * 4 / 2**20
    assert mib < 1024, f"{mib:.0f} MiB"
    tried(f"Estimator: peak memory, {name}", 1, f"{mib:.0f} MiB beyond the input of {own:.0f} MiB")
