"Run by test_distributed.py on every process; writes what it saw to the file named by the first argument plus its rank."

import json, math, os, sys, time

import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from milr.layerwise import layer_groups
from milr.policy import ChangePolicy, ValueChangePolicy
from milr.probe import LayerProbe
from milr.scheduler import MutualInformationLR

dist.init_process_group("gloo")
rank = dist.get_rank()
X = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
found = {}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 3))


def sgd():
    return torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.5)


PAPER = dict(lr_min=1e-3, lr_max=1e-1)


def bits(s):
    return [[lr.hex() for lr in r["next_lr"]] for r in s.history] + [[float(lr).hex() for lr in s.get_last_lr()]]


def error(f):
    try:
        f()
    except Exception as e:
        return f"{type(e).__name__}: {e}"


# replicas: ranks see different noise, in the data and in what they measure, and one of them lags
model = DistributedDataParallel(net())
opt = torch.optim.SGD(layer_groups(model), lr=0.1)
noisy = X + torch.randn(X.shape, generator=torch.Generator().manual_seed(rank))
probe = LayerProbe(model, noisy, Y, layers="all")
own = probe()
s = MutualInformationLR(opt, ValueChangePolicy(**PAPER), probe=probe)
calls = probe.calls
for i in range(5):
    cross_entropy(model(noisy[rank::2]), Y[rank::2]).backward()
    opt.step()
    opt.zero_grad()
    if rank == 1:
        time.sleep(0.3)
    s.step()
found["replicas"] = dict(
    bits=bits(s),
    history=s.state_dict()["history"],
    own=own,
    measured=probe.calls - calls,
    reference=s.reference,
    weights=[p.sum().item().hex() for p in model.parameters()],
)

# a measurement given by hand, another one on each rank
s = MutualInformationLR(sgd(), ChangePolicy(**PAPER))
for mi in (1.0, 2.0, 2.5 + rank / 3, math.nan if rank else 2.6):
    s.step(mi)
found["given"] = dict(bits=bits(s), mi=[r["mi"]["output"] for r in s.history])

# learning rates that differ
s = MutualInformationLR(sgd(), ChangePolicy(**PAPER))
s.step(1.0)
if rank == 1:
    s.optimizer.param_groups[0]["lr"] = 0.07
found["mismatch"] = error(lambda: s.step(2.0))


# measuring fails on the first rank
def probe():
    raise RuntimeError("no memory left")


s = MutualInformationLR(sgd(), ChangePolicy(**PAPER), probe=probe)
found["failure"] = error(s.step)
s.step(1.0)
s.step(2.0)
found["after failure"] = bits(s)


# sharded weights: every rank runs the forward
def sharded(kind):
    m = net()
    wrap = (
        (lambda x: fully_shard(x, mesh=init_device_mesh("cpu", (2,))))
        if kind == "fully_shard"
        else (lambda x: FullyShardedDataParallel(x, device_id=torch.device("cpu"), use_orig_params=True))
    )
    m[0] = wrap(m[0]) or m[0]
    return wrap(m) or m


def train(kind, measure):
    m = sharded(kind)
    opt = torch.optim.SGD(m.parameters(), lr=0.1)
    probe = LayerProbe(m, X, Y, layers="all")
    s = MutualInformationLR(opt, ChangePolicy(lr_min=0.1, lr_max=0.1), probe=probe)
    for i in range(4):
        cross_entropy(m(X[rank::2]), Y[rank::2]).backward()
        opt.step()
        opt.zero_grad()
        if measure:
            s.step()
    return (
        bits(s),
        probe.collective,
        [(p.full_tensor() if hasattr(p, "full_tensor") else p).sum().item().hex() for p in m.parameters()],
    )


plain = LayerProbe(net(), X, Y, layers="all")()
NO_FULLY_SHARD = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7)  # torch 2.6 has no events of a CPU stream
for kind in ("fully_shard", "FullyShardedDataParallel")[NO_FULLY_SHARD:]:
    b, collective, weights = train(kind, True)
    found[kind] = dict(
        bits=b,
        collective=collective,
        same=LayerProbe(sharded(kind), X, Y, layers="all")() == plain,
        trace=weights != train(kind, False)[2],
    )

with open(f"{sys.argv[1]}{rank}", "w") as f:
    json.dump(found, f)
dist.destroy_process_group()
# fully_shard keeps the group's threads alive, and one that wants the GIL of an ending interpreter aborts the process
# (pytorch/pytorch#179291).
os._exit(0)
