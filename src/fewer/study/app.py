"""The pages of a study, as a FastAPI application over its store."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Form, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response

from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.data.decode import open_image, read_image
from fewer.reports.templating import template_environment
from fewer.study.answers import read_answer
from fewer.study.export import rater_data
from fewer.study.guard import HEADERS, Limit, host_allowed, origin_allowed
from fewer.study.owner import owner_page
from fewer.study.store import Item, Rater, Store
from fewer.study.vocabulary import ASPECTS, LEVELS

__all__ = ["LOCAL", "make_app"]

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
"""Host names that a server on this machine answers to."""

_STATIC = {"study.js": "text/javascript", "study.css": "text/css"}
_LARGEST = 64 * 1024  # bytes of a form; a feedback has less than one thousand
_SHOWN = {"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "BMP": "image/bmp"}
"""What browsers show as it is, by what a file is and not by its ending."""


class _Pages:
    """Handlers; every one that reads or writes the store is a plain function, which the server runs in a thread."""

    def __init__(self, store: Store, secure: bool) -> None:
        self.store, self.secure = store, secure
        self.templates = template_environment("fewer.study")
        self.limit = Limit(store.settings.requests_per_minute)
        # browsers keep cookies by the name of a machine alone, and images by the address of a server
        self.key = store.key
        self.cookie = f"fewer_study_{self.key}"
        self.logins = Limit(20)

    def page(self, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A template as a response."""
        text = self.templates.get_template(f"{name}.html.j2").render(
            title=self.store.settings.title, key=self.key, **values
        )
        return HTMLResponse(text, status)

    def error(self, sentence: str, status: int) -> HTMLResponse:
        """One sentence."""
        return self.page("message", status, heading="That did not work", sentence=sentence)

    def who(self, request: Request) -> tuple[Rater, str] | None:
        """Rater and CSRF token of a request."""
        token = request.cookies.get(self.cookie, "")
        return self.store.session(token) if token else None

    def checked(self, request: Request, csrf: str) -> Rater:
        """The rater of a form that came from one of our own pages.

        Raises
        ------
        _Refused
            For all others.
        """
        found = self.who(request)
        if found is None:
            raise _Refused("you are not logged in any more; log in and send it again", 401)
        if not hmac.compare_digest(found[1].encode(), csrf.encode()):
            raise _Refused("this form is not from your session; go back and load the page again", 403)
        if not self.limit.allows(f"rater {found[0].id}"):
            raise _Refused("too many requests in a minute; wait a little and send it again", 429)
        return found[0]

    def login(self, request: Request, code: Annotated[str, Form(max_length=100)] = "") -> Response:
        """Start a session."""
        client = request.client.host if request.client else ""
        # wrong codes are counted, right ones are not: a laboratory of fifty people has one address
        if not self.logins.open(client):
            return self.error("too many attempts; wait a minute", 429)
        made = self.store.login(code)
        if made is None:
            self.logins.allows(client)
            return self.page("login", 403, problem="This code is not known. Look at your invitation again.")
        response = _go("/next")
        how: dict[str, Any] = {"httponly": True, "samesite": "strict", "secure": self.secure}
        response.set_cookie(self.cookie, made[0], max_age=7 * 86400, **how)
        return response

    def start(self, request: Request) -> Response:
        """The login, or where the rater is."""
        return self.page("login", problem="") if self.who(request) is None else _go("/next")

    def next(self, request: Request) -> Response:
        """What comes next for a rater: training, a pause, a question, or the end."""
        found = self.who(request)
        if found is None:
            return _go("/")
        rater, csrf = found
        if rater.owner:
            return _go("/owner")
        references = self.store.rows("SELECT id, gold, advice FROM images WHERE training = 1 ORDER BY id")
        if rater.trained < len(references):
            return self.training(rater, csrf, references)
        done, total = self.store.progress(rater.id)
        now = self.store.clock()
        if rater.paused_until > now and done < total:
            wait = int(rater.paused_until - now) + 1
            return self.page("pause", csrf=csrf, wait=wait, done=done, total=total)
        item = self.store.item(rater.id)
        if item is None:
            return self.page("done", csrf=csrf, done=done, rater=rater.name)
        return self.question(rater, csrf, item, done, total)

    def training(self, rater: Rater, csrf: str, references: list[Any], problem: str = "") -> Response:
        """A reference image."""
        row = references[rater.trained]
        facts = {"image": row["id"], "step": rater.trained + 1, "steps": len(references)}
        return self.page("training", csrf=csrf, levels=LEVELS, aspects=ASPECTS, problem=problem, **facts)

    def trained(
        self,
        request: Request,
        csrf: Annotated[str, Form()] = "",
        step: Annotated[int, Form()] = 0,
        level: Annotated[int, Form()] = 0,
    ) -> Response:
        """The answer to a reference image: further off than one level shows what most people say."""
        rater = self.checked(request, csrf)
        references = self.store.rows("SELECT id, gold, advice FROM images WHERE training = 1 ORDER BY id")
        if step == rater.trained + 1 and step <= len(references) and 1 <= level <= 5:
            row = references[rater.trained]
            if abs(level - row["gold"]) > 1:
                return self.training(rater, csrf, references, row["advice"])
            self.store.train(rater.id, step)
        return _go("/next")

    def question(self, rater: Rater, csrf: str, item: Item, done: int, total: int, problem: str = "") -> HTMLResponse:
        """The form of an item."""
        settings = self.store.settings
        score = item.score if settings.show_score and item.form == "pathway" else None
        warn = settings.warn_after <= rater.in_a_row < settings.pause_after
        left = settings.pause_after - rater.in_a_row
        facts = {"item": item, "done": done, "total": total, "score": score, "warn": warn, "left": left}
        return self.page(
            "question", 422 if problem else 200, csrf=csrf, levels=LEVELS, aspects=ASPECTS, problem=problem, **facts
        )

    def answer(
        self,
        request: Request,
        csrf: Annotated[str, Form()] = "",
        item: Annotated[int, Form()] = 0,
        description: Annotated[str, Form()] = "",
        conclusion: Annotated[str, Form()] = "",
        choice: Annotated[str, Form()] = "",
        seconds: Annotated[str, Form()] = "",
    ) -> Response:
        """Keep an answer; the redirect is the receipt, and comes after the answer is on the disk."""
        rater = self.checked(request, csrf)
        found = self.store.item(rater.id, item)
        if found is None:
            return self.error("this question is not one of yours; go back to the start page", 404)
        values = {"description": description, "conclusion": conclusion, "choice": choice}
        try:
            kept, took = read_answer(found.form, values, seconds)
        except FewerError as error:
            done, total = self.store.progress(rater.id)
            return self.question(rater, csrf, found, done, total, str(error))
        try:
            self.store.submit(rater.id, item, kept, took)
        except FewerError as error:
            return self.error(str(error), 409)
        return _go("/next")

    def image(self, request: Request, image: int) -> Response:
        """The file of an image, unchanged where browsers show it so; a rater can ask for what they are shown alone."""
        found = self.who(request)
        name = self.store.may_see(found[0], image) if found else None
        if name is None:
            return self.error("there is no such image for you", 404)
        root = real_path(self.store.folder if name.startswith(":") else self.store.images)
        path = real_path(root / name.removeprefix(":"))
        if root not in path.parents or not path.is_file():
            return self.error(f"the image {Path(name).name} is not there any more; tell the owner of the study", 404)
        try:
            with open_image(path) as opened:
                frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)  # of MPO the first one shows
                plain = opened.mode in ("L", "RGB", "P", "RGBA", "1") and frames == 1 and not _turned(opened)
                kind = _SHOWN.get(opened.format or "") if plain else None
            if kind is None:
                return self.converted(path)
        except Exception:  # a broken file can make a decoder raise anything
            return self.error(f"the image {Path(name).name} cannot be read any more; tell the owner of the study", 404)
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    def converted(self, path: Path) -> Response:
        """A file that browsers show not at all, or not as models see it (CMYK, 16 bits, frames), as PNG of 8 bits."""
        import io

        buffer = io.BytesIO()
        read_image(path).convert("RGB").save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    def mine(self, request: Request) -> Response:
        """All that is kept of the rater, as JSON."""
        found = self.who(request)
        if found is None:
            return self.error("log in first", 401)
        return JSONResponse(rater_data(self.store, found[0].name))

    def forget(
        self, request: Request, csrf: Annotated[str, Form()] = "", sure: Annotated[str, Form()] = ""
    ) -> Response:
        """Delete all that the rater gave."""
        rater = self.checked(request, csrf)
        if rater.owner or sure != "yes":
            return self.error("tick the box to say that you are sure", 422)
        gone = self.store.delete_rater(rater.name)
        sentence = f"Your {gone} answers were deleted, and your code cannot be used any more."
        return self.page("message", heading="Deleted", sentence=sentence)

    def owner(self, request: Request) -> Response:
        """The page of the study's owner."""
        found = self.who(request)
        if found is None or not found[0].owner:
            return self.error("this page is for the owner of the study", 403)
        return HTMLResponse(owner_page(self.store).to_html())

    def logout(self, request: Request, csrf: Annotated[str, Form()] = "") -> Response:
        """End the session."""
        self.checked(request, csrf)
        self.store.logout(request.cookies.get(self.cookie, ""))
        response = _go("/")
        response.delete_cookie(self.cookie)
        return response

    def static(self, name: str) -> Response:
        """Our own script and style; nothing else can be named."""
        if name not in _STATIC:
            return self.error("there is no such file", 404)
        text = (Path(__file__).parent / "static" / name).read_text("utf-8")
        return Response(text, media_type=_STATIC[name], headers={"Cache-Control": "max-age=300"})


def _turned(image: Any) -> bool:
    """Whether EXIF turns a picture of a kind for which not every browser heeds it."""
    noted = image.format not in ("JPEG", "MPO") and {"exif", "Raw profile type exif"} & image.info.keys()
    return bool(noted) and image.getexif().get(0x0112, 1) != 1


class _Refused(Exception):
    """A request that is not answered, and the status that says why."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.sentence, self.status = sentence, status


def _go(where: str) -> RedirectResponse:
    return RedirectResponse(quote(where), 303)


def make_app(store: Store, *, hosts: frozenset[str] = LOCAL, secure: bool = False) -> FastAPI:
    """The application of a study.

    Parameters
    ----------
    store
        Of the study.
    hosts
        Names by which browsers may call the server.
    secure
        The server is reached through HTTPS, so that the session's cookie is sent through that alone.
    """
    app = FastAPI(title="fewer study", docs_url=None, redoc_url=None, openapi_url=None)
    pages = _Pages(store, secure)

    @app.middleware("http")
    async def guard(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        host = request.headers.get("host", "")
        response: Response | None = None
        if not host_allowed(host, hosts):
            response = pages.error("this server is not reached by that name; see fewer study serve --help", 421)
        elif request.method == "POST":
            length = request.headers.get("content-length", "")
            if not origin_allowed(request.headers.get("origin", ""), host):
                response = pages.error("this form is from another site", 403)
            elif not length.isdecimal() or len(length) > 9 or int(length) > _LARGEST:
                response = pages.error("this form is too large", 413)
        elif request.method not in ("GET", "HEAD"):
            response = pages.error("this cannot be done", 405)
        if response is None:
            response = await call(request)
        assert response is not None
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, _Refused)
        return pages.error(error.sentence, error.status)

    async def failed(_: Request, __: Exception) -> Response:
        return pages.error("the study cannot be read now; tell its owner", 500)

    async def invalid(_: Request, __: Exception) -> Response:
        return pages.error("a field of this form is missing or wrong; go back and load the page again", 422)

    from fastapi.exceptions import RequestValidationError

    app.add_exception_handler(_Refused, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(FewerError, failed)
    for path, run in (("/", pages.start), ("/next", pages.next), ("/mine", pages.mine), ("/owner", pages.owner)):
        app.get(path, response_model=None)(run)
    app.get("/image/{image}", response_model=None)(pages.image)
    app.get("/static/{name}", response_model=None)(pages.static)
    posts = {"login": pages.login, "train": pages.trained, "answer": pages.answer, "forget": pages.forget}
    for name, run in (posts | {"logout": pages.logout}).items():
        app.post(f"/{name}", response_model=None)(run)
    return app
