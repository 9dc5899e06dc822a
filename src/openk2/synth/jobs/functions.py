"""Functions that are written to a specification, and functions with a planted bug: two jobs from each specification."""

from __future__ import annotations

import random
from collections.abc import Callable

from openk2.synth.jobs.job import (
    Call,
    Job,
    Maker,
    edit,
    filled,
    module_checks,
    outcome,
    read,
    shell,
    value_checks,
    write,
)
from openk2.synth.jobs.specifications import SPECS, Spec

_SHOWN = 4
"""So many calls are visible tests."""

_TEST = """
    import sys

    from $module import $function

    CASES = [
    $cases
    ]

    failed = 0
    for arguments, wanted in CASES:
        try:
            got = $function(*arguments)
        except Exception as e:
            got = f"{type(e).__name__} raised"
        if got != wanted:
            failed += 1
            print(f"$function{arguments}: got {got!r}, wanted {wanted!r}")
    print(f"{len(CASES) - failed} of {len(CASES)} passed")
    sys.exit(failed > 0)
    """
_WRITE = (
    "Write $module.py with a function $takes. $says $test checks some of it.",
    "I need a function $takes in $module.py. $says There are a few tests in $test; run them before you answer.",
    "Please create $module.py. It has one function, $takes. $says Make sure that python3 $test passes.",
    "$module.py is missing: $test wants $takes from it. $says Write it.",
)
_FIX = (
    "python3 $test fails. Find the bug in $module.py and fix it. What is wanted of $takes: $says",
    "There is a bug in $module.py: $takes does not do what it should. $says Fix it so that $test passes.",
    "Please make the tests in $test pass. The mistake is in $module.py, not in the tests. About $takes: $says",
    "Somebody broke $function in $module.py. $says Repair it without rewriting it, and run $test.",
)
_WROTE = (
    "I wrote $function in $module.py, and the tests in $test pass.",
    "$module.py now has $takes; all tests in $test pass.",
    "Done: $function is in $module.py and passes $test.",
)
_FIXED = (
    "I fixed the bug in $function: the tests in $test pass now.",
    "$module.py is repaired: `$new` stands where `$old` was, and $test passes.",
    "The bug is gone: I changed one place in $module.py, and all tests pass.",
)


def _test_file(spec: Spec) -> str:
    names: dict[str, object] = {}
    exec(compile(spec.code, "reference", "exec"), names)
    lines = []
    for call in spec.calls[:_SHOWN]:
        arguments = eval(call.replace(spec.function, "(lambda *arguments: arguments)", 1))
        wanted = outcome(call, names)
        shown = repr(wanted.removeprefix("raises ") + " raised") if wanted.startswith("raises ") else wanted
        lines.append(f"    ({arguments!r}, {shown}),")
    return filled(_TEST, module=spec.module, function=spec.function, cases="\n".join(lines))


def _broken(spec: Spec, bug: tuple[str, str]) -> str:
    broken = spec.code.replace(bug[0], bug[1], 1)
    assert broken != spec.code, (spec.function, bug)
    return broken


def _repair(spec: Spec, bug: tuple[str, str]) -> Call:
    """The edit that takes a bug out: whole lines, so that the text occurs once."""
    broken = _broken(spec, bug)
    at = spec.code.index(bug[0])
    first = spec.code.rfind("\n", 0, at) + 1
    old_end, new_end = broken.find("\n", at + len(bug[1])), spec.code.find("\n", at + len(bug[0]))
    return edit(f"{spec.module}.py", broken[first:old_end], spec.code[first:new_end])


def _words_for(spec: Spec, **more: str) -> dict[str, str]:
    return {
        "module": spec.module, "function": spec.function, "takes": spec.takes, "says": spec.says,
        "test": f"test_{spec.module}.py",
    } | more  # fmt: skip


def write_job(spec: Spec, rng: random.Random) -> Job:
    """The function is not there yet. Now and then the first try has a bug, which the tests show."""
    said, path, test = _words_for(spec), f"{spec.module}.py", f"test_{spec.module}.py"
    calls: list[Call] = [read(test) if rng.random() < 0.7 else shell(f"cat {test}")]
    # The first bug of each specification is one that the visible tests find.
    if rng.random() < 0.25:
        calls += [write(path, _broken(spec, spec.bugs[0])), shell(f"python3 {test}"), _repair(spec, spec.bugs[0])]
    else:
        calls.append(write(path, spec.code))
    calls.append(shell(f"python3 {test}"))
    return Job(
        files={test: _test_file(spec)},
        ask=filled(rng.choice(_WRITE), **said),
        checks=module_checks(spec.module, spec.code, spec.calls),
        solution=tuple(calls),
        answer=filled(rng.choice(_WROTE), **said),
        wrong=((), *((write(path, _broken(spec, bug)),) for bug in spec.bugs)),
    )


def fix_job(spec: Spec, rng: random.Random) -> Job:
    """The function is there, with a bug that the visible tests find."""
    right, slip = spec.bugs[0]
    said = _words_for(spec, old=slip.strip(), new=right.strip())
    path, test = f"{spec.module}.py", f"test_{spec.module}.py"
    looks = [shell(f"python3 {test}"), read(path)]
    if rng.random() < 0.3:
        looks.insert(0, shell("ls"))
    code, tests = _broken(spec, spec.bugs[0]), _test_file(spec)
    return Job(
        files={path: code, test: tests},
        ask=filled(rng.choice(_FIX), **said),
        # The tests are not to be mended instead.
        checks=(*module_checks(spec.module, spec.code, spec.calls), *value_checks([(f"text({test!r})", tests)])),
        solution=(*looks, _repair(spec, spec.bugs[0]), shell(f"python3 {test}")),
        answer=filled(rng.choice(_FIXED), **said),
        wrong=(
            (),
            (write(test, "print('4 of 4 passed')\n"),),
            *((write(path, _broken(spec, bug)),) for bug in spec.bugs[1:]),
        ),
    )


def _maker(spec: Callable[[random.Random], Spec], job: Callable[[Spec, random.Random], Job]) -> Maker:
    return lambda rng: job(spec(rng), rng)


MAKERS: dict[str, Maker] = {f"write_{name}": _maker(spec, write_job) for name, spec in SPECS.items()} | {
    f"fix_{name}": _maker(spec, fix_job) for name, spec in SPECS.items()
}
