"""A local HTTP server that knows its answers beforehand, as cheap as Python allows: it must not be what is measured.

python tests/fakes/recorded.py REPLIES LATENCY

REPLIES is the file that `write` left. Prints its base URL and serves until it is killed. A
request that was never recorded gets a 400 that says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

_UNKNOWN = b'{"error": {"message": "this request was never recorded"}}'


def write(path: Path, replies: Mapping[bytes, bytes]) -> None:
    """Leave `replies` (body to answer) for a server to read."""
    path.write_text(json.dumps({hashlib.sha256(body).hexdigest(): answer.decode() for body, answer in replies.items()}))


def read(path: Path) -> dict[bytes, bytes]:
    """What `write` left, by the digest of the body."""
    return {bytes.fromhex(known): answer.encode() for known, answer in json.loads(path.read_text()).items()}


def _response(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


class Recorded(asyncio.Protocol):
    """One connection, kept alive; one request at a time."""

    def __init__(self, replies: Mapping[bytes, bytes], latency: float) -> None:
        self.replies, self.latency = replies, latency
        self.data = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.data[:end]).lower()
        place = head.find(b"content-length:")
        size = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(self.data) < end + 4 + size:
            return
        body = bytes(self.data[end + 4 : end + 4 + size])
        del self.data[: end + 4 + size]
        if head.startswith(b"get "):
            self.transport.write(_response(b"200 OK", b'{"object": "list", "data": []}'))
            return
        answer = self.replies.get(hashlib.sha256(body).digest())
        ready = _response(b"200 OK", answer) if answer is not None else _response(b"400 Bad Request", _UNKNOWN)
        asyncio.get_running_loop().call_later(self.latency, self._send, ready)

    def _send(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)


async def serve(replies: Mapping[bytes, bytes], latency: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Recorded(replies, latency), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(read(Path(sys.argv[1])), float(sys.argv[2])))
