"""What all gait networks do alike: frames in, embeddings out, a place for Temporal Periodic Alignment."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.tasks.gait.networks.config import NetworkConfig
from fewer.tasks.gait.networks.parts import max_over_time
from fewer.tasks.gait.tpa import TPA, TPAConfig
from fewer.tasks.gait.tpa.spectrum import Rhythm, find_rhythm

__all__ = ["GaitNetwork", "leg_width", "without_line"]


class GaitNetwork(nn.Module):
    """Base class: subclasses give features of frames, how a frame is pooled into parts, and a head.

    Attributes
    ----------
    config
        What the network is made of; set by :func:`~fewer.tasks.gait.networks.build.build_network`.
    tpa
        The module, or None.
    """

    config: NetworkConfig
    tpa: TPA | None

    def place_tpa(self, channels: int, parts: int, config: TPAConfig | None) -> None:
        """Put the module in; last of all, so that the other parameters start alike with and without it."""
        self.tpa = None if config is None else TPA(channels, config, parts)

    def pool(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Features of frames (n, channels, frames, height, width) to features of parts (n, channels, parts).

        Without TPA, the maximum over time and then strips, as OpenGait does; with it, strips of every frame, the
        module over time, and then the maximum.
        """
        if self.tpa is None:
            return self.strips(max_over_time(frames, lengths))
        return self.align(self.frame_parts(frames), lengths, max_over_time)

    def align(self, parts: Tensor, lengths: Tensor | None, pool: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
        """Apply the module to features of parts (n, channels, frames, parts), and pool them over time."""
        if self.tpa is None:
            return pool(parts, lengths)
        known = torch.full((len(parts),), parts.shape[2], device=parts.device) if lengths is None else lengths
        with torch.autocast(parts.device.type, enabled=False):  # periods need more than the eight bits of bfloat16
            calm = parts.to(torch.promote_types(parts.dtype, torch.float32)).permute(0, 3, 2, 1)
            aligned = self.tpa(calm, known)
            pooled = pool(aligned.permute(0, 3, 2, 1), lengths)
            return pooled if self.tpa.moments is None else pooled + self.tpa.moments(aligned, known).transpose(1, 2)

    def frame_parts(self, frames: Tensor) -> Tensor:
        """Features of parts of every frame: (n, channels, frames, parts)."""
        n, _, count = frames.shape[:3]
        return self.strips(frames.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, count)).transpose(1, 2)

    def strips(self, x: Tensor) -> Tensor:
        """Pool an image of features into parts."""
        raise NotImplementedError

    def trunk(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features of frames, and their real lengths (which change where time has a stride)."""
        raise NotImplementedError

    def head(self, parts: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embeddings to compare, embeddings for the triplet loss, and cosines or scores of classes."""
        raise NotImplementedError

    def features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Features of parts."""
        return self.pool(*self.trunk(x, lengths))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed sequences.

        Parameters
        ----------
        x
            Silhouettes (sequences, frames, height, width), 0 to 1.
        lengths
            Real frames of each sequence of a padded batch; None where all are real.

        Returns
        -------
        Tensor
            Embeddings (sequences, channels, parts).
        """
        return self.head(self.features(self._checked(x), lengths))[0]

    def train_outputs(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings for the triplet loss, and cosines of classes where the network has them."""
        _, embeddings, scores = self.head(self.features(self._checked(x), None))
        return embeddings, scores

    def rhythm(self, x: Tensor) -> Rhythm:
        """Period and phase of each sequence (n, frames, height, width).

        From how wide the legs stand.
        """
        lengths = torch.full((len(x),), x.shape[1], dtype=torch.int64, device=x.device)
        return find_rhythm(without_line(leg_width(x)), lengths)

    @staticmethod
    def _checked(x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise FewerError(
                f"a batch of sequences has shape (sequences, frames, height, width); this one has {tuple(x.shape)}"
            )
        if x.shape[2] % 16 or x.shape[3] % 4:
            raise FewerError(f"silhouettes are 64 x 44 pixels; these are {x.shape[2]} x {x.shape[3]}")
        return x[:, None]


def without_line(signal: Tensor) -> Tensor:
    """Signals (n, frames) without the straight line that fits each best.

    Someone who comes nearer or turns changes slowly; in a short sequence that looks like a slow rhythm.

    Examples
    --------
    >>> without_line(torch.tensor([[1.0, 3.0, 5.0]])).abs().max().item() < 1e-5
    True
    """
    time = torch.linspace(-1, 1, signal.shape[1], device=signal.device, dtype=signal.dtype)
    slope = (signal * time).sum(1, keepdim=True) / time.square().sum().clamp(min=1e-12)
    return signal - signal.mean(1, keepdim=True) - slope * time


def leg_width(x: Tensor) -> Tensor:
    """Spread of the lowest quarter of silhouettes over the columns: (n, frames), in pixels.

    Examples
    --------
    >>> x = torch.zeros(1, 2, 4, 3)
    >>> x[0, 0, 3, 0] = x[0, 0, 3, 2] = x[0, 1, 3, 1] = 1
    >>> leg_width(x).tolist()
    [[1.0, 0.0]]
    """
    low = x[:, :, 3 * x.shape[2] // 4 :].sum(2)
    mass = low.sum(2).clamp(min=1e-6)
    columns = torch.arange(x.shape[3], device=x.device, dtype=x.dtype)
    middle = (low * columns).sum(2) / mass
    return ((low * (columns - middle[..., None]).square()).sum(2) / mass).sqrt()
