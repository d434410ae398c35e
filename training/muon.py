"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal before they are applied.

The gradient of a convolution, seen as a matrix [outputs, inputs * taps], is dominated by a few directions. Made
orthogonal, its rare directions learn as fast as its strong ones. What is no matrix, or a thin one, is left to Adam
(Kingma and Ba 2015).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# The quintic a x + b x^3 + c x^5 that brings singular values near 1 within five rounds (Jordan et al. 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
THIN = 16  # rows or columns: a matrix with no more is Adam's
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """Muon for wide weights and Adam for the others: two parameter groups under one schedule."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], matrix_rate: float, rate: float,
        *, momentum: float = 0.95, weight_decay: float = 0,
    ) -> None:  # fmt: skip
        """Sort the parameters by shape; `rate` is Adam's. Weight decay is decoupled from the gradient."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        wide = [parameter for parameter in trained if _is_wide(parameter)]
        thin = [parameter for parameter in trained if not _is_wide(parameter)]
        groups = [{"params": wide, "lr": matrix_rate, "wide": True}, {"params": thin, "lr": rate, "wide": False}]
        super().__init__([group for group in groups if group["params"]],
                         {"momentum": momentum, "weight_decay": weight_decay})  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Apply the gradients once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved and group["weight_decay"]:
                torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
            if group["wide"]:
                self._orthogonal_step(moved, group["lr"], group["momentum"])
            else:
                self._adam_step(moved, group["lr"])
        return loss

    def _orthogonal_step(self, parameters: list[Tensor], rate: float, momentum: float) -> None:
        by_shape: defaultdict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.flatten(1).shape].append(parameter)
        for (rows, columns), alike in by_shape.items():
            updates = orthogonal(torch.stack([self._nesterov(parameter, momentum).flatten(1) for parameter in alike]))
            scale = rate * max(1, rows / columns) ** 0.5
            for parameter, update in zip(alike, updates, strict=True):
                parameter.sub_(update.view_as(parameter), alpha=scale)

    def _nesterov(self, parameter: Tensor, momentum: float) -> Tensor:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None  # noqa: S101 - the caller has left out the others
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum"].mul_(momentum).add_(gradient)
        return gradient + momentum * average

    def _adam_step(self, parameters: list[Tensor], rate: float) -> None:
        first_decay, second_decay = BETAS
        for parameter in parameters:
            gradient, state = parameter.grad, self.state[parameter]
            assert gradient is not None  # noqa: S101
            if not state:
                state |= {"step": 0, "first": torch.zeros_like(parameter), "second": torch.zeros_like(parameter)}
            state["step"] += 1
            state["first"].lerp_(gradient, 1 - first_decay)
            state["second"].lerp_(gradient.square(), 1 - second_decay)
            first = state["first"] / (1 - first_decay ** state["step"])
            second = state["second"] / (1 - second_decay ** state["step"])
            parameter.sub_(first / (second.sqrt() + EPSILON), alpha=rate)


def _is_wide(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and min(parameter.flatten(1).shape) > THIN


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring all singular values of [n, rows, columns] near 1 (0.7 to 1.2) and keep the singular vectors.

    Newton-Schulz iteration on the smaller Gram matrix: with X = U S V', every round multiplies X by a polynomial of
    X X', so only square matrices of the smaller side are multiplied until the end.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    gram, factor = wide @ wide.mT, None
    a, b, c = NEWTON_SCHULZ
    for round_ in range(ROUNDS):
        polynomial = torch.baddbmm(b * gram, gram, gram, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        factor = polynomial if factor is None else polynomial @ factor
        if round_ < ROUNDS - 1:
            gram = polynomial @ gram @ polynomial
    result: Tensor = factor @ wide
    return result.mT if tall else result
