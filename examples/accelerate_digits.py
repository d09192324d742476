"""Train with Accelerate on any number of processes: accelerate launch examples/accelerate_digits.py

Everything is prepared but the scheduler. --prepare-the-scheduler shows why.
"""
import sys, tempfile
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from milr import LayerProbe, MutualInformationLR, ValueChangePolicy

x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32)/16, torch.tensor(y)


def start():
    return Accelerator(cpu=not torch.cuda.is_available())


def build(accelerator, prepare_the_scheduler=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(TensorDataset(x, y), batch_size=20)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    scheduler = MutualInformationLR(optimizer, ValueChangePolicy(lr_min=0.01, lr_max=0.5), probe=LayerProbe(model, x, y))
    accelerator.register_for_checkpointing(scheduler)
    return model, optimizer, loader, scheduler, accelerator.prepare(scheduler) if prepare_the_scheduler else scheduler


def train(accelerator, model, optimizer, loader, scheduler, stepped, epochs):
    for _ in range(epochs):
        for xb, yb in loader:
            loss = nn.functional.cross_entropy(model(xb), yb)
            optimizer.zero_grad(); accelerator.backward(loss); optimizer.step()
        stepped.step()  # on every process
    return scheduler.history


wrong, accelerator = "--prepare-the-scheduler" in sys.argv, start()
whole = train(accelerator, *build(accelerator, wrong), epochs=8)
for r in whole: accelerator.print(f"I(H;Y) {r['mi']['output']:.3f} bits, LR {r['lr'][0]:.4f}")
accelerator.print(len(whole), "measurements in 8 epochs on", accelerator.num_processes, "processes")

if not wrong:
    everyone = gather_object([[r["next_lr"] for r in whole]])
    accelerator.print("the same learning rates on every process:", all(e == everyone[0] for e in everyone))

    folder = broadcast_object_list([tempfile.mkdtemp()])[0]
    first = start()
    train(first, *build(first), epochs=3)
    first.save_state(folder)

    second = start(); parts = build(second)
    second.load_state(folder)
    accelerator.print("the same learning rates as without the stop:", train(second, *parts, epochs=5) == whole)
    first.free_memory(); second.free_memory(); del parts

accelerator.free_memory()  # a model that outlives the process group can abort the process at its exit
accelerator.end_training()
