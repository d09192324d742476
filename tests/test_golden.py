"Estimates of every path on fixed samples, as they were: a change of form must not change a number."

import json, math
from pathlib import Path
import pytest, torch
from milr.mi import ksg_mi, mutual_information, paper_mi, ross_mi
from milr.reference import label_entropy, reference_mi, tiled_limit

GOLDEN = Path(__file__).with_name("golden.json")
WANTED = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}


def samples(features, kind="normal"):
    "160 samples of four classes, two of them rare."
    gen = torch.Generator().manual_seed(features)
    y = torch.arange(160) % 3
    y[:2] = 7
    x = 0.7 * torch.randn(8, features, generator=gen)[y] + torch.randn(160, features, generator=gen)
    return {"normal": x, "relu": torch.relu(x), "rounded": x.round()}[kind], y


def estimates():
    "{what was estimated: a function that estimates it}; nats, so that no logarithm of the base adds its rounding."
    found = {}
    for features in (1, 3, 40, 130):
        for kind in ("normal", "relu", "rounded"):
            for metric in ("euclidean", "chebyshev"):
                paths = ["torch", "tree", "direct", "matmul" if metric == "euclidean" else "tiled"] + ["sort"] * (
                    features == 1
                )
                for path in paths:

                    def ross(features=features, kind=kind, metric=metric, path=path):
                        return ross_mi(*samples(features, kind), metric=metric, method=path, base=math.e)

                    found[f"ross, {features} features, {kind}, {metric}, {path}"] = ross
    for kind in ("normal", "rounded"):
        for metric in ("euclidean", "chebyshev"):
            for algorithm in (1, 2):

                def ksg(kind=kind, metric=metric, algorithm=algorithm):
                    x, _ = samples(5, kind)
                    return ksg_mi(x[:, :3], x[:, 2:], metric=metric, algorithm=algorithm, base=math.e, rescale=False)

                found[f"ksg, {kind}, {metric}, algorithm {algorithm}"] = ksg
    found["paper"] = lambda: paper_mi(*samples(5), base=math.e)
    found["lda"] = lambda: mutual_information(*samples(40), projection="lda", base=math.e)
    found["error"] = lambda: mutual_information(*samples(3), return_error=True, base=math.e)[1]
    found["entropy"] = lambda: label_entropy(samples(1)[1])
    found["tiled limit"] = lambda: tiled_limit(*samples(3, "rounded"))
    for tiles in (1, 2, 4):
        found[f"reference, {tiles} tiles"] = lambda tiles=tiles: reference_mi(*samples(3), tiles=tiles)
    return found


@pytest.mark.parametrize("what", estimates())
def test_the_same_number(what):
    "1e-12: torch's sums differ by that between processors; on one processor they are the same to the bit."
    assert float(estimates()[what]()) == pytest.approx(WANTED[what], rel=1e-12, abs=1e-12)


def test_nothing_else_is_kept():
    assert set(WANTED) == set(estimates())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({what: float(estimate()) for what, estimate in estimates().items()}, indent=1) + "\n")
