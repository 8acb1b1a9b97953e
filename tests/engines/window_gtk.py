"""A window of WebKitGTK, driven by lines of JSON: a program of its own, started by `tests.engines`.

It runs with the system's Python, which has the bindings, and takes the same orders as `window_qt`. Its one
argument is the proxy, or nothing. It takes any certificate.
"""

from __future__ import annotations

import json
import sys

import gi

gi.require_version("Gtk", "3.0")
gi.require_version("WebKit2", "4.1")
from gi.repository import Gio, GLib, Gtk, WebKit2  # noqa: E402


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def new_context(proxy: str) -> WebKit2.WebContext:
    """A profile that is kept nowhere; with a proxy, everything goes there."""
    manager = WebKit2.WebsiteDataManager.new_ephemeral()
    manager.set_tls_errors_policy(WebKit2.TLSErrorsPolicy.IGNORE)
    if proxy:
        settings = WebKit2.NetworkProxySettings.new(proxy, [])
        manager.set_network_proxy_settings(WebKit2.NetworkProxyMode.CUSTOM, settings)
    else:
        manager.set_network_proxy_settings(WebKit2.NetworkProxyMode.NO_PROXY, None)
    return WebKit2.WebContext.new_with_website_data_manager(manager)


class Window:
    """The window, and what it is told."""

    def __init__(self, proxy: str) -> None:
        self.failed = ""
        self.view = WebKit2.WebView.new_with_context(new_context(proxy))
        self.view.get_settings().set_enable_write_console_messages_to_stdout(False)
        self.view.connect("load-changed", self.load_changed)
        self.view.connect("load-failed", self.load_failed)
        window = Gtk.Window(default_width=800, default_height=500)
        window.add(self.view)
        window.show_all()

    def load_failed(self, view: object, event: object, url: str, error: GLib.Error) -> bool:
        self.failed = error.message
        return False

    def load_changed(self, view: object, event: WebKit2.LoadEvent) -> None:
        if event == WebKit2.LoadEvent.FINISHED:
            say({"error": self.failed} if self.failed else {"ok": True})

    def obey(self, line: str) -> None:
        order = json.loads(line or '{"quit": true}')
        match order:
            case {"open": str(url)}:
                self.failed = ""
                self.view.load_uri(url)
            case {"run": str(script)}:
                body = f"return JSON.stringify(await ({script}))"
                self.view.call_async_javascript_function(body, -1, None, None, None, None, self.ran)
            case _:
                Gtk.main_quit()

    def ran(self, view: WebKit2.WebView, result: Gio.AsyncResult) -> None:
        try:
            value = view.call_async_javascript_function_finish(result)
            say({"ok": json.loads(value.to_string()) if value.is_string() else None})
        except GLib.Error as error:
            say({"error": error.message})


def main() -> None:
    """Run until standard input ends."""
    window = Window(sys.argv[1])

    def read(channel: GLib.IOChannel, condition: GLib.IOCondition) -> bool:
        line = sys.stdin.readline()
        window.obey(line)
        return bool(line)

    GLib.io_add_watch(GLib.IOChannel.unix_new(0), GLib.IO_IN | GLib.IO_HUP, read)
    say({"ok": "ready"})
    Gtk.main()


if __name__ == "__main__":
    main()
