"""Files of data that are read and made into another file or an answer."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter, defaultdict
from typing import Any

from openk2.synth.jobs.job import Call, Job, Maker, filled, python, read, shell, value_checks, word, words, write

_DONE = (
    "I wrote $out: $what.",
    "Done: $out has $what.",
    "$out is there, with $what.",
)
_HINT = ("", "", "Leave $source as it is.", "Do not change $source.")


def _csv(rows: list[list[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _job(
    rng: random.Random, files: dict[str, str], source: str, out: str, ask: str, checks: list[tuple[str, Any]],
    code: str, slips: list[tuple[str, str]], what: str,
) -> Job:  # fmt: skip
    """A job that one piece of Python does; `slips` are pieces of it and what makes them wrong."""
    looks: list[Call] = [read(source) if rng.random() < 0.6 else shell(f"head -n 5 {source}")]
    if rng.random() < 0.3:
        looks.insert(0, shell("ls"))
    if rng.random() < 0.5:
        act: list[Call] = [python(code)]
    else:
        script = rng.choice(("convert.py", "job.py", "make.py"))
        act = [write(script, code), shell(f"python3 {script} && rm {script}")]
    wrong = []
    for right, slip in slips:
        assert right in code, right
        wrong.append((python(code.replace(right, slip, 1)),))
    for path in files:
        checks.append((f"text({path!r})", files[path]))
    return Job(
        files=files,
        ask=f"{ask} {filled(rng.choice(_HINT), source=source)}".rstrip(),
        checks=value_checks(checks),
        solution=(*looks, *act, shell(f"cat {out}")),
        answer=filled(rng.choice(_DONE), out=out, what=what),
        wrong=((), *wrong),
    )


def _orders(rng: random.Random, gaps: bool = False) -> tuple[list[str], list[list[Any]]]:
    """A table of orders, its names of columns first."""
    columns = (("id", "order"), ("item", "product", "article"), ("shop", "city", "team"), ("count", "pieces", "amount"))
    head = [rng.choice(names) for names in columns]
    items, places = words(rng, 5), words(rng, 3)
    rows: list[list[Any]] = []
    for number in range(rng.randint(9, 14)):
        count = "" if gaps and number % 4 == 1 else rng.randint(1, 60)
        rows.append([100 + number, rng.choice(items), places[number % 3], count])
    return head, rows


def sums(rng: random.Random) -> Job:
    """Sums of a column by another one, into a CSV file."""
    head, rows = _orders(rng, gaps=True)
    source, out = f"{word(rng)}.csv", rng.choice(("totals.csv", "sums.csv", "summary.csv"))
    key, value = head[2], head[3]
    totals: dict[str, int] = defaultdict(int)
    for row in rows:
        totals[row[2]] += row[3] or 0
    down = rng.random() < 0.5
    order = sorted(totals.items(), key=lambda pair: (-pair[1], pair[0])) if down else sorted(totals.items())
    code = filled(
        """
        import csv

        totals = {}
        with open("$source", newline="") as file:
            for row in csv.DictReader(file):
                totals[row["$key"]] = totals.get(row["$key"], 0) + int(row["$value"] or 0)
        order = sorted(totals.items(), key=lambda pair: $sort)
        with open("$out", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\\n")
            writer.writerow(["$key", "total"])
            writer.writerows(order)
        """,
        source=source, out=out, key=key, value=value, sort="(-pair[1], pair[0])" if down else "pair[0]",
    )  # fmt: skip
    ask = (
        f"Add up {value} by {key} in {source} and write {out} with the columns {key} and total, "
        f"{'the largest total first' if down else f'sorted by {key}'}. Empty values count as 0."
    )
    return _job(
        rng, {source: _csv([head, *rows])}, source, out, ask,
        [(f"table({out!r})", [[key, "total"], *([name, str(total)] for name, total in order)])], code,
        [('int(row["$value"] or 0)'.replace("$value", value), "1"), ('"total"]', '"sum"]'),
         ("totals.get(", "0 * totals.get(")],
        f"the totals of {len(order)} values of {key}",
    )  # fmt: skip


def csv_to_json(rng: random.Random) -> Job:
    """Rows of a CSV file as objects, numbers as numbers."""
    head, rows = _orders(rng, gaps=True)
    source, out = f"{word(rng)}.csv", f"{word(rng)}.json"
    least = rng.randint(5, 20)
    wanted = [dict(zip(head, row, strict=True)) | {head[3]: row[3] or None} for row in rows]
    wanted = [row for row in wanted if row[head[3]] is None or row[head[3]] >= least]
    code = filled(
        """
        import csv, json

        rows = []
        with open("$source", newline="") as file:
            for row in csv.DictReader(file):
                row["$id"] = int(row["$id"])
                row["$value"] = int(row["$value"]) if row["$value"] else None
                if row["$value"] is None or row["$value"] >= $least:
                    rows.append(row)
        with open("$out", "w") as file:
            json.dump(rows, file, indent=2)
        """,
        source=source, out=out, id=head[0], value=head[3], least=least,
    )  # fmt: skip
    ask = (
        f"Turn {source} into {out}: a list with an object for each row, in the same order, {head[0]} and {head[3]} as "
        f"numbers. An empty {head[3]} becomes null. Leave out rows whose {head[3]} is below {least}."
    )
    return _job(
        rng, {source: _csv([head, *rows])}, source, out, ask, [(f"data({out!r})", wanted)], code,
        [(f'row["{head[0]}"] = int(row["{head[0]}"])', "pass"),
         (f'row["{head[3]}"] is None or ', f'row["{head[3]}"] and '),
         ("else None", "else 0")],
        f"{len(wanted)} objects",
    )  # fmt: skip


def json_to_csv(rng: random.Random) -> Job:
    """Objects with a list inside as rows."""
    source, out = f"{word(rng)}.json", f"{word(rng)}.csv"
    who, what = rng.choice((("owner", "pets"), ("author", "books"), ("team", "players"), ("room", "guests")))
    people, things = words(rng, 5), words(rng, 12)
    records: list[dict[str, Any]] = []
    for number, person in enumerate(people):
        own = [things.pop() for _ in range(number % 3)]
        records.append({who: person, what: own, "level": rng.randint(1, 9)})
    wanted = [[who, what, "level"]] + [[r[who], ";".join(r[what]), str(r["level"])] for r in records]
    code = filled(
        """
        import csv, json

        with open("$source") as file:
            records = json.load(file)
        with open("$out", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\\n")
            writer.writerow(["$who", "$what", "level"])
            for record in records:
                writer.writerow([record["$who"], ";".join(record["$what"]), record["level"]])
        """,
        source=source, out=out, who=who, what=what,
    )  # fmt: skip
    ask = (
        f"Make {out} out of {source}: a row for each object with the columns {who}, {what} and level, the {what} "
        "joined by semicolons."
    )
    return _job(
        rng, {source: json.dumps(records, indent=1) + "\n"}, source, out, ask, [(f"table({out!r})", wanted)], code,
        [('";".join(', '",".join('), (f'["{who}", "{what}", "level"]', f'["{who}", "level", "{what}"]'),
         ("in records:", "in records[1:]:")],
        f"{len(records)} rows",
    )  # fmt: skip


def log_counts(rng: random.Random) -> Job:
    """How often a service logged what, as JSON."""
    source, out = f"{word(rng)}.log", rng.choice(("counts.json", "report.json", "levels.json"))
    services = words(rng, 3)
    levels = rng.choice((("INFO", "WARN", "ERROR"), ("debug", "notice", "alert")))
    lines, counts = [], {service: Counter[str]() for service in services}
    for number in range(rng.randint(14, 22)):
        service, level = rng.choice(services), rng.choice(levels)
        counts[service][level] += 1
        # Words of the message that look like levels must not be counted.
        lines.append(
            f"2025-03-{1 + number // 6:02} {number % 24:02}:{rng.randint(0, 59):02} [{service}] {level}: "
            f"{word(rng)} {rng.choice((*levels, word(rng)))}"
        )
    lines.insert(4, "-- restarted --")
    wanted = {s: {level: counts[s][level] for level in levels} for s in services if counts[s]}
    code = filled(
        """
        import json, re

        counts = {}
        with open("$source") as file:
            for line in file:
                found = re.match(r"\\S+ \\S+ \\[(\\w+)\\] (\\w+): ", line)
                if found:
                    service, level = found.groups()
                    counts.setdefault(service, dict.fromkeys($levels, 0))[level] += 1
        with open("$out", "w") as file:
            json.dump(counts, file, indent=2, sort_keys=True)
        """,
        source=source, out=out, levels=repr(levels),
    )  # fmt: skip
    ask = (
        f"Count in {source} how often each service (in brackets) logged each level, and write {out} as an object "
        f"service -> level -> count. All of {', '.join(levels)} are there, also with 0."
    )
    return _job(
        rng, {source: "\n".join(lines) + "\n"}, source, out, ask,
        [(f"sorted((k, sorted(v.items())) for k, v in data({out!r}).items())",
          [(k, sorted(v.items())) for k, v in sorted(wanted.items())])],
        code,
        [("[level] += 1", "[level] = 1"), (f"dict.fromkeys({levels!r}, 0)", f"dict.fromkeys({levels[::-1]!r}, 1)"),
         ("(\\w+): ", "\\w+: .*?(\\w+)$")],
        f"the counts of {len(wanted)} services",
    )  # fmt: skip


def join(rng: random.Random) -> Job:
    """Two tables joined by a key, with what has no partner left empty."""
    keys = [f"{word(rng)[:2].upper()}{number}" for number in rng.sample(range(10, 99), 6)]
    left, right, out = "orders.csv", "prices.csv", rng.choice(("joined.csv", "priced.csv", "bill.csv"))
    orders: list[list[Any]] = [[rng.choice(keys), rng.randint(1, 9)] for _ in range(rng.randint(7, 10))]
    orders[0][0], orders[2][0] = keys[-1], keys[0]
    prices = {key: rng.randint(100, 999) for key in keys[:-1]}
    wanted = [["sku", "count", "cents"]]
    wanted += [[key, str(count), str(prices[key] * count) if key in prices else ""] for key, count in orders]
    code = filled(
        """
        import csv

        with open("prices.csv", newline="") as file:
            prices = {row["sku"]: int(row["cents"]) for row in csv.DictReader(file)}
        with open("orders.csv", newline="") as file, open("$out", "w", newline="") as target:
            writer = csv.writer(target, lineterminator="\\n")
            writer.writerow(["sku", "count", "cents"])
            for row in csv.DictReader(file):
                price = prices.get(row["sku"])
                writer.writerow([row["sku"], row["count"], "" if price is None else price * int(row["count"])])
        """,
        out=out,
    )  # fmt: skip
    ask = (
        f"Write {out} with the columns sku, count and cents: every row of orders.csv in its order, cents being count "
        "times the price in prices.csv, or empty where there is no price."
    )
    files = {left: _csv([["sku", "count"], *orders]), right: _csv([["sku", "cents"], *map(list, prices.items())])}
    return _job(
        rng, files, left, out, ask, [(f"table({out!r})", wanted)], code,
        [('"" if price is None', '"0" if price is None'), (' * int(row["count"])', ""),
         ("price = prices.get", 'if row["sku"] not in prices: continue\n        price = prices.get')],
        f"{len(orders)} rows",
    )  # fmt: skip


def clean(rng: random.Random) -> Job:
    """A list of addresses, tidied and without doubles."""
    source, out = f"{word(rng)}.txt", rng.choice(("clean.txt", "addresses.txt", "unique.txt"))
    host = rng.choice(("example.org", "example.com", "mail.example"))
    names = words(rng, 7)
    lines = []
    for name in names:
        for _ in range(rng.randint(1, 2)):
            own = rng.choice((name, name.title(), name.upper()))
            lines.append(rng.choice(("", "  ")) + f"{own}@{host}" + rng.choice(("", " ", "\t")))
    rng.shuffle(lines)
    lines[2:2] = ["", f"{names[0]} at {host}", "# old"]
    lines.append(f"  {names[1].title()}@{host.upper()}")
    seen: dict[str, None] = {}
    for line in lines:
        if "@" in line:
            seen.setdefault(line.strip().lower())
    ordered = rng.random() < 0.5
    wanted = sorted(seen) if ordered else list(seen)
    code = filled(
        """
        seen = []
        with open("$source") as file:
            for line in file:
                address = line.strip().lower()
                if "@" in address and address not in seen:
                    seen.append(address)
        with open("$out", "w") as file:
            file.write("".join(address + "\\n" for address in $order))
        """,
        source=source, out=out, order="sorted(seen)" if ordered else "seen",
    )  # fmt: skip
    ask = (
        f"{source} is a messy list of mail addresses. Write {out} with one address a line, lower case, without blanks "
        f"around it and without doubles, {'in alphabetical order' if ordered else 'in the order of their first line'}. "
        "Lines without an @ are no addresses."
    )
    return _job(
        rng, {source: "\n".join(lines) + "\n"}, source, out, ask, [(f"text({out!r}).split('\\n')", [*wanted, ""])],
        code,
        [(".lower()", ""), (" and address not in seen", ""), ('"@" in address and ', "")],
        f"{len(wanted)} addresses",
    )  # fmt: skip


def ini_to_json(rng: random.Random) -> Job:
    """Settings with sections, comments and kinds of values."""
    source, out = f"{word(rng)}.ini", f"{word(rng)}.json"
    names = words(rng, 9)
    wanted: dict[str, dict[str, Any]] = {}
    lines = [f"# {word(rng)}"]
    for section in names[:3]:
        lines.append(f"[{section}]")
        wanted[section] = {}
        for key, value in zip(names[3:6], (rng.randint(1, 99), rng.random() < 0.5, word(rng)), strict=True):
            wanted[section][key] = value
            shown = rng.choice(("yes", "on") if value else ("no", "off")) if isinstance(value, bool) else value
            lines.append(f"{key} = {shown}" + rng.choice(("", f"  ; {word(rng)}")))
        lines.append("")
    code = filled(
        """
        import configparser, json

        parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
        parser.read("$source")


        def typed(value):
            if value in ("yes", "on", "no", "off"):
                return value in ("yes", "on")
            return int(value) if value.isdecimal() else value


        settings = {name: {key: typed(value) for key, value in parser[name].items()} for name in parser.sections()}
        with open("$out", "w") as file:
            json.dump(settings, file, indent=2)
        """,
        source=source, out=out,
    )  # fmt: skip
    ask = (
        f"Convert {source} to {out}: an object for each section. Numbers become numbers, yes and on become true, no "
        "and off false; what follows a ; is a comment."
    )
    return _job(
        rng, {source: "\n".join(lines)}, source, out, ask, [(f"data({out!r})", wanted)], code,
        [("int(value) if value.isdecimal() else value", "value"), ('return value in ("yes", "on")', "return True"),
         ("json.dump(settings", "json.dump([settings]")],
        f"{len(wanted)} sections",
    )  # fmt: skip


def deepest(rng: random.Random) -> Job:
    """A tree of JSON, of which the paths to all values that fit are listed."""
    source, out = f"{word(rng)}.json", rng.choice(("paths.txt", "found.txt", "big.txt"))
    least = rng.randint(30, 60)

    def grown(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.2:
            return rng.choice((rng.randint(0, 99), rng.randint(0, 99), word(rng), None, True))
        if rng.random() < 0.3:
            return [grown(depth - 1) for _ in range(2)]
        return {name: grown(depth - 1) for name in words(rng, 3)}

    tree = {name: grown(3) for name in words(rng, 3)} | {"last": [least, least - 1, {"x": 100, "y": True}, "77"]}

    def found(value: Any, path: str) -> list[str]:
        if isinstance(value, dict):
            return [line for key, inner in value.items() for line in found(inner, f"{path}/{key}")]
        if isinstance(value, list):
            return [line for at, inner in enumerate(value) for line in found(inner, f"{path}/{at}")]
        return [path] if isinstance(value, int) and not isinstance(value, bool) and value >= least else []

    code = filled(
        """
        import json


        def found(value, path):
            if isinstance(value, dict):
                return [line for key, inner in value.items() for line in found(inner, f"{path}/{key}")]
            if isinstance(value, list):
                return [line for at, inner in enumerate(value) for line in found(inner, f"{path}/{at}")]
            return [path] if isinstance(value, int) and value is not True and value >= $least else []


        with open("$source") as file:
            paths = found(json.load(file), "")
        with open("$out", "w") as file:
            file.write("".join(path + "\\n" for path in paths))
        """,
        source=source, out=out, least=least,
    )  # fmt: skip
    wanted = found(tree, "")
    ask = (
        f"List in {out} where in {source} there is a number of at least {least}: a path such as /a/0/b a line, in the "
        "order of the file. Lists are counted from 0; true is no number."
    )
    return _job(
        rng, {source: json.dumps(tree, indent=1)}, source, out, ask,
        [(f"text({out!r}).split('\\n')", [*wanted, ""])], code,
        [(f">= {least}", f"> {least}"), ("enumerate(value)", "enumerate(value, 1)"), ('{path}/{key}', '{key}')],
        f"{len(wanted)} paths",
    )  # fmt: skip


MAKERS: dict[str, Maker] = {
    "csv_sums": sums, "csv_to_json": csv_to_json, "json_to_csv": json_to_csv, "log_counts": log_counts,
    "csv_join": join, "clean_list": clean, "ini_to_json": ini_to_json, "json_paths": deepest,
}  # fmt: skip
