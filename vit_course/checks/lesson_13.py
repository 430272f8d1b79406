"""Checks of the exercises of lesson 13: predictions and attention."""

import torch
from torch import nn

from vit_course.checks.hints import compare, equal, hint, learners_code, passed

MAX_LOGIT = (
    "that is the order of the largest logits. A logit alone says little: 5 beside "
    "another 5 is less sure than 2 beside zeros. Softmax first."
)
MOST_SURE = "these are the most confident ones. The least confident come first."
OVER_IMAGES = (
    "the softmax runs over the images (dim=0). The probabilities of one image's "
    "classes sum to one: dim=1."
)
ENTROPY = (
    "that is another measure (entropy, or the margin to the second class). Confidence "
    "is the probability of the predicted class, the largest of the image."
)
RANKS = (
    "these are ranks: entry i is the rank of image i. Wanted is the order: entry 0 is "
    "the index of the least confident image."
)
NUMBERS = (
    "these are the confidences themselves. Give back indices: which images they are."
)
TIES = (
    "right but for images that are equally sure: the smaller index comes first. `topk` "
    "and `argsort` keep no order among equals, `argsort(stable=True)` does."
)


def _confidence(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(dim=1).max(dim=1).values


def _least(score: torch.Tensor, k: int) -> torch.Tensor:
    return score.argsort(stable=True)[:k]


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)


def _gap(logits: torch.Tensor) -> torch.Tensor:
    best = logits.softmax(dim=1).topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def _with_equals() -> torch.Tensor:
    """40 images of three confidences only: 1/3, 1/2 and 1, each exactly."""
    none = -1000.0  # exp gives 0
    rows = torch.tensor(
        [[0, 0, 0], [0, none, 0], [none, 0, 0], [none, 0, none], [0, 0, none]]
    )
    generator = torch.Generator().manual_seed(3)
    return rows[torch.randint(5, (40,), generator=generator)]  # (40, 3)


def check_least_confident(answer) -> None:
    """Checks the indices of the images that a model is least sure of.

    Raises:
        Hint: it is not right yet.
    """
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
    inputs = [
        (shown, 4),
        (spread, 3),
        (several, 7),
        (close, 2),
        (torch.randn(6, 2, generator=generator), 6),
        (torch.tensor([[0.5, 2.0, 1.0]]), 1),
    ]
    mistakes = {
        MAX_LOGIT: lambda x, k: _least(x.max(dim=1).values, k),
        MOST_SURE: lambda x, k: _least(-_confidence(x), k),
        RANKS: lambda x, k: _least(_confidence(x), len(x)).argsort()[:k],
        OVER_IMAGES: lambda x, k: _least(x.softmax(dim=0).max(dim=1).values, k),
        ENTROPY: lambda x, k: _least(-_entropy(x), k),
        ENTROPY + " ": lambda x, k: _least(_gap(x), k),
        NUMBERS: lambda x, k: _confidence(x).sort().values[:k],
    }

    def call(logits, k):
        # A copy of the logits without gradient, as `predict` gives them back.
        return answer(logits.detach(), k)

    def solution(logits, k):
        return _least(_confidence(logits), k)

    compare(call, solution, inputs, mistakes, gradient=False)
    equals = _with_equals()
    for k in (10, 40):
        with learners_code():
            found = answer(equals.clone(), k)
        hint(equal(found, solution(equals, k)), TIES)
    passed("the least confident images, in order")


CONSTANT = (
    "every value is the same: this averages over the keys, the last axis. Each query's "
    "weights sum to one over the keys, so that their mean is 1 / (N + 1) whatever the "
    "image. Average over the queries, not over the keys."
)
TURNED = (
    "rows and columns of the grid are swapped. The patches are numbered row by row: "
    "`unflatten(-1, grid)` lays them out."
)


def _received(weights: torch.Tensor) -> torch.Tensor:
    return weights.mean(dim=(1, 2))  # (B, N + 1)


def _laid_out(patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    return patches.reshape(len(patches), *grid)


def check_received_attention(answer) -> None:
    """Checks the mended map: how much attention each patch gets on average.

    Raises:
        Hint: it is not right yet.
    """
    generator = torch.Generator().manual_seed(6)
    inputs = []
    for batch, heads, grid in [(2, 3, (2, 4)), (1, 1, (3, 3)), (3, 2, (5, 2))]:
        tokens = grid[0] * grid[1] + 1
        scores = torch.randn(batch, heads, tokens, tokens, generator=generator)
        inputs.append(((2 * scores).softmax(dim=-1), grid))

    def swapped(weights, grid):
        return _received(weights)[:, 1:].reshape(len(weights), grid[1], grid[0]).mT

    mistakes = {
        CONSTANT: lambda w, g: _laid_out(w.mean(dim=(1, 3))[:, 1:], g),
        "that is the class token's query alone, as in `class_token_map`. Here all N + "
        "1 tokens are queries: average over them, too.": (
            lambda w, g: _laid_out(w[:, :, 0, 1:].mean(dim=1), g)
        ),
        "the class token's query is left out. The mean is over all N + 1 queries; only "
        "its column, the key, goes.": (
            lambda w, g: _laid_out(_received(w[:, :, 1:])[:, 1:], g)
        ),
        "the last patch is cut off, and the class token drawn in its place: the class "
        "token is column 0.": lambda w, g: _laid_out(_received(w)[:, :-1], g),
        "the queries are added up, not averaged.": (
            lambda w, g: _laid_out(w.mean(dim=1).sum(dim=1)[:, 1:], g)
        ),
        "the heads are added up, not averaged.": (
            lambda w, g: _laid_out(w.sum(dim=1).mean(dim=1)[:, 1:], g)
        ),
        "this is one head only. Average over all of them.": (
            lambda w, g: _laid_out(w[:, 0].mean(dim=1)[:, 1:], g)
        ),
        "the map is scaled to sum to one. The class token gets attention as well, and "
        "the task leaves the values as they are.": lambda w, g: _laid_out(
            _received(w)[:, 1:] / _received(w)[:, 1:].sum(dim=1, keepdim=True), g
        ),
        TURNED: swapped,
        "the map averages over the images, too. Each has a map of its own.": (
            lambda w, g: _laid_out(
                _received(w)[:, 1:].mean(0, keepdim=True).expand(len(w), -1), g
            )
        ),
    }
    compare(
        lambda weights, grid: answer(weights.detach(), grid),
        lambda weights, grid: _laid_out(_received(weights)[:, 1:], grid),
        inputs,
        mistakes,
        gradient=False,
        advice="`weights[b, h, i, j]` is what query i takes from key j.",
    )
    passed("mended: what each patch gets, averaged over queries and heads")


def _toy(channels: int, height: int, width: int, classes: int) -> nn.Module:
    """A classifier with another gradient for each image, in evaluation mode."""
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, 9),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(9, classes),
    )
    generator = torch.Generator().manual_seed(height + 10 * width)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
    return model.eval()


def _gradient(model: nn.Module, images: torch.Tensor, score) -> torch.Tensor:
    with torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        return torch.autograd.grad(score(model(pixels)), pixels)[0]


def _pooled(size: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, C, H, W) -> (B, rows, columns): the sum of each patch."""
    return size.unfold(2, patch, patch).unfold(3, patch, patch).sum(dim=(1, 4, 5))


def _fractions(maps: torch.Tensor) -> torch.Tensor:
    return maps / maps.sum(dim=(1, 2), keepdim=True)


def _winners(logits: torch.Tensor) -> torch.Tensor:
    return logits.max(dim=1).values.sum()


def _cut_by_view(size: torch.Tensor, patch: int) -> torch.Tensor:
    batch, _, height, width = size.shape
    return size.sum(dim=1).reshape(batch, height // patch, width // patch, -1).sum(-1)


def _gradient_mistakes(model: nn.Module) -> dict:
    def of(score):
        return lambda x, p: _fractions(_pooled(_gradient(model, x, score).abs(), p))

    def won(size):
        """Another size of the right gradient."""
        return lambda x, p: _fractions(
            _pooled(size(_gradient(model, x, _winners), x), p)
        )

    def maps(x, p):
        return _pooled(_gradient(model, x, _winners).abs(), p)

    def turned(x, p):
        found = _fractions(maps(x, p))
        return found.mT.reshape(found.shape)

    return {
        "that is the gradient of all logits together. Take the winning one of each "
        "image: `max(dim=1)`.": of(lambda y: y.sum()),
        "that is the gradient of a probability, or of its logarithm, the loss. Take "
        "the logit, before the softmax: a probability falls, too, when others rise.": (
            of(lambda y: _winners(y.softmax(dim=1)))
        ),
        "all images use the class that wins in the first one. Each has a winning class "
        "of its own.": of(lambda y: y[:, y[0].argmax()].sum()),
        "all images use class 0. Take the largest logit of each.": (
            of(lambda y: y[:, 0].sum())
        ),
        "only the image with the largest logit of the batch has a gradient. "
        "`logits.max()` is one number: take the maximum over dim=1.": of(torch.max),
        "the gradient is added up with its sign, so that plus and minus cancel within "
        "a patch. Take `abs()` first.": won(lambda g, x: g),
        "plus and minus of the colours cancel: take `abs()` before the channels are "
        "added up.": won(lambda g, x: g.sum(dim=1, keepdim=True).abs()),
        "only the largest of the channels is used. Add up all of them.": (
            won(lambda g, x: g.abs().amax(dim=1, keepdim=True))
        ),
        "these are squares, or the square root of their sum. The task adds up absolute "
        "values.": won(lambda g, x: g**2),
        "these are squares, or the square root of their sum. The task adds up absolute "
        "values. ": lambda x, p: _fractions(
            _pooled(_gradient(model, x, _winners) ** 2, p).sqrt()
        ),
        "the gradient is multiplied with the image. That is another map, which is dark "
        "where the image is dark.": won(lambda g, x: (g * x).abs()),
        "the maps are not scaled: the values of each image sum to one.": maps,
        "the values are scaled by the sum over the whole batch. Each image's map sums "
        "to one for itself.": lambda x, p: maps(x, p) / maps(x, p).sum(),
        "the values are divided by their largest. Divide by their sum.": (
            lambda x, p: maps(x, p) / maps(x, p).amax(dim=(1, 2), keepdim=True)
        ),
        "your patches hold pixels of several rows of the image: `view` and `reshape` "
        "cut memory, not the image. Cut height and width (lesson 02).": (
            lambda x, p: _fractions(
                _cut_by_view(_gradient(model, x, _winners).abs(), p)
            )
        ),
        "rows and columns of the map are mixed up.": turned,
    }


def _guarded(answer, model: nn.Module):
    """The learner's function, watched: it must leave model and images as they are."""
    parameters = list(model.parameters())

    def call(images, patch_size):
        images = images.detach()
        asked = [p.requires_grad for p in parameters]
        for i, p in enumerate(parameters):
            p.grad = None if i == 0 else torch.full_like(p, 0.25 * i)
        before = [None if p.grad is None else p.grad.clone() for p in parameters]
        out = answer(model, images, patch_size)
        for p, grad in zip(parameters, before, strict=True):
            same = (p.grad is None) == (grad is None)
            if grad is not None and p.grad is not None:
                same = torch.equal(p.grad, grad)
            hint(
                same,
                "the `.grad` of the model's parameters is another one than before: "
                "`backward()` adds to it, `zero_grad()` deletes it. "
                "`torch.autograd.grad` gives a gradient back and stores none.",
            )
        hint(
            [p.requires_grad for p in parameters] == asked,
            "afterwards the parameters have another `requires_grad` than before: "
            "training would change other ones. Leave the model as it was.",
        )
        hint(
            not any(module.training for module in model.modules()),
            "the model is in training mode afterwards. It came in evaluation mode.",
        )
        hint(
            not images.requires_grad,
            "the images that you were given have requires_grad=True now: "
            "`requires_grad_()` changes the tensor itself. Use `images.detach()`: that "
            "is another tensor, which may require a gradient.",
        )
        hint(
            not any(module._forward_hooks for module in model.modules()),
            "a hook is left in the model. Take it out again: `handle.remove()`.",
        )
        return out

    return call


def check_gradient_map(answer) -> None:
    """Checks the gradient of the winning logits as a map over the patches.

    Raises:
        Hint: it is not right yet.
    """
    generator = torch.Generator().manual_seed(2)
    for batch, channels, height, width, patch, frozen in [
        (5, 3, 4, 6, 2, False),
        (1, 3, 6, 6, 3, False),
        (2, 1, 6, 2, 2, True),
    ]:
        model = _toy(channels, height, width, 4).requires_grad_(not frozen)
        images = torch.randn(batch, channels, height, width, generator=generator)

        def solution(x, p, model=model):
            return _fractions(_pooled(_gradient(model, x, _winners).abs(), p))

        compare(
            _guarded(answer, model),
            solution,
            [(images, patch), (images + 0.5, patch)],
            _gradient_mistakes(model),
            gradient=False,
            advice="Compare one patch: the top left one is `[:, :, :P, :P]`.",
        )
    passed("which patches move the winning logit")


def _without(
    images: torch.Tensor, places: torch.Tensor, grid: tuple[int, int]
) -> torch.Tensor:
    keep = torch.ones(len(images), grid[0] * grid[1]).scatter(1, places, 0.0)
    patch = images.shape[2] // grid[0]
    mask = keep.view(-1, 1, *grid)
    mask = mask.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return images * mask


def _order(maps: torch.Tensor, descending: bool = True) -> torch.Tensor:
    return maps.flatten(1).argsort(dim=1, descending=descending)


def _falls(model, images, maps, places) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of the winning class with and without some patches, (B,) each."""
    with torch.no_grad():
        before, winner = model(images).softmax(dim=1).max(dim=1)
        after = model(_without(images, places, tuple(maps.shape[1:]))).softmax(dim=1)
    return before, after.gather(1, winner[:, None])[:, 0]


def _removal_mistakes(model: nn.Module) -> dict:
    def highest(x, m, k):
        return _falls(model, x, m, _order(m)[:, :k])

    def lowest(x, m, k):
        before, after = _falls(model, x, m, _order(m, False)[:, :k])
        return (before - after).mean().item()

    def new_winner(x, m, k):
        before, _ = highest(x, m, k)
        x = _without(x, _order(m)[:, :k], tuple(m.shape[1:]))
        return (before - model(x).softmax(dim=1).amax(dim=1)).mean().item()

    def logits(x, m, k):
        winner = model(x).argmax(dim=1, keepdim=True)
        gone = model(_without(x, _order(m)[:, :k], tuple(m.shape[1:])))
        return (model(x) - gone).gather(1, winner).mean().item()

    def whole_batch(x, m, k):
        keep = torch.ones(m.numel())
        keep[m.flatten().argsort(descending=True)[: k * len(m)]] = 0.0
        patch = x.shape[2] // m.shape[1]
        mask = keep.view(m.shape).repeat_interleave(patch, 1)
        gone = x * mask.repeat_interleave(patch, 2)[:, None]
        winner = model(x).argmax(dim=1, keepdim=True)
        falls = model(x).softmax(dim=1) - model(gone).softmax(dim=1)
        return falls.gather(1, winner).mean().item()

    def first_map(x, m, k):
        before, after = _falls(model, x, m, _order(m)[:1, :k].expand(len(x), -1))
        return (before - after).mean().item()

    def one_patch(x, m, k):
        before, after = _falls(model, x, m, _order(m)[:, k - 1 : k])
        return (before - after).mean().item()

    def only_kept(x, m, k):
        before, after = _falls(model, x, m, _order(m)[:, k:])
        return (before - after).mean().item()

    def of(combine):
        return lambda x, m, k: combine(*highest(x, m, k)).item()

    return {
        "the lowest patches of the map are removed. `argsort` sorts upwards unless it "
        "is told `descending=True`.": lowest,
        "after the removal another class may win, and its probability says nothing "
        "about the first prediction. Keep the class that wins in the whole image.": (
            new_winner
        ),
        "that is the fall of a logit. Softmax gives the probability.": logits,
        "the sign is the wrong way round: a fall is before minus after, positive when "
        "the probability gets smaller.": of(lambda a, b: (b - a).mean()),
        "that is what is left of the probability. How far has it fallen?": (
            of(lambda a, b: b.mean())
        ),
        "that is a ratio. The fall is a difference: before minus after.": (
            of(lambda a, b: ((a - b) / a).mean())
        ),
        "that is a ratio. The fall is a difference: before minus after. ": (
            of(lambda a, b: (b / a).mean())
        ),
        "the falls are added up. Take the mean over the images.": (
            of(lambda a, b: (a - b).sum())
        ),
        "the highest patches of the whole batch are taken, many from one image and "
        "none from another. Take k from each.": whole_batch,
        "all images lose the patches of the first image's map. Each has a map of its "
        "own.": first_map,
        "one patch is removed, the k-th. All of the first k should go.": one_patch,
        "the highest patches are kept and the others removed.": only_kept,
    }


BOTH = "give back a dict with the keys 'highest' and 'random', a number for each"


def _numbers(found) -> dict[str, float]:
    both = isinstance(found, dict) and set(found) == {"highest", "random"}
    hint(both, BOTH)
    for value in found.values():
        one = isinstance(value, int | float) or getattr(value, "ndim", 1) == 0
        hint(one, BOTH + ": the mean over the images")
    return {name: float(value) for name, value in found.items()}


class _OnePatch(nn.Module):
    """Class 0 wins as long as the patch in row 1, column 2 is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = set()  # how many dark patches the images had

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        dark = images[:, 0, ::2, ::2] == 0  # (B, 2, 3): a pixel of each patch
        self.gone.update(dark.sum(dim=(1, 2)).tolist())
        lit = images[:, :, 2:4, 4:6].mean(dim=(1, 2, 3))  # (B,)
        return torch.stack([10 * lit - 5, torch.zeros_like(lit)], dim=1)  # (B, 2)


def _check_random(answer) -> None:
    """Checks the fall for random patches where only one patch of six counts."""
    model, count, patches = _OnePatch(), 3, 6
    images = torch.ones(4000, 1, 4, 6)  # a grid of 2 x 3
    maps = torch.arange(6.0).view(1, 2, 3).repeat(4000, 1, 1)
    with learners_code():
        generator = torch.Generator().manual_seed(1)
        found = _numbers(answer(model, images, maps, count, generator))
    all_of_it = torch.tensor(5.0).sigmoid().item() - torch.tensor(-5.0).sigmoid().item()
    hint(
        abs(found["highest"] - all_of_it) < 1e-4,
        "in 4000 images only one patch counts, and it is the highest. Without it the "
        f"probability falls by {all_of_it:.3f}, but 'highest' is "
        f"{found['highest']:.3f}",
    )
    fall, expected = found["random"], count / patches * all_of_it
    again = (1 - (1 - 1 / patches) ** count) * all_of_it  # drawn with replacement
    here = f"With {count} of {patches} patches gone, one of which decides, "
    wanted = f"'random' should be near {expected:.2f}; it is {fall:.2f}."
    hint(
        min(abs(fall), abs(fall - all_of_it)) > 1e-3,
        f"{here}{wanted} All 4000 images have the same fall: draw for each image anew, "
        "and from all patches.",
    )
    hint(
        abs(fall - again) > 0.035,
        f"{here}{wanted} That is the value if a patch can be drawn twice: `randint` "
        "does so. Take the first k of a random order.",
    )
    hint(
        abs(fall - expected) < 0.035,
        f"{here}{wanted} Each patch must have the same chance to be among the k.",
    )
    hint(
        model.gone <= {0, count},
        f"on average 'random' is right, but the images lose {sorted(model.gone)} "
        f"patches. Each should lose exactly k = {count}: draw for each image, and not "
        "from the whole batch or by chance for each patch.",
    )


def _check_generator(answer, model, images, maps) -> None:
    """Checks that the random patches come from the generator, and from it alone."""
    falls = []
    for seed, other in [(1, 5), (1, 6), (2, 5), (3, 5)]:
        with learners_code():
            torch.manual_seed(other)
            generator = torch.Generator().manual_seed(seed)
            falls.append(_numbers(answer(model, images, maps, 2, generator))["random"])
    hint(
        falls[0] == falls[1],
        "the same seed in `generator` gives another 'random'. Hand the generator to "
        "`torch.rand` or `torch.randperm`: else they use the global one.",
    )
    with learners_code():
        again = _numbers(answer(model, images, maps, 2, generator))["random"]
    hint(
        len(set(falls)) == 1 or again != falls[-1],
        "a second call with the same generator gives the same 'random'. Draw from "
        "`generator` itself, which goes on from call to call, not from its seed.",
    )
    hint(
        len(set(falls)) > 1,
        "'random' is the same for every seed of the generator. Are its patches drawn "
        "at random, with that generator?",
    )


def check_removal_of_patches(answer) -> None:
    """Checks how far the winning probability falls when patches are removed.

    Raises:
        Hint: it is not right yet.
    """
    generator = torch.Generator().manual_seed(8)
    left = []  # whether the model was left in training mode
    for batch, grid, patch, counts in [
        (5, (2, 3), 2, (2, 3)),
        (1, (3, 3), 1, (4,)),
        (4, (4, 2), 3, (3, 8)),
    ]:
        height, width = grid[0] * patch, grid[1] * patch
        model = _toy(3, height, width, 4)
        images = torch.randn(batch, 3, height, width, generator=generator)
        maps = torch.rand(batch, *grid, generator=generator)

        def highest(x, m, k, model=model):
            given = x.detach(), m.detach(), k, torch.Generator().manual_seed(0)
            found = _numbers(answer(model, *given))["highest"]
            left.append(model.training)
            model.eval()
            return found

        def solution(x, m, k, model=model):
            before, after = _falls(model, x, m, _order(m)[:, :k])
            return (before - after).mean().item()

        compare(
            highest,
            solution,
            [(images, maps, count) for count in counts],
            _removal_mistakes(model),
            gradient=False,
            advice="This is about 'highest'.",
        )
        hint(
            not any(left),
            "the model is in training mode afterwards. It came in evaluation mode.",
        )
        if batch == 5:
            _check_generator(answer, model, images, maps)
    _check_random(answer)
    passed("patches removed: the highest of a map, and as many at random")
