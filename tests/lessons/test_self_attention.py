"""Lesson 06: attention against the built-in kernel and a loop over plain numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from comparing import assert_same, seeds, value_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from going_modular.self_attention import check_mask, scaled_dot_product_attention

sizes = st.tuples(*[st.integers(1, 6)] * 4)  # queries, keys, d, d_value


@st.composite
def shapes(draw):
    """Shapes of query, key, value and of a mask that broadcasts, or None."""
    lead = tuple(draw(st.lists(st.integers(1, 3), max_size=4)))
    n, m, d, d_value = draw(sizes)
    scores = (*lead, n, m)
    mask = None
    if draw(st.integers(0, 3)):
        axes = draw(st.integers(0, len(scores)))
        sides = scores[len(scores) - axes :]
        mask = tuple(draw(st.sampled_from((1, side))) for side in sides)
    return (*lead, n, d), (*lead, m, d), (*lead, m, d_value), mask


def tensors(*shapes, dtype=torch.float32):
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def attend_and_differentiate(attention, query, key, value, mask):
    output = attention(query, key, value, mask)
    return value_and_gradients(output, query=query, key=key, value=value)


def ours(*args):
    return scaled_dot_product_attention(*args)[0]


def in_plain_numbers(query, key, value, allowed):
    """One query after the other, in Python's own floats."""
    output, weights = [], []
    for q, may_attend in zip(query, allowed, strict=True):
        row = []
        for k, may in zip(key, may_attend, strict=True):
            score = sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(len(q))
            row.append(math.exp(score) if may else 0.0)
        total = sum(row)
        row = [number / total if total else 0.0 for number in row]
        columns = zip(*value, strict=True)
        output.append(
            [sum(w * v for w, v in zip(row, column, strict=True)) for column in columns]
        )
        weights.append(row)
    return output, weights


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 2e-6), (torch.float64, 1e-12)]
)
@given(shapes(), seeds, st.sampled_from((0.0, 0.3, 0.9)))
@settings(deadline=None)
def test_equals_the_built_in_kernel(dtype, tolerance, problem, seed, share):
    torch.manual_seed(seed)
    *problem, mask_shape = problem
    query, key, value = tensors(*problem, dtype=dtype)
    mask = None if mask_shape is None else torch.rand(mask_shape) >= share
    # The kernel asks for more axes than a mask needs in order to broadcast.
    scores = (*query.shape[:-1], key.shape[-2])
    theirs_mask = None if mask is None else mask.expand(scores)
    assert_same(
        attend_and_differentiate(ours, query, key, value, mask),
        attend_and_differentiate(
            F.scaled_dot_product_attention, query, key, value, theirs_mask
        ),
        tolerance,
    )


@given(sizes, seeds, st.booleans())
@settings(deadline=None)
def test_equals_a_loop_over_plain_numbers(size, seed, masked):
    torch.manual_seed(seed)
    n, m, d, d_value = size
    query, key, value = tensors((n, d), (m, d), (m, d_value), dtype=torch.float64)
    mask = torch.rand(n, m) > 0.4 if masked else None
    allowed = torch.ones(n, m, dtype=torch.bool) if mask is None else mask
    expected = in_plain_numbers(
        query.tolist(), key.tolist(), value.tolist(), allowed.tolist()
    )
    for mine, theirs in zip(
        scaled_dot_product_attention(query, key, value, mask), expected, strict=True
    ):
        theirs = torch.tensor(theirs, dtype=torch.float64)
        torch.testing.assert_close(mine.detach(), theirs, atol=1e-12, rtol=1e-12)


@given(shapes(), seeds)
@settings(deadline=None)
def test_rows_of_the_weights_sum_to_one_or_to_zero(problem, seed):
    torch.manual_seed(seed)
    *problem, mask_shape = problem
    query, key, value = tensors(*problem)
    mask = None if mask_shape is None else torch.rand(mask_shape) > 0.5
    _, weights = scaled_dot_product_attention(query, key, value, mask)
    full = torch.ones_like(weights, dtype=torch.bool) if mask is None else mask
    full = full.expand(weights.shape)
    torch.testing.assert_close(weights.sum(-1), full.any(-1).float())
    assert (weights >= 0).all() and not weights[~full].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_query_that_may_attend_to_nothing_gets_zeros(dtype):
    torch.manual_seed(0)
    query, key, value = tensors((2, 3, 4), (2, 5, 4), (2, 5, 6), dtype=dtype)
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    mask[0, 1] = mask[1] = False
    with torch.autograd.set_detect_anomaly(True):
        output, weights = scaled_dot_product_attention(query, key, value, mask)
        (output.square().sum() + weights.square().sum()).backward()
    for tensor in (output, weights):
        assert not tensor[0, 1].any() and not tensor[1].any()
        assert tensor[0, 0].any() and tensor[0, 2].any()
    for tensor in (query, key, value):
        assert tensor.grad.isfinite().all()
        assert tensor.grad[0].any() and not tensor.grad[1].any()
    assert not query.grad[0, 1].any()


def test_a_causal_mask_hides_what_comes_later():
    torch.manual_seed(0)
    query, key, value = tensors((2, 5, 4), (2, 5, 4), (2, 5, 4))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    output, weights = scaled_dot_product_attention(query, key, value, causal)
    theirs = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(output, theirs)
    assert not weights.triu(1).any()
    alone = scaled_dot_product_attention(query[:, :3], key[:, :3], value[:, :3])
    torch.testing.assert_close(output[:, 2], alone[0][:, 2])


def test_padding_changes_nothing():
    torch.manual_seed(0)
    query, key, value = tensors((2, 5, 4), (2, 7, 4), (2, 7, 4))
    lengths = torch.tensor([3, 7])
    mask = (torch.arange(7) < lengths[:, None])[:, None]  # (2, 1, 7)
    output, weights = scaled_dot_product_attention(query, key, value, mask)
    for i, length in enumerate(lengths):
        alone = scaled_dot_product_attention(
            query[i], key[i, :length], value[i, :length]
        )
        torch.testing.assert_close(output[i], alone[0])
        torch.testing.assert_close(weights[i, :, :length], alone[1])


def test_large_scores_do_not_overflow():
    query = torch.tensor([[1e3, 0.0], [0.0, -1e3]])
    output, weights = scaled_dot_product_attention(query, query, query)
    torch.testing.assert_close(weights, torch.eye(2))
    torch.testing.assert_close(output, query)


def test_half_precision_does_not_overflow():
    query = torch.full((2, 64), 40.0, dtype=torch.half)  # 64 * 40² is above 65504
    query[1] *= -1
    _, weights = scaled_dot_product_attention(query, query, query)
    torch.testing.assert_close(weights, torch.eye(2, dtype=torch.half))


@given(shapes(), seeds)
@settings(deadline=None, max_examples=30)
def test_the_order_of_keys_is_free_and_that_of_queries_is_kept(problem, seed):
    torch.manual_seed(seed)
    query, key, value = tensors(*problem[:3], dtype=torch.float64)
    output, weights = scaled_dot_product_attention(query, key, value)
    order = torch.randperm(key.shape[-2])
    again, shuffled = scaled_dot_product_attention(
        query, key[..., order, :], value[..., order, :]
    )
    torch.testing.assert_close(again, output)
    torch.testing.assert_close(shuffled, weights[..., order])
    order = torch.randperm(query.shape[-2])
    again, shuffled = scaled_dot_product_attention(query[..., order, :], key, value)
    torch.testing.assert_close(again, output[..., order, :])
    torch.testing.assert_close(shuffled, weights[..., order, :])


def test_dropout_hits_its_share_and_keeps_the_expectation():
    torch.manual_seed(0)
    query, key, _ = tensors((2000, 4, 3), (2000, 5, 3), (1,))
    query, key = query[:1].expand_as(query), key[:1].expand_as(key)
    value = torch.eye(5).expand(2000, 5, 5)  # so that the output is the weights
    _, exact = scaled_dot_product_attention(query, key, value)
    dropped, weights = scaled_dot_product_attention(query, key, value, None, 0.25)
    assert torch.equal(weights, exact), "the weights before dropout are returned"
    gone = dropped == 0
    assert abs(gone.float().mean().item() - 0.25) < 0.01
    torch.testing.assert_close(dropped[~gone], weights[~gone] / 0.75)
    torch.testing.assert_close(dropped.mean(0), exact[0], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.half, 3e-3), (torch.bfloat16, 2e-2)]
)
def test_half_precision_stays_close(dtype, tolerance):
    torch.manual_seed(0)
    rounded = [torch.randn(2, 3, 9, 8).to(dtype) for _ in range(3)]
    mask = torch.rand(9, 9) > 0.5
    mask[4] = False
    halves = scaled_dot_product_attention(*rounded, mask)
    exact = scaled_dot_product_attention(*[t.float() for t in rounded], mask)
    for half, full in zip(halves, exact, strict=True):
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), full, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_callers_tensors_stay(dropout):
    given_tensors = [*tensors((2, 3, 4), (2, 5, 4), (2, 5, 6)), torch.rand(3, 5) > 0.5]
    before = [t.detach().clone() for t in given_tensors]
    scaled_dot_product_attention(*given_tensors, dropout)
    for tensor, copy in zip(given_tensors, before, strict=True):
        assert torch.equal(tensor, copy)


def attend(query=(2, 3, 4), key=(2, 5, 4), value=(2, 5, 6), mask=None, dropout=0.0):
    shapes = (query, key, value)
    scaled_dot_product_attention(*[torch.zeros(s) for s in shapes], mask, dropout)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"mask": torch.ones(3, 5)}, "boolean, True = may attend; got torch.float32"),
        ({"mask": torch.ones(3, 5, dtype=torch.int64)}, "got torch.int64"),
        ({"mask": torch.ones(3, 5, dtype=torch.uint8)}, "got torch.uint8"),
        ({"mask": [[True] * 5] * 3}, "boolean, True = may attend; got list"),
        ({"mask": True}, "got bool"),
        ({"mask": torch.ones(5, 3).bool()}, r"to \(2, 3, 5\), got \(5, 3\)"),
        ({"mask": torch.ones(3, 3, 5).bool()}, r"to \(2, 3, 5\), got \(3, 3, 5\)"),
        ({"mask": torch.ones(1, 2, 3, 5).bool()}, r"\(2, 3, 5\), got \(1, 2, 3, 5\)"),
        ({"mask": torch.ones(0, 5).bool()}, r"got \(0, 5\)"),
        ({"key": (2, 5, 3)}, r"d\).*got \[\(2, 3, 4\), \(2, 5, 3\)"),
        ({"value": (2, 4, 6)}, r"one value, got.*\(2, 5, 4\), \(2, 4, 6\)"),
        ({"query": (4,)}, r"got \[\(4,\), \(2, 5, 4\)"),
        ({"key": (4,)}, r"got \[\(2, 3, 4\), \(4,\)"),
        ({"value": (6,)}, r"d_value\), got .*\(6,\)"),
        ({"query": (), "key": (), "value": ()}, r"num_queries, d\)"),
        ({"dropout": 1.0}, r"\[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"\[0, 1\), got -0.1"),
        ({"dropout": math.nan}, r"\[0, 1\), got nan"),
    ],
)
def test_bad_input(wrong, message):
    attend()
    with pytest.raises(ValueError, match=message):
        attend(**wrong)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 4), (2, 3, 4)])
def test_every_mask_that_broadcasts_is_let_through(shape):
    check_mask(torch.ones(shape, dtype=torch.bool), (2, 3, 4))
