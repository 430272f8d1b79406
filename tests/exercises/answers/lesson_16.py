"""Answers to the capstone."""

import copy

import torch
from torch import nn

import helper_functions
from answers import right, wrong
from going_modular.vit import create_vit
from helper_functions import check_close

CHECK = "check_variation"
SMALL = {"num_transformer_layers": 2, "mlp_dropout": 0.0, "embedding_dropout": 0.0}


def small_vit(num_classes):
    return create_vit("vit_mini_8", num_classes=num_classes, **SMALL)


class Around(nn.Module):
    """A small ViT that the answers change."""

    def __init__(self, num_classes):
        super().__init__()
        self.vit = small_vit(num_classes)

    def forward(self, images):
        return self.vit(images)


@wrong(CHECK, "is the head fixed")
def fixed_head(num_classes):
    return small_vit(3)


@wrong(CHECK, "logits of shape (4, 3)")
class GivesTokens(Around):
    def forward(self, images):
        return self.vit.encoder(self.vit.embedding(images))


@wrong(CHECK, "other images of the batch")
class AttentionOverTheBatch(Around):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        layer = nn.TransformerEncoderLayer(192, 3, 384, dropout=0.0)
        self.vit.encoder.append(layer)


@wrong(CHECK, "other images of the batch")
class Centred(Around):
    def forward(self, images):
        return self.vit(images - images.mean(dim=0))


@wrong(CHECK, "something random")
class AlwaysDropout(Around):
    def forward(self, images):
        return self.vit(nn.functional.dropout(images, 0.1))


@wrong(CHECK, "no gradient ever reaches registers")
class UnusedRegisters(Around):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.registers = nn.Parameter(torch.zeros(1, 4, 192))


@wrong(CHECK, "changes the tensor")
class ScalesInPlace(Around):
    def forward(self, images):
        return self.vit(images.mul_(0.5))


@wrong(CHECK, "does not depend on the patches")
class ReadsAFreshToken(Around):
    def forward(self, images):
        token = self.vit.embedding.class_token.weight.expand(len(images), -1, -1)
        return self.vit.head(self.vit.layer_norm(token)[:, 0])


@wrong(CHECK, "should fit them")
class Detached(Around):
    def forward(self, images):
        return 1e-4 * self.vit(images)


a_model = small_vit(3)
a_model.__name__ = "a_model"
wrong(CHECK, "not a model")(a_model)


@wrong(CHECK, "no finite numbers")
class DividesByZero(Around):
    def forward(self, images):
        return self.vit(images / 0)


@wrong(CHECK, "gives probabilities")
class WithSoftmax(Around):
    def forward(self, images):
        return self.vit(images).softmax(dim=-1)


@wrong(CHECK, "shape (1, 3), not (3,)")
class Squeezed(Around):
    def forward(self, images):
        return self.vit(images).squeeze()


@wrong(CHECK, "an nn.ModuleList")
class Blocks(Around):
    """In a Python list, so that no optimizer knows them."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.blocks, self.vit.encoder = list(self.vit.encoder), nn.Identity()

    def forward(self, images):
        z = self.vit.embedding(images)
        for block in self.blocks:
            z = block(z)
        return self.vit.head(self.vit.layer_norm(z)[:, 0])


@wrong(CHECK, "is not in it")
class PlainRegisters(Around):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.registers = torch.randn(1, 4, 192)

    def forward(self, images):
        registers = self.registers.expand(len(images), -1, -1)
        z = torch.cat([self.vit.embedding(images), registers], dim=1)
        return self.vit.head(self.vit.layer_norm(self.vit.encoder(z))[:, 0])


@wrong(CHECK, "qkv.weight, ")
class FrozenBlock(Around):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.vit.encoder[0].requires_grad_(False)


@wrong(CHECK, "`img_size=64`")
def for_224_pixels(num_classes):
    return create_vit("vit_tiny_16", num_classes=num_classes)


@wrong(CHECK, "not written yet")
def blank(num_classes):
    raise NotImplementedError("your lines go here")


@right(CHECK)
class WithRegisters(Around):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.registers = nn.Parameter(torch.zeros(1, 4, 192))

    def forward(self, images):
        tokens = self.vit.embedding(images)
        registers = self.registers.expand(len(images), -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
        return self.vit.head(self.vit.layer_norm(self.vit.encoder(tokens))[:, 0])


@right(CHECK)
def mean_and_fixed_positions(num_classes):
    return create_vit(
        "vit_mini_8",
        num_classes=num_classes,
        pool="mean",
        position="sinusoidal_2d",
        **SMALL,
    )


@right(CHECK)
class HybridStem(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 48, 3, 2, 1), nn.GroupNorm(1, 48), nn.GELU()
        )
        self.patches = nn.Conv2d(48, 64, 4, 4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 64, 64))
        layer = nn.TransformerEncoderLayer(
            64, 4, 128, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, num_classes)

    def forward(self, images):
        tokens = self.patches(self.stem(images)).flatten(2).mT
        return self.head(self.encoder(tokens + self.positions).mean(dim=1))


@right(CHECK)
class EmbeddedRegisters(Around):
    """With a head of zeros, and a table of numbers after it."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        nn.init.zeros_(self.vit.head.weight)
        self.registers = nn.Embedding(4, 192)

    def forward(self, images):
        registers = self.registers.weight.expand(len(images), -1, -1)
        tokens = torch.cat([self.vit.embedding(images), registers], dim=1)
        return self.vit.head(self.vit.layer_norm(self.vit.encoder(tokens))[:, 0])


PROOF = "check_proof"
RACE = "check_measured_race"


def pair():
    torch.manual_seed(0)
    x = torch.randn(2, 3, requires_grad=True)
    ours, theirs = 2 * x, x + x
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)]
    return ours, theirs, *gradients


@wrong(PROOF, "called 1 times")
def values_only():
    ours, theirs, *_ = pair()
    check_close("values", ours, theirs)


@wrong(PROOF, "called 0 times")
def shapes_only():
    ours, theirs, *_ = pair()
    assert ours.shape == theirs.shape


@wrong(PROOF, "no gradient is computed")
def values_twice():
    x = torch.arange(6.0)
    check_close("values", 2 * x, x + x)
    check_close("gradient", 2 * x + 1, x + x + 1)


@wrong(PROOF, "compared with itself")
def with_itself():
    ours, _, gradient, other = pair()
    check_close("values", ours, ours)
    check_close("gradient", gradient, other)


@wrong(PROOF, "both are zero")
def at_zero():
    ours, theirs, gradient, other = pair()
    check_close("values", 0 * ours, 0 * theirs)
    check_close("gradient", gradient, other)


@wrong(PROOF, "one number")
def of_means():
    ours, theirs, gradient, other = pair()
    check_close("values", ours.mean(), theirs.mean())
    check_close("gradient", gradient, other)


@wrong(PROOF, "a wrong value may pass")
def with_a_wide_tolerance():
    ours, theirs, gradient, other = pair()
    check_close("values", ours, theirs, tolerance=1)
    check_close("gradient", gradient, other)


@wrong(PROOF, "AssertionError")
def that_fails():
    ours, theirs, gradient, other = pair()
    check_close("values", ours, theirs + 1)
    check_close("gradient", gradient, other)


@wrong(PROOF, "your code caught that")
def that_fails_quietly():
    try:
        that_fails()
    except AssertionError as error:
        print("nearly:", error)


def by_model(other):
    """Compares logits and a gradient of a small ViT with those of another model."""
    x, found = torch.randn(1, 3, 64, 64), []
    for vit in (model := small_vit(3).eval(), other(model)):
        logits = vit(x)
        weight = next(vit.parameters())
        found.append((logits, torch.autograd.grad(logits.sum(), weight)[0]))
    for name, ours, theirs in zip(("logits", "gradient"), *found, strict=True):
        check_close(name, ours, theirs, 1e-4)


@wrong(PROOF, "one model, or a copy")
def same_model():
    by_model(lambda model: model)


@wrong(PROOF, "one model, or a copy")
def deep_copy():
    by_model(copy.deepcopy)


@wrong(PROOF, "Dropout is active")
def without_eval():
    by_model(lambda model: create_vit("vit_mini_8", num_classes=3).train())


@right(PROOF)
def inside_another_module():
    def around(model):
        outer = Around(3).eval()
        outer.vit = model
        return outer

    by_model(around)


@right(PROOF)
def with_a_loss_as_well():
    by_value_and_gradient()
    ours, theirs, *_ = pair()
    check_close("loss", ours.mean(), theirs.mean())


@right(PROOF)
def by_value_and_gradient():
    ours, theirs, gradient, other = pair()
    check_close("values", ours, theirs)
    check_close("gradient", gradient, other)


@right(PROOF)
def in_a_loop():
    found = pair()
    for name, i in (("values", 0), ("gradient", 2), ("values again", 0)):
        check_close(name, found[i], found[i + 1], 1e-5)


@right(PROOF)
def by_functions_of_torch():
    x = torch.arange(6.0)
    check_close("values", 2 * x, x + x)
    ours = torch.func.grad(lambda x: (2 * x).square().sum())(x)
    theirs = torch.func.grad(lambda x: (x + x).square().sum())(x)
    check_close(name="gradient", ours=ours, theirs=theirs, tolerance=1e-5)


@right(PROOF)
@torch.enable_grad()
def below_a_decorator():
    by_value_and_gradient()
    ours, theirs, *_ = pair()
    check_close("values again", ours, theirs)


@right(PROOF)
def by_the_module():
    ours, theirs, gradient, other = pair()
    helper_functions.check_close("values", ours, theirs)
    helper_functions.check_close("gradient", gradient, other)


@wrong(RACE, "two names")
def one_of_each_seed(seeds):
    return {seed: [0.5 + seed / 10, 0.6] for seed in seeds}


@wrong(RACE, "two names")
def one_model(seeds):
    return {"variation": [0.5, 0.6, 0.7]}


@wrong(RACE, "three accuracies")
def seeds_of_its_own(seeds):
    return {"ViT": [0.5, 0.6], "variation": [0.6, 0.7]}


@wrong(RACE, "no accuracies")
def in_percent(seeds):
    return {"ViT": [50.0, 51.0, 52.0], "variation": [60.0, 61.0, 62.0]}


@wrong(RACE, "one for each epoch")
def histories(seeds):
    return {"ViT": 3 * [[0.4, 0.5]], "variation": 3 * [[0.3, 0.4]]}


@wrong(RACE, "are not three numbers")
def as_text(seeds):
    return {"ViT": ["50%", "51%", "52%"], "variation": ["60%", "61%", "62%"]}


@wrong(RACE, "no optimizer has taken a step")
def made_up(seeds):
    return {"ViT": [0.5, 0.6, 0.6], "variation": [0.6, 0.7, 0.7]}


def pictures(seed):
    torch.manual_seed(seed)
    return torch.randn(4, 3, 2, 2)


def trained(model, steps=2, after_step=None):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(pictures(0)).square().mean().backward()
        optimizer.step()
        if after_step:
            after_step(model.eval())
        model.train()
    return model


@torch.no_grad()
def measured(model, seed=99):
    return model.eval()(pictures(seed)).sigmoid().mean().item()


def new_model(seed, name="ViT"):
    torch.manual_seed(seed)
    layers = nn.Flatten(), nn.Linear(12, 3 if name == "ViT" else 2)
    return nn.Sequential(*layers)


def raced(seeds, run):
    return {name: [run(seed, name) for seed in seeds] for name in ("ViT", "mine")}


@wrong(RACE, "same model twice")
def same_twice(seeds):
    return raced(seeds, lambda seed, name: measured(trained(new_model(seed))))


@wrong(RACE, "does the seed reach")
def one_seed_for_all(seeds):
    return raced(seeds, lambda seed, name: measured(trained(new_model(0, name))))


@wrong(RACE, "2 models are trained")
def trained_on(seeds):
    models = {name: new_model(0, name) for name in ("ViT", "mine")}
    return raced(seeds, lambda seed, name: measured(trained(models[name])))


@wrong(RACE, "for 2 steps and some for 4")
def longer_for_mine(seeds):
    def run(seed, name):
        return measured(trained(new_model(seed, name), 4 if name == "mine" else 2))

    return raced(seeds, run)


@wrong(RACE, "accuracy of the training")
def on_training_pictures(seeds):
    def run(seed, name):
        return trained(new_model(seed, name))(pictures(0)).sigmoid().mean().item()

    return raced(seeds, run)


@wrong(RACE, "test images once")
def best_epoch_of_the_test(seeds):
    def run(seed, name):
        found = []
        model = new_model(seed, name)
        trained(model, after_step=lambda model: found.append(measured(model)))
        return max(found)

    return raced(seeds, run)


@wrong(RACE, "not written yet")
def no_race(seeds):
    raise NotImplementedError("your lines go here")


@right(RACE)
def with_validation(seeds):
    def run(seed, name):
        model = new_model(seed, name)
        return measured(trained(model, after_step=lambda model: measured(model, 5)))

    return raced(seeds, run)


@right(RACE)
def all_trained_first(seeds):
    def run(seed, name):
        return trained(new_model(seed, name))

    models = raced(seeds, run)
    return {name: tuple(map(measured, found)) for name, found in models.items()}
