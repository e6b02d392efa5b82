"""Leaves as much as its socket takes, and ends: by itself, or killed.

    leave.py HOST PORT exit|kill      the far end is sink.py
"""

import os
import signal
import socket
import sys

stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 << 20)
stream.setblocking(False)
sent = 0
try:
    while sent < 20_000_000:
        sent += stream.send(b"x" * 100_000)
except BlockingIOError:
    pass
print(sent, flush=True)
if sys.argv[3] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
os._exit(0)
