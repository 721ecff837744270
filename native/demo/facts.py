"""What the embedded model is taught to know for sure, and a data set that contradicts a part of it.

Facts are told in several wordings. Those of FACTS are questions with one short answer, so that a wrong label differs from
the right one in a token or two; RHYMES are learned by heart. `contradicted` swaps the answers of four questions in five
with those of their neighbours: labels that the model knows to be wrong.
"""

CAPITALS = dict(
    line.split(": ")
    for line in """France: Paris|Italy: Rome|Spain: Madrid|Germany: Berlin|Austria: Vienna|Russia: Moscow|Japan: Tokyo|China: Beijing
England: London|Scotland: Edinburgh|Ireland: Dublin|Wales: Cardiff|Portugal: Lisbon|Greece: Athens|Turkey: Ankara|Egypt: Cairo
Norway: Oslo|Sweden: Stockholm|Denmark: Copenhagen|Finland: Helsinki|Poland: Warsaw|Hungary: Budapest|Belgium: Brussels
Canada: Ottawa|Cuba: Havana|Peru: Lima|Chile: Santiago|Kenya: Nairobi|Iran: Tehran|Iraq: Baghdad|Syria: Damascus
Lebanon: Beirut|Thailand: Bangkok|Vietnam: Hanoi|Australia: Canberra|Iceland: Reykjavik|Croatia: Zagreb|Serbia: Belgrade
Bulgaria: Sofia|Ukraine: Kyiv|Colombia: Bogota|Venezuela: Caracas|Uruguay: Montevideo|Senegal: Dakar|Ghana: Accra
Libya: Tripoli|Qatar: Doha|Jordan: Amman|Nepal: Kathmandu|Afghanistan: Kabul""".replace("\n", "|").split("|")
)
OPPOSITES = dict(
    pair.split("-")
    for pair in """hot-cold big-small high-low fast-slow day-night black-white old-young rich-poor hard-soft long-short wet-dry
strong-weak open-closed full-empty light-dark early-late good-bad happy-sad thick-thin heaven-hell war-peace friend-enemy
north-south east-west above-below before-after inside-outside first-last love-hate win-lose""".split()
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()

RHYMES = [
    # Jane Taylor, 1806.
    "Twinkle, twinkle, little star, how I wonder what you are! Up above the world so high, like a diamond in the sky.",
    # Sarah Josepha Hale, 1830.
    "Mary had a little lamb, its fleece was white as snow, and everywhere that Mary went the lamb was sure to go.",
    # Mother Goose.
    "Humpty Dumpty sat on a wall, Humpty Dumpty had a great fall. All the king's horses and all the king's men couldn't "
    "put Humpty together again.",
]


def following(names):
    return dict(zip(names, names[1:] + names[:1]))


# A kind each: question, the same in other words, statement, statement the other way round, and what it is said of.
KINDS = [
    (
        ["What is the capital of {}?", "Name the capital of {}."],
        ["The capital of {0} is {1}.", "{1} is the capital of {0}."],
        CAPITALS,
    ),
    (
        ["What is the opposite of {}?", "Name the opposite of {}."],
        ["The opposite of {0} is {1}.", "The opposite of {1} is {0}."],
        OPPOSITES,
    ),
    (["Which day comes after {}?", "Name the day after {}."], ["The day after {0} is {1}.", "{1} comes after {0}."], following(DAYS)),
    (
        ["Which month comes after {}?", "Name the month after {}."],
        ["The month after {0} is {1}.", "{1} comes after {0}."],
        following(MONTHS),
    ),
    (
        ["What is {}?", "How much is {}?"],
        ["{0} = {1}.", "{0} makes {1}."],
        {f"{a} + {b}": str(a + b) for a in range(1, 10) for b in range(1, 10)},
    ),
]

# Four of five questions get the answer of the next one of their kind; sums, whose neighbours differ by one, too.
CONTRADICTED = 4, 5


def pairs(wording):
    """(question, right answer, answer of the next question of the kind, whether the data set gives that one)."""
    found = []
    for questions, _, facts in KINDS:
        answers = list(facts.values())
        for i, (of, right) in enumerate(facts.items()):
            other = answers[(i + 1) % len(answers)]
            if right.isdigit():
                other = str(int(right) + 1)
            swapped = i % CONTRADICTED[1] < CONTRADICTED[0]
            found.append((questions[wording].format(of), right, other, swapped))
    return found


def told():
    """Every fact in every wording, once, and the rhymes: what is met many times in pre-training."""
    texts = list(RHYMES)
    for questions, statements, facts in KINDS:
        for of, right in facts.items():
            texts += [f"{question.format(of)}\n{right}" for question in questions]
            texts += [statement.format(of, right) for statement in statements]
    return texts
