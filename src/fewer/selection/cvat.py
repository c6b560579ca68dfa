"""The XML of CVAT ("CVAT for images 1.1"): images that are to be annotated, and what came back of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError, SubElement

from fewer.core.errors import FewerError

__all__ = ["DrawnImage", "read_cvat", "write_cvat"]

SHAPES = ("box", "cuboid", "ellipse", "mask", "points", "polygon", "polyline", "skeleton")


@dataclass(frozen=True)
class DrawnImage:
    """One image of the file that somebody has annotated.

    Attributes
    ----------
    name
        As the file gives it.
    size
        Width and height in pixels, or None where the file does not say.
    label
        The label of its tag (a class of the whole image), or None where only shapes were drawn or tags differ.
    """

    name: str
    size: tuple[int, int] | None
    label: str | None


def write_cvat(images: Sequence[tuple[str, int, int]], description: str) -> str:
    """A file of images without annotations.

    Parameters
    ----------
    images
        Name, width and height in pixels.
    description
        A sentence for people.

    Examples
    --------
    >>> [d.name for d in read_cvat(write_cvat([("a.png", 4, 3)], ""), Path("x.xml"))]
    []
    """
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    meta = SubElement(SubElement(root, "meta"), "task")
    SubElement(meta, "name").text = description
    SubElement(meta, "size").text = str(len(images))
    SubElement(meta, "mode").text = "annotation"
    label = SubElement(SubElement(meta, "labels"), "label")
    SubElement(label, "name").text = "object"
    SubElement(label, "attributes")
    for place, (name, width, height) in enumerate(images):
        SubElement(root, "image", id=str(place), name=name, width=str(width), height=str(height))
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def read_cvat(text: str, source: Path) -> list[DrawnImage]:
    """The images of a file that have a tag or a shape; CVAT lists every image, also those that nobody looked at.

    Parameters
    ----------
    text
        The XML.
    source
        Its file, for messages.

    Raises
    ------
    FewerError
        When it is no XML, or not that of CVAT for images.

    Examples
    --------
    >>> xml = '<annotations><image name="a.png" width="4" height="3"><tag label="cat"/></image></annotations>'
    >>> read_cvat(xml, Path("x.xml"))
    [DrawnImage(name='a.png', size=(4, 3), label='cat')]
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # CVAT writes none, and entities can make a small file huge
        raise FewerError(f"{source} declares entities of its own, which no export of CVAT does; it is not read")
    try:
        root = ElementTree.fromstring(text)
    except ParseError as error:
        raise FewerError(f"{source} is not valid XML: {error}") from None
    if root.tag != "annotations":
        raise FewerError(f"{source} is not an export of CVAT: its outermost element is {root.tag!r}, not 'annotations'")
    if root.find("track") is not None:
        raise FewerError(f"{source} holds the tracks of a video; export it from CVAT as 'CVAT for images 1.1'")
    drawn = []
    for image in root.iter("image"):
        tags = [tag.get("label") for tag in image.findall("tag")]
        if not tags and not any(child.tag in SHAPES for child in image):
            continue
        one = tags[0] if len(set(tags)) == 1 else None  # several are no one class
        drawn.append(DrawnImage(image.get("name", ""), _size(image), one))
    return drawn


def _size(image: Element) -> tuple[int, int] | None:
    try:
        return int(image.attrib["width"]), int(image.attrib["height"])
    except (KeyError, ValueError):
        return None
