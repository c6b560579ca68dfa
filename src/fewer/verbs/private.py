"""Private: encrypted inference with a trained network, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.progress import usual_progress

__all__ = ["private_compile", "private_keys", "private_query", "private_service"]

_TRIED = 4
"""Images that are encrypted, or simulated, for the page of a circuit."""

_ENCODED = 1_000_000_000
"""Bytes of encoded weights up to which a circuit is tried with encryption for its page, and on the simulator beyond."""

_FEW = 20
"""Images from which on some are kept apart."""

_JUDGED = 200
"""Images at most on which a circuit with a budget is held against its network, slot by slot."""


def private_compile(
    model: Any,
    images: Any,
    out: str | Path,
    *,
    degree: int = 2,
    steps: int = 0,
    budget: str | None = None,
    joint: bool = False,
    seed: int = 0,
    heldout: Any = 0.25,
    overwrite: bool = False,
    progress: Any = None,
) -> dict[str, Any]:
    """Make a circuit of a trained network and write it into a folder.

    Parameters
    ----------
    model
        Spec or module: linear operations and functions of each number, see
        :func:`~fewer.private.reading.read_network`.
    images
        Folder of images or a tensor [N, channels, height, width]; activations are fitted to them. Files that cannot be
        read are skipped.
    out
        The folder: ``circuit.npz`` for the server, ``public.json`` for clients, and the page ``circuit.html`` with what
        each layer costs, whose numbers are in ``circuit.json``.
    degree
        Of the polynomials that stand for activations, 2 or 4.
    steps
        Of teaching the polynomial network what the network says, on the images; 0 leaves it as it was fitted.
    budget
        ``he=0.5x`` of the time, ``rotations=80``, ``levels=3``, or several: a cheaper circuit, see
        :func:`~fewer.private.cheapen.cheapen`. Operations are timed for some seconds where TenSEAL is installed.
    joint
        Plan degrees of activations, diagonals and bits together for the budget, and tell what each of these steps does
        alone.
    seed
        Of that.
    heldout
        Share of the images that nothing is fitted to, and that say how near the circuit is to the network. Of fewer
        than 20 images, and with 0, it is said of those that it was fitted to. In place of a share it takes images, a
        tensor or :class:`~fewer.data.samples.Samples` as those of a run of :func:`fewer.compress`; nothing is fitted
        to them, nor to images that are the same or come from their files.
    overwrite
        Whether a circuit that is in the folder may be replaced; keys that were made for it are then of no use.
    progress
        Told how far it is; by default a bar in a terminal or a notebook.

    Returns
    -------
    dict
        Levels, ring, operations by layer; ``agreement``: how often both networks name the same class (None where
        results name none), ``distance`` of their results, the number of ``images`` that say so, and whether they are
        ``apart``; ``skipped`` files. With a budget also ``cheaper``: what was done, and costs before and after.

    Examples
    --------
    >>> import fewer
    >>> fewer.private_compile("fewer/mnist-cnn", "digits/", "circuit/")["levels"]  # doctest: +SKIP
    4
    """
    import torch

    from fewer.models.spec import load_untouched
    from fewer.private.cheapen import check_budget
    from fewer.private.folder import FACTS, PAGE, CircuitFolder
    from fewer.private.keys import save_circuit
    from fewer.private.polynomial import DEGREES

    if degree not in DEGREES:
        raise FewerError(f"polynomials have degree 2 or 4 so far, not {degree}")
    share = float(heldout) if isinstance(heldout, Real) else None
    if share is not None and not 0 <= share < 1:
        raise FewerError(f"the share of images that are kept apart lies from 0 to 1, not {heldout}")
    if steps < 0:
        raise FewerError(f"steps of teaching are 0 or more, not {steps}")
    if budget is not None:
        check_budget(budget)
    elif joint:
        raise FewerError("a joint plan is made for a budget; give one, for example he=0.5x")
    with CircuitFolder.create(out, overwrite=overwrite) as folder:
        loaded = load_untouched(model)
        loaded.model.eval()
        x, files, skipped = (images, [], []) if isinstance(images, torch.Tensor) else _images(images, loaded, seed)
        _check_images(x)
        told = progress or usual_progress()
        parts = _without(x, files, heldout) if share is None else _parts(x, share, seed)
        network, circuit, parameters, facts = _compiled(loaded, parts, degree, steps, (budget, joint), seed, told)
        facts["skipped"] = skipped
        fits = len(loaded.mean) == x.shape[1]  # a module of one's own says nothing of how its images are made
        mean, std = (loaded.mean, loaded.std) if fits else ((0.0,) * x.shape[1], (1.0,) * x.shape[1])
        page = _page(loaded.name, circuit, parameters, x, facts)
        pages = {PAGE: page.to_html(), FACTS: page.to_json()}
        more = {"interpolation": loaded.interpolation, "crop": loaded.crop} if fits else {}
        more |= {"answer": network.answer, "left": network.left}
        save_circuit(folder.path, circuit, parameters, loaded.name, mean, std, pages, **more)
    return {"circuit": str(out), "page": str(Path(out) / PAGE), **facts}


def _page(name: str, circuit: Any, parameters: Any, images: Any, facts: dict[str, Any]) -> Any:
    """The circuit on some of the images, in words and numbers."""
    from fewer.private.execute import weight_bytes
    from fewer.private.page import circuit_page
    from fewer.private.price import prices_here
    from fewer.private.trial import try_circuit

    # a server needs this memory, whoever compiles may not have it
    bytes_ = weight_bytes(circuit, parameters)
    trial = try_circuit(circuit, parameters, images[:_TRIED].numpy(), simulated=bytes_ > _ENCODED)
    facts["server_bytes"] = bytes_
    return circuit_page(name, circuit, parameters, prices_here(1.0)(parameters), trial, facts)


def _compiled(
    loaded: Any,
    parts: tuple[Any, Any],
    degree: int,
    steps: int,
    budget: tuple[str | None, bool],
    seed: int,
    progress: Any,
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """The network with polynomials, its circuit, parameters, and what is told of it."""
    from fewer.private.adapt import adapt, answers_of
    from fewer.private.compile import approximate_activations, pack_within
    from fewer.private.joint import said_by
    from fewer.private.left import names_of
    from fewer.private.reading import read_network
    from fewer.private.verdict import agreement

    x, judging = parts
    network = approximate_activations(read_network(loaded.model, x[:1]), x, degree)
    if steps:
        network = adapt(loaded.model, network, x, steps=steps, seed=seed, progress=progress)
    if budget[0] is None:
        circuit, parameters = pack_within(network, x)
        more: dict[str, Any] = {}
        said = network(judging).numpy()
    else:
        circuit, parameters, more = _cheaper(
            loaded.model, network, x, (budget[0], budget[1]), judging, steps, seed, progress
        )
        same = more.pop("network")
        said = same(judging).numpy() if same is not None else said_by(circuit, judging[:_JUDGED].numpy())
    wanted = answers_of(loaded.model, network, judging[: len(said)]).double().numpy()
    return (
        network,
        circuit,
        parameters,
        {
            "levels": circuit.levels,
            "ring": parameters.degree,
            "modulus_bits": sum(parameters.bits),
            "security": "128 bits",
            "ciphertexts": circuit.input_ciphertexts,
            "operations": {f"{i} {s.name}": s.counts() for i, s in enumerate(circuit.steps)},
            **agreement(said, wanted, network.answer, network.left),
            "images": len(said),
            "apart": judging is not x,
            "answer": list(network.answer),
            "left": [list(one) for one in network.left],
            "averaged": list(network.averaged),
            "left_to_the_client": names_of(network.left),
            **more,
        },
    )


def _parts(images: Any, heldout: float, seed: int) -> tuple[Any, Any]:
    """Images to fit to, in an order of their own, and those that judge; the same where there are few."""
    import torch

    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(images)))
    apart = int(len(images) * heldout) if len(images) >= _FEW else 0
    if not apart:
        return images, images
    return images[order[apart:]], images[order[:apart]]


def _without(images: Any, files: Sequence[Path], apart: Any) -> tuple[Any, Any]:
    """Images to fit to, which are none of those that judge and of no file of theirs, and the latter."""
    import torch

    judging = apart if isinstance(apart, torch.Tensor) else getattr(apart, "tensor", None)
    if judging is None or judging.shape[1:] != images.shape[1:]:
        raise FewerError("images that are kept apart are a tensor of the size that the network takes")
    names = {path.resolve() for path in getattr(apart, "files", ())}
    judging = judging.to(images.dtype)
    seen = {one.numpy().tobytes() for one in judging}
    known = [path.resolve() in names for path in files] if files else [False] * len(images)
    rows = [i for i, one in enumerate(images) if not known[i] and one.numpy().tobytes() not in seen]
    if not rows:
        raise FewerError("all images are kept apart to judge, and none is left that activations could be fitted to")
    return images[rows], judging


def _check_images(x: Any) -> None:
    """Refuse what is no batch of numbers."""
    import torch

    if not x.is_floating_point():
        raise FewerError(f"images are floating point as the network takes them; got {x.dtype}")
    if not len(x):
        raise FewerError("there are no images; activations are fitted to some")
    if not bool(torch.isfinite(x).all()):
        raise FewerError("the images hold NaN or infinite numbers; give them as the network takes them")


def _cheaper(
    model: Any,
    network: Any,
    images: Any,
    planned: tuple[str, bool],
    judging: Any,
    steps: int,
    seed: int,
    progress: Any,
) -> tuple[Any, Any, dict[str, Any]]:
    """A circuit within a budget, joint or not, its parameters, and what to report of it."""
    from dataclasses import asdict

    from fewer.private.cheapen import cheapen
    from fewer.private.price import prices_here

    budget, joint = planned
    prices = prices_here()
    found = cheapen(
        model, network, images, budget, prices=prices, steps=steps, seed=seed, joint=joint,
        apart=judging[:_JUDGED], progress=progress,
    )  # fmt: skip
    told = {
        "budget": budget,
        "way": found.name,
        "before": found.before,
        "after": found.after,
        "measured": prices(found.parameters).measured,
        "tried": [{"way": t.name, "cost": t.cost, "loss": t.loss} for t in found.tried],
        **({"steps": [asdict(row) for row in found.steps]} if joint else {}),
    }
    return found.circuit, found.parameters, {"cheaper": told, "network": found.network}


def private_keys(circuit: str | Path, out: str | Path) -> Path:
    """Make keys for a circuit; the secret one never leaves the folder.

    Parameters
    ----------
    circuit
        Folder of a circuit, or its ``public.json``.
    out
        New folder for the keys.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FewerError
        When there is no circuit, or the folder is not new.

    Examples
    --------
    >>> import fewer
    >>> fewer.private_keys("circuit/public.json", "keys/")  # doctest: +SKIP
    PosixPath('keys')
    """
    from fewer.private.keys import load_public, save_keys

    return save_keys(out, load_public(circuit))


def private_service(circuit: str | Path, limits: Any = None) -> Any:
    """The application that ``fewer private serve`` runs, for any ASGI server.

    Parameters
    ----------
    circuit
        Folder of a circuit.
    limits
        What the server takes at most, a :class:`~fewer.private.server.Limits`; by default those of its class.

    Returns
    -------
    FastAPI
        It holds weights and evaluation keys, and never sees an image.

    Raises
    ------
    FewerError
        When there is no circuit, or FastAPI is not installed.

    Examples
    --------
    >>> import fewer, uvicorn  # doctest: +SKIP
    >>> uvicorn.run(fewer.private_service("circuit/"), port=8765)  # doctest: +SKIP
    """
    from fewer.private.keys import load_circuit
    from fewer.private.server import Service, make_app

    return make_app(Service(*load_circuit(circuit), limits))


def private_query(
    keys: str | Path, images: Any, server: str | Callable[[str, bytes], bytes] = "http://127.0.0.1:8765"
) -> list[dict[str, Any]]:
    """Ask a server about images that it does not see.

    Parameters
    ----------
    keys
        Folder of :func:`private_keys`.
    images
        Image files, or arrays [channels, height, width] as the network takes them.
    server
        Its address, or a function that brings a message there.

    Returns
    -------
    list of dict
        ``image``, ``scores``, ``class`` and ``seconds`` of each. Scores are in the shape that the network gives them,
        behind a softmax or sigmoid that ends it; the class is None where they name none.

    Raises
    ------
    FewerError
        With the server's sentence when it refuses.

    Examples
    --------
    >>> import fewer
    >>> fewer.private_query("keys/", ["digits/3.png"])[0]["class"]  # doctest: +SKIP
    3
    """
    import time

    from fewer.data.decode import read_image, to_array
    from fewer.private.client import Query, over_http

    transport: Any = over_http(server) if isinstance(server, str) else server
    ask = Query(keys, transport)
    shape = ask.public.shape
    prepare = _preprocess(ask.public) if len(shape) == 3 else None
    if images is None or isinstance(images, (str, Path)):
        raise FewerError("images are a list of files or arrays; put a single one into a list")
    found = []
    for image in images:
        if hasattr(image, "__array__"):
            name, pixels = "", np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
        elif not isinstance(image, (str, Path)):
            raise FewerError(f"an image is a file or an array; got {type(image).__name__}")
        elif prepare is None:
            raise FewerError("this circuit takes vectors, not images; give arrays")
        else:
            try:
                name, pixels = str(image), np.asarray(to_array(read_image(image), prepare))
            except OSError as error:
                raise FewerError(f"the image {image} cannot be read: {error.strerror or error}") from error
        start = time.perf_counter()
        scores = ask(pixels)
        seconds = time.perf_counter() - start
        found.append({"image": name, **_told(scores, ask.public), "seconds": seconds})
    return found


def _told(results: np.ndarray, public: Any) -> dict[str, Any]:
    """Decrypted results as the network gives them, and the class that they name."""
    from fewer.private.left import after
    from fewer.private.verdict import decisions

    shape = public.answer or (1, len(results))
    decided = decisions(results[None], shape, public.left)
    named = None if decided is None or decided.size != 1 else int(decided[0, 0])
    return {"scores": after(results, shape, public.left).tolist(), "class": named}


def _preprocess(public: Any) -> Any:
    """From image file to input, as it was when the circuit was made."""
    from fewer.data.preprocess import Preprocess

    size, rest = public.shape, {"interpolation": public.interpolation, "crop": public.crop}
    return Preprocess(size, mean=public.mean, std=public.std, **rest)


def _images(folder: Any, loaded: Any, seed: int) -> tuple[Any, list[Path], list[str]]:
    """All images of a folder in an order of their own, their files, and those that could not be read."""
    from fewer.data.images import load_images

    found = load_images(folder, None, seed, loaded.preprocess)
    return found.tensor, [Path(file) for file in found.files], [f"{path.name}: {why}" for path, why in found.skipped]
