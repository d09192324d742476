"What the notebooks of nbs/integrations cannot check: TensorBoard's files, Lightning's other name, and libraries that are not installed."
import subprocess, sys
import pytest, torch

def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)

def test_tensorboard_has_the_history(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter
    from milr import ChangePolicy, MutualInformationLR
    groups = [dict(name=n, params=[torch.nn.Parameter(torch.zeros(1))]) for n in ("conv", "output")]
    with SummaryWriter(tmp_path) as writer:
        s = MutualInformationLR(torch.optim.SGD(groups, lr=.1), ChangePolicy(), writer=writer)
        for mi in (1., 2., 2.5): s.step({"conv": mi/2, "output": mi})
    found = EventAccumulator(str(tmp_path)).Reload()
    assert set(found.Tags()["scalars"]) == {"mi/conv", "mi/output", "lr/conv", "lr/output"}
    assert [(e.step, e.value) for e in found.Scalars("mi/output")] == [(0, 1.), (1, 2.), (2, 2.5)]
    assert [e.value for e in found.Scalars("lr/conv")] == pytest.approx(list(s.table()["lr/conv"]))

def test_a_library_is_imported_when_asked_for():
    done = python("import sys, milr.integrations; print([m for m in ('lightning', 'pytorch_lightning', 'transformers', 'torch') if m in sys.modules], dir(milr.integrations)[-2:])")
    assert done.stdout.startswith("[]"), done.stdout + done.stderr

@pytest.mark.parametrize("name, blocked", [("MutualInformationLRCallback", ("lightning", "pytorch_lightning")), ("MutualInformationTrainerCallback", ("transformers",))])
def test_a_missing_library_is_named(name, blocked):
    done = python(f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); from milr.integrations import {name}")
    assert "pip install 'milr[" in done.stderr.splitlines()[-1], done.stderr

def test_lightning_under_its_other_name():
    done = python("""
import warnings, logging; warnings.simplefilter("ignore")
from milr.data import _torchvision; _torchvision()      # beside a CPU build of torch
import pytorch_lightning as pl, torch
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
from milr import ChangePolicy
from milr.integrations import MutualInformationLRCallback
class Net(pl.LightningModule):
    def __init__(self): super().__init__(); self.net = torch.nn.Linear(3, 2)
    def training_step(self, batch, i): return self.net(batch[0]).sum()
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=.5)
given = iter((1., 2., 2.5))
mi = MutualInformationLRCallback(ChangePolicy(), lambda: next(given))
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 3)), batch_size=4)
pl.Trainer(max_epochs=3, callbacks=[mi], logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu").fit(Net(), data)
print(isinstance(mi, pl.Callback), [r["branch"][0] for r in mi.history])
""")
    assert done.stdout.strip().endswith("True ['start', 'increase', 'increase']"), done.stdout + done.stderr[-3000:]
