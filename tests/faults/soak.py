#!/usr/bin/env python3
"""A mixed soak under accel, with deaths: nginx and wrk, redis and redis-benchmark, PostgreSQL and pgbench (R81).

    python3 tests/faults/soak.py --minutes 60 --kill-every 20

Every so many seconds one of the programs is killed and started again. Beside the loads a checker, under accel as well,
writes random values to redis and reads them back, and fetches a file from nginx: every byte is compared. A load that
does not end in its time is a hang. The last line counts; the exit status is 1 if a byte was wrong or something hung.
"""

import argparse
import hashlib
import http.client
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = os.environ.get("ACCEL_LIB") or str(REPO / "target/release/libaccel.so")
FILE_BYTES = 2_000_000
# A load that runs for five seconds and has not ended after this hangs.
PATIENCE = 90

NGINX = """
daemon off; worker_processes 2; error_log stderr crit; pid {dir}/nginx.pid;
events {{ worker_connections 1000; }}
http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi; keepalive_requests 1000000;
  server {{ listen 127.0.0.1:{port}; root {dir}/www; }} }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def abstract_names():
    """accel's names among the AF_UNIX sockets; the rest of each is the bytes of two addresses."""
    lines = pathlib.Path("/proc/net/unix").read_bytes().splitlines()
    return {line.split(b"@accel", 1)[1] for line in lines if b"@accel" in line}


class Program:
    """A program under accel that is started again whenever it ends."""

    def __init__(self, name, command, port=None, lasts=None, user=None):
        self.name, self.command, self.port, self.lasts, self.user = name, command, port, lasts, user
        self.process, self.runs, self.began = None, 0, 0.0

    def start(self):
        environment = dict(os.environ, LD_PRELOAD=LIBRARY)
        as_user = {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "cwd": "/"} if self.user else {}
        self.process = subprocess.Popen(
            self.command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, **as_user)
        self.began, self.runs = time.monotonic(), self.runs + 1
        # A killed server's port may be taken by its workers for a moment.
        while self.port and self.process.poll() is None and not accepts(self.port):
            time.sleep(0.02)

    def tend(self):
        """Starts it if it has ended. True if it hangs."""
        if self.process.poll() is not None:
            self.stop()
            self.start()
        return self.lasts is not None and time.monotonic() - self.began > PATIENCE

    def kill(self):
        """Kills one of its processes; a master's workers are as good as the master."""
        listing = subprocess.run(["ps", "-o", "pid=", "--sid", str(self.process.pid)], capture_output=True, text=True)
        members = [int(word) for word in listing.stdout.split()]
        # PostgreSQL restarts all of its own when one backend dies, and refuses to start beside orphans.
        if self.name == "postgres":
            members = [pid for pid in members if pid != self.process.pid]
        if members:
            os.kill(random.choice(members), signal.SIGKILL)

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def check(redis_port, nginx_port, digest):
    """The checker: runs under accel until SIGTERM; 1 if a byte is wrong."""
    counts = {"values": 0, "files": 0, "bytes": 0, "broken": 0}
    running = True

    def stop(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    while running:
        try:
            with socket.create_connection(("127.0.0.1", redis_port), 30) as redis:
                lines = redis.makefile("rb")
                for _ in range(50):
                    value = random.randbytes(random.choice([1, 100, 5000, 70_000, 300_000]))
                    redis.sendall(b"*3\r\n$3\r\nSET\r\n$4\r\nsoak\r\n$%d\r\n%s\r\n*2\r\n$3\r\nGET\r\n$4\r\nsoak\r\n"
                                  % (len(value), value))
                    reply = lines.read(5) + lines.readline() + lines.read(len(value) + 2)
                    if len(reply) < len(value) + 7:
                        raise ConnectionError("the server was killed")
                    if reply != b"+OK\r\n$%d\r\n%s\r\n" % (len(value), value):
                        sys.exit("soak: redis gave back other bytes than it got")
                    counts["values"] += 1
                    counts["bytes"] += 2 * len(value)
            web = http.client.HTTPConnection("127.0.0.1", nginx_port, timeout=30)
            for _ in range(10):
                web.request("GET", "/file")
                body = web.getresponse().read()
                if hashlib.sha256(body).hexdigest() != digest:
                    sys.exit("soak: nginx gave other bytes than the file has")
                counts["files"] += 1
                counts["bytes"] += len(body)
            web.close()
        except TimeoutError:
            sys.exit("soak: no answer for 30 seconds")
        except (OSError, http.client.HTTPException):
            counts["broken"] += 1
            time.sleep(0.05)
    print(" ".join(f"{name}={count}" for name, count in counts.items()), flush=True)


def postgres(directory):
    """PostgreSQL's programs and a cluster of their own, or None."""
    programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or os.geteuid() != 0 or "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        return None
    data = directory / "data"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    run = {"user": "postgres", "cwd": "/", "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([programs[-1] / "initdb", "-D", data, "-A", "trust", "--no-sync"], **run)
    port, binaries = free_port(), str(programs[-1])
    server = Program("postgres", [f"{binaries}/postgres", "-D", str(data), "-p", str(port), "-c", "fsync=off", "-c",
                                  "unix_socket_directories="], port, user="postgres")
    server.start()
    client = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "postgres"]
    subprocess.run([f"{binaries}/pgbench", "-i", "-q", *client], check=True, capture_output=True)
    return [server, Program("pgbench", [f"{binaries}/pgbench", "-c", "4", "-T", "5", *client], lasts=5)]


def soak(arguments):
    missing = [name for name in ["redis-server", "redis-benchmark", "nginx", "wrk"] if not shutil.which(name)]
    if missing:
        sys.exit(f"soak: {', '.join(missing)}: not installed")
    if not os.path.exists(LIBRARY):
        sys.exit(f"soak: {LIBRARY}: not there; cargo build --release makes it")
    names_before = abstract_names()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="accel-soak-"))
    directory.chmod(0o755)
    (directory / "www").mkdir()
    content = random.randbytes(FILE_BYTES)
    (directory / "www/file").write_bytes(content)
    (directory / "www/small").write_bytes(b"small\n")
    redis_port, nginx_port = free_port(), free_port()
    (directory / "nginx.conf").write_text(NGINX.format(dir=directory, port=nginx_port))
    programs = [
        Program("redis", ["redis-server", "--port", str(redis_port), "--save", "", "--dir", str(directory)], redis_port),
        Program("nginx", ["nginx", "-c", str(directory / "nginx.conf"), "-p", str(directory), "-e", "stderr"], nginx_port),
        Program("redis-benchmark", ["redis-benchmark", "-p", str(redis_port), "-c", "20", "-n", "300000", "-t", "get,set",
                                    "-q"], lasts=5),
        Program("wrk", ["wrk", "-t", "1", "-c", "20", "-d", "5s", f"http://127.0.0.1:{nginx_port}/small"], lasts=5),
    ]
    programs += postgres(directory) or []
    for program in programs:
        if not program.process:
            program.start()
    digest = hashlib.sha256(content).hexdigest()
    checker = subprocess.Popen(
        [sys.executable, __file__, "--check", str(redis_port), str(nginx_port), digest], stdout=subprocess.PIPE,
        env=dict(os.environ, LD_PRELOAD=LIBRARY), text=True)
    end, kills, hangs = time.monotonic() + arguments.minutes * 60, 0, []
    next_kill = time.monotonic() + arguments.kill_every
    try:
        while time.monotonic() < end and checker.poll() is None and not hangs:
            hangs = [program.name for program in programs if program.tend()]
            if time.monotonic() > next_kill:
                next_kill += arguments.kill_every
                random.choice(programs).kill()
                kills += 1
            time.sleep(0.2)
        checker.terminate()
        counted = checker.communicate(timeout=60)[0].strip()
    finally:
        checker.kill()
        for program in programs:
            program.stop()
        shutil.rmtree(directory, ignore_errors=True)
    left = abstract_names() - names_before
    runs = " ".join(f"{program.name}={program.runs}" for program in programs)
    print(f"soak: {arguments.minutes} minutes, {kills} kills; runs {runs}; checked {counted or 'nothing'}; "
          f"hangs {', '.join(hangs) or 'none'}; abstract names left {len(left)}")
    sys.exit(bool(checker.returncode or hangs))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--kill-every", type=float, default=20, metavar="SECONDS")
    options.add_argument("--check", nargs=3, metavar=("REDIS", "NGINX", "SHA256"), help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.check:
        check(int(arguments.check[0]), int(arguments.check[1]), arguments.check[2])
    else:
        soak(arguments)


if __name__ == "__main__":
    main()
