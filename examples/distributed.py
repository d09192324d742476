"""Train on two processes: torchrun --nproc-per-node 2 examples/distributed.py

Each process trains on its share of the data; the first one measures, and all get the same learning rate.
"""
import gc

import torch, torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from milr.policy import ValueChangePolicy
from milr.probe import LayerProbe
from milr.scheduler import MutualInformationLR


def main(epochs=12):
    gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if gpu else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if gpu else torch.device("cpu")
    if gpu: torch.cuda.set_device(device)
    torch.manual_seed(rank)  # the order of the data may differ, the learning rate may not

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32)/16, torch.tensor(y)
    data = TensorDataset(x, y)
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=20, sampler=sampler)

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    probe = LayerProbe(model, x, y)                                                             # 1
    scheduler = MutualInformationLR(optimizer, ValueChangePolicy(lr_min=0.01, lr_max=0.5), probe)  # 2

    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for xb, yb in loader:
            loss = nn.functional.cross_entropy(model(xb.to(device)), yb.to(device))
            optimizer.zero_grad(); loss.backward(); optimizer.step()
        scheduler.step()                                                                        # 3: on every process
        if rank == 0: print(f"epoch {epoch}  I(H;Y) {scheduler.history[-1]['mi']['output']:.3f} bits  LR {scheduler.get_last_lr()[0]:.4f}")

    rates = [None]*dist.get_world_size()
    dist.all_gather_object(rates, scheduler.get_last_lr())
    if rank == 0: print("the same learning rate on every process:", all(r == rates[0] for r in rates))
    del loss, scheduler, probe, optimizer, model; gc.collect()    # what outlives the process group keeps its threads, which can abort the process at its exit
    dist.destroy_process_group()


if __name__ == "__main__": main()
