"""A server whose connections go to other programs while they are at work: what it is told on its standard input is done with the next one.

    handover.py PORT
"""

import ctypes
import os
import select
import socket
import struct
import subprocess
import sys

GREETING = b"hello"
UNREAD = 50_000


def held(stream):
    """Bytes are on their way in both directions, and some of those that arrived wait to be read."""
    stream.sendall(GREETING)
    assert stream.recv(len(GREETING), socket.MSG_WAITALL) == GREETING
    while len(stream.recv(UNREAD, socket.MSG_PEEK)) < UNREAD:
        pass
    stream.sendall(b"x" * UNREAD)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def by_exec(stream):
    """The program itself becomes another one."""
    child = os.fork()
    if child == 0:
        listener.close()
        os.dup2(stream.fileno(), 0)
        os.dup2(stream.fileno(), 1)
        stream.close()
        os.execvp("cat", ["cat"])
    stream.close()
    os.waitpid(child, 0)


def by_child(stream):
    """Its parent holds it as well, looks at it meanwhile, and has the last word."""
    poll = select.epoll()
    poll.register(stream, select.EPOLLIN | select.EPOLLRDHUP)
    child = subprocess.Popen(["head", "-c", str(UNREAD)], stdin=stream, stdout=stream)
    child.wait()
    assert kernels() == 1
    while True:
        poll.poll()
        data = stream.recv(65536)
        if not data:
            break
        stream.sendall(data)
    option = stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    stream.sendall(b"%d" % option)
    stream.close()


def by_message(stream):
    """Another process, which has never seen it, gets it in a message."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        listener.close()
        stream.close()
        _, [number], _, _ = socket.recv_fds(theirs, 1, 1)
        theirs.send(b"!")
        while data := os.read(number, 65536):
            os.write(number, data)
        os._exit(0)
    socket.send_fds(ours, [b"!"], [stream.fileno()])
    ours.recv(1)
    stream.close()
    os.waitpid(child, 0)


def by_failure(stream):
    """The other program isn't there: this one goes on."""
    stream.set_inheritable(True)
    try:
        os.execv("/nowhere", ["nowhere"])
    except OSError:
        pass
    assert kernels() == 1
    while data := stream.recv(65536):
        stream.sendall(data)
    stream.close()


def by_filter(stream):
    """From here on the kernel looks at each of its calls, and lets all pass."""
    allow = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(struct.pack("H6xQ", 1, ctypes.addressof(allow)))
    call = ctypes.CDLL(None).prctl
    call.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    assert call(38, 1, 0, 0, 0) == 0
    assert call(22, 2, ctypes.addressof(program), 0, 0) == 0
    assert kernels() == 1
    while data := stream.recv(65536):
        stream.sendall(data)
    stream.close()


def kernels():
    with open("/proc/self/net/tcp") as table:
        return sum(row.split()[3] != "0A" and row.split()[1].endswith("%04X" % PORT) for row in table.readlines()[1:])


PORT = int(sys.argv[1])
listener = socket.create_server(("", PORT), backlog=16)
print("ready", flush=True)
for row in sys.stdin:
    stream, _ = listener.accept()
    held(stream)
    before = kernels()
    globals()["by_" + row.strip()](stream)
    print(row.strip(), before, flush=True)
