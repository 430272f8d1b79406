"""Answers to the exercises of lesson 15."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from answers import right, wrong

FOLD = "check_folded_layer_scale"
NORM = "check_mended_qk_norm"
KEPT = "check_kept_predictions"


@wrong(FOLD, "has changed")
def in_place(dense, gamma):
    dense.weight.data *= gamma[:, None]
    dense.bias.data *= gamma
    return dense


@wrong(FOLD, "an nn.Linear, not Sequential")
def as_two(dense, gamma):
    return nn.Sequential(dense)


@wrong(FOLD, "Fold gamma into them")
def by_a_hook(dense, gamma):
    new = copy.deepcopy(dense)
    new.register_forward_hook(lambda module, given, out: gamma * out)
    return new


@right(FOLD)
def by_state(dense, gamma):
    new = nn.Linear(dense.in_features, dense.out_features)
    state = {"weight": torch.diag(gamma) @ dense.weight, "bias": gamma * dense.bias}
    new.load_state_dict(state)
    return new


@right(FOLD)
def by_copy(dense, gamma):
    new = copy.deepcopy(dense)
    with torch.no_grad():
        new.weight.mul_(gamma[:, None])
        new.bias.mul_(gamma)
    return new


def split(x, num_heads):
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def norm(x):
    return F.layer_norm(x, x.shape[-1:])


def weights(q, k):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)


@right(NORM)
def after_the_split(query, key, num_heads):
    return weights(*(norm(split(x, num_heads)) for x in (query, key)))


@right(NORM)
def written_out(query, key, num_heads):
    heads = []
    for x in (query, key):
        x = split(x, num_heads)
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        heads.append((x - mean) / (variance + 1e-5).sqrt())
    return weights(*heads)


def predictions(model, z):
    return model.head(model.layer_norm(model.encoder(z)[:, 0])).argmax(dim=1)


def rows(registers, z):
    return registers.expand(len(z), -1, -1)


@wrong(KEPT, "fraction of predictions that change")
@torch.no_grad()
def changed(model, images, registers):
    return 1 - between(model, images, registers)


@wrong(KEPT, "Do the registers go through the encoder")
@torch.no_grad()
def thrown_away(model, images, registers):
    before = model(images).argmax(dim=1)
    return (predictions(model, model.embedding(images)) == before).float().mean()


@wrong(KEPT, "the head reads it")
@torch.no_grad()
def at_the_front(model, images, registers):
    z = model.embedding(images)
    z = torch.cat([rows(registers, z), z], dim=1)
    return (predictions(model, z) == model(images).argmax(dim=1)).float().mean()


@wrong(KEPT, "between 0 and 1")
@torch.no_grad()
def in_percent(model, images, registers):
    return 100 * between(model, images, registers) + 1


@wrong(KEPT, "weights have changed")
@torch.no_grad()
def into_the_weights(model, images, registers):
    model.embedding.class_token.weight += registers[0]
    return 0.5


@wrong(KEPT, "is a hook still in it")
@torch.no_grad()
def leaves_a_hook(model, images, registers):
    def insert(module, given, z):
        return torch.cat([z[:, :1], rows(registers, z), z[:, 1:]], dim=1)

    before = model(images).argmax(dim=1)
    model.embedding.register_forward_hook(insert)
    return (model(images).argmax(dim=1) == before).float().mean().item()


@right(KEPT)
@torch.no_grad()
def between(model, images, registers):
    z = model.embedding(images)
    z = torch.cat([z[:, :1], rows(registers, z), z[:, 1:]], dim=1)
    return (predictions(model, z) == model(images).argmax(dim=1)).float().mean().item()


@right(KEPT)
@torch.no_grad()
def at_the_end(model, images, registers):
    """The encoder doesn't know an order: only token 0 must be the class token."""
    z = model.embedding(images)
    z = torch.cat([z, rows(registers, z)], dim=1)
    return (predictions(model, z) == model(images).argmax(dim=1)).float().mean()
