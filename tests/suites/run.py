#!/usr/bin/env python3
"""Runs other people's test suites on the plain kernel and under accel, and tells what accel lost.

    python3 tests/suites/run.py                       every suite, ACCEL_LOCAL_AFTER=0 and the default
    python3 tests/suites/run.py --quick               what CI runs
    python3 tests/suites/run.py --after 0 redis libuv/run-tests
    python3 tests/suites/run.py --plain               the plain kernel only, afresh

A unit passes when every test id that passes on the plain kernel passes under accel, when enough of them passed at all
(`at_least`), and when enough of the TCP sockets that could be accelerated were (`floor`, from ACCEL_STATS_FILE).
Results of the plain kernel are kept per machine in $TMPDIR/accel-suites-UID; sources and builds in
${XDG_CACHE_HOME:-~/.cache}/accel-suites. manifest.toml says what each row means.
"""

import argparse
import collections
import ctypes
import fnmatch
import hashlib
import json
import os
import pathlib
import platform
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

sys.dont_write_bytecode = True  # nothing of ours is written into the repository

import ids  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[1]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "accel-suites"
DEFAULT_AFTER = "default"
ARCHIVES = ("bookworm main", "bookworm-updates main")
SECURITY = "bookworm-security main"
BROKEN = {}  # `prepare` texts that failed in this run, and how: not tried again for each unit


class Missing(Exception):
    """What a suite needs and this machine lacks: a counted SKIP."""


# ------------------------------------------------------------------------------------------------------------ the manifest
def load_units(wanted, quick):
    """The manifest's units that were asked for, each with its suite's row under it."""
    suites = tomllib.loads((HERE / "manifest.toml").read_text())["suite"]
    units = []
    for suite, row in suites.items():
        inherited = {key: value for key, value in row.items() if key != "unit"}
        for unit in row["unit"]:
            label = f"{suite}/{unit['name']}"
            if wanted and not any(fnmatch.fnmatch(label, w) or w == suite for w in wanted):
                continue
            if quick and not unit.get("quick", False):
                continue
            units.append({"suite": suite, "label": label, "exclude": [], "flaky": [], **inherited, **unit})
    for w in wanted:
        if not any(fnmatch.fnmatch(unit["label"], w) or w == unit["suite"] for unit in units):
            sys.exit(f"no suite or unit is called {w}{' in the quick set' if quick else ''}; --list names them")
    return units


# ------------------------------------------------------------------------------------------------------ sources and builds
def apt_source(package):
    """Unpacks a Debian source package under the cache by lists of our own; the machine's lists stay as they are."""
    base = CACHE / "src"
    done = base / f"{package}.unpacked"
    if done.exists():
        return pathlib.Path(done.read_text())
    if not (shutil.which("apt-get") and shutil.which("dpkg-source")):
        raise Missing("apt-get and dpkg-dev are needed to fetch sources")
    lists = CACHE / "apt"
    (lists / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    base.mkdir(parents=True, exist_ok=True)
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    mirror = "http://deb.debian.org"
    (lists / "sources.list").write_text(
        "".join(f"deb-src {key} {mirror}/debian {suite}\n" for suite in ARCHIVES)
        + f"deb-src {key} {mirror}/debian-security {SECURITY}\n"
    )
    options = [
        "-qq", "-o", f"Dir::Etc::sourcelist={lists}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null",
        "-o", f"Dir::State::lists={lists}/lists", "-o", "APT::Sandbox::User=root",
    ]
    if not any((lists / "lists").glob("*_Sources*")):
        must(["apt-get", *options, "update"], base, "apt-get update with a private deb-src list")
    into = pathlib.Path(tempfile.mkdtemp(prefix=f"{package}.", dir=base))
    must(["apt-get", *options, "source", package], into, f"apt-get source {package}")
    tree = next(path for path in into.iterdir() if path.is_dir())
    done.write_text(str(tree))
    return tree


def must(command, cwd, what):
    log = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if log.returncode != 0:
        raise Missing(f"{what}: exit {log.returncode}: {log.stdout[-600:].strip()}")


def prepare(unit):
    """Fetches and builds a suite once, and again when its `prepare` text changes. Returns ($BUILD, $SRC)."""
    for tool in unit.get("tools", []):
        if not shutil.which(tool):
            raise Missing(f"{tool} is not installed")
    for path in unit.get("files", []):
        if not os.path.exists(path):
            raise Missing(f"there is no {path}")
    source = apt_source(unit["source"]) if "source" in unit else CACHE
    if "prepare" not in unit:
        return CACHE, source
    script = unit["prepare"]
    if script in BROKEN:
        raise Missing(BROKEN[script])
    build = CACHE / "build" / f"{unit['suite']}-{hashlib.sha256(script.encode()).hexdigest()[:10]}"
    if not (build / ".ready").exists():
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        print(f"preparing {unit['suite']} in {build}", flush=True)
        environment = {**os.environ, "SRC": str(source), "BUILD": str(build)}
        with open(build / "prepare.log", "w") as log:
            code = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=build, env=environment,
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT).returncode
        if code != 0:
            tail = (build / "prepare.log").read_text(errors="replace")[-600:].strip()
            BROKEN[script] = f"preparing it failed with exit {code}; {build}/prepare.log ends: {tail}"
            raise Missing(BROKEN[script])
        (build / ".ready").touch()
    return build, source


# ------------------------------------------------------------------------------------------------------------- one run
def children():
    """Processes whose parent is this one: with the subreaper set, also what a suite left behind."""
    found = []
    for task in pathlib.Path("/proc/self/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def wait_and_reap(process, deadline):
    """Waits for a unit. Orphans are ours as subreaper: suites that wait for one to vanish must not meet its zombie."""
    while (code := process.poll()) is None:
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "timeout"
        for pid in children():
            if pid != process.pid:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass
        time.sleep(0.05)
    return code


def sweep():
    """Kills what a unit left behind, until nothing is left."""
    for _ in range(50):
        left = children()
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def demote(user):
    """Runs in the child before the command: it becomes `user` for good."""
    entry = pwd.getpwnam(user)

    def become():
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)

    return become


def readable_copy(build, base):
    """A copy of a build for a user that cannot look into our cache."""
    copy = base / f"build-{build.name}"
    if not copy.exists():
        shutil.copytree(build, copy, symlinks=True)
        for path in [copy, *copy.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    return copy


def run_unit(unit, after, library, base):
    """Runs one unit once. `after` is None on the plain kernel. Returns ids, sockets, seconds, exit code and log."""
    build, source = prepare(unit)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="unit-", dir=base))
    results, log, stats = scratch / "results", scratch / "log.txt", scratch / "stats"
    work = scratch / "work"
    for path in (results, work, scratch / "tmp"):
        path.mkdir()
    stats.touch()
    user = unit.get("user") if os.geteuid() == 0 else None
    if user:
        build = readable_copy(build, base)
        for path in (scratch, results, work, scratch / "tmp", stats):
            shutil.chown(path, user)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(work), "LANG": "C.UTF-8",
        "TERM": "dumb", "TMPDIR": str(scratch / "tmp"), "UNIT": unit["name"], "BUILD": str(build), "SRC": str(source),
        "RESULTS": str(results), "EXCLUDE": " ".join(unit["exclude"]),
    }
    if after is not None:
        environment |= {"LD_PRELOAD": str(library), "ACCEL_STATS_FILE": str(stats)}
        if after != DEFAULT_AFTER:
            environment["ACCEL_LOCAL_AFTER"] = after
    start = time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", unit["run"]], cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=demote(user) if user else None,
        )
        try:
            code = wait_and_reap(process, start + unit["timeout"])
        finally:
            sweep()
    seconds = time.monotonic() - start
    text = log.read_text(errors="replace")
    run = {
        "ids": ids.PARSERS[unit["parse"]](text, results), "code": code, "seconds": round(seconds, 1),
        "sockets": read_stats(stats), "log": str(log),
    }
    for path in (work, scratch / "tmp"):
        shutil.rmtree(path, ignore_errors=True)
    return run


STATS_LINE = re.compile(r"\d+ .* (\d+) (\d+)((?: [a-z-]+=\d+)*)")


def read_stats(path):
    """Sums the lines `pid comm candidates upgraded reason=count …` (comm may hold spaces). None: no process wrote one."""
    lines = [STATS_LINE.fullmatch(line) for line in path.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line]
    why = collections.Counter()
    for line in lines:
        for reason, count in (word.split("=") for word in line[3].split()):
            why[reason] += int(count)
    return [sum(int(line[1]) for line in lines), sum(int(line[2]) for line in lines), why] if lines else None


def plain_run(unit, keep, afresh, base):
    """The plain kernel's result: the union of what passed is expected, what failed in any run is not held against accel."""
    row = json.dumps({key: unit[key] for key in sorted(unit) if key not in ("flaky", "floor", "at_least", "quick")})
    key = hashlib.sha256((row + platform.release()).encode()).hexdigest()[:16]
    path = keep / f"{unit['label'].replace('/', '_').replace('.', '_')}-{key}.json"
    if path.exists() and not afresh:
        return {**json.loads(path.read_text()), "cached": True}
    run = run_unit(unit, None, None, base)
    if judge_plain(unit, run) is None:
        path.write_text(json.dumps(run))
    return {**run, "cached": False}


# ------------------------------------------------------------------------------------------------------------ the verdict
def count(run, how):
    return sum(1 for outcome in run["ids"].values() if outcome == how)


def judge_plain(unit, plain):
    """Why the plain run proves nothing, or None."""
    if plain["code"] == "timeout":
        return f"timed out after {unit['timeout']} s on the plain kernel"
    if count(plain, "pass") < unit["at_least"]:
        return f"only {count(plain, 'pass')} ids passed on the plain kernel, at least {unit['at_least']} should"
    return None


def judge(unit, after, plain, run):
    """Why the run under accel fails (a list, empty when it passes), and the flaky ids that were lost."""
    lost = [i for i, how in plain["ids"].items() if how == "pass" and run["ids"].get(i) not in ("pass",)]
    # A test that decides at run time to skip is no loss of accel's only if the manifest says so.
    flaky = [i for i in lost if any(fnmatch.fnmatch(i, pattern) for pattern in unit["flaky"])]
    lost = [i for i in lost if i not in flaky]
    why = []
    if run["code"] == "timeout":
        why.append(f"timed out after {unit['timeout']} s (plain kernel: {plain['seconds']} s)")
    elif isinstance(run["code"], int) and run["code"] < 0 or run["code"] in (134, 139):
        why.append(f"died: exit {run['code']}")
    if lost:
        shown = ", ".join(f"{i} ({run['ids'].get(i, 'not run')})" for i in lost[:12])
        why.append(f"lost {len(lost)}: {shown}{' …' if len(lost) > 12 else ''}")
    if run["sockets"] is None:
        why.append("no process wrote to ACCEL_STATS_FILE, so nothing shows that any socket was accelerated")
    elif after == "0" and share(run["sockets"]) < unit["floor"]:
        why.append(f"accelerated {share(run['sockets']):.2f} of the sockets that could be, the floor is {unit['floor']:.2f}")
    return why, flaky


def share(sockets):
    candidates, upgraded, _ = sockets
    return upgraded / candidates if candidates else 0.0


def show(unit, after, run, note):
    sockets = run.get("sockets")
    accelerated = f"{sockets[1]}/{sockets[0]} {share(sockets):.2f}" if sockets and sockets[0] else "-" if sockets is None else "0/0"
    if sockets and sockets[2]:
        note += "  (" + ", ".join(f"{reason} {count}" for reason, count in sockets[2].items()) + ")"
    mode = "plain" if after is None else f"after={after}"
    if run.get("cached"):
        mode += " (kept)"
    print(f"{unit['label']:<36} {mode:<14} {count(run, 'pass'):>5} {count(run, 'fail'):>5} {count(run, 'skip'):>5}"
          f" {run['seconds']:>7.1f}  {accelerated:<16} {note}", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", metavar="SUITE[/UNIT]", help="run these only; shell patterns work")
    options.add_argument("--quick", action="store_true", help="the quick set only")
    options.add_argument("--after", action="append", help="values of ACCEL_LOCAL_AFTER (default: 0 and the library's default)")
    options.add_argument("--plain", action="store_true", help="the plain kernel only, not from kept results")
    options.add_argument("--fresh", action="store_true", help="run the plain kernel afresh too")
    options.add_argument("--lib", help="libaccel.so (default: $ACCEL_LIB, else the newest in the target directory)")
    options.add_argument("--list", action="store_true", help="name the units and stop")
    options.add_argument("--fetch", action="store_true", help="fetch and build the suites and stop")
    options.add_argument("--self-test", action="store_true", help="check the parsers on samples and stop")
    arguments = options.parse_args()
    if arguments.self_test:
        return self_test()
    units = load_units(arguments.names, arguments.quick)
    if arguments.list:
        for unit in units:
            print(f"{unit['label']:<36} {'quick' if unit.get('quick') else ''}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is swept
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what daemonises comes back to be swept
    os.umask(0o022)
    if arguments.fetch:
        return fetch(units)
    keep = pathlib.Path(tempfile.gettempdir()) / f"accel-suites-{os.geteuid()}"
    keep.mkdir(mode=0o755, exist_ok=True)
    if keep.stat().st_uid != os.geteuid():
        sys.exit(f"{keep} belongs to another user")
    base = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=keep))
    base.chmod(0o755)
    library = None if arguments.plain else find_library(arguments.lib, base)
    modes = [] if library is None else arguments.after or ["0", DEFAULT_AFTER]
    return run_all(units, modes, library, keep, base, arguments)


def run_all(units, modes, library, keep, base, arguments):
    total = {"passed": 0, "failed": 0, "skipped": 0}
    failures = []
    if not modes and not arguments.plain:
        print("SKIP suites under accel: libaccel.so is not built (cargo build --release)")
        total["skipped"] += len(units)
    print(f"{'unit':<36} {'mode':<14} {'pass':>5} {'fail':>5} {'skip':>5} {'s':>7}  {'accelerated':<16}")
    for unit in units:
        try:
            plain = plain_run(unit, keep, arguments.plain or arguments.fresh, base)
        except Missing as missing:
            print(f"SKIP suites: {unit['label']}: {missing}", flush=True)
            total["skipped"] += 1
            continue
        why = judge_plain(unit, plain)
        show(unit, None, plain, why or "")
        total["failed" if why else "passed"] += 1
        if why:
            failures.append(f"{unit['label']}: {why}; log {plain['log']}")
            continue
        for after in modes:
            run = run_unit(unit, after, library, base)
            why, flaky = judge(unit, after, plain, run)
            show(unit, after, run, "ok" if not why else "FAILED")
            for name in flaky:
                print(f"    lost, known to be flaky: {name}")
            total["failed" if why else "passed"] += 1
            failures += [f"{unit['label']} after={after}: {reason}; log {run['log']}" for reason in why]
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"suites: {total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    if not failures:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failures else 0


def fetch(units):
    """Fetches and builds; a suite that cannot be had is printed and does not fail."""
    seen = set()
    for unit in units:
        if unit["suite"] not in seen:
            seen.add(unit["suite"])
            try:
                build, source = prepare(unit)
                print(f"{unit['suite']}: {build}")
            except Missing as missing:
                print(f"SKIP suites: {unit['suite']}: {missing}")
    return 0


def find_library(given, base):
    """A copy of libaccel.so that every user can read, out of the way of rebuilds; None when there is none."""
    if given or os.environ.get("ACCEL_LIB"):
        found = pathlib.Path(given or os.environ["ACCEL_LIB"])
    else:
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target")
        built = [path for path in (target / "release/libaccel.so", target / "debug/libaccel.so") if path.exists()]
        if not built:
            return None
        found = max(built, key=lambda path: path.stat().st_mtime)
    copy = base / "libaccel.so"
    shutil.copyfile(found, copy)
    copy.chmod(0o755)
    return copy


def self_test():
    """The parsers on their samples, and the manifest's rows."""
    wrong = 0
    for name, (text, expected) in ids.SAMPLES.items():
        found = ids.PARSERS[name](text, "/nonexistent")
        if found != expected:
            print(f"FAILED parser {name}: found {found}, expected {expected}")
            wrong += 1
    units = load_units([], False)
    for unit in units:
        for key in ("run", "parse", "timeout", "floor", "at_least"):
            if key not in unit:
                print(f"FAILED manifest: {unit['label']} has no {key}")
                wrong += 1
        if unit.get("parse") not in ids.PARSERS or unit["at_least"] < 1:
            print(f"FAILED manifest: {unit['label']} has a wrong parse or at_least")
            wrong += 1
    print(f"self-test: {len(ids.SAMPLES)} parsers, {len(units)} units, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
