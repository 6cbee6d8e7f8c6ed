#!/usr/bin/env python3
"""embed_assets.py OUT IN...: files as the table that include/provost/asset.h describes, for the build."""
import gzip
import hashlib
import pathlib
import sys

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    # Browsers take application/typescript for a download, and .ts for video.
    ".ts": "text/plain; charset=utf-8",
}
A_LINE = 24


def array(name, data):
    lines = (data[at:at + A_LINE] for at in range(0, len(data), A_LINE))
    return f"static const unsigned char {name}[] = {{\n" + "".join(f"\t{','.join(map(str, line))},\n" for line in lines) + "};\n"


def bytes_of(name, data):
    return f"{{(const char *){name}, {len(data)}}}" if data else "{0}"


def main(target, *sources):
    arrays, rows = [], []
    for n, source in enumerate(sorted(map(pathlib.Path, sources), key=lambda path: path.name)):
        data = source.read_bytes()
        packed = gzip.compress(data, 9, mtime=0)
        if len(packed) > len(data) * 0.9:
            packed = b""
        arrays += [array(f"identity_{n}", data)] + ([array(f"gzip_{n}", packed)] if packed else [])
        rows.append(f'\t{{"{source.name}", "{TYPES[source.suffix]}", "{hashlib.sha256(data).hexdigest()[:32]}",'
                    f' {str(source.suffix == ".html").lower()},\n\t {bytes_of(f"identity_{n}", data)},'
                    f' {bytes_of(f"gzip_{n}", packed)}}},\n')
    text = '#include "provost/asset.h"\n\n' + "".join(arrays) + "\nconst struct asset ASSETS[] = {\n" + "".join(rows) + "};\n"
    pathlib.Path(target).write_text(text + "const size_t ASSETS_COUNT = sizeof ASSETS / sizeof *ASSETS;\n", "utf-8")


main(*sys.argv[1:])
