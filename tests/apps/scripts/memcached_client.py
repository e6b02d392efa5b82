"""memcached_client.py PORT CONNECTIONS ROUNDS: sets and gets on many connections, checks, stays until standard input ends."""

import os
import random
import socket
import sys

# Where the server is.
HOST = os.environ["SERVER_HOST"]


class Memcached:
    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb")

    def set(self, key, value):
        self.socket.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
        answer = self.reader.readline()
        assert answer == b"STORED\r\n", answer

    def get(self, key):
        self.socket.sendall(b"get %s\r\n" % key)
        head = self.reader.readline().split()
        assert head[:2] == [b"VALUE", key], head
        value = self.reader.read(int(head[3]))
        rest = self.reader.read(len(b"\r\nEND\r\n"))
        assert rest == b"\r\nEND\r\n", rest
        return value


port, connections, rounds = map(int, sys.argv[1:])
random.seed(1)
clients = [Memcached(port) for _ in range(connections)]
for turn in range(rounds):
    for number, client in enumerate(clients):
        value = random.randbytes(random.choice((1, 64, 1000, 5000)))
        client.set(b"key-%d" % number, value)
        # Another connection reads what this one wrote.
        found = clients[(number * 7 + turn) % connections].get(b"key-%d" % number)
        assert found == value, (turn, number, len(found), len(value))
for client in clients[:5]:
    value = random.randbytes(900_000)
    client.set(b"big", value)
    assert client.get(b"big") == value
print("checked", flush=True)
sys.stdin.read()
