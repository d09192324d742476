"Properties of the reference that need many inputs: tiling, entropy, sample-size curves."

import hashlib, math, subprocess, sys
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from milr.mi import mutual_information, paper_mi
from milr.reference import SampleSizeCurve, label_entropy, mi_by_sample_size, recurring, reference_mi, tiled_limit

few = settings(max_examples=40, deadline=None)


@st.composite
def tied_samples(draw):
    "A few samples on a coarse grid, so that many coincide, with two or three labels."
    n = draw(st.integers(4, 25))
    d = draw(st.integers(1, 3))
    row = st.lists(st.integers(-1, 1), min_size=d, max_size=d)
    x = draw(st.lists(row, min_size=n, max_size=n))
    y = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    return torch.tensor(x, dtype=torch.float64), torch.tensor(y)


@few
@given(tied_samples(), st.integers(1, 3), st.integers(1, 4), st.sampled_from(["euclidean", "chebyshev"]))
def test_closed_form_is_what_the_tiles_give(sample, k, more, metric):
    x, y = sample
    n = k + more
    tiled = mutual_information(x[recurring(y)].repeat(n, 1), y[recurring(y)].repeat(n), k, metric=metric)
    torch.testing.assert_close(reference_mi(x, y, tiles=n, k=k, metric=metric), tiled, rtol=0, atol=1e-9)


@few
@given(tied_samples(), st.integers(2, 3))
def test_tiles_up_to_k_are_built(sample, n):
    x, y = sample
    x, y, given = x[recurring(y)], y[recurring(y)], sample
    torch.testing.assert_close(
        reference_mi(*given, tiles=n, k=n), mutual_information(x.repeat(n, 1), y.repeat(n), n), rtol=0, atol=1e-12
    )


@few
@given(tied_samples(), st.integers(1, 50))
def test_closed_form_lies_between_zero_and_the_entropy_give_or_take_its_terms(sample, tiles):
    x, y = sample
    x, y = x[recurring(y)], y[recurring(y)]
    n, classes = len(y), len(y.unique())
    outcomes = len(torch.cat([x, y[:, None]], 1).unique(dim=0))  # bounds from ln z - 1/z < psi(z) < ln z - 1/(2z)
    low, top = (
        -(outcomes + 1) / (tiles * n),
        label_entropy(y, math.e) + (classes - 1) / (2 * tiles * n) + classes / (6 * tiles**2 * n),
    )
    assert low <= tiled_limit(x, y, tiles, math.e) <= top


@few
@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=60), st.randoms())
def test_entropy_sees_only_which_labels_are_equal(labels, random):
    y = np.array(labels)
    shuffled = list(labels)
    random.shuffle(shuffled)
    h = label_entropy(y)
    assert 0 <= h <= math.log2(len(set(labels))) + 1e-12
    torch.testing.assert_close(label_entropy(np.array(shuffled)), h)
    torch.testing.assert_close(label_entropy(torch.tensor(-y)), h)
    torch.testing.assert_close(label_entropy(y, math.e), h * math.log(2))


def test_the_limit_tends_to_the_entropy():
    x, y = torch.randn(200, 3), torch.arange(200) % 7
    gaps = [float(tiled_limit(x, y, n) - label_entropy(y)) for n in (4, 40, 4000)]
    assert gaps[0] > gaps[1] > gaps[2] > 0 and gaps[2] < 1e-5


def test_the_reference_leaves_out_the_labels_that_the_estimate_leaves_out():
    "600 samples in 100 classes of six, 400 alone in theirs: a layer that knows every class must reach the reference."
    y = torch.cat([torch.arange(600) % 100, 1000 + torch.arange(400)])
    x = y[:, None] * 1000.0 + torch.rand(1000, 1, generator=torch.Generator().manual_seed(0))
    perfect = float(mutual_information(x, y))
    kept = label_entropy(y[recurring(y)])
    assert label_entropy(y) > 8.4 and kept == pytest.approx(math.log2(100))
    for tiles in (None, 1, 2, 4):
        reference = float(reference_mi(x, y, tiles=tiles))
        assert abs(reference - kept) < 0.15 and abs(reference - perfect) < 0.15
    with pytest.raises(ValueError, match="occurs once"):
        reference_mi(x[600:], y[600:])


def test_the_papers_recipe_reaches_the_same_limit():
    g = torch.Generator().manual_seed(1)
    x, y = torch.rand(200, 100, generator=g, dtype=torch.float64), torch.arange(200) % 10
    assert abs(paper_mi(x.repeat(4, 1), y.repeat(4)) - reference_mi(x, y)) < 0.03


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool]
)
@pytest.mark.parametrize("tiles", [1, 2, None])
def test_any_dtype_and_trailing_shape(dtype, tiles):
    x = (torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    y = torch.arange(40) % 4
    value = reference_mi(x, y, tiles=tiles)
    assert value.dtype == torch.float64 and value.ndim == 0 and torch.isfinite(value)
    if dtype is not torch.bfloat16:
        torch.testing.assert_close(reference_mi(x.numpy(), y.numpy(), tiles=tiles), value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_device_of_the_samples():
    x, y = torch.randn(200, 5), torch.arange(200) % 4
    for tiles in 1, 2, None:
        on_gpu = reference_mi(x.cuda(), y, tiles=tiles)
        assert on_gpu.is_cuda and abs(on_gpu.cpu() - reference_mi(x, y, tiles=tiles)) < 1e-6
    assert mi_by_sample_size(x.cuda(), y.cuda(), [50], 2).values.shape == (1, 2)


X, Y = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 5


@pytest.mark.parametrize(
    "call, error, says",
    [
        (lambda: reference_mi(X, Y, tiles=0), ValueError, "at least 1"),
        (lambda: reference_mi(X, Y, tiles=True), TypeError, "whole number"),
        (lambda: reference_mi(X, Y, tiles=1.5), TypeError, "whole number"),
        (lambda: reference_mi(X, Y, k=0), ValueError, "at least 1"),
        (lambda: reference_mi(X, Y, k=2.0), TypeError, "whole number"),
        (lambda: reference_mi(X, Y, k=50), ValueError, "only 50 samples"),
        (lambda: reference_mi(X, Y, metric="cosine"), ValueError, "euclidean"),
        (lambda: reference_mi(X, Y, base=1), ValueError, "other than 1"),
        (lambda: reference_mi(X, Y, base=-2), ValueError, "positive"),
        (lambda: reference_mi(X, Y.float()), TypeError, "tiles=1"),
        (lambda: reference_mi(X, Y[:9]), ValueError, "9 labels"),
        (lambda: reference_mi(X, Y[:, None]), ValueError, "one integer a sample"),
        (lambda: reference_mi(X / 0, Y), ValueError, "NaN or infinite"),
        (lambda: reference_mi(X[:, :0], Y), ValueError, "no features"),
        (lambda: reference_mi(X.to("meta"), Y), TypeError, "meta"),
        (lambda: reference_mi(X * 1j, Y), TypeError, "complex"),
        (lambda: reference_mi(X[:0], Y[:0]), ValueError, "n > 0|empty|samples"),
        (lambda: label_entropy(Y[:0]), ValueError, "n > 0"),
        (lambda: label_entropy(Y, base=0), ValueError, "positive"),
        (lambda: label_entropy("cat"), TypeError, "str"),
        (lambda: label_entropy(np.array(["a", "b"])), TypeError, "integers"),
        (lambda: mi_by_sample_size(X, Y, []), ValueError, "at least one"),
        (lambda: mi_by_sample_size(X, Y, [51]), ValueError, "50 samples"),
        (lambda: mi_by_sample_size(X, Y, [20], repeats=0), ValueError, "at least 1"),
        (lambda: mi_by_sample_size(X, Y[:20], [20]), ValueError, "as many"),
    ],
)
def test_bad_input_says_what_to_do(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_a_curve_can_be_computed_in_pieces():
    whole = mi_by_sample_size(X, Y, [20, 30, 50], repeats=3, progress=False)
    assert isinstance(whole, SampleSizeCurve) and whole.values.shape == (3, 3)
    for i, size in enumerate((20, 30, 50)):
        torch.testing.assert_close(
            mi_by_sample_size(X, Y, [size], repeats=3, progress=False).values[0], whole.values[i]
        )
    torch.testing.assert_close(whole.values[2], whole.values[2, :1].expand(3))  # all samples: the same subset each time
    assert not torch.equal(mi_by_sample_size(X, Y, [20], repeats=3, seed=1).values[0], whole.values[0])


def test_a_curve_takes_estimators_with_their_options_and_continuous_y():
    z = X @ torch.randn(4, 1, generator=torch.Generator().manual_seed(2))
    assert mi_by_sample_size(X, z, [30, 50], 2, k=2, metric="chebyshev", algorithm=2).mean[1] > 0
    assert mi_by_sample_size(X, Y, [40], 2, estimator=paper_mi).values.shape == (1, 2)
    assert mi_by_sample_size(X.numpy(), Y.numpy(), [40], 1).std == 0


def test_imports_alone():
    subprocess.run([sys.executable, "-c", "import milr.reference"], check=True)


def test_a_line_cut_short_is_computed_again(tmp_path):
    first = mi_by_sample_size(X, Y, [20, 30], 2, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-9])
    for _ in range(2):
        with pytest.warns(UserWarning, match="damaged"):
            again = mi_by_sample_size(X, Y, [20, 30], 2, cache=tmp_path)
        torch.testing.assert_close(again.values, first.values, rtol=0, atol=0)
    assert (
        sum(
            hashlib.sha256(text).hexdigest()[:16].encode() == check
            for text, check in (line.rsplit(b" ", 1) for line in file.read_bytes().split(b"\n") if b" " in line)
        )
        == 4
    )


def test_a_curve_of_a_partial_is_kept_by_its_arguments(tmp_path):
    "Another argument is another file."
    from functools import partial

    x, y = torch.randn(60, 2), torch.arange(60) % 3
    for k in 3, 5, 3:
        mi_by_sample_size(x, y, [30], 2, estimator=partial(mutual_information, k=k), cache=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_closed_form_takes_no_options_of_the_estimate():
    x, y = torch.randn(60, 2), torch.arange(60) % 3
    for option in dict(return_error=True), dict(metrics="chebyshev"):
        with pytest.raises(TypeError, match="closed form without"):
            reference_mi(x, y, **option)
