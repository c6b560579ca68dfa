"""Pictures of lines of text for the benchmarks: written over photos, and cut from scanned pages."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fewer.data.photos import real_photos

__all__ = ["scanned", "written"]

_WORDS = """the quick brown fox jumps over a lazy dog near Station 47 while Quartz vows 1859 boxes of fine Jade;
Open daily 9:30-18:00 Exit to Platform B, Total 128.50 Invoice No. 20736 Keep right, Speed limit 60 km/h"""
_PAGES = ("page.png", "text.png")


def written(count: int, size: tuple[int, int], seed: int) -> list[Image.Image]:
    """Words over crops of photos, in grey or colour, a little turned."""
    draw, (height, width) = np.random.default_rng(seed), size
    photos = [Image.open(p.path).convert("RGB") for p in real_photos() if p.path.name not in _PAGES]
    words, found = _WORDS.split(), []
    for index in range(count):
        photo = photos[index % len(photos)]
        left, top = (int(draw.integers(0, max(1, a - b))) for a, b in zip(photo.size, (width, height), strict=True))
        picture = photo.crop((left, top, left + width, top + height)).resize((width, height))
        picture = Image.blend(picture, Image.new("RGB", picture.size, (255,) * 3), float(draw.uniform(0.2, 0.8)))
        line = " ".join(draw.choice(words, int(draw.integers(2, 6))))
        font = ImageFont.load_default(float(draw.uniform(0.4, 0.75)) * height)
        ink = tuple(int(v) for v in draw.integers(0, 90, 3))
        ImageDraw.Draw(picture).text((height * 0.1, height * 0.15), line, ink, font)
        picture = picture.rotate(float(draw.uniform(-2, 2)), Image.Resampling.BILINEAR, fillcolor=(200,) * 3)
        found.append(ImageOps.invert(picture) if draw.random() < 0.3 else picture)
    return found


def scanned(count: int, size: tuple[int, int], seed: int) -> list[Image.Image]:
    """Crops of scikit-image's scanned page and photographed text, of the height of about one line."""
    draw, found = np.random.default_rng(seed), []
    pages = [Image.open(p.path).convert("RGB") for p in real_photos() if p.path.name in _PAGES]
    for index in range(count):
        page = pages[index % len(pages)]
        height = int(draw.integers(24, 40))
        width = min(page.width, round(height * size[1] / size[0]))
        left, top = (int(draw.integers(0, a - b + 1)) for a, b in zip(page.size, (width, height), strict=True))
        line = page.crop((left, top, left + width, top + height))
        found.append(line.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return found
