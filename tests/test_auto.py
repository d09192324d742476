"The range test with what people have: Adam, dicts, a step of their own, mixed precision; and curves that say nothing."

import math
import pytest, torch
from torch import nn
from torch.nn import functional as F
from milr.auto import AutoPolicy, range_test


def data(batches=12, size=64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batches * size, 4, generator=generator)
    return list(zip(x.split(size), x[:, :3].argmax(1).split(size)))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, values, labels=None):
        out = self.net(values)
        return dict(logits=out, loss=None if labels is None else F.cross_entropy(out, labels))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.NAdam])
def test_adam_and_its_kin_start_well_below_the_lowest_loss(kind):
    model = net()
    optimizer = kind(model.parameters(), lr=0.5)
    test = range_test(model, optimizer, F.cross_entropy, data())
    assert test.lrs[0] == pytest.approx(1e-6) and max(test.lrs) <= 1 and not test.problem
    assert test.lr <= test.lr_max / 10 and optimizer.param_groups[0]["lr"] == test.lr


def test_every_form_of_a_batch_gives_the_same():
    pairs = data()
    dicts = [dict(values=x, labels=y) for x, y in pairs]

    def lr(model, *a, **kw):
        return range_test(model, torch.optim.SGD(model.parameters(), lr=0.1), *a, **kw).lr

    plain = lr(net(), F.cross_entropy, pairs)
    assert lr(Named(), F.cross_entropy, dicts) == lr(Named(), None, dicts) == plain
    assert (
        lr(net(), batches=pairs, training_step=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])) == plain
    )


def test_mixed_precision_is_used():
    seen = []

    def step(model, batch):
        out = model(batch[0])
        seen.append(out.dtype)
        return F.cross_entropy(out.float(), batch[1])

    model = net()
    range_test(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        batches=data(),
        training_step=step,
        autocast=torch.bfloat16,
        check=False,
    )
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize(
    "words, kw", [("higher high", dict(low=1e-4, high=0.05)), ("found no LR", dict(low=20.0, high=1e4))]
)
def test_an_end_of_the_sweep_is_refused(words, kw):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    with pytest.raises(ValueError, match=words):
        range_test(model, optimizer, F.cross_entropy, data(), **kw)
    assert optimizer.param_groups[0]["lr"] == 0.3


def test_noise_is_refused():
    model = net()
    generator = torch.Generator().manual_seed(0)
    noise = [(torch.randn(4, 4, generator=generator), torch.randint(3, (4,), generator=generator)) for _ in range(60)]
    with pytest.raises(ValueError, match="found no LR"):
        range_test(model, torch.optim.SGD(model.parameters(), lr=0.3), F.cross_entropy, noise, high=1e-2)


def test_a_step_that_fails_leaves_all_as_it_was():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    with pytest.raises(TypeError, match="training_step="):
        range_test(model, optimizer, None, data())
    assert optimizer.param_groups[0]["lr"] == 0.3 and math.isfinite(AutoPolicy().around(0.3).lr_max)


def test_gradients_are_clipped_by_a_hook_of_the_optimizer():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    optimizer.register_step_pre_hook(lambda *_: norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.1)))
    test = range_test(model, optimizer, F.cross_entropy, data(), check=False)
    assert len(norms) >= len(test.lrs) and float(norms[0]) > 0.1
