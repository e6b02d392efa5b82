"""What the Python programs of the differential corpus share: the same arguments, transcript and control channel as harness.h."""
import errno
import os
import signal
import socket
import struct
import sys
import zlib

TRANSCRIPT, CONTROL = 100, 101
CASES = {}
server = False
warm_n = 0
_steps = 0


def case(function):
    CASES[function.__name__] = function
    return function


def out(*words):
    os.write(TRANSCRIPT, (" ".join(str(w) for w in words) + "\n").encode())


def call(text, function, *args):
    """Make a call and write down its result or its error."""
    try:
        result = function(*args)
    except OSError as e:
        out(f"{text}: {type(e).__name__} {errno.errorcode.get(e.errno, e.errno)}")
        return None
    shown = repr(result) if not isinstance(result, (bytes, bytearray)) or len(result) < 60 else f"{len(result)} bytes {zlib.crc32(result):08x}"
    out(f"{text} = {shown}")
    return result


def tell(value):
    os.write(CONTROL, struct.pack("ii", ord("v"), value))


def hear():
    data = os.read(CONTROL, 8)
    if len(data) < 8:
        out("HARNESS: the other side is gone")
        os._exit(92)
    return struct.unpack("ii", data)[1]


def step():
    global _steps
    _steps += 1
    tell(_steps)
    if hear() != _steps:
        out("HARNESS: out of step")
        os._exit(93)


def pattern(n, seed):
    block = bytes((i * 31 + seed * 7 + (i >> 8)) & 255 for i in range(4096))
    return (block * (n // 4096 + 1))[:n]


def read_exactly(s, n):
    data = bytearray()
    while len(data) < n:
        more = s.recv(min(n - len(data), 1 << 18))
        if not more:
            break
        data += more
    return bytes(data)


def read_all(s):
    data = bytearray()
    while more := s.recv(1 << 18):
        data += more
    return bytes(data)


def warm(s):
    for i in range(warm_n):
        message = bytes([97 + i % 26]) * 32
        if server:
            s.sendall(read_exactly(s, 32))
        else:
            s.sendall(message)
            if read_exactly(s, 32) != message:
                out("warm: DIFFERENT BYTES")


def listener(family=socket.AF_INET, ip="127.0.0.1"):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((ip, 0))
    s.listen(64)
    return s


def pair():
    """The two ends of a warmed connection, one at each side."""
    if server:
        with listener() as l:
            tell(l.getsockname()[1])
            s, _ = l.accept()
    else:
        s = socket.create_connection(("127.0.0.1", hear()))
    warm(s)
    step()
    return s


def main():
    global server, warm_n
    if sys.argv[1:] == ["list"]:
        print("\n".join(CASES))
        return
    _, _, name, warm_text, role = sys.argv
    server, warm_n = role == "server", int(warm_text)
    os.dup2(1, TRANSCRIPT, inheritable=False)
    os.dup2(3, CONTROL, inheritable=False)
    os.close(3)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    CASES[name]()
    out("end of case")
    tell(0)
    os.read(CONTROL, 8)
