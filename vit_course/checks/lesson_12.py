"""Tasks of the exercises of lesson 12: transfer learning."""

import copy
import random
from collections.abc import Callable
from functools import cache
from operator import is_
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from going_modular.position_embedding import interpolate_position_embedding
from going_modular.vit import ViT
from vit_course.checks.hints import NO_RETURN, hint
from vit_course.checks.task import Case, Task

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
VITS: dict[str, dict[str, Any]] = {
    "a ViT with 6 patches": {"img_size": (8, 12), "patch_size": 4},
    "a ViT with 4 patches": {"num_heads": 2, "img_size": 8, "patch_size": 4},
    "a ViT with one patch": {"img_size": 4, "patch_size": 4, "in_channels": 1},
    "a ViT for 16 pixels": {"num_heads": 3, "img_size": 16, "patch_size": 4},
    "a ViT for 24 pixels": {
        "num_heads": 6,
        "img_size": 24,
        "patch_size": 8,
        "num_classes": 5,
    },
    "a ViT for 12 pixels": {
        "num_heads": 3,
        "img_size": 12,
        "patch_size": 4,
        "in_channels": 1,
    },
}


@cache
def _vit(kind: str) -> Any:
    """A small ViT with heads of dimension 64, all its weights random."""
    sizes: dict[str, Any] = {"num_heads": 1, "num_classes": 3} | VITS[kind]
    dim = 64 * sizes["num_heads"]
    model = ViT(num_transformer_layers=2, embedding_dim=dim, mlp_size=32, **sizes)
    generator = torch.Generator().manual_seed(dim)
    for p in model.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator)
    model.preprocessing = {"img_size": sizes["img_size"], **HALF, "crop_pct": 0.8}
    return model.eval()


def _images(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _settings(model: nn.Module) -> list:
    """What a function may change beside weights: modes, hooks, what is frozen."""
    plain = bool | int | float | str | tuple
    modules = list(model.modules())
    own = [[v for v in vars(m).items() if isinstance(v[1], plain)] for m in modules]
    hooks = [len(m._forward_hooks | m._forward_pre_hooks) for m in modules]
    return [own, hooks, [p.requires_grad for p in model.parameters()]]


def _same_weights(model: nn.Module, kind: str) -> bool:
    after, before = model.state_dict(), _vit(kind).state_dict()
    same = (torch.equal(after[name], before[name]) for name in before if name in after)
    return set(after) == set(before) and all(same)


# 1. The mean of the patch tokens


def _features(take: Callable) -> Callable:
    """Features from a ViT and its z_L (B, N + 1, D), before the last LayerNorm."""

    def features(kind: str, images: Tensor) -> Tensor:
        vit = _vit(kind)
        return take(vit, vit.encoder(vit.embedding(images)))

    return features


FEATURES = {
    _features(lambda vit, z: vit.layer_norm(z).mean(1)): (
        "the class token is averaged in. Leave row 0 out: only the patch tokens count."
    ),
    _features(lambda vit, z: vit.layer_norm(z)[:, 0]): (
        "these are the features of the class token, which the head has read so far. "
        "Take the other rows."
    ),
    _features(lambda vit, z: vit.layer_norm(z)[:, :-1].mean(1)): (
        "the last patch is left out, and the class token is not: it is token 0."
    ),
    (
        _features(lambda vit, z: vit.layer_norm(z)[:, 1:].mean(2)),
        _features(lambda vit, z: vit.layer_norm(z)[:, 1:].mean(0)),
    ): (
        "the mean is taken over another axis. Tokens are axis 1, and D features remain "
        "for each image."
    ),
    _features(lambda vit, z: z[:, 1:].mean(1)): (
        "the last LayerNorm is missing: Equation 4 applies it after the encoder."
    ),
    _features(lambda vit, z: vit.layer_norm(z[:, 1:].mean(1))): (
        "LayerNorm comes after the mean. Normalise each token first, then average: the "
        "two give different values."
    ),
    _features(lambda vit, z: vit.head(vit.layer_norm(z)[:, 1:].mean(1))): (
        "these are logits. Features are what the head gets, so leave the head out."
    ),
}


def _call_features(answer, kind: str, images: Tensor):
    vit = copy.deepcopy(_vit(kind))
    settings = _settings(vit)
    found = answer(vit, images)
    hint(
        _same_weights(vit, kind),
        "your function changes the model, so the next caller gets other outputs.",
    )
    hint(
        _settings(vit) == settings,
        "the weights are as before, and something else of the model is not: is it "
        "still in evaluation mode, as trainable as before, without new hooks?",
    )
    return found


check_patch_features = Task(
    "patch_features",
    "features: the mean of the patch tokens",
    Case(
        inputs=[
            ("a ViT with 6 patches", _images(1, 3, 3, 8, 12)),
            ("a ViT with 6 patches", _images(2, 1, 3, 8, 12)),
            ("a ViT with 4 patches", _images(3, 5, 3, 8, 8)),
            ("a ViT with one patch", _images(4, 2, 1, 4, 4)),
        ],
        call=_call_features,
        right=_features(lambda vit, z: vit.layer_norm(z)[:, 1:].mean(1)),
        mistakes=FEATURES,
        tolerance=1e-4,
        gradient=False,
        advice="Embedding, encoder, LayerNorm; then the mean over the patch tokens.",
    ),
)

# 2. Find the bug: preprocessing for a model

ARGUMENTS = "img_size", "mean", "std", "crop_pct", "interpolation"  # in their order
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _prepared(change=lambda own: own, convert=lambda image: image.convert("RGB")):
    """The preprocessing, with other settings or other images."""

    def prepare(model, images: list) -> Tensor:
        from going_modular.data_setup import create_transform  # torchvision takes 2 s

        transform = create_transform(**change(dict(model.preprocessing)))
        return torch.stack([transform(convert(image)) for image in images])

    return prepare


def _without(*names: str) -> Callable:
    return lambda own: {name: own[name] for name in own if name not in names}


PREPARED = {
    (_prepared(lambda own: IMAGENET | own), _prepared(lambda own: HALF | own)): (
        "this model's `preprocessing` has no mean and standard deviation: its pixel "
        "values stay in 0 … 1. Put no others in their place."
    ),
    _prepared(lambda own: {"img_size": 64, **IMAGENET}): (
        "size and normalisation are those of ImageNet, not of this model. All that it "
        "needs is in `model.preprocessing`."
    ),
    (_prepared(lambda own: own | IMAGENET), _prepared(lambda own: own | HALF)): (
        "every model gets the same mean and standard deviation. This one was trained "
        "with its own: they are in `model.preprocessing`."
    ),
    (
        _prepared(_without("crop_pct")),
        _prepared(_without("crop_pct", "interpolation")),
    ): (
        "the normalisation is right now. But this model was trained on centre crops "
        "(`crop_pct`), and your images are resized without a crop."
    ),
    _prepared(_without("interpolation")): (
        "`interpolation` is dropped: a model may have been trained on images that were "
        "resized in another way. `**` hands over all that `preprocessing` holds."
    ),
    _prepared(lambda own: dict(zip(ARGUMENTS, own.values(), strict=False))): (
        "the values of `preprocessing` are handed over by their place, and another "
        "model has its keys in another order. Pass them by name: `**` does."
    ),
    _prepared(_without("mean", "std")): (
        "the pixel values are left in 0 … 1. This model expects them normalised with "
        "its mean and standard deviation."
    ),
    _prepared(lambda own: own | {"img_size": 64}): (
        "every image gets 64 x 64 pixels. Another model may want another size: it is "
        "in `model.preprocessing`."
    ),
    lambda model, images: _prepared()(model, images[:1]): (
        "only the first image is prepared."
    ),
    (
        _prepared(convert=lambda image: image),
        _prepared(convert=lambda x: x.convert("RGB") if x.mode == "L" else x),
    ): (
        "the model needs three channels. A grey image has one, and one with an alpha "
        "channel has four: convert every image to RGB first, `image.convert('RGB')`."
    ),
}


def _models_and_images() -> list[tuple]:
    rng = np.random.default_rng(12)

    def image(width, height, mode="RGB"):
        pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        return Image.fromarray(pixels).resize((width, height)).convert(mode)

    def model(**settings):
        model = cast(Any, nn.Identity())
        model.preprocessing = settings
        return model

    own = model(img_size=64, **HALF, crop_pct=0.8)
    other = {"mean": (0.6, 0.5, 0.4), "std": (0.2, 0.3, 0.4)}
    return [
        (own, [image(90, 70), image(50, 110)]),
        (model(img_size=32, **other, crop_pct=0.5), [image(60, 60), image(40, 80)]),
        (model(img_size=(24, 40), **other), [image(70, 50)]),
        (model(**other, interpolation="bicubic", img_size=32), [image(90, 70)]),
        (model(img_size=16), [image(30, 30)] * 3),
        (model(img_size=16), [image(80, 60, "L"), image(9, 9)]),
        (own, [image(80, 60, "RGBA")]),
    ]


def _call_prepare(answer, model, images: list):
    settings, given = dict(model.preprocessing), list(images)
    found = answer(model, given)
    same = len(given) == len(images) and all(map(is_, given, images))
    hint(same, "your code changes the list of images that it was given.")
    hint(
        model.preprocessing == settings,
        "your code changes `model.preprocessing`: the next caller gets wrong settings.",
    )
    return found


check_prepared_images = Task(
    "prepare",
    "mended: each model gets its images preprocessed as in its training",
    Case(
        inputs=_models_and_images,
        call=_call_prepare,
        right=_prepared(),
        mistakes=PREPARED,
        gradient=False,
        advice="`create_transform` takes all that `model.preprocessing` holds.",
    ),
)

# 3. Twenty per cent of the data


class _Fit:
    """Stands in for training: notes what it gets, and gives back a known head."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.runs = []  # features, labels, head

    def __call__(self, features, labels) -> nn.Linear:
        kinds = isinstance(features, Tensor) and isinstance(labels, Tensor)
        hint(kinds, "`fit` needs two tensors: features and labels")
        hint(
            features.ndim == 2 and labels.shape == features.shape[:1],
            f"`fit` got features of shape {tuple(features.shape)} and labels of shape "
            f"{tuple(labels.shape)}. Choose both with the same indices.",
        )
        features = features.detach().clone()
        head = nn.Linear(features.shape[1], self.num_classes)
        for k in range(self.num_classes):  # the nearest mean of a class wins
            own = features[labels == k] if (labels == k).any() else features
            head.weight.data[k] = own.mean(0)
        head.bias.data = -head.weight.data.square().sum(1) / 2
        self.runs.append((features, labels.clone(), head))
        return head


def _sets(seed: int, counts: tuple[int, ...], test: int) -> tuple:
    """Training and test features with labels, mixed; some classes are larger."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    test_labels = torch.randint(len(counts), (test,), generator=generator)
    middles = 1.2 * torch.randn(len(counts), 5, generator=generator)
    return tuple(
        (middles[y] + torch.randn(len(y), 5, generator=generator), y)
        for y in (labels, test_labels)
    )


def _rows(features: Tensor, of: Tensor) -> list[int]:
    """Which rows of `of` these are; -1 for a row that is not among them."""
    same = (features[:, None] == of[None]).all(-1)
    return [int(row.nonzero()[0]) if row.any() else -1 for row in same]


def _check_subset(size: int, features, labels, train: tuple, test: tuple) -> set[int]:
    """Checks one subset; returns the indices of its images."""
    rows = _rows(features, train[0])
    hint(
        -1 not in rows or max(_rows(features, test[0])) < 0,
        "the head is trained on test images. They may be used for the accuracy only.",
    )
    hint(-1 not in rows, "`fit` got features that are not rows of the training set")
    hint(
        torch.equal(labels, train[1][rows]),
        "the labels do not belong to the features: choose both with the same indices.",
    )
    hint(
        len(set(rows)) == len(rows),
        "an image is in the subset twice: draw without replacement.",
    )
    counts = labels.bincount(minlength=int(train[1].max()) + 1).tolist()
    hint(
        set(counts) == {size},
        f"with size {size}, `fit` got {counts} images of the classes. A balanced "
        f"subset has {size} of *each* class.",
    )
    return set(rows)


def _check_accuracy(size: int, found, run: tuple, train: tuple, test: tuple) -> None:
    *subset, head = run

    def fraction(features, labels):
        with torch.no_grad():
            return (head(features).argmax(1) == labels).float().mean().item()

    number = isinstance(found, int | float) or getattr(found, "ndim", 1) == 0
    hint(number, f"for size {size} it gives {type(found).__name__}, expected a number")
    right = fraction(*test)
    known = {
        "the accuracy is a fraction in 0 … 1, not per cent.": 100 * right,
        "this is a count. Divide by the number of test images.": right * len(test[1]),
        "this is the accuracy on the images that the head was trained on. Measure on "
        "the test images.": fraction(*subset),
        "this is the accuracy on all training images. Measure on the test images.": (
            fraction(*train)
        ),
    }
    if abs(float(found) - right) > 1e-4:
        for text, value in known.items():
            hint(abs(float(found) - value) > 1e-4, text)
        hint(
            False,
            f"for size {size} it gives {found:.4g}, and the head that was trained with "
            f"this size has {right:.4g} on the test images. Does each size use its own "
            "head, and is it the plain fraction of correct predictions, not rounded?",
        )


def _check_curve(answer, data: tuple, sizes, seed: int) -> list[set[int]]:
    """Checks one call; returns which images were used, the smallest size first."""
    given, (train, test) = copy.deepcopy(data), data
    fit = _Fit(int(train[1].max()) + 1)
    found = answer(*given, sizes, fit, seed)
    hint(found is not None, NO_RETURN)
    keys = isinstance(found, dict) and set(found) == set(sizes)
    hint(keys, "give back a dict: for each size its accuracy")
    hint(
        len(fit.runs) == len(sizes),
        f"`fit` was called {len(fit.runs)} times for {len(sizes)} sizes. Each size "
        "needs one head of its own.",
    )
    runs = sorted(fit.runs, key=lambda run: len(run[1]))
    pairs = list(zip(sorted(sizes), runs, strict=True))
    chosen = [_check_subset(size, run[0], run[1], train, test) for size, run in pairs]
    for size, run in pairs:
        _check_accuracy(size, found[size], run, train, test)
    unchanged = map(torch.equal, given[0] + given[1], train + test)
    hint(all(unchanged), "your code changes the tensors that it was given")
    hint(
        all(few <= more for few, more in zip(chosen, chosen[1:], strict=False)),
        "a larger subset does not hold the smaller one, so they differ in more than "
        "their size. Shuffle once, and take the first of each class.",
    )
    return chosen


def _check_curves(answer) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    three, four = _sets(1, (14, 17, 12), 31), _sets(2, (7, 6, 9, 8), 17)
    try:
        first = _check_curve(answer, three, (3, 6, 9), 0)
        for other in (2, 3):  # the global state is another one now
            torch.manual_seed(other)
            random.seed(other)
            np.random.seed(other)
            hint(
                _check_curve(answer, three, (3, 6, 9), 0) == first,
                "the same seed gives other images each time. Draw with a generator "
                "that gets the seed: torch.Generator().manual_seed(seed).",
            )
        seeds = [_check_curve(answer, three, (3, 6), seed) for seed in (1, 2, 3)]
        hint(
            any(chosen != first[:2] for chosen in seeds),
            "every seed gives the same images: are these the first of each class? Draw "
            "them at random, with the seed.",
        )
        _check_curve(answer, four, (5, 2), 0)
        _check_curve(answer, four, (6,), 4)
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])


check_accuracy_by_size = Task(
    "accuracy_by_size",
    "accuracy of balanced, nested subsets, on one test set",
    also=[_check_curves],
)

# 4. Another resolution

POSITIONS = "embedding.position_embedding.weight"


def _positions(change: Callable) -> Callable:
    """The new positions by `change(weight, old grid, new grid)`."""

    def positions(kind: str, size) -> Tensor:
        embedding = _vit(kind).embedding
        patch = embedding.patch_embedding.patcher.kernel_size[0]
        rows, columns = (size, size) if isinstance(size, int) else size
        old = embedding.position_embedding
        return change(old.weight.detach(), old.grid, (rows // patch, columns // patch))

    return positions


def _in_a_row(x: Tensor, count: int) -> Tensor:
    return F.interpolate(x.mT, count, mode="linear").mT


def _no_class_token(weight: Tensor, old, new) -> Tensor:
    right = interpolate_position_embedding(weight, old, new)
    return torch.cat([torch.zeros_like(right[:, :1]), right[:, 1:]], dim=1)


def _by(mode: str) -> Callable:
    def change(weight: Tensor, old, new) -> Tensor:
        maps = F.interpolate(weight[:, 1:].mT.unflatten(2, old), new, mode=mode)
        return torch.cat([weight[:, :1], maps.flatten(2).mT], dim=1)

    return _positions(change)


NEW_POSITIONS = {
    (
        _positions(lambda w, old, new: _in_a_row(w, 1 + new[0] * new[1])),
        _positions(
            lambda w, old, new: torch.cat(
                [w[:, :1], _in_a_row(w[:, 1:], new[0] * new[1])], dim=1
            )
        ),
    ): (
        "the positions are interpolated as one long row. Patches lie on a grid: "
        "section 3.2 interpolates in 2-D."
    ),
    _positions(
        lambda w, old, new: F.pad(w, (0, 0, 0, 1 + new[0] * new[1] - w.shape[1]))
    ): (
        "the old positions are cut off, or padded with zeros: then most patches stand "
        "in the wrong place. Interpolate them."
    ),
    _positions(lambda w, old, new: interpolate_position_embedding(w, old, new[::-1])): (
        "rows and columns of the new grid are swapped: it is (rows, columns)."
    ),
    _positions(_no_class_token): (
        "row 0 of the positions belongs to the class token. It is kept as it is."
    ),
    (_by("nearest"), _by("bilinear"), _by("bicubic")): (
        "the positions are interpolated in another way than in lesson 05b. Use "
        "`interpolate_position_embedding`, or `load_weights`, which calls it."
    ),
}


SIZES = [
    ("a ViT for 16 pixels", 24),
    ("a ViT for 16 pixels", (16, 24)),
    ("a ViT for 24 pixels", 16),
    ("a ViT for 12 pixels", 12),
]


def _call_resolution(answer, model: ViT, kind: str, size) -> ViT:
    """Makes the new model, and looks whether the given one stays as it is."""
    settings, old_size = _settings(model), model.embedding.img_size
    new = answer(model, size)
    hint(new is not None, NO_RETURN)
    hint(isinstance(new, ViT), f"it gives {type(new).__name__}, expected a ViT")
    hint(
        _same_weights(model, kind) and model.embedding.img_size == old_size,
        "the given model has changed. Make a new one, so that both can be used.",
    )
    hint(
        new is not model,
        "it gives back the given model itself. Make a new one, also for the size that "
        "it has already: fine-tuning it must not change the given one.",
    )
    hint(
        _settings(model) == settings,
        "the given model has the same weights as before, and something else is not: is "
        "it still in evaluation mode, and as trainable as before?",
    )
    return new


def _call_positions(answer, kind: str, size) -> Tensor:
    new = _call_resolution(answer, copy.deepcopy(_vit(kind)), kind, size)
    found, expected = new.state_dict(), _vit(kind).state_dict()
    more = sorted(set(found) ^ set(expected))[:3]
    hint(not more, f"the new model has other parts: {more} …")
    for name in (name for name in expected if name != POSITIONS):
        same = found[name].shape == expected[name].shape
        hint(
            same or not name.endswith("patcher.weight"),
            "the patches have another size. They keep it, so that a larger image has "
            "more patches (section 3.2).",
        )
        hint(
            same,
            f"`{name}` has shape {tuple(found[name].shape)}, in the given model "
            f"{tuple(expected[name].shape)}. Read all sizes from that model, also the "
            "number of classes and of channels.",
        )
        hint(
            torch.equal(found[name], expected[name]),
            f"`{name}` is not that of the given model. All weights but the positions "
            "stay the same, the head's, too.",
        )
    return found[POSITIONS]


def _check_new_model(answer) -> None:
    """Checks all but the weights."""
    from going_modular.transfer import load_weights, read_sizes  # torchvision takes 2 s

    for kind, size in SIZES:
        model, settings = copy.deepcopy(_vit(kind)), _vit(kind).preprocessing
        new = _call_resolution(answer, model, kind, size)
        hint(
            not new.training,
            "the new model is in training mode, so dropout would change its logits. "
            "Give it back in evaluation mode.",
        )
        sides = (size, size) if isinstance(size, int) else size
        sizes: dict[str, Any] = read_sizes(model.state_dict()) | {"img_size": size}
        images = _images(1, 2, sizes["in_channels"], *sides)
        hint(
            new.embedding.img_size == sides,
            "the new model still refuses images of the new size: its embedding keeps "
            "the old size and grid. Build a new ViT for that size.",
        )
        right = ViT(**sizes).eval()
        load_weights(right, model.state_dict())
        with torch.no_grad():
            close = torch.allclose(new(images), right(images), atol=1e-4, rtol=1e-4)
        hint(
            close,
            "all weights are right, and the logits are not. Has the new model other "
            "sizes that no weight shows, such as the number of heads?",
        )
        have = getattr(new, "preprocessing", None)
        hint(
            isinstance(have, dict),
            "the attribute `preprocessing` is missing in the new model, or is no dict",
        )
        hint(
            model.preprocessing == settings,
            "the given model's `preprocessing` has changed, too: copy the dict.",
        )
        wanted = settings | {"img_size": size}
        hint(
            have in (wanted, settings | {"img_size": sides}),
            f"`preprocessing` should be {wanted}, it is {have}",
        )
        shared = {p.data_ptr() for p in model.parameters()}
        hint(
            not any(p.data_ptr() in shared for p in new.parameters()),
            "both models hold the same tensors: fine-tuning the new one would change "
            "the given one. Copy the weights.",
        )
        hint(
            all(p.requires_grad for p in new.parameters()),
            "a parameter of the new model has requires_grad=False: it could not be "
            "fine-tuned.",
        )


check_resolution = Task(
    "at_resolution",
    "the same weights at another resolution",
    Case(
        inputs=SIZES,
        call=_call_positions,
        right=_positions(interpolate_position_embedding),
        mistakes=NEW_POSITIONS,
        gradient=False,
        advice=(
            "The positions are not those of the given model, interpolated to the new "
            "grid. Are they random ones, of a model that was just made?"
        ),
    ),
    also=[_check_new_model],
)
