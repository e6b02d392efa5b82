"""What the scripts of datagrams have in common: HOST PORT OWN NAME are the far end's address and port, this host's address, and its
interface."""

import ctypes
import socket
import struct
import sys

HOST, PORT, OWN, NAME = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
IS_V6 = ":" in HOST
FAMILY = socket.AF_INET6 if IS_V6 else socket.AF_INET
ANY, LOOPBACK = ("::", "::1") if IS_V6 else ("0.0.0.0", "127.0.0.1")
FAR = (HOST, PORT)


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


def dissolve(datagrams):
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.connect(datagrams.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16)


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
