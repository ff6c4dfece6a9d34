"""A gate before a server: what goes through it is passed on, refused, answered with an error, or swallowed."""

import re
import selectors
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

ERROR = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
NOTHING = re.compile(rb"(?!)")
STATES = ("open", "refuse", "fail", "swallow")


class Gate:
    """A port of this machine that leads to the server at an address, as long as its state is `open`.

    `refuse`: nobody listens there. `fail`: each request gets error 503. `swallow`: connections are taken, and nothing
    ever comes back. What was connected before a change is cut. While it is open, requests whose first line
    `failing` matches get error 503; of those that `holding` matches only a part is passed on: `held` says that one has
    come. Set to `NOTHING`, neither matches any.
    """

    def __init__(self, address: str) -> None:
        there = urlsplit(address)
        self._there = (there.hostname, there.port)
        self._state, self._connections = "open", set[socket.socket]()
        self._changing = threading.Lock()
        self.failing = self.holding = NOTHING
        self.held, self.failed = threading.Event(), threading.Event()
        self._listen(0)
        self.address = f"http://127.0.0.1:{self._port}"

    def set(self, state: str) -> None:
        """Change what the gate does."""
        assert state in STATES
        with self._changing:
            before, self._state = self._state, state
            if state == "refuse":
                _end(self._listening)
            for each in self._connections:
                _end(each)
            self._connections.clear()
            if before == "refuse" != state:
                self._listen(self._port)

    def _listen(self, port: int) -> None:
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", port))
        self._listening.listen(64)
        self._port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), name="gate", daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = listening.accept()
                with self._changing:
                    self._connections.add(client)
                    state = self._state
                threading.Thread(target=self._pass, args=(client, state), name="gate", daemon=True).start()

    def _pass(self, client: socket.socket, state: str) -> None:
        with client, suppress(OSError):
            match state:
                case "open":
                    with socket.create_connection(self._there) as server:
                        self._both_ways(client, server)
                case "fail":
                    client.recv(65536)
                    _refuse(client)
                case _:
                    _drain(client)

    def _both_ways(self, client: socket.socket, server: socket.socket) -> None:
        part_wanted = False
        with selectors.DefaultSelector() as ready:
            with self._changing:
                if client not in self._connections:  # cut before anything went through
                    return
                ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is client:
                        if self.failing.match(data):
                            self.failed.set()
                            _refuse(client)
                            return
                        if self.holding.match(data):
                            part_wanted = True
                            if data.endswith(b"\r\n\r\n"):  # the body comes in a piece of its own
                                server.sendall(data)
                                continue
                        if part_wanted:
                            server.sendall(data[: len(data) - max(1, len(data) // 20)])
                            self.held.set()
                            _drain(client)
                            return
                    key.data.sendall(data)


def _refuse(client: socket.socket) -> None:
    client.sendall(ERROR)
    client.shutdown(socket.SHUT_WR)
    _drain(client)  # or its error would be lost in a reset


def _drain(client: socket.socket) -> None:
    while client.recv(65536):
        pass


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        connection.close()
