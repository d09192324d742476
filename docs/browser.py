"""Looks at the built site in a real browser, as wide as a desk's screen and as a phone's: python docs/browser.py _docs

Of every page: nothing is wrong in the console, nothing is wider than the screen, formulas are drawn. Of the first one: the picture fills a
phone's width, and the search finds a name. The browser is the chromium of this machine, or what MILR_BROWSER names; where neither is,
nothing is looked at, and one line says so.
"""
import os, shutil, sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from playwright.sync_api import TimeoutError, sync_playwright

WIDTHS = {1280: 800, 390: 844} # pixels: a desk's screen, a phone's
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# No services of its own makers in the background; as root, as in a container, it runs only without a sandbox.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
SEARCHED = "AutoPolicy"

FORMULAS = """async () => {
    if (window.MathJax?.startup) await MathJax.startup.promise;
    const problems = [...document.querySelectorAll("mjx-merror")].map(e => `formula with an error: ${e.textContent}`);
    const walk = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode;
        if (node.parentElement.closest("code, pre, script, style, mjx-container, svg, .jp-CodeCell")) continue;
        const raw = node.data.match(/\\$[^$\\n]*[\\\\_^][^$\\n]*\\$|[_^]\\{/);
        if (raw) problems.push(`formula that is not drawn: ${node.data.trim().slice(0, 80)}`);
    }
    return problems;
}"""
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
PICTURE = """() => {
    const picture = document.querySelector("article img");
    const beside = picture.closest("p, article").clientWidth;
    return picture.naturalWidth ? picture.clientWidth/beside : 0;
}"""


def browser_here():
    "The browser to use; None where there is none."
    asked = os.environ.get("MILR_BROWSER")
    found = filter(None, map(shutil.which, [asked] if asked else BROWSERS))
    path = next(found, None)
    if asked and path is None: sys.exit(f"MILR_BROWSER names {asked}, which is no program")
    return path


class Quiet(SimpleHTTPRequestHandler):
    "A server that does not print a line for each answer."
    def log_message(self, *arguments): pass


def serve(folder):
    "The address under which a folder is served by this process."
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def look(tab, address, heard):
    "What is wrong with one page."
    heard.clear()
    tab.goto(address, wait_until="load")
    formulas = tab.evaluate(FORMULAS)
    over = tab.evaluate(TOO_WIDE)
    wide = [f"{over} pixels wider than the screen"] if over > 0 else []
    return [f"console: {text}" for text in heard] + formulas + wide


def picture(tab, address):
    "Is the first page's picture there, over the whole width of the text?"
    tab.goto(address)
    share = tab.evaluate(PICTURE)
    return [] if share > .95 else [f"the picture takes {share:.0%} of the text's width"]


def search(tab, address):
    "Does the search find a name, as a reader would type it?"
    tab.goto(address)
    if tab.viewport_size["width"] < 960:
        tab.click("label.md-header__button[for=__search]")
    tab.fill("input.md-search__input", SEARCHED)
    try:
        tab.locator(f".md-search-result__item a[href$='.{SEARCHED}']").first.wait_for(state="attached", timeout=20_000)
    except TimeoutError as error:
        return [f"search for {SEARCHED} does not find it: {str(error).splitlines()[0]}"]
    return []


def listened(browser, width, height, heard):
    "A tab whose errors are added to a list."
    tab = browser.new_page(viewport=dict(width=width, height=height))
    tab.on("console", lambda message: heard.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: heard.append(str(error)))
    return tab


def looked_at(browser, home, pages):
    "What is wrong, page by page, at each width."
    problems, heard = [], []
    for width, height in WIDTHS.items():
        tab = listened(browser, width, height, heard)
        found = {page: look(tab, f"{home}/{page}", heard) for page in pages}
        found["index.html"] += search(tab, home + "/index.html")
        if width == min(WIDTHS):
            found["index.html"] += picture(tab, home + "/index.html")
        problems += [f"{page} at {width}: {problem}" for page, those in found.items() for problem in those]
        tab.close()
    return problems


def main(site):
    path = browser_here()
    if path is None:
        print("no browser here, the site was not looked at in one; install chromium, or name another with MILR_BROWSER")
        return 0
    home = serve(site)
    pages = sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html") if p.name != "404.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        problems = looked_at(browser, home, pages)
        browser.close()
    print(*problems, sep="\n", end="\n" if problems else "")
    widths = " and ".join(map(str, WIDTHS))
    print(f"{len(pages)} pages looked at in {path} at {widths} pixels, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
