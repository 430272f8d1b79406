"""Lesson 11: who decays, AdamW by its formula, the schedule in closed form."""

import io
import math

import pytest
import torch
from torch import nn

from going_modular.optimization import (
    DECAYS,
    create_optimizer,
    parameter_groups,
    warmup_schedule,
)
from going_modular.vit import create_vit

LAYERS = 2


def vit(**overrides):
    sizes = {"img_size": 16, "num_transformer_layers": LAYERS, "num_classes": 3}
    return create_vit("vit_mini_8", **sizes | overrides)


def names_of(model, parameters):
    """The parameters' names, told apart by identity and not by value."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in parameters]


def exempt_by_hand():
    """Biases, gains, class token and positions, written out for two blocks."""
    names = {"embedding.class_token.weight", "embedding.position_embedding.weight"}
    names |= {"embedding.patch_embedding.patcher.bias", "head.bias"}
    names |= {"layer_norm.weight", "layer_norm.bias"}
    for i in range(LAYERS):
        for norm in ("msa_block.layer_norm", "mlp_block.layer_norm"):
            names |= {f"encoder.{i}.{norm}.weight", f"encoder.{i}.{norm}.bias"}
        attention, mlp = (
            f"encoder.{i}.msa_block.attention",
            f"encoder.{i}.mlp_block.mlp",
        )
        names |= {f"{attention}.qkv.bias", f"{attention}.out_proj.bias"}
        names |= {f"{mlp}.0.bias", f"{mlp}.3.bias"}
    return names


def test_who_is_exempt():
    model = vit()
    decay, no_decay = parameter_groups(model, 0.3)
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.3, 0.0)
    exempt = names_of(model, no_decay["params"])
    assert set(exempt) == exempt_by_hand()
    decaying = names_of(model, decay["params"])
    assert "embedding.patch_embedding.patcher.weight" in decaying
    assert "head.weight" in decaying
    everyone = [name for name, _ in model.named_parameters()]
    assert sorted(exempt + decaying) == sorted(everyone)  # each once, nobody missing


def test_the_same_as_timms_rule():
    """timm: at most one axis, or on the model's list (class token, positions)."""
    model = vit()
    rest = model.embedding
    listed = {id(rest.class_token.weight), id(rest.position_embedding.weight)}
    rule = [p.ndim <= 1 or id(p) in listed for p in model.parameters()]
    _, no_decay = parameter_groups(model, 0.05)
    found = {id(p) for p in no_decay["params"]}
    assert [id(p) in found for p in model.parameters()] == rule
    assert len(found) == sum(rule) == 6 + 8 * LAYERS


def test_without_a_class_token_its_group_is_smaller():
    decay, no_decay = parameter_groups(vit(pool="mean"), 0.05)
    assert len(no_decay["params"]) == 5 + 8 * LAYERS
    assert len(decay["params"]) == 2 + 4 * LAYERS


def test_frozen_parameters_are_left_out():
    model = vit().requires_grad_(False)
    model.head.requires_grad_()
    decay, no_decay = parameter_groups(model, 0.1)
    assert names_of(model, decay["params"]) == ["head.weight"]
    assert names_of(model, no_decay["params"]) == ["head.bias"]
    assert decay["weight_decay"] == 0.1


def test_an_empty_group_is_left_out():
    layer = nn.Linear(2, 3)
    layer.weight.requires_grad_(False)
    [group] = parameter_groups(layer, 0.1)
    assert group["params"] == [layer.bias] and group["weight_decay"] == 0.0
    [group] = parameter_groups(nn.Linear(2, 3, bias=False), 0.1)
    assert group["weight_decay"] == 0.1


def test_a_shared_parameter_is_there_once():
    shared = nn.Linear(3, 3, bias=False)
    [group] = parameter_groups(nn.Sequential(shared, nn.GELU(), shared), 0.1)
    assert len(group["params"]) == 1 and group["params"][0] is shared.weight


@pytest.mark.parametrize(
    "model, weight_decay, message",
    [
        (nn.Linear(2, 3), -0.1, "at least 0, got -0.1"),
        (nn.Linear(2, 3).requires_grad_(False), 0.1, "no parameter"),
        (nn.GELU(), 0.1, "no parameter"),
    ],
)
@pytest.mark.parametrize("make", [parameter_groups, create_optimizer])
def test_groups_refuse(make, model, weight_decay, message):
    with pytest.raises(ValueError, match=message):
        make(model, weight_decay=weight_decay)


def adamw_by_hand(start, grads, lr, decay, beta1=0.9, beta2=0.999, eps=1e-8):
    """Algorithm 2 of Loshchilov and Hutter: the decay never meets the averages."""
    theta, m, v = start, torch.zeros_like(start), torch.zeros_like(start)
    for t, g in enumerate(grads, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        mean, square = m / (1 - beta1**t), v / (1 - beta2**t)
        theta = theta - lr * (mean / (square.sqrt() + eps) + decay * theta)
    return theta


@pytest.mark.parametrize(
    "chosen, meant",
    [
        ({}, (1e-3, 0.05, 0.9, 0.999)),
        ({"lr": 0.1, "weight_decay": 0.3}, (0.1, 0.3, 0.9, 0.999)),
        ({"lr": 0.02, "betas": (0.8, 0.95)}, (0.02, 0.05, 0.8, 0.95)),
        ({"weight_decay": 0.0}, (1e-3, 0.0, 0.9, 0.999)),
    ],
)
def test_the_optimizer_equals_adamw_by_the_formula(chosen, meant):
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    with torch.no_grad():
        model.bias += 1  # a bias at zero would not show a decay
    lr, decay, *betas = meant
    optimizer = create_optimizer(model, **chosen)
    planned = [torch.randn(5, *p.shape).double() for p in model.parameters()]
    expected = [
        adamw_by_hand(p.detach().clone(), grads, lr, its_decay, *betas)
        for p, grads, its_decay in zip(
            model.parameters(), planned, (decay, 0.0), strict=True
        )
    ]
    for t in range(5):
        for p, grads in zip(model.parameters(), planned, strict=True):
            p.grad = grads[t].clone()
        optimizer.step()
    for p, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), value, atol=1e-12, rtol=1e-12)


def closed_form(step, warmup, total, decay):
    """The factor of each step, from the picture: a ramp, then what falls to zero."""
    if step < warmup:
        return (step + 1) / warmup
    left = max(0, total - step) / (total - warmup)  # 1 at the top, 0 at the end
    # (1 + cos x) / 2 is the square of cos(x / 2).
    cosine = math.cos(math.pi / 2 * (1 - left)) ** 2
    return {"cosine": cosine, "linear": left, "none": 1.0}[decay]


def two_groups():
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.4, 3e-3)
    ]
    return torch.optim.SGD(groups)


def rates(optimizer, scheduler, steps):
    """The rates that each step really uses, one pair a step."""
    used = []
    for _ in range(steps):
        used.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return used


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize(
    "warmup, total", [(0, 1), (0, 7), (1, 7), (3, 10), (9, 10), (10, 110)]
)
def test_the_schedule_in_closed_form(decay, warmup, total):
    optimizer = two_groups()
    scheduler = warmup_schedule(optimizer, warmup, total, decay)
    used = rates(optimizer, scheduler, total + 3)
    for step, pair in enumerate(used):
        factor = closed_form(step, warmup, total, decay)
        assert pair == pytest.approx([0.4 * factor, 3e-3 * factor], abs=1e-12), step
    end = 0.4 if decay == "none" else 0.0
    assert all(first == pytest.approx(end, abs=1e-15) for first, _ in used[total:])


def test_corners_of_the_schedule():
    """Numbers that one can check without a formula."""
    for decay, expected in {
        "cosine": [0.2, 0.4, 0.4, 0.2, 0.0, 0.0],
        "linear": [0.2, 0.4, 0.4, 0.2, 0.0, 0.0],
        "none": [0.2, 0.4, 0.4, 0.4, 0.4, 0.4],
    }.items():
        optimizer = two_groups()
        used = rates(optimizer, warmup_schedule(optimizer, 2, 4, decay), 6)
        assert [first for first, _ in used] == pytest.approx(expected, abs=1e-12)
    optimizer = two_groups()
    used = rates(optimizer, warmup_schedule(optimizer, 0, 8), 3)  # a cosine as default
    quarter = 0.4 * (2 + math.sqrt(2)) / 4
    assert used[2][0] == pytest.approx(quarter, abs=1e-12)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("stop", [1, 3, 8])
def test_a_schedule_goes_on_where_it_stopped(decay, stop):
    optimizer = two_groups()
    whole = rates(optimizer, warmup_schedule(optimizer, 3, 9, decay), 11)
    optimizer = two_groups()
    scheduler = warmup_schedule(optimizer, 3, 9, decay)
    rates(optimizer, scheduler, stop)
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)  # it holds no function
    optimizer = two_groups()
    scheduler = warmup_schedule(optimizer, 3, 9, decay)
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert rates(optimizer, scheduler, 11 - stop) == whole[stop:]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 10, "exponential"), r"one of \('cosine', .*, got 'exponential'"),
        ((0, 10, "Cosine"), "got 'Cosine'"),
        ((-1, 10), "got -1 and 10"),
        ((10, 10), "got 10 and 10"),
        ((11, 10), "got 11 and 10"),
        ((0, 0), "got 0 and 0"),
    ],
)
def test_schedules_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        warmup_schedule(two_groups(), *arguments)
