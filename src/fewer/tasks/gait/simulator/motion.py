"""How a walker moves: the direction of every bone over one stride, as a Fourier series of the phase.

The series come from motion capture where a recording is given (:func:`recorded_gaits`), else from the angles of hips,
knees, ankles and arms that textbooks of gait analysis show (:func:`harmonic_gait`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["BONES", "Gait", "harmonic_gait", "own_gait", "recorded_gaits"]

HARMONICS = 5
BONES: tuple[tuple[str, str, str], ...] = (
    ("spine", "pelvis", "neck"),
    ("head", "neck", "head"),
    *((f"{s}_{b}", p.replace("*", s), f"{s}_{j}") for s in ("l", "r") for b, p, j in (
        ("clavicle", "neck", "shoulder"), ("arm", "*_shoulder", "elbow"), ("forearm", "*_elbow", "wrist"),
        ("pelvis", "pelvis", "hip"), ("thigh", "*_hip", "knee"), ("shank", "*_knee", "ankle"),
        ("foot", "*_ankle", "toe"),
    )),
)  # fmt: skip
"""Name, parent joint and joint of every bone."""

_MARKS = {
    "pelvis": "PELO", "neck": "TRXO", "head": "HEDO", "l_shoulder": "LHUP", "l_elbow": "LHUO", "l_wrist": "LRAO",
    "r_shoulder": "RHUP", "r_elbow": "RHUO", "r_wrist": "RRAO", "l_hip": "LFEP", "l_knee": "LFEO", "l_ankle": "LTIO",
    "l_toe": "LTOO", "r_hip": "RFEP", "r_knee": "RFEO", "r_ankle": "RTIO", "r_toe": "RTOO",
}  # fmt: skip
_LEAST_STRIDES = 1.0


@dataclass(frozen=True, eq=False)
class Gait:
    """A way to walk.

    Attributes
    ----------
    series
        Shape (bones, 3, 1 + 2 * harmonics): mean, then cosine and sine of each multiple of the phase, of the direction
        of each bone. x is ahead, y to the left, z up; at phase 0 the left foot is farthest ahead.
    stride
        Seconds of a stride (two steps).
    """

    series: np.ndarray
    stride: float

    def directions(self, phase: np.ndarray) -> np.ndarray:
        """Unit directions (frames, bones, 3) at phases in radians."""
        found = np.einsum("th,bxh->tbx", waves(phase, (self.series.shape[2] - 1) // 2), self.series)
        return found / np.maximum(np.linalg.norm(found, axis=2, keepdims=True), 1e-6)


def waves(phase: np.ndarray, harmonics: int = HARMONICS) -> np.ndarray:
    """One, then cosine and sine of multiples of the phase, (frames, 1 + 2 * harmonics).

    Examples
    --------
    >>> waves(np.array([0.0]), 1).tolist()
    [[1.0, 1.0, 0.0]]
    """
    k = np.arange(1, harmonics + 1)
    both = np.stack([np.cos(phase[:, None] * k), np.sin(phase[:, None] * k)], 2)
    return np.concatenate([np.ones((len(phase), 1)), both.reshape(len(phase), -1)], 1)


def harmonic_gait(stride: float = 1.1) -> Gait:
    """A walk from angles: hips swing 25 degrees to either side, knees bend at toe-off, arms swing against legs."""
    phase = np.arange(128) * 2 * np.pi / 128
    directions = {"spine": _lean(0.06 + 0.02 * np.cos(2 * phase)), "head": _lean(0.1 + 0 * phase)}
    for side, sign, shift in (("l", 1.0, 0.0), ("r", -1.0, np.pi)):
        p = phase - shift
        hip = 0.15 + 0.42 * np.cos(p) - 0.05 * np.cos(2 * p)
        knee = 0.35 + 0.30 * np.cos(p - 5.2) + 0.22 * np.cos(2 * p - 4.1)
        ankle = 0.05 * np.cos(p - 1.0) - 0.13 * np.cos(2 * p - 2.2)
        shank = hip - np.maximum(knee, 0.02)
        out = np.full_like(p, 0.04 * sign)
        directions[f"{side}_thigh"] = np.stack([np.sin(hip), out, -np.cos(hip)], 1)
        directions[f"{side}_shank"] = np.stack([np.sin(shank), 0.3 * out, -np.cos(shank)], 1)
        toe = shank + ankle
        directions[f"{side}_foot"] = np.stack([np.cos(toe), out, np.sin(toe) - 0.15], 1)
        swing = -0.38 * np.cos(p) - 0.08
        elbow = swing + 0.3 + 0.15 * np.cos(p + np.pi)
        directions[f"{side}_arm"] = np.stack([np.sin(swing), 3 * out, -np.cos(swing)], 1)
        directions[f"{side}_forearm"] = np.stack([np.sin(elbow), out, -np.cos(elbow)], 1)
        turn, drop = 0.08 * np.cos(phase) * sign, 0.05 * np.cos(phase + 0.6) * sign
        directions[f"{side}_pelvis"] = np.stack([turn, sign * np.ones_like(p), drop - 0.1], 1)
        directions[f"{side}_clavicle"] = np.stack([-0.7 * turn, sign * np.ones_like(p), 0.1 - 0.4 * drop], 1)
    return Gait(_fit(phase, np.stack([directions[name] for name, _, _ in BONES], 1)), stride)


def _lean(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], 1)


def _fit(phase: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Series of directions (frames, bones, 3) by least squares; frames with NaN are left out, bone by bone."""
    basis = waves(phase)
    series = np.zeros((directions.shape[1], 3, basis.shape[1]))
    for bone in range(directions.shape[1]):
        known = np.isfinite(directions[:, bone]).all(1)
        if known.sum() < 2 * basis.shape[1]:
            raise FewerError("too few frames of a bone")
        unit = directions[known, bone]
        unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
        # a little weight decay: a stride that was recorded once only must not ring
        left = basis[known].T @ basis[known] + 1e-3 * known.sum() * np.eye(basis.shape[1])
        series[bone] = np.linalg.solve(left, basis[known].T @ unit).T
    return series


def recorded_gaits(path: str | Path) -> dict[str, Gait]:
    """Gaits of a motion capture file.

    Parameters
    ----------
    path
        npz with ``joint_names``, ``rate_hz`` and ``SUBJECT_straight_joints`` (frames, joints, 3): somebody who walks
        straight ahead, z up, in any unit, NaN where a joint is missing. Joints have the names of :data:`BONES`
        (``pelvis``, ``l_hip``, ``r_toe``), or are the end points of the segments of the Plug-in Gait model.

    Returns
    -------
    dict
        By subject; those of whom too little is known are left out.

    Raises
    ------
    FewerError
        When the file cannot be read, or nobody of it can be used.
    """
    found: dict[str, Gait] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            names, rate = [str(n) for n in file["joint_names"]], float(file["rate_hz"])
            joints = {k: file[k] for k in file.files if k.endswith("_straight_joints")}
    except (OSError, ValueError, KeyError) as error:
        raise FewerError(f"{path} cannot be read as motion capture ({type(error).__name__}: {error})") from None
    if not (np.isfinite(rate) and rate > 0):
        raise FewerError(f"{path} has a rate of {rate:g} frames a second; rate_hz must be more than 0")
    rows = {joint: _row(names, joint, str(path)) for joint in _MARKS}
    reason = "its arrays must be called SUBJECT_straight_joints"
    for key, values in sorted(joints.items()):
        subject = key.removesuffix("_straight_joints")
        try:
            found[subject] = _recorded(values, rows, rate)
        except FewerError as error:
            reason = f"of {subject}, {error}"
    if not found:
        raise FewerError(f"{path} holds no walk that can be used: {reason}")
    return found


def _row(names: list[str], joint: str, path: str) -> int:
    """Where a joint stands, by its own name or that of Plug-in Gait."""
    for name in (joint, _MARKS[joint]):
        if name in names:
            return names.index(name)
    raise FewerError(f"{path} lacks the joint {joint} ({_MARKS[joint]} of Plug-in Gait) in its joint_names")


def _recorded(values: np.ndarray, rows: dict[str, int], rate: float) -> Gait:
    shaped = values.ndim == 3 and values.shape[1] > max(rows.values()) and values.shape[2] == 3
    if not shaped or values.dtype.kind not in "fiu":
        raise FewerError(f"the array has shape {values.shape}, not (frames, joints, 3)")
    values = values.astype(float)
    pelvis = values[:, rows["pelvis"]]
    known = np.flatnonzero(np.isfinite(pelvis[:, 0]))
    if len(known) < 20:
        raise FewerError("too few frames")
    trunk = (values[:, rows["neck"]] - pelvis)[known]
    trunk = trunk[np.isfinite(trunk).all(1)]
    if not len(trunk) or trunk[:, 2].mean() < 0.5 * np.linalg.norm(trunk, axis=1).mean():
        raise FewerError("the trunk does not stand upright along z; turn the joints so that z is up")
    # turn the walk so that it goes along x; up is z
    way = pelvis[known[-1], :2] - pelvis[known[0], :2]
    angle = np.arctan2(way[1], way[0])
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    values = values @ turn.T
    gap = values[:, rows["l_ankle"], 0] - values[:, rows["r_ankle"], 0]
    there = np.flatnonzero(np.isfinite(gap))
    stride, offset = _period(there / rate, gap[there] - gap[there].mean())
    if not 0.81 < stride < 1.58 or (there[-1] - there[0]) / rate < _LEAST_STRIDES * stride:
        raise FewerError("no stride, or less than one")
    phase = 2 * np.pi * np.arange(len(values)) / rate / stride + offset
    bones = [values[:, rows[joint]] - values[:, rows[parent]] for _, parent, joint in BONES]
    return Gait(_fit(phase, np.stack(bones, 1)), stride)


def _period(time: np.ndarray, signal: np.ndarray) -> tuple[float, float]:
    """Stride and phase offset of the distance between the feet: the sine that fits best."""
    best = (np.inf, 1.0, 0.0)
    for stride in np.arange(0.8, 1.6, 0.01):
        basis = np.stack([np.cos(2 * np.pi * time / stride), np.sin(2 * np.pi * time / stride)], 1)
        weights, *_ = np.linalg.lstsq(basis, signal, rcond=None)
        error = float(((basis @ weights - signal) ** 2).mean())
        best = min(best, (error, float(stride), float(np.arctan2(-weights[1], weights[0]))))
    return best[1], best[2]


def own_gait(gaits: list[Gait], rng: np.random.Generator, spread: float = 0.15) -> Gait:
    """The walk of one simulated person: two gaits mixed, amplitudes of its own, left a little unlike right.

    Parameters
    ----------
    gaits
        To choose from.
    rng
        Of the person.
    spread
        Standard deviation of amplitudes between persons.
    """
    first, second = (gaits[int(i)] for i in rng.choice(len(gaits), 2))
    share = float(rng.beta(0.6, 0.6))
    series = share * first.series + (1 - share) * second.series
    k = series.shape[2]
    swing = np.ones(k)
    swing[1:] = np.repeat(np.clip(rng.normal(1, spread, (k - 1) // 2), 0.4, 1.8), 2)
    # one factor a kind of bone, another a side
    kinds = {name.split("_")[-1]: float(np.clip(rng.normal(1, spread), 0.5, 1.6)) for name, _, _ in BONES}
    made = series.copy()
    for bone, (name, _, _) in enumerate(BONES):
        side = float(rng.normal(1, 0.3 * spread))
        made[bone, :, 1:] *= swing[1:] * kinds[name.split("_")[-1]] * side
        made[bone, :, 0] += rng.normal(0, 0.2 * spread, 3)
    return Gait(made, float(np.clip(rng.normal(1.08, 0.08), 0.9, 1.3)))
