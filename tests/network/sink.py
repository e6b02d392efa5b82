"""Reads one connection after another, once it is told to on its standard input, and says how much it was."""

import socket
import sys

listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    stream, _ = listener.accept()
    sys.stdin.readline()
    count = 0
    try:
        while data := stream.recv(65536):
            count += len(data)
        print(count, "end", flush=True)
    except OSError as error:
        print(count, error, flush=True)
    stream.close()
