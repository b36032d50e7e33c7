"""The page itself, made once: gradio copies and rewrites its whole description for everybody who opens it.

For a page of this size that is 50 ms of the interpreter's time, while a class that opens a link together
waits. The text depends on nothing but the address it is asked under: there are no users and no deep links of
gradio's.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pages._workspace import Recent

ROUTES = ("/", "/learn")
ADDRESS_HEADERS = (b"host", b"x-forwarded-")  # gradio writes links from these
MAX_ADDRESSES = 8


@dataclass(frozen=True, eq=False)
class Answer:
    """A whole answer, as it was sent the first time."""

    start: Message
    body: bytes


class KeptPage:
    """ASGI middleware that answers for a page it has seen before."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app
        self._answers: Recent[Answer] = Recent(MAX_ADDRESSES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the app answer and keep what it says when that is the page."""
        if not _is_page(scope):
            await self._app(scope, receive, send)
            return
        key = _address(scope)
        if (kept := self._answers.get(key)) is None:
            recorder = _Recorder(send)
            await self._app(scope, receive, recorder)
            if (answer := recorder.answer()) is not None:
                self._answers.put(key, answer)
            return
        await send(kept.start)
        await send({"type": "http.response.body", "body": kept.body})


class _Recorder:
    """Passes an answer on and remembers it."""

    def __init__(self, send: Send) -> None:
        self._send, self._start, self._parts, self._whole = send, dict[str, object](), list[bytes](), False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = dict(message)
        else:
            self._parts.append(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        await self._send(message)

    def answer(self) -> Answer | None:
        """What was sent, if it is a whole page."""
        if not self._whole or self._start.get("status") != 200:
            return None
        return Answer(self._start, b"".join(self._parts))


def _is_page(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and scope["path"] in ROUTES
        and b"deep_link" not in scope["query_string"]
    )


def _address(scope: Scope) -> Hashable:
    headers = tuple((name, value) for name, value in scope["headers"] if name.startswith(ADDRESS_HEADERS))
    return scope["path"], scope.get("root_path", ""), scope["scheme"], scope.get("server"), headers
