"""What the notebooks of nbs/integrations cannot check.

TensorBoard's files, Lightning's other name, and libraries that are not installed.
"""

import subprocess, sys
from importlib.util import find_spec
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
        s = MutualInformationLR(torch.optim.SGD(groups, lr=0.1), ChangePolicy(), writer=writer)
        for mi in (1.0, 2.0, 2.5):
            s.step({"conv": mi / 2, "output": mi})
    found = EventAccumulator(str(tmp_path)).Reload()
    assert set(found.Tags()["scalars"]) == {"mi/conv", "mi/output", "lr/conv", "lr/output"}
    assert [(e.step, e.value) for e in found.Scalars("mi/output")] == [(0, 1.0), (1, 2.0), (2, 2.5)]
    assert [e.value for e in found.Scalars("lr/conv")] == pytest.approx(list(s.table()["lr/conv"]))


def test_a_library_is_imported_when_asked_for():
    done = python("""
import sys, milr.integrations
names = dir(milr.integrations)
print([module for module in ("lightning", "pytorch_lightning", "transformers", "torch") if module in sys.modules])
""")
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize(
    "name, blocked",
    [
        ("MutualInformationLRCallback", ("lightning", "pytorch_lightning")),
        ("MutualInformationTrainerCallback", ("transformers",)),
    ],
)
def test_a_missing_library_is_named(name, blocked):
    done = python(f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); from milr.integrations import {name}")
    assert "pip install 'milr[" in done.stderr.splitlines()[-1], done.stderr


WITHOUT_TORCHVISION = """
import importlib.metadata, importlib.util, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
def without(function, answer):
    def call(name, *more):
        return answer(name) if name.split(".")[0] == "torchvision" else function(name, *more)
    return call
def refuse(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.util.find_spec = without(importlib.util.find_spec, lambda name: None)
importlib.metadata.distribution = without(importlib.metadata.distribution, refuse)
importlib.metadata.version = without(importlib.metadata.version, refuse)
"""


@pytest.mark.parametrize(
    "name, library",
    [("MutualInformationLRCallback", "lightning"), ("MutualInformationTrainerCallback", "transformers")],
)
def test_a_callback_needs_no_torchvision(name, library):
    if not find_spec(library):
        pytest.skip(f"{library} is not installed")
    done = python(f"""{WITHOUT_TORCHVISION}
from milr.integrations import {name}
print({name}.__name__, "milr.lab.data" in sys.modules, "torchvision" in sys.modules)
""")
    assert done.stdout.strip() == f"{name} False False", done.stderr[-2000:]


# Of a Lightning trainer.
QUIET = """quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
quiet["accelerator"] = "cpu"
"""


def test_lightning_under_its_other_name():
    done = python(f"""
import logging, warnings
warnings.simplefilter("ignore")
from milr.vision import get_torchvision
get_torchvision() # beside a CPU build of torch
import pytorch_lightning as pl, torch
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
from milr import ChangePolicy
from milr.integrations import MutualInformationLRCallback
class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 2)
    def training_step(self, batch, i): return self.net(batch[0]).sum()
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=.5)
given = iter((1., 2., 2.5))
mi = MutualInformationLRCallback(ChangePolicy(), lambda: next(given))
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 3)), batch_size=4)
{QUIET}
pl.Trainer(max_epochs=3, callbacks=[mi], **quiet).fit(Net(), data)
print(isinstance(mi, pl.Callback), [r["branch"][0] for r in mi.history])
""")
    assert done.stdout.strip().endswith("True ['start', 'increase', 'increase']"), done.stdout + done.stderr[-3000:]


def test_lightning_keeps_the_rate_of_the_optimizer():
    if not find_spec("lightning"):
        pytest.skip("lightning is not installed")
    done = python(f"""
import warnings
warnings.simplefilter("ignore")
import torch
from milr import ChangePolicy
from milr.integrations import MutualInformationLRCallback
import lightning as L
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 2)
    def training_step(self, batch, i): return self.net(batch[0]).sum()
    def configure_optimizers(self): return torch.optim.AdamW(self.parameters(), lr=3e-4)
given = iter((1., 2., 1., 2.))
mi = MutualInformationLRCallback(ChangePolicy(), lambda: next(given))
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 3)), batch_size=4)
{QUIET}
L.Trainer(max_epochs=4, callbacks=[mi], **quiet).fit(Net(), data)
print([round(r["lr"][0], 6) for r in mi.history])
""")
    assert done.stdout.strip().endswith("[0.0003, 0.0003, 0.00075, 0.0009]"), done.stdout + done.stderr[-3000:]


def test_transformers_keeps_the_rate_of_the_arguments(tmp_path):
    if not find_spec("transformers") or not find_spec("accelerate"):
        pytest.skip("transformers or accelerate is not installed")
    done = python(f"""
import warnings
warnings.simplefilter("ignore")
import torch
from milr import ChangePolicy
from milr.integrations import MutualInformationTrainerCallback
from transformers import Trainer, TrainingArguments
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 1)
    def forward(self, x, labels=None):
        y = self.net(x)
        return dict(loss=(y[:, 0] - labels).square().mean(), logits=y)
given = iter((1., 2., 1., 2.))
mi = MutualInformationTrainerCallback(ChangePolicy(), lambda: next(given))
rows = [dict(x=torch.ones(3), labels=torch.tensor(1.))]*8
quiet = dict(report_to=[], disable_tqdm=True, save_strategy="no", logging_strategy="no")
args = TrainingArguments({str(tmp_path)!r}, num_train_epochs=4, learning_rate=3e-4, per_device_train_batch_size=4,
    lr_scheduler_type="constant", use_cpu=True, **quiet)
Trainer(Net(), args, train_dataset=rows, callbacks=[mi]).train()
print([sorted(set(round(lr, 6) for lr in r["lr"])) for r in mi.history])
""")
    assert done.stdout.strip().endswith("[[0.0003], [0.0003], [0.00075], [0.0009]]"), done.stdout + done.stderr[-3000:]
