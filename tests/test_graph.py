"Steps as CUDA graphs against plain steps; without CUDA only the fallback can be tested, and is."

from dataclasses import replace
import pytest, torch
from milr.lab.runs import run
from milr.lab.settings import Settings
from milr.lab.training import BatchLoss, captured_loss

SMALL = Settings(
    dataset="digits", n_train=310, n_test=100, width=0.5, epochs=4, batch_size=20, probe_size=200
)  # a last batch of 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU; none is here, so they are untested")
def test_graphs_agree_with_plain_steps(tmp_path):
    "The same random numbers, dropout's too, so the same losses to rounding."
    plain, fast = [run(replace(SMALL, device="cuda", method="fixed", graph=g), tmp_path) for g in (False, True)]
    assert fast.series("loss") == pytest.approx(plain.series("loss"), rel=1e-3)


def test_fallback_is_exact(tmp_path):
    plain, same = [run(replace(SMALL, graph=g), tmp_path) for g in (False, True)]
    assert [r | {"seconds": 0} for r in same.rows] == [r | {"seconds": 0} for r in plain.rows]
    net = torch.nn.Linear(3, 2)
    assert isinstance(captured_loss(net, torch.rand(5, 3), torch.zeros(5).long(), 2), BatchLoss) and net.training


def test_bfloat16_trains(tmp_path):
    low = run(replace(SMALL, dtype="bfloat16", method="fixed", lr=0.05), tmp_path)
    assert low.series("loss")[-1] < low.series("loss")[0]
    with pytest.raises(ValueError, match="'float32', 'bfloat16'"):
        replace(SMALL, dtype="float16")
