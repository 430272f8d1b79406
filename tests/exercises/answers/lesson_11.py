"""Answers to the exercises of lesson 11."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parameters_to_vector

from answers import right, wrong
from going_modular.optimization import create_optimizer, warmup_schedule

FINDER = "check_lr_finder"
RUN = "check_measured_run"
REPORT = "check_mended_report"
NEAR = "check_near_duplicates"


def set_rate(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def learn(model, batch, optimizer):
    """What the answers share: one step, and the loss before it."""
    x, y = batch
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def endless(batches):
    while True:
        yield from batches


def sweep(model, stream, optimizer, lr, factor, steps):
    """Rates and losses; what comes after the steps is left in the stream."""
    rates, losses = [], []
    for _ in range(steps):
        set_rate(optimizer, lr)
        losses.append(learn(model, next(stream), optimizer))
        rates.append(lr)
        lr *= factor
    return rates, losses


@wrong(FINDER, "not copies")
def saved_without_a_copy(model, batches, lr, factor, steps):
    before = model.state_dict()
    found = sweep(model, endless(batches), create_optimizer(model), lr, factor, steps)
    model.load_state_dict(before)
    return found


@wrong(FINDER, "not what they were")
def never_restored(model, batches, lr, factor, steps):
    return sweep(model, endless(batches), create_optimizer(model), lr, factor, steps)


@wrong(FINDER, "running averages")
def parameters_restored(model, batches, lr, factor, steps):
    before = [p.detach().clone() for p in model.parameters()]
    found = sweep(model, endless(batches), create_optimizer(model), lr, factor, steps)
    for p, old in zip(model.parameters(), before, strict=True):
        p.data.copy_(old)
    return found


@wrong(FINDER, "after the loss has burst")
def stops_early(model, batches, lr, factor, steps):
    rates, losses = on_a_copy(model, batches, lr, factor, steps)
    best, end = losses[0], steps
    for i, loss in enumerate(losses):
        best = min(best, loss)
        if loss > 4 * best:
            end = i + 1
            break
    return rates[:end], losses[:end]


@wrong(FINDER, "after the loss has burst")
def stops_at_ten_times(model, batches, lr, factor, steps):
    rates, losses = on_a_copy(model, batches, lr, factor, steps)
    far = [i for i, loss in enumerate(losses) if loss > 10 * losses[0]]
    return rates[: far[0] if far else steps], losses[: far[0] if far else steps]


@wrong(FINDER, "each `factor` times the one before")
def adds(model, batches, lr, factor, steps):
    model, stream = copy.deepcopy(model), endless(batches)
    optimizer, rates, losses = create_optimizer(model), [], []
    for i in range(steps):
        rates.append(lr + i * (factor - 1) * lr)
        set_rate(optimizer, rates[-1])
        losses.append(learn(model, next(stream), optimizer))
    return rates, losses


@wrong(FINDER, "`loss.item()`")
def losses_with_graphs(model, batches, lr, factor, steps):
    model, stream = copy.deepcopy(model), endless(batches)
    optimizer, rates, losses = create_optimizer(model), [], []
    for i in range(steps):
        set_rate(optimizer, lr * factor**i)
        x, y = next(stream)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.append(lr * factor**i)
        losses.append(loss)
    return rates, losses


@wrong(FINDER, "belongs to the example")
def always_doubles(model, batches, lr, factor, steps):
    model = copy.deepcopy(model)
    return sweep(model, endless(batches), create_optimizer(model), lr, 2.0, steps)


@wrong(FINDER, "your code stops with")
def indexed(model, batches, lr, factor, steps):
    model = copy.deepcopy(model)
    stream = (batches[i % len(batches)] for i in range(steps))
    return sweep(model, stream, create_optimizer(model), lr, factor, steps)


@right(FINDER)
def on_a_copy(model, batches, lr, factor, steps):
    model = copy.deepcopy(model)
    return sweep(model, endless(batches), create_optimizer(model), lr, factor, steps)


@right(FINDER)
def by_schedule(model, batches, lr, factor, steps):
    before = {name: t.clone() for name, t in model.state_dict().items()}
    optimizer = create_optimizer(model, lr)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, factor)
    stream, rates, losses = iter(batches), [], []
    while len(rates) < steps:
        batch = next(stream, None)
        if batch is None:
            stream = iter(batches)
            continue
        rates += schedule.get_last_lr()[:1]
        losses.append(torch.tensor(learn(model, batch, optimizer)))
        schedule.step()
    model.load_state_dict(before)
    return tuple(rates), torch.stack(losses)


@right(FINDER)
def with_numpy(model, batches, lr, factor, steps):
    model, batches = copy.deepcopy(model), list(batches)
    optimizer, rates = create_optimizer(model), lr * factor ** np.arange(steps)
    losses = np.zeros(steps)
    for i, rate in enumerate(rates):
        set_rate(optimizer, rate)
        losses[i] = learn(model, batches[i % len(batches)], optimizer)
    return rates, losses


@right(FINDER)
def epoch_by_epoch(model, batches, lr=1e-5, factor=2.0, steps=18, verbose=False):
    before = copy.deepcopy(model.state_dict())
    optimizer = create_optimizer(model, lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: factor**i)
    rates, losses = [], []
    while True:
        for batch in batches:
            if len(rates) == steps:
                model.load_state_dict(before)
                return [rates, losses]
            rates.append(optimizer.param_groups[-1]["lr"])
            losses.append(learn(model, batch, optimizer))
            schedule.step()


def run(model, batches, lr, warmup, decay, clip, change=None):
    """A run of training; `change` swaps one of its parts.

    Returns the weights before and after each step, and the lengths of the gradients.
    """
    parts = {
        "clip": lambda: (
            clip is None or nn.utils.clip_grad_norm_(model.parameters(), clip)
        ),
        "zero": lambda: optimizer.zero_grad(),
        "early": lambda: None,
        "late": lambda: schedule.step(),
        "after": lambda: None,
    } | (change(model, clip) if change else {})
    optimizer = create_optimizer(model, lr, decay)
    schedule = warmup_schedule(optimizer, warmup, len(batches) + 1, "none")
    vectors, lengths = [vector(model)], []
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        parts["clip"]()
        lengths.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
        if parts["early"]() == "schedule":
            schedule.step()
        optimizer.step()
        parts["after"]()
        parts["zero"]()
        parts["late"]()
        vectors.append(vector(model))
    return torch.stack(vectors), lengths


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def numbers(vectors, lengths):
    moved = vectors.diff(dim=0).norm(dim=1)
    return as_dict(moved.max(), max(lengths), vectors[-1].norm())


def as_dict(*values):
    keys = ("largest_step", "largest_gradient", "weight_norm")
    return {key: float(v) for key, v in zip(keys, values, strict=True)}


@wrong(RUN, "`largest_step` is 3.164 where")
def gradient_norm(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    return as_dict(max(lengths), max(lengths), vectors[-1].norm())


@wrong(RUN, "`largest_gradient` is 9 where")
def clip_norm_itself(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    return numbers(vectors, [clip or max(lengths)])


@wrong(RUN, "has emptied it")
def reads_empty_gradients(model, batches, lr, warmup, decay, clip):
    run(model, batches, lr, warmup, decay, clip)
    return max(p.grad.norm() for p in model.parameters())


@wrong(RUN, "taken at the end")
def norm_at_the_start(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    way = vectors.diff(dim=0).norm(dim=1).max()
    return as_dict(way, max(lengths), vectors[0].norm())


@wrong(RUN, "not a copy")
def trains_a_copy(model, batches, lr, warmup, decay, clip):
    return numbers(*run(copy.deepcopy(model), batches, lr, warmup, decay, clip))


@wrong(RUN, "the values are not")
def without_decay(model, batches, lr, warmup, decay, clip):
    return numbers(*run(model, batches, lr, warmup, 0.0, clip))


@wrong(RUN, "`backward` has not filled it yet")
def reads_before_backward(model, batches, lr, warmup, decay, clip):
    return max(p.grad.norm() for p in model.parameters())


@wrong(RUN, "has no attribute 'item'")
def loss_of_backward(model, batches, lr, warmup, decay, clip):
    for x, y in batches:
        loss = F.cross_entropy(model(x), y).backward()
        print(loss.item())


@right(RUN)
def with_all_weights_kept(model, batches, lr, warmup, decay, clip):
    return numbers(*run(model, batches, lr, warmup, decay, clip))


@right(RUN)
def norm_with_a_graph(model, batches, lr, warmup, decay, clip):
    found = numbers(*run(model, batches, lr, warmup, decay, clip))
    return found | {"weight_norm": parameters_to_vector(model.parameters()).norm()}


@right(RUN)
def step_by_step(model, batches, lr, warmup, decay, clip):
    optimizer = create_optimizer(model, lr, decay)
    largest, longest = 0.0, 0.0
    for step, (x, y) in enumerate(batches, start=1):
        set_rate(optimizer, lr * min(1.0, step / max(1, warmup)))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        clip = clip or float("inf")
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip).item()
        before = copy.deepcopy(model)
        optimizer.step()
        pairs = zip(model.parameters(), before.parameters(), strict=True)
        way = sum((a - b).square().sum().item() for a, b in pairs) ** 0.5
        largest, longest = max(largest, way), max(longest, min(norm, clip))
    norm = sum(p.square().sum().item() for p in model.parameters()) ** 0.5
    return {
        "weight_norm": norm,
        "largest_step": torch.tensor(largest),
        "largest_gradient": longest,
    }


@right(RUN)
def with_a_vector(model, batches, lr, warmup, decay, clip):
    found = {"largest_step": 0.0, "largest_gradient": 0.0}
    before = parameters_to_vector(model.parameters()).detach()

    def change(model, clip):
        def measure():
            nonlocal before
            now = parameters_to_vector(model.parameters()).detach()
            found["largest_step"] = max(found["largest_step"], torch.dist(now, before))
            before = now

        return {"after": measure}

    _, lengths = run(model, batches, lr, warmup, decay, clip, change)
    found["largest_gradient"] = max(lengths)
    return found | {"weight_norm": before.norm()}


@wrong(REPORT, "moved or sorted")
def sorts_in_place(results):
    pairs = list(zip(results["val_acc"], results["test_acc"], strict=True))
    epoch = max(range(len(pairs)), key=lambda i: (pairs[i][0], i)) + 1
    results["val_acc"].sort()
    return epoch, pairs[epoch - 1][1]


@right(REPORT)
def by_a_loop(results):
    best, epoch = -1.0, 0
    for i, accuracy in enumerate(results["val_acc"]):
        if accuracy >= best:
            best, epoch = accuracy, i
    return epoch + 1, results["test_acc"][epoch]


@right(REPORT)
def from_the_back(results):
    back = len(results["val_acc"]) - 1 - int(np.argmax(results["val_acc"][::-1]))
    return [back + 1, results["test_acc"][back]]


@right(REPORT)
def by_sorting(results):
    rows = zip(
        results["val_acc"],
        range(1, 10**6),
        results["test_acc"],
        strict=False,
    )
    _, epoch, accuracy = sorted(rows)[-1]
    return epoch, accuracy


@right(REPORT)
def numbers_of_numpy(results):
    accuracies = np.array(results["val_acc"])
    best = np.flatnonzero(accuracies == accuracies.max())[-1]
    return best + 1, np.array(results["test_acc"])[best]


@right(REPORT)
def numbers_of_torch(results):
    accuracies = torch.tensor(results["val_acc"])
    best = len(accuracies) - 1 - accuracies.flip(0).argmax()
    return best + 1, torch.tensor(results["test_acc"])[best]


def distances(train, test, shrink=F.adaptive_avg_pool2d):
    """RMS distances (n, m) without and with the mirror."""
    a, b = shrink(train, 8), shrink(test, 8)
    both = [a[:, None] - b[None], a[:, None] - b.flip(-1)[None]]
    return [gap.flatten(2).square().mean(2).sqrt() for gap in both]


def below(distance, threshold):
    return [(i, j) for i, j in (distance < threshold).nonzero().tolist()]


@wrong(NEAR, "list of pairs of indices")
def as_zip(train, test, threshold):
    near = torch.minimum(*distances(train, test)) < threshold
    return zip(*near.nonzero(as_tuple=True), strict=True)


@wrong(NEAR, "named twice")
def twice(train, test, threshold):
    found = [below(distance, threshold) for distance in distances(train, test)]
    return found[0] + found[1]


@wrong(NEAR, "belongs to the example")
def fixed_threshold(train, test, threshold):
    return below(torch.minimum(*distances(train, test)), 0.05)


@wrong(NEAR, "list of pairs")
def a_table(train, test, threshold):
    return torch.minimum(*distances(train, test)) < threshold


@right(NEAR)
def in_one_go(train, test, threshold):
    distance = torch.minimum(*distances(train, test))
    return (distance < threshold).nonzero()


@right(NEAR)
def pair_by_pair(train, test, threshold):
    found = []
    for j, picture in enumerate(F.interpolate(test, (8, 8), mode="area")):
        for i, other in enumerate(F.interpolate(train, (8, 8), mode="area")):
            ways = (picture, picture.flip(2))
            if min(F.mse_loss(other, way) for way in ways) < threshold**2:
                found.append((i, j))
    return found


@right(NEAR)
def with_cdist(train, test, threshold):
    blocks = train.shape[2] // 8, train.shape[3] // 8
    a, b = F.avg_pool2d(train, blocks), F.avg_pool2d(test, blocks)
    near = [
        torch.cdist(a.flatten(1), x.flatten(1)) < threshold * 192**0.5
        for x in (b, b.flip(3))
    ]
    return {(int(i), int(j)) for i, j in (near[0] | near[1]).nonzero()}
