"""What a program sees of its sockets: each line of output is the same on every path, but for those that begin with `#`.

    calls.py HOST PORT      the far end is peer.py
"""

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import time

from common import asleep, epoll_events, readable, say, tried, unread, until

HOST, PORT = sys.argv[1], int(sys.argv[2])
FAMILY = socket.AF_INET6 if ":" in HOST else socket.AF_INET


def open_to(command, **options):
    stream = socket.socket(FAMILY)
    for name, value in options.items():
        stream.setsockopt(*getattr(socket, name) if isinstance(getattr(socket, name), tuple) else (socket.SOL_SOCKET, getattr(socket, name)), value)
    stream.connect((HOST, PORT))
    stream.sendall(command.encode() + b"\n")
    return stream


def pattern(count):
    return bytes((at * 7 + at // 251) % 256 for at in range(count))


def exactly(stream, count):
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def carried():
    """How many connections of this host's kernel there are to the far end."""
    count = 0
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(name) as table:
            count += sum(1 for row in table.readlines()[1:] if row.split()[3] == "01" and row.split()[2].endswith("%04X" % PORT))
    return count


def case_echo():
    stream = open_to("echo")
    print("# kernel connections:", carried(), flush=True)
    data = pattern(300_000)
    sender = threading.Thread(target=stream.sendall, args=(data,))
    sender.start()
    say("echo", exactly(stream, len(data)) == data)
    sender.join()
    stream.shutdown(socket.SHUT_WR)
    say("echo end", stream.recv(1), tried(lambda: stream.send(b"x")))
    stream.close()


def case_names():
    stream = open_to("echo")
    say("peer", stream.getpeername()[:2] == (socket.getaddrinfo(HOST, PORT)[0][4][0], PORT))
    say("own", stream.getsockname()[1] != 0, len(stream.getsockname()))
    say("type", stream.type, stream.family, stream.proto)
    stream.close()


def case_refused():
    stream = socket.socket(FAMILY)
    say("refused", tried(lambda: stream.connect((HOST, PORT + 1))), tried(lambda: stream.getpeername()))
    say("refused, again", tried(lambda: stream.connect((HOST, PORT))))
    stream.close()
    stream = socket.socket(FAMILY)
    stream.setblocking(False)
    say("refused, later", errno.errorcode[stream.connect_ex((HOST, PORT + 1))])
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    events = poll.poll(5000)
    say("refused, events", events[0][1] & (select.POLLOUT | select.POLLERR | select.POLLHUP) if events else None)
    say("refused, error", errno.errorcode[stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
    say("refused, error twice", stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    stream.close()


def case_nonblocking():
    stream = socket.socket(FAMILY)
    stream.setblocking(False)
    say("connect", errno.errorcode[stream.connect_ex((HOST, PORT))])
    say("writable", bool(select.select([], [stream], [], 5)[1]), stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    say("connect again", stream.connect_ex((HOST, PORT)) in (0, errno.EISCONN))
    say("nothing there", tried(lambda: stream.recv(10)))
    stream.send(b"echo\n" + b"abc")
    say("there", readable(stream), stream.recv(10))
    say("flags", bool(fcntl.fcntl(stream, fcntl.F_GETFL) & os.O_NONBLOCK))
    stream.close()


def case_flags():
    stream = open_to("send 1000")
    data = pattern(1000)
    say("peek", stream.recv(100, socket.MSG_PEEK) == data[:100])
    say("all", stream.recv(1000, socket.MSG_WAITALL) == data)
    say("dontwait", tried(lambda: stream.recv(1, socket.MSG_DONTWAIT)))
    stream.send(b"x")
    say("end", stream.recv(1), stream.recv(1))
    stream.close()
    stream = open_to("send 1000")
    until(lambda: unread(stream) == 1000)
    say("unread", unread(stream))
    say("dropped", stream.recv_into(bytearray(300), 300, socket.MSG_TRUNC))
    say("left", unread(stream), stream.recv(10) == data[300:310])
    stream.close()


def case_timeouts():
    stream = open_to("echo")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
    begun = time.monotonic()
    say("timeout", tried(lambda: os.read(stream.fileno(), 10)), 0.04 < time.monotonic() - begun < 2)
    begun = time.monotonic()
    say("select", select.select([stream], [], [], 0.05)[0], time.monotonic() - begun >= 0.05)
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    say("poll", poll.poll(0), poll.poll(20))
    stream.close()


def case_vectors():
    stream = open_to("echo")
    sent = os.writev(stream.fileno(), [b"one", b"", b"two", b"three" * 100])
    say("writev", sent)
    buffers = [bytearray(2), bytearray(5), bytearray(2000)]
    until(lambda: unread(stream) == sent)
    say("readv", os.readv(stream.fileno(), buffers), bytes(buffers[0]), bytes(buffers[1]))
    say("sendmsg", stream.sendmsg([b"a" * 10, b"b" * 20]))
    until(lambda: unread(stream) == 30)
    data, control, flags, address = stream.recvmsg(100)
    say("recvmsg", data == b"a" * 10 + b"b" * 20, control, flags, address)
    with tempfile.TemporaryFile() as file:
        file.write(pattern(200_000))
        file.flush()
        offset = 0
        def send():
            nonlocal offset
            while offset < 200_000:
                offset += os.sendfile(stream.fileno(), file.fileno(), offset, 200_000 - offset)
        sender = threading.Thread(target=send)
        sender.start()
        say("sendfile", exactly(stream, 200_000) == pattern(200_000))
        sender.join()
        say("position", file.seek(0, os.SEEK_CUR))
    stream.close()


def case_ends():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    stream = open_to("reset")
    say("reset", until(lambda: "RESET" in str(tried(lambda: stream.recv(1)))) or "no")
    say("after it", tried(lambda: stream.send(b"x")), tried(lambda: stream.recv(1)))
    stream.close()
    stream = open_to("give 5000")
    say("given", exactly(stream, 5000) == pattern(5000), stream.recv(1))
    stream.close()
    stream = open_to("count")
    stream.sendall(b"x" * 100_000)
    stream.shutdown(socket.SHUT_WR)
    say("counted", stream.recv(100))
    say("shut", tried(lambda: stream.send(b"x")))
    poll = select.poll()
    poll.register(stream, select.POLLIN | select.POLLRDHUP)
    stream.recv(1)
    say("hung up", [events for _, events in poll.poll(1000)])
    stream.close()
    got = []
    old = signal.signal(signal.SIGPIPE, lambda *_: got.append("SIGPIPE"))
    stream = open_to("echo")
    stream.shutdown(socket.SHUT_WR)
    say("pipe", tried(lambda: stream.send(b"x", 0)), got, tried(lambda: stream.send(b"x", socket.MSG_NOSIGNAL)), got)
    signal.signal(signal.SIGPIPE, old)
    stream.close()
    say("closed", tried(lambda: os.write(stream.fileno(), b"x")))


def case_urgent():
    stream = open_to("urgent")
    say("urgent", bool(select.select([], [], [stream], 5)[2]))
    until(lambda: unread(stream) >= 6)
    say("urgent byte", tried(lambda: stream.recv(1, socket.MSG_OOB)))
    say("before", stream.recv(100))
    until(lambda: unread(stream) >= 5)
    say("after", stream.recv(100))
    stream.close()


def case_epoll():
    stream = open_to("echo")
    epoll = select.epoll()
    epoll.register(stream, select.EPOLLIN | select.EPOLLOUT)
    say("level", epoll_events(epoll), epoll_events(epoll))
    say("twice", tried(lambda: epoll.register(stream, select.EPOLLIN)))
    epoll.modify(stream, select.EPOLLIN)
    say("nothing", epoll_events(epoll, 0.02))
    stream.send(b"abc")
    say("something", epoll_events(epoll), epoll_events(epoll))
    stream.recv(2)
    say("still", epoll_events(epoll))
    stream.recv(2)
    say("no more", epoll_events(epoll, 0))
    epoll.modify(stream, select.EPOLLIN | select.EPOLLET)
    stream.send(b"abc")
    say("edge", epoll_events(epoll), epoll_events(epoll, 0.02))
    stream.send(b"def")
    say("next edge", epoll_events(epoll), epoll_events(epoll, 0.02), exactly(stream, 6))
    epoll.modify(stream, select.EPOLLIN | select.EPOLLONESHOT)
    stream.send(b"abc")
    say("once", epoll_events(epoll), epoll_events(epoll, 0.02))
    epoll.modify(stream, select.EPOLLIN | select.EPOLLONESHOT)
    say("once more", epoll_events(epoll), stream.recv(3))
    epoll.modify(stream, select.EPOLLIN | select.EPOLLRDHUP)
    stream.shutdown(socket.SHUT_WR)
    say("ends", epoll_events(epoll))
    epoll.unregister(stream)
    say("gone", epoll_events(epoll, 0), tried(lambda: epoll.modify(stream, select.EPOLLIN)))
    stream.close()
    # Before it is connected; with a pipe beside it; closed while it is watched; under two numbers.
    stream = socket.socket(FAMILY)
    stream.setblocking(False)
    epoll.register(stream, select.EPOLLOUT)
    stream.connect_ex((HOST, PORT))
    say("connected", epoll_events(epoll))
    reader, writer = os.pipe()
    epoll.register(reader, select.EPOLLIN)
    os.write(writer, b"x")
    seen = set()
    until(lambda: seen.update(fd for fd, _ in epoll.poll(0)) or len(seen) == 2)
    say("both", seen == {reader, stream.fileno()})
    copy = os.dup(stream.fileno())
    os.read(reader, 1)
    stream.close()
    say("a copy holds it", epoll_events(epoll, 1))
    os.close(copy)
    say("closed", epoll_events(epoll, 0.02))
    epoll.close()


def case_nested():
    stream = open_to("echo")
    inner, outer = select.epoll(), select.epoll()
    inner.register(stream, select.EPOLLIN)
    outer.register(inner, select.EPOLLIN)
    say("nothing inside", epoll_events(outer, 0.02))
    stream.send(b"abc")
    say("something inside", epoll_events(outer), epoll_events(outer), epoll_events(inner))
    stream.recv(10)
    say("nothing any more", epoll_events(outer, 0), select.select([outer, inner], [], [], 0.02)[0])
    sleeper = threading.Timer(0.1, lambda: stream.send(b"wake"))
    sleeper.start()
    say("woken through both", epoll_events(outer), stream.recv(10))
    sleeper.join()
    stream.send(b"abc")
    say("select", len(select.select([outer], [], [], 5)[0]))
    stream.close()


def case_wakes():
    """Somebody sleeps, in each way of sleeping, until something comes."""
    for name in ("recv", "select", "poll", "epoll"):
        stream = open_to("echo")
        sleeper, got = asleep(name, stream)
        stream.send(b"wake")
        sleeper.join(10)
        say("woken from " + name, got)
        stream.close()


def case_interrupted():
    got = []
    stream = open_to("echo")
    signal.signal(signal.SIGALRM, lambda *_: (got.append("alarm"), stream.send(b"late")))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    say("across a handler", stream.recv(10), got)
    stream.close()


def case_fork():
    stream = open_to("echo")
    child = os.fork()
    if child == 0:
        stream.send(b"child")
        ok = exactly(stream, 5) == b"child"
        stream.close()
        os._exit(0 if ok else 1)
    say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stream.send(b"parent")
    say("parent", exactly(stream, 6))
    stream.shutdown(socket.SHUT_WR)
    say("end", stream.recv(1))
    stream.close()


def case_options():
    stream = socket.socket(FAMILY)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
    stream.connect((HOST, PORT))
    for level, name in ((socket.IPPROTO_TCP, "TCP_NODELAY"), (socket.SOL_SOCKET, "SO_KEEPALIVE"), (socket.IPPROTO_TCP, "TCP_KEEPIDLE"),
                        (socket.SOL_SOCKET, "SO_RCVBUF"), (socket.SOL_SOCKET, "SO_TYPE"), (socket.SOL_SOCKET, "SO_ACCEPTCONN"),
                        (socket.SOL_SOCKET, "SO_DOMAIN"), (socket.SOL_SOCKET, "SO_PROTOCOL"), (socket.IPPROTO_TCP, "TCP_CORK")):
        say(name, stream.getsockopt(level, getattr(socket, name)))
    say("state", stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0])
    say("no such option", tried(lambda: stream.getsockopt(socket.IPPROTO_TCP, 9999)))
    say("bad length", tried(lambda: stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, b"")))
    stream.close()


def case_many():
    streams = [open_to("echo") for _ in range(100)]
    epoll = select.epoll()
    for stream in streams:
        epoll.register(stream, select.EPOLLIN)
    by_number = {stream.fileno(): stream for stream in streams}
    left = {}
    for at, stream in enumerate(streams):
        stream.sendall(b"%04d" % at)
        left[stream.fileno()] = b"%04d" % at
    while left:
        for number, _ in epoll.poll(5):
            data = exactly(by_number[number], 4)
            if left.pop(number) != data:
                say("many", "wrong", data)
    say("many", len(streams))
    for stream in streams:
        stream.close()


for name, act in list(globals().items()):
    if name.startswith("case_"):
        print("#", name[5:], flush=True)
        act()
say("end", "all")
