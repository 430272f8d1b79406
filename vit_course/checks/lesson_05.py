"""Tasks of the exercises of lesson 05: the position embedding."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from going_modular.position_embedding import (
    interpolate_position_embedding,
    sinusoidal_2d,
)
from vit_course.checks.hints import hint, is_initialised_small
from vit_course.checks.task import Case, Task

# 1. Parameters that rows and columns save

NEGATIVE = (
    "a grid of one row has more parameters as rows and columns than as a table: the "
    "result is negative there, not 0, and not without its sign."
)
COUNTS = {
    lambda g, d: (g[0] * g[1] - 2 * g[0]) * d: (
        "this holds for square grids. A grid has as many vectors for rows as it goes "
        "down, and as many for columns as it goes across."
    ),
    lambda g, d: (g[0] * g[1] - 2 * g[1]) * d: (
        "this holds for square grids: you take the columns twice. There are as many "
        "vectors for rows as the grid goes down."
    ),
    lambda g, d: (g[0] ** 2 - 2 * g[0]) * d: (
        "this holds for square grids: you multiply the rows by themselves. A grid has "
        "rows · columns patches."
    ),
    lambda g, d: abs(g[0] * g[1] - g[0] - g[1]) * d: NEGATIVE,
    lambda g, d: max(0, g[0] * g[1] - g[0] - g[1]) * d: NEGATIVE,
    lambda g, d: (g[0] * g[1] + 1) * d: (
        "this is what the full table has. What is left of it when you take away the "
        "new kind's parameters?"
    ),
    lambda g, d: (g[0] + g[1] + 1) * d: (
        "this is what the new kind has. How many fewer than the full table?"
    ),
    lambda g, d: g[0] * g[1] - g[0] - g[1]: (
        "these are vectors, not parameters: each has D parameters."
    ),
    lambda g, d: (g[0] * g[1] + 1 - g[0] - g[1]) * d: (
        "the class token has a vector of its own in *both* kinds. Did you count it in "
        "one of them only?"
    ),
    lambda g, d: (g[0] * g[1] - g[0] - g[1] - 1) * d: (
        "the class token has a vector of its own in *both* kinds, and yours counts it "
        "in the new one only."
    ),
    (
        lambda g, d: g[0] * g[1] * d - (g[0] + g[1]) * d // 2,
        lambda g, d: g[0] * g[1] * d - (g[0] + g[1]) * (d // 2),
    ): (
        "your rows and columns have D/2 features each, as in the paper's own 2-D kind. "
        "Here each has a vector of D features."
    ),
    lambda g, d: (g[0] + g[1] - g[0] * g[1]) * d: (
        "the sign is reversed: the new kind minus the full table. Saved is what the "
        "full table has more."
    ),
    lambda g, d: 1 - (g[0] + g[1] + 1) / (g[0] * g[1] + 1): (
        "this is a fraction. The task asks for a number of parameters."
    ),
}
check_saved_parameters = Task(
    "saved_parameters",
    "parameters that rows and columns save",
    Case(
        inputs=[
            ((14, 14), 768),
            ((4, 6), 5),
            ((7, 2), 10),
            ((1, 6), 8),
            ((9, 1), 2),
        ],
        right=lambda g, d: (g[0] * g[1] - g[0] - g[1]) * d,
        mistakes=COUNTS,
        advice=(
            "Count the vectors of both kinds for a grid of 2 x 3, then take the "
            "difference."
        ),
    ),
)

# 2. A vector for each row and each column


def _by_reading(u: Tensor, v: Tensor) -> Tensor:
    return (u[:, None] + v).flatten(0, 1)  # (rows * columns, D)


def _with(table: Callable) -> Callable:
    """Tokens plus a table, from the vectors of rows, columns and class token."""
    return lambda tokens, u, v, first: tokens + torch.cat(table(u, v, first))


NAMES = ("row_positions", "column_positions", "class_position")


def _look_at_sizes(module, tokens: Tensor, u: Tensor, v: Tensor, first: Tensor) -> None:
    """Checks that rows and columns have vectors, and nothing else has."""
    rows, columns, dim = len(u), len(v), u.shape[1]
    shapes = [tuple(getattr(module, name).shape) for name in NAMES[:2]]
    hint(
        rows == columns or shapes != [(columns, dim), (rows, dim)],
        "rows and columns are swapped: `grid` is (rows, columns), so `row_positions` "
        "has `grid[0]` vectors.",
    )
    hint(
        1 in (rows, columns)  # there, a patch is a row or a column
        or all(shape[:1] != (rows * columns,) for shape in shapes),
        "that is one vector for each patch again. Patches of the same row share a "
        "vector of `row_positions`.",
    )
    more = sorted(set(dict(module.named_parameters())) - set(NAMES))
    hint(not more, f"these parameters are too many: {', '.join(more)}")


def _rows_and_columns() -> list[tuple]:
    g = torch.Generator().manual_seed(5)
    inputs = []
    for rows, columns, dim in ((2, 3, 4), (5, 3, 8), (1, 4, 2), (3, 3, 5)):
        for batch in (2, 1, 4):
            shapes = (
                (batch, rows * columns + 1, dim),
                (rows, dim),
                (columns, dim),
                (1, dim),
            )
            inputs.append(tuple(torch.randn(shape, generator=g) for shape in shapes))
    return inputs


def _check_start(answer: type) -> None:
    for name, p in answer((3, 4), 1024).named_parameters():
        is_initialised_small(p, name)


PLACES = {
    _with(lambda u, v, first: [first, _by_reading(v, u)]): (
        "the patches are in the wrong order: yours run down the columns. In reading "
        "order the second patch is the right-hand neighbour of the first."
    ),
    _with(
        lambda u, v, first: [
            first,
            u.repeat(len(v), 1) + v.repeat(len(u), 1),
        ]
    ): (
        "row and column both go on with every patch. In reading order the column does, "
        "and the row stays the same until its last patch (`repeat_interleave`)."
    ),
    _with(
        lambda u, v, first: [
            first,
            u.repeat_interleave(len(v), 0) + v.repeat_interleave(len(u), 0),
        ]
    ): (
        "row and column both stay the same for several patches. In reading order the "
        "row does, and the column goes on with every patch (`repeat`)."
    ),
    _with(lambda u, v, first: [0 * first, _by_reading(u, v)]): (
        "the class token gets no position. `class_position` belongs to token 0."
    ),
    _with(lambda u, v, first: [first, first + _by_reading(u, v)]): (
        "`class_position` is added to the patches, too. It belongs to token 0 and to "
        "no other."
    ),
    _with(lambda u, v, first: [_by_reading(u, v), first]): (
        "the class token is token 0, and your table has its vector at the end."
    ),
    _with(lambda u, v, first: [first, (u[:, None] * v).flatten(0, 1)]): (
        "the vectors of row and column are multiplied. The equation adds them."
    ),
    _with(lambda u, v, first: [first, _by_reading(u, 0 * v)]): (
        "only the rows have an effect: where are the columns?"
    ),
    _with(lambda u, v, first: [first, _by_reading(0 * u, v)]): (
        "only the columns have an effect: where are the rows?"
    ),
    lambda t, u, v, first: torch.cat([first, _by_reading(u, v)])[None]: (
        "this is the table alone. `forward` adds it to the tokens."
    ),
    lambda t, u, v, first: torch.cat([first, _by_reading(u, v)]).expand(
        len(t), -1, -1
    ): (
        "the table alone, once for each image, comes back. `forward` adds it to the "
        "tokens."
    ),
    lambda t, u, v, first: t: (
        "the tokens come back as they were: no position is added. A table made of "
        "zeros in `__init__` stays zero; make it in `forward`."
    ),
}
check_row_column_positions = Task(
    "RowColumnEmbedding",
    "one vector for each row, one for each column",
    Case(
        sizes=lambda tokens, u, v, first: ((len(u), len(v)), u.shape[1]),
        parameters=NAMES,
        made=_look_at_sizes,
        inputs=_rows_and_columns(),
        right=_with(lambda u, v, first: [first, _by_reading(u, v)]),
        mistakes=PLACES,
        advice=(
            "Work out one patch by hand: in row r and column c it gets "
            "`row_positions[r]` plus `column_positions[c]`. Is the sum made in "
            "`forward`, from the parameters? A sum made in `__init__` does not "
            "change when they are trained."
        ),
    ),
    also=[_check_start],
)

# 3. Find the bug: sums that share a tensor

NO_GRAPH = (
    "no gradient flows back through a copy that the module `copy`, `detach` or "
    "`nn.Parameter` makes. `clone`, or a sum that is not in place, keeps the graph."
)


SAME_TENSOR = (
    "the caller's tokens are others after the call. `z_0 = tokens` is a second name "
    "for the same tensor and not a copy, so `+=` writes into it; views such as "
    "`tokens[:]` share its memory."
)


def _tokens_and_tables() -> list[tuple]:
    g = torch.Generator().manual_seed(6)
    inputs = []
    for b, n, d, count in ((2, 7, 4, 2), (1, 3, 6, 4), (3, 5, 2, 1), (3, 5, 2, 3)):
        tables = torch.randn(count, 1, n, d, generator=g).unbind()
        inputs.append((torch.randn(b, n, d, generator=g), list(tables)))
    return inputs


def _of_a_copy(error: Exception) -> str:
    text = str(error)
    return NO_GRAPH if "deepcopy" in text or "a leaf Variable" in text else ""


SUMS = {
    lambda t, tables: [t + sum(tables)] * len(tables): (
        "all results are the same, with all tables in them. A copy made once, before "
        "the loop, is still one tensor: each table needs a new one."
    ),
    lambda t, tables: [t + sum(tables[: i + 1]) for i in range(len(tables))]: (
        "each table is added to what the one before has left. All start from the "
        "tokens as they came."
    ),
    lambda t, tables: [table.expand_as(t) for table in tables]: (
        "these are the tables alone: what has become of the tokens?"
    ),
    lambda t, tables: [t for _ in tables]: (
        "the tokens come back as they were: where are the tables?"
    ),
    lambda t, tables: t + tables[-1]: (
        "one result comes back, as a tensor. Give back a list, with one for each table."
    ),
    lambda t, tables: torch.stack([t + table for table in tables]): (
        "the results are stacked into one tensor. Give back a list of tensors."
    ),
    lambda t, tables: torch.cat([t + table for table in tables]): (
        "the results are joined along the batch. Give back a list of tensors."
    ),
    lambda t, tables: [t + table for table in tables[::-1]]: (
        "the results are in the reverse order of the tables."
    ),
}
check_mended_sums = Task(
    "mended_sums",
    "mended: each sum is a tensor of its own",
    Case(
        inputs=_tokens_and_tables(),
        right=lambda tokens, tables: [tokens + table for table in tables],
        mistakes=SUMS,
        explain=_of_a_copy,
        changed=SAME_TENSOR,
    ),
)

# 4. Standard deviations before and after resizing


def _spread(before, after) -> dict[str, float]:
    return {"before": float(before), "after": float(after)}


def _measure(statistic=lambda table: table[:, 1:].std(), turn_old=1, turn_new=1):
    """The measurement; the arguments make mistakes."""

    def measure(weight, old, new):
        after = interpolate_position_embedding(weight, old[::turn_old], new[::turn_new])
        return _spread(statistic(weight), statistic(after))

    return measure


def _as_a_line(weight, old, new) -> dict[str, float]:
    line = weight[:, 1:].transpose(1, 2)  # (1, D, N)
    return _spread(
        line.std(), F.interpolate(line, new[0] * new[1], mode="linear").std()
    )


def _in_another_way(mode: str) -> Callable:
    """The measurement, resized with `F.interpolate` alone."""

    def measure(weight, old, new):
        maps = weight[:, 1:].transpose(1, 2).unflatten(2, old)
        after = F.interpolate(maps, size=new, mode=mode)
        return _spread(weight[:, 1:].std(), after.std())

    return measure


def _swapped(weight, old, new) -> dict[str, float]:
    found = _measure()(weight, old, new)
    return _spread(found["after"], found["before"])


def _both_after(weight, old, new) -> dict[str, float]:
    return _spread(*[_measure()(weight, old, new)["after"]] * 2)


def _tables() -> list[tuple]:
    """Two tables for each pair of grids: one rough, one smooth."""
    g = torch.Generator().manual_seed(7)
    inputs = []
    for old, new in (
        ((5, 7), (8, 10)),
        ((6, 4), (9, 13)),
        ((9, 8), (4, 3)),
        ((3, 12), (3, 12)),
    ):
        # Columns and patches differ in their means, too.
        n = old[0] * old[1]
        parts = [
            torch.randn(s, generator=g) for s in ((1, n, 96), (1, 1, 96), (1, n, 1))
        ]
        # The class token's row is large, so that it shows where it does not belong.
        first = 50 * torch.randn(1, 1, 96, generator=g)
        for table in (parts[0] + parts[1] + parts[2], 3 * sinusoidal_2d(old, 96)[None]):
            inputs.append((torch.cat([first, table], dim=1), old, new))
    return inputs


SPREADS = {
    _measure(torch.std): (
        "the row of the class token is in it. It has no place in the image and is not "
        "resized: leave it out, before and after."
    ),
    _swapped: "before and after are swapped.",
    _measure(lambda table: table[:, 1:].var()): (
        "this is the variance. The standard deviation is its square root."
    ),
    _measure(lambda table: table[:, 1:].std(dim=1).mean()): (
        "you average the standard deviations of the D columns. The task asks for one "
        "over all values of the patches' rows together."
    ),
    _measure(lambda table: table[:, 1:].std(dim=2).mean()): (
        "you average the standard deviations of the patches. The task asks for one "
        "over all values of the patches' rows together."
    ),
    _measure(lambda table: table[:, 1:].mean()): (
        "this is the mean. How far do the values lie from it?"
    ),
    lambda weight, old, new: _spread(*[weight[:, 1:].std()] * 2): (
        "both are measured on the table that came in. `interpolate_position_embedding` "
        "gives back a new one."
    ),
    _both_after: "both are measured on the resized table.",
    _measure(turn_new=-1): (
        "the new grid is transposed: both grids are (rows, columns)."
    ),
    _measure(turn_old=-1): (
        "the old grid is transposed: both grids are (rows, columns)."
    ),
    tuple(map(_in_another_way, ("bilinear", "bicubic", "nearest"))): (
        "`before` is right, and only `after` differs: the table is resized in another "
        "way. Use `interpolate_position_embedding` of lesson 05b."
    ),
    _as_a_line: (
        "the table is resized as a line of N vectors. Patches stand on a grid: "
        "`interpolate_position_embedding` does it in 2-D."
    ),
}
check_position_std = Task(
    "measure_std",
    "standard deviation of a table before and after",
    Case(
        inputs=_tables,
        right=_measure(),
        mistakes=SPREADS,
        tolerance=5e-4,  # divided by n or by n - 1: both are standard deviations
        gradient=False,
        advice=("Both are over all values of the patches' rows, `[:, 1:]`, together."),
    ),
)
