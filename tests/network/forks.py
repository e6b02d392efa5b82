"""Children that can have no part in their parent's stack leave it alone: those of another PID namespace, and more than a region has
places for. What their parent has goes on.

    forks.py HOST PORT      the far end is peer.py
"""

import ctypes
import errno
import os
import socket
import sys

stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
stream.sendall(b"echo\n")
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWPID = 0x20000000


def echoes(text):
    stream.sendall(text)
    got = b""
    while len(got) < len(text):
        got += stream.recv(100)
    return got == text


def child(act):
    """A child that says what becomes of its use of the socket, and stays until it is told to go."""
    (says, said), (goes, go) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os.write(said, b"carried")
        except OSError as error:
            os.write(said, errno.errorcode[error.errno].encode())
        os.read(goes, 1)
        os._exit(0)
    what = os.read(says, 100).decode()
    for fd in (says, said, goes):
        os.close(fd)
    return pid, go, what


def end(children):
    for pid, go, _ in children:
        os.write(go, b"x")
        os.close(go)
        os.waitpid(pid, 0)


def look():
    stream.getpeername()
    stream.send(b"")
    stream.recv(1, socket.MSG_DONTWAIT)


# The parent and the keeper's other half have a place each.
children = [child(lambda: None if echoes(b"child") else None) for _ in range(62)]
print("children", len(children), {what for _, _, what in children}, flush=True)
late = [child(look) for _ in range(3)]
print("late", [what for _, _, what in late], flush=True)
end(late)
print("parent", echoes(b"parent"), flush=True)
end(children)
print("parent, alone", echoes(b"parent"), flush=True)

assert libc.unshare(CLONE_NEWPID) == 0, ctypes.get_errno()
elsewhere = [child(look) for _ in range(2)]
print("elsewhere", [what for _, _, what in elsewhere], flush=True)
print("parent, meanwhile", echoes(b"parent"), flush=True)
# The first of a namespace ends after all others.
end(elsewhere[::-1])
print("parent, at last", echoes(b"parent"), flush=True)
