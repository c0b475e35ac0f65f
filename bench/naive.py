"""A reverse proxy as one writes it in half an hour with aiohttp: streams both ways, checks and records nothing.

Started by the benchmark: `python -m bench.naive PORT UPSTREAM`.
"""

from __future__ import annotations

import sys

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

NOT_PASSED = {"connection", "keep-alive", "transfer-encoding", "host"}


async def _application(upstream: str) -> web.Application:
    session = ClientSession(
        auto_decompress=False,
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None),
    )

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_PASSED}
        body = request.content if request.can_read_body else None
        async with session.request(request.method, upstream + request.path_qs, headers=headers, data=body) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in NOT_PASSED}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def close(_: web.Application) -> None:
        await session.close()

    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_route("*", "/{path:.*}", handle)
    application.on_cleanup.append(close)
    return application


if __name__ == "__main__":
    web.run_app(_application(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
