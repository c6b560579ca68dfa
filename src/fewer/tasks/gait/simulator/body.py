"""What a walker is built like: lengths of bones, thickness of limbs, and what is worn and carried."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fewer.tasks.gait.simulator.motion import BONES

__all__ = ["Body", "Capsules", "capsules", "joints_of", "own_body"]

_LENGTHS = {  # shares of the height
    "spine": 0.29, "head": 0.13, "clavicle": 0.115, "arm": 0.172, "forearm": 0.157, "pelvis": 0.055, "thigh": 0.245,
    "shank": 0.246, "foot": 0.105,
}  # fmt: skip
_RADII = {  # shares of the height
    "torso": 0.075, "waist": 0.068, "hips": 0.062, "head": 0.055, "arm": 0.027, "wrist": 0.019, "thigh": 0.048,
    "knee": 0.032, "ankle": 0.023, "toe": 0.018,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Body:
    """Lengths and radii in metres.

    Attributes
    ----------
    height
        Of the person.
    lengths, radii
        By kind of bone and by place.
    coat
        How far a coat stands off; 0 without one.
    bag
        ``""``, ``hand`` or ``back``.
    """

    height: float
    lengths: dict[str, float]
    radii: dict[str, float]
    coat: float = 0.0
    bag: str = ""

    def wearing(self, coat: float) -> Body:
        """In a coat that stands off so many metres."""
        return replace(self, coat=coat)

    def carrying(self, bag: str) -> Body:
        """With a bag in the hand or on the back."""
        return replace(self, bag=bag)


def own_body(rng: np.random.Generator | None = None, spread: float = 1.0) -> Body:
    """A body; the average one without a generator.

    Examples
    --------
    >>> own_body().height
    1.7
    """
    draw = (lambda deviation: 1.0) if rng is None else (lambda d: float(np.clip(rng.normal(1, spread * d), 0.6, 1.5)))
    height = 1.7 * draw(0.05)
    stout = draw(0.12)
    lengths = {name: share * height * draw(0.04) for name, share in _LENGTHS.items()}
    radii = {name: share * height * (1.0 if name == "head" else stout) * draw(0.06) for name, share in _RADII.items()}
    return Body(height, lengths, radii)


def joints_of(body: Body, directions: np.ndarray) -> dict[str, np.ndarray]:
    """Places of joints (frames, 3): the pelvis over the origin, the lowest foot on the ground."""
    found = {"pelvis": np.zeros((len(directions), 3))}
    for bone, (name, parent, joint) in enumerate(BONES):
        found[joint] = found[parent] + directions[:, bone] * body.lengths[name.split("_")[-1]]
    low = np.min([found[f"{s}_{j}"][:, 2] - body.radii["ankle"] for s in "lr" for j in ("ankle", "toe")], axis=0)
    for joint in found:
        found[joint] = found[joint] - np.stack([0 * low, 0 * low, low], 1)
    return found


@dataclass(frozen=True, eq=False)
class Capsules:
    """Round cones: ends (frames, capsules, 3) and radii (capsules,) at each end."""

    first: np.ndarray
    last: np.ndarray
    first_radius: np.ndarray
    last_radius: np.ndarray


def capsules(body: Body, joints: dict[str, np.ndarray], swing: np.ndarray) -> Capsules:
    """The body as round cones.

    Parameters
    ----------
    body, joints
        Of the person.
    swing
        How far the bag hangs ahead in each frame, metres.
    """
    radii, coat = body.radii, body.coat
    parts: list[tuple[np.ndarray, np.ndarray, float, float]] = []
    neck, pelvis = joints["neck"], joints["pelvis"]
    middle = 0.5 * (neck + pelvis)
    for side in "lr":
        out = 0.55 * (joints[f"{side}_shoulder"] - neck)
        hip = joints[f"{side}_hip"]
        parts += [
            (neck + out - [0, 0, 0.04], middle + 0.6 * out, radii["torso"] + coat, radii["waist"] + coat),
            (middle + 0.6 * out, hip, radii["waist"] + coat, radii["hips"] + coat),
            (joints[f"{side}_shoulder"], joints[f"{side}_elbow"], radii["arm"] + 0.6 * coat, radii["arm"] + 0.6 * coat),
            (joints[f"{side}_elbow"], joints[f"{side}_wrist"], radii["arm"] + 0.6 * coat, radii["wrist"]),
            (hip, joints[f"{side}_knee"], radii["thigh"] + 0.5 * coat, radii["knee"]),
            (joints[f"{side}_knee"], joints[f"{side}_ankle"], radii["knee"], radii["ankle"]),
            (joints[f"{side}_ankle"], joints[f"{side}_toe"], radii["ankle"], radii["toe"]),
        ]
        if coat:  # its tails hang down to the middle of the thigh and follow it
            knee = joints[f"{side}_knee"]
            parts.append((hip, hip + 0.55 * (knee - hip), radii["hips"] + 1.2 * coat, radii["thigh"] + 1.4 * coat))
    parts.append((joints["l_shoulder"], joints["r_shoulder"], radii["arm"] + 0.8 * coat, radii["arm"] + 0.8 * coat))
    top = joints["head"]
    crown = top + np.array([0, 0, 0.03])
    parts += [(neck, top, 0.6 * radii["head"], radii["head"]), (top, crown, radii["head"], radii["head"])]
    if body.bag == "hand":
        hand = joints["r_wrist"] + np.stack([swing, 0 * swing, -0.12 + 0 * swing], 1)
        parts.append((hand, hand + np.stack([swing, 0 * swing, -0.16 + 0 * swing], 1), 0.08, 0.12))
    elif body.bag == "back":
        back = 0.5 * (neck + middle) - np.stack([0.17 + 0.2 * swing, 0 * swing, 0 * swing], 1)
        parts.append((back, back - [0.02, 0, 0.22], 0.13, 0.15))
    return Capsules(
        np.stack([p[0] for p in parts], 1),
        np.stack([p[1] for p in parts], 1),
        np.array([p[2] for p in parts]),
        np.array([p[3] for p in parts]),
    )
