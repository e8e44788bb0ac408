"""What goes wrong around a test: the environment or a trace, never QEMU's behaviour.

    QbpropError
    ├── EnvironmentProblem    no usable QEMU, program, folder or library
    └── TraceError            a trace that cannot be read

The text of each is one line that says what is wrong and what to do next.
"""


class QbpropError(Exception):
    """A problem to show to the user as it is, without a traceback."""


class EnvironmentProblem(QbpropError):  # noqa: N818 (the name is part of the interface)
    """Something outside qbprop is missing or unfit; nothing can be tested before it is mended."""


class TraceError(QbpropError):
    """A trace is unreadable, malformed or too new; the text names the file and the line."""
