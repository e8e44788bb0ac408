"""Pages in a real headless Chromium."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
CHROMIUM_SECONDS = 60

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Debian's chromium is not installed: make test-report does"
)

WATCH = "<script>window.problems = []; onerror = text => { problems.push(text); };</script>"

TELL = """
<script>
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify({ seen: look(), problems });
document.body.append(result);
</script>
"""


def in_chromium(page: str, look: str, folder: Path) -> dict[str, Any]:
    """What the script ``look``, which defines a function of that name, sees in a page."""
    assert CHROMIUM is not None
    path = folder / "page.html"
    added = f"<script>{look}</script>{TELL}</body>"
    path.write_text(page.replace("<head>", "<head>" + WATCH).replace("</body>", added))
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'user'}")
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    done = subprocess.run(
        [CHROMIUM, *options, offline, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=CHROMIUM_SECONDS,
        check=True,
    )
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    return result
