"A program that uses milr's public interface; mypy checks it strictly, nobody runs it."

import torch
from milr import (
    ChangePolicy,
    LayerProbe,
    MutualInformationLR,
    SequentialPolicy,
    ValueChangePolicy,
    ValuePolicy,
    label_entropy,
    layer_groups,
    mi_by_sample_size,
    mutual_information,
    reference_mi,
)
from milr.integrations import MutualInformationLRCallback, MutualInformationTrainerCallback
from milr.live import live


def use(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[float]:
    probe = LayerProbe(model, x, y, layers="all")
    measured: dict[str, float] = probe()
    policy = SequentialPolicy((ValueChangePolicy(lr_min=1e-3, lr_max=0.1), ValuePolicy()), (3,))
    scheduler = MutualInformationLR(
        torch.optim.SGD(layer_groups(model), lr=0.01), policy, probe=probe, reference=probe.reference()
    )
    scheduler.step()
    scheduler.step(measured)
    state: dict[str, object] = scheduler.state_dict()
    scheduler.load_state_dict(state)
    rate: float = ChangePolicy()(0.01, [1.0, 2.0])
    bits: torch.Tensor = mutual_information(x, y, k=3, metric="chebyshev")
    ixy: torch.Tensor = reference_mi(x, y, tiles=4)
    MutualInformationLRCallback(ChangePolicy(), probe, every=2)
    MutualInformationTrainerCallback(ChangePolicy(), probe, every_steps=100)
    for row in live([{"epoch": 0, "lr": rate}]):
        print(row["lr"])
    print(mi_by_sample_size(x, y, [100, 200]))
    return [rate, bits.item(), ixy.item(), float(label_entropy(y))]
