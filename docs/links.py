"Follows every link of the built site, anchors included: python docs/links.py _docs"
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    "The links of a page, and the anchors that others may name."
    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name in ("id", "name") and value:
                self.anchors.add(value)


def wrong(link, path, pages, site):
    "What is wrong with a link of a page; None if nothing is."
    parts = urlsplit(link)
    to = (path.parent/unquote(parts.path)).resolve() if parts.path else path
    if to.is_dir():
        to = to/"index.html"
    if not to.exists() or site not in to.parents: return "leads nowhere"
    if parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].anchors: return "names no anchor"


def main(site):
    pages = {p: Page(p) for p in site.rglob("*.html") if p.name != "404.html"}      # that one is served from anywhere
    broken, count = [], 0
    for path, page in pages.items():
        for link in page.links:
            if link.startswith("data:") or urlsplit(link).scheme or urlsplit(link).netloc: continue
            count += 1
            problem = wrong(link, path, pages, site)
            if problem:
                broken.append(f"{path.relative_to(site)}: {link} {problem}")
    print(*broken, sep="\n", end="\n" if broken else "")
    print(f"{count} links within {len(pages)} pages, {len(broken)} broken")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
