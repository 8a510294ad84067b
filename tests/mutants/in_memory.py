"""Tries mutants in forks of one process that has collected their tests: a fork exchanges the code of the functions that
a mutant changes, so that nothing is imported again.
"""

from __future__ import annotations

import ast
import gc
import inspect
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import hypothesis
import pytest

from mutants.mutant import ROOT, Mutant

LONGEST = 600  # seconds of the tests of a mutant: what does not end is noticed, too
LONGEST_COMPUTED = 20  # seconds of the processor for the same, more than three times what they take without a mutant
PHASES = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a failure is enough; it needs not be small
UNKNOWN = "another way"  # what cannot be exchanged in memory


def codes_of(code: CodeType) -> Iterator[CodeType]:
    """The functions and methods of a module's code, without those inside of functions, which belong to them."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & inspect.CO_NEWLOCALS:
                yield constant
            else:  # a class
                yield from codes_of(constant)


def changed(mutant: Mutant) -> tuple[dict[str, CodeType], list[ast.stmt]] | None:
    """The new code of functions by their qualified names, and the changed assignments of the module. None if something
    else is changed: a default value, a decorator, the body of a class, a function without a name.
    """
    text = (ROOT / mutant.file).read_text()
    trees = [ast.parse(text), ast.parse(mutant.applied(text))]
    olds, news = ([*codes_of(compile(tree, mutant.file, "exec"))] for tree in trees)
    pairs = [(old, new) for old, new in zip(olds, news, strict=True) if _essence(old) != _essence(new)]
    if any(old.co_qualname != new.co_qualname or "<lambda>" in new.co_qualname for old, new in pairs):
        return None
    statements: list[ast.stmt] = []
    for old, new in zip(*(tree.body for tree in trees), strict=True):
        outsides = [ast.dump(_without_bodies(each)) for each in (old, new)]
        if outsides[0] != outsides[1]:
            if not isinstance(new, ast.Assign):
                return None
            statements.append(new)
    return {new.co_qualname: new for _, new in pairs}, statements


def _essence(code: CodeType) -> Any:
    """What makes two functions the same, wherever they stand."""
    constants = tuple(_essence(each) if isinstance(each, CodeType) else (type(each), each) for each in code.co_consts)
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars


class _Emptied(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return ast.copy_location(
            ast.FunctionDef(node.name, node.args, [ast.Pass()], node.decorator_list, node.returns), node
        )


def _without_bodies(statement: ast.stmt) -> ast.AST:
    return _Emptied().visit(ast.parse(ast.unparse(statement)).body[0])


def exchange(mutant: Mutant) -> bool:
    """Changes the running code. False if the mutant, or where its code is in use, cannot be exchanged."""
    parts = changed(mutant)
    name = mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    module = sys.modules.get(name)
    if parts is None or module is None:
        return False
    codes, statements = parts
    left = set(codes)
    for function in [each for each in gc.get_objects() if type(each) is FunctionType]:
        old = function.__code__
        new = codes.get(old.co_qualname)
        if new is not None and function.__module__ == name and old.co_freevars == new.co_freevars:
            function.__code__ = new
            left.discard(old.co_qualname)
    for statement in statements:
        before, after = vars(module), dict(vars(module))
        exec(compile(ast.Module([statement], []), mutant.file, "exec"), after)
        for key in [key for key in after if key not in before or after[key] is not before[key]]:
            _rebind(key, before.get(key), after[key])
    return not left


def _rebind(name: str, old: object, new: object) -> None:
    """In every module that has imported it."""
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        if name in names and (names[name] is old or str(names.get("__name__", "")).startswith("resdet")):
            names[name] = new


@dataclass
class InMemory:
    """A plugin of pytest that runs the mutants in place of the tests, and keeps a verdict on each: killed, survived, or
    `another way`.
    """

    chosen: list[Mutant]
    verdicts: dict[Mutant, str] = field(default_factory=dict)
    computed: dict[str, float] = field(default_factory=dict)  # by test: seconds of the processor without a mutant
    durations: Path = field(default_factory=lambda: Path(tempfile.mkstemp(prefix="resdet-mutants-")[1]))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            file = item.path.relative_to(ROOT / "tests").as_posix()
            for name in (file, f"{file}::{getattr(item, 'originalname', item.name)}"):
                items.setdefault(name, []).append(item)
        for number, mutant in enumerate(self.chosen, start=1):
            for test in mutant.tests:
                if test not in self.computed:
                    run = partial(_first_failure, items.get(test, []), self.durations)
                    verdict, self.computed[test] = _in_a_fork(run, 1000)
                    if verdict != "survived":
                        raise SystemExit(f"{test}: does not pass without a mutant ({verdict})")
            limit = LONGEST_COMPUTED + 3 * sum(self.computed[test] for test in mutant.tests)
            seconds_of: dict[str, float] = dict(map(json.loads, self.durations.read_text().splitlines()))
            tests = [item for test in mutant.tests for item in items[test]]
            tests.sort(key=lambda item: seconds_of.get(item.nodeid, 0.0))  # the quickest first
            verdict, seconds = _in_a_fork(partial(_exchanged_first_failure, mutant, tests), int(limit))
            self.verdicts[mutant] = verdict
            print(f"{number}/{len(self.chosen)} {verdict} ({seconds:.0f} s) {mutant.name}", file=sys.__stdout__)
            if sys.__stdout__:
                sys.__stdout__.flush()
        return True


def _exchanged_first_failure(mutant: Mutant, tests: list[pytest.Item]) -> int:
    return _first_failure(tests) if exchange(mutant) else 2


def _in_a_fork(run: Callable[[], int], limit: int) -> tuple[str, float]:
    """The verdict, and the seconds of the processor that it took, of at most `limit`."""
    child = os.fork()
    if not child:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        code = 3
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            _ = os.dup2(nowhere, descriptor)
        try:
            code = run()
        finally:
            os._exit(code)
    end = time.monotonic() + LONGEST
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)
    _, status, used = os.wait4(child, 0)
    verdict = {0: "survived", 2: UNKNOWN}.get(os.waitstatus_to_exitcode(status), "killed")
    return verdict, used.ru_utime + used.ru_stime


def _first_failure(items: list[pytest.Item], durations: Path | None = None) -> int:
    """Runs tests up to the first that fails; 1 if one does. Adds the seconds of each to a file."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        reports: list[pytest.TestReport] = []

        class Watch:
            def pytest_runtest_logreport(
                self, report: pytest.TestReport, reports: list[pytest.TestReport] = reports
            ) -> None:
                reports.append(report)

        plugin = Watch()
        _ = item.config.pluginmanager.register(plugin)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        _ = item.config.pluginmanager.unregister(plugin)
        if any(report.failed for report in reports):
            return 1
        if durations:
            with durations.open("a") as file:
                _ = file.write(json.dumps([item.nodeid, sum(report.duration for report in reports)]) + "\n")
    return 0 if items else 1


def verdicts(chosen: list[Mutant]) -> dict[Mutant, str]:
    """Verdicts on the mutants. Raises SystemExit if a test does not pass without one."""
    plugin = InMemory(chosen)
    paths = sorted({str(ROOT / "tests" / test) for mutant in chosen for test in mutant.tests})
    whole = [path for path in paths if "::" not in path or path.partition("::")[0] not in paths]
    hypothesis.settings.register_profile("mutants", phases=PHASES, database=None, deadline=None)
    hypothesis.settings.load_profile("mutants")
    options = [
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-m",
        "not slow",
    ]
    os.chdir(ROOT)
    code = pytest.main([*options, "-s", *whole], plugins=[plugin])
    plugin.durations.unlink()
    if len(plugin.verdicts) < len(chosen):
        raise SystemExit(f"the tests could not be run ({code})")
    return plugin.verdicts
