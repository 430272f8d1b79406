"""What the proofs share: filled parameters, gradients, copied weights, a trap."""

import re

import torch
from hypothesis import strategies as st
from torch import nn

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
seeds = st.integers(0, 2**32 - 1)


def fill(module):
    """Gives every parameter a value: at zero or one, a missing term would pass.

    Matrices keep the size of what they multiply; gains stay near one.
    """
    with torch.no_grad():
        for p in module.parameters():
            if p.ndim in (2, 4):
                nn.init.normal_(p, std=p[0].numel() ** -0.5)
            else:
                p += 0.2 * torch.randn_like(p)
    return module


def value_and_gradients(output, **tensors):
    """Returns the output, and the gradients of a random weighted sum of it."""
    generator = torch.Generator().manual_seed(0)
    downstream = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    # What the output does not depend on gets zeros, to be compared like the rest.
    found = torch.autograd.grad(
        output, tensors.values(), downstream.to(output.dtype), materialize_grads=True
    )
    return {"output": output.detach(), **dict(zip(tensors, found, strict=True))}


def run(module, x, *args):
    """Returns the output and the gradients of x and of every parameter, by name."""
    x = x.detach().clone().requires_grad_()
    return value_and_gradients(module(x, *args), x=x, **dict(module.named_parameters()))


def assert_same(ours, theirs, tolerance, names=()):
    """Asserts equal shapes, and values equal relative to the largest, or to 1."""
    assert {rename(name, names) for name in ours} == set(theirs)
    for name, mine in ours.items():
        other = theirs[rename(name, names)]
        assert mine.shape == other.shape and mine.dtype == other.dtype, name
        scale = max(1.0, other.abs().max().item())
        difference = (mine - other).abs().max().item() / scale
        assert difference <= tolerance, f"{name}: differ by {difference:.1e}"


def rename(name, names):
    """Replaces each pattern of `names` in a parameter's name."""
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


def copy_weights(ours, theirs, names):
    """Loads our weights under their names, dtype included; nothing may be left."""
    state = {rename(name, names): value for name, value in ours.state_dict().items()}
    theirs.to(next(ours.parameters()).dtype).load_state_dict(state, strict=True)
    return theirs.eval()


def assert_quarter_dropped(out, exact, gone, within, **tolerance):
    """Asserts that dropout of 0.25 hit its share and scaled up what it kept.

    `gone` says what was hit, number by number or row by row; `within` is how far its
    share may be from a quarter.
    """
    assert abs(gone.double().mean().item() - 0.25) < within
    kept = (exact / 0.75).expand_as(out)[~gone]
    torch.testing.assert_close(out[~gone], kept, **tolerance)


def layer_norm(x, gain, bias, eps=1e-6):
    """LayerNorm written out: mean and variance of the numbers of one token."""
    dim = x.shape[-1]
    mean = x.sum(-1, keepdim=True) / dim
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / dim
    return (x - mean) / torch.sqrt(variance + eps) * gain + bias


class MakesFile:
    """Code in a pickle: whoever unpickles it without care makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")
