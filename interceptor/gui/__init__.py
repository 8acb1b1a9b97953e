"""Ready-made `post` functions: `Host(post=interceptor.gui.qt.post)`, and so for tk, glib and wx.

A toolkit is imported with its module here, and not before.
"""

from __future__ import annotations

import sys

from ..exceptions import InvalidArgument, UnsupportedType

__all__ = ["check_post"]


def check_post(post: object) -> None:
    """Check what a host is given as `post`.

    Raises:
        UnsupportedType: it is no function.
        InvalidArgument: it is Tk's, without its window.
    """
    if not (post is None or callable(post)):
        raise UnsupportedType(
            f"post is {post!r}; it is a function that runs another one soon on your thread, "
            "such as interceptor.gui.qt.post"
        )
    tk = sys.modules.get(f"{__name__}.tk")
    if tk is not None and post is tk.post:
        raise InvalidArgument("post is tk.post without its window; write Host(post=tk.post(root))")
