"""The page of ``fewer demo private``: what each layer costs, noise along the depth, and answers side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewer.private.demo_run import BUDGET, Outcome
from fewer.private.page import layers_table, noise_section, ways_table
from fewer.reports.page import Page, Picture, Section, Table, Tile, png_text

__all__ = ["demo_page"]


def demo_page(o: Outcome, command: str) -> Page:
    """Everything on one page; what is modelled or simulated is called so."""
    n, seal = o.numbers(), o.trial.encrypted
    shown = f"{len(o.labels)} digits that trained nothing"
    where = "encrypted" if seal else "simulated"
    tiles = [
        Tile(name="digits right, network", value=f"{n['network']:.1%}", note="in the clear, 500 held-out digits"),
        Tile(name="squares in place of ReLU", value=f"{n['taught']:.1%}", note=f"{n['fitted']:.1%} before teaching"),
        Tile(name=f"right, {where}", value=f"{n['encrypted_right']:.1%}", note=shown),
        Tile(name=f"right, {where}, {BUDGET}", value=f"{n['encrypted_right_cheap']:.1%}", note=shown),
    ]
    if seal:
        tiles.append(
            Tile(
                name="time of one image", value=f"{n['ms']:.0f} ms", note="processor time of one thread, measured here"
            )
        )
        tiles.append(Tile(name=f"time at {BUDGET}", value=f"{n['ms_cheap']:.0f} ms", note=n["way"]))
    same = "the same class as the same circuit in the clear"
    told = f"{n['same_class']:.0%} of {len(o.labels)} images get {same}"
    return Page(
        title="A network that does not see its images",
        badge="encrypted" if seal else "simulated",
        good=n["same_class"] == 1.0 and n["encrypted_right"] > 0.9,
        sentence=f"{told}; results differ by at most {n['difference']:.1g}."
        if seal
        else f"Nothing was encrypted, as TenSEAL is not installed. On the simulator, {told}.",
        tiles=tiles,
        sections=[
            _accuracy(o),
            _layers(o, seal),
            _cheaper(o),
            noise_section(o.trial.depths, seal),
            _answers(o, where),
            _security(o, seal),
            Section(name="reproduce", title="How to get these numbers again", command=command),
        ],
        data=n,
    )


def _accuracy(o: Outcome) -> Section:
    n = o.numbers()
    rows = [
        ["network, as trained", f"{n['network']:.1%}", "500"],
        ["squares fitted to ReLU", f"{n['fitted']:.1%}", "500"],
        ["squares, taught what the network says", f"{n['taught']:.1%}", "500"],
        [f"circuit at {BUDGET}, in the clear", f"{n['cheap']:.1%}", "500"],
        ["whole circuit, decrypted", f"{n['encrypted_right']:.1%}", str(n["images"])],
        [f"circuit at {BUDGET}, decrypted", f"{n['encrypted_right_cheap']:.1%}", str(n["images"])],
    ]
    return Section(
        name="accuracy",
        title="Digits that are named right",
        tables=[Table(head=["what names them", "right", "held-out digits"], rows=rows)],
        words=["Real digits of scikit-learn, 8 x 8 pixels. Teaching used no label. One seed."],
    )


def _layers(o: Outcome, seal: bool) -> Section:
    return Section(
        name="layers",
        title="What each layer costs",
        tables=[
            layers_table("Whole network", o.circuit, o.prices[o.parameters.degree], o.trial),
            layers_table(f"At {BUDGET}", o.cheap.circuit, o.prices[o.cheap.parameters.degree], o.cheap_trial),
        ],
        words=[
            "Measured: processor time of one thread, the median over the images. Predicted: operations times what each "
            "of them took in a calibration of some seconds before."
            if seal
            else "Predicted times are ratios that stand for no machine, as no back end was installed to be timed."
        ],
    )


def _cheaper(o: Outcome) -> Section:
    return Section(
        name="budget",
        title=f"Ways to meet {BUDGET}",
        tables=[ways_table(o.cheap.tried)],
        words=[
            "An activation that goes saves a level: the linear layers around it become one, and all that comes before "
            f"costs less. Chosen: {o.cheap.name}. The loss is the distance from the network's own results."
        ],
    )


def _answers(o: Outcome, where: str) -> Section:
    head = ["digit", "network", "circuit in the clear", where, f"{where}, {BUDGET}", "largest difference"]
    gaps = np.abs(o.trial.scores - o.trial.clear).max(1)
    columns = (o.labels, o.said, o.trial.clear.argmax(1), o.trial.scores.argmax(1), o.cheap_trial.scores.argmax(1))
    rows = [[*(str(int(column[i])) for column in columns), f"{gaps[i]:.1e}"] for i in range(min(12, len(o.labels)))]
    strip = np.concatenate([_large(image) for image in o.images[: len(rows)]], axis=1)
    return Section(
        name="answers",
        title="Answers side by side",
        pictures=[Picture(caption="the images, in order; the server had their ciphertexts", png=png_text(strip))],
        tables=[Table(head=head, rows=rows)],
    )


def _large(image: np.ndarray) -> np.ndarray:
    grey = np.kron(np.pad(image[0], 1), np.ones((6, 6))) * 255
    return np.repeat(255 - grey[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def _security(o: Outcome, seal: bool) -> Section:
    p, q = o.parameters, o.cheap.parameters
    facts: Any = {
        "parameters": {
            "security": "128 bits, classical, by the table of the Homomorphic Encryption Standard",
            "ring, whole network": f"degree {p.degree}, modulus of {sum(p.bits)} bits, {p.levels} levels",
            f"ring at {BUDGET}": f"degree {q.degree}, modulus of {sum(q.bits)} bits, {q.levels} levels",
            "sent for one image": f"{o.trial.query_bytes / 1e6:.2f} MB" if seal else "not encrypted",
            "answer": f"{o.trial.answer_bytes / 1e6:.2f} MB" if seal else "not encrypted",
        }
    }
    points = [
        "The security level follows from the ring and the modulus. The library SEAL enforces the same table."
        if seal
        else "The simulator hides nothing: it computes in the clear, and its noise is modelled.",
        "Modelled: the lower line of noise, and predicted milliseconds. Measured: everything else.",
        "Both parties run in one process here. The evaluator has no secret key; that a client sends none is a test of "
        "fewer private serve and query.",
        "Encryption hides the image and the answer from the server. It does not prove that this network was run.",
    ]
    return Section(name="security", title="What is safe, and what is modelled", facts=facts, points=points)
