"""The parts an HTML report is made of: one page, tables, panels of figures. No scripts, nothing fetched."""

import base64
from html import escape
from pathlib import Path
from string import Template

from ooorl.reporting import figures, tables, writers


def write(path, title, result, lead, body):
    """Writes the page, all of it or nothing; what cannot stand in a file (half a surrogate pair in a name) becomes '?'."""
    page = _PAGE.substitute(title=escape(title), result=escape(result), lead=escape(lead), body=body)
    with writers.atomically(path) as file:
        file.write(page.encode('utf-8', 'replace').decode())
    return Path(path)


def panels(found, caption):
    """Panels side by side, below each other on a narrow screen, with a caption for all of them; '' without panels."""
    if not found:
        return ''
    return f'<div class=panels>{"".join(map(_panel, found))}</div><p class=small>{escape(caption)}</p>'


def _panel(panel):
    data = base64.b64encode(figures.svg(panel.figure).encode('utf-8', 'replace')).decode()
    picture = f'<img alt="{escape(panel.alt, quote=True)}" src="data:image/svg+xml;base64,{data}">'
    return f'<figure><figcaption>{escape(panel.title)}</figcaption>{picture}</figure>'


def table(names, lines, caption):
    """A table of text; the first cell of a line is its heading."""
    return tables.html_rows([escape(name) for name in names], [[escape(cell) for cell in line] for line in lines], caption)


def facts(pairs, caption):
    """Names and values below each other, wrapped where they are long; a value of None is left out."""
    lines = (
        f'<tr><th scope=row>{escape(name)}</th><td>{escape(str(value))}</td></tr>' for name, value in pairs if value is not None
    )
    return f'<table class=facts><caption>{escape(caption)}</caption><tbody>{"".join(lines)}</tbody></table>'


def notes(sentences):
    """Paragraphs that stand out."""
    return ''.join(f'<p class=note>{escape(str(sentence))}</p>' for sentence in sentences)


_PAGE = Template("""<!DOCTYPE html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 68rem; margin: auto;
  padding: 1rem; overflow-wrap: break-word }
h1, .lead, dt, ul.facts, table.facts td { overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.lead { font-size: 1.05rem; margin: 0 0 1rem } .small { font-size: .85rem; color: #555 }
.note { border-left: 4px solid #e69f00; background: #fff8e8; padding: .4rem .8rem; margin: .5rem 0 }
ul.facts { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; color: #555 }
ul.facts b { color: #111 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
caption { text-align: left; font-size: .85rem; color: #555; padding-bottom: .2rem }
th { text-align: left; font-weight: 600; vertical-align: bottom }
th, td { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd }
td { font-variant-numeric: tabular-nums; white-space: nowrap }
.wide tbody th { font-weight: 500; position: sticky; left: 0; background: #fff; min-width: 6rem; max-width: 11rem }
.wide:focus-visible { outline: 2px solid #0072b2 }
table.facts th { padding-right: 1.2rem; vertical-align: top; white-space: nowrap }
table.facts td { white-space: normal } svg { display: block }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: .6rem 1rem }
figure { margin: 0 } figcaption { font-size: .9rem; font-weight: 600 } img { width: 100%; height: auto; display: block }
dl { display: grid; grid-template-columns: minmax(7rem, 16rem) 1fr; gap: .3rem 1rem; font-size: .9rem }
dt { font-weight: 600 } dd { margin: 0 }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .85rem }
details { border-top: 1px solid #ddd; margin-top: .8rem }
summary { font-weight: 600; padding: .6rem 0; cursor: pointer }
@media (max-width: 30rem) { dl { display: block } dd { margin: 0 0 .5rem } table.facts th { white-space: normal } }
</style>
<h1>$result</h1>
<p class=lead>$lead</p>
$body
</html>
""")
