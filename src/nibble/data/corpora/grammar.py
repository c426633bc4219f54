"""The sentences of the embedded corpus: spoken commands drawn from a small grammar.

In `RULES`, a word in lower case names a rule, a word in upper case is spoken, `|` parts alternatives of equal chance.
"""

import hashlib
from collections.abc import Iterator
from itertools import islice
from random import Random

RULES = """
command   = home | home | heat | timer | alarm | music | weather | phone | shopping | travel | reminder | calendar
          | question | screen

home      = switch THE room device state | switch state THE room device | switch THE device state AT clock
          | switch EVERY LIGHT IN THE room state | move THE room opening | IS THE room opening OPEN
          | dim THE room lamps TO number PERCENT | MAKE THE room lamps colour | LOCK THE entry DOOR AT clock
          | START THE machine IN number MINUTES | STOP THE machine AT clock
switch    = TURN | SWITCH
state     = ON | OFF
room      = KITCHEN | BEDROOM | BATHROOM | HALLWAY | GARAGE | OFFICE | BASEMENT | BALCONY | LIVING ROOM | DINING ROOM
device    = LIGHTS | LAMP | FAN | HEATER | RADIO | TELEVISION | SPEAKER | CAMERA
lamps     = LIGHTS | LAMP
machine   = DISHWASHER | WASHING MACHINE | COFFEE MACHINE | VACUUM CLEANER | OVEN
move      = OPEN | CLOSE
opening   = WINDOW | CURTAINS | BLINDS | DOOR
entry     = FRONT | BACK | GARAGE
dim       = DIM | BRIGHTEN
colour    = RED | BLUE | GREEN | YELLOW | PURPLE | WHITE

heat      = SET THE place TO number DEGREES | MAKE THE room warmth | raise THE HEATING BY several DEGREES
          | HOW WARM IS THE room when | KEEP THE place AT number DEGREES
place     = THERMOSTAT | HEATING | OVEN | room
warmth    = WARMER | COOLER | BRIGHTER | DARKER
raise     = RAISE | LOWER

timer     = SET A TIMER FOR number unit | start THE number MINUTE TIMER | CANCEL THE number MINUTE TIMER
          | ADD number MINUTES TO THE TIMER | SET A what TIMER FOR number MINUTES
start     = START | SET
unit      = SECONDS | MINUTES | HOURS
what      = EGG | PIZZA | LAUNDRY | RICE | PASTA

alarm     = SET AN ALARM FOR clock | WAKE ME UP AT clock | WAKE ME AT clock ON day | CANCEL THE ALARM AT clock
          | MOVE MY day ALARM TO clock | SNOOZE FOR number MINUTES
clock     = hour | hour OCLOCK | hour fraction | hour fraction | HALF PAST hour | QUARTER TO hour | QUARTER PAST hour
          | hour IN THE MORNING | hour IN THE EVENING | NOON | MIDNIGHT
hour      = ONE | TWO | THREE | FOUR | FIVE | SIX | SEVEN | EIGHT | NINE | TEN | ELEVEN | TWELVE
fraction  = FIFTEEN | THIRTY | FORTY FIVE | TWENTY | TWENTY FIVE | TEN | FIFTY
day       = weekday | weekday | weekday | TOMORROW
weekday   = MONDAY | TUESDAY | WEDNESDAY | THURSDAY | FRIDAY | SATURDAY | SUNDAY

number    = several | teen | tens | tens small | tens small
several   = TWO | THREE | FOUR | FIVE | SIX | SEVEN | EIGHT | NINE
small     = ONE | TWO | THREE | FOUR | FIVE | SIX | SEVEN | EIGHT | NINE
teen      = TEN | ELEVEN | TWELVE | THIRTEEN | FOURTEEN | FIFTEEN | SIXTEEN | SEVENTEEN | EIGHTEEN | NINETEEN
tens      = TWENTY | THIRTY | FORTY | FIFTY | SIXTY | SEVENTY | EIGHTY | NINETY

music     = PLAY style MUSIC IN THE room | PLAY SOME style AT clock | PLAY THE NEXT work BY name
          | PLAY THE NEW work BY name | SET THE VOLUME TO number | VOLUME vertical BY number PERCENT
          | SHUFFLE MY style PLAYLIST IN THE room | STOP THE MUSIC AT clock
style     = JAZZ | ROCK | BLUES | FOLK | CLASSICAL | COUNTRY | PIANO | GUITAR
work      = SONG | ALBUM | PODCAST
vertical  = UP | DOWN

weather   = WILL IT fall when | WILL IT fall IN city when | WHAT IS THE WEATHER IN city | HOW COLD IS IT IN city
          | DO I NEED AN UMBRELLA IN city | IS IT sky IN city | SHOW THE FORECAST FOR city when
          | WHEN IS SUNRISE IN city
fall      = RAIN | SNOW
sky       = SUNNY | WINDY | CLOUDY
when      = TODAY | TONIGHT | TOMORROW | ON weekday | THIS AFTERNOON | THIS WEEKEND
city      = LONDON | PARIS | BERLIN | ROME | MADRID | TOKYO | BOSTON | CHICAGO | DUBLIN | VIENNA

phone     = CALL person | CALL person ON THE SPEAKER | SEND A MESSAGE TO person | TELL person I AM late
          | READ THE MESSAGE FROM person | DIAL small small small small small | TEXT person THAT I AM late
person    = name | name | name | MY family | THE DOCTOR | THE DENTIST
name      = ANNA | PETER | MARIA | DAVID | LAURA | SIMON | EMMA | OLIVER | SARAH | THOMAS
family    = MOTHER | FATHER | SISTER | BROTHER
late      = LATE | number MINUTES LATE | AT HOME | AT THE sight

shopping  = ADD food TO THE SHOPPING LIST | PUT food AND food ON THE LIST | ORDER number pack OF food
          | REMOVE food FROM THE LIST | BUY number pack OF food | WE NEED MORE food AND food
food      = MILK | BREAD | BUTTER | CHEESE | EGGS | APPLES | BANANAS | TOMATOES | POTATOES | ONIONS | RICE | SUGAR
          | COFFEE | CHICKEN | PASTA | HONEY | WATER
pack      = BOTTLES | BAGS | BOXES

travel    = NAVIGATE TO THE sight IN city | TAKE ME TO THE NEAREST sight | HOW FAR IS THE sight | DRIVE TO city day
          | SHOW THE TRAFFIC TO THE sight | WHEN DOES THE vehicle TO city LEAVE | BOOK A vehicle TO city FOR day
          | FIND A HOTEL IN city
sight     = AIRPORT | STATION | HOSPITAL | LIBRARY | MUSEUM | BEACH | PARK | SUPERMARKET
vehicle   = TRAIN | BUS | FLIGHT | TAXI

reminder  = REMIND ME TO task | REMIND ME TO task AT hour | REMIND ME ON day TO task | REMIND name TO task
          | DO NOT FORGET TO task when
task      = WATER THE PLANTS | FEED THE animal | WALK THE DOG | PAY THE RENT | CALL name | BUY food | CLEAN THE room
          | WASH THE CAR | TAKE THE MEDICINE
animal    = CAT | DOG | FISH

calendar  = event WITH name ON weekday | SCHEDULE A event WITH name AT hour | CANCEL THE event ON weekday
          | MOVE THE event TO weekday | HOW MANY DAYS UNTIL THE ordinal OF month | WHEN IS THE event WITH name
event     = MEETING | LUNCH | DINNER | LESSON
ordinal   = FIRST | SECOND | THIRD | FOURTH | FIFTH
month     = JANUARY | MARCH | APRIL | JULY | AUGUST | OCTOBER

question  = WHAT IS number PLUS number | WHAT IS number MINUS number | WHAT IS number TIMES number
          | HOW DO YOU SAY food IN language | WHAT TIME IS IT IN city
language  = SPANISH | FRENCH | GERMAN | ITALIAN | GREEK

screen    = SWITCH TO CHANNEL number | WATCH THE NEWS AT clock | RECORD THE show ON CHANNEL number
          | SHOW MY PHOTOS FROM month day | FIND A show ABOUT subject when
show      = MOVIE | CARTOON | CONCERT
subject   = HISTORY | SCIENCE | FOOTBALL | COOKING
"""
MIN_WORDS, MAX_WORDS = 2, 9
PARTS = ("train", "dev", "test")
REDRAWS = 20  # for a sentence not drawn before; then training may hear one twice


def parse(rules: str) -> dict[str, list[list[str]]]:
    """Rule name -> alternatives, each a list of words."""
    grammar: dict[str, list[list[str]]] = {}
    for rule in rules.replace("\n          |", " |").strip().splitlines():
        if rule:
            name, alternatives = rule.split("=")
            grammar[name.strip()] = [alternative.split() for alternative in alternatives.split("|")]
    return grammar


GRAMMAR = parse(RULES)
VOCABULARY = frozenset(
    word for alternatives in GRAMMAR.values() for words in alternatives for word in words if word.isupper()
)


def expand(word: str, random: Random) -> list[str]:
    """`word` itself if spoken, else one random expansion of the rule it names."""
    if word.isupper():
        return [word]
    return [spoken for part in random.choice(GRAMMAR[word]) for spoken in expand(part, random)]


def part_of(sentence: str) -> str:
    """The part a sentence belongs to, by its own hash: a tenth dev, a tenth test, so the parts share none."""
    return {0: "dev", 1: "test"}.get(hashlib.sha256(sentence.encode()).digest()[0] % 10, "train")


def draw(part: str, random: Random) -> str:
    """One random sentence of `part`."""
    while True:
        words = expand("command", random)
        sentence = " ".join(words)
        if MIN_WORDS <= len(words) <= MAX_WORDS and part_of(sentence) == part:
            return sentence


def stream(part: str) -> Iterator[str]:
    """The endless, always equal sequence of the sentences of `part`.

    Training begins with sentences that together contain every word, so that no word of dev or test is new.
    """
    random = Random(f"nibble {part}")
    seen: set[str] = set()
    unheard = set(VOCABULARY) if part == "train" else set()
    while unheard:
        sentence = draw(part, random)
        if not unheard.isdisjoint(sentence.split()):
            unheard.difference_update(sentence.split())
            seen.add(sentence)
            yield sentence
    while True:
        sentence = draw(part, random)
        for _ in range(REDRAWS):
            if sentence not in seen:
                break
            sentence = draw(part, random)
        seen.add(sentence)
        yield sentence


def sentences(part: str, count: int) -> list[str]:
    """The first `count` sentences of `part` ("train", "dev" or "test"), upper case, `MIN_WORDS` to `MAX_WORDS` words.

    Raises:
        ValueError: `part` is none of `PARTS`.
    """
    if part not in PARTS:
        raise ValueError(f"no part {part!r}; there are {', '.join(PARTS)}")
    return list(islice(stream(part), count))
