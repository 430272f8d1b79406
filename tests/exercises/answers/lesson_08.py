"""Answers to the exercises of lesson 08."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from answers import right, wrong

WINDOWS = "check_mlp_of_convolutions"
GATED = "check_geglu"
MENDED = "check_mended_dropout"
DEAD = "check_dead_units"


def window_of(dense, kernel_size=1, bias=True):
    """A convolution with copies of the weights of a dense layer."""
    padding = kernel_size // 2
    window = nn.Conv1d(
        dense.in_features, dense.out_features, kernel_size, padding=padding, bias=bias
    )
    with torch.no_grad():
        window.weight.zero_()
        window.weight[..., padding] = dense.weight
        if bias:
            window.bias.copy_(dense.bias)
    return window


def windows_of(block):
    return window_of(block.mlp[0]), window_of(block.mlp[3])


@wrong(WINDOWS, "holds dropout")
def with_dropout(block):
    first, second = windows_of(block)
    return nn.Sequential(first, block.mlp[1], block.mlp[2], second, block.mlp[4])


@wrong(WINDOWS, "holds dropout")
def dropout_asleep(block):
    first, second = windows_of(block)
    return nn.Sequential(first, block.mlp[1], block.mlp[2], second).eval()


@wrong(WINDOWS, "The shape should stay")
def padded(block):
    first, second = windows_of(block)
    first.padding = (1,)
    return nn.Sequential(first, nn.GELU(), second)


@wrong(WINDOWS, "LayerNorm is not asked for")
def with_its_layer_norm(block):
    class Normalising(Turning):
        def forward(self, x):
            return super().forward(block.layer_norm(x.mT)).mT

    return Normalising(block)


@wrong(WINDOWS, "weight of the first convolution is not")
def not_copied(block):
    sizes = [(d.in_features, d.out_features) for d in (block.mlp[0], block.mlp[3])]
    return nn.Sequential(nn.Conv1d(*sizes[0], 1), nn.GELU(), nn.Conv1d(*sizes[1], 1))


@wrong(WINDOWS, "bias of the second convolution is not")
def one_bias(block):
    first, second = windows_of(block)
    nn.init.zeros_(second.bias)
    return nn.Sequential(first, nn.GELU(), second)


@wrong(WINDOWS, "holds 0 layers")
def still_dense(block):
    return nn.Sequential(block.mlp[0], nn.GELU(), block.mlp[3])


@wrong(WINDOWS, "the kernel is 3 tokens wide")
def wide(block):
    first, second = window_of(block.mlp[0], 3), window_of(block.mlp[3], 3)
    return nn.Sequential(first, nn.GELU(), second)


@wrong(WINDOWS, "has no bias")
def without_bias(block):
    first, second = (window_of(block.mlp[i], bias=False) for i in (0, 3))
    return nn.Sequential(first, nn.GELU(), second)


class Turning(nn.Module):
    """Convolutions for tokens (B, N, D)."""

    def __init__(self, block):
        super().__init__()
        self.first, self.second = windows_of(block)

    def forward(self, tokens):
        return self.second(F.gelu(self.first(tokens.mT))).mT


@wrong(WINDOWS, "give back a module")
def a_function(block):
    return lambda x: Turning(block)(x.mT).mT


@wrong(WINDOWS, "It gives a class")
def a_class(block):
    class Own(Windows):
        def __init__(self):
            super().__init__(block)

    return Own


@wrong(WINDOWS, "It gives a tuple")
def two_layers(block):
    return windows_of(block)


@wrong(WINDOWS, "`return` missing")
def no_module(block):
    nn.Sequential(*windows_of(block))


@wrong(WINDOWS, "share memory")
def shared(block):
    first, second = windows_of(block)
    first.weight.data = block.mlp[0].weight.data[..., None]
    return nn.Sequential(first, nn.GELU(), second)


@wrong(WINDOWS, "should only read it")
def changing(block):
    found = nn.Sequential(window_of(block.mlp[0]), nn.GELU(), window_of(block.mlp[3]))
    nn.init.zeros_(block.mlp[3].bias)
    return found


@wrong(WINDOWS, "something else do the work")
def for_show(block):
    block = copy.deepcopy(block)

    class ForShow(Turning):
        def forward(self, x):
            hidden = F.gelu(F.linear(x.mT, block.mlp[0].weight, block.mlp[0].bias))
            return F.linear(hidden, block.mlp[3].weight, block.mlp[3].bias).mT

    return ForShow(block)


@wrong(WINDOWS, "belongs to the example")
def for_eight_numbers(block):
    first, second = nn.Conv1d(8, 32, 1), nn.Conv1d(32, 8, 1)
    for window, dense in ((first, block.mlp[0]), (second, block.mlp[3])):
        window.load_state_dict({"weight": dense.weight[..., None], "bias": dense.bias})
    return nn.Sequential(first, nn.GELU(), second)


@wrong(WINDOWS, "requires_grad=False")
def frozen(block):
    first, second = windows_of(block)
    return nn.Sequential(first, nn.GELU(), second).requires_grad_(False)


class ByData(Turning):
    def forward(self, x):
        x = F.gelu(F.conv1d(x, self.first.weight.data, self.first.bias.data))
        return F.conv1d(x, self.second.weight.data, self.second.bias.data)


@wrong(WINDOWS, "no gradient arrives at a weight")
def by_data(block):
    return ByData(block)


class InNumpy(Turning):
    def forward(self, x):
        return self.second(F.gelu(self.first(x))).detach().numpy()


@wrong(WINDOWS, "gives ndarray")
def in_numpy(block):
    return InNumpy(block)


class Silent(Turning):
    def forward(self, x):
        self.second(F.gelu(self.first(x)))


@wrong(WINDOWS, "the module gives back None")
def silent(block):
    return Silent(block)


class ChangingInput(Turning):
    def forward(self, x):
        x *= 2
        return self.second(F.gelu(self.first(x / 2)))


@wrong(WINDOWS, "changes the tensor")
def changing_input(block):
    return ChangingInput(block)


@wrong(WINDOWS, "not written yet")
def blank_windows(block):
    raise NotImplementedError


class Windows(Turning):
    def forward(self, x):
        return self.second(F.gelu(self.first(x)))


@right(WINDOWS)
def as_a_class(block):
    return Windows(block)


class SecondFirst(nn.Module):
    """The order of the attributes is not that of the layers."""

    def __init__(self, block):
        super().__init__()
        self.down, self.up = windows_of(block)[::-1]
        self.activation = block.mlp[1]

    def forward(self, x):
        return self.down(self.activation(self.up(x)))


@right(WINDOWS)
def second_first(block):
    return SecondFirst(block)


@right(WINDOWS)
def by_new_parameters(block):
    found = nn.Sequential(*(nn.Conv1d(1, 1, 1) for _ in range(2)))
    for window, dense in zip(found, (block.mlp[0], block.mlp[3]), strict=True):
        window.in_channels, window.out_channels = dense.in_features, dense.out_features
        window.weight = nn.Parameter(dense.weight.detach().clone()[:, :, None])
        window.bias = nn.Parameter(dense.bias.detach().clone())
    found.insert(1, nn.GELU())
    return found


class Gated(nn.Module):
    """What the answers to the second task share."""

    def __init__(self, embedding_dim, hidden_size):
        super().__init__()
        self.gate = nn.Linear(embedding_dim, hidden_size)
        self.value = nn.Linear(embedding_dim, hidden_size)
        self.out = nn.Linear(hidden_size, embedding_dim)

    def combine(self, gate, value):
        return F.gelu(gate) * value

    def forward(self, tokens):
        return self.out(self.combine(self.gate(tokens), self.value(tokens)))

    @staticmethod
    def nearest_size(embedding_dim, mlp_size):
        return round(mlp_size * (2 * embedding_dim + 1) / (3 * embedding_dim + 2))


@wrong(GATED, "gives ndarray")
class GatedInNumpy(Gated):
    def forward(self, tokens):
        return super().forward(tokens).detach().numpy()


@wrong(GATED, "stores (outputs, inputs)")
class FourTimes(Gated):
    def __init__(self, embedding_dim, hidden_size):
        super().__init__(embedding_dim, 4 * embedding_dim)


@wrong(GATED, "no parameter `gate.bias`")
class NoBias(Gated):
    def __init__(self, embedding_dim, hidden_size):
        super().__init__(embedding_dim, hidden_size)
        self.gate = nn.Linear(embedding_dim, hidden_size, bias=False)


@wrong(GATED, "no gradient arrives")
class GateCutOff(Gated):
    def combine(self, gate, value):
        return (F.gelu(gate) * value).detach()


@wrong(GATED, "belongs to the example")
class ForThreeAxes(Gated):
    def forward(self, tokens):
        B, N, D = tokens.shape
        return super().forward(tokens)


@wrong(GATED, "a bias forgotten")
class NotAllBiases(Gated):
    @staticmethod
    def nearest_size(embedding_dim, mlp_size):
        return round(mlp_size * 2 * embedding_dim / (3 * embedding_dim + 1))


@wrong(GATED, "M is an int")
class FloatSize(Gated):
    @staticmethod
    def nearest_size(embedding_dim, mlp_size):
        return float(Gated.nearest_size(embedding_dim, mlp_size))


@wrong(GATED, "belongs to the example")
class BaseOnly(Gated):
    @staticmethod
    def nearest_size(embedding_dim, mlp_size):
        return 2048


@wrong(GATED, "not written yet")
class BlankSize(Gated):
    @staticmethod
    def nearest_size(embedding_dim, mlp_size):
        raise NotImplementedError


@wrong(GATED, "must be a class")
def a_function_gated(tokens):
    return tokens


@right(GATED)
class BySearch(Gated):
    @staticmethod
    def nearest_size(embedding_dim, mlp_size):
        def count(size, matrices):
            inner = (embedding_dim + 1) * size * (matrices - 1)
            return inner + (size + 1) * embedding_dim

        goal = count(mlp_size, 2)
        return min(range(1, mlp_size + 1), key=lambda m: abs(count(m, 3) - goal))


@right(GATED)
class ByEinsum(Gated):
    def __init__(self, embedding_dim, hidden_size):
        super().__init__(embedding_dim, hidden_size)
        self.activation = nn.GELU()
        for p in self.parameters():
            nn.init.normal_(p, std=0.02)

    def forward(self, tokens):
        gate = torch.einsum("...d,md->...m", tokens, self.gate.weight) + self.gate.bias
        hidden = torch.mul(self.value(tokens), self.activation(gate))
        return self.out(hidden)


class Mended(nn.Module):
    """What the answers to the third task share; this one is right."""

    def __init__(self, embedding_dim, mlp_size, dropout):
        super().__init__()
        self.widen = nn.Linear(embedding_dim, mlp_size)
        self.narrow = nn.Linear(mlp_size, embedding_dim)
        self.p = dropout

    def drop(self, x):
        return F.dropout(x, self.p, self.training)

    def forward(self, tokens):
        return self.drop(self.narrow(self.drop(F.gelu(self.widen(tokens)))))


@wrong(MENDED, "called twice in evaluation")
class StillBuggy(Mended):
    def drop(self, x):
        return F.dropout(x, self.p)


@wrong(MENDED, "called twice in evaluation")
class HalfMended(Mended):
    def forward(self, tokens):
        return F.dropout(self.narrow(self.drop(F.gelu(self.widen(tokens)))), self.p)


@wrong(MENDED, "called twice in evaluation")
class AsksForGradient(Mended):
    def drop(self, x):
        return F.dropout(x, self.p, torch.is_grad_enabled())


@wrong(MENDED, "made in `forward`, it is in training mode")
class NewModuleEachTime(Mended):
    def drop(self, x):
        return nn.Dropout(self.p)(x)


@wrong(MENDED, "read in `forward`")
class ModeOfTheBeginning(Mended):
    def __init__(self, embedding_dim, mlp_size, dropout):
        super().__init__(embedding_dim, mlp_size, dropout)
        self.active = self.training

    def drop(self, x):
        return F.dropout(x, self.p, self.active)


@wrong(MENDED, "called twice in evaluation")
class TheWrongWayRound(Mended):
    def drop(self, x):
        return F.dropout(x, self.p, not self.training)


@wrong(MENDED, "nothing is dropped at all")
class NeverDrops(Mended):
    def drop(self, x):
        return F.dropout(x, self.p, training=False)


@wrong(MENDED, "nothing is dropped at all")
class SwitchedOff(Mended):
    def forward(self, tokens):
        self.eval()
        return super().forward(tokens)


@wrong(MENDED, "nothing is dropped after `widen`")
class OnlyNarrow(Mended):
    def forward(self, tokens):
        return self.drop(self.narrow(F.gelu(self.widen(tokens))))


@wrong(MENDED, "nothing is dropped after `narrow`")
class OnlyWiden(Mended):
    def forward(self, tokens):
        return self.narrow(self.drop(F.gelu(self.widen(tokens))))


@wrong(MENDED, "before GELU")
class DropsBeforeGelu(Mended):
    def forward(self, tokens):
        return self.drop(self.narrow(F.gelu(self.drop(self.widen(tokens)))))


@wrong(MENDED, "every mask can be read")
class DropsTheInput(Mended):
    def forward(self, tokens):
        return super().forward(self.drop(tokens))


@wrong(MENDED, "not divided by 1 - p")
class NotScaled(Mended):
    def drop(self, x):
        return x * (torch.rand_like(x) >= self.p) if self.training else x


@wrong(MENDED, "multiplied by 1 - p")
class ScaledInEvaluation(Mended):
    def drop(self, x):
        if self.training:
            return x * (torch.rand_like(x) >= self.p)
        return x * (1 - self.p)


@wrong(MENDED, "values being *kept*")
class ShareKept(Mended):
    def drop(self, x):
        return F.dropout(x, 1 - self.p, self.training) if self.p else x


@wrong(MENDED, "whatever the argument `dropout` says")
class TenPercent(Mended):
    def drop(self, x):
        return F.dropout(x, 0.1, self.training) if self.p else x


@wrong(MENDED, "does not come from the argument")
class TenPercentAlways(Mended):
    def drop(self, x):
        return F.dropout(x, 0.1, self.training)


@wrong(MENDED, "does not come from the argument")
class DefaultShare(Mended):
    def __init__(self, embedding_dim, mlp_size, dropout):
        super().__init__(embedding_dim, mlp_size, dropout)
        self.after = nn.Dropout()

    def drop(self, x):
        return self.after(x)


@wrong(MENDED, "changes the tensor")
class ChangesTokens(Mended):
    def forward(self, tokens):
        tokens *= 2
        return super().forward(tokens / 2)


@wrong(MENDED, "has a draw of its own")
class WholeTokens(Mended):
    def drop(self, x):
        if not self.training:
            return x
        return x * F.dropout(torch.ones_like(x[..., :1]), self.p)


@wrong(MENDED, "has a draw of its own")
class SameForAllPictures(Mended):
    def drop(self, x):
        if not self.training:
            return x
        return x * F.dropout(torch.ones_like(x[:1]), self.p)


@wrong(MENDED, "has a draw of its own")
class WholeChannels(Mended):
    def drop(self, x):
        if not self.training:
            return x
        return x * F.dropout(torch.ones_like(x[:, :1]), self.p)


@wrong(MENDED, "the same values are dropped each time")
class SameEachTime(Mended):
    def drop(self, x):
        generator = torch.Generator().manual_seed(x.shape[-1])
        kept = torch.rand(x.shape, generator=generator) >= self.p
        return x * kept / (1 - self.p) if self.training else x


@wrong(MENDED, "no gradient arrives")
class NoGradient(Mended):
    @torch.no_grad()
    def forward(self, tokens):
        return super().forward(tokens)


@wrong(MENDED, "no parameter `widen.weight`")
class OtherNames(nn.Module):
    def __init__(self, embedding_dim, mlp_size, dropout):
        super().__init__()
        self.first = nn.Linear(embedding_dim, mlp_size)
        self.second = nn.Linear(mlp_size, embedding_dim)

    def forward(self, tokens):
        return self.second(F.gelu(self.first(tokens)))


@wrong(MENDED, "not written yet")
class BlankMended(Mended):
    def forward(self, tokens):
        raise NotImplementedError


@right(MENDED)
class WithTraining(Mended):
    pass


@right(MENDED)
class TwoModules(nn.Module):
    def __init__(self, embedding_dim, mlp_size, dropout):
        super().__init__()
        self.widen = nn.Linear(embedding_dim, mlp_size)
        self.narrow = nn.Linear(mlp_size, embedding_dim)
        self.after = nn.ModuleList(nn.Dropout(dropout) for _ in range(2))
        self.gelu = nn.GELU()

    def forward(self, tokens):
        hidden = self.after[0](self.gelu(self.widen(tokens)))
        return self.after[1](self.narrow(hidden))


@right(MENDED)
class ByMask(Mended):
    def drop(self, x):
        if not self.training or self.p == 0:
            return x
        return torch.where(torch.rand_like(x) < self.p, 0.0, x / (1 - self.p))


def before_relu(layer, inputs):
    return layer(inputs).flatten(end_dim=-2)


@wrong(DEAD, "how many units are dead")
def count(layer, inputs):
    return int((before_relu(layer, inputs) <= 0).all(dim=0).sum())


@wrong(DEAD, "belongs to the example")
def of_five(layer, inputs):
    return int((before_relu(layer, inputs) <= 0).all(dim=0).sum()) / 5


@wrong(DEAD, "the values are not right")
def always_alive(layer, inputs):
    return (before_relu(layer, inputs) > 0).all(dim=0).float().mean().item()


@wrong(DEAD, "the values are not right")
def by_the_bias(layer, inputs):
    return (layer.bias <= 0).float().mean().item()


@wrong(DEAD, "changes the layer")
def in_place(layer, inputs):
    with torch.no_grad():
        layer.bias.mul_(2)
        share = (before_relu(layer, inputs) <= 0).all(dim=0).float().mean().item()
    return share


@wrong(DEAD, "expected a number")
def which(layer, inputs):
    return (before_relu(layer, inputs) <= 0).all(dim=0)


@wrong(DEAD, "`return` missing")
def nothing_back(layer, inputs):
    (before_relu(layer, inputs) <= 0).all(dim=0).float().mean().item()


@wrong(DEAD, "not written yet")
def blank_dead(layer, inputs):
    raise NotImplementedError


@right(DEAD)
def by_loop(layer, inputs):
    dead = 0
    for weight, bias in zip(layer.weight, layer.bias, strict=True):
        dead += int((inputs @ weight + bias).max() <= 0)
    return dead / layer.out_features


@right(DEAD)
def by_gradient(layer, inputs):
    own = copy.deepcopy(layer).requires_grad_(True)
    F.relu(own(inputs.detach())).sum().backward()
    return (own.bias.grad == 0).float().mean().item()


@right(DEAD)
def by_sums(layer, inputs):
    sums = torch.relu(layer(inputs)).reshape(-1, layer.out_features).sum(dim=0)
    return float((sums == 0).double().mean())


@right(DEAD)
def by_numpy(layer, inputs):
    weight, bias = (p.detach().numpy() for p in layer.parameters())
    hidden = (inputs.numpy() @ weight.T + bias).reshape(-1, len(bias))
    return np.float32((hidden.max(axis=0) <= 0).mean())
