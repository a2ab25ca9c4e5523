#!/usr/bin/env python3
"""Draws docs/performance/*.svg from the committed output of the benches. Needs only Python.

    benches/plot.py docs/performance
"""

import math
import re
import sys
from pathlib import Path

LINE = re.compile(r"^\s*(\S.*?)\s{2,}([\d.]+)\s+\(([\d.]+) to ([\d.]+)\)")
COLOURS = ["#3465a4", "#c4820e", "#4e7a27", "#a40000", "#75507b", "#555753"]
WIDTH = 720


def figures(text):
    """Returns the names with their medians and quartiles, in the order of the lines."""
    found = {}
    for line in text.splitlines():
        match = LINE.match(line)
        # Lines that compare two paths have a slash.
        if match and " / " not in match.group(1):
            name, *numbers = match.groups()
            found.setdefault(name, [float(number) for number in numbers])
    return found


def element(name, text="", **attributes):
    written = " ".join(f'{key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f"<{name} {written}>{text}</{name}>"


def label(x, y, text, anchor="start", size=13, colour="#222"):
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return element("text", text, x=round(x, 1), y=round(y, 1), text_anchor=anchor, font_size=size, fill=colour)


def line(x1, y1, x2, y2, colour="#222", width=1):
    return element(
        "line", x1=round(x1, 1), y1=round(y1, 1), x2=round(x2, 1), y2=round(y2, 1), stroke=colour, stroke_width=width
    )


def picture(path, height, parts):
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif">'
    )
    background = element("rect", width=WIDTH, height=height, fill="white")
    path.write_text("\n".join([head, background, *parts, "</svg>\n"]))


def bars(path, title, found):
    """Draws one bar per name with its quartiles as a whisker, and a line at bare axum."""
    left, right, top, row = 270, 60, 48, 26
    longest = max(max(high for _, _, high in found.values()), 1.0)
    at = lambda value: left + value / longest * (WIDTH - left - right)
    height = top + row * len(found) + 20
    parts = [label(12, 24, title, size=15)]
    for number, (name, (median, low, high)) in enumerate(found.items()):
        y = top + number * row
        kind = 0 if name.startswith("first") else 1 if name.startswith("replay") else 2
        parts += [
            label(left - 8, y + 15, name, "end"),
            element(
                "rect", x=left, y=y + 3, width=round(at(median) - left, 1), height=16, fill=COLOURS[kind], opacity=0.8
            ),
            line(at(low), y + 11, at(high), y + 11),
            label(at(max(median, high)) + 6, y + 15, f"{median:.2f}"),
        ]
    parts += [line(at(1), top - 4, at(1), height - 16, "#a40000"), label(at(1), height - 4, "bare axum", "middle", 11)]
    picture(path, height, parts)


def curves(path, title, names, points):
    """Draws one curve per name over the sizes of `points`. Both axes are logarithmic."""
    left, right, top, bottom, height = 60, 190, 48, 40, 380
    sizes = list(points)
    values = [points[size][name][0] for size in sizes for name in names]
    low, high = min(values + [0.5]), max(values) * 1.1
    x = lambda size: left + math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0]) * (WIDTH - left - right)
    y = lambda value: height - bottom - math.log(value / low) / math.log(high / low) * (height - top - bottom)
    parts = [label(12, 24, title, size=15)]
    ticks = [tick for tick in (0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8) if low <= tick <= high]
    for tick in ticks:
        parts += [line(left, y(tick), WIDTH - right, y(tick), "#a40000" if tick == 1 else "#ddd")]
        parts += [label(left - 8, y(tick) + 4, f"{tick:g}", "end", 12)]
    for size in sizes:
        unit = f"{size} B" if size < 1024 else f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"
        parts += [label(x(size), height - bottom + 20, unit, "middle", 12)]
    ends = sorted((points[sizes[-1]][name][0], number) for number, name in enumerate(names))
    places, last = {}, height
    for value, number in ends:
        last = places[number] = min(y(value), last - 16)
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        corners = " ".join(f"{x(size):.1f},{y(points[size][name][0]):.1f}" for size in sizes)
        parts += [element("polyline", points=corners, fill="none", stroke=colour, stroke_width=2)]
        parts += [label(WIDTH - right + 8, places[number] + 4, name, size=12, colour=colour)]
    picture(path, height, parts)


def main():
    folder = Path(sys.argv[1])
    read = lambda name: (folder / f"{name}.txt").read_text()
    first = read("in_process").split("\n2048 B")[0]
    bars(folder / "paths.svg", "Time of a request of 200 B in process, ratio to bare axum", figures(first))
    blocks = re.split(r"^(\d+) B, .*$", read("sizes"), flags=re.M)
    points = {int(size): figures(block) for size, block in zip(blocks[1::2], blocks[2::2])}
    names = [name for name in next(iter(points.values())) if "alone" not in name]
    curves(folder / "sizes.svg", "Time of a request by the size of its body, ratio to bare axum", names, points)
    if (folder / "peers_in_process.txt").exists():
        title = "Side by side, 200 B in process, ratio to bare axum"
        bars(folder / "peers.svg", title, figures(read("peers_in_process")))


if __name__ == "__main__":
    main()
