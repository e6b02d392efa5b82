"""What a program sees of its sockets of UDP: each line of output is the same on every path, but for those that begin with `#`.

    datagrams.py HOST PORT OWN NAME     the far end is mirror.py; this host's address, and its interface
"""

import array
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time

HOST, PORT, OWN, NAME = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
IS_V6 = ":" in HOST
FAMILY = socket.AF_INET6 if IS_V6 else socket.AF_INET
ANY, LOOPBACK = ("::", "::1") if IS_V6 else ("0.0.0.0", "127.0.0.1")
FAR = (HOST, PORT)


def say(what, *values):
    print(what + ":", *values, flush=True)


def tried(act):
    try:
        return act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except TimeoutError:
        return "timeout"


def made(kind=0):
    datagrams = socket.socket(FAMILY, socket.SOCK_DGRAM | kind)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    return datagrams


def connected(**options):
    datagrams = made(**options)
    datagrams.connect(FAR)
    return datagrams


def bound(host=ANY, port=0, **options):
    datagrams = made(**options)
    datagrams.bind((host, port))
    return datagrams


def far(address):
    return address[:2] == FAR


def counted():
    """Datagrams that this host's kernel has given to sockets and taken from them, but for loopback."""
    counts = []
    with open("/proc/net/snmp") as table:
        rows = [row.split() for row in table if row.startswith("Udp:")]
        counts += [int(dict(zip(*rows))[name]) for name in ("InDatagrams", "OutDatagrams")]
    with open("/proc/net/snmp6") as table:
        rows = dict(row.split() for row in table)
        counts += [int(rows[name]) for name in ("Udp6InDatagrams", "Udp6OutDatagrams")]
    return sum(counts)


def unread(datagrams):
    count = array.array("i", [0])
    fcntl.ioctl(datagrams, termios.FIONREAD, count)
    return count[0]


def until(is_so):
    for _ in range(5000):
        if is_so():
            return True
        time.sleep(0.001)
    return False


def readable(datagrams, timeout=5):
    return bool(select.select([datagrams], [], [], timeout)[0])


def case_carried():
    before = counted()
    datagrams = connected()
    for at in range(100):
        datagrams.send(b"%d" % at)
        if datagrams.recv(100) != b"%d" % at:
            say("carried", "wrong", at)
    datagrams.close()
    server = bound()
    for at in range(100):
        server.sendto(b"%d" % at, FAR)
        server.recvfrom(100)
    server.close()
    loose = made()
    for at in range(100):
        loose.sendto(b"%d" % at, FAR)
        loose.recvfrom(100)
    loose.close()
    print("# kernel datagrams:", counted() - before, flush=True)


def case_names():
    datagrams = made()
    say("none", datagrams.getsockname()[:2] == (ANY, 0), tried(datagrams.getpeername))
    say("no peer", tried(lambda: datagrams.send(b"x")))
    datagrams.connect(FAR)
    say("own", datagrams.getsockname()[0] == OWN, datagrams.getsockname()[1] != 0, far(datagrams.getpeername()))
    say("type", datagrams.type, datagrams.family, datagrams.proto)
    datagrams.connect((HOST, PORT + 1))
    say("another", datagrams.getpeername()[1] - PORT)
    datagrams.close()
    datagrams = bound(OWN)
    port = datagrams.getsockname()[1]
    say("bound", datagrams.getsockname()[0] == OWN, port != 0, tried(lambda: datagrams.bind((OWN, port))))
    say("taken", tried(lambda: bound(OWN, port)), tried(lambda: bound(ANY, port)))
    datagrams.connect(FAR)
    say("bound and connected", datagrams.getsockname()[:2] == (OWN, port))
    datagrams.close()
    again = bound(OWN, port)
    say("again", again.getsockname()[1] == port)
    again.close()
    say("not ours", tried(lambda: bound("fd00:dead::1" if IS_V6 else "192.0.2.1")))


def dissolve(datagrams):
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.connect(datagrams.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16)


def case_dissolved():
    datagrams = connected()
    datagrams.send(b"one")
    say("connected", datagrams.recv(10))
    say("dissolved", dissolve(datagrams), tried(datagrams.getpeername), datagrams.getsockname()[1], tried(lambda: datagrams.send(b"x")))
    datagrams.sendto(b"two", FAR)
    data, who = datagrams.recvfrom(10)
    say("without a peer", data, far(who))
    datagrams.connect(FAR)
    datagrams.send(b"three")
    say("and again", datagrams.recv(10), far(datagrams.getpeername()))
    datagrams.close()
    server = bound()
    port = server.getsockname()[1]
    server.connect(FAR)
    dissolve(server)
    say("bound still", server.getsockname()[:2] == (ANY, port))
    server.sendto(b"four", FAR)
    say("and of use", server.recv(10))
    server.close()


def case_peer_only():
    datagrams = connected()
    datagrams.send(b"other x")
    datagrams.send(b"mine")
    say("from the peer", datagrams.recv(100))
    say("and nobody else", tried(lambda: datagrams.recv(100, socket.MSG_DONTWAIT)))
    datagrams.close()
    server = bound()
    server.sendto(b"other x", FAR)
    data, who = server.recvfrom(100)
    say("from another", data, who[1] - PORT)
    server.close()


def case_flags():
    datagrams = connected()
    datagrams.setblocking(False)
    say("nothing", tried(lambda: datagrams.recv(10)), tried(lambda: datagrams.recv(10, socket.MSG_PEEK)))
    datagrams.setblocking(True)
    say("dontwait", tried(lambda: datagrams.recv(10, socket.MSG_DONTWAIT)))
    datagrams.send(b"0123456789")
    readable(datagrams)
    say("unread", unread(datagrams))
    say("peek", datagrams.recv(4, socket.MSG_PEEK), datagrams.recv_into(bytearray(4), 4, socket.MSG_PEEK | socket.MSG_TRUNC))
    say("cut", datagrams.recv(4), unread(datagrams), tried(lambda: datagrams.recv(10, socket.MSG_DONTWAIT)))
    datagrams.send(b"0123456789")
    say("length", datagrams.recv_into(bytearray(4), 4, socket.MSG_TRUNC))
    datagrams.send(b"")
    say("empty", readable(datagrams), unread(datagrams), datagrams.recvfrom(10)[0])
    datagrams.send(b"for nothing")
    say("into nothing", datagrams.recv_into(bytearray(1), 0, socket.MSG_TRUNC) in (0, 11))
    readable(datagrams)
    tried(lambda: datagrams.recv(100, socket.MSG_DONTWAIT))
    datagrams.send(b"read")
    readable(datagrams)
    say("read", os.read(datagrams.fileno(), 100), os.write(datagrams.fileno(), b"written"), datagrams.recv(100))
    say("more", datagrams.send(b"a", socket.MSG_MORE), datagrams.send(b"b"), datagrams.recv(100))
    say("oob", tried(lambda: datagrams.send(b"x", socket.MSG_OOB)), tried(lambda: datagrams.recv(1, socket.MSG_OOB)))
    say("too long", tried(lambda: datagrams.send(bytes(65536))))
    say("no port", tried(lambda: datagrams.sendto(b"x", (HOST, 0))))
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
    begun = time.monotonic()
    say("timeout", tried(lambda: os.read(datagrams.fileno(), 10)), 0.04 < time.monotonic() - begun < 2)
    datagrams.close()


def case_large():
    datagrams = connected()
    for size in (1400, 1472, 5000, 60_000):
        datagrams.send(b"large %d" % size)
        say("large", size, datagrams.recv(65536) == bytes(at % 251 for at in range(size)))
    datagrams.send(bytes(30_000))
    say("sent in fragments", datagrams.recv(65536) == bytes(30_000))
    datagrams.close()


def case_messages():
    datagrams = connected()
    say("sendmsg", datagrams.sendmsg([b"a" * 10, b"", b"b" * 20]))
    data, control, flags, who = datagrams.recvmsg(100, 100)
    say("recvmsg", data == b"a" * 10 + b"b" * 20, control, flags, far(who))
    datagrams.send(b"0123456789")
    say("cut", datagrams.recvmsg(4)[0], datagrams.send(b"0123456789"), bool(datagrams.recvmsg(4)[2] & socket.MSG_TRUNC))
    say("writev", os.writev(datagrams.fileno(), [b"one", b"two"]))
    buffers = [bytearray(2), bytearray(10)]
    say("readv", os.readv(datagrams.fileno(), buffers), bytes(buffers[0]), bytes(buffers[1][:4]))
    datagrams.close()
    server = bound()
    say("to", server.sendmsg([b"to"], [], 0, FAR), server.recvmsg(10)[0])
    server.close()


def level(message):
    names = {socket.IPPROTO_IP: "IP", socket.IPPROTO_IPV6: "IPV6", socket.SOL_SOCKET: "SOCKET", socket.IPPROTO_UDP: "UDP"}
    return names.get(message[0], message[0]), message[1]


IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS = 49, 51, 66
SO_TIMESTAMP, SO_TIMESTAMPNS, IP_PKTINFO, IP_RECVTTL = 29, 35, 8, 12


def case_control():
    server = bound()
    server.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    if IS_V6:
        for name in (IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS):
            server.setsockopt(socket.IPPROTO_IPV6, name, 1)
    else:
        for name in (IP_PKTINFO, IP_RECVTTL, socket.IP_RECVTOS):
            server.setsockopt(socket.IPPROTO_IP, name, 1)
    server.sendto(b"hops", FAR)
    data, control, flags, who = server.recvmsg(100, 1000)
    for message in control:
        if level(message) == ("SOCKET", SO_TIMESTAMP):
            seconds, rest = struct.unpack("ll", message[2])
            say("told when", abs(time.time() - seconds - rest / 1e6) < 5)
        else:
            text = message[2].hex()
            if level(message) in (("IP", IP_PKTINFO), ("IPV6", 50)):
                own = socket.inet_pton(FAMILY, OWN).hex()
                text = text.replace(own, "own")
            say("told", *level(message), text)
    say("flags", flags, far(who))
    server.sendto(b"hops", FAR)
    data, control, flags, who = server.recvmsg(100, 20)
    say("no room", len(control), bool(flags & socket.MSG_CTRUNC))
    server.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    server.sendto(b"hops", FAR)
    say("in ns", [level(message) for message in server.recvmsg(100, 1000)[1]][0])
    if IS_V6:
        info = socket.inet_pton(FAMILY, OWN) + struct.pack("I", 0)
        say("from here", server.sendmsg([b"x"], [(socket.IPPROTO_IPV6, 50, info), (socket.IPPROTO_IPV6, 52, struct.pack("i", 7))], 0, FAR))
        wrong = socket.inet_pton(FAMILY, "fd00:dead::1") + struct.pack("I", 0)
        say("from nowhere", tried(lambda: server.sendmsg([b"x"], [(socket.IPPROTO_IPV6, 50, wrong)], 0, FAR)))
    else:
        info = struct.pack("I", 0) + socket.inet_aton(OWN) + bytes(4)
        say("from here", server.sendmsg([b"x"], [(socket.IPPROTO_IP, IP_PKTINFO, info), (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 7))], 0, FAR))
        wrong = struct.pack("I", 0) + socket.inet_aton("192.0.2.1") + bytes(4)
        say("from nowhere", tried(lambda: server.sendmsg([b"x"], [(socket.IPPROTO_IP, IP_PKTINFO, wrong)], 0, FAR)))
        say("bad hops", tried(lambda: server.sendmsg([b"x"], [(socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 300))], 0, FAR)))
    say("and back", server.recv(10))
    server.close()


def case_segments():
    UDP_SEGMENT, UDP_GRO = 103, 104
    datagrams = connected()
    say("cut", datagrams.sendmsg([b"a" * 100 + b"b" * 100 + b"c" * 50], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", 100))]))
    say("pieces", [len(datagrams.recv(1000)) for _ in range(3)])
    datagrams.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
    say("by option", datagrams.send(b"d" * 150), [len(datagrams.recv(1000)) for _ in range(2)])
    datagrams.close()
    corked = connected()
    corked.setsockopt(socket.IPPROTO_UDP, 1, 1)
    say("corked", corked.send(b"one "), corked.send(b"two"), tried(lambda: corked.recv(10, socket.MSG_DONTWAIT)))
    corked.setsockopt(socket.IPPROTO_UDP, 1, 0)
    say("uncorked", corked.recv(10))
    corked.close()


class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(iovec)), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int)]


class mmsghdr(ctypes.Structure):
    _fields_ = [("header", msghdr), ("len", ctypes.c_uint)]


def several(count, size):
    rooms = [ctypes.create_string_buffer(size) for _ in range(count)]
    names = [ctypes.create_string_buffer(28) for _ in range(count)]
    vectors = [iovec(ctypes.addressof(room), size) for room in rooms]
    messages = (mmsghdr * count)()
    for message, name, vector in zip(messages, names, vectors):
        message.header = msghdr(ctypes.addressof(name), 28, ctypes.pointer(vector), 1, None, 0, 0)
    messages.kept = vectors
    return messages, rooms, names


def case_several():
    libc = ctypes.CDLL(None, use_errno=True)
    datagrams = connected()
    messages, rooms, _ = several(4, 100)
    for at, room in enumerate(rooms):
        room.value = b"message %d" % at
        messages[at].header.namelen, messages[at].header.name = 0, None
        messages[at].header.iov[0].len = 9
    say("sendmmsg", libc.sendmmsg(datagrams.fileno(), messages, 4, 0), [message.len for message in messages])
    messages, rooms, names = several(4, 100)
    say("recvmmsg", libc.recvmmsg(datagrams.fileno(), messages, 4, 0, None), [room.value for room in rooms],
        [message.len for message in messages], [struct.unpack("!H", name.raw[2:4])[0] - PORT for name in names])
    datagrams.send(b"many 3")
    datagrams.send(b"last")
    got = 0
    while got < 4:
        messages, rooms, _ = several(8, 100)
        count = libc.recvmmsg(datagrams.fileno(), messages, 8, 0x10000, None)
        got += count
        last = rooms[count - 1].value
    say("wait for one", got, last)
    say("none", libc.recvmmsg(datagrams.fileno(), messages, 4, socket.MSG_DONTWAIT, None), errno.errorcode[ctypes.get_errno()])
    class timespec(ctypes.Structure):
        _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]
    datagrams.send(b"one")
    readable(datagrams)
    say("until a time", libc.recvmmsg(datagrams.fileno(), messages, 1, 0, ctypes.byref(timespec(1, 0))))
    datagrams.close()


def case_errors():
    """The far host has nobody at this port."""
    datagrams = made()
    datagrams.connect((HOST, PORT + 7))
    datagrams.send(b"x")
    poll = select.poll()
    poll.register(datagrams, select.POLLIN)
    say("events", [events for _, events in poll.poll(5000)])
    say("error", errno.errorcode[datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)], datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    datagrams.send(b"x")
    say("recv", tried(lambda: datagrams.recv(10)))
    datagrams.send(b"x")
    poll.poll(5000)
    time.sleep(0.01)
    say("send", tried(lambda: datagrams.send(b"x")))
    datagrams.close()
    server = bound()
    server.sendto(b"x", (HOST, PORT + 7))
    server.sendto(b"after", FAR)
    say("no peer, no error", server.recv(10))
    if IS_V6:
        server.setsockopt(socket.IPPROTO_IPV6, 25, 1)
    else:
        server.setsockopt(socket.IPPROTO_IP, 11, 1)
    server.sendto(b"refused", (HOST, PORT + 7))
    poll.register(server, select.POLLIN)
    poll.poll(5000)
    data, control, flags, who = server.recvmsg(100, 1000, socket.MSG_ERRQUEUE)
    say("queue", data, [level(message) for message in control], bool(flags & socket.MSG_ERRQUEUE), who[1] - PORT, struct.unpack("IBBB", control[0][2][:7]))
    say("queue is empty", tried(lambda: server.recvmsg(100, 1000, socket.MSG_ERRQUEUE)))
    server.close()


def case_shutdown():
    datagrams = connected()
    datagrams.send(b"before")
    readable(datagrams)
    datagrams.shutdown(socket.SHUT_RD)
    poll = select.poll()
    poll.register(datagrams, select.POLLIN | select.POLLRDHUP)
    say("events", [events for _, events in poll.poll(1000)])
    say("left", datagrams.recv(10), datagrams.recv(10))
    datagrams.shutdown(socket.SHUT_WR)
    say("events", [events for _, events in poll.poll(1000)])
    say("send", tried(lambda: datagrams.send(b"x", socket.MSG_NOSIGNAL)))
    datagrams.close()
    server = bound()
    say("without a peer", tried(lambda: server.shutdown(socket.SHUT_RD)))
    say("the end", server.recv(10))
    server.close()


def epoll_events(epoll, timeout=5):
    return [events for _, events in epoll.poll(timeout)]


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
            datagrams, got = start(), []

            def sleep():
                if name == "select":
                    got.append(len(select.select([datagrams], [], [], 10)[0]))
                elif name == "poll":
                    poll = select.poll()
                    poll.register(datagrams, select.POLLIN)
                    got.append(len(poll.poll(10_000)))
                elif name == "epoll":
                    epoll = select.epoll()
                    epoll.register(datagrams, select.EPOLLIN)
                    got.append(len(epoll.poll(10)))
                got.append(datagrams.recv(10))

            sleeper = threading.Thread(target=sleep)
            sleeper.start()
            time.sleep(0.1)
            datagrams.sendto(b"wake", FAR)
            sleeper.join(10)
            say("woken from " + name, got)
            datagrams.close()


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
    client.connect((LOOPBACK, port))
    client.send(b"by loopback")
    data, who = server.recvfrom(100)
    say("who", data, who[0] == LOOPBACK)
    dissolve(client)
    client.connect(FAR)
    client.send(b"far")
    say("and elsewhere", client.recv(10), client.getsockname()[0] == OWN)
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


for name, act in list(globals().items()):
    if name.startswith("case_"):
        print("#", name[5:], flush=True)
        act()
say("end", "all")
