"""Tasks of the exercises of lesson 13: predictions and attention."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vit_course.checks.hints import hint
from vit_course.checks.task import Case, Task

# 1. The least confident predictions


def _least(score: Callable) -> Callable:
    """The k images with the smallest score."""
    return lambda logits, k: score(logits).argsort(stable=True)[:k]


def _confidence(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1).max(dim=1).values


def _gap(logits: Tensor) -> Tensor:
    best = logits.softmax(dim=1).topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


LEAST = {
    _least(lambda x: x.max(dim=1).values): (
        "that is the order of the largest logits. 5 beside another 5 is less sure than "
        "2 beside zeros: softmax first."
    ),
    _least(
        lambda x: -_confidence(x)
    ): "these are the most confident ones. The least confident come first.",
    lambda x, k: _confidence(x).argsort(stable=True).argsort()[:k]: (
        "these are ranks: entry i is the rank of image i. Wanted is the order: entry 0 "
        "is the index of the least confident image."
    ),
    _least(lambda x: x.softmax(dim=0).max(dim=1).values): (
        "the softmax runs over the images (dim=0). The probabilities of one image's "
        "classes sum to one: dim=1."
    ),
    (_least(lambda x: (x.softmax(1) * x.log_softmax(1)).sum(dim=1)), _least(_gap)): (
        "that is another measure (entropy, or the margin to the second class). "
        "Confidence is the probability of the predicted class, the largest of the "
        "image."
    ),
    lambda x, k: _confidence(x).sort().values[:k]: (
        "these are the confidences themselves. Give back indices: which images they "
        "are."
    ),
}


def _logits() -> list[tuple]:
    generator = torch.Generator().manual_seed(13)
    shown = torch.tensor([[5.0, 5, 0], [1, 0, 1], [9, 0, 0], [0, 2, 0]])  # (4, 3)
    # Images whose entropies have another order, and no order among the logits.
    spread = torch.tensor(
        [
            [0.50, 0.49, 0.004, 0.003, 0.003],
            [0.60, 0.10, 0.10, 0.10, 0.10],
            [0.52, 0.12, 0.12, 0.12, 0.12],
            [0.90, 0.07, 0.01, 0.01, 0.01],
        ]
    ).log() + torch.tensor([[0.0], [3], [-2], [1]])
    close = torch.tensor([[0.6004, 0.3996], [0.3999, 0.6001], [0.6002, 0.3998]]).log()
    several = torch.randn(9, 5, generator=generator)  # (9, 5)
    several = several * torch.linspace(3, 0.3, 9)[:, None]
    several = several + 4 * torch.randn(9, 1, generator=generator)
    two = torch.randn(6, 2, generator=generator)
    one = torch.tensor([[0.5, 2.0, 1.0]])
    return [(shown, 4), (spread, 3), (several, 7), (close, 2), (two, 6), (one, 1)]


def _equals() -> Tensor:
    """40 images of three confidences only: 1/3, 1/2 and 1, each exactly."""
    none = -1000.0  # exp gives 0
    rows = torch.tensor(
        [[0, 0, 0], [0, none, 0], [none, 0, 0], [none, 0, none], [0, 0, none]]
    )
    generator = torch.Generator().manual_seed(3)
    return rows[torch.randint(5, (40,), generator=generator)]  # (40, 3)


check_least_confident = Task(
    "least_confident",
    "the least confident images, in order",
    Case(inputs=_logits, right=_least(_confidence), mistakes=LEAST, gradient=False),
    Case(
        inputs=[(_equals(), 10), (_equals(), 40)],
        right=_least(_confidence),
        mistakes={
            lambda x, k: (
                _confidence(x).argsort(descending=True, stable=True).flip(0)[:k]
            ): (
                "`flip` turns equals round, too, so the larger index comes first. Sort "
                "upwards: `argsort(stable=True)`."
            )
        },
        gradient=False,
        advice=(
            "Of images that are equally sure the one with the smaller index comes "
            "first: `topk` and `argsort` keep no order among equals, "
            "`argsort(stable=True)` does."
        ),
    ),
)

# 2. Find the bug: how much attention each patch gets


def _map(values: Callable) -> Callable:
    """Maps (B, rows, columns) from a function of the weights that gives (B, N)."""
    return lambda weights, grid: values(weights).unflatten(1, grid)


def _rescaled(weights: Tensor) -> Tensor:
    received = weights.mean(dim=(1, 2))[:, 1:]
    return received / received.sum(dim=1, keepdim=True)


RECEIVED = {
    _map(lambda w: w.mean(dim=(1, 3))[:, 1:]): (
        "every value is the same: each query's weights sum to one over the keys, so "
        "their mean over the keys is 1 / (N + 1) whatever the image. Average over the "
        "queries, not over the keys."
    ),
    _map(lambda w: w[:, :, 0, 1:].mean(dim=1)): (
        "that is the class token's query alone, as in `class_token_map`. Here all N + "
        "1 tokens are queries: average over them, too."
    ),
    _map(lambda w: w[:, :, 1:, 1:].mean(dim=(1, 2))): (
        "the class token's query is left out. The mean is over all N + 1 queries; only "
        "its column, the key, goes."
    ),
    _map(lambda w: w.mean(dim=(1, 2))[:, :-1]): (
        "the last patch is cut off, and the class token drawn in its place: the class "
        "token is column 0."
    ),
    (
        _map(lambda w: w.mean(dim=1).sum(dim=1)[:, 1:]),
        _map(lambda w: w.sum(dim=1).mean(dim=1)[:, 1:]),
    ): "the queries or the heads are added up. Take the mean over both.",
    _map(
        lambda w: w[:, 0].mean(dim=1)[:, 1:]
    ): "this is one head only. Average over all of them.",
    _map(_rescaled): (
        "the map is scaled to sum to one. The class token gets attention as well, and "
        "the task leaves the values as they are."
    ),
    lambda w, grid: w.mean(dim=(1, 2))[:, 1:].unflatten(1, grid[::-1]).mT: (
        "rows and columns of the grid are swapped. The patches are numbered row by "
        "row: `unflatten(-1, grid)` lays them out."
    ),
    _map(lambda w: w.mean(dim=(0, 1, 2))[1:].expand(len(w), -1)): (
        "the map averages over the images, too. Each has a map of its own."
    ),
}


def _weights_and_grids() -> list[tuple]:
    generator = torch.Generator().manual_seed(6)
    inputs = []
    for batch, heads, grid in [(2, 3, (2, 4)), (1, 1, (3, 3)), (3, 2, (5, 2))]:
        tokens = grid[0] * grid[1] + 1
        scores = torch.randn(batch, heads, tokens, tokens, generator=generator)
        inputs.append(((2 * scores).softmax(dim=-1), grid))
    return inputs


check_received_attention = Task(
    "received_attention",
    "mended: what each patch gets, averaged over queries and heads",
    Case(
        inputs=_weights_and_grids,
        right=_map(lambda w: w.mean(dim=(1, 2))[:, 1:]),
        mistakes=RECEIVED,
        gradient=False,
        advice="`weights[b, h, i, j]` is what query i takes from key j.",
    ),
)

# 3. What moves the winning logit?


def _toy(channels: int, height: int, width: int) -> nn.Module:
    """A classifier of 4 classes with another gradient for each image."""
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, 9),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(9, 4),
    )
    generator = torch.Generator().manual_seed(height + 10 * width)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
    return model.eval()


def _by_patch(size: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, rows, columns): the sum of each patch."""
    return size.unfold(2, patch, patch).unfold(3, patch, patch).sum(dim=(1, 4, 5))


def _by_view(size: Tensor, patch: int) -> Tensor:
    batch, _, height, width = size.shape
    return size.sum(dim=1).reshape(batch, height // patch, width // patch, -1).sum(-1)


def _winners(logits: Tensor) -> Tensor:
    return logits.max(dim=1).values.sum()


def _gradient_map(
    score=_winners,
    size=lambda gradient, images: gradient.abs(),
    pool=_by_patch,
    scale=lambda maps: maps / maps.sum(dim=(1, 2), keepdim=True),
):
    """The map; the arguments make mistakes.

    Args:
        score: whose gradient, from the logits.
        size: of the gradient of each pixel; it gets the images, too.
        pool: from pixels to patches.
        scale: of the maps.
    """

    def gradient_map(model, images: Tensor, patch: int) -> Tensor:
        pixels = images.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(score(model(pixels)), pixels)
        return scale(pool(size(gradient, images), patch))

    return gradient_map


GRADIENTS = {
    _gradient_map(torch.sum): (
        "that is the gradient of all logits together. Take the winning one of each "
        "image: `max(dim=1)`."
    ),
    _gradient_map(lambda logits: _winners(logits.softmax(dim=1))): (
        "that is the gradient of a probability, or of its logarithm, the loss. Take "
        "the logit, before the softmax: a probability falls, too, when others rise."
    ),
    (
        _gradient_map(lambda logits: logits[:, logits[0].argmax()].sum()),
        _gradient_map(lambda logits: logits[:, 0].sum()),
    ): (
        "all images use the same class, the first or the one that wins in the first "
        "image. Each has a winning class of its own."
    ),
    _gradient_map(torch.max): (
        "only the image with the largest logit of the batch has a gradient. "
        "`logits.max()` is one number: take the maximum over dim=1."
    ),
    (
        _gradient_map(size=lambda g, x: g),
        _gradient_map(size=lambda g, x: g.sum(dim=1, keepdim=True).abs()),
        _gradient_map(size=lambda g, x: g, pool=lambda g, p: _by_patch(g, p).abs()),
    ): (
        "plus and minus cancel, within a patch or between colours. Take `abs()` before "
        "anything is added up."
    ),
    _gradient_map(size=lambda g, x: g.abs().amax(dim=1, keepdim=True)): (
        "only the largest of the channels is used. Add up all of them."
    ),
    (
        _gradient_map(size=lambda g, x: g**2),
        _gradient_map(pool=lambda g, patch: _by_patch(g**2, patch).sqrt()),
    ): (
        "these are squares, or the square root of their sum. The task adds up absolute "
        "values."
    ),
    _gradient_map(size=lambda g, x: (g * x).abs()): (
        "the gradient is multiplied with the image. That is another map, which is dark "
        "where the image is dark."
    ),
    (
        _gradient_map(scale=lambda maps: maps),
        _gradient_map(
            scale=lambda maps: maps, pool=lambda g, p: _by_patch(g, p) / p**2
        ),
        _gradient_map(
            scale=lambda maps: maps,
            pool=lambda g, p: _by_patch(g, p) / (p**2 * g.shape[1]),
        ),
        _gradient_map(scale=lambda maps: maps / maps.sum()),
        _gradient_map(scale=lambda maps: maps / maps.amax(dim=(1, 2), keepdim=True)),
    ): (
        "the values of an image do not sum to one. Divide each image's map by its own "
        "sum, not by that of the whole batch or by the largest value."
    ),
    _gradient_map(pool=_by_view): (
        "your patches hold pixels of several rows of the image: `view` and `reshape` "
        "cut memory, not the image. Cut height and width (lesson 02)."
    ),
}


def _models_and_images() -> list[tuple]:
    generator = torch.Generator().manual_seed(2)
    inputs = []
    for batch, channels, height, width, patch, frozen in [
        (5, 3, 4, 6, 2, False),
        (1, 3, 6, 6, 3, False),
        (2, 1, 6, 2, 2, True),
    ]:
        model = _toy(channels, height, width).requires_grad_(not frozen)
        images = torch.randn(batch, channels, height, width, generator=generator)
        inputs += [(model, images, patch), (model, images + 0.5, patch)]
    return inputs


def _call_gradient_map(answer, model, images: Tensor, patch: int):
    """Calls the answer, and looks whether it leaves model and images as they are."""
    parameters = list(model.parameters())
    for i, p in enumerate(parameters[1:], start=1):
        p.grad = torch.full_like(p, 0.25 * i)
    before = [(p.requires_grad, p.grad, str(p.grad)) for p in parameters]
    out = answer(model, images, patch)
    hint(
        all(str(p.grad) == a[2] for p, a in zip(parameters, before, strict=True)),
        "the `.grad` of the model's parameters is another one than before: "
        "`backward()` adds to it, `zero_grad()` deletes it. `torch.autograd.grad` "
        "gives a gradient back and stores none.",
    )
    hint(
        all(p.requires_grad == a[0] for p, a in zip(parameters, before, strict=True)),
        "afterwards the parameters have another `requires_grad` than before: training "
        "would change other ones. Leave the model as it was.",
    )
    hint(
        not any(module.training for module in model.modules()),
        "the model is in training mode afterwards. It came in evaluation mode.",
    )
    hint(
        not images.requires_grad,
        "the images that you were given have requires_grad=True now: "
        "`requires_grad_()` changes the tensor itself. `images.detach()` is another "
        "tensor, which may require a gradient.",
    )
    hint(
        not any(module._forward_hooks for module in model.modules()),
        "a hook is left in the model. Take it out again: `handle.remove()`.",
    )
    return out


check_gradient_map = Task(
    "gradient_map",
    "which patches move the winning logit",
    Case(
        inputs=_models_and_images,
        call=_call_gradient_map,
        right=_gradient_map(),
        mistakes=GRADIENTS,
        gradient=False,
        advice=(
            "Is it the sum of |gradient| over all pixels and all channels of a patch, "
            "divided by the sum over the whole image? And are rows and columns in "
            "their places? The top left patch is `[:, :, :P, :P]`."
        ),
    ),
)

# 4. Does the map name what matters?


def _without(images: Tensor, places: Tensor, grid: tuple[int, int]) -> Tensor:
    keep = torch.ones(len(images), grid[0] * grid[1]).scatter(1, places, 0.0)
    patch = images.shape[2] // grid[0]
    mask = keep.view(-1, 1, *grid)
    return images * mask.repeat_interleave(patch, 2).repeat_interleave(patch, 3)


def _order(maps: Tensor) -> Tensor:
    return maps.flatten(1).argsort(dim=1, descending=True)


def _fall(
    choose=lambda maps, k: _order(maps)[:, :k],
    combine=lambda before, after: (before - after).mean(),
    output=lambda logits: logits.softmax(dim=1),
    new_winner=False,
):
    """The measurement for 'highest'; the arguments make mistakes.

    Args:
        choose: which patches are removed.
        combine: of the winners' probabilities with all patches and without some.
        output: what is compared.
        new_winner: whether the class that wins afterwards is taken.
    """

    def measure(model, images, maps, k) -> float:
        with torch.no_grad():
            first = output(model(images))
            rest = _without(images, choose(maps, k), maps.shape[1:])
            then = output(model(rest))
        winner = first.argmax(dim=1, keepdim=True)
        later = then.argmax(dim=1, keepdim=True) if new_winner else winner
        return combine(first.gather(1, winner), then.gather(1, later)).item()

    return measure


FALLS = {
    _fall(lambda maps, k: _order(-maps)[:, :k]): (
        "the lowest patches of the map are removed. `argsort` sorts upwards unless it "
        "is told `descending=True`."
    ),
    _fall(new_winner=True): (
        "after the removal another class may win, and its probability says nothing "
        "about the first prediction. Keep the class that wins in the whole image."
    ),
    (
        _fall(output=lambda logits: logits),
        _fall(output=lambda logits: logits.log_softmax(dim=1)),
    ): "that is the fall of a logit, or of a logarithm. Softmax gives the probability.",
    (
        _fall(combine=lambda before, after: (before - after).abs().mean()),
        _fall(combine=lambda before, after: (before - after).clamp(min=0).mean()),
    ): (
        "where the probability rises, the fall is negative, and counts as such: no "
        "`abs`, no `clamp`."
    ),
    _fall(
        combine=lambda before, after: 100 * (before - after).mean()
    ): "the fall is a difference of probabilities, which lie in 0 … 1, not per cent.",
    _fall(combine=lambda before, after: (after - before).mean()): (
        "the sign is the wrong way round: a fall is before minus after, positive when "
        "the probability gets smaller."
    ),
    (
        _fall(combine=lambda before, after: after.mean()),
        _fall(combine=lambda before, after: (after / before).mean()),
        _fall(combine=lambda before, after: ((before - after) / before).mean()),
    ): (
        "that is what is left of the probability, or a ratio. The fall is a "
        "difference: before minus after."
    ),
    _fall(
        combine=lambda before, after: (before - after).sum()
    ): "the falls are added up. Take the mean over the images.",
    (
        _fall(lambda maps, k: _order(maps)[:, k - 1 : k]),
        _fall(lambda maps, k: _order(maps)[:, k:]),
    ): (
        "the wrong patches are removed: the k-th alone, or all but the first k. All of "
        "the first k should go."
    ),
}


def _values(found) -> dict[str, float]:
    both = "give back a dict with the keys 'highest' and 'random', a number for each"
    hint(isinstance(found, dict) and set(found) == {"highest", "random"}, both)
    for value in found.values():
        one = isinstance(value, int | float) or getattr(value, "ndim", 1) == 0
        hint(one, f"{both}: the mean over the images")
    return {name: float(value) for name, value in found.items()}


def _call_removal(answer, model, images, maps, k) -> float:
    found = answer(model, images, maps, k, torch.Generator().manual_seed(0))
    hint(
        not model.training,
        "the model is in training mode afterwards. It came in evaluation mode.",
    )
    return _values(found)["highest"]


def _models_and_maps() -> list[tuple]:
    generator = torch.Generator().manual_seed(8)
    inputs = []
    for batch, grid, patch, counts in [
        (5, (2, 3), 2, (2, 3)),
        (1, (3, 3), 1, (4,)),
        (4, (4, 2), 3, (3, 8)),
    ]:
        shape = 3, grid[0] * patch, grid[1] * patch
        images = torch.randn(batch, *shape, generator=generator)
        maps = torch.rand(batch, *grid, generator=generator)
        inputs += [(_toy(*shape), images, maps, count) for count in counts]
    return inputs


def _check_generator(answer) -> None:
    """Checks that the random patches come from the generator, and from it alone."""
    model, images, maps, _ = _models_and_maps()[0]

    def random(generator) -> float:
        return _values(answer(model, images, maps, 2, generator))["random"]

    falls = []
    for seed, other in [(1, 5), (1, 6), (2, 5), (3, 5)]:
        torch.manual_seed(other)
        generator = torch.Generator().manual_seed(seed)
        falls.append(random(generator))
    hint(
        falls[0] == falls[1],
        "the same seed in `generator` gives another 'random'. Hand the generator to "
        "`torch.rand` or `torch.randperm`: else they use the global one.",
    )
    hint(
        len(set(falls)) == 1 or random(generator) != falls[-1],
        "a second call with the same generator gives the same 'random'. Draw from "
        "`generator` itself, which goes on from call to call, not from its seed.",
    )
    hint(
        len(set(falls)) > 1,
        "'random' is the same for every seed of the generator. Are its patches drawn "
        "at random, with that generator?",
    )


class _OnePatch(nn.Module):
    """Class 0 wins as long as the patch in row 1, column 2 is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = set()  # how many dark patches the images had

    def forward(self, images: Tensor) -> Tensor:
        dark = images[:, 0, ::2, ::2] == 0  # (B, 2, 3): a pixel of each patch
        self.gone.update(dark.sum(dim=(1, 2)).tolist())
        lit = images[:, :, 2:4, 4:6].mean(dim=(1, 2, 3))  # (B,)
        return torch.stack([10 * lit - 5, torch.zeros_like(lit)], dim=1)  # (B, 2)


def _check_random(answer) -> None:
    """Checks the fall for random patches where only one patch of six counts."""
    model, count, patches = _OnePatch(), 3, 6
    images = torch.ones(4000, 1, 4, 6)  # a grid of 2 x 3
    maps = torch.arange(6.0).view(1, 2, 3).repeat(4000, 1, 1)
    generator = torch.Generator().manual_seed(1)
    found = _values(answer(model, images, maps, count, generator))
    whole = torch.tensor(5.0).sigmoid().item() - torch.tensor(-5.0).sigmoid().item()
    hint(
        abs(found["highest"] - whole) < 1e-4,
        "in 4000 images only one patch counts, and it is the highest. Without it the "
        f"probability falls by {whole:.3f}, but 'highest' is {found['highest']:.3f}",
    )
    fall, expected = found["random"], count / patches * whole
    again = (1 - (1 - 1 / patches) ** count) * whole  # drawn with replacement
    here = (
        f"With {count} of {patches} patches gone, one of which decides, 'random' "
        f"should be near {expected:.2f}; it is {fall:.2f}."
    )
    hint(
        min(abs(fall), abs(fall - whole)) > 1e-3,
        f"{here} All 4000 images have the same fall: draw for each image anew, and "
        "from all patches.",
    )
    hint(
        abs(fall - again) > 0.035,
        f"{here} That is the value if a patch can be drawn twice, as by `randint`: "
        "take the first k of a random order.",
    )
    hint(
        abs(fall - expected) < 0.035,
        f"{here} Each patch must have the same chance to be among the k.",
    )
    hint(
        model.gone <= {0, count},
        f"on average 'random' is right, but the images lose {sorted(model.gone)} "
        f"patches. Each should lose exactly k = {count}: draw for each image, and not "
        "from the whole batch or by chance for each patch.",
    )


check_removal_of_patches = Task(
    "measure_removal",
    "patches removed: the highest of a map, and as many at random",
    Case(
        inputs=_models_and_maps,
        call=_call_removal,
        right=_fall(),
        mistakes=FALLS,
        gradient=False,
        advice=(
            "This is 'highest': from each image, the k highest patches of its map go. "
            "Then comes the difference of two probabilities with its sign, not of "
            "predictions, and its mean over the images."
        ),
    ),
    also=[_check_generator, _check_random],
)
