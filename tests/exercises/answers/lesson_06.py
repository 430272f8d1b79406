"""Answers to the exercises of lesson 06."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from answers import right, wrong
from going_modular.self_attention import scaled_dot_product_attention

MASK = "check_mask_from_lengths"
DISTANCE = "check_distance_attention"
MENDED = "check_mended_scores"
ENTROPY = "check_attention_entropy"


@wrong(MASK, "expected (1, 2)")
def squeezed(lengths, num_keys):
    return (torch.arange(num_keys) < lengths[..., None]).squeeze()


@wrong(MASK, "expected torch.bool")
def as_integers(lengths, num_keys):
    return (torch.arange(num_keys) < lengths[..., None]).int()


@wrong(MASK, "expected torch.bool")
def as_scores(lengths, num_keys):
    hidden = torch.arange(num_keys) >= lengths[..., None]
    return torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)


@wrong(MASK, "size of tensor a")
def without_a_new_axis(lengths, num_keys):
    return torch.arange(num_keys) < lengths


@wrong(MASK, "expected (4, 4)")
def three_queries(lengths, num_keys):
    rows = [torch.arange(num_keys) < lengths[i] for i in range(3)]
    return torch.stack(rows)


@wrong(MASK, "changes the tensor")
def counted_down(lengths, num_keys):
    columns = []
    for _ in range(num_keys):
        columns.append(lengths > 0)
        lengths -= 1
    return torch.stack(columns, dim=-1)


@wrong(MASK, "wrong for [3] and 2. What is different there?")
def unclamped(lengths, num_keys):
    return torch.ones(num_keys + 1, num_keys).tril(-1).bool()[lengths]


@wrong(MASK, "wrong for [[3, 1, 4, 2], [0, 2, 5, 6]] and 6")
def one_sequence_only(lengths, num_keys):
    mask = torch.zeros(len(lengths), num_keys, dtype=torch.bool)
    for i, length in enumerate(lengths.tolist()):
        mask[i, :length] = True
    return mask


@wrong(MASK, "a tensor of shape")
def as_lists(lengths, num_keys):
    return [[j < n for j in range(num_keys)] for n in lengths.tolist()]


@wrong(MASK, "not written yet")
def blank_mask(lengths, num_keys):
    raise NotImplementedError("your lines go here")


@right(MASK)
def by_unsqueeze(lengths, num_keys):
    return lengths.unsqueeze(-1).gt(torch.arange(num_keys))


@right(MASK)
def by_loops(lengths, num_keys):
    mask = torch.zeros(*lengths.shape, num_keys, dtype=torch.bool)
    for row, length in zip(mask.view(-1, num_keys), lengths.flatten(), strict=True):
        row[: int(length)] = True
    return mask


@right(MASK)
def by_numpy(lengths, num_keys, device=None):
    mask = np.arange(num_keys) < lengths.numpy()[..., None]
    return torch.from_numpy(mask).to(device)


@right(MASK)
def key_by_key(lengths, num_keys):
    return torch.stack([lengths > j for j in range(num_keys)], dim=-1)


@right(MASK)
def by_look_up(lengths, num_keys):
    table = torch.ones(num_keys + 1, num_keys).tril(-1).bool()
    return table[lengths.clamp(max=num_keys)]


def squared(query, key):
    return ((query[:, :, None] - key[:, None]) ** 2).sum(dim=-1)


def attend(scores, value, dim=-1):
    weights = scores.softmax(dim=dim)
    return weights @ value, weights


@wrong(DISTANCE, "expected 2 values")
def output_only(query, key, value):
    return attend(-squared(query, key) / query.shape[-1] ** 0.5, value)[0]


@wrong(DISTANCE, "infinite slope")
def root_and_square(query, key, value):
    distance = squared(query, key).sqrt()
    return attend(-(distance**2) / query.shape[-1] ** 0.5, value)


@wrong(DISTANCE, "no gradient arrives")
def detached(query, key, value):
    distance = torch.tensor(squared(query, key).tolist())
    scores = -distance / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ value, scores.softmax(dim=-1)


@wrong(DISTANCE, "belongs to the example")
def root_of_six(query, key, value):
    return attend(-squared(query, key) / math.sqrt(6), value)


@wrong(DISTANCE, "belongs to the example")
def as_many_keys_as_queries(query, key, value):
    n = query.shape[1]
    rows = [((query - key[:, j : j + 1]) ** 2).sum(dim=-1) for j in range(n)]
    scores = -torch.stack(rows, dim=-1) / query.shape[-1] ** 0.5
    return attend(scores, value)


@wrong(DISTANCE, "changes the tensor")
def query_divided_in_place(query, key, value):
    query /= query.shape[-1] ** 0.25
    key /= query.shape[-1] ** 0.25
    return attend(-squared(query, key), value)


@wrong(DISTANCE, "not written yet")
def blank_distance(query, key, value):
    raise NotImplementedError("your lines go here")


@right(DISTANCE)
def by_expansion(query, key, value):
    products = torch.einsum("bnd,bmd->bnm", query, key)
    lengths = (key**2).sum(dim=-1)[:, None]  # those of the queries: softmax drops them
    return attend((2 * products - lengths) / query.shape[-1] ** 0.5, value)


@right(DISTANCE)
def by_cdist(query, key, value):
    scores = -(torch.cdist(query, key) ** 2) / math.sqrt(key.shape[-1])
    weights = F.softmax(scores, dim=2)
    return torch.einsum("bnm,bmd->bnd", weights, value), weights


@right(DISTANCE)
def by_longer_vectors(query, key, value):
    ones = torch.ones_like(query[..., :1])
    query = torch.cat([2 * query, -ones], dim=-1) / query.shape[-1] ** 0.5
    key = torch.cat([key, key.square().sum(dim=-1, keepdim=True)], dim=-1)
    return list(attend(query @ key.mT, value))


@wrong(DISTANCE, "every `exp` is 0")
def by_distance_loops(query, key, value):
    rows = []
    for i in range(query.shape[1]):
        squares = (query[:, i : i + 1] - key).pow(2).sum(dim=-1)  # (B, M)
        rows.append((-squares / query.shape[-1] ** 0.5).exp())
    raised = torch.stack(rows, dim=1)
    weights = raised / raised.sum(dim=-1, keepdim=True)
    return weights @ value, weights


def products(query, key):
    return query @ key.transpose(-2, -1)


@wrong(MENDED, "Write the scores yourself")
def built_in_twice(query, key, value):
    values = torch.eye(key.shape[-2]).expand(*key.shape[:-1], -1)
    weights = F.scaled_dot_product_attention(query, key, values)
    return F.scaled_dot_product_attention(query, key, value), weights


@wrong(MENDED, "belongs to the example")
def root_of_nine(query, key, value):
    return attend(products(query, key) / 3, value)


@wrong(MENDED, "changes the tensor")
def in_place(query, key, value):
    query /= query.shape[-1] ** 0.5
    return attend(products(query, key), value)


@wrong(MENDED, "no gradient arrives")
def scores_without_graph(query, key, value):
    scores = products(query.detach(), key.detach()) / query.shape[-1] ** 0.5
    return attend(scores, value)


@wrong(MENDED, "not written yet")
def blank_mended(query, key, value):
    raise NotImplementedError("your lines go here")


@right(MENDED)
def query_first(query, key, value):
    query = query / math.sqrt(query.size(-1))
    weights = torch.softmax(torch.einsum("...nd,...md->...nm", query, key), dim=-1)
    return torch.einsum("...nm,...md->...nd", weights, value), weights


@right(MENDED)
def shared_out(query, key, value):
    fourth = key.shape[-1] ** 0.25
    raised = ((query / fourth) @ (key / fourth).mT).exp()
    weights = raised / raised.sum(-1, keepdim=True)
    return weights @ value, weights


@right(MENDED)
def by_batches(query, key, value):
    q, k, v = (x.reshape(-1, *x.shape[-2:]) for x in (query, key, value))
    scores = torch.bmm(q, k.transpose(1, 2))
    scores /= math.sqrt(q.shape[2])
    output, weights = attend(scores, v)
    front = query.shape[:-2]
    parts = (output, weights)
    return tuple(x.reshape(*front, *x.shape[1:]) for x in parts)


@wrong(MENDED, "Write the scores yourself")
def by_the_lesson(query, key, value):
    return scaled_dot_product_attention(query, key, value)


def weights_of(query, key, temperature):
    scores = products(query, key) / query.shape[-1] ** 0.5
    return (scores / temperature).softmax(dim=-1)


def entropy_of(scores):
    weights = scores.softmax(dim=-1)
    return -torch.special.xlogy(weights, weights).sum(dim=-1).mean().item()


@wrong(ENTROPY, "the values are not")
def first_query(query, key, temperature):
    weights = weights_of(query, key, temperature)[0, 0]
    return -torch.xlogy(weights, weights).sum().item()


@wrong(ENTROPY, "expected a number")
def each_query(query, key, temperature):
    weights = weights_of(query, key, temperature)
    return -torch.xlogy(weights, weights).sum(dim=-1)


@wrong(ENTROPY, "belongs to the example")
def five_keys(query, key, temperature):
    weights = weights_of(query, key, temperature)
    return -torch.xlogy(weights, weights)[..., :5].sum(dim=-1).mean().item()


@wrong(ENTROPY, "changes the tensor")
def query_cooled_in_place(query, key, temperature):
    query /= temperature
    return entropy_of(products(query, key) / query.shape[-1] ** 0.5)


@wrong(ENTROPY, "the values are not")
def largest_possible(query, key, temperature):
    return math.log(key.shape[1])


@wrong(ENTROPY, "`return`")
def not_given_back(query, key, temperature):
    print(entropy_of(products(query, key) / temperature))


@wrong(ENTROPY, "not written yet")
def blank_entropy(query, key, temperature):
    raise NotImplementedError("your lines go here")


@right(ENTROPY)
def by_log_softmax(query, key, temperature):
    scores = products(query, key) / query.shape[-1] ** 0.5 / temperature
    return -(scores.softmax(-1) * scores.log_softmax(-1)).sum(dim=-1).mean().item()


@right(ENTROPY)
def by_logsumexp(query, key, temperature):
    scores = products(query, key) / query.shape[-1] ** 0.5 / temperature
    mean_score = (scores.softmax(dim=-1) * scores).sum(dim=-1)
    return (scores.logsumexp(dim=-1) - mean_score).mean().item()


@right(ENTROPY)
def with_a_clamp(query, key, temperature):
    weights = weights_of(query, key, temperature)
    return -(weights * (weights + 1e-9).log()).sum(dim=-1).mean()


@right(ENTROPY)
def by_distributions(query, key, temperature):
    weights = weights_of(query.detach(), key.detach(), temperature)
    found = [
        -sum(w * math.log(w) for w in row.tolist() if w > 0)
        for row in weights.flatten(0, 1)
    ]
    return sum(found) / len(found)


@right(ENTROPY)
def by_nan_to_num(query, key, temperature):
    weights = weights_of(query, key, temperature)
    return -(weights * weights.log()).nan_to_num(0).sum(dim=-1).mean().item()
