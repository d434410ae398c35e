"""The codebook of a VQ-VAE (van den Oord et al. 2017): vectors are replaced by the nearest of K, which follow them.

No gradient moves the K codes: each is the moving average of the vectors that were nearest to it, N_k and m_k being the
moving averages of their number and of their sum, e_k = m_k / N_k (appendix A.1 of the paper). A code that nothing comes
near any more is dead: it starts again at a vector drawn from the batch (Dhariwal et al. 2020). Before the first batch
all are.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

DEAD = 0.01  # of an even share of the vectors


class Codebook(nn.Module):
    """K codes [K, D], learnt by moving averages while in training mode."""

    codes: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", torch.randn(size, dim))
        self.register_buffer("counts", torch.zeros(size))  # N_k; all dead
        self.register_buffer("sums", torch.zeros(size, dim))  # m_k

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the index of the nearest code, [B, D, h, w] -> [B, h, w]."""
        rows = vectors.movedim(1, -1)
        distances = self.codes.square().sum(1) - 2 * rows @ self.codes.T  # less |v|^2, which all codes share
        return distances.argmin(-1)

    def look_up(self, indices: Tensor) -> Tensor:
        """Return the codes, [B, h, w] -> [B, D, h, w]."""
        return F.embedding(indices, self.codes).movedim(-1, 1)

    @torch.no_grad()
    def follow(self, vectors: Tensor, indices: Tensor) -> None:
        """Move each code towards the vectors [B, D, h, w] that it is nearest to; revive the dead."""
        rows = vectors.movedim(1, -1).flatten(0, -2)
        chosen = F.one_hot(indices.flatten(), len(self.codes)).to(rows.dtype)
        self.counts.lerp_(chosen.sum(0), 1 - self.decay)
        self.sums.lerp_(chosen.T @ rows, 1 - self.decay)
        share = len(rows) / len(self.codes)
        dead = self.counts < DEAD * share
        drawn = rows[torch.randint(len(rows), (len(self.codes),), device=rows.device)]
        self.counts.copy_(torch.where(dead, share, self.counts))  # a fair share: time to be found
        self.sums.copy_(torch.where(dead[:, None], share * drawn, self.sums))
        self.codes.copy_(self.sums / self.counts[:, None])


def straight_through(vectors: Tensor, codes: Tensor) -> Tensor:
    """Return the codes, with the gradient of the vectors: rounding has none of its own (Bengio et al. 2013)."""
    return vectors + (codes - vectors).detach()
