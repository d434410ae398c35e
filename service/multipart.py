"""Parses multipart/form-data as it arrives, into memory and within limits."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from runtime.errors import ImageTooLarge, InvalidInput, UnreadableImage


@dataclass(slots=True)
class Part:
    """One part of the body. Of one that is over the limit the bytes are dropped and only `oversize` is kept."""

    name: str
    content_type: str
    data: bytearray = field(default_factory=bytearray)
    oversize: bool = False


class FormReader:
    """Collects the parts that the parser announces."""

    def __init__(self, boundary: bytes, max_parts: int, max_part_bytes: int) -> None:
        self.parts: list[Part] = []
        self._max_parts = max_parts
        self._max_part_bytes = max_part_bytes
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_data,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        """Parse some more."""
        self._parser.write(chunk)

    def finish(self) -> list[Part]:
        """Return the parts; raise UnreadableImage if the body stopped in the middle of one."""
        if not self._ended:
            raise UnreadableImage("the multipart body ends before its last boundary")
        return self.parts

    def _part_begins(self) -> None:
        self._headers = {}
        if len(self.parts) >= self._max_parts:
            raise ImageTooLarge(f"the body has more than {self._max_parts} parts, the most that are accepted")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        self.parts.append(Part(options.get(b"name", b"").decode("utf-8", "replace"), content_type))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        if part.oversize or len(part.data) + end - start > self._max_part_bytes:
            part.oversize = True
            part.data.clear()
        else:
            part.data += data[start:end]

    def _end(self) -> None:
        self._ended = True


async def read_form(content_type: str, chunks: AsyncIterator[bytes], max_parts: int, max_part_bytes: int) -> list[Part]:
    """Read a whole form. Raises UnreadableImage for a damaged one and ImageTooLarge for too many parts."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise InvalidInput("multipart/form-data needs a boundary in its Content-Type; let your HTTP library set it")
    try:
        reader = FormReader(boundary, max_parts, max_part_bytes)
        async for chunk in chunks:
            reader.write(chunk)
        return reader.finish()
    except FormParserError as error:
        raise UnreadableImage("the multipart body is damaged") from error
