"""Makes bfcl/ and bfcl_verdicts.jsonl: questions of BFCL v4, texts that answer them, and what BFCL's own checker says of these.

    python make_bfcl.py BFCL_FOLDER OUT_FOLDER

The checker is that of the package bfcl-eval 2026.3.23 (ShishirPatil/gorilla, Apache-2.0), of which the list of models is left out,
since it loads every vendor's client. Texts are made out of the possible answers, right and changed by chance (seed 7), in Python's
syntax, decoded as the checker's prompting handlers do, and in JSON between <tool_call> tags, decoded as its Qwen handler does. A
verdict is one of the checker; texts on which it stops with an exception of Python are left out. BFCL_FOLDER holds
BFCL_v4_<category>.json and possible_answer_<category>.json.
"""

import copy
import json
import random
import re
import sys
import types
from pathlib import Path

configuration = types.ModuleType("bfcl_eval.constants.model_config")
configuration.MODEL_CONFIG_MAPPING = {"none": types.SimpleNamespace(underscore_to_dot=False)}
sys.modules["bfcl_eval.constants.model_config"] = configuration
for missing in ("tenacity",):
    module = types.ModuleType(missing)
    for name in ("retry", "retry_if_exception_message", "retry_if_exception_type", "wait_random_exponential"):
        setattr(module, name, None)
    sys.modules.setdefault(missing, module)
for parser in ("java_parser", "js_parser", "json_parser", "xml_parser"):
    module = types.ModuleType(f"bfcl_eval.model_handler.parser.{parser}")
    for name in ("parse_java_function_call", "parse_javascript_function_call", "parse_json_function_call",
                 "parse_concise_xml_function_call", "parse_verbose_xml_function_call"):
        setattr(module, name, None)
    sys.modules[f"bfcl_eval.model_handler.parser.{parser}"] = module

from bfcl_eval.constants.enums import Language, ReturnFormat  # noqa: E402
from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker  # noqa: E402
from bfcl_eval.model_handler.utils import default_decode_ast_prompting  # noqa: E402
from bfcl_eval.utils import is_empty_output, is_function_calling_format_output  # noqa: E402

CATEGORIES = ["simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance"]
QUESTIONS = 18
TEXTS = 11


def kinds(record):
    """Types of parameters in a question's functions."""
    found = set()
    for function in record["function"]:
        for about in function["parameters"]["properties"].values():
            found.add(about["type"] + "/" + str(about.get("items", {}).get("type")))
    return found


def pick(records):
    """The first questions, and before them some of every kind of parameter."""
    chosen, seen = [], {}
    for record in records:
        new = [kind for kind in kinds(record) if seen.get(kind, 0) < 2]
        if new and len(chosen) < QUESTIONS:
            chosen.append(record)
            for kind in kinds(record):
                seen[kind] = seen.get(kind, 0) + 1
    chosen += [record for record in records if record not in chosen]
    return sorted(chosen[:QUESTIONS], key=records.index)


def value(draw, possible):
    """One of the possible values; a dictionary's hold lists of possible values again."""
    one = draw.choice([v for v in possible if v != ""] or [None])
    if isinstance(one, dict):
        return {k: draw.choice([v for v in vs if v != ""] or [None]) for k, vs in one.items() if "" not in vs or draw.random() < 0.5}
    if isinstance(one, list) and one and isinstance(one[0], dict):
        return [value(draw, [inner]) for inner in one]
    return one


def call(draw, truth):
    (name, parameters), = truth.items()
    given = {k: value(draw, vs) for k, vs in parameters.items() if "" not in vs or draw.random() < 0.5}
    return {name: given}


def odd(draw, old):
    """A value that is not quite the same."""
    choices = [None, "", "x", 0, -1, 1.5, True, [], [old], {}, {"a": 1}, str(old)]
    if isinstance(old, bool):
        choices += [int(old), not old, str(old)] * 2
    elif isinstance(old, int):
        choices += [float(old), float(old), str(old), old + 1, -old, old == 1] * 2
    elif isinstance(old, float):
        choices += [int(old), int(old), str(old), old + 0.5] * 2
    elif isinstance(old, str):
        choices += [old.upper(), old.lower(), old + ".", " " + old, old.replace(" ", "_"), old.replace("'", '"'), old[:-1], [old]] * 2
    elif isinstance(old, list) and old:
        choices += [old[::-1], old[:-1], old + old[:1], tuple(old), [str(v) for v in old], tuple(old), [odd(draw, old[0])] + old[1:]] * 2
    elif isinstance(old, dict) and old:
        key = draw.choice(list(old))
        fewer = {k: v for k, v in old.items() if k != key}
        choices += [fewer, {**old, "more": 1}, {**old, key: odd(draw, old[key])}, dict(reversed(old.items()))] * 3
    return draw.choice(choices)


def change(draw, calls):
    calls = copy.deepcopy(calls)
    one = draw.choice(calls)
    (name, given), = one.items()
    match draw.choice(["value"] * 6 + ["drop", "drop", "more", "name", "order", "call", "twice", "less", "key"]):
        case "value" if given:
            key = draw.choice(list(given))
            given[key] = odd(draw, given[key])
        case "drop" if given:
            given.pop(draw.choice(list(given)))
        case "more":
            given["unknown_parameter"] = 1
        case "name":
            one[name + "_x"] = one.pop(name)
        case "order":
            draw.shuffle(calls)
        case "call":
            calls.append({"another.one": {"a": 1}})
        case "twice":
            calls.append(copy.deepcopy(one))
        case "less":
            calls.remove(one)
        case "key" if given:
            key = draw.choice(list(given))
            given[key.upper()] = given.pop(key)
    return calls


def python(draw, calls):
    texts = []
    for one in calls:
        (name, given), = one.items()
        texts.append(f"{name}({', '.join(f'{k}={v!r}' for k, v in given.items())})")
    text = ", ".join(texts)
    forms = ["[%s]"] * 8 + ["%s", "```\n[%s]\n```", "\n[%s]\n", "[%s", "[%s] is it", "I call [%s]", "[ %s , ]"]
    return draw.choice(forms) % text


def tagged(calls):
    one = [json.dumps({"name": name, "arguments": given}) for call in calls for name, given in call.items()]
    return "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in one)


def decode(text):
    if "<tool_call>" in text:
        found = [json.loads(part) for part in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL)]
        return [{one["name"]: one["arguments"]} for one in found]
    return default_decode_ast_prompting(text, ReturnFormat.PYTHON)


def verdict(record, truth, category, text):
    try:
        calls = decode(text)
    except Exception:
        return category == "irrelevance"
    if category == "irrelevance":
        return is_empty_output(calls)
    if not is_function_calling_format_output(calls):
        return False
    return ast_checker(record["function"], calls, truth, Language.PYTHON, category, "none")["valid"]


def main(folder, out):
    draw = random.Random(7)
    folder, out = Path(folder), Path(out)
    (out / "bfcl").mkdir(exist_ok=True)
    read = lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    short = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
    with open(out / "bfcl_verdicts.jsonl", "w", encoding="utf-8") as file:
        for category in CATEGORIES:
            records = pick(read(folder / f"BFCL_v4_{category}.json"))
            (out / "bfcl" / f"BFCL_v4_{category}.json").write_text("".join(map(short, records)), encoding="utf-8")
            truths = {}
            if category != "irrelevance":
                all_of = read(folder / f"possible_answer_{category}.json")
                answers = [one for one in all_of if one["id"] in {record["id"] for record in records}]
                (out / "bfcl" / f"possible_answer_{category}.json").write_text("".join(map(short, answers)), encoding="utf-8")
                truths = {one["id"]: one["ground_truth"] for one in answers}
            for record in records:
                name = record["function"][0]["name"]
                truth = truths.get(record["id"], [{name: {"a": [1, "x", ""]}}])
                texts = []
                for at in range(TEXTS):
                    calls = [call(draw, one) for one in truth]
                    for _ in range([0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2][at % 11]):
                        calls = change(draw, calls) if calls else calls
                    use_tags = draw.random() < 0.3 and "(" not in json.dumps(calls)
                    texts.append(tagged(calls) if use_tags else python(draw, calls))
                texts += draw.sample(["", "[]", "No function fits.", f"{name}", f"[{name}(1)]", f"[{name}()]", f"[{name}(a=x)]"], 2)
                for text in texts:
                    try:
                        right = verdict(record, truth, category, text)
                    except Exception as error:
                        print(record["id"], type(error).__name__, error, text[:80], file=sys.stderr)
                        continue
                    file.write(short({"id": record["id"], "text": text, "right": bool(right)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
