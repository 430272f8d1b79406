"""Tasks of the exercises of lesson 06: self-attention."""

from collections.abc import Callable
from types import FrameType

import torch
from torch.nn.functional import normalize

from going_modular.self_attention import scaled_dot_product_attention
from vit_course.checks.hints import ForbiddenCalls, hint
from vit_course.checks.task import Case, Task


def _random(seed: int, *shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _attend(scores: torch.Tensor, value: torch.Tensor, dim: int = -1) -> tuple:
    """Output and weights for scores."""
    weights = scores.softmax(dim=dim)
    return weights @ value, weights


MASKS = {  # from the lengths and the number of keys
    lambda n, m: torch.arange(m) <= n[..., None]: (
        "one key too many: your queries may attend to `lengths[i] + 1` keys. Keys are "
        "counted from 0, so with length 1 it is key 0 and no other."
    ),
    lambda n, m: torch.arange(1, m + 1) < n[..., None]: (
        "one key too few. Keys are counted from 0, so with length 1 a query may attend "
        "to key 0."
    ),
    lambda n, m: torch.arange(m) >= n[..., None]: (
        "the mask is inverted: here True = may attend. (In `nn.MultiheadAttention` it "
        "means that a query may *not*.)"
    ),
    lambda n, m: torch.arange(m)[:, None] < n: (
        "rows and columns are swapped: a row of the mask belongs to a query, a column "
        "to a key."
    ),
    (
        lambda n, m: torch.ones(len(n), m, dtype=torch.bool).tril(),
        lambda n, m: torch.ones(n.shape[-1], m, dtype=torch.bool).tril(),
    ): "this is the causal mask, whatever the lengths are.",
    lambda n, m: torch.arange(m) < n.clamp(min=1)[..., None]: (
        "a length of 0 allows no key, and yours allows key 0 there."
    ),
    lambda n, m: (torch.arange(m) < n.max(-1, True)[0][..., None]).expand(
        *n.shape, m
    ): ("all queries of a sequence have its largest length. Each has its own."),
    lambda n, m: torch.arange(m) == n[..., None] - 1: (
        "only the last of the keys is allowed. Query i may attend to the *first* "
        "`lengths[i]` keys, all of them."
    ),
    lambda n, m: torch.arange(m) >= m - n[..., None]: (
        "these are the last `lengths[i]` keys. The task asks for the first."
    ),
    lambda n, m: torch.arange(int(n.max())) < n[..., None]: (
        "the mask has as many columns as the largest length. There are `num_keys` "
        "keys, also those that no query may attend to."
    ),
    lambda n, m: torch.arange(n.shape[-1]) < n[..., None]: (
        "the mask has as many columns as there are queries. There are `num_keys` keys."
    ),
    lambda n, m: torch.arange(m) < n[:, None]: (
        "right for one sequence, not for a batch: the new axis belongs behind all "
        "others. `lengths[:, None]` puts it second; `lengths[..., None]` or "
        "`unsqueeze(-1)` puts it last."
    ),
}


check_mask_from_lengths = Task(
    "mask_from_lengths",
    "a mask from a length for each query",
    Case(
        inputs=[
            (torch.tensor([2, 0, 1]), 4),
            (torch.tensor([1, 2, 3, 4]), 4),
            (torch.tensor([2, 3, 1]), 5),
            (torch.tensor([3]), 2),  # longer than there are keys
            (torch.tensor([[3, 1, 4, 2], [0, 2, 5, 6]]), 6),
            (torch.tensor([[2, 4, 0, 1, 3]]), 5),
            (torch.tensor([[1, 3], [2, 2]]), 2),
        ],
        right=lambda n, m: torch.arange(m) < n[..., None],
        mistakes=MASKS,
    ),
)


def _squared(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return ((query[:, :, None] - key[:, None]) ** 2).sum(dim=-1)  # (B, N, M)


def _sqrt_dim(query: torch.Tensor) -> float:
    return query.shape[-1] ** 0.5


def _products(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return query @ key.transpose(-2, -1)  # (..., N, M)


def _distance(query, key, value) -> tuple:
    return _attend(-_squared(query, key) / _sqrt_dim(query), value)


def _two_terms(query, key, value) -> tuple:
    return _attend(2 * _products(query, key) / _sqrt_dim(query), value)


def _product_once(query, key, value) -> tuple:
    scores = _products(query, key) - key.square().sum(dim=-1)[:, None]
    return _attend(scores / _sqrt_dim(query), value)


def _exp_alone(query, key, value) -> tuple:
    weights = (-_squared(query, key) / _sqrt_dim(query)).exp()
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights @ value, weights


def _without_softmax(query, key, value) -> tuple:
    scores = -_squared(query, key) / _sqrt_dim(query)
    return scores @ value, scores


DISTANCES = {
    lambda q, k, v: _attend(_squared(q, k) / _sqrt_dim(q), v): (
        "the key that lies farthest away gets the largest weight. Near ones should: "
        "where is the minus?"
    ),
    lambda q, k, v: _attend(-_squared(q, k).sqrt() / _sqrt_dim(q), v): (
        "this is the distance. The equation has its square."
    ),
    lambda q, k, v: _attend(-_squared(q, k), v): (
        "the scores are not divided by the square root of D_h."
    ),
    lambda q, k, v: _attend(-_squared(q, k) / q.shape[-1], v): (
        "the scores are divided by D_h and not by its square root. A square root "
        "inside the square, or a mean in place of the sum, does the same."
    ),
    lambda q, k, v: _attend(-_squared(q, k) / q.shape[-1] / _sqrt_dim(q), v): (
        "a mean over the entries of a vector stands where the equation has a sum; with "
        "the scaling by 1/√D_h you divide twice."
    ),
    lambda q, k, v: _attend(-_squared(q, k) / _sqrt_dim(q), v, dim=-2): (
        "softmax runs over the queries. The weights of *one* query sum to one: over "
        "the keys, the last axis."
    ),
    lambda q, k, v: _attend(-_squared(k, q) / _sqrt_dim(q), v): (
        "queries and keys are swapped in the scores: row i must belong to query i. "
        "Which of the two gets the new axis in the middle?"
    ),
    lambda q, k, v: _attend(_products(q, k) / _sqrt_dim(q), v): (
        "these are the weights of the dot product. The score is minus the squared "
        "distance."
    ),
    lambda q, k, v: _attend(
        -(q[:, :, None] - k[:, None]).abs().sum(dim=-1) / _sqrt_dim(q), v
    ): (
        "the distances are summed without squares. The square of a vector's length "
        "is the sum of the *squares* of its entries."
    ),
    lambda q, k, v: _attend(
        -((q[:, :, None] - k[:, None]).sum(dim=-1) ** 2) / _sqrt_dim(q), v
    ): ("the differences are summed, and the sum is squared. First square, then sum."),
    lambda q, k, v: _distance(q, k, v)[::-1]: (
        "the two are in the wrong order: first the output, then the weights."
    ),
    lambda q, k, v: (
        _distance(q, k, v)[0],
        -_squared(q, k) / _sqrt_dim(q),
    ): (
        "the output is right, and the second tensor holds the scores. Give back the "
        "weights, after softmax."
    ),
    _two_terms: (
        "the squared length of the key is missing. It differs from key to key; that of "
        "the query is the same for all keys, and may be left out."
    ),
    _product_once: (
        "the square of a difference has the product twice: |q|² - 2 q·k + |k|²."
    ),
    lambda q, k, v: _attend(-_squared(q, k) / v.shape[-1] ** 0.5, v): (
        "you divide by the square root of the size of a value. D_h is that of a query."
    ),
    _exp_alone: (
        "where all keys are far away, every `exp` is 0, and the weights are 0/0, which "
        "is NaN. `softmax` subtracts the largest score first."
    ),
    _without_softmax: (
        "there is no softmax: the weights of a query are not negative and sum to one."
    ),
}


def _check_gradient_at_zero(answer: Callable) -> None:
    """Checks the gradient where queries equal keys."""
    tokens, value, wish = _random(61, (2, 4, 6), (2, 4, 3), (2, 4, 3))
    found = []
    for function in (answer, _distance):
        leaf = tokens.clone().requires_grad_()
        output = function(leaf, leaf, value)[0]
        found += torch.autograd.grad((output * wish).sum(), leaf)
    hint(
        found[0].isfinite().all(),
        "values are right, but where a query equals a key the gradient is NaN: a "
        "square root has an infinite slope at 0. The equation has the *squared* "
        "distance, which needs no square root.",
    )
    hint(
        torch.allclose(found[0], found[1], atol=1e-4, rtol=1e-3),
        "the gradient is wrong where a query equals a key, as in self-attention.",
    )


check_distance_attention = Task(
    "distance_attention",
    "attention by distance, values and gradients",
    Case(
        inputs=[
            _random(62, (2, 5, 6), (2, 5, 6), (2, 5, 3)),
            _random(63, (3, 4, 5), (3, 7, 5), (3, 7, 2)),
            _random(64, (1, 6, 3), (1, 2, 3), (1, 2, 8)),
            _random(65, (4, 1, 16), (4, 3, 16), (4, 3, 1)),
            tuple(40 * x for x in _random(60, (1, 3, 4), (1, 5, 4), (1, 5, 2))),
        ],
        right=_distance,
        mistakes=DISTANCES,
    ),
    also=[_check_gradient_at_zero],
)


def _attention(query, key, value) -> tuple:
    return _attend(_products(query, key) / _sqrt_dim(query), value)


def _weights_divided(query, key, value) -> tuple:
    weights = _products(query, key).softmax(dim=-1) / _sqrt_dim(query)
    return weights @ value, weights


NOT_OWN = "`scaled_dot_product_attention` does all of it. Write the scores yourself."


def _is_attention(name: str, caller: FrameType) -> bool:
    """Whether it is PyTorch's attention, or is called by the lesson's."""
    of_lesson = caller.f_code is scaled_dot_product_attention.__code__
    return of_lesson or name == "scaled_dot_product_attention"


def _call_for_own_scores(answer, *given: torch.Tensor):
    with ForbiddenCalls(_is_attention, NOT_OWN):
        return answer(*given)


def _cosines(query, key) -> torch.Tensor:
    return _products(normalize(query, dim=-1), normalize(key, dim=-1))


SCALES = {
    (
        lambda q, k, v: _attend(_cosines(q, k), v),
        lambda q, k, v: _attend(_cosines(q, k) / _sqrt_dim(q), v),
        lambda q, k, v: _attend(_cosines(q, k) * _sqrt_dim(q), v),
    ): "these are cosines: queries and keys have lost their lengths.",
    lambda q, k, v: _attend(_products(q, k) / 8, v): (
        "8 is the square root of 64, whatever D_h is. Take D_h from the query."
    ),
    lambda q, k, v: _attend(_products(q, k) / q.shape[-1], v): (
        "the scores are still divided by D_h. Random scores have a standard deviation "
        "of √D_h, so that D_h makes them smaller and smaller the longer the vectors "
        "are. (Dividing both query and key by √D_h divides by D_h, too.)"
    ),
    lambda q, k, v: _attend(_products(q, k), v): (
        "the scores are not divided at all. Then they grow with the square root of "
        "D_h, and softmax saturates."
    ),
    lambda q, k, v: _attend(_products(q, k) * _sqrt_dim(q), v): (
        "the scores are multiplied by the square root of D_h. They are too large as it "
        "is."
    ),
    _weights_divided: (
        "the weights are divided, after softmax: those of a query no longer sum to "
        "one. It is the scores that are too large."
    ),
    lambda q, k, v: _attend(_products(q, k) / k.shape[-2] ** 0.5, v): (
        "this is the square root of the number of keys. Scores are sums over the "
        "entries of a *query*: the last axis."
    ),
    lambda q, k, v: _attend(_products(q, k) / q.shape[-2] ** 0.5, v): (
        "this is the square root of the number of queries. Scores are sums over the "
        "entries of a *query*: the last axis."
    ),
    lambda q, k, v: _attend(_products(q, k) / v.shape[-1] ** 0.5, v): (
        "this is the square root of the size of a value. Scores are sums over the "
        "entries of a *query*."
    ),
    lambda q, k, v: _attend(_products(q, k) / q.shape[-1] ** 0.25, v): (
        "the scores are divided by the fourth root of D_h. Divide the query *and* the "
        "key by it, or the scores by the square root."
    ),
    lambda q, k, v: _attend(_products(q, k) / _sqrt_dim(q), v, dim=-2): (
        "softmax runs over the queries now. That axis was right: the weights of *one* "
        "query sum to one."
    ),
    lambda q, k, v: _attention(q, k, v)[::-1]: (
        "the two are in the wrong order: first the output, then the weights."
    ),
    lambda q, k, v: _attend(q @ k.transpose(1, 2) / _sqrt_dim(q), v): (
        "the axes of the key are swapped from the front, which is right for one number "
        "of axes only. `transpose(-2, -1)` swaps the last two, whatever comes before "
        "them."
    ),
    lambda q, k, v: _attend(q @ k.permute(*range(k.ndim)[::-1]) / _sqrt_dim(q), v): (
        "`.T` reverses all axes, the batch, too. `transpose(-2, -1)` swaps the last "
        "two."
    ),
}


check_mended_scores = Task(
    "mended_attention",
    "mended: scaled by 1/√D_h",
    Case(
        inputs=[
            _random(66, (2, 5, 9), (2, 7, 9), (2, 7, 4)),
            _random(67, (1, 4, 16), (1, 4, 16), (1, 4, 5)),
            _random(68, (2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 2)),
            _random(69, (3, 8), (2, 8), (2, 6)),
        ],
        call=_call_for_own_scores,
        right=_attention,
        mistakes=SCALES,
    ),
)


def _entropy_of(weights: torch.Tensor) -> torch.Tensor:
    return -torch.xlogy(weights, weights).sum(dim=-1)  # (..., N)


def _weights(query, key, temperature) -> torch.Tensor:
    return (_products(query, key) / (temperature * _sqrt_dim(query))).softmax(dim=-1)


def _of_weights(measure: Callable) -> Callable:
    """The measurement with something else than the mean entropy."""
    return lambda q, k, t: measure(_weights(q, k, t)).item()


def _of_scores(scale: Callable) -> Callable:
    """The mean entropy with scores that are divided by something else."""
    return lambda q, k, t: (
        _entropy_of((_products(q, k) / scale(q, t)).softmax(dim=-1)).mean().item()
    )


def _over_queries(query, key, temperature) -> float:
    weights = _weights(key, query, temperature).mT  # columns sum to one
    return _entropy_of(weights).mean().item()


ENTROPIES = {
    _of_weights(lambda w: -(w * w.log()).sum(dim=-1).mean()): (
        "a weight so small that it is stored as 0 makes the result NaN: 0 times minus "
        "infinity. It should count as 0: `torch.xlogy` does it, and so do log_softmax "
        "or a `clamp` inside the logarithm."
    ),
    _of_weights(lambda w: -(w * w.log()).sum(dim=-1).nan_to_num().mean()): (
        "a weight of 0 makes the sum of its whole row NaN, and you count that row as "
        "0. It is the single product, 0 times minus infinity, that counts as 0: put "
        "`nan_to_num` before the sum."
    ),
    _of_scores(lambda q, t: _sqrt_dim(q) / t): (
        "the temperature multiplies the scores. It divides them: a high one makes them "
        "alike."
    ),
    _of_scores(lambda q, t: _sqrt_dim(q)): "the temperature has no effect.",
    _of_scores(lambda q, t: t): (
        "the square root of D_h is missing: the temperature divides the scores *once "
        "more*."
    ),
    _of_scores(
        lambda q, t: q.shape[-1] * t
    ): "the scores are divided by D_h and not by its square root.",
    _of_scores(
        lambda q, t: (q.shape[-1] * t) ** 0.5
    ): "the temperature stands under the square root. Only D_h does.",
    _of_weights(
        lambda w: _entropy_of(w).mean() / torch.tensor(2.0).log()
    ): "the logarithm has another base: ln is `log`, not `log2` or `log10`.",
    _of_weights(
        lambda w: _entropy_of(w).sum()
    ): "this is the sum over all queries. The task asks for their mean.",
    _of_weights(lambda w: _entropy_of(w).sum(dim=-1).mean()): (
        "this is the sum over the queries of a sequence. The task asks for the mean "
        "over all queries."
    ),
    _of_weights(lambda w: -torch.xlogy(w, w).mean()): (
        "you take the mean over the keys, too. The entropy of a query is a *sum* over "
        "them."
    ),
    _of_weights(lambda w: -_entropy_of(w).mean()): (
        "the sign: logarithms of probabilities are negative, an entropy is not."
    ),
    (
        _of_weights(lambda w: _entropy_of(w.mean(dim=-2)).mean()),
        _of_weights(lambda w: _entropy_of(w.mean(dim=(0, 1)))),
    ): (
        "the weights of the queries are averaged first. A mean of peaked weights looks "
        "flat: take the entropy of each query, then the mean."
    ),
    _over_queries: (
        "softmax runs over the queries. The weights of *one* query sum to one: over "
        "the keys, the last axis."
    ),
    lambda q, k, t: _entropy_of(_weights(q[:1], k[:1], t)).mean().item(): (
        "this is the entropy of one sequence. The mean is over all of them."
    ),
    lambda q, k, t: _entropy_of(_weights(q, k, 1) / t).mean().item(): (
        "the temperature divides the weights, after softmax, and not the scores."
    ),
}


check_attention_entropy = Task(
    "measure_entropy",
    "entropy of the weights at a temperature",
    Case(
        inputs=[
            (*_random(70, (2, 3, 6), (2, 5, 6)), 1.5),
            (*_random(71, (3, 4, 5), (3, 2, 5)), 0.5),
            (*_random(72, (1, 6, 10), (1, 7, 10)), 1.0),
            (torch.ones(2, 3, 4), torch.ones(2, 9, 4), 2),  # ln 9: all alike
            (*_random(73, (2, 4, 8), (2, 6, 8)), 1e-3),  # some weights are 0
        ],
        right=_of_weights(lambda w: _entropy_of(w).mean()),
        mistakes=ENTROPIES,
        tolerance=1e-4,
        gradient=False,
    ),
)
