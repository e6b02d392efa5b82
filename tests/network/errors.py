"""What routers say of packets reaches the socket that has sent them. One line for each thing seen: the same on the kernel and on the stack.

    errors.py HOST PORT ADDRESS...    HOST is behind a router and a link with a smaller MTU, and runs peer.py; nobody is at the ADDRESSes

It asks for the way to HOST to be cut by a line with `>`, and waits for one on its standard input.
"""

import errno
import select
import socket
import sys

HOST, PORT, NOBODY = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
FAMILY = socket.AF_INET6 if ":" in HOST else socket.AF_INET
# linux/in.h, linux/in6.h
IP_MTU, IPV6_MTU = 14, 24


def say(*words):
    print(*words, flush=True)


def tried(call):
    try:
        return call()
    except OSError as error:
        return errno.errorcode.get(error.errno, error)


def ended(stream):
    """Whether poll says that a connection has failed, and why it has. The kernel sets an error before the state that goes with it."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    events = poll.poll(20_000)
    failed = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return events and bool(events[0][1] & select.POLLERR), errno.errorcode.get(failed, failed)


def nobody_there(address):
    stream = socket.socket(FAMILY)
    say("connect", address, tried(lambda: stream.connect((address, PORT))))
    stream.close()
    stream = socket.socket(FAMILY)
    stream.setblocking(False)
    say("connect, later", address, tried(lambda: stream.connect((address, PORT))), *ended(stream))
    stream.close()


def smaller_link():
    data = bytes(at % 251 for at in range(3_000_000))
    stream = socket.create_connection((HOST, PORT))
    stream.sendall(b"count\n")
    stream.sendall(data)
    stream.shutdown(socket.SHUT_WR)
    say("sent", stream.recv(100))
    name = (socket.IPPROTO_IP, IP_MTU) if FAMILY == socket.AF_INET else (socket.IPPROTO_IPV6, IPV6_MTU)
    say("the path's MTU", stream.getsockopt(*name))
    stream.close()
    # What is known of the path holds for who comes later, and what comes back is as large as it says.
    stream = socket.create_connection((HOST, PORT))
    say("the next one's", stream.getsockopt(*name))
    stream.sendall(b"give 1000000\n")
    got = 0
    while piece := stream.recv(65536):
        got += len(piece)
    say("received", got)
    stream.close()


def cut():
    stream = socket.create_connection((HOST, PORT))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1500)
    stream.sendall(b"echo\nabc")
    say("before", stream.recv(3))
    say("> cut")
    sys.stdin.readline()
    stream.send(b"def")
    # A router's word doesn't end a connection (RFC 1122 §4.2.3.9), but says why it has ended.
    say("cut", *ended(stream), tried(lambda: stream.recv(1)))
    stream.close()


for address in NOBODY:
    nobody_there(address)
smaller_link()
cut()
print("end: all", flush=True)
