"""The doctor: starts a browser with the host's settings, and tells which ways lead to the program."""

from .diagnosis import Diagnosis, Finding
from .examination import BROWSERS, NAME, PROGRAM, Browser, Probe, examine
from .site import Site

__all__ = ["BROWSERS", "NAME", "PROGRAM", "Browser", "Diagnosis", "Finding", "Probe", "Site", "examine"]
