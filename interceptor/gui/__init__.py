"""Ready-made `post` functions: `Host(post=interceptor.gui.qt.post)`, and so for tk, glib and wx.

A toolkit is imported with its module here, and not before.
"""
