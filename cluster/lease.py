"""The lease: the right to write an experiment that several hosts can reach, as long as it is renewed.

A lease is a numbered file, `lease/00000003.json`, made only where there is none, so of two that want the same number
one gets it. Whoever holds the highest number holds the lease; its holder says every `RENEW_SECONDS` that it lives.
One that does not change for `EXPIRE_SECONDS`, as the taker's own clock tells, is taken over by the next number; its
holder, should it come back, finds that and stops. No two hosts' clocks are ever compared.
"""

import json
import os
import shlex
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.remote import Remote
from foundation import RequestError, lives

LEASES = "lease"
RENEW_SECONDS = 10.0
EXPIRE_SECONDS = 60.0
GIVE_UP_SECONDS = 45.0  # a holder that could not renew for so long stops before another may take over
LOOK_SECONDS, WATCH_SECONDS = 2.0, 1.0
RELEASE_SECONDS = 5.0

Held = dict[str, Any]


class Lease:
    """The lease of an experiment, taken on making one, and renewed from a thread until it is released.

    `folder` is the experiment in its storage, `shown` how it is called. Waits up to `EXPIRE_SECONDS` for a sign of
    life of a holder on another host, which `tell` says; raises `RequestError` naming the holder that lives.
    `on_lost` is called from a thread, once, with a sentence, when the lease is no longer held: it is another's, or a
    second thread finds that it was not renewed for `GIVE_UP_SECONDS`, whatever the first still waits for.
    """

    def __init__(self, folder: Remote, shown: str, tell: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self.shown = folder, shown
        self.lost: str | None = None
        self.on_lost: Callable[[str], None] = lambda _: None
        self.at_rest = threading.Lock()  # held while the store is spoken to: no fork meanwhile
        self._process, self._renewals, self._ended = os.getpid(), 0, threading.Event()
        self._losing, self._refused = threading.Lock(), ""
        self._me = {**_this_process(), "token": uuid.uuid4().hex, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self._number = self._take(tell)
        self.folder.patience_seconds = 0.0  # what is refused is asked again by the thread, which tells when to give up
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="lease-watch", daemon=True).start()

    def release(self) -> None:
        """Give the lease back, so that the next one need not wait."""
        if os.getpid() != self._process:  # a child of the holder, which goes on
            return
        self._ended.set()
        self._thread.join(RELEASE_SECONDS)
        if self.lost is None and not self._refused and not self._thread.is_alive():
            with suppress(OSError):  # then it runs out
                self.folder.remove(_name(self._number))

    def _take(self, tell: Callable[[str], None]) -> int:
        """Return the number taken; what is older than it is removed."""
        while True:
            number, content = newest(self.folder)
            if content is not None:
                self._outlast(number, content, tell)
            try:
                self.folder.create(_name(number + 1), self._content())
            except FileExistsError:
                if self._is_mine(number + 1):  # a request that was sent again
                    return number + 1
                continue  # another was faster: now it is the holder
            self.folder.remove(*(name for name in self.folder.objects(LEASES) if name < _name(number + 1)))
            return number + 1

    def _outlast(self, number: int, content: bytes, tell: Callable[[str], None]) -> None:
        """Return when the holder is dead, or has shown no sign of life; `RequestError` when it lives."""
        held = parsed(content)
        words = f"{self.shown} is in use by {holder_words(held)}"
        if (dead := is_dead(held)) is not None:
            if dead:
                return
            raise RequestError(f"{words}. Wait for it, or end it with `convscout stop {shlex.quote(self.shown)}`")
        tell(f"{words}: waiting up to {EXPIRE_SECONDS:g} s for a sign of life.")
        began = time.monotonic()
        while time.monotonic() - began < EXPIRE_SECONDS:
            time.sleep(LOOK_SECONDS)
            now = newest(self.folder)
            if now[1] is None:
                return
            if now != (number, content):
                raise RequestError(f"{self.shown} is in use by {holder_words(parsed(now[1]))}: wait, or stop it there")

    def _keep(self) -> None:
        while not self._ended.wait(LOOK_SECONDS if self._refused else RENEW_SECONDS):
            try:
                with self.at_rest:
                    began = time.monotonic()
                    if newest(self.folder)[0] != self._number or not self._is_mine(self._number):
                        raise FileNotFoundError
                    self._renewals += 1
                    self.folder.write(_name(self._number), self._content())
                self._renewed, self._refused = began, ""
            except FileNotFoundError:
                self._lose(f"{self.shown} is no longer held here: another process has taken it over")
            except OSError as error:
                self._refused = str(error.strerror or error)

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(WATCH_SECONDS):
            stood_still, before = time.monotonic() - before > GIVE_UP_SECONDS, time.monotonic()
            if stood_still or before - self._renewed <= GIVE_UP_SECONDS:
                continue  # a process that was stopped itself asks first whose the lease is
            self._lose(
                f"the storage of {self.shown} could not be reached for {GIVE_UP_SECONDS:g} s: "
                f"{self._refused or 'it did not answer'}"
            )

    def _lose(self, why: str) -> None:
        with self._losing:
            if self._ended.is_set():
                return
            self.lost = why
            self._ended.set()
        self.on_lost(why)

    def _is_mine(self, number: int) -> bool:
        return bool(parsed(self.folder.read(_name(number))).get("token") == self._me["token"])

    def _content(self) -> bytes:
        return json.dumps(self._me | {"renewed": self._renewals}).encode()


def newest(folder: Remote) -> tuple[int, bytes | None]:
    """Return the number and content of the lease that counts; (0, None) where there is none."""
    while names := [name for name in folder.objects(LEASES) if name.endswith(".json")]:
        try:
            return int(Path(max(names)).stem), folder.read(max(names))
        except FileNotFoundError:  # it has just been given back
            continue
    return 0, None


def parsed(content: bytes) -> Held:
    """Return what a lease says; nothing where it is only half written."""
    with suppress(ValueError):
        held = json.loads(content)
        if isinstance(held, dict):
            return held
    return {}


def holder_words(held: Held) -> str:
    """Return who holds a lease, as the lock on a local disk says it."""
    return "host {host}, pid {pid}, since {since}".format_map({"host": "?", "pid": "?", "since": "?"} | held)


def is_dead(held: Held) -> bool | None:
    """Return whether a holder of this machine has died; None where that cannot be told, being elsewhere."""
    return None if held.get("machine") != _this_process()["machine"] else not lives(int(held["pid"]))


def _name(number: int) -> str:
    return f"{LEASES}/{number:08d}.json"


def _this_process() -> Held:
    """Return who this process is, and on which machine: one start of one kernel, and one space of process ids."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return {"host": socket.gethostname(), "pid": os.getpid(), "machine": " ".join(parts)}
