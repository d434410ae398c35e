"""A gated PixelCNN (van den Oord et al. 2016): the probability of a grid of symbols, place by place in reading order.

p(k) = prod_i p(k_i | k_1, ..., k_(i-1)). A convolution whose kernel ends before its own place sees only what was read
before. One stack of them looks at the rows above, a second at what is left in the row and at the first stack, so that
no place above is out of sight. Each feature is tanh(a) sigmoid(b) of two sums, a and b. Training takes all places at
once; drawing takes one after the other.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

REACH = 2  # rows above, and columns to the left, of a layer's kernels


class GatedLayer(nn.Module):
    """Features of the rows above and of the row so far, [B, C, h, w] each, to the same of the next layer.

    The first layer leaves out the place itself; the features of later ones have not seen it.
    """

    def __init__(self, inputs: int, width: int, *, first: bool = False) -> None:
        super().__init__()
        self.first = first
        self.above = nn.Conv2d(inputs, 2 * width, (REACH, 3))
        self.left = nn.Conv2d(inputs, 2 * width, (1, REACH))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, above: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        back = REACH if self.first else REACH - 1
        height, width = left.shape[2:]
        rows = self.above(F.pad(above, (1, 1, back, 0))[:, :, : height + REACH - 1])
        row = self.left(F.pad(left, (back, 0, 0, 0))[:, :, :, : width + REACH - 1]) + self.link(rows)
        out = self.out(_gate(row))
        return _gate(rows), out if self.first else left + out


def _gate(features: Tensor) -> Tensor:
    signal, gate = features.chunk(2, dim=1)
    return torch.tanh(signal) * torch.sigmoid(gate)


class PixelCnn(nn.Module):
    """p(k) of grids [B, h, w] of K symbols; each place has a bias of its own, for cameras do not move."""

    def __init__(self, symbols: int, grid: tuple[int, int], width: int, layers: int) -> None:
        super().__init__()
        self.grid = grid
        self.embedding = nn.Embedding(symbols, width)
        self.layers = nn.ModuleList(GatedLayer(width, width, first=not depth) for depth in range(layers))
        self.place = nn.Parameter(torch.zeros(width, *grid))
        self.head = nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, symbols, 1))

    def forward(self, indices: Tensor) -> Tensor:
        """Return the logits of p(k_i | earlier), [B, h, w] -> [B, K, h, w]."""
        above = left = self.embedding(indices).movedim(-1, 1)
        for layer in self.layers:
            above, left = layer(above, left)
        logits: Tensor = self.head(left + self.place)
        return logits

    def negative_log_prob(self, indices: Tensor) -> Tensor:
        """Return -log p(k_i | earlier) of every place in nats, [B, h, w] -> [B, h, w]."""
        return F.cross_entropy(self(indices), indices, reduction="none")

    def draw(self, uniform: Tensor) -> Tensor:
        """Return grids [B, h, w] from numbers [B, h w] in 0..1, one for each place.

        The symbol of a place is the first whose cumulative probability, given the symbols before, exceeds its number.
        """
        rows, columns = self.grid
        places = torch.arange(rows * columns, device=uniform.device)

        def step(place: Tensor, grid: Tensor) -> Tensor:
            here = place.reshape(1)
            logits = self(grid).flatten(2).index_select(2, here)[:, :, 0]
            cumulative = logits.softmax(1).cumsum(1)[:, :-1]  # the last is 1, but for rounding
            symbol = (cumulative <= uniform.index_select(1, here)).sum(1, keepdim=True)
            return torch.where(places == place, symbol, grid.flatten(1)).reshape(-1, rows, columns)

        empty = torch.zeros(uniform.shape[0], rows, columns, dtype=torch.long, device=uniform.device)
        return repeat(rows * columns, step, empty)


def repeat(times: int, step: Callable[[Tensor, Tensor], Tensor], state: Tensor) -> Tensor:
    """Apply step(i, state) for i = 0, 1, ...: in an exported graph one Loop, however many times it is."""
    if torch.compiler.is_exporting():
        start = torch.tensor(0)
        end: tuple[Tensor, Tensor] = while_loop(  # type: ignore[no-untyped-call]
            lambda i, _: i < times, lambda i, state: (i + 1, step(i, state)), (start, state)
        )
        return end[1]
    for i in range(times):
        state = step(torch.tensor(i, device=state.device), state)
    return state
