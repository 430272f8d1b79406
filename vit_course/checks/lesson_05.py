"""Checks of the exercises of lesson 05: the position embedding."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from going_modular.position_embedding import (
    interpolate_position_embedding,
    sinusoidal_2d,
)
from vit_course.checks.hints import (
    as_number,
    compare,
    hint,
    is_a_class,
    is_a_function,
    is_initialised_small,
    learners_code,
    passed,
    with_parameters,
)


def check_saved_parameters(answer: Callable) -> None:
    """Checks how many parameters rows and columns save against a full table.

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "saved_parameters")
    mistakes = {  # first those that are right for a square grid
        "this holds for square grids. A grid has as many vectors for rows as it goes "
        "down, and as many for columns as it goes across.": (
            lambda g, d: (g[0] * g[1] - 2 * g[0]) * d
        ),
        "this holds for square grids: you take the columns twice. There are as many "
        "vectors for rows as the grid goes down.": (
            lambda g, d: (g[0] * g[1] - 2 * g[1]) * d
        ),
        "this holds for square grids: you multiply the rows by themselves. A grid has "
        "rows · columns patches.": lambda g, d: (g[0] ** 2 - 2 * g[0]) * d,
        "a grid of one row has more parameters as rows and columns than as a table: "
        "the result is negative there. Yours has lost its sign.": (
            lambda g, d: abs(g[0] * g[1] - g[0] - g[1]) * d
        ),
        "a grid of one row has more parameters as rows and columns than as a table: "
        "the result is negative there, not 0.": (
            lambda g, d: max(0, g[0] * g[1] - g[0] - g[1]) * d
        ),
        "this is what the full table has. What is left of it when you take away the "
        "new kind's parameters?": lambda g, d: (g[0] * g[1] + 1) * d,
        "this is what the new kind has. How many fewer than the full table?": (
            lambda g, d: (g[0] + g[1] + 1) * d
        ),
        "these are vectors, not parameters: each has D parameters.": (
            lambda g, d: g[0] * g[1] - g[0] - g[1]
        ),
        "the class token has a vector of its own in *both* kinds. Did you count it in "
        "one of them only?": lambda g, d: (g[0] * g[1] + 1 - g[0] - g[1]) * d,
        "the class token has a vector of its own in *both* kinds, and yours counts it "
        "in the new one only.": lambda g, d: (g[0] * g[1] - g[0] - g[1] - 1) * d,
        "the sign is reversed: the new kind minus the full table. Saved is what the "
        "full table has more.": lambda g, d: (g[0] + g[1] - g[0] * g[1]) * d,
        "this is a fraction. The task asks for a number of parameters.": (
            lambda g, d: 1 - (g[0] + g[1] + 1) / (g[0] * g[1] + 1)
        ),
    }
    inputs = [((14, 14), 768), ((4, 6), 5), ((7, 2), 10), ((1, 6), 8), ((9, 1), 2)]
    compare(
        lambda grid, dim: as_number(answer(grid, dim)),
        lambda grid, dim: (grid[0] * grid[1] - grid[0] - grid[1]) * dim,
        inputs,
        mistakes,
        gradient=False,
    )
    passed("parameters that rows and columns save")


def _by_reading(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (u[:, None] + v).flatten(0, 1)  # (rows * columns, D)


def _row_column(tokens, u, v, first) -> torch.Tensor:
    return tokens + torch.cat([first, _by_reading(u, v)])


PLACES = {
    "the patches are in the wrong order: yours run down the columns. In reading order "
    "the second patch is the right-hand neighbour of the first.": (
        lambda t, u, v, first: t + torch.cat([first, _by_reading(v, u)])
    ),
    "row and column both go on with every patch. In reading order the column does, and "
    "the row stays the same until its last patch (`repeat_interleave`).": (
        lambda t, u, v, first: (
            t + torch.cat([first, u.repeat(len(v), 1) + v.repeat(len(u), 1)])
        )
    ),
    "row and column both stay the same for several patches. In reading order the row "
    "does, and the column goes on with every patch (`repeat`).": (
        lambda t, u, v, first: (
            t
            + torch.cat(
                [first, u.repeat_interleave(len(v), 0) + v.repeat_interleave(len(u), 0)]
            )
        )
    ),
    "the class token gets no position. `class_position` belongs to token 0.": (
        lambda t, u, v, first: (
            t + torch.cat([torch.zeros_like(first), _by_reading(u, v)])
        )
    ),
    "`class_position` is added to the patches, too. It belongs to token 0 and to no "
    "other.": lambda t, u, v, first: t + torch.cat([first, first + _by_reading(u, v)]),
    "the class token is token 0, and your table has its vector at the end.": (
        lambda t, u, v, first: t + torch.cat([_by_reading(u, v), first])
    ),
    "the vectors of row and column are multiplied. The equation adds them.": (
        lambda t, u, v, first: t + torch.cat([first, (u[:, None] * v).flatten(0, 1)])
    ),
    "only the rows have an effect: where are the columns?": lambda t, u, v, first: (
        t + torch.cat([first, u.repeat_interleave(len(v), 0)])
    ),
    "only the columns have an effect: where are the rows?": lambda t, u, v, first: (
        t + torch.cat([first, v.repeat(len(u), 1)])
    ),
    "this is the table alone. `forward` adds it to the tokens.": (
        lambda t, u, v, first: torch.cat([first, _by_reading(u, v)])[None]
    ),
    "the table alone, once for each image, comes back. `forward` adds it to the "
    "tokens.": lambda t, u, v, first: torch.cat([first, _by_reading(u, v)]).expand(
        len(t), -1, -1
    ),
    "the tokens come back as they were: no position is added. A table made of zeros in "
    "`__init__` stays zero; make it in `forward`.": lambda t, u, v, first: t,
}
FROM_PARAMETERS = (
    "Work out one patch by hand: in row r and column c it gets `row_positions[r]` plus "
    "`column_positions[c]`. Is the sum made in `forward`, from the parameters? A sum "
    "made in `__init__` does not change when they are trained."
)


def _check_sizes(module, grid: tuple[int, int], dim: int) -> None:
    """Checks the shapes of the three parameters, and that there are no more."""
    names = ("row_positions", "column_positions", "class_position")
    with_parameters(module, *names)  # are they there?
    shapes = [tuple(getattr(module, name).shape) for name in names]
    expected = [(grid[0], dim), (grid[1], dim), (1, dim)]
    hint(
        grid[0] == grid[1] or shapes[:2] != expected[1::-1],
        "rows and columns are swapped: `grid` is (rows, columns), so `row_positions` "
        "has `grid[0]` vectors.",
    )
    hint(
        all(shape[:1] != (grid[0] * grid[1],) for shape in shapes[:2])
        or 1 in grid,  # there, a patch is a row or a column
        "that is one vector for each patch again. Patches of the same row share a "
        "vector of `row_positions`.",
    )
    for name, shape, right in zip(names, shapes, expected, strict=True):
        hint(
            shape == right,
            f"for a grid of {grid} and D = {dim}, `{name}` has shape {shape}, "
            f"expected {right}",
        )
    have, wanted = sum(p.numel() for p in module.parameters()), sum(grid, 1) * dim
    more = sorted(set(dict(module.named_parameters())) - set(names))
    hint(
        have == wanted,
        f"for a grid of {grid} and D = {dim} the module has {have} parameters, "
        f"expected {wanted}. These are too many: {', '.join(more)}.",
    )


def _check_start(answer: type) -> None:
    """Checks that the parameters have the lesson's initial standard deviation."""
    with learners_code():
        module = answer((3, 4), 1024)
    for name, p in module.named_parameters():
        is_initialised_small(p, name)


def check_row_column_positions(answer: type) -> None:
    """Checks positions that are sums of a vector for the row and one for the column.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "RowColumnEmbedding")
    generator = torch.Generator().manual_seed(5)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    for (rows, columns), dim in (((2, 3), 4), ((5, 3), 8), ((1, 4), 2), ((3, 3), 5)):
        with learners_code():
            module = answer((rows, columns), dim)
        _check_sizes(module, (rows, columns), dim)
        names = ("row_positions", "column_positions", "class_position")
        function = with_parameters(module, *names)
        inputs = [
            (
                random(batch, rows * columns + 1, dim),
                random(rows, dim),
                random(columns, dim),
                random(1, dim),
            )
            for batch in (2, 1, 4)
        ]
        compare(function, _row_column, inputs, PLACES, advice=FROM_PARAMETERS)
    _check_start(answer)
    passed("one vector for each row, one for each column")


def _cumulative(tokens, *tables):
    return [tokens + sum(tables[: i + 1]) for i in range(len(tables))]


SUMS = {
    "all results are the same, with all tables in them. A copy made once, before the "
    "loop, is still one tensor: each table needs a new one.": (
        lambda tokens, *tables: [tokens + sum(tables)] * len(tables)
    ),
    "each table is added to what the one before has left. All start from the tokens as "
    "they came.": _cumulative,
    "these are the tables alone: what has become of the tokens?": (
        lambda tokens, *tables: [table.expand_as(tokens) for table in tables]
    ),
    "the tokens come back as they were: where are the tables?": (
        lambda tokens, *tables: [tokens for _ in tables]
    ),
    "one result comes back, as a tensor. Give back a list, with one for each table.": (
        lambda tokens, *tables: tokens + tables[-1]
    ),
    "the results are stacked into one tensor. Give back a list of tensors.": (
        lambda tokens, *tables: torch.stack([tokens + table for table in tables])
    ),
    "the results are joined along the batch. Give back a list of tensors.": (
        lambda tokens, *tables: torch.cat([tokens + table for table in tables])
    ),
    "the results are in the reverse order of the tables.": (
        lambda tokens, *tables: [tokens + table for table in tables[::-1]]
    ),
}


def check_mended_sums(answer: Callable) -> None:
    """Checks sums of the same tokens with several tables, none of them in place.

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "mended_sums")
    generator = torch.Generator().manual_seed(6)
    inputs = []
    for b, n, d, count in ((2, 7, 4, 2), (1, 3, 6, 4), (3, 5, 2, 1), (3, 5, 2, 3)):
        tables = torch.randn(count, 1, n, d, generator=generator).unbind()
        inputs.append((torch.randn(b, n, d, generator=generator), *tables))

    def call(tokens, *tables):
        given, before = list(tables), tokens.clone()
        try:
            found = answer(tokens, given)
        except RuntimeError as error:
            by_copy = "deepcopy" in str(error) or "a leaf Variable" in str(error)
            hint(
                not by_copy,
                "no gradient flows back through a copy that the module `copy`, "
                "`detach` or `nn.Parameter` makes. `clone`, or a sum that is not in "
                "place, keeps the graph.",
            )
            raise
        hint(
            torch.equal(tokens, before),
            "the caller's tokens are others after the call. `z_0 = tokens` is a second "
            "name for the same tensor and not a copy, so `+=` writes into it; views "
            "such as `tokens[:]` share its memory.",
        )
        hint(
            list(map(id, given)) == list(map(id, tables)),
            "the caller's list is another after the call: tables are taken out "
            "(`pop`), added, replaced or moved. Put the sums into a list of your own.",
        )
        return list(found) if isinstance(found, list | tuple) else found

    compare(call, lambda tokens, *tables: [tokens + t for t in tables], inputs, SUMS)
    passed("mended: each sum is a tensor of its own")


def _std(before: torch.Tensor, after: torch.Tensor) -> list[float]:
    return [before[:, 1:].std().item(), after[:, 1:].std().item()]


def _right_std(weight, old, new) -> list[float]:
    return _std(weight, interpolate_position_embedding(weight, old, new))


def _with_other_statistic(statistic: Callable) -> Callable:
    """The measurement with something else than the standard deviation of all."""

    def measure(weight, old, new):
        after = interpolate_position_embedding(weight, old, new)
        return [statistic(table).item() for table in (weight, after)]

    return measure


def _as_a_line(weight, old, new) -> list[float]:
    line = weight[:, 1:].transpose(1, 2)  # (1, D, N)
    line = F.interpolate(line, new[0] * new[1], mode="linear").transpose(1, 2)
    return _std(weight, torch.cat([weight[:, :1], line], dim=1))


MEASURES = {
    "the row of the class token is in it. It has no place in the image and is not "
    "resized: leave it out, before and after.": _with_other_statistic(torch.std),
    "before and after are swapped.": lambda *given: _right_std(*given)[::-1],
    "this is the variance. The standard deviation is its square root.": (
        _with_other_statistic(lambda table: table[:, 1:].var())
    ),
    "you average the standard deviations of the D columns. The task asks for one over "
    "all values of the patches' rows together.": _with_other_statistic(
        lambda table: table[:, 1:].std(dim=1).mean()
    ),
    "you average the standard deviations of the patches. The task asks for one over "
    "all values of the patches' rows together.": _with_other_statistic(
        lambda table: table[:, 1:].std(dim=2).mean()
    ),
    "this is the mean. How far do the values lie from it?": _with_other_statistic(
        lambda table: table[:, 1:].mean()
    ),
    "both are measured on the table that came in. `interpolate_position_embedding` "
    "gives back a new one.": lambda weight, old, new: _std(weight, weight),
    "both are measured on the resized table.": lambda weight, old, new: (
        _right_std(weight, old, new)[1:] * 2
    ),
    "the new grid is transposed: both grids are (rows, columns).": (
        lambda weight, old, new: _right_std(weight, old, new[::-1])
    ),
    "the old grid is transposed: both grids are (rows, columns).": (
        lambda weight, old, new: _right_std(weight, old[::-1], new)
    ),
    "the table is resized as a line of N vectors. Patches stand on a grid: "
    "`interpolate_position_embedding` does it in 2-D.": _as_a_line,
}


def check_position_std(answer: Callable) -> None:
    """Checks the standard deviation of a position embedding before and after resizing.

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "measure_std")

    def measured(weight, old_grid, new_grid):
        found = answer(weight, old_grid, new_grid)
        if found is None:
            return None
        both = isinstance(found, dict) and set(found) == {"before", "after"}
        hint(both, "give back a dict with the keys 'before' and 'after'")
        return [as_number(found[name]) for name in ("before", "after")]

    generator = torch.Generator().manual_seed(7)
    inputs = []
    for old, new in (
        ((5, 7), (8, 10)),
        ((6, 4), (9, 13)),
        ((9, 8), (4, 3)),
        ((3, 12), (3, 12)),
    ):
        # Columns and patches differ in their means, too.
        parts = ((1, old[0] * old[1], 96), (1, 1, 96), (1, old[0] * old[1], 1))
        table = torch.zeros(1, old[0] * old[1], 96)
        for part in parts:
            table = table + torch.randn(part, generator=generator)
        smooth = 3 * sinusoidal_2d(old, 96)[None]
        # The class token's row is large, so that it shows where it does not belong.
        first = 50 * torch.randn(1, 1, 96, generator=generator)
        inputs.append((torch.cat([first, table], dim=1), old, new))
        inputs.append((torch.cat([first, smooth], dim=1), old, new))
    # Divided by n or by n - 1: both are standard deviations.
    compare(
        measured,
        _right_std,
        inputs,
        MEASURES,
        tolerance=5e-4,
        gradient=False,
        advice="Both are over all values of the patches' rows, `[:, 1:]`, together.",
    )
    passed("standard deviation of a table before and after")
