"""Answers to the exercises of lesson 11."""

import copy
import itertools

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


@wrong(FINDER, "zero_grad")
def gradients_add_up(model, batches, lr, factor, steps):
    model = copy.deepcopy(model)
    optimizer, rates, losses = create_optimizer(model), [], []
    for x, y in itertools.islice(itertools.cycle(batches), steps):
        set_rate(optimizer, lr)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        rates.append(lr)
        losses.append(loss.item())
        lr *= factor
    return rates, losses


@wrong(FINDER, "means start from zero again")
def new_optimizers(model, batches, lr, factor, steps):
    model, stream, rates, losses = copy.deepcopy(model), endless(batches), [], []
    for i in range(steps):
        rates.append(lr * factor**i)
        losses.append(learn(model, next(stream), create_optimizer(model, rates[-1])))
    return rates, losses


@wrong(FINDER, "not in the optimizer")
def rate_only_in_the_list(model, batches, lr, factor, steps):
    model, stream = copy.deepcopy(model), endless(batches)
    optimizer, rates, losses = create_optimizer(model), [], []
    for i in range(steps):
        optimizer.lr = lr * factor**i
        rates.append(optimizer.lr)
        losses.append(learn(model, next(stream), optimizer))
    return rates, losses


@wrong(FINDER, "only one group")
def first_group(model, batches, lr, factor, steps):
    model, stream = copy.deepcopy(model), endless(batches)
    optimizer, rates, losses = create_optimizer(model), [], []
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = lr * factor**i
        rates.append(lr * factor**i)
        losses.append(learn(model, next(stream), optimizer))
    return rates, losses


@wrong(FINDER, "after the step, not before it")
def grows_first(model, batches, lr, factor, steps):
    model = copy.deepcopy(model)
    optimizer = create_optimizer(model)
    return sweep(model, endless(batches), optimizer, factor * lr, factor, steps)


@wrong(FINDER, "starts from the front")
def same_batch(model, batches, lr, factor, steps):
    model = copy.deepcopy(model)
    stream = endless([next(iter(batches))])
    return sweep(model, stream, create_optimizer(model), lr, factor, steps)


@wrong(FINDER, "Begin with the first one again")
def one_epoch(model, batches, lr, factor, steps):
    model, batches = copy.deepcopy(model), list(batches)[:steps]
    optimizer = create_optimizer(model)
    return sweep(model, iter(batches), optimizer, lr, factor, len(batches))


@wrong(FINDER, "never move")
def optimizer_of_another_model(model, batches, lr, factor, steps):
    optimizer, model = create_optimizer(model), copy.deepcopy(model)
    before = copy.deepcopy(optimizer.param_groups[0]["params"])
    found = sweep(model, endless(batches), optimizer, lr, factor, steps)
    for p, old in zip(optimizer.param_groups[0]["params"], before, strict=True):
        p.data.copy_(old)
    return found


@wrong(FINDER, "same factor")
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


@wrong(FINDER, "evaluation mode")
def in_evaluation_mode(model, batches, lr, factor, steps):
    model = copy.deepcopy(model).eval()
    optimizer = create_optimizer(model)
    return sweep(model, endless(batches), optimizer, lr, factor, steps)


@wrong(FINDER, "swapped")
def losses_first(model, batches, lr, factor, steps):
    model = copy.deepcopy(model)
    optimizer = create_optimizer(model)
    return sweep(model, endless(batches), optimizer, lr, factor, steps)[::-1]


@wrong(FINDER, "the values are not")
def other_loss(model, batches, lr, factor, steps):
    model, stream = copy.deepcopy(model), endless(batches)
    optimizer, rates, losses = create_optimizer(model), [], []
    for i in range(steps):
        set_rate(optimizer, lr * factor**i)
        x, y = next(stream)
        optimizer.zero_grad()
        loss = F.mse_loss(model(x).softmax(1), F.one_hot(y, 3).float())
        loss.backward()
        optimizer.step()
        rates.append(lr * factor**i)
        losses.append(loss.item())
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


@wrong(FINDER, "put back after the last step only")
def puts_back_each_time(model, batches, lr, factor, steps):
    before, stream = copy.deepcopy(model.state_dict()), endless(batches)
    optimizer, rates, losses = create_optimizer(model), [], []
    for i in range(steps):
        set_rate(optimizer, lr * factor**i)
        rates.append(lr * factor**i)
        losses.append(learn(model, next(stream), optimizer))
        model.load_state_dict(before)
    return rates, losses


@wrong(FINDER, "lists of numbers")
def rates_of_both_groups(model, batches, lr, factor, steps):
    model, stream = copy.deepcopy(model), endless(batches)
    rates, losses = sweep(model, stream, create_optimizer(model), lr, factor, steps)
    return [[rate, rate] for rate in rates], losses


@wrong(FINDER, "not written yet")
def blank_finder(model, batches, lr, factor, steps):
    raise NotImplementedError("your lines go here")


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


@wrong(RUN, "clipping has no effect")
def without_clipping(model, batches, lr, warmup, decay, clip):
    return numbers(*run(model, batches, lr, warmup, decay, None))


@wrong(RUN, "between `backward`")
def clips_late(model, batches, lr, warmup, decay, clip):
    def change(model, clip):
        late = lambda: clip and nn.utils.clip_grad_norm_(model.parameters(), clip)  # noqa: E731
        return {"clip": lambda: None, "after": late}

    return numbers(*run(model, batches, lr, warmup, decay, clip, change))


@wrong(RUN, "by itself, which changes its direction")
def clips_values(model, batches, lr, warmup, decay, clip):
    def change(model, clip):
        by_value = nn.utils.clip_grad_value_
        return {"clip": lambda: clip and by_value(model.parameters(), clip)}

    return numbers(*run(model, batches, lr, warmup, decay, clip, change))


@wrong(RUN, "each tensor is clipped")
def clips_each_tensor(model, batches, lr, warmup, decay, clip):
    def change(model, clip):
        one = nn.utils.clip_grad_norm_
        return {"clip": lambda: clip and [one(p, clip) for p in model.parameters()]}

    return numbers(*run(model, batches, lr, warmup, decay, clip, change))


@wrong(RUN, "may be None")
def clips_always(model, batches, lr, warmup, decay, clip):
    def change(model, clip):
        always = nn.utils.clip_grad_norm_
        return {"clip": lambda: always(model.parameters(), clip)}

    return numbers(*run(model, batches, lr, warmup, decay, clip, change))


@wrong(RUN, "where the warm-up begins")
def without_schedule(model, batches, lr, warmup, decay, clip):
    def change(model, clip):
        return {"late": lambda: None}

    return numbers(*run(model, batches, lr, warmup, decay, clip, change))


@wrong(RUN, "schedule steps before the optimizer")
def schedule_first(model, batches, lr, warmup, decay, clip):
    def change(model, clip):
        return {"early": lambda: "schedule", "late": lambda: None}

    return numbers(*run(model, batches, lr, warmup, decay, clip, change))


@wrong(RUN, "zero_grad")
def gradients_of_all_batches(model, batches, lr, warmup, decay, clip):
    def change(model, clip):
        return {"zero": lambda: None}

    return numbers(*run(model, batches, lr, warmup, decay, clip, change))


@wrong(RUN, "from the weights at the start")
def from_the_start(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    way = (vectors - vectors[0]).norm(dim=1).max()
    return as_dict(way, max(lengths), vectors[-1].norm())


@wrong(RUN, "over single tensors")
def largest_tensor(model, batches, lr, warmup, decay, clip):
    sizes = [p.numel() for p in model.parameters()]
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    parts = [p.norm() for v in vectors.diff(dim=0) for p in v.split(sizes)]
    return as_dict(max(parts), max(lengths), vectors[-1].norm())


@wrong(RUN, "a single weight")
def largest_weight(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    return as_dict(vectors.diff(dim=0).abs().max(), max(lengths), vectors[-1].norm())


@wrong(RUN, "`largest_step` is squared")
def squared_step(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    way = vectors.diff(dim=0).square().sum(dim=1).max()
    return as_dict(way, max(lengths), vectors[-1].norm())


@wrong(RUN, "norm of the gradient")
def gradient_norm(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    return as_dict(max(lengths), max(lengths), vectors[-1].norm())


@wrong(RUN, "is a mean over the steps")
def mean_step(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    way = vectors.diff(dim=0).norm(dim=1).mean()
    return as_dict(way, max(lengths), vectors[-1].norm())


@wrong(RUN, "is no copy")
def before_is_no_copy(model, batches, lr, warmup, decay, clip):
    largest, before = 0.0, list(model.parameters())
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    for p, old in zip(model.parameters(), before, strict=True):
        largest = max(largest, (p - old).norm().item())
    return as_dict(largest, max(lengths), vectors[-1].norm())


@wrong(RUN, "before clipping, which")
def length_before_clipping(model, batches, lr, warmup, decay, clip):
    norms = []

    def change(model, clip):
        def clip_and_note():
            limit = float("inf") if clip is None else clip
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), limit))

        return {"clip": clip_and_note}

    vectors, _ = run(model, batches, lr, warmup, decay, clip, change)
    return numbers(vectors, norms)


@wrong(RUN, "belongs to the example")
def clip_norm_itself(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    return numbers(vectors, [clip or max(lengths)])


@wrong(RUN, "has emptied it")
def reads_empty_gradients(model, batches, lr, warmup, decay, clip):
    run(model, batches, lr, warmup, decay, clip)
    return max(p.grad.norm() for p in model.parameters())


@wrong(RUN, "is zero: measure it before")
def gradient_after_zero_grad(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    return numbers(vectors, [0.0 * length for length in lengths])


@wrong(RUN, "a mean over the batches")
def mean_gradient(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    return numbers(vectors, [sum(lengths) / len(lengths)])


@wrong(RUN, "that of the last batch")
def last_gradient(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    way = vectors.diff(dim=0).norm(dim=1).max()
    return as_dict(way, lengths[-1], vectors[-1].norm())


@wrong(RUN, "before the run")
def norm_at_the_start(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    way = vectors.diff(dim=0).norm(dim=1).max()
    return as_dict(way, max(lengths), vectors[0].norm())


@wrong(RUN, "`weight_norm` is squared")
def squared_norm(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    way = vectors.diff(dim=0).norm(dim=1).max()
    return as_dict(way, max(lengths), vectors[-1].square().sum())


@wrong(RUN, "not a copy")
def trains_a_copy(model, batches, lr, warmup, decay, clip):
    return numbers(*run(copy.deepcopy(model), batches, lr, warmup, decay, clip))


@wrong(RUN, "the keys")
def other_keys(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    return {"step": vectors.diff(dim=0).norm(dim=1).max(), "gradient": max(lengths)}


@wrong(RUN, "the values are not")
def without_decay(model, batches, lr, warmup, decay, clip):
    return numbers(*run(model, batches, lr, warmup, 0.0, clip))


@wrong(RUN, "must be one number")
def all_steps(model, batches, lr, warmup, decay, clip):
    vectors, lengths = run(model, batches, lr, warmup, decay, clip)
    found = numbers(vectors, lengths)
    return found | {"largest_step": vectors.diff(dim=0).norm(dim=1).tolist()}


@wrong(RUN, "`backward` has not filled it yet")
def reads_before_backward(model, batches, lr, warmup, decay, clip):
    return max(p.grad.norm() for p in model.parameters())


@wrong(RUN, "has no attribute 'item'")
def loss_of_backward(model, batches, lr, warmup, decay, clip):
    for x, y in batches:
        loss = F.cross_entropy(model(x), y).backward()
        print(loss.item())


@wrong(RUN, "not written yet")
def blank_run(model, batches, lr, warmup, decay, clip):
    raise NotImplementedError("your lines go here")


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


@wrong(REPORT, "still chosen by the test accuracy")
def best_test(results):
    best = int(np.argmax(results["test_acc"]))
    return best + 1, results["test_acc"][best]


@wrong(REPORT, "the accuracy is that on validation images")
def reports_validation(results):
    best = max(range(len(results["val_acc"])), key=results["val_acc"].__getitem__)
    return best + 1, results["val_acc"][best]


@wrong(REPORT, "best of all test accuracies")
def best_of_both(results):
    return results["val_acc"].index(max(results["val_acc"])) + 1, max(
        results["test_acc"]
    )


@wrong(REPORT, "counted from 1")
def from_zero(results):
    best = max(range(len(results["val_acc"])), key=results["val_acc"].__getitem__)
    return best, results["test_acc"][best]


@wrong(REPORT, "the last of them")
def first_of_equals(results):
    best = results["val_acc"].index(max(results["val_acc"]))
    return best + 1, results["test_acc"][best]


@wrong(REPORT, "the last of them")
def equals_by_test(results):
    epochs = range(1, len(results["val_acc"]) + 1)
    rows = zip(results["val_acc"], results["test_acc"], epochs, strict=True)
    _, accuracy, epoch = max(rows)
    return epoch, accuracy


@wrong(REPORT, "lowest validation accuracy")
def worst(results):
    best = results["val_acc"].index(min(results["val_acc"]))
    return best + 1, results["test_acc"][best]


@wrong(REPORT, "the validation loss")
def by_loss(results):
    best = results["val_loss"].index(min(results["val_loss"]))
    return best + 1, results["test_acc"][best]


@wrong(REPORT, "on the training images")
def by_training(results):
    best = results["train_acc"].index(max(results["train_acc"]))
    return best + 1, results["test_acc"][best]


@wrong(REPORT, "the last epoch")
def last_epoch(results):
    return len(results["test_acc"]), results["test_acc"][-1]


@wrong(REPORT, "changes the lists")
def sorts_in_place(results):
    pairs = list(zip(results["val_acc"], results["test_acc"], strict=True))
    epoch = max(range(len(pairs)), key=lambda i: (pairs[i][0], i)) + 1
    results["val_acc"].sort()
    return epoch, pairs[epoch - 1][1]


@wrong(REPORT, "expected 2 values")
def number_alone(results):
    return results["test_acc"][results["val_acc"].index(max(results["val_acc"]))]


@wrong(REPORT, "the values are not")
def mean_of_tests(results):
    return len(results["val_acc"]), sum(results["test_acc"]) / len(results["test_acc"])


@wrong(REPORT, "not written yet")
def blank_report(results):
    raise NotImplementedError("your lines go here")


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


@wrong(NEAR, "mirrored copy is not found")
def without_mirror(train, test, threshold):
    return below(distances(train, test)[0], threshold)


@wrong(NEAR, "only mirrored")
def mirror_alone(train, test, threshold):
    return below(distances(train, test)[1], threshold)


@wrong(NEAR, "top and bottom")
def upside_down(train, test, threshold):
    straight = distances(train, test)[0]
    return below(torch.minimum(straight, distances(train, test.flip(2))[0]), threshold)


@wrong(NEAR, "you turn images")
def turned(train, test, threshold):
    straight, other = distances(train, test)[0], distances(train, test.flip(2))[1]
    return below(torch.minimum(straight, other), threshold)


@wrong(NEAR, "*and* its mirror image")
def near_in_both_ways(train, test, threshold):
    return below(torch.maximum(*distances(train, test)), threshold)


@wrong(NEAR, "in full size")
def full_size(train, test, threshold):
    def as_it_is(x, size):
        return x

    return below(torch.minimum(*distances(train, test, as_it_is)), threshold)


@wrong(NEAR, "picking single pixels")
def picked(train, test, threshold):
    def pick(x, size):
        return F.interpolate(x, (size, size), mode="nearest")

    return below(torch.minimum(*distances(train, test, pick)), threshold)


@wrong(NEAR, "not as averages over 8 x 8")
def of_16_blocks(train, test, threshold):
    def finer(x, size):
        return F.adaptive_avg_pool2d(x, 16)

    return below(torch.minimum(*distances(train, test, finer)), threshold)


@wrong(NEAR, "other blocks than 8 x 8")
def square_blocks(train, test, threshold):
    def square(x, size):
        return F.avg_pool2d(x, x.shape[3] // size)

    return below(torch.minimum(*distances(train, test, square)), threshold)


@wrong(NEAR, "between four pixels")
def bilinear(train, test, threshold):
    def few(x, size):
        return F.interpolate(x, (size, size), mode="bilinear")

    return below(torch.minimum(*distances(train, test, few)), threshold)


@wrong(NEAR, "average these")
def root_of_each_channel(train, test, threshold):
    a, b = F.adaptive_avg_pool2d(train, 8), F.adaptive_avg_pool2d(test, 8)
    gaps = [(a[:, None] - x[None]).flatten(3) for x in (b, b.flip(-1))]
    roots = [gap.square().mean(3).sqrt().mean(2) for gap in gaps]
    return below(torch.minimum(*roots), threshold)


@wrong(NEAR, "add up the squares")
def summed(train, test, threshold):
    return below(torch.minimum(*distances(train, test)) * (3 * 64) ** 0.5, threshold)


@wrong(NEAR, "root is missing")
def no_root(train, test, threshold):
    return below(torch.minimum(*distances(train, test)).square(), threshold)


@wrong(NEAR, "absolute differences")
def absolute(train, test, threshold):
    a, b = F.adaptive_avg_pool2d(train, 8), F.adaptive_avg_pool2d(test, 8)
    gaps = [(a[:, None] - x[None]).abs().flatten(2).mean(2) for x in (b, b.flip(-1))]
    return below(torch.minimum(*gaps), threshold)


@wrong(NEAR, "averaged away")
def grey(train, test, threshold):
    train, test = train.mean(1, keepdim=True), test.mean(1, keepdim=True)
    return below(torch.minimum(*distances(train, test)), threshold)


@wrong(NEAR, "*above*")
def above(train, test, threshold):
    distance = torch.minimum(*distances(train, test))
    return (distance > threshold).nonzero().tolist()


@wrong(NEAR, "wrong way round")
def test_first(train, test, threshold):
    return below(torch.minimum(*distances(test, train)), threshold)


@wrong(NEAR, "with the same index")
def in_step(train, test, threshold):
    distance = torch.minimum(*distances(train, test)).diagonal()
    return [(int(i), int(i)) for i in (distance < threshold).nonzero()]


@wrong(NEAR, "several copies")
def nearest_only(train, test, threshold):
    best = torch.minimum(*distances(train, test)).min(dim=0)
    return [
        (int(i), j)
        for j, (i, d) in enumerate(zip(best.indices, best.values, strict=True))
        if d < threshold
    ]


@wrong(NEAR, "copies in the test set")
def last_of_each(train, test, threshold):
    found = below(torch.minimum(*distances(train, test)), threshold)
    return list(dict(found).items())


@wrong(NEAR, "copies in the test set")
def first_of_each(train, test, threshold):
    found = below(torch.minimum(*distances(train, test)), threshold)
    return list(dict(found[::-1]).items())


@wrong(NEAR, "read only once")
def as_zip(train, test, threshold):
    near = torch.minimum(*distances(train, test)) < threshold
    return zip(*near.nonzero(as_tuple=True), strict=True)


@wrong(NEAR, "named twice")
def twice(train, test, threshold):
    found = [below(distance, threshold) for distance in distances(train, test)]
    return found[0] + found[1]


@wrong(NEAR, "it gives")
def fixed_threshold(train, test, threshold):
    return below(torch.minimum(*distances(train, test)), 0.05)


@wrong(NEAR, "changes the images")
def mirrors_in_place(train, test, threshold):
    found = below(torch.minimum(*distances(train, test)), threshold)
    test.copy_(test.flip(-1))
    return found


@wrong(NEAR, "list of pairs")
def a_table(train, test, threshold):
    return torch.minimum(*distances(train, test)) < threshold


@wrong(NEAR, "missing")
def forgets_to_return(train, test, threshold):
    below(torch.minimum(*distances(train, test)), threshold)


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
