"""A whole runtime on top: Python's socket, selectors, asyncio, http and multiprocessing modules."""
import array
import asyncio
import http.client
import http.server
import multiprocessing.reduction
import os
import select
import selectors
import socket
import socketserver
import subprocess
import tempfile
import threading
import zlib

import harness
from harness import call, case, hear, listener, main, out, pair, pattern, read_all, read_exactly, step, tell, warm


@case
def send_and_receive():
    s = pair()
    for n in (1, 100, 5000, 300000):
        if harness.server:
            call("sendall", s.sendall, pattern(n, n))
        else:
            out(read_exactly(s, n) == pattern(n, n))
    step()
    s.settimeout(0.1)
    call("recv with timeout", s.recv, 10)
    s.setblocking(False)
    call("recv without blocking", s.recv, 10)
    s.setblocking(True)
    step()
    if harness.server:
        call("shutdown", s.shutdown, socket.SHUT_WR)
    else:
        call("recv at the end", s.recv, 10)


@case
def into_buffers():
    s = pair()
    if harness.server:
        s.sendall(pattern(10000, 1))
        call("sendmsg", s.sendmsg, [b"abc", b"", b"defg"])
    else:
        buf = bytearray(6000)
        got = 0
        while got < 6000:
            got += s.recv_into(memoryview(buf)[got:])
        out(bytes(buf) == pattern(10000, 1)[:6000])
        out(read_exactly(s, 4000) == pattern(10000, 1)[6000:])
        parts = [bytearray(3), bytearray(4)]
        while s.recv(7, socket.MSG_PEEK) != b"abcdefg":
            pass
        call("recvmsg_into", lambda: s.recvmsg_into(parts)[:3])
        out(parts)


@case
def files_of_a_socket():
    s = pair()
    f = s.makefile("rw", newline="\n")
    if harness.server:
        for line in f:
            f.write("echo " + line)
            f.flush()
    else:
        for i in range(30):
            f.write(f"line {i}\n")
            f.flush()
            if f.readline() != f"echo line {i}\n":
                out("line", i, "differs")
        s.shutdown(socket.SHUT_WR)
        call("readline at the end", f.readline)


@case
def timeouts_and_modes():
    s = pair()
    if not harness.server:
        s.settimeout(5)
        step()
        call("recv", s.recv, 10)
        step()
        s.settimeout(0.05)
        call("recv", s.recv, 10)
        call("gettimeout", s.gettimeout)
        call("getblocking", s.getblocking)
        s.settimeout(None)
        call("getblocking", s.getblocking)
    else:
        step()
        s.sendall(b"in time")
        step()
    step()


@case
def select_module():
    s = pair()
    for i in range(5):
        if harness.server:
            step()
            s.sendall(b"x")
        elif i == 0:
            call("select", lambda: len(select.select([s], [], [], 0)[0]))
            step()
            select.select([s], [], [])
            call("select", lambda: len(select.select([s], [s], [s], None)[0]))
        elif i == 1:
            p = select.poll()
            p.register(s, select.POLLIN | select.POLLRDHUP)
            call("poll", p.poll, 0)
            step()
            call("poll", lambda: [e for _, e in p.poll()])
        elif i == 2:
            e = select.epoll()
            e.register(s, select.EPOLLIN | select.EPOLLET)
            call("epoll", e.poll, 0)
            step()
            call("epoll", lambda: [m for _, m in e.poll()])
            call("epoll", e.poll, 0)
            e.close()
        else:
            with selectors.DefaultSelector() as sel:
                sel.register(s, selectors.EVENT_READ, "data")
                call("selector", sel.select, 0)
                step()
                call("selector", lambda: [(k.data, m) for k, m in sel.select()])
        if not harness.server:
            call("recv", s.recv, 10)
        step()


@case
def sendfile_of_a_socket():
    s = pair()
    if harness.server:
        with tempfile.TemporaryFile() as f:
            f.write(pattern(500000, 3))
            f.seek(0)
            s.sendall(b"head")
            call("sendfile", s.sendfile, f)
            call("sendfile", s.sendfile, f, 1000, 500)
            call("os.sendfile", os.sendfile, s.fileno(), f.fileno(), 0, 10)
    else:
        data = pattern(500000, 3)
        out(read_exactly(s, 4))
        out(read_exactly(s, 500000) == data)
        out(read_exactly(s, 500) == data[1000:1500])
        out(read_exactly(s, 10) == data[:10])


@case
def duplicates():
    s = pair()
    d = s.dup()
    e = socket.socket(fileno=os.dup(s.fileno()))
    f = socket.fromfd(s.fileno(), s.family, s.type)
    out(d.family == s.family, e.getpeername() == s.getpeername(), e.type == s.type)
    for one in (s, d, e, f):
        if harness.server:
            one.sendall(b"from one of them")
        else:
            out(read_exactly(one, 16))
        one.close()
    step()


@case
def detached_and_wrapped_again():
    s = pair()
    fd = s.detach()
    call("recv on the shell", s.recv, 1)
    t = socket.socket(fileno=fd)
    if harness.server:
        t.sendall(b"still alive")
    else:
        out(read_exactly(t, 11))
    os.close(t.detach())


async def _echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@case
def asyncio_streams():
    async def serve():
        done = asyncio.Event()
        count = 0

        async def one(reader, writer):
            nonlocal count
            await _echo(reader, writer)
            count += 1
            if count == 10:
                done.set()

        srv = await asyncio.start_server(one, "127.0.0.1", 0)
        tell(srv.sockets[0].getsockname()[1])
        await done.wait()
        srv.close()
        out("served", count)

    async def one_client(port, k):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in range(harness.warm_n + 20):
            message = pattern(1 + i * 37 % 2000, k + i)
            writer.write(message)
            await writer.drain()
            if await reader.readexactly(len(message)) != message:
                out("connection", k, "message", i, "differs")
        writer.write(pattern(400000, k))
        if await reader.readexactly(400000) != pattern(400000, k):
            out("connection", k, "large message differs")
        writer.write_eof()
        end = await reader.read()
        writer.close()
        return k, len(end)

    async def clients(port):
        out(await asyncio.gather(*(one_client(port, k) for k in range(10))))

    asyncio.run(serve() if harness.server else clients(hear()))


@case
def asyncio_large_both_ways():
    async def run(s):
        reader, writer = await asyncio.open_connection(sock=s)

        async def give():
            for i in range(40):
                writer.write(pattern(200000, i + harness.server))
                await writer.drain()
            writer.write_eof()

        async def take():
            crc = 0
            total = 0
            while data := await reader.read(100000):
                crc = zlib.crc32(data, crc)
                total += len(data)
            out("received", total, f"{crc:08x}")

        await asyncio.gather(give(), take())
        writer.close()

    asyncio.run(run(pair()))


@case
def asyncio_low_level():
    async def run(s):
        loop = asyncio.get_running_loop()
        s.setblocking(False)
        for i in range(50):
            if harness.server:
                data = await loop.sock_recv(s, 1000)
                await loop.sock_sendall(s, data)
            else:
                await loop.sock_sendall(s, pattern(10 + i, i))
                if await loop.sock_recv(s, 1000) != pattern(10 + i, i):
                    out("message", i, "differs")
        try:
            await asyncio.wait_for(loop.sock_recv(s, 10), 0.05)
        except asyncio.TimeoutError:
            out("timed out, as it should")
        # Nobody goes on before both have timed out.
        await loop.run_in_executor(None, step)
        if harness.server:
            await loop.sock_sendall(s, b"end")
        else:
            out(await loop.sock_recv(s, 10))

    asyncio.run(run(pair()))


@case
def socketserver_with_threads():
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(line.upper())

    if harness.server:
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as srv:
            thread = threading.Thread(target=srv.serve_forever)
            thread.start()
            tell(srv.server_address[1])
            step()
            srv.shutdown()
            thread.join()
    else:
        port = hear()
        conns = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        for i in range(20 + harness.warm_n):
            for k, c in enumerate(conns):
                c.sendall(f"line {i} of {k}\n".encode())
                if read_exactly(c, len(f"line {i} of {k}\n")) != f"LINE {i} OF {k}\n".encode():
                    out("differs", i, k)
        for c in conns:
            c.shutdown(socket.SHUT_WR)
            out(c.recv(10))
        step()


@case
def socketserver_with_processes():
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(line.upper())

    if harness.server:
        with socketserver.ForkingTCPServer(("127.0.0.1", 0), Handler) as srv:
            tell(srv.server_address[1])
            for _ in range(4):
                srv.handle_request()
    else:
        port = hear()
        for k in range(4):
            c = socket.create_connection(("127.0.0.1", port))
            for i in range(10 + harness.warm_n):
                c.sendall(f"line {i} of {k}\n".encode())
                if read_exactly(c, len(f"line {i} of {k}\n")) != f"LINE {i} OF {k}\n".encode():
                    out("differs", i, k)
            c.shutdown(socket.SHUT_WR)
            out(c.recv(10))


@case
def http_requests():
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = pattern(int(self.path[1:]), 1)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "8")
            self.end_headers()
            self.wfile.write(f"{zlib.crc32(body):08x}".encode())

        def log_message(self, *args):
            pass

    if harness.server:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as srv:
            thread = threading.Thread(target=srv.serve_forever)
            thread.start()
            tell(srv.server_address[1])
            step()
            srv.shutdown()
            thread.join()
    else:
        c = http.client.HTTPConnection("127.0.0.1", hear())
        for i in range(10 + harness.warm_n):
            n = (i * 7919) % 50000
            c.request("GET", f"/{n}")
            r = c.getresponse()
            body = r.read()
            if r.status != 200 or body != pattern(n, 1):
                out("GET", i, r.status, len(body))
            c.request("POST", "/", pattern(n, i))
            r = c.getresponse()
            if r.read() != f"{zlib.crc32(pattern(n, i)):08x}".encode():
                out("POST", i, "differs")
        c.close()
        step()


@case
def a_program_on_the_socket():
    s = pair()
    if harness.server:
        p = subprocess.Popen(["tr", "a-z", "A-Z"], stdin=s, stdout=s)
        s.close()
        out("tr exits", p.wait())
    else:
        s.sendall(b"some text\n" * 1000)
        s.shutdown(socket.SHUT_WR)
        out(read_all(s) == b"SOME TEXT\n" * 1000)


@case
def programs_beside_the_socket():
    s = pair()
    for i in range(3):
        out(subprocess.run(["echo", "hello"], capture_output=True).stdout)
        if harness.server:
            s.sendall(pattern(1000, i))
        else:
            out(read_exactly(s, 1000) == pattern(1000, i))


@case
def handed_to_a_child_process():
    here, there = socket.socketpair()
    child = 0
    if harness.server:
        child = os.fork()
        if child == 0:
            here.close()
            fds = array.array("i")
            _, control, _, _ = there.recvmsg(1, socket.CMSG_LEN(fds.itemsize))
            fds.frombytes(control[0][2][: fds.itemsize])
            t = socket.socket(fileno=fds[0])
            t.sendall(read_exactly(t, 1000))
            os._exit(0)
    s = pair()
    if harness.server:
        s.sendall(b"from the parent")
        here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
        s.close()
        out("child", os.waitpid(child, 0)[1])
    else:
        out(read_exactly(s, 15))
        s.sendall(pattern(1000, 1))
        out(read_exactly(s, 1000) == pattern(1000, 1), s.recv(1))


@case
def threads_on_both_sides():
    s = pair()

    def give():
        for i in range(20):
            s.sendall(pattern(100000, i))
        s.shutdown(socket.SHUT_WR)

    t = threading.Thread(target=give)
    t.start()
    data = read_all(s)
    t.join()
    out(len(data), data == b"".join(pattern(100000, i) for i in range(20)))


@case
def errors_as_exceptions():
    with listener() as l:
        port = l.getsockname()[1]
    call("connect", socket.create_connection, ("127.0.0.1", port))
    s = pair()
    if harness.server:
        s.close()
        call("send when closed", s.send, b"x")
        step()
        step()
    else:
        step()
        call("recv", s.recv, 10)
        call("send", s.send, b"x")
        p = select.poll()
        p.register(s, 0)
        p.poll(5000)
        call("send", s.send, b"x")
        call("recv", s.recv, 10)
        step()


@case
def many_connections():
    if harness.server:
        with listener() as l:
            tell(l.getsockname()[1])
            conns = [l.accept()[0] for _ in range(50)]
    else:
        port = hear()
        conns = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    for i in range(10 + harness.warm_n // 4):
        for k, c in enumerate(conns):
            message = pattern(100 + k, i)
            if harness.server:
                c.sendall(read_exactly(c, len(message)))
            else:
                c.sendall(message)
                if read_exactly(c, len(message)) != message:
                    out("differs", i, k)
    for c in conns:
        c.close()


main()
