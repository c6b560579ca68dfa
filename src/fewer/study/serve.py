"""Run the server of a study: one at a time, on this machine alone unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fewer.core.errors import FewerError
from fewer.study.folder import StudyFolder
from fewer.study.store import Store

__all__ = ["need_packages", "serve"]


def need_packages() -> None:
    """Raise a sentence with the fix where the server's packages are missing.

    Raises
    ------
    FewerError
        When FastAPI, uvicorn or python-multipart is not installed.
    """
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise FewerError(f'the study server needs {error.name}; run: pip install "fewer[study]"') from None


def serve(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    names: tuple[str, ...] = (),
    secure: bool = False,
    images: str | Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve a study until Ctrl-C.

    Parameters
    ----------
    folder
        Of the study.
    host, port
        Where to listen. Anything but 127.0.0.1 or ::1 makes the study visible to others; give the names by which they
        call it, and put a server with HTTPS in front.
    names
        Host names that browsers may use, besides those of this machine.
    secure
        HTTPS is in front.
    images
        Where the photos lie now, when they were moved; the study remembers it.
    tell
        Is told the address, and when photos are not there any more.

    Raises
    ------
    FewerError
        When another server has the study, no photo is there any more, or the port cannot be used.
    """
    need_packages()
    import uvicorn

    from fewer.study.app import LOCAL, make_app

    if not 1 <= port <= 65535:
        raise FewerError(f"the port is {port}; it must be between 1 and 65535")
    store = Store(folder)
    if host not in LOCAL and not names:
        raise FewerError(f"to listen on {host}, say by which name browsers call this server: --name study.example.org")
    home = StudyFolder(folder)
    home.hold()
    try:
        _look_at_photos(store, images, tell)
        app = make_app(store, hosts=LOCAL | frozenset(map(_host, names)), secure=secure)
        # no logging of its own, for which it would close the streams that other libraries log to
        quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "log_config": None}
        config = uvicorn.Config(app, host=host, port=port, server_header=False, **quiet)
        server = uvicorn.Server(config)
        tell(f"http://{f'[{host}]' if ':' in host else host}:{port}/  (Ctrl-C stops; nothing is lost)")
        try:
            server.run()
        except (SystemExit, UnicodeError):  # uvicorn ends the process where the port is taken
            raise FewerError(f"cannot listen on {host}:{port}; choose another --port") from None
    finally:
        home.close()
        store.close()


def _look_at_photos(store: Store, images: str | Path | None, tell: Callable[[str], None]) -> None:
    """Raise a :class:`FewerError` where raters would see nothing, and say how many photos are gone."""
    if images is not None:
        store.move_images(Path(images))
    count, gone = store.absent()
    if len(gone) == count:
        raise FewerError(
            f"none of the {count} photos of this study is in {store.images} any more; say where they are: "
            "--images FOLDER"
        )
    if gone:
        tell(f"{len(gone)} of {count} photos are not in {store.images} any more, such as {gone[0]}; put them back")


def _host(name: str) -> str:
    """The name of a machine in what someone may call its name: with capitals, a port, or as an address."""
    try:
        found = urlsplit(name if "//" in name else f"//{name}").hostname
    except ValueError:
        found = None
    if not found:
        raise FewerError(f"--name {name} is no name of a machine; give one like study.example.org")
    return found
