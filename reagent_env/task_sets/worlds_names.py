"""Made-up but pronounceable names: the same from the same random generator, never one twice.

Not here: which things are named.
"""

from __future__ import annotations

import random


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_ONSETS = _listed(
    "b br c d dr f fl g gr h j k kl l m n p pl qu r s st t tr v z sh b c d l m n r s t v"
)
_VOWELS = _listed("a e i o u a e i o a e o ia ei ou")
_CODAS = ("", "n", "l", "r", "s", "m", "th", "nd", "rk", "sk", "rn", "x", "k", "")
_INNER_CODAS = ("", "", "", "", "n", "l", "r")
_SWAPS = {"a": "e", "e": "i", "i": "o", "o": "u", "u": "a"}


class NameMaker:
    """Hands out names, each only once."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._taken: set[str] = set()

    def root(self, syllables: tuple[int, int] = (2, 3), ending: str = "") -> str:
        """A new name such as ``Velmora``."""
        while True:
            count = self._rng.randint(*syllables)
            parts = [
                self._rng.choice(_ONSETS)
                + self._rng.choice(_VOWELS)
                + self._rng.choice(_CODAS if place == count - 1 and not ending else _INNER_CODAS)
                for place in range(count)
            ]
            name = ("".join(parts) + ending).capitalize()
            if 4 <= len(name) <= 11 and self.claim(name):
                return name

    def twin(self, name: str) -> str | None:
        """A new name one vowel away from another, e.g. ``Velmira`` for ``Velmora``; None if taken."""
        places = [i for i, char in enumerate(name) if char in _SWAPS and i > 0]
        self._rng.shuffle(places)
        for place in places:
            near = name[:place] + _SWAPS[name[place]] + name[place + 1 :]
            if self.claim(near):
                return near
        return None

    def claim(self, name: str) -> bool:
        """Take a name; False if it is taken."""
        if name.lower() in self._taken:
            return False
        self._taken.add(name.lower())
        return True


ADJECTIVES = _listed(
    "Amber Ashen Bitter Borrowed Bright Broken Burning Candid Copper Crooked Distant Drowned "
    "Early Empty Faded Fallow Final Folded Forgotten Frozen Gentle Gilded Glass Golden Green "
    "Hidden Hollow Honest Idle Inner Iron Ivory Late Little Lonely Lost Marble Narrow Northern "
    "Open Painted Pale Patient Plain Quiet Restless Salt Scarlet Second Severed Silent Silver "
    "Sleeping Slow Southern Spare Sunken Tall Tender Thin Twisted Unlit Velvet Wandering Weary "
    "White Winter Wooden Yellow"
)
NOUNS = _listed(
    "Almanac Anchor Apiary Archive Atlas Avenue Balcony Beacon Bell Candle Canopy Cartographer "
    "Causeway Cellar Chart Chimney Cipher Cloister Compass Corridor Cradle Curtain Door Engine "
    "Errand Ferry Field Fountain Garden Gate Glacier Granary Hammer Harbour Harvest Hearth "
    "Horizon Hour Inheritance Journey Kettle Ladder Lamp Lantern Ledger Letter Loom Map Market "
    "Meadow Mirror Needle Oath Orchard Parlour Passage Pendulum Pilgrim Promise Quarry Reed "
    "Refuge Ribbon Rope Saddle Season Shadow Signal Stair Station Summer Tide Tower Treaty Valley "
    "Verdict Visitor Wagon Weaver Well Window Witness"
)
OCCUPATIONS = _listed(
    "architect astronomer botanist cartographer chemist composer engineer explorer geologist "
    "historian jurist linguist mathematician merchant novelist painter philosopher physician poet "
    "sculptor surveyor"
)
COMPANY_TRADES = _listed(
    "Instruments Shipping Foundry Textiles Motors Optics Ceramics Timber Railways Glassworks "
    "Chemicals Breweries"
)
PUBLISHING = ("Press", "Books", "House", "Editions")
WORK_FORMS = ("novel", "essay", "memoir", "epic poem", "treatise", "chronicle")
