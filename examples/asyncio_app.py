"""A program that has a web server already (aiohttp) takes the host into its own event loop.

    pip install -e . aiohttp
    python examples/asyncio_app.py

prints the URL of a page. It comes from aiohttp, so the host has to be told that pages of that origin may
connect; and as no proxy leads there, the page is given the host's own URL. Both run on one loop: what the
route awaits may be anything of the program's.
"""

import asyncio
import contextlib
import time

from aiohttp import web

from interceptor import Host, Security, Session

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Clock</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }}
body {{ display: grid; place-items: center; min-height: 90vh; background: light-dark(#f6f7f9, #14171c);
       color: light-dark(#1d2430, #e8ebf0); }}
main {{ text-align: center; }} p {{ color: light-dark(#667085, #98a2b3); }}
output {{ display: block; min-width: 8ch; font-size: 4rem; font-weight: 650;
       font-variant-numeric: tabular-nums; }}
</style>
<main><output id="now">--:--:--</output><p>The time in Python, by WebSocket</p></main>
<script>
new WebSocket("{url}").onmessage = ({{data}}) => {{ document.querySelector("#now").textContent = data; }};
</script></html>"""


def make_host(origin: str) -> Host:
    host = Host(root="myapp", security=Security(origins=[origin]))

    @host.route("ws://myapp/clock")
    async def clock(socket: Session) -> None:
        while True:
            await socket.send(time.strftime("%H:%M:%S"))
            await asyncio.sleep(1)

    return host


async def main() -> None:
    hosts: list[Host] = []

    async def page(request: web.Request) -> web.Response:
        url = hosts[0].ws_url("/clock", token=False)
        return web.Response(text=PAGE.format(url=url), content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with make_host(origin) as host:
            hosts.append(host)
            print(f"{origin}/", flush=True)
            await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
    print("stopped")
