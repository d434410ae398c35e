"""The connections: uvicorn's HTTP protocol, closed to clients that are slow, silent, endless or too many."""

import asyncio
import logging
import resource
import socket
import struct
from collections import OrderedDict, deque
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

logger = logging.getLogger(__name__)

HEAD_S = 15.0  # from the first byte of a request, or from the connection's beginning, to the end of its headers
MAX_HEAD_BYTES = 65_536  # of a request line and its headers
LINGER_S = 5.0  # how long the rest of a body may go on arriving after its reply, so that the client can read that
STALLED_S = 15.0  # how long a client may take nothing of its reply
OTHER_FILES = 256  # descriptors for all but the connections: models, the log, the event loop, libraries

AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: do not wait, reset the connection

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connections:
    """At most `maximum` connections; one more takes the place of the one that has been idle for longest."""

    def __init__(self, maximum: int) -> None:
        self.maximum = _with_descriptors(maximum)
        self.idle: OrderedDict[Connection, None] = OrderedDict()  # between requests, the longest first

    def make_room(self, open_ones: int) -> None:
        """Break off the longest idle connection, if there are too many; it may be the newest itself."""
        if open_ones > self.maximum and self.idle:
            victim, _ = self.idle.popitem(last=False)
            victim.break_off()


def _with_descriptors(wanted: int) -> int:
    """Raise the process's limit of open files so that the connections find room; return how many do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    room = max(1, soft - OTHER_FILES)
    logger.warning("the limit of %d open files leaves room for %d connections, not for %d", soft, room, wanted)
    return room


class Parser(httptools.HttpRequestParser):
    """httptools' parser, which also reads the body of a request that wishes for another protocol.

    By itself it takes what follows such a head for the other protocol, and uvicorn, which speaks none, for the next
    request. So the head is parsed once more, without the wish.
    """

    def __init__(self, connection: "Connection") -> None:
        super().__init__(connection)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._connection = connection

    def feed_data(self, data: bytes) -> None:  # type: ignore[override] # uvicorn has nothing else
        """Parse some more."""
        rest = memoryview(data)
        while True:
            try:
                super().feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                if head := self._connection.head_without_wish():
                    super().feed_data(head)
            else:
                return


class Connection(HttpToolsProtocol):
    """One connection. What it has begun it must end in time: its headers, its body after the reply, the reply."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        all_of_them: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = Parser(self)
        self._wishes = False  # for another protocol, in the head that was parsed last
        self._all = all_of_them
        self._head_since: float | None = None  # on the loop's clock; None: no headers are awaited
        self._head_bytes = 0
        self._replied_at: float | None = None  # to a request whose body still arrives
        self._unsent = 0  # bytes of the reply at the last look,
        self._unsent_since = 0.0  # and when there were fewer than before

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._head_since = self.loop.time()
        self._all.idle[self] = None
        self._all.make_room(len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._all.idle.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse headers without end."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._head_since is None or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Give the headers their time."""
        super().on_message_begin()
        self._head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Serve the request."""
        tunnel = self.parser.get_method() == b"CONNECT"
        self._wishes = self.parser.should_upgrade() and not tunnel
        if self._wishes:
            return
        self._head_since = None
        self._head_bytes = 0
        self._all.idle.pop(self, None)
        super().on_headers_complete()
        if tunnel:  # there is none, and what follows may be meant for it
            self.cycle.keep_alive = False
        self.headers = deque(maxlen=0)  # type: ignore[assignment] # trailers, which nobody reads, may have no end

    def head_without_wish(self) -> bytes:
        """Return the head that was parsed last as if it wished for no other protocol; nothing if it does not."""
        if not self._wishes:
            return b""
        first = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([first, *lines, b"", b""])

    def on_message_complete(self) -> None:
        """Note that the body is here."""
        if self._wishes:
            return
        self._replied_at = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, once this one has arrived."""
        if self.cycle.response_complete and self.cycle.more_body:
            self._replied_at = self.loop.time()
        others_follow = bool(self.pipeline)
        super().on_response_complete()
        if not others_follow and not self.transport.is_closing():
            self._all.idle[self] = None

    def check(self) -> None:
        """Break the connection off where its client has been waited for long enough."""
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or self._unsent == 0 or unsent < self._unsent:
            self._unsent_since = now
        self._unsent = unsent
        if (
            (self._head_since is not None and now - self._head_since > HEAD_S)
            or (self._replied_at is not None and now - self._replied_at > LINGER_S)
            or now - self._unsent_since > STALLED_S
        ):
            self.break_off()

    def break_off(self) -> None:
        """Close at once, and drop what is unsent: the kernel would go on offering it to a client that does not read."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # or it would write to the closed transport before it hears of the end
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        self.transport.abort()
