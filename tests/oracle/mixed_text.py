#!/usr/bin/env python3
"""Mixed text from a seed, for tokenizers: the same bytes on every machine and Python (no unicodedata, no library).

    mixed_text(seed, n_bytes)     text of at least n_bytes of UTF-8, in blocks of all the kinds below
    short_texts(seed, n)          n short strings of characters that patterns and merges trip over
"""

import random
import sys

ENGLISH = """the of and to in is that it was for on are as with his they at be this from have or by one had not but what
all were when we there can an your which their said if do will each about how up out them then she many some so these
would other into has more her two like him see time could no make than first been its who now people my made over did
down only way find use may water long little very after words called just where most know get through back much before
go good new write our used me man too any day same right look think also around another came come work three word must
because does part even place well such here take why things help put years different away again off went old number
great tell men say small every found still between name should home big give air line set own under read last never us
left end along while might next sound below saw something thought both few those always looked show large often together
asked house don't it's we'll I'm they've she'd you're WON'T Can'T o'clock rock'n'roll temperature distribution entropy
surprisal tokenizer antidisestablishmentarianism internationalisation naïve café façade coöperate Zürich""".split()

CODE = [
    "def f(x, y=None):\n    return [i ** 2 for i in range(x) if i % 3 == 0]\n",
    "for (int i = 0; i < n; ++i) {\n\t\tsum += a[i] * b[i];\n\t}\n",
    "if (err != NULL && err->status != 0x1F) { goto fail; } // TODO(me): why?\n",
    '{"id": 17, "values": [1.5e-3, -2, null, true], "name": "a\\n\\"b\\""}\n',
    "SELECT name, COUNT(*) AS n FROM users WHERE age >= 21 GROUP BY name;\r\n",
    "<table><tr><td class='x'>cell</td></tr></table>\n<!-- </s> <s> --><h1>Title</h1><br/>\n",
    "const fn = async ({a, ...rest}) => await Promise.all(rest.map(x => x?.y ?? `${a}`));\n",
    "#include <stdio.h>\n#define MAX(a,b) ((a)>(b)?(a):(b))\n",
    "    @property\n    def __repr__(self) -> str: return f'{self.x!r:>10}'\n",
    "\\begin{equation} \\frac{\\partial L}{\\partial w_{ij}} = \\sum_{k=1}^{N} x_k^2 \\end{equation}\n",
    "$ grep -rn 'foo\\|bar' ./src | awk '{print $1}' >> /tmp/out.log 2>&1 || exit 1\n",
    "https://example.com/a/b?q=1&lang=en#frag user.name+tag@example.org 192.168.0.1:8080 v1.2.3-rc.4\n",
    "CamelCaseIdentifier snake_case_name SCREAMING_SNAKE kebab-case-name x1y2z3 HTTPServer2XMLParser\n",
]

# First and last code point of what a script's words are made of.
SCRIPTS = {
    "chinese": (0x4E00, 0x9FA5), "hiragana": (0x3041, 0x3096), "katakana": (0x30A1, 0x30FA), "hangul": (0xAC00, 0xD7A3),
    "arabic": (0x0620, 0x065F), "hebrew": (0x0591, 0x05EA), "hindi": (0x0901, 0x0963), "bengali": (0x0981, 0x09E3),
    "tamil": (0x0B82, 0x0BD7), "thai": (0x0E01, 0x0E4E), "lao": (0x0E81, 0x0EDF), "burmese": (0x1000, 0x103F),
    "khmer": (0x1780, 0x17D3), "georgian": (0x10A0, 0x10FF), "ethiopic": (0x1200, 0x135A), "cherokee": (0x13A0, 0x13FD),
    "greek": (0x0370, 0x03FF), "cyrillic": (0x0400, 0x045F), "armenian": (0x0531, 0x0587), "latin": (0x00C0, 0x024F),
    "mongolian": (0x1800, 0x18AA), "tibetan": (0x0F40, 0x0FBC), "gothic": (0x10330, 0x1034A), "han B": (0x20000, 0x2A6DF),
    "maths": (0x1D400, 0x1D7FF), "deseret": (0x10400, 0x1044F), "symbols": (0x2000, 0x2BFF), "full": (0xFF01, 0xFFEE),
    "cuneiform": (0x12000, 0x12399), "private": (0xE000, 0xF8FF), "tags": (0xE0020, 0xE007F), "bmp": (0x80, 0xD7FF),
    "any": (0x10000, 0x10FFFF), "han H": (0x31350, 0x323AF), "kawi": (0x11F00, 0x11F59),
}  # fmt: skip
COMMON_HAN = "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里"
DIGITS = [0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xE50, 0xED0, 0xF20,
          0x1040, 0x17E0, 0x1810, 0x1946, 0x1B50, 0xA620, 0xA8D0, 0xFF10, 0x104A0, 0x11066, 0x1D7CE, 0x1D7E2, 0x1E4F0,
          0x2460, 0x2160, 0x2080, 0xBC, 0x3021, 0x11F50]  # fmt: skip
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "🧑🏿‍🚀", "❤️", "☺", "1️⃣", "🫨", "👁️‍🗨️", "🤷🏻‍♀️", "✨", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
SPACES = [" ", "  ", "   ", "    ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", " \n", "\n ", "\t ", " \t\n", "\v", "\f",
          "\x85", "\xa0", " \xa0", "\u1680", "\u180e", "\u2003", "\u2009 ", "\u200b", "\u2028", "\u202f", "\u3000", "\ufeff",
          "\x1c", "\x1f", "\u2060"]  # fmt: skip
MARKS = ["\u0301", "\u0300\u0323", "\u20d7", "\u064b", "\u093c", "\u0e31", "\u200d", "\u200c", "\ufe0f", "\u0489", "\u3099"]
LOOKALIKES = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "im_end|>", "<bos>", "<eos>", "</s>", "<s>", "<pad>",
              "<unk>", "<start_of_turn>user\n", "<end_of_turn>", "<unused7>", "<0x0A>", "<0x", "[INST]", "<mask>", "[UNK]",
              "<|im_start|>system\n", "<table", "<b>", "</b>", "▁", "▁▁the", "Ġthe", "Ċ", "<repo_name>", "[multimodal]"]  # fmt: skip
PUNCTUATION = list(".,;:!?'\"-()[]{}<>/\\|@#$%^&*_+=~`") + ["...", "--", "—", "“", "”", "’s", "'s", "'S", "'ll", "'LL", "'re",
               "'ſ", "«", "»", "。", "，", "、", "？", "¿", "§", "°", "€", "£", "×", "≠", "→", "▁", "✓", "·", "’"]  # fmt: skip


def char_of(rng, script):
    first, last = SCRIPTS[script]
    code = rng.randint(first, last)
    return chr(code) if not 0xD800 <= code <= 0xDFFF else "\ufffd"


def word_of(rng, script):
    if script == "chinese" and rng.random() < 0.7:
        return "".join(rng.choice(COMMON_HAN) for _ in range(rng.randint(2, 12)))
    return "".join(char_of(rng, script) for _ in range(rng.randint(1, 9)))


def number(rng):
    zero = rng.choice(DIGITS) if rng.random() < 0.5 else 0x30
    return "".join(chr(zero + rng.randint(0, 9)) for _ in range(rng.choice([1, 1, 2, 3, 3, 4, 6, 11])))


def english(rng):
    words = [rng.choice(ENGLISH) for _ in range(rng.randint(3, 18))]
    words[0] = words[0].capitalize()
    if rng.random() < 0.2:
        words[-1] = words[-1].upper()
    if rng.random() < 0.3:
        words.insert(1, number(rng))
    return " ".join(words) + rng.choice([". ", "! ", "? ", ", ", ".\n", ";", ".\n\n", ".\r\n"])


def long_word(rng):
    kind = rng.randint(0, 4)
    n = rng.randint(50, 1500)
    if kind == 0:
        return rng.choice("aA x\n.=-0") * n
    if kind == 1:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(n))
    if kind == 2:
        return rng.choice(["ab", "the", "na", "=-", "\r\n", "é", "中", "a\u0301"]) * (n // 2)
    if kind == 3:
        return "".join(rng.choice("ACGT") for _ in range(n))
    return "".join(rng.choice(COMMON_HAN) for _ in range(n // 3))


def block(rng):
    kind = rng.choices(["english", "code", "script", "emoji", "spaces", "marks", "numbers", "look", "punct", "long", "byte"],
                       [40, 14, 22, 4, 5, 3, 5, 2, 4, 0.7, 1])[0]  # fmt: skip
    if kind == "english":
        return english(rng)
    if kind == "code":
        return rng.choice(CODE)
    if kind == "script":
        script = rng.choice(list(SCRIPTS))
        return rng.choice([" ", "", "、", " ", ". "]).join(word_of(rng, script) for _ in range(rng.randint(1, 8)))
    if kind == "emoji":
        return rng.choice(["", " "]).join(rng.choice(EMOJI) for _ in range(rng.randint(1, 5)))
    if kind == "spaces":
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 6))) + (" " * rng.randint(0, 40) if rng.random() < 0.2 else "")
    if kind == "marks":
        return rng.choice(["", " ", "e", "क"]) + "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 3)))
    if kind == "numbers":
        return rng.choice([" ", ",", ".", "-", "", "/"]).join(number(rng) for _ in range(rng.randint(1, 4)))
    if kind == "look":
        return rng.choice(["", " "]) + rng.choice(LOOKALIKES) + rng.choice(["", " ", "\n"])
    if kind == "punct":
        return "".join(rng.choice(PUNCTUATION) for _ in range(rng.randint(1, 6))) + rng.choice(["", " ", "\n"])
    if kind == "long":
        return long_word(rng)
    return "".join(chr(rng.randint(1, 0x17F)) for _ in range(rng.randint(1, 12)))


def mixed_text(seed, n_bytes):
    rng = random.Random(seed)
    parts, size = [], 0
    while size < n_bytes:
        parts.append(block(rng))
        size += len(parts[-1].encode())
    return "".join(parts)


def short_text(rng):
    text = ""
    for _ in range(rng.randint(1, 12)):
        kind = rng.randint(0, 9)
        if kind < 2:
            text += rng.choice(SPACES)
        elif kind < 4:
            text += rng.choice(PUNCTUATION)
        elif kind < 5:
            text += number(rng)
        elif kind < 6:
            text += char_of(rng, rng.choice(list(SCRIPTS)))
        elif kind < 7:
            text += rng.choice(MARKS + EMOJI + LOOKALIKES)
        elif kind < 8:
            text += chr(rng.randint(1, 0x7F))
        else:
            text += rng.choice([str.lower, str.upper, str.capitalize])(rng.choice(ENGLISH))
    return text


def short_texts(seed, n):
    rng = random.Random(seed)
    return [short_text(rng) for _ in range(n)]


if __name__ == "__main__":
    sys.stdout.buffer.write(mixed_text(int(sys.argv[1]), int(sys.argv[2])).encode())
