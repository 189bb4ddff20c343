"""Plain broadcaster: sends lines from standard input to all clients by asyncio's streams. No queue, no filter.

python broadcaster.py SOCKET
"""

import asyncio
import sys
from contextlib import suppress


async def main(path: str) -> None:
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with suppress(asyncio.CancelledError, ConnectionError):
            await reader.read()
        writers.discard(writer)

    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    server = await asyncio.start_unix_server(serve, path, backlog=1024)
    while line := await lines.readline():
        for writer in writers:
            writer.write(line)
    server.close()


asyncio.run(main(sys.argv[1]))
