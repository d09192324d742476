"MkDocs hook: the site's own MathJax, by a path that also holds from a folder."

def on_post_page(output, page, config):
    return output.replace("/mathjax/tex-mml-chtml.js", "../"*page.url.count("/") + "mathjax/tex-mml-chtml.js")
