"""Serve the status of a run on this computer, read-only."""

from __future__ import annotations

import json
import secrets
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from metabench.errors import MetabenchError, UsageError
from metabench.executors.status import status_of
from metabench.reporting.templates import asset, render

#: The address of the server: programs of this computer only.
_ADDRESS = "127.0.0.1"
#: Seconds for which a status is served again: many pages cost no more than one.
_FRESH = 1.0


class StatusServer(ThreadingHTTPServer):
    """A server of two things: the page, and ``status.json``, which is that of ``metabench status --format json``.

    Args:
        directory: the output directory.
        port: the port; 0 takes a free one.

    Raises:
        UsageError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, directory: Path, port: int) -> None:
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"--serve {port}: the port cannot be used ({error.strerror}): give another one, or none for a free one"
            ) from error
        self._directory = directory
        self._lock = threading.Lock()
        self._until, self._status = 0.0, (HTTPStatus.OK, b"")

    @property
    def address(self) -> str:
        """Return the address of the page."""
        return f"http://{_ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> set[str]:
        """Return the names by which it answers: a name of elsewhere that leads here (DNS rebinding) is not one."""
        return {f"{name}:{self.server_port}" for name in (_ADDRESS, "localhost")}

    def page(self, nonce: str) -> bytes:
        """Return the page."""
        style, script = asset("status/page.css"), asset("status/page.js")
        return render("status/page.html", run=str(self._directory), nonce=nonce, style=style, script=script).encode()

    def status(self) -> tuple[HTTPStatus, bytes]:
        """Return the status as JSON, or the reason why it cannot be read."""
        with self._lock:
            if time.monotonic() > self._until:
                try:
                    self._status = HTTPStatus.OK, status_of(self._directory).model_dump_json(indent=1).encode()
                except MetabenchError as error:
                    self._status = HTTPStatus.SERVICE_UNAVAILABLE, json.dumps({"error": str(error)}).encode()
                self._until = time.monotonic() + _FRESH
            return self._status


class _Handler(BaseHTTPRequestHandler):
    server: StatusServer

    def do_GET(self) -> None:
        nonce = secrets.token_urlsafe(16)
        if self.headers.get("Host") not in self.server.hosts:
            self._send(
                HTTPStatus.FORBIDDEN, "text/plain", b"this server answers programs of its own computer only\n", ""
            )
        elif self.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page(nonce), nonce)
        elif self.path == "/status.json":
            code, content = self.server.status()
            self._send(code, "application/json", content, "")
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is / and /status.json\n", "")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a page asks every two seconds."""

    def _send(self, code: HTTPStatus, kind: str, content: bytes, nonce: str) -> None:
        own = f"'nonce-{nonce}'" if nonce else "'none'"
        policy = f"default-src 'none'; script-src {own}; style-src {own}; connect-src 'self'; img-src data:"
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
