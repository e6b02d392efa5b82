"""What a server sees of its sockets: each line of output is the same on every path, but for those that begin with `#`. Lines that begin
with `>` are for guests.py, whose answers come on the standard input.

    serve.py ADDRESS PORT OWN      the address to listen at, and one of this host
"""

import fcntl
import os
import select
import socket
import subprocess
import sys
import threading

from common import say, tried

ADDRESS, PORT, OWN = sys.argv[1], int(sys.argv[2]), sys.argv[3]
FAMILY = socket.AF_INET6 if ":" in ADDRESS else socket.AF_INET


def invite(what, count=1, size=0):
    print(">", what, count, size, flush=True)


def answer():
    return sys.stdin.readline().strip()


def listener(backlog=64, **options):
    one = socket.socket(FAMILY)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for name in options:
        one.setsockopt(socket.SOL_SOCKET, getattr(socket, name), options[name])
    one.bind((ADDRESS, PORT))
    one.listen(backlog)
    return one


def carried():
    count = 0
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(name) as table:
            count += sum(1 for row in table.readlines()[1:] if row.split()[3] == "01" and row.split()[1].endswith("%04X" % PORT))
    return count


def echo(stream):
    while data := stream.recv(65536):
        stream.sendall(data)
    stream.close()


def case_plain():
    one = listener()
    invite("echo", 1, 200_000)
    stream, peer = one.accept()
    print("# kernel connections:", carried(), flush=True)
    say("names", peer == stream.getpeername(), stream.getsockname()[1] == PORT, len(peer))
    say("blocking", not fcntl.fcntl(stream, fcntl.F_GETFL) & os.O_NONBLOCK, not fcntl.fcntl(one, fcntl.F_GETFL) & os.O_NONBLOCK)
    say("listens", one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), stream.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    echo(stream)
    say("guest", answer())
    say("not connected", tried(one.getpeername), tried(lambda: one.recv(1)))
    one.close()


def case_again():
    """The same port at once, although connections of it were closed here."""
    for _ in range(3):
        one = listener()
        invite("silent")
        stream, _ = one.accept()
        stream.close()
        say("guest", answer())
        one.close()


def case_nonblocking():
    one = listener()
    one.setblocking(False)
    say("none", tried(one.accept), bool(fcntl.fcntl(one, fcntl.F_GETFL) & os.O_NONBLOCK))
    poll = select.poll()
    poll.register(one, select.POLLIN)
    say("poll", poll.poll(20))
    invite("echo", 1, 1000)
    say("poll", [events for _, events in poll.poll(5000)])
    stream, _ = one.accept()
    say("none", tried(one.accept), poll.poll(0))
    stream.setblocking(True)
    echo(stream)
    say("guest", answer())
    one.close()


def case_epoll():
    one = listener()
    one.setblocking(False)
    epoll = select.epoll()
    epoll.register(one, select.EPOLLIN)
    invite("echo", 30, 20_000)
    streams, ended = {}, 0
    while ended < 30:
        for number, _ in epoll.poll(5):
            if number == one.fileno():
                stream, _ = one.accept()
                streams[stream.fileno()] = stream
                epoll.register(stream, select.EPOLLIN)
                continue
            data = streams[number].recv(65536)
            if data:
                streams[number].sendall(data)
                continue
            epoll.unregister(number)
            streams.pop(number).close()
            ended += 1
    say("guests", answer())
    one.close()


def case_local():
    """The kernel's half of the listener: a guest on this host."""
    one = listener()
    here = "::1" if FAMILY == socket.AF_INET6 else "127.0.0.1"
    if ADDRESS in ("0.0.0.0", "::"):
        guest = socket.create_connection((here, PORT))
        stream, peer = one.accept()
        guest.sendall(b"here")
        say("local", stream.recv(10), peer[0] in (here, "::ffff:" + here))
        guest.close()
        stream.close()
    own = socket.create_connection((OWN, PORT))
    stream, _ = one.accept()
    own.sendall(b"own")
    say("own address", stream.recv(10))
    own.close()
    stream.close()
    one.close()


def case_fork():
    """Each connection to a child of its own."""
    one = listener()
    invite("echo", 8, 30_000)
    children = []
    for _ in range(8):
        stream, _ = one.accept()
        child = os.fork()
        if child == 0:
            one.close()
            echo(stream)
            os._exit(0)
        stream.close()
        children.append(child)
    say("guests", answer(), {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children})
    one.close()


def case_workers():
    """Children that share a listener."""
    one = listener()
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            while True:
                stream, _ = one.accept()
                echo(stream)
        children.append(child)
    invite("echo", 20, 30_000)
    say("guests", answer())
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
    invite("silent")
    stream, _ = one.accept()
    stream.close()
    say("after them", answer())
    one.close()


def case_spawn():
    """A child that runs another program has nothing of ours."""
    one = listener()
    invite("silent")
    stream, _ = one.accept()
    child = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: None)
    stream.close()
    say("guest", answer())
    child.kill()
    child.wait()
    one.close()


def case_threads():
    one = listener()
    one.settimeout(5)
    invite("echo", 20, 50_000)
    threads = [threading.Thread(target=lambda: echo(one.accept()[0])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("guests", answer())
    one.close()


def case_reset():
    one = listener()
    invite("reset")
    say("reset", answer())
    stream, _ = one.accept()
    say("read", tried(lambda: stream.recv(1)))
    stream.close()
    invite("silent")
    stream, _ = one.accept()
    one.close()
    stream.close()
    say("guest", answer())
    invite("silent")
    say("nobody listens", answer())


def case_shared():
    """SO_REUSEPORT."""
    both = [listener(SO_REUSEPORT=1), listener(SO_REUSEPORT=1)]
    invite("echo", 10, 100)
    left = 10
    while left:
        for one in select.select(both, [], [], 5)[0]:
            echo(one.accept()[0])
            left -= 1
    say("guests", answer())
    for one in both:
        one.close()
    say("taken", tried(lambda: listener() and listener()))


for name, act in list(globals().items()):
    if name.startswith("case_"):
        print("#", name[5:], flush=True)
        act()
say("end", "all")
