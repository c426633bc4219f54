"""The voices of the embedded corpus: eSpeak NG's variants (timbres) x English accents x rates, pitches and sizes.

Dev and test have variants of their own, none a near copy of one in training: the mean log-mel spectra of one sentence
are at least as far apart as those of m4 and m5. Variants that whisper, croak, echo or copy another are left out.
"""

from dataclasses import dataclass
from random import Random

from nibble.data.corpora.voice import ESPEAK_RATE_HZ

ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
VARIANTS = {
    part: names.split(", ")
    for part, names in {
        "train": "Alex, Alicia, Andrea, Denis, Diogo, Hugo, Jacky, Lee, Marco, Mario, Michael, Mike, Mr serious, "
        "Nguyen, Reed, Storm, adam, anika, antonio, benjamin, caleb, david, edward, f1, f3, f5, grandpa, gustave, "
        "ian, john, kaukovalta, klatt2, klatt3, klatt4, linda, m1, m3, m4, m6, m7, m8, michel, mike2, paul, pedro, "
        "rob, steph, travis, zac",
        "dev": "Andy, Gene, belinda, boris, f2, m5, max, norbert, pablo, shelby",
        "test": "Annie, ed, f4, grandma, iven4, m2, marcelo, quincy, sandro, victor",
    }.items()
}
FEMALE = "Alicia, Andrea, Annie, anika, belinda, f1, f2, f3, f4, f5, grandma, linda, shelby, steph, zac"
FIRST_SPEAKER = {"train": 1001, "dev": 3001, "test": 5001}
RATE_WPM = (138, 174)  # least and most; nominal: without pauses it is a fifth more, 16 letters a second
PITCH = (35, 65)  # least and most, in eSpeak's 0 to 99
# The rates at which eSpeak's 22 050 samples a second are played. Faster moves all resonances up, as a smaller throat
# does, so training hears more throats than there are variants (Jaitly and Hinton, 2013). The ratios to 16 kHz are
# short.
PLAYED_HZ = {
    "train": (19_200, 20_000, 20_800, 21_600, 22_400, 23_200, 24_000, 24_800, 25_600),
    "dev": (ESPEAK_RATE_HZ,),
    "test": (ESPEAK_RATE_HZ,),
}


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker."""

    speaker: int
    part: str
    accent: str
    variant: str
    rate_wpm: int
    pitch: int
    played_hz: int = ESPEAK_RATE_HZ

    @property
    def name(self) -> str:
        """The name that eSpeak NG knows it by, such as en-us+m3."""
        return f"{self.accent}+{self.variant}"


def voices(part: str) -> list[Voice]:
    """Every voice of `part`, in fixed random order, so that the first few already differ in all respects."""
    random = Random(f"nibble voices {part}")
    pairs = [(accent, variant) for accent in ACCENTS for variant in VARIANTS[part]]
    random.shuffle(pairs)
    return [
        Voice(
            speaker=FIRST_SPEAKER[part] + index,
            part=part,
            accent=accent,
            variant=variant,
            rate_wpm=random.randint(*RATE_WPM),
            pitch=random.randint(*PITCH),
            played_hz=random.choice(PLAYED_HZ[part]),
        )
        for index, (accent, variant) in enumerate(pairs)
    ]
