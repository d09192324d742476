"""A GPU that is not there: tensors that hold CPU numbers and call themselves `cuda`.

They refuse to mix devices, and synchronisations are counted. Underneath they are on torch's `meta` device, whose guards
and autograd need no GPU. What this cannot see: kernels and their rounding, streams, CUDA graphs, memory, the random
numbers of a GPU (dropout's masks are a CPU's here), bfloat16 (`autocast` rounds nothing here), speed.
"""

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda", 0), torch.device("meta")
MILR = Path(__file__).resolve().parent.parent / "milr"
aten = torch.ops.aten
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
WAITS = {  # the processor waits for their answer, or for its shape
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "unique_dim",
    "_unique2",
    "bincount",
    "repeat_interleave",
}
NOT_THERE = dict(
    is_available=lambda: True,
    device_count=lambda: 1,
    get_device_name=lambda device=None: "a GPU that is not there",
    is_bf16_supported=lambda including_emulation=True: True,
    get_rng_state=lambda device=None: torch.zeros(16, dtype=torch.uint8),
    set_rng_state=lambda state, device=None: None,
)


class OnGpu(torch.Tensor):
    "A tensor on the GPU that is not there; `numbers` is its content, on the CPU."

    device, is_cuda, is_meta = CUDA, True, False

    @staticmethod
    def __new__(cls, numbers):
        made = torch.Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=numbers.stride(), dtype=numbers.dtype, device=META
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        raise RuntimeError("used outside of fake_cuda")

    def __repr__(self):
        return f"on a GPU that is not there: {self.numbers!r}"

    def tolist(self):
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol):
        return self.cpu().__reduce_ex__(protocol)  # a file holds the numbers; whoever loads them says where

    def __deepcopy__(self, memo):
        return memo.setdefault(id(self), self.detach().clone().requires_grad_(self.requires_grad))


class Devices(TorchFunctionMode):
    "Whoever names `cuda` gets `meta`, which `Numbers` then answers."

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def named(v):
            gpu = isinstance(v, torch.device) and v.type == "cuda" or isinstance(v, str) and v.split(":")[0] == "cuda"
            return META if gpu else v

        plain = function in (torch.device, torch.Tensor.__repr__)
        if function in (
            torch.tensor,
            torch.as_tensor,
            torch.Tensor.new_tensor,
        ):  # these make their tensor below `Numbers`
            to = (kwargs or {}).pop("device", None) or (args[0].device if function is torch.Tensor.new_tensor else None)
            made = (torch.as_tensor if function is torch.as_tensor else torch.tensor)(
                *args[function is torch.Tensor.new_tensor :], **(kwargs or {})
            )
            return made if to is None else made.to(named(to))
        return (
            function(*args, **(kwargs or {}))
            if plain
            else function(*tree_map(named, args), **tree_map(named, kwargs or {}))
        )


class Numbers(TorchDispatchMode):
    "Every operator, on the numbers within; its answer is on the device where the operator would put it."

    def __init__(self):
        super().__init__()
        self.syncs = Counter()  # {"file:line" of milr, or of the caller: how often}

    def wait(self):
        "Count a synchronisation at the line of milr that caused it."
        frame = sys._getframe(2)
        files = [f for f in _frames(frame) if MILR in Path(f.f_code.co_filename).parents]
        where = (files or [frame])[0]
        self.syncs[f"{Path(where.f_code.co_filename).name}:{where.f_lineno}"] += 1

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        gpu = [t for t in tensors if isinstance(t, OnGpu)]
        copies = operator in (aten._to_copy.default, aten.copy_.default)
        if "device" in kwargs and kwargs["device"] is not None:
            to_gpu = kwargs["device"].type == "meta"
        else:
            to_gpu = isinstance(args[0], OnGpu) if copies else bool(gpu)
        if copies:
            if isinstance(args[-1], OnGpu) and not to_gpu:
                self.wait()
        else:
            self._refuse_mixed(operator, tensors)
            masks = tree_leaves(args[1]) if operator in INDEXING else []
            if gpu and (
                operator._schema.name.split("::")[1] in WAITS
                or any(m.dtype == torch.bool for m in masks if m is not None)
            ):
                self.wait()
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU
        out = operator(*tree_map(_numbers, args), **tree_map(_numbers, kwargs))
        return tree_map(lambda t: _outside(t, gpu, to_gpu), out)

    def _refuse_mixed(self, operator, tensors):
        "A single number may be anywhere, and indices on the CPU."
        indexing = operator in INDEXING
        devices = {t.device for t in tensors if t.dim() and (not indexing or t is tensors[0] or isinstance(t, OnGpu))}
        if len(devices) > 1:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {operator} got {sorted(map(str, devices))}"
            )


def _frames(frame):
    while frame:
        yield frame
        frame = frame.f_back


def _numbers(t):
    return t.numbers if isinstance(t, OnGpu) else t


def _outside(t, gpu, to_gpu):
    "An operator that works in place answers with the tensor that it was given."
    if not isinstance(t, torch.Tensor):
        return t
    same = [g for g in gpu if g.numbers is t]
    return same[0] if same else OnGpu(t) if to_gpu else t


def _moved(model, device):
    "`Module.to`, by new parameters: torch cannot make a tensor one of another class in place."
    for m in model.modules():
        for name, p in m._parameters.items():
            m._parameters[name] = p if p is None else torch.nn.Parameter(p.detach().to(device), p.requires_grad)
        for name, b in m._buffers.items():
            m._buffers[name] = b if b is None else b.to(device)
    return model


@contextmanager
def fake_cuda(monkeypatch):
    "Inside, `cuda` is there; yields the count of synchronisations."
    for name, answer in NOT_THERE.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    to = torch.nn.Module.to
    monkeypatch.setattr(torch.nn.Module, "to", lambda m, *device, **kw: _moved(m, *device) if device else to(m, **kw))
    with Numbers() as numbers, Devices():
        yield numbers.syncs
