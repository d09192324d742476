"layer_groups on networks of many shapes."

import warnings
from collections import OrderedDict

import pytest, torch
from torch import nn

from milr.layerwise import layer_groups, layer_policies, owners
from milr.lab.models import mnist_cnn
from milr.policy import ChangePolicy, ValueChangePolicy
from milr.layers import named_layers
from milr.probe import LayerProbe
from milr.scheduler import MutualInformationLR

torch.set_num_threads(1)


class Block(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.relu, self.down = (
            nn.ReLU(inplace=True),
            None if i == o else nn.Sequential(nn.Conv2d(i, o, 1, stride), nn.BatchNorm2d(o)),
        )

    def forward(self, x):
        return self.relu(
            self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + (x if self.down is None else self.down(x))
        )


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(1, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.layer1, self.layer2 = nn.Sequential(Block(4, 4), Block(4, 4)), nn.Sequential(Block(4, 8, 2))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.pool(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))).flatten(1))


class ViT(nn.Module):
    "Parameters of its own at the top, norms before their layers."

    def __init__(self):
        super().__init__()
        self.cls, self.pos = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 17, 8))
        self.patch = nn.Conv2d(1, 8, 2, 2)
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True) for _ in range(2)]
        )
        self.norm, self.head, self.extra = (
            nn.LayerNorm(8),
            nn.Linear(8, 3),
            nn.ParameterList([nn.Parameter(torch.zeros(2))]),
        )

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        for b in self.blocks:
            x = b(x)
        return self.head(self.norm(x)[:, 0])


X = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
MODELS = dict(
    mnist=lambda: mnist_cnn((1, 8, 8), width=1 / 8),
    resnet=ResNet,
    vit=ViT,
    bare=lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 8), nn.PReLU(), nn.Linear(8, 3)),
    one=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
    frozen=lambda: mnist_cnn((1, 8, 8), width=1 / 8).requires_grad_(False),
)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_exactly_once_and_every_layer_measured(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    groups = layer_groups(model)
    params = [p for g in groups for p in g["params"]]
    assert len(params) == len({id(p) for p in params}) and {id(p) for p in params} == {
        id(p) for p in model.parameters()
    }
    names = [g["name"] for g in groups]
    assert len(set(names)) == len(names) and set(names) == set(named_layers(model))
    got = LayerProbe(model, X, Y, layers="all")()
    assert set(got) == set(names) and len(got) == len(names)
    opt = torch.optim.SGD(layer_groups(model), lr=0.1)
    s = MutualInformationLR(opt, ValueChangePolicy(), probe=LayerProbe(model, X, Y, layers="all"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s.step()
        s.step()
    assert s.history[-1]["mi"].keys() == got.keys()


def test_norms_and_loose_parameters_go_with_their_layer():
    of = {n: l for l, n, _ in owners(ResNet())}
    assert (
        of["bn1.weight"] == "conv1"
        and of["layer1.0.bn2.bias"] == "layer1.0.conv2"
        and of["layer2.0.down.1.weight"] == "layer2.0.down"
    )
    of = {n: l for l, n, _ in owners(ViT())}
    assert of["cls"] == of["pos"] == "patch" and of["blocks.0.self_attn.out_proj.weight"] == "blocks.0.self_attn"
    assert of["norm.weight"] == "blocks.1.linear2" and of["extra.0"] == "head"
    of = {n: l for l, n, _ in owners(MODELS["bare"]())}
    assert of["1.weight"] == of["3.weight"] == "2"


def test_names_do_not_depend_on_wrappers():
    plain = [g["name"] for g in layer_groups(ResNet())]
    model = ResNet()
    model.layer1 = torch.compile(model.layer1, backend="eager")
    assert (
        [g["name"] for g in layer_groups(torch.compile(model, backend="eager"))]
        == plain
        == [g["name"] for g in layer_groups(nn.DataParallel(ResNet()))]
    )


def test_shared_weights_are_told():
    m = nn.Sequential(OrderedDict(embed=nn.Embedding(5, 4), mid=nn.Linear(4, 4), out=nn.Linear(4, 5)))
    m.out.weight = m.embed.weight
    with pytest.warns(UserWarning, match="'embed' and 'out' share 'out.weight'"):
        groups = layer_groups(m)
    assert [len(g["params"]) for g in groups] == [1, 2, 1]
    twice = nn.Linear(4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(layer_groups(nn.Sequential(twice, nn.ReLU(), twice))) == 1  # one module, one layer


def test_extra_options_of_a_group_and_resuming():
    model = ResNet()
    groups = layer_groups(model)
    groups[0]["weight_decay"] = 0.1
    opt = torch.optim.AdamW(groups, lr=0.1)
    s = MutualInformationLR(
        opt, layer_policies(ChangePolicy(lr_min=1e-3, lr_max=0.1, gamma1=0.1), {"conv1": dict(lr_max=0.005)})
    )
    for mi in ({n: 1.0 for n in named_layers(model)}, {n: 2.0 for n in named_layers(model)}):
        s.step(mi)
    assert (
        s.get_last_lr()[0] == 0.005
        and s.get_last_lr()[1:] == [pytest.approx(0.051)] * (len(groups) - 1)
        and opt.param_groups[0]["weight_decay"] == 0.1
    )
    again = torch.optim.AdamW(layer_groups(model), lr=0.1)
    again.load_state_dict(opt.state_dict())
    assert [g["name"] for g in again.param_groups] == [g["name"] for g in opt.param_groups]


def test_layers_learn_at_their_own_rates():
    "With plain SGD a step is LR times gradient, layer by layer."
    model = mnist_cnn((1, 8, 8), width=1 / 8, dropout=0)
    opt = torch.optim.SGD(layer_groups(model), lr=0.1)
    MutualInformationLR(opt, {"conv1": ChangePolicy(lr_min=0.02), "default": ChangePolicy(lr_min=0.01)})
    before = [p.detach().clone() for p in model.parameters()]
    nn.functional.cross_entropy(model(X), Y).backward()
    opt.step()
    for (layer, _, p), b in zip(owners(model), before):
        torch.testing.assert_close(p.detach(), b - (0.02 if layer == "conv1" else 0.01) * p.grad)
