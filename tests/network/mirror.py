"""The far end of datagrams.py: answers each datagram by what its first word says. Plain kernel sockets.

    mirror.py PORT
"""

import socket
import sys


def main():
    port = int(sys.argv[1])
    mirror = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    mirror.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    mirror.bind(("::", port))
    other = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    other.bind(("::", port + 1))
    print("ready", flush=True)
    while True:
        data, who = mirror.recvfrom(65536)
        what, _, rest = data.partition(b" ")
        if what == b"many":
            for at in range(int(rest)):
                mirror.sendto(b"%d" % at, who)
        elif what == b"large":
            mirror.sendto(bytes(at % 251 for at in range(int(rest))), who)
        elif what == b"other":
            other.sendto(b"by another", who)
        elif what == b"hops":
            mirror.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
            mirror.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x28)
            mirror.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 33)
            mirror.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x28)
            mirror.sendto(b"hops", who)
        elif what == b"quiet":
            pass
        else:
            mirror.sendto(data, who)


main()
