"""Takes what the workers of `workers.py` send, all connections at the same time, and says what came.

    fetch.py HOST PORT CONNECTIONS
"""

import socket
import sys
import threading
import zlib

host, port, connections = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
TRAILER = 8
lengths, workers, wrong = [], set(), []


def fetch():
    stream = socket.create_connection((host, port))
    buffer, checksum, length, kept = memoryview(bytearray(1 << 18)), 0, 0, b""
    while count := stream.recv_into(buffer):
        got = kept + buffer[:count]
        text, kept = got[:-TRAILER], got[-TRAILER:]
        checksum, length = zlib.crc32(text, checksum), length + len(text)
    if int.from_bytes(kept[:4], "big") != checksum:
        wrong.append(length)
    workers.add(kept[4:])
    lengths.append(length)


threads = [threading.Thread(target=fetch) for _ in range(connections)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{sum(lengths) >> 20} MiB by {len(lengths)} connections of {len(workers)} workers, wrong: {wrong}")
