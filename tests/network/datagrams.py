"""What a program sees of its sockets of UDP: each line of output is the same on every path, but for those that begin with `#`.

    datagrams.py HOST PORT OWN NAME     the far end is mirror.py; this host's address, and its interface
"""

import ctypes
import errno
import os
import select
import socket
import struct
import time

import halves
from common import readable, say, tried, unread
from udp import ANY, FAMILY, FAR, HOST, IS_V6, OWN, PORT
from udp import bound, connected, counted, dissolve, far, made, several


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


for name, act in [*globals().items(), *vars(halves).items()]:
    if name.startswith("case_"):
        print("#", name[5:], flush=True)
        act()
say("end", "all")
