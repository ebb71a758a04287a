"""Sends, receives, takes turns and connects; prints the seconds of each."""

import socket
import statistics
import sys
import time

SEND, RECEIVE, ECHO = b"\1", b"\2", b"\3"
host, port, amount, turns = sys.argv[1], *map(int, sys.argv[2:])
address = socket.gethostbyname(host), port


def connect(kind):
    stream = socket.create_connection(address)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(kind)
    return stream


def timed(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


def send():
    with connect(SEND) as stream:
        block = bytes(256 << 10)
        for _ in range(amount // len(block)):
            stream.sendall(block)
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(1) == SEND


def receive():
    with connect(RECEIVE) as stream:
        block, got = bytearray(256 << 10), 0
        while read := stream.recv_into(block):
            got += read
        assert got == amount, got


def turn(stream):
    stream.sendall(b"!")
    assert stream.recv(1) == b"!"


def once():
    with connect(ECHO) as stream:
        turn(stream)


out, back = timed(send), timed(receive)
with connect(ECHO) as stream:
    there_and_back = statistics.median(timed(lambda: turn(stream)) for _ in range(turns))
print(out, back, there_and_back, statistics.median(timed(once) for _ in range(turns // 10)))
