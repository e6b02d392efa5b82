"""A server of workers that share a listener and echo; each connection is first told whose it is. A worker that ends is replaced.

    killed.py PORT COUNT

A line on the standard input is the number of a worker that is killed; the answer comes when it is gone and the next one is there. With the
line `end` all are killed at once, this one too.
"""

import os
import selectors
import signal
import socket
import sys


def work():
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(lives, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == lives:
                os._exit(0)
            if key.fileobj is listener:
                try:
                    stream, _ = listener.accept()
                except BlockingIOError:
                    continue
                stream.setblocking(True)
                stream.sendall(b"%10d" % os.getpid())
                selector.register(stream, selectors.EVENT_READ)
                continue
            try:
                data = key.fileobj.recv(65536)
            except ConnectionError:
                data = b""
            if data:
                key.fileobj.sendall(data)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def start():
    child = os.fork()
    if child == 0:
        sys.stdin.close()
        os.close(end)
        work()
    workers.add(child)


def kill(worker):
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    workers.remove(worker)


listener = socket.create_server(("", int(sys.argv[1])), backlog=64)
listener.setblocking(False)
# Nobody writes: who reads it sees the end of the one who started him.
lives, end = os.pipe()
workers = set()
for _ in range(int(sys.argv[2])):
    start()
print("ready", flush=True)
for row in sys.stdin:
    if row == "end\n":
        break
    kill(int(row))
    start()
    print("gone", flush=True)
for worker in list(workers):
    kill(worker)
os.kill(os.getpid(), signal.SIGKILL)
