"""The far end: does what the first line of each connection says. Plain kernel sockets, a thread each."""

import socket
import struct
import sys
import threading


def line(stream):
    text = b""
    while not text.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte:
            break
        text += byte
    return text.decode().split()


def pattern(count):
    return bytes((at * 7 + at // 251) % 256 for at in range(count))


def serve(stream):
    words = line(stream)
    what = words[0] if words else "echo"
    if what == "echo":
        while data := stream.recv(65536):
            stream.sendall(data)
    elif what == "send":
        stream.sendall(pattern(int(words[1])))
        stream.recv(1)
    elif what == "give":
        stream.sendall(pattern(int(words[1])))
    elif what == "count":
        total = 0
        while data := stream.recv(65536):
            total += len(data)
        stream.sendall(b"%d\n" % total)
    elif what == "reset":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif what == "urgent":
        stream.sendall(b"before")
        stream.send(b"!", socket.MSG_OOB)
        stream.sendall(b"after")
        stream.recv(1)
    stream.close()


def guarded(stream):
    try:
        serve(stream)
    except OSError:
        # Who connected has closed with something unread, as some cases do.
        stream.close()


def main():
    listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    print("ready", flush=True)
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=guarded, args=(stream,), daemon=True).start()


main()
