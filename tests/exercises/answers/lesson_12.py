"""Answers to the exercises of lesson 12."""

import copy
import random

import numpy as np
import torch
from torch import nn
from torchvision.transforms import v2

from answers import right, wrong
from going_modular.data_setup import (
    create_transform,
    to_rgb,
)
from going_modular.position_embedding import (
    PositionEmbedding,
    interpolate_position_embedding,
)
from going_modular.transfer import load_weights, read_sizes
from going_modular.vit import ViT

FEATURES = "check_patch_features"
PREPARE = "check_prepared_images"
SIZES = "check_accuracy_by_size"
LARGER = "check_resolution"


def z_L(vit, images):
    return vit.encoder(vit.embedding(images))


@wrong(FEATURES, "Embedding, encoder, LayerNorm")
def without_encoder(vit, images):
    return vit.layer_norm(vit.embedding(images))[:, 1:].mean(dim=1)


@wrong(FEATURES, "changes the model")
def spoils_the_model(vit, images):
    found = vit.layer_norm(z_L(vit, images))[:, 1:].mean(dim=1)
    nn.init.zeros_(vit.head.weight)
    return found


@wrong(FEATURES, "still in evaluation mode")
def leaves_training_mode(vit, images):
    found = vit.layer_norm(z_L(vit, images))[:, 1:].mean(dim=1)
    vit.train()
    return found


@wrong(FEATURES, "as trainable as before")
def freezes_the_model(vit, images):
    vit.requires_grad_(False)
    return vit.layer_norm(z_L(vit, images))[:, 1:].mean(dim=1)


@wrong(FEATURES, "without new hooks")
def leaves_a_hook(vit, images):
    kept = []
    vit.encoder.register_forward_hook(lambda m, given, out: kept.append(out))
    vit(images)
    return vit.layer_norm(kept[0])[:, 1:].mean(dim=1)


@right(FEATURES)
def norm_of_the_patches(vit, images):
    with torch.no_grad():
        patches = z_L(vit, images)[:, 1:]
        return vit.layer_norm(patches).mean(dim=1)


@right(FEATURES)
def block_by_block(vit, images):
    z = vit.embedding(images)
    for block in vit.encoder:
        z = block(z)
    z = vit.layer_norm(z)
    return (z.sum(dim=1) - z[:, 0]) / (z.shape[1] - 1)


@right(FEATURES)
def by_a_hook(vit, images):
    kept = []
    handle = vit.encoder.register_forward_hook(lambda m, given, out: kept.append(out))
    vit(images)
    handle.remove()
    return torch.stack([vit.layer_norm(z[1:]).mean(dim=0) for z in kept[0]])


@right(FEATURES)
def image_by_image(vit, images, *, rows=slice(1, None)):
    vit.eval()
    found = [vit.layer_norm(z_L(vit, x[None]))[0, rows].mean(dim=0) for x in images]
    return torch.stack(found)


@right(FEATURES)
def mean_of_numpy(vit, images):
    with torch.inference_mode():
        z = vit.layer_norm(z_L(vit, images))
    return torch.from_numpy(z.numpy()[:, 1:].mean(axis=1))


HALF = (0.5, 0.5, 0.5)


def batch(pictures, *settings):
    transform = create_transform(*settings)
    return torch.stack([transform(picture.convert("RGB")) for picture in pictures])


@wrong(PREPARE, "expected (2, 3, 32, 32)")
def for_the_checkpoint(model, pictures):
    return batch(pictures, 64, HALF, HALF, 0.8)


@wrong(PREPARE, "`interpolation` is dropped")
def four_arguments(model, pictures):
    own = model.preprocessing.get
    return batch(pictures, own("img_size"), own("mean"), own("std"), own("crop_pct"))


@wrong(PREPARE, "in another order")
def by_their_place(model, pictures):
    return batch(pictures, *model.preprocessing.values())


@wrong(PREPARE, "changes the list of images")
def in_the_list(model, pictures):
    transform = create_transform(**model.preprocessing)
    for i, picture in enumerate(pictures):
        pictures[i] = transform(picture.convert("RGB"))
    return torch.stack(pictures)


@wrong(PREPARE, "changes `model.preprocessing`")
def takes_out(model, pictures):
    size = model.preprocessing.pop("img_size")
    transform = create_transform(size, **model.preprocessing)
    return torch.stack([transform(picture.convert("RGB")) for picture in pictures])


@right(PREPARE)
def own_transform(model, pictures):
    transform = create_transform(**model.preprocessing)
    return torch.stack([transform(picture.convert("RGB")) for picture in pictures])


@right(PREPARE)
def in_two_steps(model, pictures):
    own = dict(model.preprocessing)
    mean, std = own.pop("mean", (0, 0, 0)), own.pop("std", (1, 1, 1))
    transform = create_transform(**own)
    rows = [transform(p if p.mode == "RGB" else p.convert("RGB")) for p in pictures]
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (mean, std))
    return (torch.stack(rows) - mean) / std


@right(PREPARE)
def rgb_inside(model, pictures):
    steps = v2.Compose([v2.RGB(), create_transform(**model.preprocessing)])
    return torch.cat([steps(picture)[None] for picture in pictures])


@right(PREPARE)
def by_to_rgb(model, pictures):
    own = model.preprocessing.get
    size, mean, std = own("img_size", 224), own("mean"), own("std")
    how = own("interpolation", "bilinear")
    transform = create_transform(size, mean, std, own("crop_pct"), how)
    return torch.stack([transform(to_rgb(picture)) for picture in pictures])


def accuracy(head, features, labels):
    with torch.no_grad():
        return (head(features).argmax(dim=1) == labels).float().mean().item()


def shuffled(labels, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(len(labels), generator=generator)


def balanced(labels, size, seed):
    order = shuffled(labels, seed)
    return torch.cat([order[labels[order] == k][:size] for k in labels.unique()])


def curve(train, test, sizes, fit, rows, measure=None):
    """What the answers share: `rows(size)` are chosen, `measure(head, rows)` counts."""
    measure = measure or (lambda head, chosen: accuracy(head, *test))
    found = {}
    for size in sizes:
        chosen = rows(size)
        found[size] = measure(fit(train[0][chosen], train[1][chosen]), chosen)
    return found


@wrong(SIZES, "of *each* class")
def of_all_classes(train, test, sizes, fit, seed=0):
    order = shuffled(train[1], seed)
    return curve(train, test, sizes, fit, lambda size: order[:size])


@wrong(SIZES, "A balanced")
def not_balanced(train, test, sizes, fit, seed=0):
    order, classes = shuffled(train[1], seed), len(train[1].unique())
    return curve(train, test, sizes, fit, lambda size: order[: size * classes])


@wrong(SIZES, "does not hold the smaller one")
def drawn_anew(train, test, sizes, fit, seed=0):
    rows = lambda size: balanced(train[1], size, seed + size)  # noqa: E731
    return curve(train, test, sizes, fit, rows)


@wrong(SIZES, "other images each time")
def without_seed(train, test, sizes, fit, seed=0):
    seed = int(torch.randint(10**6, ()))
    return from_one_order(train, test, sizes, fit, seed)


@wrong(SIZES, "the first of each class")
def first_of_each(train, test, sizes, fit, seed=0):
    members = [(train[1] == k).nonzero()[:, 0] for k in train[1].unique()]
    rows = lambda size: torch.cat([m[:size] for m in members])  # noqa: E731
    return curve(train, test, sizes, fit, rows)


@wrong(SIZES, "labels do not belong")
def sorted_labels(train, test, sizes, fit, seed=0):
    return from_one_order(
        train, test, sizes, lambda x, y: fit(x, y.unique().repeat(len(y) // 3)), seed
    )


@wrong(SIZES, "same indices")
def all_labels(train, test, sizes, fit, seed=0):
    return from_one_order(train, test, sizes, lambda x, y: fit(x, train[1]), seed)


@wrong(SIZES, "trained on test images")
def learns_the_test(train, test, sizes, fit, seed=0):
    both = [torch.cat(pair) for pair in zip(train, test, strict=True)]
    return from_one_order(both, test, sizes, fit, seed)


@wrong(SIZES, "without replacement")
def with_replacement(train, test, sizes, fit, seed=0):
    generator = random.Random(seed)
    members = [(train[1] == k).nonzero()[:, 0].tolist() for k in train[1].unique()]
    drawn = [[generator.choice(m) for _ in range(max(sizes))] for m in members]
    rows = lambda size: [row for part in drawn for row in part[:size]]  # noqa: E731
    return curve(train, test, sizes, fit, rows)


@wrong(SIZES, "[14, 17, 12]")
def everything(train, test, sizes, fit, seed=0):
    return {size: accuracy(fit(*train), *test) for size in sizes}


@wrong(SIZES, "the head was trained on")
def on_the_subset(train, test, sizes, fit, seed=0):
    return curve(
        train,
        test,
        sizes,
        fit,
        lambda size: balanced(train[1], size, seed),
        lambda head, rows: accuracy(head, train[0][rows], train[1][rows]),
    )


@wrong(SIZES, "all training images")
def on_all_training(train, test, sizes, fit, seed=0):
    return from_one_order(train, train, sizes, fit, seed)


@wrong(SIZES, "not per cent")
def per_cent(train, test, sizes, fit, seed=0):
    found = from_one_order(train, test, sizes, fit, seed)
    return {size: 100 * value for size, value in found.items()}


@wrong(SIZES, "this is a count")
def a_count(train, test, sizes, fit, seed=0):
    found = from_one_order(train, test, sizes, fit, seed)
    return {size: round(value * len(test[1])) for size, value in found.items()}


@wrong(SIZES, "its own head")
def last_head_for_all(train, test, sizes, fit, seed=0):
    found = from_one_order(train, test, sizes, fit, seed)
    return dict.fromkeys(sizes, found[max(sizes)])


@wrong(SIZES, "one head of its own")
def one_head(train, test, sizes, fit, seed=0):
    found = from_one_order(train, test, sizes[:1], fit, seed)
    return dict.fromkeys(sizes, found[sizes[0]])


@wrong(SIZES, "not rounded")
def two_digits(train, test, sizes, fit, seed=0):
    found = from_one_order(train, test, sizes, fit, seed)
    return {size: round(value, 2) for size, value in found.items()}


@wrong(SIZES, "a dict")
def a_list_of_numbers(train, test, sizes, fit, seed=0):
    return list(from_one_order(train, test, sizes, fit, seed).values())


@wrong(SIZES, "[2, 2, 2, 0]")
def three_classes(train, test, sizes, fit, seed=0):
    def rows(size):
        chosen = balanced(train[1], size, seed)
        return chosen[train[1][chosen] < 3]

    return curve(train, test, sizes, fit, rows)


@right(SIZES)
def from_one_order(train, test, sizes, fit, seed=0):
    rows = lambda size: balanced(train[1], size, seed)  # noqa: E731
    return curve(train, test, sorted(sizes), fit, rows)


@right(SIZES)
def with_python(train, test, sizes, fit, seed=0):
    members = {}
    for i in random.Random(seed).sample(range(len(train[1])), len(train[1])):
        members.setdefault(int(train[1][i]), []).append(i)
    found = {}
    for size in sizes:
        rows = [i for part in members.values() for i in part[:size]]
        head = fit(torch.stack([train[0][i] for i in rows]), train[1][rows])
        guesses = head(test[0]).argmax(dim=1)
        found[size] = (guesses == test[1]).double().mean()
    return found


@right(SIZES)
def with_numpy(train, test, sizes, fit, seed=0):
    labels, found = train[1].numpy(), {}
    for size in sizes:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(labels))
        rank = np.zeros(len(labels), dtype=int)
        for k in np.unique(labels):
            rank[order[labels[order] == k]] = np.arange((labels == k).sum())
        mask = torch.from_numpy(rank < size)
        head = fit(train[0][mask], train[1][mask])
        found[size] = np.mean(
            head(test[0]).argmax(1).detach().numpy() == test[1].numpy()
        )
    return found


def made_for(model, img_size):
    return ViT(**(read_sizes(model.state_dict()) | {"img_size": img_size}))


def finish(new, model, img_size):
    new.preprocessing = {**model.preprocessing, "img_size": img_size}
    return new.eval()


def with_positions(model, img_size, change):
    """A model for the new size, whose positions are `change(weight, old, new grid)`."""
    new, state = made_for(model, img_size), copy.deepcopy(model.state_dict())
    name = "embedding.position_embedding.weight"
    grids = [m.embedding.position_embedding.grid for m in (model, new)]
    state[name] = change(state[name], *grids)
    new.load_state_dict(state)
    return finish(new, model, img_size)


@right(LARGER)
def by_loading(model, img_size):
    new = made_for(model, img_size)
    load_weights(new, model.state_dict())
    return finish(new, model, img_size)


@wrong(LARGER, "Are they random ones")
def random_positions_(model, img_size):
    return with_positions(model, img_size, lambda w, old, new: made_for_grid(w, new))


def made_for_grid(weight, grid):
    return PositionEmbedding(grid, weight.shape[2]).weight.detach()


@wrong(LARGER, "the given model has changed")
def in_place(model, img_size):
    new = made_for(model, img_size)
    load_weights(new, model.state_dict())
    model.embedding = new.embedding
    return finish(model, model, img_size)


@wrong(LARGER, "the given model itself")
def itself_if_it_fits(model, img_size):
    if model.preprocessing["img_size"] == img_size:
        return model
    return by_loading(model, img_size)


@wrong(LARGER, "as trainable as before")
def freezes_the_given_one(model, img_size):
    new = by_loading(model, img_size)
    model.requires_grad_(False)
    return new


@wrong(LARGER, "still in evaluation mode")
def trains_the_given_one(model, img_size):
    new = by_loading(model, img_size)
    model.train()
    return new


@wrong(LARGER, "is not that of the given model")
def untrained(model, img_size):
    return finish(made_for(model, img_size), model, img_size)


@wrong(LARGER, "number of classes")
def a_head_for_three(model, img_size):
    state = model.state_dict()
    new = ViT(**read_sizes(state, img_size=img_size, num_classes=3))
    load_weights(new, state)
    return finish(new, model, img_size)


@wrong(LARGER, "patches have another size")
def larger_patches(model, img_size):
    sizes = read_sizes(model.state_dict())
    side = img_size if isinstance(img_size, int) else img_size[0]
    sizes["patch_size"] = sizes["patch_size"] * side // sizes["img_size"]
    return finish(ViT(**sizes | {"img_size": side}), model, img_size)


@wrong(LARGER, "evaluation mode")
def in_training_mode(model, img_size):
    return by_loading(model, img_size).train()


@wrong(LARGER, "number of heads")
def other_heads(model, img_size):
    new = ViT(
        **(read_sizes(model.state_dict()) | {"img_size": img_size, "num_heads": 4})
    )
    load_weights(new, model.state_dict())
    return finish(new, model, img_size)


@wrong(LARGER, "attribute `preprocessing` is missing")
def forgets_settings(model, img_size):
    new = by_loading(model, img_size)
    del new.preprocessing
    return new


@wrong(LARGER, "it is {'img_size': 16")
def old_settings(model, img_size):
    new = by_loading(model, img_size)
    new.preprocessing = dict(model.preprocessing)
    return new


@wrong(LARGER, "copy the dict")
def shared_settings(model, img_size):
    new = by_loading(model, img_size)
    new.preprocessing = model.preprocessing
    new.preprocessing["img_size"] = img_size
    return new


@wrong(LARGER, "copy the dict")
def takes_the_size_out(model, img_size):
    new, own = by_loading(model, img_size), model.preprocessing
    del own["img_size"]
    new.preprocessing = {"img_size": img_size, **own}
    return new


@wrong(LARGER, "copy the dict")
def takes_the_mean_out(model, img_size):
    new, own = by_loading(model, img_size), model.preprocessing
    new.preprocessing = {"img_size": img_size, "mean": own.pop("mean"), **own}
    return new


@wrong(LARGER, "is no dict")
def settings_as_a_pair(model, img_size):
    new = by_loading(model, img_size)
    new.preprocessing = tuple(new.preprocessing.items())
    return new


@wrong(LARGER, "same tensors")
def shared_weights(model, img_size):
    new = made_for(model, img_size)
    state = dict(model.state_dict())
    name, place = "embedding.position_embedding.weight", new.embedding
    state[name] = interpolate_position_embedding(
        state[name],
        model.embedding.position_embedding.grid,
        place.position_embedding.grid,
    )
    new.load_state_dict(state, assign=True)
    return finish(new, model, img_size)


@wrong(LARGER, "requires_grad=False")
def frozen(model, img_size):
    return by_loading(model, img_size).requires_grad_(False)


@wrong(LARGER, "still refuses images of the new size")
def forgets_the_size(model, img_size):
    new, grid = copy.deepcopy(model), made_for(model, img_size).embedding
    old, grid = new.embedding.position_embedding, grid.position_embedding.grid
    weight = interpolate_position_embedding(old.weight, old.grid, grid)
    old.weight = nn.Parameter(weight.detach())
    return finish(new, model, img_size)


@wrong(LARGER, "expected a ViT")
def gives_logits(model, img_size):
    side = (img_size, img_size) if isinstance(img_size, int) else img_size
    return by_loading(model, img_size)(torch.zeros(1, 3, *side))


@right(LARGER)
def by_positions(model, img_size):
    return with_positions(model, img_size, interpolate_position_embedding)


@right(LARGER)
def by_another_embedding(model, img_size):
    new = copy.deepcopy(model)
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    old = new.embedding.position_embedding
    patch = new.embedding.patch_embedding.patcher.kernel_size[0]
    grid = size[0] // patch, size[1] // patch
    positions = PositionEmbedding(grid, old.weight.shape[2])
    weight = interpolate_position_embedding(old.weight, old.grid, grid)
    positions.weight = nn.Parameter(weight.detach().clone())
    new.embedding.position_embedding, new.embedding.img_size = positions, size
    new.preprocessing["img_size"] = size
    return new
