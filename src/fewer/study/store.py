"""The SQLite store of a study: everything that raters submit, each submission in one transaction.

The journal is a write-ahead log that is flushed with every transaction: what was acknowledged is on the disk, and a
process that is killed in the middle of a submission leaves either all of it or nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.files import real_path, refuse_links
from fewer.core.folder import finish_exchange
from fewer.study.folder import CODES, FILE
from fewer.study.settings import StudySettings

__all__ = ["Item", "Rater", "Store", "secret_hash"]

SCHEMA_VERSION = 1
_LARGEST = 2**63  # that SQLite's integers do not reach; a browser can send any number

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (
  id INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, score REAL, gold INTEGER, training INTEGER NOT NULL DEFAULT 0,
  advice TEXT NOT NULL DEFAULT '');
CREATE TABLE raters (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, code TEXT NOT NULL UNIQUE, owner INTEGER NOT NULL DEFAULT 0,
  trained INTEGER NOT NULL DEFAULT 0, in_a_row INTEGER NOT NULL DEFAULT 0, last REAL NOT NULL DEFAULT 0,
  paused_until REAL NOT NULL DEFAULT 0, deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE sessions (
  token TEXT PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters(id), csrf TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE items (
  id INTEGER PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters(id), place INTEGER NOT NULL, form TEXT NOT NULL,
  image INTEGER NOT NULL REFERENCES images(id), other INTEGER REFERENCES images(id), question TEXT NOT NULL DEFAULT '',
  repeat_of INTEGER, UNIQUE (rater, place));
CREATE TABLE answers (
  item INTEGER PRIMARY KEY REFERENCES items(id), rater INTEGER NOT NULL REFERENCES raters(id), created REAL NOT NULL,
  seconds REAL, answer TEXT NOT NULL);
CREATE INDEX items_of_rater ON items (rater, place);
"""


def _refuse_names(folder: Path) -> None:
    """Raise a :class:`FewerError` where the database would be written through a link or under a second name."""
    names = [FILE, f"{FILE}-wal", f"{FILE}-shm"]
    refuse_links(folder, {*names, CODES, "training"})
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            if (folder / name).stat().st_nlink > 1:
                raise FewerError(
                    f"{folder / name} has a second name (a hard link), and a database that two folders share breaks; "
                    "copy the folder without links, and use the copy"
                )


def secret_hash(text: str) -> str:
    """What is kept of a code or a session: enough to know it again, not to use it."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Rater:
    """A rater, as the pages see one."""

    id: int
    name: str
    owner: bool
    trained: int
    in_a_row: int
    paused_until: float


@dataclass(frozen=True)
class Item:
    """One thing that a rater is asked."""

    id: int
    place: int
    form: str
    image: int
    other: int | None
    question: str
    score: float | None
    answer: dict[str, Any] | None


class Store:
    """The store in a study's folder; safe for several threads, each of which has its own connection.

    Parameters
    ----------
    folder
        Of the study.
    clock
        Seconds since 1970.

    Raises
    ------
    FewerError
        When there is no study, or one of another version.
    """

    def __init__(self, folder: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.clock = Path(folder), clock
        self.path = self.folder / FILE
        self._local = threading.local()
        finish_exchange(self.folder)
        if not self.path.is_file():
            raise FewerError(f"{folder} holds no study; make one: fewer study new {folder} --images PHOTOS")
        _refuse_names(self.folder)
        version = self.meta("version")
        if version != str(SCHEMA_VERSION):
            raise FewerError(f"{self.path} has the version {version}, this fewer reads {SCHEMA_VERSION}")
        self.settings = StudySettings.read(self.meta("settings"))
        self.images = Path(self.meta("images"))

    @classmethod
    def create(cls, folder: Path, images: Path, settings: StudySettings) -> Store:
        """Make an empty store; the caller has made sure that there is none."""
        os.close(os.open(folder / FILE, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with sqlite3.connect(folder / FILE) as connection:
            connection.executescript("PRAGMA journal_mode=WAL;" + _SCHEMA)
            facts = {
                "version": str(SCHEMA_VERSION),
                "settings": json.dumps(settings.model_dump()),
                "images": str(real_path(images)),
            }
            connection.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
        connection.close()
        return cls(folder)

    @property
    def connection(self) -> sqlite3.Connection:
        """That of this thread."""
        made = getattr(self._local, "connection", None)
        if made is None:
            made = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            made.row_factory = sqlite3.Row
            made.executescript("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=30000;")
            made.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten, not only forgotten
            self._local.connection = made
        return made

    def close(self) -> None:
        """Close the connection of this thread."""
        made = getattr(self._local, "connection", None)
        if made is not None:
            made.close()
            self._local.connection = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; waits for other writers."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query.

        Raises
        ------
        FewerError
            When the file is damaged, or stays in use by another process.
        """
        try:
            return self.connection.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            raise FewerError(f"{self.path} cannot be read ({error}); restore it from a backup") from error

    def meta(self, key: str) -> str:
        """A fact of the study; empty when it is absent."""
        found = self.rows("SELECT value FROM meta WHERE key = ?", key)
        return str(found[0]["value"]) if found else ""

    @property
    def key(self) -> str:
        """A few letters that are those of no other study, for what browsers keep by the name of the server alone."""
        codes = "".join(row["code"] for row in self.rows("SELECT code FROM raters WHERE owner = 1"))
        return secret_hash(f"study {codes}")[:12]

    def absent(self) -> tuple[int, list[str]]:
        """How many photos the study has, and those of them that are not in their folder."""
        names = [row["file"] for row in self.rows("SELECT file FROM images WHERE training = 0 ORDER BY id")]
        return len(names), [name for name in names if not (self.images / name).is_file()]

    def move_images(self, images: Path) -> None:
        """Photos lie elsewhere now, which is kept.

        Raises
        ------
        FewerError
            When none of them is there.
        """
        before, self.images = self.images, real_path(images)
        count, gone = self.absent()
        if len(gone) == count:
            self.images = before
            raise FewerError(f"{images} has none of the {count} photos of this study, such as {gone[0]}")
        with self.transaction() as connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'images'", (str(self.images),))

    def login(self, code: str) -> tuple[str, str] | None:
        """Session and CSRF token of an invitation code; None for a wrong code."""
        found = self.rows("SELECT id FROM raters WHERE code = ? AND deleted = 0", secret_hash(code.strip().lower()))
        if not found:
            return None
        session, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        with self.transaction() as connection:
            row = (secret_hash(session), found[0]["id"], csrf, self.clock())
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", row)
        return session, csrf

    def session(self, token: str) -> tuple[Rater, str] | None:
        """Rater and CSRF token of a session of the last week."""
        found = self.rows(
            "SELECT r.*, s.csrf FROM sessions s JOIN raters r ON r.id = s.rater WHERE s.token = ? AND s.created > ? "
            "AND r.deleted = 0",
            secret_hash(token),
            self.clock() - 7 * 86400,
        )
        if not found:
            return None
        row = found[0]
        rater = Rater(row["id"], row["name"], bool(row["owner"]), row["trained"], row["in_a_row"], row["paused_until"])
        return rater, row["csrf"]

    def logout(self, token: str) -> None:
        """End a session."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE token = ?", (secret_hash(token),))

    def progress(self, rater: int) -> tuple[int, int]:
        """Items that a rater has answered, and all of them."""
        query = (
            "SELECT COUNT(a.item) AS done, COUNT(*) AS total FROM items i "
            "LEFT JOIN answers a ON a.item = i.id WHERE i.rater = ?"
        )
        row = self.rows(query, rater)[0]
        return row["done"], row["total"]

    def item(self, rater: int, item: int | None = None) -> Item | None:
        """The next item that a rater has not answered, or a given one of theirs."""
        query = (
            "SELECT i.*, m.score, a.answer FROM items i JOIN images m ON m.id = i.image "
            "LEFT JOIN answers a ON a.item = i.id WHERE i.rater = ? "
        )
        if item is None:
            found = self.rows(query + "AND a.item IS NULL ORDER BY i.place LIMIT 1", rater)
        elif abs(item) < _LARGEST:
            found = self.rows(query + "AND i.id = ?", rater, item)
        else:
            found = []
        if not found:
            return None
        row = found[0]
        answer = json.loads(row["answer"]) if row["answer"] else None
        return Item(
            row["id"], row["place"], row["form"], row["image"], row["other"], row["question"], row["score"], answer
        )

    def may_see(self, rater: Rater, image: int) -> str | None:
        """The file of an image that a rater is shown; None for any other."""
        query = (
            "SELECT file FROM images WHERE id = ? AND (training = 1 OR ? OR EXISTS "
            "(SELECT 1 FROM items WHERE rater = ? AND (image = images.id OR other = images.id)))"
        )
        found = self.rows(query, image, rater.owner, rater.id) if abs(image) < _LARGEST else []
        return str(found[0]["file"]) if found else None

    def submit(self, rater: int, item: int, answer: dict[str, Any], seconds: float | None = None) -> bool:
        """Keep an answer and count it; the same item twice is counted once.

        Returns
        -------
        bool
            Whether it is new. When this returns, the answer is on the disk.

        Raises
        ------
        FewerError
            When the item is not one of the rater's, or the rater has to pause.
        """
        now, settings = self.clock(), self.settings
        text = json.dumps(answer, ensure_ascii=False)
        with self.transaction() as connection:
            owns = connection.execute("SELECT 1 FROM items WHERE id = ? AND rater = ?", (item, rater)).fetchone()
            if owns is None:
                raise FewerError("this question is not one of yours; go back to the start page")
            if connection.execute("SELECT 1 FROM answers WHERE item = ?", (item,)).fetchone():
                return False
            row = connection.execute("SELECT * FROM raters WHERE id = ?", (rater,)).fetchone()
            if row["paused_until"] > now:
                raise FewerError("it is time for a pause; what you wrote was not sent, so keep the page open")
            connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", (item, rater, now, seconds, text))
            # who rested as long as a pause by themselves starts anew
            rested = now - row["last"] > max(settings.pause_seconds, 1.0)
            count = (0 if rested else row["in_a_row"]) + 1
            until = now + settings.pause_seconds if count >= settings.pause_after else 0
            count = 0 if until else count
            connection.execute(
                "UPDATE raters SET in_a_row = ?, last = ?, paused_until = ? WHERE id = ?", (count, now, until, rater)
            )
        return True

    def train(self, rater: int, step: int) -> None:
        """Note that a rater has done a step of the training."""
        with self.transaction() as connection:
            connection.execute("UPDATE raters SET trained = MAX(trained, ?) WHERE id = ?", (step, rater))

    def delete_rater(self, name: str) -> int:
        """Delete all that a rater gave, and end their sessions; the pseudonym stays taken, the code is void.

        Returns
        -------
        int
            Answers that were deleted.

        Raises
        ------
        FewerError
            When there is no such rater.
        """
        from fewer.core.errors import near_match

        with self.transaction() as connection:
            found = connection.execute("SELECT id FROM raters WHERE name = ? AND owner = 0", (name,)).fetchone()
            if found is None:
                known = [row["name"] for row in connection.execute("SELECT name FROM raters WHERE owner = 0")]
                raise FewerError(f"there is no rater {name!r}{near_match(name, known)}")
            gone = connection.execute("DELETE FROM answers WHERE rater = ?", (found["id"],)).rowcount
            connection.execute("DELETE FROM sessions WHERE rater = ?", (found["id"],))
            connection.execute("DELETE FROM items WHERE rater = ?", (found["id"],))
            code = secret_hash(secrets.token_hex(16))
            connection.execute(
                "UPDATE raters SET deleted = 1, code = ?, trained = 0, in_a_row = 0, last = 0, paused_until = 0 "
                "WHERE id = ?",
                (code, found["id"]),
            )
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone
