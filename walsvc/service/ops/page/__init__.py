"""The status page: one document of page.html, page.css and page.js, which asks the server for nothing but /status.

Its content security policy allows exactly this style and this script, by their hashes. So a topic's name could not run as a
script even if the page put it into the document as HTML, which it never does: it only sets text.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources


def source(name: str) -> str:
    """Read one of the page's files."""
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def hash_of(text: str) -> str:
    """The hash by which a content security policy allows an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


STYLE, SCRIPT = source("page.css"), source("page.js")
PAGE = source("page.html").replace("/*style*/", STYLE).replace("/*script*/", SCRIPT).encode()
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {hash_of(STYLE)}",
        f"script-src {hash_of(SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
