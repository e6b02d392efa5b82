"""echo_client.py PORT COUNT: that many connections at once; what they get must be what they sent."""

import asyncio
import os
import random
import sys

# Where the server is.
HOST = os.environ["SERVER_HOST"]

SIZES = (1, 10, 100, 1000, 4096, 20_000, 200_000)


async def talk(port, number):
    chance = random.Random(number)
    reader, writer = await asyncio.open_connection(HOST, port)
    for turn in range(20):
        data = chance.randbytes(chance.choice(SIZES))
        writer.write(data)
        found = await reader.readexactly(len(data))
        assert found == data, f"connection {number}, turn {turn}, {len(data)} bytes"
    # Half-close: the server sees the end and ends its side.
    writer.write(b"the end")
    writer.write_eof()
    rest = await reader.read()
    assert rest == b"the end", f"connection {number} ends with {rest[:40]!r}"
    writer.close()
    await writer.wait_closed()


async def main(port, count):
    await asyncio.wait_for(asyncio.gather(*(talk(port, number) for number in range(count))), 50)


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
