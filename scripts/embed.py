#!/usr/bin/env python3
"""embed.py NAME IN OUT: a text file as a C string, for the build."""
import pathlib
import sys

name, source, target = sys.argv[1:]
text = pathlib.Path(source).read_text("utf-8")
assert "\0" not in text, f"{source} has a NUL byte"
escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?")
lines = "".join(f'    "{line}\\n"\n' for line in escaped.splitlines())
pathlib.Path(target).write_text(f"extern const char {name}[];\nconst char {name}[] =\n{lines};\n", "utf-8")
