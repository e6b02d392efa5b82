"""What the scripts have in common: what they say, and how they wait."""

import array
import errno
import fcntl
import select
import termios
import threading
import time


def say(what, *values):
    print(what + ":", *values, flush=True)


def tried(act):
    try:
        return act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except TimeoutError:
        return "timeout"


def readable(stream, timeout=5):
    return bool(select.select([stream], [], [], timeout)[0])


def unread(stream):
    count = array.array("i", [0])
    fcntl.ioctl(stream, termios.FIONREAD, count)
    return count[0]


def until(is_so):
    for _ in range(5000):
        if is_so():
            return True
        time.sleep(0.001)
    return False


def epoll_events(epoll, timeout=5):
    return [events for _, events in epoll.poll(timeout)]


def asleep(name, stream):
    """A thread that sleeps in this way until something comes, and reads it; and what it got."""
    got = []

    def sleep():
        if name == "select":
            got.append(len(select.select([stream], [], [], 10)[0]))
        elif name == "poll":
            poll = select.poll()
            poll.register(stream, select.POLLIN)
            got.append(len(poll.poll(10_000)))
        elif name == "epoll":
            epoll = select.epoll()
            epoll.register(stream, select.EPOLLIN)
            got.append(len(epoll.poll(10)))
        got.append(stream.recv(10))

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    time.sleep(0.1)
    return sleeper, got
