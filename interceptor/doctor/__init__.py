"""The doctor: starts a browser with the host's settings, and tells which ways lead to the program."""

from .diagnosis import Diagnosis, Finding
from .examination import BROWSERS, Browser, diagnose
from .site import Site

__all__ = ["BROWSERS", "Browser", "Diagnosis", "Finding", "Site", "diagnose"]
