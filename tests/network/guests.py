"""The far end of serve.py: connects when it is told to, on its standard input, and does what it is told. Plain kernel sockets.

    guests.py HOST PORT
"""

import socket
import struct
import sys
import threading


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


def guest(host, port, what, size):
    try:
        stream = socket.create_connection((host, port), timeout=10)
        if what == "echo":
            data = pattern(size)
            sender = threading.Thread(target=stream.sendall, args=(data,))
            sender.start()
            ok = exactly(stream, size) == data
            sender.join()
            stream.shutdown(socket.SHUT_WR)
            ok = ok and stream.recv(1) == b""
        elif what == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ok = True
        elif what == "silent":
            ok = stream.recv(1) == b""
        else:
            ok = False
        stream.close()
        return "ok" if ok else "wrong"
    except OSError as error:
        return str(error.errno)


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    print("ready", flush=True)
    for row in sys.stdin:
        what, count, size = row.split()
        results = [None] * int(count)

        def one(at):
            results[at] = guest(host, port, what, int(size))

        threads = [threading.Thread(target=one, args=(at,)) for at in range(int(count))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(*sorted(set(results)), flush=True)


main()
