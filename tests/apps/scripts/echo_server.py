"""echo_server.py asyncio|threads|prefork PORT: returns what it gets until the end of each connection."""

import asyncio
import multiprocessing
import os
import signal
import socket
import socketserver
import sys
import threading

# Where the server is.
HOST = os.environ["SERVER_HOST"]


def on_asyncio(port):
    async def serve(reader, writer):
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def run():
        server = await asyncio.start_server(serve, HOST, port, backlog=256)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        try:
            await server.serve_forever()
        except asyncio.CancelledError:
            pass

    asyncio.run(run())


def on_threads(port):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            while data := self.request.recv(100_000):
                self.request.sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        request_queue_size = 256
        daemon_threads = True

    with Server((HOST, port), Handler) as server:
        # shutdown() waits for serve_forever(), which the handler interrupts: another thread has to call it.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever(0.1)


def accept_for_ever(listener):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection):
    with connection:
        while data := connection.recv(100_000):
            connection.sendall(data)


def on_prefork(port):
    listener = socket.create_server((HOST, port), backlog=256)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=accept_for_ever, args=(listener,)) for _ in range(4)]
    for worker in workers:
        worker.start()

    def stop(*_):
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, stop)
    for worker in workers:
        worker.join()
        if worker.exitcode not in (0, -signal.SIGTERM):
            print("segmentation fault or the like in a worker:", worker.exitcode, file=sys.stderr, flush=True)
            os._exit(1)


{"asyncio": on_asyncio, "threads": on_threads, "prefork": on_prefork}[sys.argv[1]](int(sys.argv[2]))
