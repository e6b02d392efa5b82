"""How each kind of suite names its tests and says how they went: text or XML in, {id: "pass" | "fail" | "skip"} out."""

import pathlib
import re
import xml.etree.ElementTree as ET


def unique(pairs):
    """A dict in which a repeated id gets a number, so that the loss of one of two is seen."""
    found, seen = {}, {}
    for name, outcome in pairs:
        seen[name] = seen.get(name, 0) + 1
        found[name if seen[name] == 1 else f"{name} #{seen[name]}"] = outcome
    return found


def by_lines(pattern, outcomes):
    """A parser for suites that print one line per test, with groups `id` and `how`."""
    line = re.compile(pattern, re.M)

    def parse(text, _results):
        return unique((m["id"].strip(), outcomes[m["how"]]) for m in line.finditer(text))

    return parse


def junit(text, results):
    """JUnit files: pytest's, and those of CPython's regrtest. A run that died wrote none: what it printed tells how far it came."""
    pairs = []
    files = sorted(pathlib.Path(results).glob("*.xml"))
    if not files:
        return unittest(text, results)
    for path in files:
        for case in ET.parse(path).getroot().iter("testcase"):
            tags = {child.tag for child in case}
            name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
            if tags & {"failure", "error"}:
                pairs.append((name, "fail"))
            elif "skipped" in tags or case.get("status") == "skipped":
                pairs.append((name, "skip"))
            else:
                pairs.append((name, "pass"))
    return unique(pairs)


def tap(text, _results):
    """TAP, as libuv prints it: `ok 1 - name`, `not ok 2 - name`, `ok 3 - name # SKIP reason`."""
    pairs = []
    for m in re.finditer(r"^(not )?ok \d+ - (\S+)(.*)$", text, re.M):
        how = "fail" if m[1] else "skip" if re.search(r"#\s*(SKIP|TODO)", m[3]) else "pass"
        pairs.append((m[2], how))
    return unique(pairs)


def unittest(text, _results):
    """`python -m unittest -v`: the verdict may follow the test's own output, lines later."""
    pairs, name = [], None
    for line in text.splitlines():
        start = re.match(r"(\w+) \(([\w.]+)\)", line)
        if start:
            name = start[2] if start[2].endswith("." + start[1]) else f"{start[2]}.{start[1]}"
        verdict = re.search(r"(?:\.\.\. |^)(ok|FAIL|ERROR|skipped .*|expected failure|unexpected success)$", line)
        if name and verdict:
            how = {"ok": "pass", "expected failure": "pass"}.get(verdict[1])
            pairs.append((name, how or ("skip" if verdict[1].startswith("skipped") else "fail")))
            name = None
    return unique(pairs)


def prove(text, _results):
    """`prove`: one line per file."""
    pairs = []
    for m in re.finditer(r"^(t/\S+\.t) \.+ (.*)$", text, re.M):
        how = "pass" if m[2].startswith("ok") else "skip" if m[2].startswith("skipped") else "fail"
        pairs.append((m[1], how))
    return unique(pairs)


def stress(text, _results):
    """stress-ng names what it dispatched and then only what went wrong, each in a line of its own."""
    pairs = []
    dispatched = re.search(r"dispatching hogs: (.*)$", text, re.M)
    whole = "successful run completed" in text
    for name in re.findall(r"\d+ ([\w-]+)", dispatched[1] if dispatched else ""):
        wrong = re.search(rf"\b(fail|error|unexpectedly terminated).*\b{re.escape(name)}\b|\b{re.escape(name)}: .*fail", text)
        skipped = re.search(rf"\b{re.escape(name)}\b.*skipp", text)
        pairs.append((name, "fail" if wrong or not (whole or skipped) else "skip" if skipped else "pass"))
    return unique(pairs)


PARSERS = {
    "junit": junit,
    "tap": tap,
    "unittest": unittest,
    "prove": prove,
    "stress": stress,
    "redis": by_lines(
        r"^\S*\[(?P<how>ok|err|exception|skip|ignore)\]\S*: (?P<id>.*?)(?: \(\d+ ms\))?(?: in \S+\.tcl)?$",
        {"ok": "pass", "err": "fail", "exception": "fail", "skip": "skip", "ignore": "skip"},
    ),
    "tinytest": by_lines(
        r"^(?P<id>[\w/]+):[^\n]*?\b(?P<how>OK|SKIPPED|DISABLED|FAILED)\b",
        {"OK": "pass", "SKIPPED": "skip", "DISABLED": "skip", "FAILED": "fail"},
    ),
    "socat": by_lines(
        r"^test +\d+ (?P<id>\w+): .*?\.\.\.+.*?(?P<how>OK|FAILED|CANT|NO|skipped|disabled|not available|must be root)",
        {"OK": "pass", "FAILED": "fail", "CANT": "skip", "NO": "skip", "skipped": "skip", "disabled": "skip",
         "not available": "skip", "must be root": "skip"},
    ),
}

# What each parser is shown by `run.py --self-test`, and what it must find in it.
SAMPLES = {
    "tap": ("ok 1 - a\nnot ok 2 - b\n# exit code 6\nok 3 - c # SKIP no remote\n", {"a": "pass", "b": "fail", "c": "skip"}),
    "unittest": (
        "test_a (m.C.test_a) ... ok\ntest_b (m.C)\nWhat it does. ... noise\nFAIL\ntest_c (m.C.test_c) ... skipped 'no'\n",
        {"m.C.test_a": "pass", "m.C.test_b": "fail", "m.C.test_c": "skip"},
    ),
    "prove": (
        "t/a.t .. ok\nt/b.t ..... skipped: no SASL\nt/c.t . Dubious, test returned 1\n",
        {"t/a.t": "pass", "t/b.t": "skip", "t/c.t": "fail"},
    ),
    "stress": (
        "stress-ng: info:  [7] dispatching hogs: 1 sock, 1 udp, 1 poll\n"
        "stress-ng: fail:  [9] poll: poll failed, errno=9\nstress-ng: info:  [7] successful run completed in 5s\n",
        {"sock": "pass", "udp": "pass", "poll": "fail"},
    ),
    "redis": (
        "[ok]: Same (3 ms)\n\x1b[0;32m[ok]\x1b[0m: Same\n[err]: Bad thing in tests/unit/a.tcl\n[exception]: Executing test client\n",
        {"Same": "pass", "Same #2": "pass", "Bad thing": "fail", "Executing test client": "fail"},
    ),
    "tinytest": (
        "main/a: OK\nmain/b: [forking] OK\nhttp/c: SKIPPED\nhttp/d: \n  FAIL x.c:1\n  [d FAILED]\n",
        {"main/a": "pass", "main/b": "pass", "http/c": "skip"},
    ),
    "socat": (
        "test  12 TCP4: echo via connection to TCP V4 socket... OK\ntest 13 UDP4X: something... FAILED (diff)\n",
        {"TCP4": "pass", "UDP4X": "fail"},
    ),
}
