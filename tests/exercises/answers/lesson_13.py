"""Answers to the exercises of lesson 13."""

import copy

import numpy as np
import torch
import torch.nn.functional as F

from answers import right, wrong

LEAST = "check_least_confident"
RECEIVED = "check_received_attention"
GRADIENT = "check_gradient_map"
REMOVAL = "check_removal_of_patches"


@wrong(LEAST, "the smaller index comes first")
def by_topk(logits, k):
    return logits.softmax(dim=1).max(dim=1).values.topk(k, largest=False).indices


@wrong(LEAST, "belongs to the example")
def of_the_example(logits, k):
    return torch.tensor([1, 0, 3, 2])[:k]


@wrong(LEAST, "belongs to the example")
def of_per_cents(logits, k):
    per_cent = (100 * logits.softmax(dim=1).max(dim=1).values).round()
    return per_cent.argsort(stable=True)[:k]


@wrong(LEAST, "expected a tensor")
def as_a_list(logits, k):
    return logits.softmax(dim=1).max(dim=1).values.argsort(stable=True)[:k].tolist()


@right(LEAST)
def by_logarithm(logits, k):
    sure = F.log_softmax(logits, dim=-1).amax(dim=-1)
    return torch.sort(sure, stable=True).indices[:k]


@right(LEAST)
def by_sorting_pairs(logits, k):
    sure = logits.softmax(dim=1).amax(dim=1).tolist()
    order = sorted(range(len(sure)), key=lambda i: (sure[i], i))
    return torch.tensor(order[:k])


@right(LEAST)
def by_numpy(logits, k):
    sure = logits.softmax(dim=1).amax(dim=1).numpy()
    return torch.from_numpy(np.argsort(sure, kind="stable")[:k])


@right(LEAST)
def by_sum_of_powers(logits, k):
    powers = (logits - logits.amax(dim=1, keepdim=True)).exp().sum(dim=1)
    return powers.argsort(descending=True, stable=True)[:k].int()


@right(LEAST)
def by_second_loop(logits, k):
    sure = logits.softmax(dim=1).amax(dim=1).clone()
    found = []
    for _ in range(k):
        found.append(int((sure == sure.min()).nonzero()[0]))
        sure[found[-1]] = 2.0
    return torch.tensor(found)


@right(RECEIVED)
def by_einsum(weights, grid):
    heads, tokens = weights.shape[1:3]
    received = torch.einsum("bhij->bj", weights) / (heads * tokens)
    return received[:, 1:].reshape(-1, *grid)


@right(RECEIVED)
def by_loops(weights, grid):
    found = []
    for image in weights:
        rows = [query[1:] for head in image for query in head]
        found.append((sum(rows) / len(rows)).view(*grid))
    return torch.stack(found)


@right(RECEIVED)
def by_numpy_mean(weights, grid):
    received = weights.numpy().mean(axis=(1, 2))[:, 1:]
    return torch.from_numpy(received.reshape(len(weights), *grid).copy())


def asked(model, images, score):
    """The gradient of a score of the logits with respect to the pictures."""
    pixels = images.detach().clone().requires_grad_()
    return torch.autograd.grad(score(model(pixels)), pixels)[0]


def winners(logits):
    return logits.max(dim=1).values.sum()


def by_patch(size, patch_size):
    """Shares of the patches: sums over patches, scaled to one."""
    sums = F.avg_pool2d(size.sum(dim=1, keepdim=True), patch_size)[:, 0]
    return sums / sums.sum(dim=(1, 2), keepdim=True)


@wrong(GRADIENT, "`backward()` adds to it")
def by_backward(model, images, patch_size):
    pixels = images.clone().requires_grad_()
    winners(model(pixels)).backward()
    return by_patch(pixels.grad.abs(), patch_size)


@wrong(GRADIENT, "`zero_grad()` deletes it")
def by_backward_and_zero(model, images, patch_size):
    maps = by_backward(model, images, patch_size)
    model.zero_grad()
    return maps


@wrong(GRADIENT, "another `requires_grad`")
def freezes(model, images, patch_size):
    model.requires_grad_(False)
    return by_backward(model, images, patch_size)


@wrong(GRADIENT, "training mode")
def leaves_training(model, images, patch_size):
    maps = by_patch(asked(model, images, winners).abs(), patch_size)
    model.train()
    return maps


@wrong(GRADIENT, "a hook is left")
def leaves_a_hook(model, images, patch_size):
    kept = []
    model.register_forward_hook(lambda module, given, out: kept.append(out))
    return by_patch(asked(model, images, winners).abs(), patch_size)


@right(GRADIENT)  # the cell below the check detaches it
def with_a_graph(model, images, patch_size):
    pixels = images.detach().clone().requires_grad_()
    score = winners(model(pixels))
    (gradient,) = torch.autograd.grad(score, pixels, create_graph=True)
    return by_patch(gradient.abs(), patch_size)


@wrong(GRADIENT, "over all pixels and all channels")
def first_channel(model, images, patch_size):
    return by_patch(asked(model, images, winners).abs()[:, :1], patch_size)


@wrong(GRADIENT, "changes the tensor itself")
def asks_the_pictures(model, images, patch_size):
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(winners(model(images)), images)
    return by_patch(gradient.abs(), patch_size)


@wrong(GRADIENT, "does not require grad")
def nothing_asked(model, images, patch_size):
    with torch.no_grad():
        logits = model(images)
    return by_patch(torch.autograd.grad(winners(logits), images)[0], patch_size)


@right(GRADIENT)
def image_by_image(model, images, patch_size):
    maps = []
    for image in images:
        pixels = image[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(pixels).max(), pixels)
        sums = F.unfold(gradient.abs(), patch_size, stride=patch_size).sum(dim=1)
        rows = image.shape[1] // patch_size
        maps.append((sums / sums.sum()).reshape(rows, -1))
    return torch.stack(maps)


@right(GRADIENT)
def by_functional(model, images, patch_size):
    gradient = torch.func.grad(lambda x: winners(model(x)))(images)
    b, c, h, w = gradient.shape
    p = patch_size
    sums = gradient.abs().reshape(b, c, h // p, p, w // p, p).sum(dim=(1, 3, 5))
    return sums / sums.flatten(1).sum(dim=1)[:, None, None]


@right(GRADIENT)
def asks_a_copy_of_the_model(model, images, patch_size):
    pixels = images.clone().requires_grad_()
    winners(copy.deepcopy(model)(pixels)).backward()
    return by_patch(pixels.grad.abs(), patch_size)


@right(GRADIENT)
def by_jacobian(model, images, patch_size):
    best = model(images).argmax(dim=1, keepdim=True)
    gradient = torch.autograd.functional.jacobian(
        lambda x: model(x).gather(1, best).sum(), images
    )
    return by_patch(gradient.abs(), patch_size)


@right(GRADIENT)
def puts_all_back(model, images, patch_size):
    before = [p.grad for p in model.parameters()]
    asked_before = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    pixels = images.clone().requires_grad_()
    winners(model.eval()(pixels)).backward()
    for p, grad, asks in zip(model.parameters(), before, asked_before, strict=True):
        p.grad = grad
        p.requires_grad_(asks)
    return by_patch(pixels.grad.abs(), patch_size)


def gone(images, places, grid):
    """The pictures without some patches, written as a loop."""
    images = images.clone()
    side = images.shape[2] // grid[0]
    for image, numbers in zip(images, places.tolist(), strict=True):
        for number in numbers:
            top, left = (side * i for i in divmod(number, grid[1]))
            image[:, top : top + side, left : left + side] = 0.0
    return images


def downwards(maps):
    return maps.flatten(1).argsort(dim=1, descending=True)


def by_chance(maps, generator):
    return torch.rand(maps.flatten(1).shape, generator=generator).argsort(dim=1)


def shares_of(model, images):
    with torch.no_grad():
        return model(images).softmax(dim=1)


def fall(model, images, maps, places):
    """The mean fall of the winning probability."""
    before = shares_of(model, images)
    after = shares_of(model, gone(images, places, maps.shape[1:]))
    winner = before.argmax(dim=1, keepdim=True)
    return (before - after).gather(1, winner).mean().item()


def measured(orders, of=fall):
    """Makes an answer from a function that gives both orders of patches."""

    def answer(model, images, maps, count, generator):
        return {
            name: of(model, images, maps, places[:, :count])
            for name, places in zip(
                ("highest", "random"), orders(maps, generator), strict=True
            )
        }

    return answer


def usual(maps, generator):
    return downwards(maps), by_chance(maps, generator)


@wrong(REMOVAL, "from each image, the k highest")
def first_map(model, images, maps, count, generator):
    def orders(maps, generator):
        return downwards(maps)[:1].expand(len(maps), -1), by_chance(maps, generator)

    return measured(orders)(model, images, maps, count, generator)


@wrong(REMOVAL, "draw for each image anew")
def the_same_for_all(model, images, maps, count, generator):
    def orders(maps, generator):
        order = torch.randperm(maps[0].numel(), generator=generator)
        return downwards(maps), order.expand(len(maps), -1)

    return measured(orders)(model, images, maps, count, generator)


@wrong(REMOVAL, "drawn twice")
def with_replacement(model, images, maps, count, generator):
    def orders(maps, generator):
        n = maps[0].numel()
        places = torch.randint(n, (len(maps), count), generator=generator)
        return downwards(maps), places

    return measured(orders)(model, images, maps, count, generator)


@wrong(REMOVAL, "the global one")
def global_generator(model, images, maps, count, generator):
    def orders(maps, generator):
        return downwards(maps), by_chance(maps, None)

    return measured(orders)(model, images, maps, count, generator)


@wrong(REMOVAL, "for every seed")
def own_generator(model, images, maps, count, generator):
    own = torch.Generator().manual_seed(42)
    return measured(usual)(model, images, maps, count, own)


@wrong(REMOVAL, "goes on from call to call")
def seed_only(model, images, maps, count, generator):
    own = torch.Generator().manual_seed(generator.initial_seed())
    return measured(usual)(model, images, maps, count, own)


@wrong(REMOVAL, "for every seed")
def not_random(model, images, maps, count, generator):
    value = fall(model, images, maps, downwards(maps)[:, :count])
    return {"highest": value, "random": value}


@wrong(REMOVAL, "same chance")
def one_too_few(model, images, maps, count, generator):
    found = measured(usual)(model, images, maps, count, generator)
    places = by_chance(maps, generator)[:, : count - 1]
    return found | {"random": fall(model, images, maps, places)}


def masked(keep):
    """Makes an answer whose 'random' multiplies with `keep(maps, count, generator)`."""

    def answer(model, images, maps, count, generator):
        value = fall(model, images, maps, downwards(maps)[:, :count])
        kept = keep(maps, count, generator).view(-1, 1, *maps.shape[1:])
        before, winner = shares_of(model, images).max(dim=1, keepdim=True)
        rest = images * F.interpolate(kept, images.shape[2:])
        after = shares_of(model, rest).gather(1, winner)
        return {"highest": value, "random": (before - after).mean().item()}

    return answer


@wrong(REMOVAL, "lose exactly k")
def random_of_the_batch(model, images, maps, count, generator):
    def keep(maps, count, generator):
        order = torch.randperm(maps.numel(), generator=generator)
        return (order >= count * len(maps)).float()

    return masked(keep)(model, images, maps, count, generator)


@wrong(REMOVAL, "lose exactly k")
def each_patch_by_chance(model, images, maps, count, generator):
    def keep(maps, count, generator):
        chance = torch.rand(maps.shape, generator=generator)
        return (chance >= count / maps[0].numel()).float()

    return masked(keep)(model, images, maps, count, generator)


@wrong(REMOVAL, "training mode afterwards")
def leaves_training_mode(model, images, maps, count, generator):
    found = measured(usual)(model, images, maps, count, generator)
    model.train()
    return found


@wrong(REMOVAL, "the keys")
def a_pair(model, images, maps, count, generator):
    found = measured(usual)(model, images, maps, count, generator)
    return found["highest"], found["random"]


@wrong(REMOVAL, "the mean over the images")
def one_each(model, images, maps, count, generator):
    before = shares_of(model, images)
    after = shares_of(model, gone(images, downwards(maps)[:, :count], maps.shape[1:]))
    falls = (before - after).amax(dim=1)
    return {"highest": falls, "random": falls}


@wrong(REMOVAL, "not of predictions")
def changed_predictions(model, images, maps, count, generator):
    def of(model, images, maps, places):
        after = shares_of(model, gone(images, places, maps.shape[1:]))
        changed = after.argmax(dim=1) != shares_of(model, images).argmax(dim=1)
        return changed.float().mean().item()

    return measured(usual, of)(model, images, maps, count, generator)


@wrong(REMOVAL, "the values are not")
def grey_is_the_mean(model, images, maps, count, generator):
    def of(model, images, maps, places):
        mask = gone(torch.ones_like(images), places, maps.shape[1:])
        filled = images * mask + images.mean() * (1 - mask)
        before = shares_of(model, images)
        winner = before.argmax(dim=1, keepdim=True)
        return (before - shares_of(model, filled)).gather(1, winner).mean().item()

    return measured(usual, of)(model, images, maps, count, generator)


@right(REMOVAL)
def by_a_loop_over_patches(model, images, maps, count, generator):
    return measured(usual)(model, images, maps, count, generator)


@right(REMOVAL)
def by_permutations(model, images, maps, count, generator):
    n = maps[0].numel()
    orders = {
        "random": torch.stack([torch.randperm(n, generator=generator) for _ in maps]),
        "highest": maps.flatten(1).topk(count, dim=1).indices,
    }
    with torch.no_grad():
        shares = model(images).softmax(dim=-1)
    winner = shares.argmax(dim=-1)
    rows = torch.arange(len(images))
    side = images.shape[-1] // maps.shape[2]
    falls = {}
    for name, order in orders.items():
        hole = torch.zeros(len(images), n, dtype=torch.bool)
        hole[rows[:, None], order[:, :count]] = True
        hole = hole.view_as(maps)
        hole = hole.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
        with torch.no_grad():
            after = model(images.masked_fill(hole[:, None], 0)).softmax(dim=-1)
        falls[name] = (shares[rows, winner] - after[rows, winner]).mean()
    return falls


@right(REMOVAL)
def by_multinomial(model, images, maps, count, generator):
    def orders(maps, generator):
        chances = torch.ones(len(maps), maps[0].numel())
        return downwards(maps), torch.multinomial(chances, count, generator=generator)

    return measured(orders)(model, images, maps, count, generator)


@right(REMOVAL)
def by_numpy_order(model, images, maps, count, generator):
    def orders(maps, generator):
        seed = int(torch.randint(2**31, (1,), generator=generator))
        rows = np.tile(np.arange(maps[0].numel()), (len(maps), 1))
        rows = np.random.default_rng(seed).permuted(rows, axis=1)
        return downwards(maps), torch.from_numpy(rows)

    return measured(orders)(model, images, maps, count, generator)


@right(REMOVAL)
def ten_orders(model, images, maps, count, generator):
    orders = [by_chance(maps, generator)[:, :count] for _ in range(2)]
    return {
        "highest": fall(model, images, maps, downwards(maps)[:, :count]),
        "random": sum(fall(model, images, maps, o) for o in orders) / len(orders),
    }
