"""The site's hooks for mkdocs: README.md as front page, pages that are made, links that lead out of docs/, and diagrams.

Such a link leads to the repository where WALSVC_REPOSITORY names it, as in a release, and else is plain text. Diagrams are drawn by
the mermaid that scripts/mermaid.sh has fetched, a file of the site; without it they stay as they are written.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url
from pymdownx.superfences import fence_code_format

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MERMAID = ROOT / ".site" / "mermaid"
DRAWING = "assets/javascripts/mermaid.min.js"
REPOSITORY = os.environ.get("WALSVC_REPOSITORY", "")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?://|#)([^)#\s]+)([^)\s]*)\)")
ELSEWHERE = re.compile(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"https?://[^>]*>")
REFERENCE = """# Reference

What `import walsvc` gives. A log of any kind is a `walsvc.Log`.

""" + "\n\n".join(
    f"::: walsvc.{name}\n    options: {{heading_level: 2}}"
    for name in (
        *("opening.open", "interface.Log", "interface.Topic", "interface.Consumer", "topics.shared.SharedConsumer"),
        *("config.WalConfig", "service.client.config.ClientConfig", "keyring.KeyRing", "model", "errors"),
        *("log.commit.ack.Ack", "log.read.lazy.LazyRecord", "blocking", "testing.PowerCuts", "testing.Disk"),
    )
)


def on_config(config: Any) -> Any:
    """Let a fence of mermaid be a diagram."""
    if MERMAID.exists():
        fence = {"name": "mermaid", "class": "mermaid", "format": fence_code_format}
        config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    decisions = sorted((DOCS / "decisions").glob("*.md"))
    titles = [(path.name, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for path in decisions]
    listed = "# Decisions\n\nChoices, with what would change them.\n\n" + "\n".join(f"- [{t}]({n})" for n, t in titles)
    for name, text in (("index.md", readme), ("reference.md", REFERENCE), ("decisions/index.md", listed)):
        files.append(File.generated(config, name, content=text))
    if MERMAID.exists():
        files.append(File.generated(config, DRAWING, abs_src_path=str(MERMAID / "dist" / "mermaid.min.js")))
        files.append(File.generated(config, f"{DRAWING}.LICENSE", abs_src_path=str(MERMAID / "LICENSE")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Mend the links of one page."""
    source = page.file.src_uri
    home = ROOT if source == "index.md" else (DOCS / source).parent

    def mended(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        place = (home / target).resolve()
        if place == ROOT / "README.md":
            place = DOCS / "index.md"
        if place == DOCS / "decisions":
            place /= "index.md"
        if place.is_relative_to(DOCS):
            return f"[{text}]({os.path.relpath(place, (DOCS / source).parent)}{anchor})"
        return f"[{text}]({REPOSITORY}/blob/main/{place.relative_to(ROOT)}{anchor})" if REPOSITORY else text

    return LINK.sub(mended, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Load mermaid in a page with diagrams, before the theme looks for it; refuse a page that loads anything from elsewhere."""
    if '<pre class="mermaid">' in output:
        source = get_relative_url(DRAWING, page.url)
        output = output.replace("<script", f'<script src="{source}"></script><script', 1)
    if found := ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} loads something from elsewhere: {found[0]}")
    return output
