"""The version of the package, in a module of its own so that every room can read it without importing the verbs."""

__version__ = "0.1.0"
