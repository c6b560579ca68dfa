"""``fewer private``: encrypted inference. A server computes on images that it cannot see."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fewer.cli.flags import ModelFlags, Shared, cpu_only, given, refuse_for
from fewer.core.errors import FewerError

__all__ = ["compile_circuit", "private"]

_FAR = 0.05
"""Distance from the network, or share of other classes, from which on teaching is recommended."""

_OWNERS = {"server": "query", "host": "serve", "port": "serve", "out": "compile keys"}
"""Flags of other actions than ``compile``."""

Action = Literal["compile", "keys", "serve", "query"]


def private(
    action: Action,
    what: str,
    /,
    *files: str,
    images: str | None = None,
    degree: Annotated[int | None, Parameter(show_default=False)] = None,
    steps: Annotated[int | None, Parameter(show_default=False)] = None,
    budget: str | None = None,
    preset: str | None = None,
    server: str | None = None,
    host: str | None = None,
    port: Annotated[int | None, Parameter(show_default=False)] = None,
    of_model: ModelFlags | None = None,
    shared: Annotated[Shared | None, Parameter(name="*")] = None,
) -> int:
    """Encrypted inference: the server computes on images that it cannot see.

    fewer private compile MODEL --images FOLDER --out CIRCUIT    (the owner of the model)

    fewer private serve CIRCUIT    (the owner of the model)

    fewer private keys CIRCUIT/public.json --out KEYS    (the owner of the images; the secret key stays there)

    fewer private query KEYS IMAGE ... --server URL    (the owner of the images)

    Parameters
    ----------
    action
        compile, keys, serve or query.
    what
        The model, the circuit or the folder of keys.
    files
        Images of a query.
    images
        Folder of images that activations are fitted to.
    degree
        Of the polynomials that stand for activations: 2 or 4. [2]
    steps
        Of teaching the polynomial network what the network says; 0 leaves it as it was fitted. [0]
    budget
        Of a cheaper circuit: he=0.5x (time), rotations=80, levels=3; several with commas.
    preset
        joint: functions, diagonals and bits planned together for the budget, with what each does alone.
    server
        Address of the server, for a query. [http://127.0.0.1:8765]
    host
        Where to listen. Other machines can reach a server only when this is changed. [127.0.0.1]
    port
        Where to listen. [8765]
    """
    from fewer.cli.show import as_json, say_would
    from fewer.verbs import private as verbs

    shared = shared or Shared()
    cpu_only(shared)
    asked = {"images": images, "degree": degree, "steps": steps, "budget": budget, "preset": preset}
    asked |= {"server": server, "host": host, "port": port, "out": shared.out, **given(of_model)}
    refuse_for(f"fewer private {action}", dict.fromkeys(asked, "compile") | _OWNERS, asked)
    if files and action != "query":
        raise FewerError(f"fewer private {action} takes one word behind it; {files[0]!r} is too much")
    server, host, port = server or "http://127.0.0.1:8765", host or "127.0.0.1", 8765 if port is None else port
    if action in ("compile", "keys") and shared.out is None:
        raise FewerError(f"where to? fewer private {action} needs a folder: --out FOLDER")
    if action == "compile" and images is None:
        raise FewerError("activations are fitted to images; give a folder: --images FOLDER")
    if action == "query" and not files:
        raise FewerError("which images? fewer private query KEYS IMAGE ... --server URL")
    if shared.dry_run:
        told = {"serve": f" at {host}:{port}", "query": f", {len(files)} images, at {server}"}
        line = f"would {action} {what}" + told.get(action, f" and write {shared.out}")
        return say_would([line], shared.json, action=action, out=shared.out)
    if action == "compile":
        what = (of_model or ModelFlags()).spec(what)
        return compile_circuit(what, images or "", budget, shared, preset, degree=degree, steps=steps)
    if action == "keys":
        place = verbs.private_keys(what, shared.out or "")
        if shared.json:
            as_json({"keys": str(place)})
        else:
            print(f"keys in {place}; secret.key stays there, the other two go to the server with the first query")
        return 0
    if action == "serve":
        return _serve(what, host, port, shared.json)
    found = verbs.private_query(what, files, server)
    if shared.json:
        as_json(found)
    else:
        for row in found:
            print(f"{row['image']}: {_answer(row)} ({row['seconds']:.1f} s)")
    return 0


def compile_circuit(
    model: str, images: str, budget: str | None, shared: Shared, preset: str | None = None, **own: int | None
) -> int:
    """Make a circuit and tell what it is; values that are given go over those of a preset."""
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json
    from fewer.presets import preset_values
    from fewer.verbs.private import private_compile

    chosen = {"degree": 2, "steps": 0, **({} if preset is None else preset_values(preset, "private"))}
    chosen |= {name: value for name, value in own.items() if value is not None}
    steps = chosen["steps"]
    found = private_compile(
        model, images, shared.out or "", budget=budget, **chosen,
        seed=shared.seed or 0, overwrite=bool(shared.overwrite), progress=terminal_progress(),
    )  # fmt: skip
    if shared.json:
        as_json(found)
        return 0
    print(
        f"circuit in {found['circuit']}: {found['levels']} levels, ring of degree {found['ring']}, 128 bits of security"
    )
    for name, counts in found["operations"].items():
        print(f"  {name}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    if "cheaper" in found:
        done = found["cheaper"]
        kind = "predicted from operations timed here" if done["measured"] else "in ratios of no machine"
        costs = ", ".join(f"{m} {done['before'][m]:.0f} to {done['after'][m]:.0f}" for m in done["before"])
        print(f"for {budget}: {done['way']}; {costs} (he {kind})")
        for row in done.get("steps", []):
            told = "not alone" if row["ms"] is None else f"he {row['ms']:.0f}, distance {row['distance']:.3g}"
            print(f"  {row['name']}: {told}")
    if found["averaged"]:
        print(f"maximum pooling became an average at {', '.join(found['averaged'])}; teach it with --steps")
    if found["left_to_the_client"]:
        print(f"left to the client: {', '.join(found['left_to_the_client'])} at the end")
    for line in found["skipped"][:5]:
        print(f"skipped {line}")
    if len(found["skipped"]) > 5:
        print(f"skipped {len(found['skipped']) - 5} more files that cannot be read")
    apart = "that nothing was fitted to" if found["apart"] else "that it was fitted to, for there are few"
    if found["agreement"] is None:
        said = f"results differ from the network's by {found['distance']:.3g} (relative squared distance)"
    else:
        said = f"names the same class as the network on {found['agreement']:.1%}"
    print(f"{said}{' on' if found['agreement'] is None else ' of'} {found['images']} images {apart} (in the clear)")
    same = 1.0 if found["agreement"] is None else found["agreement"]
    if not steps and (found["distance"] > _FAR or same < 1 - _FAR):
        print("the polynomials are only fitted so far; --steps 400 teaches them what the network says, without labels")
    if found["agreement"] is not None:
        print(f"results differ from the network's by {found['distance']:.3g} (relative squared distance)")
    print(f"see {found['page']}")
    return 0


def _answer(row: dict[str, Any]) -> str:
    """The class, or the numbers where they name none."""
    if row["class"] is not None:
        return f"class {row['class']}"
    text = str(row["scores"])
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _serve(circuit: str, host: str, port: int, json: bool) -> int:
    from fewer.cli.show import say_address

    if not 0 < port < 65536:
        raise FewerError(f"a port lies between 1 and 65535; --port {port} does not")
    try:
        import uvicorn
    except ImportError:
        raise FewerError('a server needs uvicorn; run: pip install "fewer[private]"') from None
    from fewer.verbs.private import private_service

    # no logging of its own, for which it would close the streams that other libraries log to
    quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "log_config": None}
    config = uvicorn.Config(private_service(circuit), host=host, port=port, **quiet)
    say_address(host, port, f"serving {circuit}; Ctrl-C ends it", json)
    try:
        uvicorn.Server(config).run()
    except (SystemExit, UnicodeError):  # uvicorn ends the process where the port is taken
        raise FewerError(f"cannot listen at {host}:{port}; give another --port (or --host)") from None
    return 0
