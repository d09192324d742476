"Follows every link of the built site, anchors included: python docs/links.py _docs"
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for k, v in attrs:
            if k in ("href", "src") and v: self.links.append(v)
            if k in ("id", "name") and v: self.anchors.add(v)


site = Path(sys.argv[1]).resolve()
pages = {p: Page(p) for p in site.rglob("*.html") if p.name != "404.html"}      # that one is served from anywhere
broken, count = [], 0
for path, page in pages.items():
    for link in page.links:
        u = urlsplit(link) if not link.startswith("data:") else None
        if u is None or u.scheme or u.netloc: continue
        count += 1
        to = (path.parent/unquote(u.path)).resolve() if u.path else path
        if to.is_dir(): to = to/"index.html"
        if not to.exists() or site not in to.parents: broken.append(f"{path.relative_to(site)}: {link} leads nowhere")
        elif u.fragment and to in pages and unquote(u.fragment) not in pages[to].anchors: broken.append(f"{path.relative_to(site)}: {link} names no anchor")
print(*broken, sep="\n", end="\n" if broken else "")
print(f"{count} links within {len(pages)} pages, {len(broken)} broken")
sys.exit(bool(broken))
