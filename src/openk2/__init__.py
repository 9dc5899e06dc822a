"""OpenK2: the whole Kimi K2 system, open and runnable."""

__version__ = "0.1.0"
