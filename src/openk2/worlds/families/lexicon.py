"""The word stock of the task families: nouns by topic, verbs by meaning, adjectives, people, places, made-up words.

Every word belongs to one split by its own hash (`split_of`): about one in five is kept for the test split. A family
draws all names and values (tools, parameters, columns, files, arguments) from the words of the split that it is asked
for, so a held-out name can not occur in training. Function words of requests are no names and are shared; request
frames have their own split (`phrasing`). Numbers and dates are drawn from the same ranges in both splits.
"""

from __future__ import annotations

import hashlib
import random
import re
from functools import cache

from openk2.core import Split
from openk2.worlds.families.lexicon_coinage import EVERYDAY, PIECES

Rng = random.Random

TEST_SHARE = 5
"""One word in this many is kept for the test split."""

NOUNS: dict[str, str] = {
    "kitchen": """kettle oven spoon bowl plate cup mug jar pan pot fork knife tray stove sink fridge freezer toaster
        blender grater ladle whisk apron napkin saucer pitcher teapot skillet spatula strainer""",
    "food": """bread cheese butter honey soup salad pasta rice noodle pizza cake cookie muffin pancake waffle sandwich
        burger sausage steak omelet pickle sauce pepper salt sugar flour cereal yogurt cream syrup jam dessert
        snack recipe meal menu breakfast lunch dinner""",
    "fruit": """apple banana cherry grape lemon lime mango melon orange papaya peach pear plum apricot fig date kiwi
        berry coconut almond walnut olive tomato potato onion carrot cabbage spinach garlic ginger pumpkin
        radish turnip bean lentil""",
    "animal": """horse cow goat sheep pig donkey rabbit hamster otter beaver badger fox wolf bear tiger lion zebra
        giraffe camel monkey panda koala squirrel mouse rat bat whale dolphin seal shark salmon trout tuna crab
        lobster turtle lizard snake frog toad eagle hawk owl falcon raven crow robin sparrow pigeon parrot
        penguin swan duck goose chicken turkey bee ant beetle spider moth butterfly""",
    "plant": """tree flower bush grass fern moss oak maple cedar birch willow palm bamboo cactus rose tulip daisy lily
        orchid violet clover ivy seed root branch leaf petal thorn garden meadow orchard hedge lawn""",
    "home": """chair table sofa lamp shelf drawer cabinet closet mirror carpet curtain pillow blanket mattress bed desk
        stool bench clock vase candle basket bucket broom mop ladder door window wall floor ceiling roof chimney
        staircase balcony porch fence gate garage attic basement""",
    "tool": """hammer drill saw wrench pliers screwdriver chisel axe shovel rake nail screw bolt rope chain cable hook
        hinge spring gear lever pulley pump valve pipe hose filter motor engine battery sensor switch socket
        fuse""",
    "clothing": """shirt jacket coat sweater scarf glove hat cap boot shoe sandal sock belt tie suit dress skirt jeans
        button zipper pocket collar sleeve uniform costume helmet bracelet necklace earring ring watch wallet
        purse umbrella""",
    "vehicle": """car truck bus van taxi train tram bicycle scooter motorcycle boat ship ferry canoe kayak yacht plane
        helicopter glider rocket wagon trailer tractor ambulance engine wheel tire brake pedal anchor sail""",
    "travel": """hotel room flight ticket passport visa luggage suitcase itinerary trip tour cruise route map journey
        airport station harbor terminal platform hostel cabin campsite tent resort museum castle cathedral
        monument bridge tunnel highway road street avenue""",
    "office": """document report memo letter envelope folder binder notebook pencil pen eraser stapler printer scanner
        invoice receipt contract proposal agenda meeting calendar schedule deadline project task budget payroll
        department manager employee intern assistant""",
    "shop": """order cart coupon discount voucher refund basket product brand catalog supplier vendor warehouse stock
        shipment parcel package delivery customer price sale offer bargain payment deposit bill warranty""",
    "money": """account loan mortgage bank branch credit debit balance transfer currency wage salary bonus pension tax
        insurance policy claim fund bond share portfolio asset audit fee fine donation""",
    "health": """patient doctor nurse clinic hospital pharmacy pill vaccine bandage allergy symptom fever cough diet
        vitamin therapy surgery dentist appointment prescription dosage checkup workout sleep pulse weight
        height""",
    "school": """student teacher course lesson lecture exam quiz grade essay homework textbook library classroom campus
        semester tutor diploma degree scholarship curriculum seminar thesis chapter paragraph dictionary""",
    "sport": """match team player coach league score goal ball bat racket net court stadium arena medal trophy race
        marathon tournament referee skater swimmer runner climber boxer archer surfer golfer jersey whistle""",
    "music": """song album concert band singer guitar piano violin drum flute trumpet cello harp banjo melody chorus
        rhythm tempo lyric playlist studio record speaker microphone orchestra ballet opera""",
    "art": """painting sculpture sketch portrait canvas brush palette easel gallery mural poster photo camera lens
        frame film movie actor scene script stage costume puppet novel poem comic magazine newspaper article""",
    "weather": """rain snow storm wind cloud fog frost thunder lightning sunshine rainbow breeze hail drought flood
        temperature humidity pressure forecast season climate""",
    "nature": """river lake ocean island beach forest desert mountain valley canyon cave glacier volcano waterfall swamp
        prairie cliff reef lagoon peninsula stone pebble sand mud crystal mineral fossil""",
    "space": """planet moon star comet asteroid galaxy nebula orbit satellite telescope rover probe crater eclipse
        meteor astronaut capsule""",
    "computer": """server laptop keyboard monitor router modem tablet phone printer database backup password login
        website browser email message folder archive cluster node queue packet token ticket module plugin widget
        dashboard sensor robot drone""",
    "building": """house apartment tower office factory mill barn shed workshop theater market bakery cafe restaurant
        school church temple palace prison lighthouse windmill greenhouse garage kennel stable""",
    "material": """wood metal iron steel copper brass bronze silver gold tin lead glass plastic rubber leather cotton
        wool silk linen paper cardboard concrete brick marble granite clay wax oil coal""",
    "person": """guest member visitor tenant owner neighbor driver pilot sailor farmer baker butcher carpenter plumber
        painter tailor barber chef waiter clerk lawyer judge engineer scientist author editor journalist
        librarian soldier guard captain mayor""",
    "game": """puzzle card dice board token level quest dungeon wizard knight dragon castle shield sword arrow potion
        treasure riddle maze pawn rook bishop joker domino marble kite balloon toy doll swing""",
    "science": """atom molecule cell enzyme protein gene virus bacteria experiment sample laboratory microscope magnet
        laser beaker formula theory equation vector matrix graph circle triangle cube sphere angle""",
    "event": """party wedding festival parade ceremony birthday holiday picnic banquet reunion conference workshop
        exhibition auction raffle contest rehearsal interview webinar""",
    "farm": """harvest crop field tractor barn silo wheat corn barley oat hay pasture herd flock hive vineyard plow
        fertilizer irrigation pesticide""",
    "city": """district park plaza fountain statue subway crosswalk sidewalk elevator escalator billboard mailbox
        hydrant landfill bin parking permit license library embassy""",
}
"""Common nouns, singular, lower case, by topic."""

VERBS: dict[str, str] = {
    "get": "get fetch read find check show retrieve view see lookup pull inspect query report obtain display grab",
    "create": "create add make register open insert book build schedule set_up enter draft",
    "update": "update set change edit modify adjust alter switch assign revise tune configure",
    "delete": "delete remove cancel drop erase clear discard revoke close scrap void undo withdraw",
    "send": "send deliver mail forward post dispatch transmit relay submit ship",
    "search": "search find list browse filter discover scan seek explore lookup locate",
    "count": "count tally total sum",
    "convert": "convert translate turn transform exchange swap recast",
    "move": "move transfer shift relocate carry bring haul",
    "rent": "rent reserve hire borrow lease charter hold claim",
    "rate": "rate score rank grade review judge assess evaluate",
    "run": "run start launch execute trigger activate begin invoke",
    "stop": "stop halt pause end disable suspend freeze block",
}
"""Verbs by meaning; the words of one group can stand for each other in a tool's name. The first of each group is shared
by both splits (an agent that never met a `get_...` would be useless); a whole name is held out through its noun."""

ADJECTIVES = """red blue green yellow orange purple pink brown black white gray golden silver crimson scarlet azure teal
    violet amber ivory small large big tiny huge giant little tall short long wide narrow thick thin deep
    shallow heavy light fast slow quick rapid gentle rough smooth soft hard sharp blunt bright dark pale
    vivid clear cloudy clean dirty fresh stale sweet sour bitter salty spicy mild warm cool hot cold frozen
    dry wet damp loud quiet silent noisy busy idle calm wild tame brave shy proud humble kind clever wise
    young old new ancient modern early late daily weekly monthly annual public private open closed full
    empty rich poor cheap costly rare common plain fancy simple complex round square flat curved straight
    broken solid hollow northern southern eastern western upper lower inner outer central local global royal
    rural urban"""

FIRST_NAMES = """Ada Adam Agnes Aisha Alan Albert Alice Alma Amara Amir Amy Ana Andre Anika Anna Anton Ariel Arthur
    Astrid Ben Bianca Boris Brian Bruno Carla Carlos Carmen Cecil Chloe Clara Colin Cora Cyrus Dana Daniel
    Daria David Dean Diana Diego Dora Edgar Edith Elena Eli Elias Ella Elsa Emil Emma Eric Erin Esther Ethan
    Eva Fatima Felix Fiona Flora Frank Freya Gabriel George Gina Grace Greta Gustav Hana Hannah Harold
    Hassan Hazel Hector Helen Henry Hugo Ian Ibrahim Ida Igor Ines Ingrid Irene Iris Isaac Ivan Jack Jamal
    James Jana Jane Jasper Joan Joel Jonas Jorge Julia Julian Kai Karen Karim Karl Kate Kenji Kira Klaus
    Lara Laura Lea Lena Leo Leon Lila Linda Liam Louis Lucas Lucia Luis Lydia Mabel Marco Maria Marie Mark
    Marta Martin Maya Mei Mila Mina Mira Mona Nadia Naomi Nasser Nathan Nell Nico Nina Noah Nora Olga Oliver
    Olivia Omar Oscar Otto Pablo Paul Paula Pedro Peter Petra Priya Quinn Rafael Rania Raul Rita Robert Rosa
    Ruth Ryan Sam Samir Sara Simon Sofia Stella Sven Tara Tariq Theo Thomas Tina Uma Ursula Vera Victor
    Viola Walter Wendy Xavier Yara Yasmin Yuki Yusuf Zara Zoe"""

PLACES = """Aarhus Accra Amman Ankara Antwerp Athens Austin Baku Bergen Berlin Bern Bilbao Bogota Boston Bremen
    Bristol Brno Brussels Cairo Calgary Cardiff Chicago Cologne Cordoba Cork Dakar Dallas Darwin Delhi
    Denver Doha Dresden Dublin Durban Essen Fargo Fresno Geneva Genoa Ghent Glasgow Graz Hamburg Hanoi
    Havana Helsinki Houston Istanbul Jakarta Kyoto Krakow Lagos Leeds Leipzig Lima Lisbon London Lyon Madrid
    Malaga Manila Memphis Miami Milan Minsk Mumbai Munich Nairobi Naples Nice Odense Oslo Osaka Ottawa
    Oxford Padua Paris Perth Phoenix Pisa Porto Prague Quito Riga Rome Rotterdam Seattle Seoul Seville Sofia
    Sydney Taipei Tallinn Tampa Tokyo Toronto Trieste Tulsa Tunis Turin Utrecht Valencia Venice Verona
    Vienna Vilnius Warsaw York Zagreb Zurich"""


def _words(text: str) -> list[str]:
    return text.split()


SHARED = frozenset(
    _words(
        "id name status code count total result results unit value amount from to of com org net the and are is "
        "at for no bring meet where please check today"
    )
)
"""Words without a split: structural names (`id`, `status`), and the function words of made-up texts."""

COINED_SHARE = 0.6
"""The share of training's nouns and adjectives that are coined."""
_PIECES = tuple(_words(PIECES))
LETTERS = "abcdefghijklmnopqrstuvwxyz"
RESERVED_WORDS = SHARED | set(_words("nan null none true false inf infinity"))
"""What is never coined: words with a meaning of their own, also to the tools that read them."""

ONSETS = tuple(_words("b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl pr sh sk sl st th tr"))
VOWELS = tuple(_words("a e i o u a e i o ai ea oo"))
CODAS = ["", "", "", "l", "m", "n", "r", "s", "t", "k", "nd", "rt", "sh", "x"]

_IRREGULAR = {
    "knife": "knives",
    "shelf": "shelves",
    "leaf": "leaves",
    "wolf": "wolves",
    "mouse": "mice",
    "goose": "geese",
}
_SAME = {"sheep", "trout", "salmon", "pliers", "jeans", "bacteria", "dice", "series"}


def make_rng(family: str, split: Split, seed: int, *extra: object) -> Rng:
    """The generator of everything random about one task: a pure function of its arguments."""
    text = "/".join(str(part) for part in (family, split, seed, *extra))
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def hash_split(text: str) -> Split:
    """The split that a text belongs to for ever."""
    digest = hashlib.sha256(text.encode()).digest()
    return "test" if int.from_bytes(digest[:4], "big") % TEST_SHARE == 0 else "train"


def split_of(word: str) -> Split:
    """The split of one word, whatever its case, singular and plural alike.

    The salt was chosen so that every list of words here has enough of them in the test split.
    """
    lower = word.lower()
    return hash_split("word380/" + (lower.rstrip("esiy") or lower))


def plural(noun: str) -> str:
    """The plural of an English noun of the stock."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun in _SAME:
        return noun
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    if noun in ("tomato", "potato"):
        return noun + "es"
    return noun + "s"


def article(word: str) -> str:
    """`a` or `an`, by the first letter."""
    return "an" if word[:1].lower() in "aeiou" and not word.startswith(("uni", "use", "eu")) else "a"


@cache
def of_split(words: str, split: Split) -> tuple[str, ...]:
    """The words of a blank-separated list that belong to the split, each once, in order."""
    return tuple(word for word in dict.fromkeys(words.split()) if split_of(word) == split)


@cache
def nouns(split: Split, topic: str | None = None) -> tuple[str, ...]:
    """The nouns of a split, all or of one topic."""
    return of_split(NOUNS[topic] if topic else " ".join(NOUNS.values()), split)


def adjectives(split: Split) -> tuple[str, ...]:
    return of_split(ADJECTIVES, split)


def verbs(split: Split, meaning: str) -> tuple[str, ...]:
    """The verbs of a split that share a meaning (a key of `VERBS`); the first one is in both splits."""
    common = VERBS[meaning].split()[0]
    return (common, *(verb for verb in of_split(VERBS[meaning], split) if verb != common))


def noun(rng: Rng, split: Split, topic: str | None = None) -> str:
    return coined(rng) if coins(rng, split) else rng.choice(nouns(split, topic))


def adjective(rng: Rng, split: Split) -> str:
    return coined(rng) if coins(rng, split) else rng.choice(adjectives(split))


def coins(rng: Rng, split: Split, share: float = COINED_SHARE) -> bool:
    """Whether a draw of the training split coins its word; always false, and drawing nothing, in the test split."""
    return split == "train" and rng.random() < share


def coined(rng: Rng) -> str:
    """A word of the training split that is no noun of it, 3-10 lower-case letters: any string, sounding or not.

    An everyday word; or one that hardly comes twice: letter groups in a row, a blend of two nouns (`ket` + `ender`),
    syllables, or letters drawn by nothing but chance.
    """
    stock = nouns("train")
    for _ in range(400):
        roll = rng.random()
        if roll < 0.35:
            word = rng.choice(_everyday())
        elif roll < 0.6:
            word = "".join(rng.choices(_PIECES, k=rng.randint(1, 3)))
        elif roll < 0.74:
            head, tail = rng.choice(stock), rng.choice(stock)
            word = head[: rng.randint(2, len(head))] + tail[-rng.randint(2, len(tail)) :]
        elif roll < 0.87:
            syllables = rng.randint(1, 3)
            word = "".join(
                rng.choice(LETTERS) * (rng.random() < 0.9) + rng.choice("aeiouy") + rng.choice(CODAS)
                for _ in range(syllables)
            )
        else:
            word = "".join(rng.choices(LETTERS, k=rng.randint(3, 8)))
        if 3 <= len(word) <= 10 and split_of(word) == "train" and word not in RESERVED_WORDS:
            return word
    raise AssertionError("400 coined words in a row were refused")  # chance below 1e-38


@cache
def _everyday() -> tuple[str, ...]:
    return of_split(EVERYDAY, "train")


def clipped(rng: Rng) -> str:
    """Two to four letters out of a noun of the training split: a word of one or two pieces."""
    stock = nouns("train")
    for _ in range(400):
        noun = rng.choice(stock)
        size = rng.choice((2, 2, 3, 3, 4))
        start = rng.randrange(max(1, len(noun) - size))
        word = noun[start : start + size]
        if word.isalpha() and split_of(word) == "train" and word not in RESERVED_WORDS:
            return word
    raise AssertionError("400 clipped words in a row were refused")  # chance below 1e-30


def pseudoword(rng: Rng, split: Split) -> str:
    """A pronounceable word that no dictionary has (mostly), 4-8 letters, lower case, of the split."""
    if coins(rng, split, COINED_SHARE / 2):
        return coined(rng)
    for _ in range(400):
        syllables = rng.choice((2, 2, 2, 3))
        word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables)) + rng.choice(CODAS)
        if 4 <= len(word) <= 8 and split_of(word) == split:
            return word
    raise AssertionError("400 made-up words in a row belong to the other split")  # chance below 1e-38


def word(rng: Rng, split: Split) -> str:
    """A lower-case content word: mostly a noun, else an adjective or a made-up word."""
    roll = rng.random()
    if roll < 0.5:
        return noun(rng, split)
    return adjective(rng, split) if roll < 0.65 else pseudoword(rng, split)


def first_name(rng: Rng, split: Split) -> str:
    if rng.random() < 0.5 or coins(rng, split):
        return pseudoword(rng, split).capitalize()
    return rng.choice(of_split(FIRST_NAMES, split))


def person(rng: Rng, split: Split) -> str:
    """First and last name; the last name is always made up."""
    return f"{first_name(rng, split)} {pseudoword(rng, split).capitalize()}"


def place(rng: Rng, split: Split) -> str:
    """A town, real or made up."""
    if rng.random() < 0.5 or coins(rng, split):
        return pseudoword(rng, split).capitalize()
    return rng.choice(of_split(PLACES, split))


def product(rng: Rng, split: Split) -> str:
    """A thing as a shop names it: `amber kettle`, `Brosta kettle`, `Brosta 300`."""
    roll = rng.random()
    if roll < 0.5:
        return f"{adjective(rng, split)} {noun(rng, split)}"
    brand = pseudoword(rng, split).capitalize()
    return f"{brand} {noun(rng, split)}" if roll < 0.75 else f"{brand} {rng.randint(1, 9)}00"


def email(rng: Rng, split: Split) -> str:
    return f"{pseudoword(rng, split)}@{pseudoword(rng, split)}.{rng.choice(('com', 'org', 'net'))}"


def code(rng: Rng, split: Split) -> str:
    """An identifier such as `KR-4821`: capital letters from a word of the split and digits."""
    letters = pseudoword(rng, split)[:2].upper()
    return f"{letters}-{rng.randint(100, 9999)}"


def date(rng: Rng) -> str:
    """A date in ISO form; the same range in both splits."""
    return f"20{rng.randint(20, 29)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
