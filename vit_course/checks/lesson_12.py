"""Checks of the exercises of lesson 12: transfer learning."""

import copy
import random
from collections.abc import Callable
from operator import is_
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from going_modular.data_setup import IMAGENET_MEAN, IMAGENET_STD, create_transform
from going_modular.position_embedding import interpolate_position_embedding
from going_modular.transfer import POSITIONS, load_weights
from going_modular.vit import ViT
from vit_course.checks.hints import (
    NO_RETURN,
    Hint,
    compare,
    hint,
    learners_code,
    passed,
)


def _small_vit(seed: int, heads: int = 1, **sizes) -> ViT:
    """A ViT with heads of dimension 64, all its weights random."""
    small: dict[str, Any] = {"num_transformer_layers": 2, "mlp_size": 32}
    small |= {"num_classes": 3} | sizes
    model = ViT(embedding_dim=64 * heads, num_heads=heads, **small)
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator)
    return model.eval()


def _images(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _same_weights(model: nn.Module, before: dict) -> bool:
    after = model.state_dict()
    return set(after) == set(before) and all(
        torch.equal(after[name], before[name]) for name in before
    )


def _settings(model: nn.Module) -> list:
    """What a function may change beside weights: modes, hooks, what is frozen."""
    plain = bool | int | float | str | tuple
    own = [
        {
            name: value
            for name, value in vars(module).items()
            if isinstance(value, plain)
        }
        for module in model.modules()
    ]
    hooks = [len(m._forward_hooks | m._forward_pre_hooks) for m in model.modules()]
    return [own, hooks, [p.requires_grad for p in model.parameters()]]


# 1. The mean of the patch tokens


def _z(vit: ViT, images: torch.Tensor) -> torch.Tensor:
    return vit.encoder(vit.embedding(images))


FEATURE_MISTAKES = {
    "the class token is averaged in. Leave row 0 out: only the patch tokens count.": (
        lambda vit, x: vit.layer_norm(_z(vit, x)).mean(1)
    ),
    "these are the features of the class token, which the head has read so far. Take "
    "the other rows.": lambda vit, x: vit.layer_norm(_z(vit, x))[:, 0],
    "the last LayerNorm is missing: Equation 4 applies it after the encoder.": (
        lambda vit, x: _z(vit, x)[:, 1:].mean(1)
    ),
    "LayerNorm comes after the mean. Normalise each token first, then average: the "
    "two give different values.": lambda vit, x: vit.layer_norm(
        _z(vit, x)[:, 1:].mean(1)
    ),
    "these are tokens before the encoder. Send z_0 through all its blocks.": (
        lambda vit, x: vit.layer_norm(vit.embedding(x))[:, 1:].mean(1)
    ),
    "the last patch is left out, and the class token is not: it is token 0.": (
        lambda vit, x: vit.layer_norm(_z(vit, x))[:, :-1].mean(1)
    ),
    "this is the sum over the patches: it grows with their number.": (
        lambda vit, x: vit.layer_norm(_z(vit, x))[:, 1:].sum(1)
    ),
    "this is the maximum of each feature, not the mean.": (
        lambda vit, x: vit.layer_norm(_z(vit, x))[:, 1:].amax(1)
    ),
    "this is the mean over the D features of each token. Average over the tokens, axis "
    "1, so that D features remain.": lambda vit, x: vit.layer_norm(_z(vit, x))[
        :, 1:
    ].mean(2),
    "this is the mean over the images. Average over the tokens, axis 1.": (
        lambda vit, x: vit.layer_norm(_z(vit, x))[:, 1:].mean(0)
    ),
    "these are logits. Features are what the head gets, so leave the head out.": (
        lambda vit, x: vit.head(vit.layer_norm(_z(vit, x))[:, 1:].mean(1))
    ),
    "this is one token of each image. Average over all patch tokens.": (
        lambda vit, x: vit.layer_norm(_z(vit, x))[:, 1]
    ),
}


def check_patch_features(answer: Callable) -> None:
    """Checks the mean of the patch tokens as features.

    Raises:
        Hint: it is not right yet.
    """
    models = {
        "a ViT with 6 patches": _small_vit(1, img_size=(8, 12), patch_size=4),
        "one with 4 patches": _small_vit(2, heads=2, img_size=8, patch_size=4),
        "one with one patch": _small_vit(3, img_size=4, patch_size=4, in_channels=1),
    }
    before = {kind: copy.deepcopy(m.state_dict()) for kind, m in models.items()}
    settings = {kind: _settings(m) for kind, m in models.items()}

    def of(function):
        return lambda kind, images: function(models[kind], images)

    compare(
        of(answer),
        of(lambda vit, x: vit.layer_norm(_z(vit, x))[:, 1:].mean(1)),
        [
            ("a ViT with 6 patches", _images(1, 3, 3, 8, 12)),
            ("a ViT with 6 patches", _images(2, 1, 3, 8, 12)),
            ("one with 4 patches", _images(3, 5, 3, 8, 8)),
            ("one with one patch", _images(4, 2, 1, 4, 4)),
        ],
        {text: of(wrong) for text, wrong in FEATURE_MISTAKES.items()},
        tolerance=1e-4,
        gradient=False,
        advice="Embedding, encoder, LayerNorm; then the mean over the patch tokens.",
    )
    for kind, model in models.items():
        hint(
            _same_weights(model, before[kind]),
            "your function changes the model, so the next caller gets other outputs.",
        )
        hint(
            _settings(model) == settings[kind],
            "the weights are as before, and something else of the model is not: is it "
            "still in evaluation mode, as trainable as before, without new hooks?",
        )
    passed("features: the mean of the patch tokens")


# 2. Find the bug: preprocessing for a model


def _stack(images, img_size, mean=None, std=None, crop_pct=None, rgb=True):
    transform = create_transform(img_size, mean, std, crop_pct)
    images = [p.convert("RGB") if rgb else p for p in images]
    return torch.stack([transform(p) for p in images])


def _imagenet(images, img_size, mean=None, std=None, crop_pct=None):
    return _stack(images, img_size, IMAGENET_MEAN, IMAGENET_STD, crop_pct)


def _with_defaults(default_mean, default_std):
    """Prepares images, with a mean and standard deviation for models that have none."""

    def prepare(images, img_size, mean=default_mean, std=default_std, crop_pct=None):
        return _stack(images, img_size, mean, std, crop_pct)

    return prepare


NOT_SCALED = (
    "this model's `preprocessing` has no mean and standard deviation: its pixel values "
    "stay in 0 … 1. Put no others in their place."
)
HALF = (0.5, 0.5, 0.5)
PREPARE_MISTAKES = {
    NOT_SCALED: _with_defaults(IMAGENET_MEAN, IMAGENET_STD),
    NOT_SCALED + " ": _with_defaults(HALF, HALF),
    "the images are still normalised with ImageNet's mean and standard deviation. This "
    "model was trained with its own: they are in `model.preprocessing`.": _imagenet,
    "size and normalisation are those of ImageNet, not of this model. All that it "
    "needs is in `model.preprocessing`.": (
        lambda images, img_size, mean=None, std=None, crop_pct=None: _stack(
            images, img_size, IMAGENET_MEAN, IMAGENET_STD
        )
    ),
    "the normalisation is right now. But this model was trained on centre crops "
    "(`crop_pct`), and your images are resized without a crop.": (
        lambda images, img_size, mean=None, std=None, crop_pct=None: _stack(
            images, img_size, mean, std
        )
    ),
    "the pixel values are left in 0 … 1. This model expects them normalised with its "
    "mean and standard "
    "deviation.": lambda images, img_size, mean=None, std=None, crop_pct=None: _stack(
        images, img_size, None, None, crop_pct
    ),
    "every image gets 64 x 64 pixels. Another model may want another size: it is in "
    "`model.preprocessing`.": (
        lambda images, img_size, mean=None, std=None, crop_pct=None: _stack(
            images, 64, mean, std, crop_pct
        )
    ),
    "the mean and standard deviation are 0.5 for every model. Another model may have "
    "others: they are in `model.preprocessing`.": (
        lambda images, img_size, mean=None, std=None, crop_pct=None: _stack(
            images, img_size, (0.5,) * 3, (0.5,) * 3, crop_pct
        )
    ),
    "only the first image is prepared.": (
        lambda images, **settings: _stack(images[:1], **settings)
    ),
    "a batch is missing: stack the images to (B, 3, height, width), also one.": (
        lambda images, **settings: _stack(images, **settings).squeeze(0)
    ),
    "the model needs three channels. A grey image has one, and one with an alpha "
    "channel has four: convert every image to RGB first, `image.convert('RGB')`.": (
        lambda images, **settings: _stack(images, **settings, rgb=False)
    ),
}


def check_prepared_images(answer: Callable) -> None:
    """Checks that images are preprocessed with the model's own settings.

    Raises:
        Hint: it is not right yet.
    """
    rng = np.random.default_rng(12)

    def image(width, height, mode="RGB"):
        pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        return Image.fromarray(pixels).resize((width, height)).convert(mode)

    own = {"img_size": 64, "mean": HALF, "std": HALF, "crop_pct": 0.8}
    other = {"img_size": 32, "mean": (0.6, 0.5, 0.4), "std": (0.2, 0.3, 0.4)}
    cases = {
        "two images": ([image(90, 70), image(50, 110)], own),
        "another model": (
            [image(60, 60), image(40, 80)],
            other | {"crop_pct": 0.5},
        ),
        "images of 24 x 40 pixels": (
            [image(70, 50)],
            other | {"img_size": (24, 40)},
        ),
        "a model trained on 0 … 1": ([image(30, 30)] * 3, {"img_size": 16}),
        "a grey image and another": (
            [image(80, 60, "L"), image(9, 9)],
            {"img_size": 16},
        ),
        "an image with an alpha channel": ([image(80, 60, "RGBA")], own),
    }

    def learners(kind):
        images, settings = cases[kind]
        model = cast(Any, nn.Identity())
        model.preprocessing = dict(settings)
        given = list(images)
        found = answer(model, given)
        same = len(given) == len(images) and all(map(is_, given, images))
        hint(same, "your code changes the list of images that it was given.")
        hint(
            model.preprocessing == settings,
            "your code changes `model.preprocessing`: the next caller gets wrong "
            "settings.",
        )
        return found

    def of(function):
        return lambda kind: function(cases[kind][0], **cases[kind][1])

    compare(
        learners,
        of(_stack),
        [(kind,) for kind in cases],
        {text: of(wrong) for text, wrong in PREPARE_MISTAKES.items()},
        gradient=False,
        advice="`create_transform` takes all that `model.preprocessing` holds.",
    )
    passed("mended: each model gets its images preprocessed as in its training")


# 3. Twenty per cent of the data


class _Fit:
    """Stands in for training: notes what it gets, and gives back a known head."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes, self.calls, self.heads = num_classes, [], []

    def __call__(self, features, labels) -> nn.Linear:
        kinds = isinstance(features, torch.Tensor) and isinstance(labels, torch.Tensor)
        hint(kinds, "`fit` needs two tensors: features and labels")
        hint(
            features.ndim == 2 and labels.shape == features.shape[:1],
            f"`fit` got features of shape {tuple(features.shape)} and labels of shape "
            f"{tuple(labels.shape)}. Choose both with the same indices.",
        )
        self.calls.append((features.detach().clone(), labels.clone()))
        weight = torch.stack(
            [
                features[labels == k].mean(0) if (labels == k).any() else features[0]
                for k in range(self.num_classes)
            ]
        ).detach()
        head = nn.Linear(features.shape[1], self.num_classes)
        head.weight.data = weight  # the nearest mean of a class wins
        head.bias.data = -weight.square().sum(1) / 2
        self.heads.append(head)
        return head


def _features(seed: int, counts: tuple[int, ...], test: int) -> tuple:
    """Training and test features with labels, mixed; some classes are larger."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    test_labels = torch.randint(len(counts), (test,), generator=generator)
    middles = 1.2 * torch.randn(len(counts), 5, generator=generator)
    sets = []
    for y in (labels, test_labels):
        noise = torch.randn(len(y), 5, generator=generator)
        sets.append((middles[y] + noise, y))
    return tuple(sets)


def _rows(features: torch.Tensor, of: torch.Tensor) -> list[int]:
    """Which rows of `of` these are; -1 for a row that is not among them."""
    same = (features[:, None] == of[None]).all(-1)
    return [int(row.nonzero()[0]) if row.any() else -1 for row in same]


def _check_chosen(size: int, call: tuple, train: tuple, test: tuple) -> set[int]:
    """Checks one subset; returns the indices of its images."""
    features, labels = call
    classes = int(train[1].max()) + 1
    rows = _rows(features, train[0])
    if -1 in rows:
        hint(
            all(i < 0 for i in _rows(features, test[0])),
            "the head is trained on test images. They may be used for the accuracy "
            "only.",
        )
        raise Hint("`fit` got features that are not rows of the training features")
    hint(
        torch.equal(labels, train[1][rows]),
        "the labels do not belong to the features: choose both with the same indices.",
    )
    hint(
        len(set(rows)) == len(rows),
        "an image is in the subset twice: draw without replacement.",
    )
    hint(
        len(rows) != size,
        f"with size {size}, `fit` got {size} images in all. A size counts the images "
        "of *each* class.",
    )
    hint(
        len(rows) != len(train[1]) or len(rows) == classes * size,
        "`fit` got all the training images, whatever the size.",
    )
    counts = labels.bincount(minlength=classes).tolist()
    hint(
        counts == [size] * classes,
        f"with size {size}, `fit` got {counts} images of the classes. A balanced "
        f"subset has {size} of each.",
    )
    return set(rows)


def _check_accuracy(size, found, head, call, train, test) -> None:
    def fraction(pair, n=None):
        with torch.no_grad():
            right = head(pair[0]).argmax(1) == pair[1]
        return right[:n].float().mean().item()

    number = isinstance(found, int | float) or getattr(found, "ndim", 1) == 0
    hint(number, f"for size {size} it gives {type(found).__name__}, expected a number")
    found, right = float(found), fraction(test)
    known = {
        "the accuracy is a fraction in 0 … 1, not per cent.": 100 * right,
        "this is a count of correct predictions. Divide by the number of test "
        "images.": (right * len(test[1])),
        "this is the accuracy on the images that the head was trained on. Measure on "
        "the test images.": fraction(call),
        "this is the accuracy on all the training images. Measure on the test "
        "images.": fraction(train),
        "this is the fraction of wrong predictions.": 1 - right,
        "the accuracy is measured on a part of the test images only. All sizes need "
        "the same test set, all of it.": fraction(test, len(call[1])),
        "the accuracy is measured on the first test images only. All sizes need the "
        "same test set, all of it.": fraction(test, size),
    }
    if abs(found - right) > 1e-4:
        for text, value in known.items():
            hint(abs(found - value) > 1e-4, text)
        raise Hint(
            f"for size {size} it gives {found:.4g}, and the head that was trained with "
            f"this size has {right:.4g} on the test images. Does each size use its own "
            "head, and is it the plain fraction of correct predictions, not rounded?"
        )


def _check_curve(answer, train, test, sizes, seed, was_right=0) -> dict:
    """Checks one call; returns for each size which images were used."""
    given = copy.deepcopy((train, test))
    fit = _Fit(int(train[1].max()) + 1)
    with learners_code(was_right=was_right):
        found = answer(*given, sizes, fit, seed)
    hint(found is not None, NO_RETURN)
    keys = isinstance(found, dict) and set(found) == set(sizes)
    hint(keys, "give back a dict: for each size its accuracy")
    hint(
        len(fit.calls) == len(sizes),
        f"`fit` was called {len(fit.calls)} times for {len(sizes)} sizes. Each size "
        "needs one head of its own.",
    )
    # In whatever order the sizes were tried.
    runs = sorted(
        zip(fit.calls, fit.heads, strict=True), key=lambda run: len(run[0][1])
    )
    chosen = {}
    for size, (call, _) in zip(sorted(sizes), runs, strict=True):
        chosen[size] = _check_chosen(size, call, train, test)
    for size, (call, head) in zip(sorted(sizes), runs, strict=True):
        _check_accuracy(size, found[size], head, call, train, test)
    pairs = zip(given[0] + given[1], train + test, strict=True)
    unchanged = all(torch.equal(a, b) for a, b in pairs)
    hint(unchanged, "your code changes the tensors that it was given")
    subsets = list(chosen.values())
    for few, more in zip(subsets, subsets[1:], strict=False):
        hint(
            few <= more,
            "a larger subset does not hold the smaller one, so they differ in more "
            "than their size. Shuffle once, and take the first of each class.",
        )
    return chosen


def check_accuracy_by_size(answer: Callable) -> None:
    """Checks the measured accuracy for balanced subsets of several sizes.

    Raises:
        Hint: it is not right yet.
    """
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    train, test = _features(1, (14, 17, 12), 31)
    try:
        torch.manual_seed(1)
        first = _check_curve(answer, train, test, (3, 6, 9), 0)
        for other in (2, 3):  # the global state is another one now
            torch.manual_seed(other)
            random.seed(other)
            np.random.seed(other)
            again = _check_curve(answer, train, test, (3, 6, 9), 0, 1)
            hint(
                again == first,
                "the same seed gives other images each time. Draw with a generator "
                "that gets the seed: torch.Generator().manual_seed(seed).",
            )
        others = [_check_curve(answer, train, test, (3, 6), s, 1) for s in (1, 2, 3)]
        hint(
            any(chosen[6] != first[6] for chosen in others),
            "every seed gives the same images: are these the first of each class? Draw "
            "them at random, with the seed.",
        )
        four = _features(2, (7, 6, 9, 8), 17)
        _check_curve(answer, *four, sizes=(5, 2), seed=0, was_right=1)
        _check_curve(answer, *four, sizes=(6,), seed=4, was_right=1)
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])
    passed("accuracy of balanced, nested subsets, on one test set")


# 4. Another resolution


def _positions(model: ViT, grid: tuple[int, int], mistake: str = "") -> torch.Tensor:
    """Positions for another grid: the right ones, or with a mistake."""
    old = model.embedding.position_embedding
    weight, new = old.weight.detach(), 1 + grid[0] * grid[1]
    if mistake == "one row":
        return F.interpolate(weight.mT, new, mode="linear").mT
    if mistake == "one row of patches":
        patches = F.interpolate(weight[:, 1:].mT, new - 1, mode="linear").mT
        return torch.cat([weight[:, :1], patches], dim=1)
    if mistake == "padded":
        return F.pad(weight, (0, 0, 0, new - weight.shape[1]))
    if mistake == "swapped":
        return interpolate_position_embedding(weight, old.grid, (grid[1], grid[0]))
    right = interpolate_position_embedding(weight, old.grid, grid)
    if mistake == "no class token":
        right[:, 0] = 0
    if mistake in ("nearest", "bilinear", "bicubic"):
        maps = weight[:, 1:].mT.unflatten(2, old.grid)
        maps = F.interpolate(maps, grid, mode=mistake)
        right = torch.cat([weight[:, :1], maps.flatten(2).mT], dim=1)
    return right


POSITION_MISTAKES = {
    "the positions are interpolated as one long row, class token included. They lie "
    "on a grid: section 3.2 interpolates in 2-D.": "one row",
    "the positions are interpolated as one long row of patches. They lie on a grid: "
    "section 3.2 interpolates in 2-D.": "one row of patches",
    "the old positions are cut off, or padded with zeros: then most patches stand "
    "in the wrong place. Interpolate them.": "padded",
    "rows and columns of the new grid are swapped: it is (rows, columns).": "swapped",
    "row 0 of the positions belongs to the class token. It is kept as it is.": (
        "no class token"
    ),
    "the positions are interpolated in another way than in lesson 05b. Use "
    "`interpolate_position_embedding`, or `load_weights`, which calls it.": (
        "bilinear,bicubic,nearest"
    ),
}


def _check_new_positions(found, model: ViT, grid: tuple[int, int]) -> None:
    right = _positions(model, grid)
    if found.shape == right.shape and torch.allclose(found, right, atol=1e-5):
        return
    for text, mistakes in POSITION_MISTAKES.items():
        for mistake in mistakes.split(","):
            wrong = _positions(model, grid, mistake)
            same = found.shape == wrong.shape and torch.allclose(
                found, wrong, atol=1e-5
            )
            hint(not same, text)
    rows = found.shape[1] if found.ndim == 3 else found.shape
    hint(
        found.shape == right.shape,
        f"a grid of {grid} patches needs {right.shape[1]} positions, class token "
        f"included; your model has {rows}",
    )
    raise Hint(
        "the positions are not those of the given model, interpolated to the new grid. "
        "Are they random ones, of a model that was just made?"
    )


def _check_weights(new: ViT, model: ViT) -> None:
    found, expected = new.state_dict(), model.state_dict()
    hint(
        set(found) == set(expected),
        f"the new model has other parts: {sorted(set(found) ^ set(expected))[:3]} …",
    )
    for name, tensor in expected.items():
        if name == POSITIONS:
            continue
        hint(
            not name.endswith("patcher.weight") or found[name].shape == tensor.shape,
            "the patches have another size. They keep it, so that a larger image has "
            "more patches (section 3.2).",
        )
        hint(
            found[name].shape == tensor.shape and torch.equal(found[name], tensor),
            f"`{name}` is not that of the given model. All weights but the positions "
            "stay the same, the head's, too.",
        )


def check_resolution(answer: Callable) -> None:
    """Checks a copy of a ViT that works at another resolution.

    Raises:
        Hint: it is not right yet.
    """
    settings = {"mean": HALF, "std": HALF, "crop_pct": 0.8}
    cases = [  # model, size of its patches, its images, the new ones
        (_small_vit(1, heads=3, img_size=16, patch_size=4), 4, 16, 24),
        (_small_vit(2, heads=3, img_size=16, patch_size=4), 4, 16, (16, 24)),
        (_small_vit(3, heads=6, img_size=24, patch_size=8), 8, 24, 16),
        (_small_vit(4, heads=3, img_size=12, patch_size=4, num_classes=5), 4, 12, 12),
    ]
    for i, (model, patch, old_size, size) in enumerate(cases):
        model.preprocessing = {"img_size": old_size, **settings}
        before = copy.deepcopy(model.state_dict()), _settings(model)
        shape = (size, size) if isinstance(size, int) else size
        images = _images(i, 2, 3, *shape)
        with learners_code(was_right=i):
            new = answer(model, size)
        hint(new is not None, NO_RETURN)
        hint(isinstance(new, ViT), f"it gives {type(new).__name__}, expected a ViT")
        hint(
            _same_weights(model, before[0])
            and model.embedding.img_size == (old_size, old_size),
            "the given model has changed. Make a new one, so that both can be used.",
        )
        hint(
            new is not model,
            "it gives back the given model itself. Make a new one, also for the size "
            "that it has already: fine-tuning it must not change the given one.",
        )
        hint(
            _settings(model) == before[1],
            "the given model has the same weights as before, and something else is "
            "not: is it still in evaluation mode, and as trainable as before?",
        )
        _check_weights(new, model)
        grid = shape[0] // patch, shape[1] // patch
        _check_new_positions(new.state_dict()[POSITIONS], model, grid)
        hint(
            not new.training,
            "the new model is in training mode, so dropout would change its logits. "
            "Give it back in evaluation mode.",
        )
        with learners_code(was_right=i):
            logits = new(images)
        expected = _reference(model, size, images)
        hint(
            logits.shape == expected.shape
            and torch.allclose(logits, expected, atol=1e-4, rtol=1e-4),
            "all weights are right, and the logits are not. Has the new model other "
            "sizes that no weight shows, such as the number of heads?",
        )
        wanted = {**settings, "img_size": size}
        have = getattr(new, "preprocessing", None)
        if not isinstance(have, dict):
            raise Hint(
                "the attribute `preprocessing` is missing in the new model, or is no "
                "dict"
            )
        hint(
            model.preprocessing == {"img_size": old_size, **settings},
            "the given model's `preprocessing` has changed, too: copy the dict.",
        )
        hint(
            have.get("img_size") in (size, shape, list(shape)),
            "`preprocessing['img_size']` is still that of the given model: images for "
            "the new one would come in the old size.",
        )
        hint(
            {**have, "img_size": size} == wanted,
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
    passed("the same weights at another resolution")


def _reference(model: ViT, size, images: torch.Tensor) -> torch.Tensor:
    """Logits at the new size: the weights in a model made for it."""
    dim, channels = model.layer_norm.normalized_shape[0], images.shape[1]
    block = cast(Any, model.encoder[0])  # indexing gives a plain Module
    new = ViT(
        size,
        channels,
        model.state_dict()["embedding.patch_embedding.patcher.weight"].shape[-1],
        len(model.encoder),
        dim,
        block.mlp_block.mlp[0].out_features,
        block.msa_block.attention.num_heads,
        num_classes=model.head.out_features,
    ).eval()
    load_weights(new, model.state_dict())
    with torch.no_grad():
        return new(images)
