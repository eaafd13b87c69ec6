"""A gRPC echo: `serve HOST PORT`, or `use HOST PORT`, which fails if an answer differs from what was sent."""

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


class Echo(grpc.GenericRpcHandler):
    """Messages are bytes: no schema is needed."""

    def service(self, details):
        if details.method == "/echo/Once":
            return grpc.unary_unary_rpc_method_handler(lambda message, _context: message)
        return grpc.stream_stream_rpc_method_handler(lambda messages, _context: messages)


def serve(address):
    server = grpc.server(ThreadPoolExecutor(8), options=OPTIONS)
    server.add_generic_rpc_handlers([Echo()])
    assert server.add_insecure_port(address), f"cannot listen at {address}"
    server.start()
    server.wait_for_termination()


def use(address):
    noise = random.Random(address)
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        once, stream = channel.unary_unary("/echo/Once"), channel.stream_stream("/echo/Stream")
        for length in [0, 1, 1 << 14, 1 << 20, 5 << 20]:
            message = noise.randbytes(length)
            assert once(message, timeout=30) == message, f"another message of {length} bytes"
        # Streams share the channel's connection.
        streams = [[noise.randbytes(n * 10) for n in range(300)] for _ in range(5)]
        answers = [stream(iter(messages), timeout=30) for messages in streams]
        assert [list(answer) for answer in answers] == streams, "other messages"


def main():
    role, host, port = sys.argv[1:]
    {"serve": serve, "use": use}[role](f"{host}:{port}")


main()
