"""The cases of datagrams.py that are about waiting, and about who has a socket."""

import os
import select
import signal
import socket
import struct
import sys
import threading
import time

from common import asleep, epoll_events, readable, say, tried, unread, until
from udp import ANY, FAMILY, FAR, IS_V6, LOOPBACK, NAME, OWN, PORT
from udp import bound, connected, dissolve, made


def case_poll():
    datagrams = connected()
    poll = select.poll()
    poll.register(datagrams, select.POLLIN | select.POLLOUT)
    say("room", poll.poll(1000)[0][1])
    datagrams.send(b"x")
    readable(datagrams)
    say("both", poll.poll(1000)[0][1])
    say("select", [len(part) for part in select.select([datagrams], [datagrams], [datagrams], 1)])
    datagrams.recv(10)
    poll.register(datagrams, select.POLLIN)
    say("neither", poll.poll(0), poll.poll(20), select.select([datagrams], [], [], 0.02)[0])
    reader, writer = os.pipe()
    os.write(writer, b"x")
    poll.register(reader, select.POLLIN)
    datagrams.send(b"x")
    until(lambda: len(poll.poll(1000)) == 2)
    say("with a pipe", len(poll.poll(0)))
    datagrams.close()


def case_epoll():
    datagrams = connected()
    epoll = select.epoll()
    epoll.register(datagrams, select.EPOLLIN | select.EPOLLOUT)
    say("level", epoll_events(epoll), epoll_events(epoll))
    say("twice", tried(lambda: epoll.register(datagrams, select.EPOLLIN)))
    epoll.modify(datagrams, select.EPOLLIN)
    say("nothing", epoll_events(epoll, 0.02))
    datagrams.send(b"abc")
    say("something", epoll_events(epoll), epoll_events(epoll), datagrams.recv(10))
    say("no more", epoll_events(epoll, 0))
    epoll.modify(datagrams, select.EPOLLIN | select.EPOLLET)
    datagrams.send(b"abc")
    say("edge", epoll_events(epoll), epoll_events(epoll, 0.02))
    datagrams.send(b"def")
    say("next edge", epoll_events(epoll), epoll_events(epoll, 0.02), datagrams.recv(3), datagrams.recv(3))
    epoll.modify(datagrams, select.EPOLLIN | select.EPOLLONESHOT)
    datagrams.send(b"abc")
    say("once", epoll_events(epoll), epoll_events(epoll, 0.02))
    epoll.modify(datagrams, select.EPOLLIN | select.EPOLLONESHOT)
    say("once more", epoll_events(epoll), datagrams.recv(3))
    epoll.unregister(datagrams)
    say("gone", epoll_events(epoll, 0), tried(lambda: epoll.modify(datagrams, select.EPOLLIN)))
    datagrams.close()
    # Before it is decided whose it is; under two numbers; nested.
    datagrams = made(socket.SOCK_NONBLOCK)
    epoll.register(datagrams, select.EPOLLIN)
    datagrams.sendto(b"abc", FAR)
    say("decided later", epoll_events(epoll), datagrams.recv(10))
    copy = os.dup(datagrams.fileno())
    outer = select.epoll()
    outer.register(epoll, select.EPOLLIN)
    say("nothing inside", epoll_events(outer, 0.02))
    datagrams.sendto(b"def", FAR)
    say("something inside", epoll_events(outer), os.read(copy, 10))
    datagrams.sendto(b"ghi", FAR)
    datagrams.close()
    say("a copy holds it", epoll_events(epoll), os.read(copy, 10))
    os.close(copy)
    say("closed", epoll_events(epoll, 0.02))
    epoll.close()


def case_wakes():
    """Somebody sleeps, in each way of sleeping, until something comes: also on a socket of which nothing is decided yet."""
    for start in (connected, made):
        for name in ("recv", "select", "poll", "epoll"):
            datagrams = start()
            sleeper, got = asleep(name, datagrams)
            datagrams.sendto(b"wake", FAR)
            sleeper.join(10)
            say("woken from " + name, got)
            datagrams.close()


def case_first_of_threads():
    """Several threads send the first datagram of a socket."""
    for _ in range(10):
        datagrams, ready = made(), threading.Barrier(4)

        def send():
            ready.wait()
            datagrams.sendto(b"first", FAR)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        got = [datagrams.recv(10) for _ in threads]
        if got != [b"first"] * 4:
            say("first", "wrong", got)
        datagrams.close()
    say("first of threads", "all")


def case_interrupted():
    got = []
    datagrams = connected()
    signal.signal(signal.SIGALRM, lambda *_: (got.append("alarm"), datagrams.send(b"late")))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    say("across a handler", datagrams.recv(10), got)
    datagrams.close()


def case_both_halves():
    """Datagrams of this host come by the kernel, and those of the far one as well to the same socket."""
    server = bound()
    port = server.getsockname()[1]
    near = made()
    near.sendto(b"near", (LOOPBACK, port))
    say("near", readable(server), server.recv(10))
    server.sendto(b"far", FAR)
    say("far", readable(server), server.recv(10))
    near.sendto(b"near", (OWN, port))
    server.sendto(b"far", FAR)
    say("both", sorted([server.recv(10), server.recv(10)]))
    server.setblocking(False)
    near.sendto(b"at once", (LOOPBACK, port))
    say("at once", tried(lambda: server.recv(10)))
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN | select.EPOLLET)
    near.sendto(b"near", (LOOPBACK, port))
    say("edge", epoll_events(epoll), server.recv(10), epoll_events(epoll, 0.02))
    epoll.modify(server, select.EPOLLIN | select.EPOLLONESHOT)
    near.sendto(b"near", (LOOPBACK, port))
    say("once", epoll_events(epoll), server.recv(10))
    near.sendto(b"near", (LOOPBACK, port))
    server.sendto(b"far", FAR)
    say("and no more", epoll_events(epoll, 0.05))
    say("the rest", until(lambda: unread(server) > 0), server.recv(10) != b"", readable(server), server.recv(10) != b"")
    epoll.modify(server, select.EPOLLIN | select.EPOLLONESHOT)
    server.sendto(b"far", FAR)
    say("once", epoll_events(epoll), server.recv(10))
    near.sendto(b"near", (LOOPBACK, port))
    say("and no more", epoll_events(epoll, 0.05), server.recv(10))
    client = made()
    client.setsockopt(*((socket.IPPROTO_IPV6, 51) if IS_V6 else (socket.IPPROTO_IP, 12)), 1)
    client.connect(FAR)
    dissolve(client)
    client.connect((LOOPBACK, port))
    client.send(b"by loopback")
    data, who = server.recvfrom(100)
    say("who", data, who[0] == LOOPBACK)
    dissolve(client)
    client.connect(FAR)
    client.send(b"far")
    # What it had set when it was there before is not forgotten.
    data, control, _, _ = client.recvmsg(10, 100)
    say("and elsewhere", data, len(control), client.getsockname()[0] == OWN)
    for each in (server, near, client):
        each.close()


def case_groups():
    group = "ff12::4711" if IS_V6 else "239.1.2.3"
    server = bound()
    port = server.getsockname()[1]
    if IS_V6:
        index = struct.unpack("I", struct.pack("I", socket.if_nametoindex(NAME)))[0]
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(FAMILY, group) + struct.pack("I", index))
    else:
        server.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(OWN))
        server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(OWN))
    server.sendto(b"to all", (group, port))
    say("a group", server.recv(100))
    server.sendto(b"to one", FAR)
    say("and one", server.recv(100))
    if not IS_V6:
        broadcast = OWN.rsplit(".", 1)[0] + ".255"
        say("broadcast", tried(lambda: server.sendto(b"x", (broadcast, PORT))))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        say("allowed", tried(lambda: server.sendto(b"x", (broadcast, PORT + 7))))
    server.close()


def case_options():
    datagrams = made()
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 60_000)
    datagrams.connect(FAR)
    for name in ("SO_RCVBUF", "SO_SNDBUF", "SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ERROR", "SO_BROADCAST", "SO_REUSEADDR"):
        say(name, datagrams.getsockopt(socket.SOL_SOCKET, getattr(socket, name)))
    say("mtu", tried(lambda: datagrams.getsockopt(*((socket.IPPROTO_IPV6, 24) if IS_V6 else (socket.IPPROTO_IP, 14)))))
    say("no such option", tried(lambda: datagrams.getsockopt(socket.IPPROTO_UDP, 9999)), tried(lambda: datagrams.setsockopt(socket.IPPROTO_UDP, 9999, 1)))
    say("bad length", tried(lambda: datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, b"")))
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 70_000)
    say("later", datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
    # One that only the kernel knows takes the socket back, and it goes on.
    datagrams.setsockopt(socket.SOL_SOCKET, 42, 0)  # SO_PEEK_OFF
    datagrams.send(b"0123456789")
    say("peeking on", datagrams.recv(3, socket.MSG_PEEK), datagrams.recv(3, socket.MSG_PEEK), datagrams.recv(100))
    datagrams.close()


def case_device():
    datagrams = made()
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, NAME.encode())
    datagrams.bind((ANY, 0))
    datagrams.sendto(b"by it", FAR)
    say("bound to it", datagrams.recv(10))
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    say("and elsewhere", tried(lambda: datagrams.sendto(b"x", FAR)) in (1, "ENETUNREACH", "EINVAL"), tried(lambda: datagrams.recv(10, socket.MSG_DONTWAIT)))
    datagrams.close()


def case_workers():
    """Each has a socket of its own at one port."""
    first = made()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind((ANY, 0))
    port = first.getsockname()[1]
    first.close()
    pipe, children = socket.socketpair(), []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            worker = made()
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind((ANY, port))
            pipe[1].send(b"r")
            worker.sendto(b"worker", FAR)
            while True:
                worker.recvfrom(100)
                pipe[1].send(b"+")
        children.append(child)
    # Each answer is some worker's.
    got = b""
    while got.count(b"r") < 3 or got.count(b"+") < 3:
        got += pipe[0].recv(10)
    say("workers", got.count(b"+"))
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    again = bound(ANY, port)
    again.sendto(b"again", FAR)
    say("and nobody any more", again.recv(10))
    again.close()


def case_shared_port():
    first, second = made(), made()
    for each in (first, second):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind((ANY, 0))
    port = first.getsockname()[1]
    second.bind((ANY, port))
    say("shared", second.getsockname()[1] == port, tried(lambda: bound(ANY, port)))
    epoll = select.epoll()
    for each in (first, second):
        each.setblocking(False)
        epoll.register(each, select.EPOLLIN)
    got = 0
    for at in range(20):
        first.sendto(b"%d" % at, FAR)
    while got < 20 and (ready := epoll.poll(5)):
        for number, _ in ready:
            each = first if number == first.fileno() else second
            got += tried(lambda: len(each.recv(10))) in (1, 2)
    say("all", got)
    for each in (first, second):
        each.close()


def case_fork():
    datagrams = connected()
    child = os.fork()
    if child == 0:
        datagrams.send(b"child")
        ok = datagrams.recv(10) == b"child"
        datagrams.close()
        os._exit(0 if ok else 1)
    say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    datagrams.send(b"parent")
    say("parent", datagrams.recv(10))
    # The child of a server, which has closed its own.
    port = datagrams.getsockname()[1]
    child = os.fork()
    if child == 0:
        time.sleep(0.05)
        datagrams.send(b"heir")
        os._exit(0 if datagrams.recv(10) == b"heir" else 1)
    datagrams.close()
    say("heir", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    again = bound(OWN, port)
    again.sendto(b"again", FAR)
    say("the port is free", again.recv(10))
    again.close()


def case_given_away():
    """To a child that runs another program, on its standard input."""
    server = bound()
    port = server.getsockname()[1]
    script = "import socket; s = socket.socket(fileno=0); s.sendto(b'child', (%r, %d)); print(s.recv(10).decode(), flush=True)" % FAR
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(server.fileno(), 0)
        os.dup2(writer, 1)
        os.execv(sys.executable, [sys.executable, "-c", script])
    os.close(writer)
    with os.fdopen(reader) as said:
        say("given", said.read(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    server.sendto(b"mine", FAR)
    say("still mine", server.recv(10), server.getsockname()[1] == port)
    server.close()


def case_many():
    many = [connected() for _ in range(100)]
    epoll = select.epoll()
    for each in many:
        epoll.register(each, select.EPOLLIN)
    by_number = {each.fileno(): each for each in many}
    left = {}
    for at, each in enumerate(many):
        each.send(b"%04d" % at)
        left[each.fileno()] = b"%04d" % at
    while left and (ready := epoll.poll(5)):
        for number, _ in ready:
            data = by_number[number].recv(10)
            if left.pop(number) != data:
                say("many", "wrong", data)
    say("many", len(many), len(left))
    for each in many:
        each.close()
