"""Answers to the exercises of lesson 05."""

import copy

import numpy as np
import torch
from torch import nn

from answers import right, wrong
from going_modular.position_embedding import interpolate_position_embedding

SAVED = "check_saved_parameters"
ROWS = "check_row_column_positions"
SUMS = "check_mended_sums"
SPREAD = "check_position_std"


@wrong(SAVED, "without its sign")
def without_sign(grid, embedding_dim):
    return abs(grid[0] * grid[1] - sum(grid)) * embedding_dim


@wrong(SAVED, "belongs to the example")
def of_the_base_model(grid, embedding_dim):
    return (grid[0] * grid[1] - sum(grid)) * 768


@wrong(SAVED, "expected a number")
def both_counts(grid, embedding_dim):
    return grid[0] * grid[1] * embedding_dim, sum(grid) * embedding_dim


@wrong(SAVED, "`return`")
def printed(grid, embedding_dim):
    print((grid[0] * grid[1] - sum(grid)) * embedding_dim)


@wrong(SAVED, "not written yet")
def blank(grid, embedding_dim):
    raise NotImplementedError("your lines go here")


@right(SAVED)
def by_difference(grid, embedding_dim):
    rows, columns = grid
    return (rows * columns + 1) * embedding_dim - (rows + columns + 1) * embedding_dim


@right(SAVED)
def by_counting_tensors(grid, embedding_dim):
    table = torch.empty(1 + grid[0] * grid[1], embedding_dim)
    rows = torch.empty(1 + sum(grid), embedding_dim)
    return torch.tensor(table.numel() - rows.numel())


@right(SAVED)
def by_product(grid, embedding_dim):
    return ((grid[0] - 1) * (grid[1] - 1) - 1) * embedding_dim


class Rows(nn.Module):
    """What the answers to the second task share."""

    def __init__(self, grid, embedding_dim):
        super().__init__()
        self.grid = grid
        self.row_positions = nn.Parameter(torch.zeros(grid[0], embedding_dim))
        self.column_positions = nn.Parameter(torch.zeros(grid[1], embedding_dim))
        self.class_position = nn.Parameter(torch.zeros(1, embedding_dim))
        for p in self.parameters():
            nn.init.normal_(p, std=0.02)

    def patches(self):
        u, v = self.row_positions, self.column_positions
        return (u[:, None] + v[None]).flatten(0, 1)

    def table(self):
        return torch.cat([self.class_position, self.patches()])

    def forward(self, tokens):
        return tokens + self.table()


@wrong(ROWS, "does not change when they are trained")
class RandomTableMadeOnce(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__(grid, embedding_dim)
        self.once = self.table()

    def forward(self, tokens):
        return tokens + self.once


@wrong(ROWS, "changes the tensor")
class RowsInPlace(Rows):
    def forward(self, tokens):
        tokens += self.table()
        return tokens


@wrong(ROWS, "changes the tensor")
class PatchesInPlace(Rows):
    def forward(self, tokens):
        tokens[:, 1:] += self.patches()
        tokens[:, 0] += self.class_position
        return tokens


@wrong(ROWS, "no gradient arrives")
class RowsDetached(Rows):
    def table(self):
        return super().table().detach()


@wrong(ROWS, "`row_positions` is initialised with a standard deviation of 0.")
class FromZeros(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__(grid, embedding_dim)
        for p in self.parameters():
            nn.init.zeros_(p)


@wrong(ROWS, "asks for 0.02")
class FromLargeNumbers(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__(grid, embedding_dim)
        for p in self.parameters():
            nn.init.normal_(p)


@wrong(ROWS, "`class_position` is initialised")
class ClassFromZeros(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__(grid, embedding_dim)
        nn.init.zeros_(self.class_position)


@wrong(ROWS, "rows and columns are swapped")
class GridSwapped(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__(grid[::-1], embedding_dim)

    def forward(self, tokens):
        return tokens + self.table()


@wrong(ROWS, "for each patch again")
class FullTable(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__(grid, embedding_dim)
        self.row_positions = nn.Parameter(torch.zeros(grid[0] * grid[1], embedding_dim))


@wrong(ROWS, "expected (3, 4)")
class ForSquareGrids(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__((grid[0], grid[0]), embedding_dim)


@wrong(ROWS, "expected (2, 4)")
class HalvesOfD(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__(grid, embedding_dim)
        self.row_positions = nn.Parameter(torch.zeros(grid[0], embedding_dim // 2))
        self.column_positions = nn.Parameter(torch.zeros(grid[1], embedding_dim // 2))


@wrong(ROWS, "too many: more")
class TableBeside(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__(grid, embedding_dim)
        self.more = nn.Parameter(torch.zeros(grid[0] * grid[1], embedding_dim))


@wrong(ROWS, "no parameter `row_positions`")
class Embeddings(nn.Module):
    def __init__(self, grid, embedding_dim):
        super().__init__()
        self.row_positions = nn.Embedding(grid[0], embedding_dim)
        self.column_positions = nn.Embedding(grid[1], embedding_dim)
        self.class_position = nn.Parameter(torch.zeros(1, embedding_dim))


@wrong(ROWS, "RowColumnEmbedding((5, 3), 8)")
class ForTheExample(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__((2, 3), 4)


@wrong(ROWS, "expected (1, 7, 4)")
class ForTwoPictures(Rows):
    def forward(self, tokens):
        return tokens + self.table().expand(2, -1, -1)


@wrong(ROWS, "not written yet")
class BlankRows(nn.Module):
    def __init__(self, grid, embedding_dim):
        super().__init__()
        raise NotImplementedError("your lines go here")


@right(ROWS)
class ByRepeat(Rows):
    def patches(self):
        rows, columns = self.grid
        u = self.row_positions.repeat_interleave(columns, dim=0)
        return u + self.column_positions.repeat(rows, 1)


@right(ROWS)
class ByLoops(Rows):
    def forward(self, tokens):
        out = tokens.clone()
        out[:, 0] += self.class_position[0]
        for r in range(self.grid[0]):
            for c in range(self.grid[1]):
                place = 1 + r * self.grid[1] + c
                out[:, place] += self.row_positions[r] + self.column_positions[c]
        return out


@right(ROWS)
class ByIndex(Rows):
    def __init__(self, grid, embedding_dim):
        super().__init__(grid, embedding_dim)
        for p in self.parameters():
            nn.init.uniform_(p, -(0.0012**0.5), 0.0012**0.5)
        places = torch.arange(grid[0] * grid[1])
        self.register_buffer("r", places // grid[1])
        self.register_buffer("c", places % grid[1])

    def patches(self):
        return self.row_positions[self.r] + self.column_positions[self.c]


@right(ROWS)
class OnTheGrid(Rows):
    def forward(self, tokens):
        first, patches = tokens[:, :1], tokens[:, 1:].unflatten(1, self.grid)
        patches = patches + self.row_positions[:, None] + self.column_positions
        return torch.cat([first + self.class_position, patches.flatten(1, 2)], dim=1)


@wrong(SUMS, "second name for the same tensor")
def still_in_place(tokens, tables):
    results = []
    for table in tables:
        z_0 = tokens
        z_0 += table
        results.append(z_0)
    return results


@wrong(SUMS, "second name for the same tensor")
def into_a_view(tokens, tables):
    results = []
    for table in tables:
        z_0 = tokens[:]
        z_0 += table
        results.append(z_0)
    return results


@wrong(SUMS, "second name for the same tensor")
def put_back_later(tokens, tables):
    results = []
    for table in tables:
        tokens += table
        results.append(tokens.clone())
        tokens -= table * 1.5
    return results


@wrong(SUMS, "no gradient arrives")
def detached(tokens, tables):
    results = []
    for table in tables:
        z_0 = tokens.detach().clone()
        z_0 += table
        results.append(z_0)
    return results


@wrong(SUMS, "module `copy`")
def copied_deeply(tokens, tables):
    results = []
    for table in tables:
        z_0 = copy.deepcopy(tokens)
        z_0 += table
        results.append(z_0)
    return results


@wrong(SUMS, "module `copy`")
def copied_by_name(tokens, tables):
    results = []
    for table in tables:
        z_0 = copy.copy(tokens)
        z_0 += table
        results.append(z_0)
    return results


@wrong(SUMS, "taken out")
def taken_out(tokens, tables):
    return [tokens + tables.pop(0) for _ in range(len(tables))]


@wrong(SUMS, "replaced")
def into_the_list(tokens, tables):
    for i, table in enumerate(tables):
        tables[i] = tokens + table
    return tables


@wrong(SUMS, "moved")
def list_reversed(tokens, tables):
    tables.reverse()
    return [tokens + table for table in tables][::-1]


@wrong(SUMS, "added")
def appended(tokens, tables):
    count = len(tables)
    for table in tables[:count]:
        tables.append(tokens + table)
    return tables[count:]


@wrong(SUMS, "`detach` or `nn.Parameter`")
def a_new_leaf(tokens, tables):
    results = []
    for table in tables:
        z_0 = tokens.detach().requires_grad_()
        z_0 += table
        results.append(z_0)
    return results


@wrong(SUMS, "a tensor in it is written into")
def into_the_tables(tokens, tables):
    results = []
    for table in tables:
        z_0 = table
        z_0 += tokens
        results.append(z_0)
    return results


@wrong(SUMS, "expected 4 values")
def two_tables(tokens, tables):
    return [tokens + tables[0], tokens + tables[1]]


@wrong(SUMS, "`return`")
def without_return(tokens, tables):
    results = []
    for table in tables:
        results.append(tokens + table)


@wrong(SUMS, "not written yet")
def blank_sums(tokens, tables):
    raise NotImplementedError("your lines go here")


@right(SUMS)
def copied_each_time(tokens, tables):
    results = []
    for table in tables:
        z_0 = tokens.clone()
        z_0 += table
        results.append(z_0)
    return results


@right(SUMS)
def by_one_broadcast(tokens, tables):
    return list((tokens + torch.stack(list(tables))).unbind())


@right(SUMS)
def as_a_tuple(tokens, tables):
    return tuple(torch.add(tokens, table) for table in tables)


def spread(weight, finer, statistic=torch.std):
    return {"before": statistic(weight).item(), "after": statistic(finer).item()}


@wrong(SPREAD, "keys 'before' and 'after'")
def as_a_pair(weight, old_grid, new_grid):
    finer = interpolate_position_embedding(weight, old_grid, new_grid)
    return weight[:, 1:].std().item(), finer[:, 1:].std().item()


@wrong(SPREAD, "expected a number")
def all_columns(weight, old_grid, new_grid):
    finer = interpolate_position_embedding(weight, old_grid, new_grid)
    return {"before": weight[0, 1:].std(dim=0), "after": finer[0, 1:].std(dim=0)}


@wrong(SPREAD, "stops with ValueError")
def cut_off_first(weight, old_grid, new_grid):
    finer = interpolate_position_embedding(weight[:, 1:], old_grid, new_grid)
    return spread(weight[:, 1:], finer)


@wrong(SPREAD, "the values are not")
def always_the_same(weight, old_grid, new_grid):
    return {"before": 0.02, "after": 0.0161}


@wrong(SPREAD, "`return`")
def not_given_back(weight, old_grid, new_grid):
    print(weight[:, 1:].std())


@wrong(SPREAD, "not written yet")
def blank_spread(weight, old_grid, new_grid):
    raise NotImplementedError("your lines go here")


@right(SPREAD)
def without_prefix(weight, old_grid, new_grid):
    patches = weight[:, 1:]
    finer = interpolate_position_embedding(patches, old_grid, new_grid, 0)
    return {"after": finer.std(), "before": patches.std()}


@right(SPREAD)
def by_formula(weight, old_grid, new_grid):
    finer = interpolate_position_embedding(weight, old_grid, new_grid)
    found = {}
    for name, table in (("before", weight), ("after", finer)):
        numbers = table[0, 1:].flatten().tolist()
        mean = sum(numbers) / len(numbers)
        found[name] = (sum((n - mean) ** 2 for n in numbers) / len(numbers)) ** 0.5
    return found


@right(SPREAD)
def by_numpy(weight, old_grid, new_grid):
    finer = interpolate_position_embedding(weight, old_grid, new_grid)
    tables = {"before": weight, "after": finer}
    return {name: np.std(t[:, 1:].detach().numpy()) for name, t in tables.items()}
