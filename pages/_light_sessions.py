"""Sessions that cost little: gradio copies the settings of every component for each visitor.

For a page of this size the copy takes half a second of the server's one event loop, while every other visitor
waits, and its memory stays for as long as the session. Nothing here reads it: gradio's own deep links would,
and the links of this page are its own (`mpqdm_core/permalink.py`).
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

from gradio import Blocks, State, routes
from gradio.state_holder import SessionState, StateHolder

MAX_SESSIONS = 300  # the one unused for longest is forgotten; gradio's default is 10,000


class LightSession(SessionState):
    """What one visitor changed, and no copy of the rest."""

    def __init__(self, blocks: Blocks) -> None:
        """Start with the page as it was built."""
        no_copies: Any = SimpleNamespace(default_config=blocks.default_config, blocks={})
        super().__init__(no_copies)

    def __setitem__(self, key: int, value: Any) -> None:
        """Keep what a component became."""
        if isinstance(self.blocks_config.blocks.get(key), State):
            super().__setitem__(key, value)
        else:
            self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        """Nothing reads it."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Nothing reads it."""


class LightHolder(StateHolder):
    """Light sessions by their id."""

    def __getitem__(self, session_id: str) -> SessionState:
        """The session, begun when it is first asked for."""
        if session_id not in self.session_data:
            self.session_data[session_id] = LightSession(self.blocks)
        return super().__getitem__(session_id)

    def update(self, session_id: str) -> None:
        """Count the session as used; make room, but not at the cost of one that waits for its turn."""
        with self.lock:
            if session_id in self.session_data:
                self.session_data.move_to_end(session_id)
            over = len(self.session_data) - self.capacity
            idle = (name for name in self.session_data if name != session_id and not self._waits(name))
            for name in list(itertools.islice(idle, max(0, over))):
                del self.session_data[name]
                self.time_last_used.pop(name, None)

    def _waits(self, session_id: str) -> bool:
        return bool(self.blocks._queue.pending_event_ids_session.get(session_id))


def use_light_sessions() -> None:
    """From now on, every app gradio starts has light sessions."""
    routes.StateHolder = LightHolder  # type: ignore[misc]
