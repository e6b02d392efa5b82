"""Two processes that share a listener, as a server's workers do: each takes as many connections as it is told, and sends all of them at
the same time so many random bytes and their checksum.

    workers.py PORT CONNECTIONS MEGABYTES
"""

import os
import random
import socket
import sys
import threading
import zlib

port, connections, megabytes = map(int, sys.argv[1:])
BLOCK = 1 << 20


def serve(stream, seed):
    block = memoryview(random.Random(seed).randbytes(BLOCK))
    checksum = 0
    for number in range(megabytes):
        # Each block is another one: what is sent twice, or left out, is noticed.
        turn = number * 4099 % BLOCK
        for part in (block[turn:], block[:turn]):
            checksum = zlib.crc32(part, checksum)
            stream.sendall(part)
    stream.sendall(checksum.to_bytes(4, "big") + os.getpid().to_bytes(4, "big"))
    stream.close()


def work(listener):
    streams = [listener.accept()[0] for _ in range(connections)]
    threads = [threading.Thread(target=serve, args=(stream, at)) for at, stream in enumerate(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


listener = socket.create_server(("0.0.0.0", port), backlog=64)
workers = []
for _ in range(2):
    worker = os.fork()
    if worker == 0:
        work(listener)
        os._exit(0)
    workers.append(worker)
print("ready", flush=True)
print("ends", *(os.waitpid(worker, 0)[1] for worker in workers), flush=True)
