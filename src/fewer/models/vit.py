"""A compact Vision Transformer with timm's parameter names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError


class PatchEmbed(nn.Module):
    """Cut an image into square patches and project each one: [N, C, H, W] -> [N, patches, width]."""

    def __init__(self, patch_size: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with one joint projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads  # stays when heads are removed
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        samples, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(samples, tokens, 3, self.heads, self.head_width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(samples, tokens, self.heads * self.head_width))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class LayerScale(nn.Module):
    """Per-channel learned scale of a residual branch (Touvron et al., CaiT, 2021)."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each with a residual connection."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, layer_scale: float | None, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width, layer_scale) if layer_scale is not None else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, round(width * mlp_ratio))
        self.ls2 = LayerScale(width, layer_scale) if layer_scale is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """A Vision Transformer (Dosovitskiy et al., 2021) for one fixed image size.

    Parameter names are timm's, so DINOv2, DeiT and ViT checkpoints of timm load strictly
    (position embeddings of another grid go through :func:`resize_position_embedding` first).

    Parameters
    ----------
    image_size, patch_size : int
        Side of the square input and of a patch, in pixels.
    in_channels : int
        Input channels.
    width, depth, heads : int
        Token width, number of blocks, attention heads.
    mlp_ratio : float
        Hidden width of the MLP divided by ``width``.
    num_classes : int
        0 makes a feature backbone: the output is all normalised tokens, class token first.
    layer_scale : float, optional
        Initial layer scale (DINOv2 has one); None leaves it out (DeiT).
    eps : float
        Epsilon of the layer norms.

    Raises
    ------
    FewerError
        When the sizes do not divide.

    Examples
    --------
    >>> net = VisionTransformer(image_size=32, patch_size=16, width=24, depth=1, heads=3)
    >>> tuple(net(torch.zeros(2, 3, 32, 32)).shape)
    (2, 5, 24)
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        num_classes: int = 0,
        layer_scale: float | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise FewerError(
                f"the image size {image_size} is not a multiple of the patch size {patch_size}; "
                f"the nearest size is {max(patch_size, round(image_size / patch_size) * patch_size)}"
            )
        if width % heads:
            raise FewerError(f"the width {width} does not divide into {heads} heads")
        self.image_size = image_size
        self.in_channels = in_channels
        self.patch_embed = PatchEmbed(patch_size, in_channels, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2 + 1, width))
        self.blocks = nn.Sequential(*[Block(width, heads, mlp_ratio, layer_scale, eps) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=eps)
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.num_classes = num_classes
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens [N, 1 + patches, width] without a head, logits [N, num_classes] with one."""
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        x = self.norm(self.blocks(x))
        return self.head(class_token(x)) if self.num_classes else x


def class_token(tokens: Tensor) -> Tensor:
    """The class token [N, width] of a backbone's tokens [N, 1 + patches, width].

    Examples
    --------
    >>> tuple(class_token(torch.zeros(2, 5, 24)).shape)
    (2, 24)
    """
    return tokens[:, 0]


def resize_position_embedding(embedding: Tensor, grid: int) -> Tensor:
    """Bicubic resampling of square position embeddings to another square grid.

    Parameters
    ----------
    embedding : Tensor [1, 1 + old_grid ** 2, width]
        Position embeddings, the class token's first.
    grid : int
        Patches along one side of the new grid.

    Returns
    -------
    Tensor [1, 1 + grid ** 2, width]

    Examples
    --------
    >>> tuple(resize_position_embedding(torch.zeros(1, 1370, 8), 16).shape)
    (1, 257, 8)
    """
    old = round((embedding.shape[1] - 1) ** 0.5)
    if old * old + 1 != embedding.shape[1]:
        raise FewerError(f"{embedding.shape[1]} position embeddings are not a square grid plus a class token")
    if old == grid:
        return embedding
    patches = embedding[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([embedding[:, :1], patches.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)], dim=1)
