"""store.py PORT DIRECTORY: an HTTP server that keeps what is PUT and returns it on GET."""

import http.server
import os
import signal
import sys
import threading

# Where the server is.
HOST = os.environ["SERVER_HOST"]

port, directory = int(sys.argv[1]), sys.argv[2]


class Store(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        if self.headers.get("Expect") == "100-continue" and self.request_version == "HTTP/1.0":
            self.send_error(417)
        with open(os.path.join(directory, os.path.basename(self.path)), "wb") as file:
            while left:
                data = self.rfile.read(min(left, 65536))
                if not data:
                    raise ConnectionError("the client went away")
                file.write(data)
                left -= len(data)
        self.answer(b"")

    def do_GET(self):
        with open(os.path.join(directory, os.path.basename(self.path)), "rb") as file:
            self.answer(file.read())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((HOST, port), Store)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(0.1)
