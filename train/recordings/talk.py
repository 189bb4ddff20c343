"""What synthetic voices say: everyday sentences without keywords, and words that resemble keywords.

Speech without keywords is what a training lacks most (`train.recordings.synthetic`). A sentence is a
pattern whose gaps are filled at random: some hundred thousand different ones.
"""

import re

import numpy as np

from kwsd.errors import TrainingError
from train.recordings.corpus import KEYWORDS

NEAR = {
    "yes": ("yet", "yesterday", "chess", "guess", "jazz", "less", "essay"),
    "no": ("note", "nose", "nobody", "snow", "now", "normal", "canoe"),
    "up": ("cup", "upper", "puppy", "uncle", "ugly", "app"),
    "down": ("dawn", "town", "done", "noun", "gown", "doubt"),
    "left": ("lift", "loft", "leaf", "laughed", "theft", "lettuce"),
    "right": ("ride", "bright", "rice", "light", "ripe", "riot"),
    "on": ("own", "gone", "honest", "one", "upon", "lawn"),
    "off": ("of", "often", "cough", "coffee", "loft", "offer"),
    "stop": ("shop", "step", "top", "stomp", "stock", "storm"),
    "go": ("goat", "gold", "ghost", "ago", "going", "girl", "cargo"),
}
"""Words that resemble the usual keywords, and do not sound the same."""

_HOMOPHONES = {
    "blue": ("blew",), "bye": ("buy", "by"), "eight": ("ate",), "four": ("for", "fore"), "hey": ("hay",),
    "hi": ("high",), "hour": ("our",), "light": ("lite",), "no": ("know",), "one": ("won",), "pause": ("paws",),
    "read": ("red",), "red": ("read",), "right": ("write", "wright", "rite"), "sea": ("see",), "see": ("sea",),
    "two": ("to", "too"), "wait": ("weight",),
}  # fmt: skip
"""Words that sound the same. Others, of your own keywords, have to be given as keywords, too."""

_NEAR_SHARE = 0.3  # of the utterances
_TRIES = 1000
_GAP = re.compile(r"\{(\w+)\}")

_SENTENCES = (
    "{person} said that the {thing} was still in the {room}.",
    "Did you see {person} at the {place} this {time}?",
    "We need {number} {food} and a bit of {food} for dinner.",
    "My {person} bought a {adjective} {thing} last {day}.",
    "The weather in {city} has been {adjective} all week.",
    "Could you bring the {thing} back to the {room}, please?",
    "I was thinking about the {thing} that {person} mentioned.",
    "There were {number} people waiting at the {place}.",
    "She has worked for the same {place} since {month}.",
    "How much did they pay for that {adjective} {thing}?",
    "Let me tell you what happened at the {place} in {city}.",
    "{person} always forgets the {thing} when it is {adjective}.",
    "The train to {city} leaves at {number} thirty.",
    "I would rather have {food} than {food}, to be honest.",
    "They moved from {city} to {city} in {month}.",
    "Have you finished the {adjective} book about {city}?",
    "It takes {number} minutes to walk to the {place}.",
    "The children were playing with a {thing} in the {room}.",
    "Most of the {food} came from a farm near {city}.",
    "Nobody told {person} that the {place} would be closed.",
    "The meeting begins at {number}, so we should hurry.",
    "{person} and {person} are getting married in {month}.",
    "That was the most {adjective} film I have seen in years.",
    "Please remember to feed the {animal} before you leave.",
    "A {adjective} {animal} was sleeping under the {thing}.",
    "I think the {thing} costs about {number} dollars.",
    "We could hear the {animal} from the {room} all night.",
    "Our neighbours have a {animal} called {person}.",
    "The doctor asked {person} to come again in {month}.",
    "In {city}, the {place} is open every {day}.",
    "Somebody has put {food} into the {thing} again.",
    "What a {adjective} {time}, and what a {adjective} {animal}!",
    "The radio said that {city} expects {adjective} weather by {day}.",
    "When {person} was {number}, the family lived near a {place}.",
    "Take the second street after the {place}, then ask for {person}.",
    "This recipe needs {food}, {food}, and a little patience.",
    "The old {thing} broke, because {person} dropped it.",
    "He plays the piano, and his {person} sings rather well.",
    "Everybody at the {place} talked about the match in {city}.",
    "Yesterday the {animal} ate all of the {food}.",
)  # fmt: skip

_FILLERS = {
    "person": (
        "Anna", "Peter", "Maria", "my brother", "the teacher", "Doctor Miller", "your sister", "David", "Laura",
        "grandmother", "the manager", "uncle Ben", "Sophie", "the driver", "Michael", "Julia", "a friend", "Thomas",
    ),
    "thing": (
        "table", "umbrella", "camera", "suitcase", "letter", "blanket", "guitar", "bicycle", "kettle", "mirror",
        "newspaper", "computer", "telephone", "basket", "ladder", "picture", "jacket", "battery", "television",
    ),
    "room": ("kitchen", "garden", "bedroom", "garage", "living room", "cellar", "bathroom", "hallway", "office"),
    "place": (
        "market", "station", "library", "museum", "hospital", "bakery", "theatre", "airport", "school", "restaurant",
        "post office", "swimming pool", "company", "church", "bridge",
    ),
    "city": (
        "London", "Paris", "Chicago", "Boston", "Dublin", "Sydney", "Berlin", "Madrid", "Toronto", "Vienna", "Lisbon",
        "Denver", "Oslo", "Athens",
    ),
    "food": (
        "apples", "bread", "cheese", "rice", "butter", "tomatoes", "chicken", "soup", "honey", "sugar", "carrots",
        "potatoes", "chocolate", "milk", "pepper", "noodles",
    ),
    "animal": ("cat", "horse", "rabbit", "parrot", "sheep", "dog", "mouse", "duck", "pony", "hamster"),
    "adjective": (
        "beautiful", "terrible", "quiet", "strange", "heavy", "expensive", "wonderful", "yellow", "dangerous", "funny",
        "difficult", "cold", "famous", "tiny", "broken", "dusty", "gentle", "purple",
    ),
    "number": ("three", "seven", "twelve", "twenty", "fifty", "eighteen", "sixty", "nine", "eleven", "five", "forty"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "week", "summer"),
    "month": ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    "time": ("morning", "afternoon", "evening", "weekend", "winter"),
}  # fmt: skip


class Talk:
    """Sentences, and words that resemble keywords, without the keywords themselves.

    Args:
        keywords: what must not be said, nor their plurals and homophones.
        near: words that resemble them; those of `NEAR` are added.

    Raises:
        TrainingError: a word is empty, or one in `near` is a keyword or sounds like it.

    Attributes:
        words: the arguments.
    """

    def __init__(self, keywords: tuple[str, ...] = KEYWORDS, near: tuple[str, ...] = ()) -> None:
        for option, words in (("--words", keywords), ("--near", near)):
            if not all(map(str.strip, words)):
                raise TrainingError(f"{option}: a word is empty; separate words by single commas")
        own = [spoken(word) for word in keywords]
        self._banned = {sound for word in own for sound in (word, *_HOMOPHONES.get(word, ()))}
        if said := [word for word in near if self._is_banned(word)]:
            raise TrainingError(f"--near {said[0]}: has a keyword in it, or sounds like one")
        usual = (word for keyword in own for word in NEAR.get(keyword, ()))
        self.words = {"keywords": own, "near": [*near]}
        self._near = [*map(spoken, near), *(word for word in usual if not self._is_banned(word))]

    def utterance(self, random: np.random.Generator) -> str:
        """A sentence, or a word that resembles a keyword, by itself or in a row of them.

        Raises:
            TrainingError: nearly every sentence contains a keyword.
        """
        if self._near and random.random() < _NEAR_SHARE:
            words = random.choice(self._near, random.integers(1, 4))
            return ", ".join(words).capitalize() + "."
        for _ in range(_TRIES):
            if not self._is_banned(sentence := _sentence(random)):
                return sentence
        raise TrainingError(f"--words: nearly every sentence contains one of {', '.join(sorted(self._banned))}")

    def _is_banned(self, text: str) -> bool:
        text = spoken(text)
        return any(re.search(rf"(?<!\w){re.escape(word)}(e?s|'s)?(?!\w)", text) for word in self._banned)


def spoken(word: str) -> str:
    """A word as it is compared: lower case, with spaces for the underscores of a folder's name."""
    return word.strip().lower().replace("_", " ")


def _sentence(random: np.random.Generator) -> str:
    pattern = _SENTENCES[random.integers(len(_SENTENCES))]
    sentence = _GAP.sub(lambda gap: str(random.choice(_FILLERS[gap[1]])), pattern)
    return sentence[0].upper() + sentence[1:]
