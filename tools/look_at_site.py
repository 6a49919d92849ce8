"""Opens every page of the built site in Chromium, as on a desk and as on a telephone, light and dark.

    python tools/look_at_site.py docs/_build/html --screenshots /tmp/site

Needs the Python package playwright, and a Chromium on the PATH as ``chromium`` (Playwright's own browser isn't used).
Chromium runs without a window. It isn't part of `.ci/run`, which has no browser.

Says, and exits with 1 if there is any, on which page

- an element is wider than the page, or the page can be moved sideways;
- a block of code is cut (not a table that a program printed, which scrolls on purpose);
- a picture is wider than what it stands in, or isn't there;
- a formula isn't drawn, or has an error;
- anything is asked of the network: the site has to work from a disk.

``--screenshots DIRECTORY`` keeps a picture of each page, to be looked at by somebody. ``--find WORD`` prints the pages
that the site's own search finds.
"""

import argparse
import pathlib
import shutil
import sys
from urllib.parse import urlsplit

WIDTHS = {"desk": 1280, "telephone": 390}
THEMES = ["light", "dark"]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

# What is wrong with the page, as lines. An element that stands out is all right inside one that scrolls or is cut on
# purpose: a wide table, a long formula, the drawers of the theme.
FAULTS = r"""() => {
  const COLUMNS = 'article, .sidebar-drawer, .toc-drawer, body';
  const faults = [], width = document.documentElement.clientWidth;
  const name = (element) => {
    const text = (element.textContent || element.alt || '').trim().replace(/\s+/g, ' ').slice(0, 60);
    const classes = element.getAttribute('class') || '';
    return element.tagName.toLowerCase() + (classes && '.' + classes.trim().split(/\s+/).join('.')) + ' "' + text + '"';
  };
  const shown = (element) => {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    return style.visibility !== 'hidden' && style.display !== 'none' && box.width > 1 && box.height > 1;
  };
  const isInScroller = (element) => {
    // Not the theme's own column, which on a telephone moves sideways as a whole.
    for (let each = element.parentElement; each && !each.matches(COLUMNS); each = each.parentElement) {
      if (getComputedStyle(each).overflowX !== 'visible') return true;
    }
    return false;
  };
  for (const column of [document.scrollingElement, ...document.querySelectorAll('.content')]) {
    if (column.scrollWidth > column.clientWidth + 1) faults.push('the page is ' + column.scrollWidth + ' px wide');
  }
  for (const element of document.querySelectorAll('article *, .sidebar-drawer *, .toc-drawer *')) {
    if (!shown(element)) continue;
    const drawer = element.closest('.sidebar-drawer, .toc-drawer');
    if (drawer && drawer.getBoundingClientRect().right <= 0 || drawer && drawer.getBoundingClientRect().left >= width) {
      continue;
    }
    const standsOut = (each) => each.getBoundingClientRect().right > width + 1;
    const box = element.getBoundingClientRect();
    // The innermost ones, which are the cause.
    if (standsOut(element) && ![...element.children].some(standsOut) && !isInScroller(element)) {
      faults.push(name(element) + ' ends at ' + Math.round(box.right) + ' of ' + width + ' px');
    }
  }
  for (const element of document.querySelectorAll('pre')) {
    if (shown(element) && !element.closest('.printed') && element.scrollWidth > element.clientWidth + 1) {
      faults.push(name(element) + ' is cut by ' + (element.scrollWidth - element.clientWidth) + ' px');
    }
  }
  for (const element of document.querySelectorAll('article img')) {
    if (!element.complete || !element.naturalWidth) {
      faults.push(name(element) + ' is not there: ' + element.getAttribute('src'));
    } else if (shown(element)) {
      const box = element.getBoundingClientRect(), around = element.parentElement.getBoundingClientRect();
      const isInline = getComputedStyle(element.parentElement).display === 'inline';
      if (!isInline && !isInScroller(element) && box.right > around.right + 1) {
        faults.push(name(element) + ' is wider than what it stands in');
      }
    }
  }
  for (const element of document.querySelectorAll('span.math, div.math')) {
    if (!element.querySelector('mjx-container')) faults.push(name(element) + ' is not drawn');
  }
  for (const element of document.querySelectorAll('mjx-merror')) faults.push(name(element) + ' is an error');
  return faults;
}"""
DRAWN = "() => typeof MathJax === 'undefined' || MathJax.startup.promise.then(() => true)"


def is_local(url):
    """Whether nobody else's computer is asked for this."""
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname in ("localhost", "127.0.0.1")


def look_at(page, url, asked):
    """What is wrong with a page, which is opened."""
    asked.clear()
    page.goto(url, wait_until="load")
    # Pictures below the window are loaded when it comes to them.
    page.evaluate("() => document.querySelectorAll('img').forEach((each) => each.loading = 'eager')")
    page.wait_for_function(DRAWN)
    page.wait_for_function("() => [...document.images].every((each) => each.complete)")
    return [*page.evaluate(FAULTS), *("asks the network for " + each for each in asked)]


def look(browser, site, pages, screenshots):
    """Print what is wrong with the pages; how many faults there are."""
    count = 0
    for where, width in WIDTHS.items():
        for theme in THEMES:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
            context.route(lambda url: not is_local(url), lambda route: route.abort())
            page, asked = context.new_page(), []
            page.on("request", lambda request, asked=asked: is_local(request.url) or asked.append(request.url))
            for path in pages:
                name = path.relative_to(site).with_suffix("").as_posix().replace("/", ".")
                for fault in look_at(page, path.as_uri(), asked):
                    count += 1
                    print("{} ({}, {}): {}".format(name, where, theme, fault))
                if screenshots:
                    page.screenshot(path=screenshots / "{}.{}.{}.png".format(name, where, theme), full_page=True)
            context.close()
    return count


def find(browser, site, words):
    """Print what the site's search finds."""
    page = browser.new_page()
    for word in words:
        page.goto((site / "search.html").as_uri() + "?q=" + word)
        page.wait_for_selector("#search-results .search-summary, #search-results p")
        # The list grows until the text above it says how long it is.
        page.wait_for_function("() => !document.querySelector('#search-results').innerText.includes('Searching')")
        found = page.eval_on_selector_all("#search-results li > a", "(all) => all.map((each) => each.innerText)")
        print("{}: {}".format(word, ", ".join(found) or "nothing"))


def main():
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=pathlib.Path, help="the directory of the site, docs/_build/html")
    parser.add_argument("pages", nargs="*", help="names of pages, index for instance (default: all)")
    parser.add_argument("--screenshots", type=pathlib.Path, metavar="DIRECTORY", help="where to keep pictures of pages")
    parser.add_argument("--find", action="append", default=[], metavar="WORD", help="a word to search for, instead")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        parser.error("there is no command chromium; install Chromium")
    site = args.site.resolve()
    pages = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    if args.pages:
        pages = [path for path in pages if path.relative_to(site).with_suffix("").as_posix() in args.pages]
    if not pages:
        parser.error("there are no such pages in {}".format(site))
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        if args.find:
            find(browser, site, args.find)
            return 0
        count = look(browser, site, pages, args.screenshots)
        browser.close()
    print("{} pages, {} faults".format(len(pages), count))
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
