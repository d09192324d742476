"MkDocs hooks."
from pathlib import Path


def on_config(config):
    "A section may be a pattern: its pages are the files that match, in their order."
    docs = Path(config.docs_dir)
    def pages(pattern): return [p.relative_to(docs).as_posix() for p in sorted(docs.glob(pattern))]
    for section in config.nav:
        for title, value in section.items():
            if isinstance(value, str) and "*" in value: section[title] = pages(value)


def on_post_page(output, page, config):
    "The site's own MathJax, by a path that also holds from a folder, told that $ begins a formula."
    tag, here = '<script src="/mathjax/tex-mml-chtml.js">', "../"*page.url.count("/")
    return output.replace(tag, '<script>window.MathJax = {tex: {inlineMath: [["$", "$"]]}}</script>' + tag.replace("/mathjax", here + "mathjax"))
