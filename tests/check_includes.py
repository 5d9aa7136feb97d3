#!/usr/bin/env python3
"""Holds the sources to the design's directions: who may include what. Needs only the standard library.

    python3 tests/check_includes.py [ROOT]      prints a line for each violation; exits 1 if there is one

LAYERS and ONLY are the rules; a new file or layer is a row or a pattern there. Looks at #include lines alone, of src/,
include/ and cuda/; it does not follow them, so a header lends nobody its own rights.
"""

import fnmatch
import pathlib
import re
import sys

# Layer, its files (patterns below the root), the layers that its files may include besides their own.
LAYERS = [
    ("api", ["include/logitd/*.h"], []),
    ("base", ["src/limits.[ch]", "src/util.[ch]", "src/sha256.[ch]"], ["api"]),
    ("format", ["src/gguf*.[ch]", "src/quant*.[ch]"], ["api", "base"]),
    ("tokenizer", ["src/tokenizer.[ch]", "src/tok_*.[ch]"], ["api", "base", "format"]),
    ("backend", ["src/backend.h"], ["api", "base", "format"]),
    ("cpu", ["src/cpu/*.[ch]"], ["api", "base", "format", "backend"]),
    ("kernels", ["cuda/*.h", "cuda/*.cu", "cuda/*.cuh"], []),
    ("cuda", ["src/cuda/*"], ["api", "base", "format", "backend", "kernels"]),
    ("model", ["src/model*.[ch]"], ["api", "base", "format", "backend"]),
    ("engine", ["src/engine*.[ch]", "src/job*.[ch]"], ["api", "base", "format", "tokenizer", "backend", "cpu", "cuda", "model"]),
    ("sched", ["src/sched.[ch]"], ["api", "base"]),
    (
        "server",
        ["src/http_*.[ch]", "src/routes*.[ch]", "src/dist_*.[ch]", "src/enc_*.[ch]", "src/json_*.[ch]", "src/api_*.[ch]"]
        + ["src/reply_*.[ch]", "src/float*", "src/safetensors_head.[ch]", "src/memory_plan.[ch]", "src/access_log.[ch]"]
        + ["src/gate.[ch]", "src/metrics.[ch]", "src/openapi.h", "src/pages.h"],
        ["api", "base", "tokenizer", "sched"],
    ),
    ("main", ["src/main.c", "src/commands.h", "src/cmd_*.[ch]"], ["api", "base", "format", "tokenizer", "sched", "server"]),
]

# Headers of others, and the only files that may include them.
ONLY = [
    ("microhttpd.h", ["src/http_server.c"]),
    ("cjson/*", ["src/json_read.c"]),
    ("sys/mman.h", ["src/gguf.c", "src/util.c"]),
    ("pcre2.h", ["src/tok_pre.c"]),
    ("nettle/*", ["src/sha256.c"]),
    ("zlib.h", ["src/http_coding.c"]),
    ("zstd.h", ["src/http_coding.c"]),
    ("*intrin.h", ["src/cpu/*", "src/quant_blocks.h"]),
    ("arm_neon.h", ["src/cpu/*", "src/quant_blocks.h"]),
    ("dlfcn.h", ["src/cuda/cuda_driver.c"]),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def layer_of(path):
    return next((row for row in LAYERS if matches(path, row[1])), None)


def source_files(root):
    folders = [root / name for name in ("src", "include", "cuda")]
    found = [path for folder in folders for path in folder.rglob("*") if re.search(r"\.(c|h|cc|cu|cuh)$", path.name)]
    return sorted(path.relative_to(root).as_posix() for path in found)


def resolve(root, includer, bracket, name):
    """The included file below the root, or None when it is somebody else's, as everything in <> is (<sched.h>)."""
    if bracket == "<":
        return None
    for folder in (root / "src", root / "include", root, (root / includer).parent):
        if (folder / name).is_file():
            return (folder / name).resolve().relative_to(root).as_posix()
    return None


def violations(root):
    """One sentence for each; `root` is the top folder."""
    root = pathlib.Path(root).resolve()
    for path in source_files(root):
        layer = layer_of(path)
        if layer is None:
            yield f"{path} belongs to no layer: name it in LAYERS of tests/check_includes.py"
            continue
        name, _, may_see = layer
        for bracket, include in INCLUDE.findall((root / path).read_text(encoding="utf-8")):
            target = resolve(root, path, bracket, include)
            if target is None:
                for header, users in ONLY:
                    if fnmatch.fnmatchcase(include, header) and not matches(path, users):
                        yield f"{path} includes <{include}>, which only {' and '.join(users)} may"
                continue
            seen = layer_of(target)
            if seen is not None and seen[0] not in (name, *may_see):
                allowed = ", ".join(may_see) or "no other layer"
                yield f'{path} ({name}) includes "{include}" ({seen[0]}); {name} may include only: {allowed}'


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent
    found = list(violations(root))
    print("\n".join(found) or "includes: every file keeps to its layer")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
