"""Dyalog's HTMLRenderer, line by line, in Python: a page from text, a form, and a WebSocket through dq.

    python examples/html_renderer.py

shows http://dyalog_root/ in Chromium, Chrome or Edge in app mode; what follows on the command line goes to
the browser. Each piece has the APL that it stands for beside it.
"""

import shutil
import subprocess
import sys
import tempfile
from urllib.parse import parse_qs

from interceptor import Host, HTTPRequest, WebSocketClose, WebSocketReceive, WebSocketUpgrade

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge", "microsoft-edge")
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
body { max-width: 32rem; margin: 2.5rem auto; padding: 0 1.25rem; background: light-dark(#f6f7f9, #14171c);
       color: light-dark(#1d2430, #e8ebf0); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 1.75rem 0 .6rem; }
form { display: flex; gap: .6rem; }
input, button { font: inherit; padding: .5rem .8rem; border-radius: .5rem; color: inherit;
       border: 1px solid light-dark(#d5d9e0, #39404c); background: light-dark(#fff, #1d2129); }
button { border: 0; font-weight: 600; color: light-dark(#fff, #10203c);
       background: light-dark(#2f6fdf, #79a8ff); }
#log { min-height: 6rem; padding: .8rem 1rem; border-radius: .7rem; white-space: pre-line;
       overflow-wrap: anywhere;
       background: light-dark(#fff, #1d2129); }
"""
SCRIPT = """
const log = document.querySelector("#log"), note = text => { log.textContent += text + "\\n"; };
const socket = new WebSocket("ws://dyalog_root/chat");
socket.onopen = () => socket.send("hello from the page");
socket.onmessage = ({data}) => { note(data); if (data === "that is all") socket.close(1000, "thanks"); };
socket.onclose = ({code, reason}) => note(`closed ${code} ${reason}`);
"""
PAGE = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>HTMLRenderer</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<h1>Good day, NAME</h1>
<form method="post" action="/greet">
<input name="who" aria-label="Name" placeholder="Who are you?"><button>Greet</button>
</form>
<h2>What the WebSocket said</h2><div id="log"></div><script>{SCRIPT}</script></html>"""

hr = Host(name="hr")  # 'hr' ⎕WC 'HTMLRenderer'          its URL is http://dyalog_root/, and all there is ours
html = PAGE.replace("NAME", "whoever you are")  # hr.HTML←html


@hr.on("HTTPRequest")  # hr.onHTTPRequest←'Serve'
def serve(event: HTTPRequest) -> list[object]:
    message = event.message()  # ∇ msg←Serve msg
    page = html
    if event.method == "POST":  # :If 'POST'≡11⊃msg
        form = parse_qs(str(message[9]))  # form←10⊃msg
        page = PAGE.replace("NAME", escape(form.get("who", ["nobody"])[0]))
    elif event.url != "http://dyalog_root/":
        return message  # handle stays 0: 404
    message[3] = 1  # (4⊃msg)←1                handled
    message[4] = 200  # (5⊃msg)←200            status
    message[5] = "OK"  # (6⊃msg)←'OK'
    message[6] = "text/html"  # (7⊃msg)←'text/html'
    message[8] = ""  # (9⊃msg)←''              no more headers
    message[9] = page  # (10⊃msg)←page
    return message  # ∇


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def session() -> None:
    """What ⎕DQ'hr' does: callbacks run in here, and events that have none come out."""
    while (event := hr.dq()) is not None:  # :While 0≠⊃msg←⎕DQ'hr'
        match event:
            case WebSocketUpgrade():  # 841
                print("841", event.url, flush=True)
            case WebSocketReceive():  # 842
                print("842", event.data, flush=True)
                hr.WebSocketSend(event.id, f"you said: {event.data!s}")  # hr.WebSocketSend id data
                hr.WebSocketSend(event.id, "that is all")
            case WebSocketClose():  # 843
                print("843", event.code, event.reason, flush=True)


def main() -> None:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is on PATH")
    with hr.in_thread(dq=True), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [f"--user-data-dir={profile}", "--no-first-run", "--window-size=560,560", *hr.chromium_args()]
        browser = subprocess.Popen([path, "--app=http://dyalog_root/", *flags, *sys.argv[1:]])
        try:
            session()
        finally:
            browser.terminate()
            browser.wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
