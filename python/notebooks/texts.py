"""The notebooks' texts: a story written for them, and code of this package; no model was trained on them."""

from __future__ import annotations

from pathlib import Path

import logitd

PROSE = """The ferry left at six, and by the time the harbour wall was behind us the rain had settled into the kind that does \
not fall so much as hang. My brother stood at the rail with his hood up. He had brought a thermos, two oranges and the \
letter, and he had not spoken since the car park.

"You could read it to me," I said.

He shook his head. The letter had come in March, addressed to our mother, who had been dead for a year. It was written in \
blue ink by someone who pressed hard, and it said that the house on the island had been sold, that the new owners wished \
to have the keys, and that a trunk in the attic belonged to our family and ought to be collected before the end of the \
summer. Neither of us had known about a house. Our mother grew up, as far as we had ever been told, above a bakery in a \
town four hundred kilometres from the sea.

The island came out of the rain all at once. There was a jetty, a shop with its shutters down, and a row of low houses \
painted in colours that must have looked cheerful in better weather. A woman in yellow boots was waiting with a wheelbarrow. \
"You have her walk," she told my brother, and she turned and went up the hill without checking that we followed.

We found the trunk under a window. It was smaller than I had imagined, and lighter, and when my brother lifted the lid there \
was almost nothing inside: a pair of child's shoes, a tide table for 1961, and a photograph of a girl on the jetty, squinting, \
holding up a fish as long as her arm. He looked at it for a long time. Then he peeled one of the oranges, gave me half, \
and for the first time that day he laughed.

Afterwards, on the way down, I asked the woman how well she had known our mother. She thought about it. Every summer until \
they were eleven, she said, and after that not at all; there had been a quarrel between the fathers over a boat, and the \
boat had sunk, and nobody had ever found out whose fault it was. She still had the oars. If we liked, she would show us \
where they had hidden them, because a thing like that should not be forgotten only because it was never any use.
"""

CODE = (Path(logitd.__file__).parent / "vocab.py").read_text(encoding="utf-8")
