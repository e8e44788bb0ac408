"""Which qbprop this is."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("qbprop")
except PackageNotFoundError:  # run from its source, not installed
    VERSION = "0+unknown"
"""As the installed package has it."""
