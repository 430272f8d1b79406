"""Lesson 11: the loop against steps by hand, image for image."""

import copy
import re
from pathlib import Path

import nbformat
import pytest
import torch
from comparing import fill
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from going_modular import engine
from going_modular.optimization import warmup_schedule
from going_modular.vit import create_vit

ROOT = Path(__file__).resolve().parents[2]
EXACT = {"atol": 1e-12, "rtol": 1e-12}
cross_entropy = nn.CrossEntropyLoss()


pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 4, 4, generator=generator, dtype=dtype)
    return images, torch.randint(3, (count,), generator=generator)


def loader(images, labels, batch_size=4):
    return DataLoader(TensorDataset(images, labels), batch_size)


def linear(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).to(dtype)


def vit(seed=0):
    """A ViT of one block without dropout, on four patches."""
    torch.manual_seed(seed)
    sizes = {"embedding_dim": 8, "mlp_size": 16, "num_heads": 2, "num_classes": 3}
    shares = {"mlp_dropout": 0.0, "embedding_dropout": 0.0}
    sizes |= {"img_size": 4, "patch_size": 2, "num_transformer_layers": 1}
    return fill(create_vit("vit_mini_8", **sizes, **shares)).double()


def sgd(model, lr=0.1, **options):
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def losses_by_hand(logits, labels):
    """Minus the logarithm of the softmax of the right class, image by image."""
    shares = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return [-shares[i, label].log().item() for i, label in enumerate(labels)]


def right_by_hand(logits, labels):
    """Whether the largest logit is that of the label, image by image."""
    rows = enumerate(logits.tolist())
    return [row.index(max(row)) == int(labels[i]) for i, row in rows]


def mean(values):
    return sum(values) / len(values)


def assert_weights(model, expected):
    for p, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), value, **EXACT)


def test_test_step_weighs_by_image():
    images, labels = pictures(10)
    model = linear()
    logits = model(images).detach()
    losses, right = losses_by_hand(logits, labels), right_by_hand(logits, labels)
    found = engine.test_step(model, loader(images, labels), cross_entropy, "cpu")
    assert found == pytest.approx((mean(losses), mean(right)), abs=1e-12)
    # Batches of 4, 4 and 2: the mean of their means is another number.
    of_means = mean([mean(losses[:4]), mean(losses[4:8]), mean(losses[8:])])
    assert abs(found[0] - of_means) > 1e-3
    of_means = mean([mean(right[:4]), mean(right[4:8]), mean(right[8:])])
    assert abs(found[1] - of_means) > 1e-3


def test_train_step_is_softmax_regression_by_hand():
    """Loss and accuracy are those before each step; the gradient is x (share - y)."""
    images, labels = pictures(10)
    model = linear()
    weight, bias = (p.detach().clone() for p in model.parameters())
    losses, right = [], []
    for i in (0, 4, 8):
        x, y = images[i : i + 4].flatten(1), labels[i : i + 4]
        logits = x @ weight.T + bias
        losses += losses_by_hand(logits, y)
        right += right_by_hand(logits, y)
        error = logits.softmax(dim=1) - torch.eye(3)[y]
        weight = weight - 0.1 * error.T @ x / len(x)
        bias = bias - 0.1 * error.mean(dim=0)
    found = engine.train_step(
        model, loader(images, labels), cross_entropy, sgd(model), "cpu"
    )
    assert found == pytest.approx((mean(losses), mean(right)), abs=1e-12)
    assert_weights(model, [weight, bias])


def steps_by_hand(model, groups, lrs, clip_norm):
    """One step of SGD for each group of images, with one gradient from all of them."""
    model = copy.deepcopy(model)
    parameters = list(model.parameters())
    for (images, labels), lr in zip(groups, lrs, strict=True):
        loss = nn.functional.cross_entropy(model(images), labels)
        grads = torch.autograd.grad(loss, parameters)
        if clip_norm is not None:
            length = sum(g.square().sum() for g in grads).sqrt()
            # torch adds 1e-6 to the length, so as never to divide by zero.
            factor = min(1.0, clip_norm / (length.item() + 1e-6))
            grads = [g * factor for g in grads]
        with torch.no_grad():
            for p, g in zip(parameters, grads, strict=True):
                p -= lr * g
    return [p.detach() for p in parameters]


@pytest.mark.parametrize("clip_norm", [None, 0.05, 1e3])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 5, 8])
def test_accumulation_equals_the_big_batch(accumulate, clip_norm):
    """18 images in batches of 4, the last of 2; the rate changes with each step."""
    images, labels = pictures(18)
    size = 4 * accumulate
    groups = [(images[i : i + size], labels[i : i + size]) for i in range(0, 18, size)]
    lrs = [0.5 * (1 - i / 6) for i in range(len(groups))]
    model = vit()
    expected = steps_by_hand(model, groups, lrs, clip_norm)
    unclipped = steps_by_hand(model, groups, lrs, None)
    assert torch.equal(expected[0], unclipped[0]) == (clip_norm != 0.05)
    optimizer = sgd(model, lr=0.5)
    scheduler = warmup_schedule(optimizer, 0, 6, "linear")
    engine.train_step(
        model,
        loader(images, labels),
        cross_entropy,
        optimizer,
        "cpu",
        scheduler=scheduler,
        clip_norm=clip_norm,
        accumulate=accumulate,
    )
    assert_weights(model, expected)
    assert scheduler.last_epoch == len(groups)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_loss_and_accuracy_do_not_depend_on_accumulation(accumulate):
    images, labels = pictures(10)
    model = linear()
    logits = model(images).detach()
    expected = (
        mean(losses_by_hand(logits, labels)),
        mean(right_by_hand(logits, labels)),
    )
    found = engine.train_step(
        model,
        loader(images, labels),
        cross_entropy,
        sgd(model, lr=0.0),
        "cpu",
        accumulate=accumulate,
    )
    assert found == pytest.approx(expected, abs=1e-12)


def test_no_gradient_is_left_over():
    """Two epochs of one batch each are two steps; the first leaves nothing behind."""
    images, labels = pictures(4)
    model = vit()
    expected = steps_by_hand(model, [(images, labels)] * 2, [0.1, 0.1], None)
    optimizer = sgd(model)
    for _ in range(2):
        engine.train_step(
            model, loader(images, labels), cross_entropy, optimizer, "cpu", accumulate=2
        )
    assert_weights(model, expected)


class Watching(nn.Module):
    """Notes the mode, the data type of the output, and whether gradients are kept."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.layer = linear(dtype=dtype)
        self.seen = []

    def forward(self, images):
        logits = self.layer(images)
        self.seen.append((self.training, logits.dtype, logits.requires_grad))
        return logits


def test_modes_and_gradients():
    train_loader = loader(*pictures(8))
    val_loader = loader(*pictures(3, seed=1))
    model = Watching().eval()
    engine.train(
        model, train_loader, val_loader, sgd(model), cross_entropy, 2, verbose=False
    )
    training, measuring = (True, torch.float64, True), (False, torch.float64, False)
    assert model.seen == [training, training, measuring] * 2


def test_dropout_acts_in_training_alone():
    images, labels = pictures(64)
    model = nn.Sequential(nn.Dropout(0.5), linear())
    expected = mean(losses_by_hand(model[1](images).detach(), labels))
    data = loader(images, labels)
    measured, _ = engine.test_step(model.train(), data, cross_entropy, "cpu")
    assert measured == pytest.approx(expected, abs=1e-12)
    optimizer = sgd(model, lr=0.0)
    noisy, _ = engine.train_step(model.eval(), data, cross_entropy, optimizer, "cpu")
    assert abs(noisy - expected) > 1e-3


def test_bfloat16_computes_in_16_bits_and_stays_close():
    images, labels = pictures(10, dtype=torch.float32)
    data = loader(images, labels)
    found = {}
    for dtype in (None, torch.bfloat16):
        model = Watching(torch.float32)
        optimizer = sgd(model)
        loss, _ = engine.train_step(
            model, data, cross_entropy, optimizer, "cpu", amp_dtype=dtype
        )
        tested, _ = engine.test_step(model, data, cross_entropy, "cpu", amp_dtype=dtype)
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert {seen[1] for seen in model.seen} == {dtype or torch.float32}
        assert weights.dtype == torch.float32
        found[dtype] = torch.tensor([loss, tested]), weights
    for ours, exact in zip(found[torch.bfloat16], found[None], strict=True):
        assert not torch.equal(ours, exact)
        torch.testing.assert_close(ours, exact, atol=0.01, rtol=0.01)


def test_train_hands_the_data_type_to_both_steps():
    data = loader(*pictures(4, dtype=torch.float32))
    model = Watching(torch.float32)
    engine.train(
        model,
        data,
        data,
        sgd(model),
        cross_entropy,
        1,
        amp_dtype=torch.bfloat16,
        verbose=False,
    )
    assert [seen[1] for seen in model.seen] == [torch.bfloat16] * 2


def test_mixup_with_its_soft_labels():
    images, labels = pictures(10)
    mixup, given = v2.MixUp(num_classes=3), []

    def noted(*batch):
        given.append(mixup(*batch))
        return given[-1]

    torch.manual_seed(0)
    model = linear()
    found = engine.train_step(
        model,
        loader(images, labels),
        cross_entropy,
        sgd(model, lr=0.0),
        "cpu",
        batch_transform=noted,
    )
    mixed, shares = (torch.cat(part) for part in zip(*given, strict=True))
    assert mixed.shape == images.shape and not torch.equal(mixed, images)
    assert ((shares > 0) & (shares < 1)).any()
    logits = model(mixed).detach()
    loss = -(shares * logits.log_softmax(dim=1)).sum(dim=1).mean().item()
    largest = [row.index(max(row)) for row in shares.tolist()]
    right = right_by_hand(logits, largest)
    assert found == pytest.approx((loss, mean(right)), abs=1e-12)


def test_of_soft_labels_the_largest_counts():
    """Four answers 0, 1, 2, 2 against labels whose largest share is 0, 1, 1, 2."""
    logits = torch.eye(3)[[0, 1, 2, 2]]
    shares = torch.tensor(
        [[0.6, 0.4, 0.0], [0.0, 0.9, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]]
    )
    data = loader(logits, shares, batch_size=3)
    assert engine.test_step(nn.Identity(), data, cross_entropy, "cpu")[1] == 0.75


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_loss_that_is_no_number_stops_before_its_step(poison):
    images, labels = pictures(10)
    model = linear()
    expected = steps_by_hand(model, [(images[:4], labels[:4])], [0.1], None)
    images[5] = poison
    data = loader(images, labels)
    with pytest.raises(FloatingPointError, match="loss is nan after 4 images.*rate"):
        engine.train_step(model, data, cross_entropy, sgd(model), "cpu")
    assert_weights(model, expected)


def test_an_infinite_loss_is_named():
    def infinite(logits, labels):
        return logits.sum() * 0 + torch.inf

    model = linear()
    with pytest.raises(FloatingPointError, match="loss is inf after 0 images"):
        engine.train_step(model, loader(*pictures(4)), infinite, sgd(model), "cpu")


def train(model, data, epochs=1, **options):
    """Trains a model that is of no further interest, validated on the same images."""
    arguments = {"val_dataloader": data, "optimizer": sgd(model), "epochs": epochs}
    arguments |= {"loss_fn": cross_entropy, "verbose": False}
    return engine.train(model, data, **arguments | options)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda data, none: train(linear(), none, val_dataloader=data),
            "dataloader holds no",
        ),
        (
            lambda data, none: train(linear(), data, val_dataloader=none),
            "dataloader holds no",
        ),
        (
            lambda data, none: train(linear(), data, test_dataloader=none),
            "dataloader holds no",
        ),
        (
            lambda data, none: engine.train(linear(), data, data, epochs=1),
            "optimizer is missing",
        ),
        (lambda data, none: train(linear(), data, accumulate=0), "least 1, got 0"),
        (lambda data, none: train(linear(), data, accumulate=-2), "least 1, got -2"),
        (lambda data, none: train(linear(), data, epochs=0), "epochs must .* got 0"),
        (lambda data, none: train(linear(), data, epochs=-1), "epochs must .* got -1"),
        (
            lambda data, none: train(linear(), data, amp_dtype=torch.float16),
            "float16 needs a gradient scaler",
        ),
    ],
)
def test_refused(call, message):
    data, none = loader(*pictures(4)), loader(*pictures(0))
    with pytest.raises(ValueError, match=message):
        call(data, none)


def test_an_unknown_option_is_refused():
    model = linear()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(TypeError, match="clip_nrom"):
        train(model, loader(*pictures(4)), clip_nrom=1.0)
    assert_weights(model, before)


def test_train_is_its_steps_in_a_row():
    """Also: options reach the steps, and the schedule goes on from epoch to epoch."""
    data, val = loader(*pictures(18)), loader(*pictures(7, seed=2))
    options = {"clip_norm": 0.5, "accumulate": 2}
    model = vit()
    by_hand = copy.deepcopy(model)
    optimizer = sgd(by_hand, lr=0.3)
    scheduler = warmup_schedule(optimizer, 2, 9)
    expected = {}
    for _ in range(3):
        numbers = engine.train_step(
            by_hand,
            data,
            cross_entropy,
            optimizer,
            "cpu",
            scheduler=scheduler,
            **options,
        )
        numbers += engine.test_step(by_hand, val, cross_entropy, "cpu")
        names = ("train_loss", "train_acc", "val_loss", "val_acc")
        for name, number in zip(names, numbers, strict=True):
            expected.setdefault(name, []).append(number)
    optimizer = sgd(model, lr=0.3)
    found = engine.train(
        model,
        data,
        val,
        optimizer,
        cross_entropy,
        3,
        scheduler=warmup_schedule(optimizer, 2, 9),
        verbose=False,
        **options,
    )
    assert found == expected
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_without_a_loss_it_is_cross_entropy():
    data = loader(*pictures(8))
    found = []
    for options in ({"loss_fn": cross_entropy}, {}):
        model = linear()
        options |= {"optimizer": sgd(model), "epochs": 2, "verbose": False}
        found.append(engine.train(model, data, **options))
    assert found[0] == found[1]
    assert list(found[0]) == ["train_loss", "train_acc"]


@pytest.mark.parametrize("by_name", [True, False])
def test_called_as_in_older_notebooks(by_name):
    """By name test images are measured; in third place they validate."""
    data, test = loader(*pictures(8)), loader(*pictures(3, seed=1))
    model = linear()
    arguments = {
        "model": model,
        "train_dataloader": data,
        "test_dataloader": test,
        "optimizer": sgd(model),
        "loss_fn": cross_entropy,
        "epochs": 3,
        "device": torch.device("cpu"),
    }
    if by_name:
        results = engine.train(**arguments)
    else:
        results = engine.train(*arguments.values())
    kind = "test" if by_name else "val"
    names = ["train_loss", "train_acc", f"{kind}_loss", f"{kind}_acc"]
    assert list(results) == names
    for values in results.values():
        assert len(values) == 3 and all(type(value) is float for value in values)
    accuracies = results[f"{kind}_acc"]
    best = max(range(3), key=lambda epoch: (accuracies[epoch], epoch)) + 1
    epochs = 3 if by_name else best
    steps = list(data) * epochs, [0.1] * 2 * epochs
    assert_weights(model, steps_by_hand(linear(), *steps, None))


class Climbing(nn.Module):
    """A weight that grows by one an epoch; images of this value are then told right."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        distance = (images - self.weight.detach()).abs()
        grows = self.weight.expand(len(images)) - 100
        return torch.stack([distance, torch.full_like(distance, 0.5), grows], dim=1)


def climb(epochs, right_at, **options):
    """Trains; `right_at`: the epochs after which the images of a loader are right."""

    def those(values):
        return loader(torch.tensor(values), torch.ones(len(values), dtype=torch.long))

    model, noted = Climbing(), []
    results = engine.train(
        model,
        those([0.0]),
        those(right_at["val"]) if "val" in right_at else None,
        sgd(model, lr=1.0),
        lambda logits, labels: -logits[:, 2].mean(),  # its gradient is always -1
        epochs,
        test_dataloader=those(right_at["test"]),
        callback=lambda epoch, results, model: noted.append(model.weight.item()),
        verbose=False,
        **options,
    )
    assert noted == list(range(1, epochs + 1))
    return model.weight.item(), results


@pytest.mark.parametrize("best", [1.0, 2.0, 4.0])
def test_the_best_epoch_is_that_of_validation(best):
    """All test images are right after epoch 3, and that must not matter."""
    right_at = {"test": [3.0, 3.0], "val": [best, best, 3.0, 9.0]}
    weight, results = climb(4, right_at)
    assert weight == best
    assert results["test_acc"] == [0.0, 0.0, 1.0, 0.0]
    assert results["val_acc"][int(best) - 1] == max(results["val_acc"]) == 0.5


def test_without_validation_the_last_epoch_stays():
    weight, results = climb(4, {"test": [2.0]})
    assert results["test_acc"] == [0.0, 1.0, 0.0, 0.0]
    assert weight == 4.0


def test_the_callback_sees_every_epoch():
    model, calls = linear(), []

    def callback(epoch, results, its_model):
        assert its_model is model
        calls.append((epoch, copy.deepcopy(results)))

    results = train(model, loader(*pictures(4)), epochs=3, callback=callback)
    assert [epoch for epoch, _ in calls] == [0, 1, 2]
    for epoch, so_far in calls:
        assert so_far == {key: values[: epoch + 1] for key, values in results.items()}


def test_one_line_an_epoch(capsys):
    data = loader(*pictures(4))
    results = train(linear(), data, epochs=2, test_dataloader=data, verbose=True)
    expected = [
        f"Epoch: {i + 1} | train_loss: {results['train_loss'][i]:.4f}"
        f" | train_acc: {results['train_acc'][i]:.4f}"
        f" | test_loss: {results['test_loss'][i]:.4f}"
        f" | test_acc: {results['test_acc'][i]:.4f}"
        f" | val_loss: {results['val_loss'][i]:.4f}"
        f" | val_acc: {results['val_acc'][i]:.4f}"
        for i in range(2)
    ]
    assert capsys.readouterr().out.splitlines() == expected


def test_silent(capsys):
    train(linear(), loader(*pictures(4)), epochs=2, verbose=False)
    assert capsys.readouterr() == ("", "")


def test_gradients_from_before_do_not_count():
    """Somebody looked at gradients, or an earlier run stopped between two steps."""
    images, labels = pictures(4)
    model = linear()
    expected = steps_by_hand(model, [(images, labels)], [0.1], None)
    cross_entropy(model(images), labels).backward()
    engine.train_step(model, loader(images, labels), cross_entropy, sgd(model), "cpu")
    assert_weights(model, expected)


def test_clipping_looks_at_what_the_optimizer_holds():
    """An optimizer of the bias alone, whose gradient is far shorter than the limit."""
    images, labels = pictures(12)
    images = images * 10  # a long gradient for the weight, which nobody trains
    model, clipped = linear(), linear()
    for network, options in ((model, {}), (clipped, {"clip_norm": 2.0})):
        optimizer = torch.optim.SGD([network[1].bias], lr=0.1)
        data = loader(images, labels)
        engine.train_step(network, data, cross_entropy, optimizer, "cpu", **options)
    assert_weights(clipped, [p.detach() for p in model.parameters()])


class UnknownLength(torch.utils.data.IterableDataset):
    """Images whose number nobody knows beforehand."""

    def __iter__(self):
        yield from zip(*pictures(6), strict=True)


def test_validation_without_a_known_length():
    unknown = DataLoader(UnknownLength(), 4)
    known = loader(*pictures(6))
    results = train(linear(), known, val_dataloader=unknown, test_dataloader=known)
    assert results["val_loss"] == results["test_loss"]


def test_a_run_drawn_by_tensorboard(tmp_path, monkeypatch):
    """The lines that lesson 11 shows; what they write can be read back."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lesson = nbformat.read(ROOT / "notebooks" / "11_training.ipynb", as_version=4)
    (shown,) = [c.source for c in lesson.cells if "SummaryWriter" in c.source]
    code = re.search(r"```python\n(.*?)```", shown, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.split("train(")[0], names)
    data = loader(*pictures(6))
    results = train(linear(), data, epochs=2, callback=names["log"])
    names["writer"].close()
    events = EventAccumulator(str(tmp_path / "runs" / "first")).Reload()
    for name, values in results.items():
        drawn = [scalar.value for scalar in events.Scalars(name)]
        assert drawn == pytest.approx(values, rel=1e-6)
