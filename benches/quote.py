#!/usr/bin/env python3
"""Copies the output of the benches into the documents, between the marks with its name.

    benches/quote.py docs/performance docs/performance.md docs/scale.md
"""

import re
import sys
from pathlib import Path

MARKS = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end -->)", re.S)


def main():
    folder, *documents = map(Path, sys.argv[1:])

    def quoted(match):
        begin, name, end = match.groups()
        printed = folder / f"{name}.txt"
        if not printed.exists():
            return match.group()
        return f"{begin}```text\n{printed.read_text().rstrip()}\n```\n{end}"

    for document in documents:
        document.write_text(MARKS.sub(quoted, document.read_text()))


if __name__ == "__main__":
    main()
