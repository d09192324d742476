"MkDocs hooks."
from pathlib import Path


def on_config(config):
    "A section may be a pattern: its pages are the files that match, in their order, an index before the others."
    docs = Path(config.docs_dir)

    def pages(pattern):
        found = sorted(docs.glob(pattern), key=lambda p: (p.name != "index.md", p))
        return [p.relative_to(docs).as_posix() for p in found]

    for section in config.nav:
        for title, value in section.items():
            if isinstance(value, str) and "*" in value:
                section[title] = pages(value)


def on_post_page(output, page, config):
    "The site's own MathJax, by a path that also holds from a folder, told that $ begins a formula."
    tag = '<script src="/mathjax/tex-mml-chtml.js">'
    dollars = '<script>window.MathJax = {tex: {inlineMath: [["$", "$"]]}}</script>'
    here = "../"*page.url.count("/")
    return output.replace(tag, dollars + tag.replace("/mathjax", here + "mathjax"))
