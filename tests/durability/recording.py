"""A recording: the trace of a real host over several lives of it, and the folder it began with (staging.py)."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.durability import trace
from tests.durability.conversation import Conversation, Trust, read_conversation
from tests.durability.disk import Disk
from tests.durability.trace import Event


@dataclass
class Recording:
    """The files of one recording below ``folder``; read once, when asked for."""

    folder: Path
    _events: list[Event] = field(default_factory=list)
    _conversation: Conversation | None = None

    @property
    def trust_path(self) -> Path:
        """What clients know."""
        return self.folder / "trust.json"

    def events(self) -> list[Event]:
        """The trace. Raises BrokenTrace."""
        if not self._events:
            self._events = trace.read_trace(self.folder / "trace")
        return self._events

    def conversation(self) -> Conversation:
        """What was asked and told. Raises Rejected."""
        if self._conversation is None:
            self._conversation = read_conversation(self.events(), Trust.read(self.trust_path))
        return self._conversation

    def disk(self) -> Disk:
        """The disk from the start of the trace to its end."""
        facts = json.loads((self.folder / "start.json").read_text())
        inodes = {int(inode): path for inode, path in facts["inodes"].items()}
        return Disk(self.folder / "start", inodes, self.events(), facts["folder"])
