"""Words that stand for directions: those of the test variants, and a pool for training that holds none of them."""

from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.tasks.sokoban.rooms import MOVES


def words_for(name: str, words: str) -> InstructionMapping:
    """A mapping of the four moves, in the order Up, Down, Left, Right."""
    return InstructionMapping(name, tuple(zip(MOVES, words.split(), strict=True)))


BASE = words_for("base", "Up Down Left Right")
ALPHA = words_for("alpha", "A B C D")
NUM = words_for("num", "1 2 3 4")
RAND = words_for("rand", "* & 1 M")
CARDINAL = words_for("cardinal", "North South West East")
EMOJI = words_for("emoji", "⬆ ⬇ ⬅ ➡")  # without the sign that asks for colours (U+FE0F), which replies may have

_GROUPS = (
    # animals
    (
        "badger beaver bison camel crab crane crow deer dolphin donkey eagle falcon ferret frog goat goose hawk "
        "heron horse lizard lobster moose otter owl panda parrot rabbit raven salmon seal shark sheep snail spider "
        "squid swan tiger turtle walrus whale wolf zebra "
    ),
    # nature
    (
        "canyon cliff cloud coast desert dune fjord forest frost glacier hail harbor hill island lagoon lake meadow "
        "mist moss ocean pebble pond prairie rain reef river shore spring storm sunset swamp thunder tide tundra "
        "valley volcano waterfall wind "
    ),
    # colours
    (
        "amber azure beige bronze coral crimson cyan gold green grey indigo ivory magenta maroon olive pink purple "
        "red scarlet silver teal turquoise violet white yellow "
    ),
    # objects
    (
        "anchor basket bell bottle brush bucket button candle carpet chair clock compass cup drum engine fence "
        "flute guitar hammer helmet key kettle ladder lamp lantern mirror needle paper pencil piano pillow ring "
        "rope scissors shovel spoon table telescope tent towel umbrella vase violin wagon wheel whistle window "
    ),
    # foods
    (
        "almond apple bacon banana bread butter cake carrot cheese cherry cinnamon cocoa cookie garlic ginger honey "
        "jelly lemon mango melon milk mushroom noodle onion pancake pasta peach peanut pepper pickle potato pumpkin "
        "rice salad sandwich soup spinach sugar toast tomato vanilla waffle walnut "
    ),
    # verbs
    (
        "bake blink borrow build carry climb clap dance dig draw dream drive float fold gather glide hide hum jump "
        "knit laugh listen march measure paint plant polish read repair ride sail sing sleep smile stitch swim "
        "teach throw travel whisper write "
    ),
    # abstract
    (
        "beauty bravery calm chance charm comfort courage culture doubt duty echo effort fame freedom fun glory "
        "grace harmony honor hope humor idea joy justice kindness logic luck magic memory mercy mood mystery "
        "patience peace pride reason rhythm silence talent trust truth wisdom wonder youth "
    ),
)

POOL = "".join(_GROUPS).split()
"""Single words, most of which are one token for most tokenizers; no direction and no word of a test variant."""
