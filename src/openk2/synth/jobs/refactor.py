"""Changes that must change nothing: the same behaviour from code in another shape."""

from __future__ import annotations

import random

from openk2.synth.jobs.job import (
    Call,
    Check,
    Job,
    Maker,
    edit,
    filled,
    module_checks,
    read,
    shell,
    value_checks,
    word,
    words,
    write,
)

_SAME = ("", " Nothing else may change.", " The behaviour must stay the same.", " It must still do what it does now.")


def helper(rng: random.Random) -> Job:
    """The same lines in two functions become a function of their own."""
    first, second = rng.choice((("add_user", "rename_user"), ("add_tag", "rename_tag"), ("add_room", "rename_room")))
    new, longest = rng.choice(("_checked", "_clean", "_valid_name")), rng.randint(8, 20)
    module = rng.choice(("store", "registry", "names"))
    body = filled(
        """
        name = name.strip()
        if not name:
            raise ValueError("the name is empty")
        if len(name) > $longest:
            raise ValueError("the name is too long")
        """,
        longest=longest,
    )  # fmt: skip
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    code = filled(
        """
        def $first(found, name):
        ${body}    return [*found, name]


        def $second(found, old, name):
        ${body}    return [name if one == old else one for one in found]
        """,
        first=first, second=second, body="@BODY@",
    ).replace("@BODY@", indented)  # fmt: skip
    after = (
        f"def {new}(name):\n{indented}    return name\n\n\n"
        f"def {first}(found, name):\n    return [*found, {new}(name)]\n\n\n"
        f"def {second}(found, old, name):\n    name = {new}(name)\n"
        "    return [name if one == old else one for one in found]\n"
    )
    a, b, c = words(rng, 3)
    calls = [
        f"{first}({[a]!r}, {f' {b} '!r})", f"{first}([], ' ')", f"{first}([], {'x' * (longest + 1)!r})",
        f"{second}({[a, b, a]!r}, {a!r}, {c!r})", f"{second}({[a]!r}, {b!r}, '')", f"{first}([], {'y' * longest!r})",
        f"{second}({[a]!r}, {a!r}, {'z' * (longest + 2)!r})",
    ]  # fmt: skip
    path = f"{module}.py"
    structure = value_checks([(f"{new!r} in names({path!r})", True), (f"text({path!r}).count('is too long')", 1)])
    return Job(
        files={path: code},
        ask=f"{first} and {second} in {path} check the name in the same lines. Move those into a function {new}(name) "
        f"that returns the name, and use it in both." + rng.choice(_SAME),
        checks=(*module_checks(module, code, calls), *structure),
        solution=(read(path), write(path, after), shell(f"python3 -c 'import {module}' && grep -n {new} {path}")),
        answer=f"Both functions use {new} now.",
        wrong=(
            (),
            (write(path, after.replace(".strip()", "")),),
            (write(path, after.replace(f"    name = {new}(name)\n", "")),),
            (write(path, code + f"\n\ndef {new}(name):\n    return name\n"),),
        ),
    )


def rename(rng: random.Random) -> Job:
    """A function has another name, in all files that use it."""
    old, new = rng.choice((("calc", "net_price"), ("proc", "total_weight"), ("do", "line_cost"), ("fn", "area_of")))
    factor = rng.randint(2, 9)
    base, user, other = (f"{name}.py" for name in words(rng, 3))
    b, u, o = (path.removesuffix(".py") for path in (base, user, other))
    files = {
        base: f"def {old}(a, b):\n    return a * b + {factor}\n\n\ndef {old}_all(pairs):\n"
        f"    return [{old}(a, b) for a, b in pairs]\n",
        user: f"from {b} import {old}\n\n\ndef double(a, b):\n    return 2 * {old}(a, b)\n",
        other: f"import {b}\n\n\ndef best(pairs):\n    return max({b}.{old}(a, b) for a, b in pairs)\n",
    }
    command = f"sed -i 's/\\b{old}\\b/{new}/g' *.py"
    checks = value_checks(
        [
            (f"load({b!r}).{new}(3, 4)", 12 + factor),
            (f"load({b!r}).{old}_all([(1, 2), (0, 5)])", [2 + factor, factor]),
            (f"load({u!r}).double(2, 2)", 2 * (4 + factor)),
            (f"load({o!r}).best([(1, 1), (2, 5)])", 10 + factor),
            (f"hasattr(load({b!r}), {old!r})", False),
        ]
    )
    return Job(
        files=files,
        ask=f"Rename the function {old} in {base} to {new}, wherever it is used. {old}_all keeps its name."
        + rng.choice(_SAME),
        checks=checks,
        solution=(
            shell(f"grep -n {old} *.py"),
            shell(command),
            shell(f"grep -n {new} *.py && python3 -c 'import {u}, {o}'"),
        ),
        answer=f"{old} is called {new} now in all three files.",
        wrong=(
            (),
            (shell(f"sed -i 's/\\b{old}\\b/{new}/g' {base}"),),
            (shell(f"sed -i 's/{old}/{new}/g' *.py"),),
            (shell(f"{command} && echo '{old} = {new}' >> {base}"),),
        ),
    )


def move(rng: random.Random) -> Job:
    """A function goes to a module of its own."""
    name, base, target = rng.choice(("clamp", "wrap", "scale")), "app", rng.choice(("helpers", "numbers_util", "maths"))
    low, high = rng.randint(0, 9), rng.randint(40, 99)
    body = {
        "clamp": f"def clamp(value):\n    return max({low}, min({high}, value))\n",
        "wrap": f"def wrap(value):\n    return {low} + (value - {low}) % {high}\n",
        "scale": f"def scale(value):\n    return value * {high} + {low}\n",
    }[name]
    rest = f"def all_of(values):\n    return [{name}(value) for value in values]\n"
    numbers = [rng.randint(-50, 150) for _ in range(5)]
    code = f"{body}\n\n{rest}"
    after = f"from {target} import {name}\n\n\n{rest}"
    checks = (
        *module_checks(base, code, [f"all_of({numbers})", "all_of([])", f"{name}({numbers[0]})"]),
        *value_checks(
            [
                (f"names('{target}.py')", [name]),
                (f"names('{base}.py')", ["all_of"]),
                (f"load({target!r}).{name} is load({base!r}).{name}", True),
            ]
        ),
    )
    return Job(
        files={f"{base}.py": code},
        ask=f"Move the function {name} from {base}.py to a new module {target}.py and import it in {base}.py."
        + rng.choice(_SAME),
        checks=checks,
        solution=(
            read(f"{base}.py"),
            write(f"{target}.py", body),
            write(f"{base}.py", after),
            shell(f"python3 -c 'import {base}; print({base}.all_of({numbers[:2]}))'"),
        ),
        answer=f"{name} is in {target}.py, and {base}.py imports it.",
        wrong=(
            (),
            (write(f"{target}.py", body),),
            (write(f"{target}.py", body), write(f"{base}.py", rest)),
            (write(f"{target}.py", body.replace(str(high), str(high + 1))), write(f"{base}.py", after)),
        ),
    )


def constant(rng: random.Random) -> Job:
    """A number that stands in several places gets a name."""
    name, value = rng.choice((("TAX", 19), ("LIMIT", 250), ("RATE", 35), ("STEP", 12)))
    value += rng.randint(0, 9)
    module = rng.choice(("billing", "limits", "fees"))
    code = filled(
        """
        def one(amount):
            return amount + amount * $value // 100


        def fits(amount):
            return one(amount) <= 1000 + $value


        def label():
            return "$value percent"


        def steps(amount):
            return list(range(0, amount, $value))
        """,
        value=value,
    )  # fmt: skip
    after = f"{name} = {value}\n\n\n" + code.replace(f" {value}", f" {name}").replace(
        f'"{value} percent"', f'f"{{{name}}} percent"'
    )
    path, n = f"{module}.py", rng.randint(50, 400)
    calls = [f"one({n})", f"fits({n * 3})", "label()", f"steps({n})", "one(0)", "fits(9999)"]
    changed = "[m := load({0!r}), setattr(m, {1!r}, 7), m.one(100), m.label(), m.steps(15), m.fits(941)][2:]"
    return Job(
        files={path: code},
        ask=f"The number {value} stands in four places of {path}. Give it the name {name} at the top of the module and "
        "use that everywhere, so that changing it there is enough." + rng.choice(_SAME),
        checks=(
            *module_checks(module, code, calls),
            *value_checks([(f"load({module!r}).{name}", value)]),
            Check(changed.format(module, name), "[107, '7 percent', [0, 7, 14], True]"),
        ),
        solution=(read(path), write(path, after), shell(f"grep -n {value} {path}; python3 -c 'import {module}'")),
        answer=f"{value} stands once in {path} now, as {name}.",
        wrong=(
            (),
            (write(path, f"{name} = {value}\n\n\n{code}"),),
            (write(path, after.replace(f"{name} = {value}", f"{name} = {value + 1}")),),
            (write(path, after.replace(f'f"{{{name}}} percent"', f'"{value} percent"')),),
        ),
    )


def parameter(rng: random.Random) -> Job:
    """A global list becomes an argument."""
    module, adds = rng.choice(("basket", "queue_app", "journal")), rng.choice(("add", "put", "enter"))
    unit = rng.choice(("x", "pcs", "no"))
    path = f"{module}.py"
    code = filled(
        """
        items = []


        def $adds(name, count):
            items.append((name, count))


        def total():
            return sum(count for _, count in items)


        def lines():
            return [f"{count} $unit {name}" for name, count in items]
        """,
        adds=adds, unit=unit,
    )  # fmt: skip
    calls: list[Call] = [
        read(path),
        edit(path, "items = []\n\n\n", ""),
        edit(path, f"def {adds}(name, count):", f"def {adds}(items, name, count):"),
        edit(path, "def total():", "def total(items):"),
        edit(path, "def lines():", "def lines(items):"),
        shell(f"python3 -c 'import {module} as m; i = []; m.{adds}(i, \"a\", 2); print(m.total(i), m.lines(i))'"),
    ]
    a, n = word(rng), rng.randint(2, 40)
    use = f"[m := load({module!r}), i := [], m.{adds}(i, {a!r}, {n}), m.{adds}(i, 'b', 1)"
    checks = value_checks(
        [
            (f"{use}, m.total(i), m.lines(i)][4:]", [n + 1, [f"{n} {unit} {a}", f"1 {unit} b"]]),
            (f"load({module!r}).total([('q', 5)])", 5),
            (f"load({module!r}).lines([])", []),
            (f"hasattr(load({module!r}), 'items')", False),
        ]
    )
    return Job(
        files={path: code},
        ask=f"{path} keeps its list in a global variable. Let {adds}, total and lines take the list as their first "
        f"argument items instead, and remove the global one." + rng.choice(_SAME),
        checks=checks,
        solution=tuple(calls),
        answer="The three functions take items as their first argument, and the global list is gone.",
        wrong=((), tuple(calls[2:5]), tuple(calls[1:4]), (*calls[1:5], edit(path, "items.append", "items.extend"))),
    )


MAKERS: dict[str, Maker] = {
    "refactor_helper": helper, "refactor_rename": rename, "refactor_move": move, "refactor_constant": constant,
    "refactor_parameter": parameter,
}  # fmt: skip
