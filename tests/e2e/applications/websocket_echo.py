"""A WebSocket echo: `serve HOST PORT`, or `use HOST PORT`, which fails if an answer differs from what was sent."""

import asyncio
import random
import sys

import websockets

# The lengths at which a frame's header changes its form (RFC 6455 section 5.2), and a long one.
LENGTHS = [0, 1, 125, 126, 65535, 65536, 1 << 20]
CONNECTIONS = 5


async def echo(socket, _path=None):
    async for message in socket:
        await socket.send(message)


async def serve(host, port):
    async with websockets.serve(echo, host, port, max_size=None):
        await asyncio.Future()


async def use(host, port):
    noise = random.Random(port)
    async with websockets.connect(f"ws://{host}:{port}/", max_size=None) as socket:
        for length in LENGTHS:
            message = noise.randbytes(length)
            await socket.send(message)
            assert await socket.recv() == message, f"another message of {length} bytes"
            await (await socket.ping())
        text = "Grüße, 世界 " * 1000
        await socket.send(text)
        assert await socket.recv() == text, "another text"
        # Many at once: each answer belongs to its message.
        messages = [noise.randbytes(n) for n in range(500)]
        for message in messages:
            await socket.send(message)
        assert [await socket.recv() for _ in messages] == messages, "other messages"


async def use_several(host, port):
    await asyncio.gather(*(use(host, port) for _ in range(CONNECTIONS)))


def main():
    role, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    asyncio.run({"serve": serve, "use": use_several}[role](host, port))


main()
