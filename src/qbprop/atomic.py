"""Files that are whole at every moment, even when the writer is killed."""

from pathlib import Path
from tempfile import NamedTemporaryFile


def write_atomically(path: Path, text: str) -> None:
    """Put ``text`` (as UTF-8) into ``path``: a reader sees the old file or the new one.

    Half a surrogate pair, which UTF-8 cannot hold, becomes a question mark.

    :raises OSError: the folder is full, read-only or missing; ``path`` is then as it was.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        new = Path(file.name)
        try:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            new.chmod(0o644)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
