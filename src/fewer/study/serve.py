"""Run the server of a study: one at a time, on this machine alone unless told otherwise."""

from __future__ import annotations

from pathlib import Path

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
    folder: str | Path, *, host: str = "127.0.0.1", port: int = 8000, names: tuple[str, ...] = (), secure: bool = False
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

    Raises
    ------
    FewerError
        When another server has the study, or the port cannot be used.
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
        app = make_app(store, hosts=LOCAL | frozenset(names), secure=secure)
        config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)
        server = uvicorn.Server(config)
        try:
            server.run()
        except (SystemExit, UnicodeError):  # uvicorn ends the process where the port is taken
            raise FewerError(f"cannot listen on {host}:{port}; choose another --port") from None
    finally:
        home.close()
        store.close()
