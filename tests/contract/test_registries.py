"""Everything that has a name: one rule for names, aliases, presets, mistakes and other packages."""

import importlib
import re
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import kdiff
from fake_packages import packages  # noqa: F401
from kdiff.editing import EDITS
from kdiff.guidance import GUIDANCE, guide
from kdiff.names import Registry, UnknownName, normalise
from kdiff.samplers import REGISTRY

ROOMS = (
    "samplers schedules preconditioners networks checkpoints guidance editing eval.metrics "
    "eval.features"
)


def registries() -> dict[str, Registry]:
    for room in ROOMS.split():
        importlib.import_module(f"kdiff.{room}")
    modules = [m for name, m in sys.modules.items() if name.startswith("kdiff")]
    found = {id(r): r for m in modules for r in vars(m).values() if isinstance(r, Registry)}
    return {r.kind: r for r in found.values()}


ALL = registries()
# Others import a plug-in when it is chosen, and have tests of their own.
EAGER = {kind: registry for kind, registry in ALL.items() if type(registry) is Registry}
every_registry = pytest.mark.parametrize("registry", ALL.values(), ids=ALL)


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = [(registry, dict(registry)) for registry in ALL.values()]
    yield
    for registry, things in before:
        for name in registry.keys() - things.keys():
            del registry[name]


# --- all of them ---


def test_they_are_all_here():
    assert {"sampler", "guidance", "edit"} <= ALL.keys()
    assert len({r.group for r in ALL.values()}) == len(ALL)


@every_registry
def test_every_name_finds_its_thing_however_it_is_written(registry):
    for name, thing in registry.items():
        for other in (name, *getattr(thing, "aliases", ())):
            for written in (other, other.upper(), f" {other.replace('_', '-')} "):
                found = registry.find(written)
                assert (found.name, found.thing, found.options) == (name, thing, {}), written
        for preset, options in getattr(thing, "presets", {}).items():
            found = registry.find(preset)
            assert (found.name, found.options) == (name, options)
            known = thing.options if hasattr(thing, "options") else thing.settings
            assert options.keys() <= known.keys()


@every_registry
def test_no_two_things_have_a_name_in_common(registry):
    each = [{normalise(n) for n in (name, *registry.other_names(name))} for name in registry]
    assert sum(map(len, each)) == len(set().union(*each))


@every_registry
def test_a_mistake_is_told_with_the_nearest_name(registry):
    with pytest.raises(UnknownName) as error:
        registry.find("qqqqqqqqqqqqqqqq")
    assert str(error.value).startswith(f"unknown {registry.kind} 'qqqqqqqqqqqqqqqq'; there is ")
    for name in registry:
        if len(name) > 3:
            with pytest.raises(UnknownName, match=rf"did you mean .*{re.escape(name)}"):
                registry.find(f"{name}q")
    for wrong in (None, 7, b"euler"):
        with pytest.raises(TypeError, match="a name must be text"):
            registry.find(wrong)


@pytest.mark.parametrize("registry", EAGER.values(), ids=EAGER)
def test_a_package_that_is_broken_warns_and_stops_nothing(registry, packages):  # noqa: F811
    source = "raise ImportError('it was built for another version')"
    packages.install(registry.group, {"theirs": "broken_package"}, broken_package=source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in registry:
            registry.find(name)  # nobody needs theirs for it
    with (
        pytest.warns(UserWarning, match="cannot load broken_package of .*another version"),
        pytest.raises(UnknownName),
    ):
        registry.find("theirs")


# --- things of other packages ---

SAMPLERS = """
from itertools import pairwise
from kdiff.samplers import sampler

@sampler("their_euler", order=1, paper="none", aliases=("dpmpp_2m", "Their E"))
def their_euler(x, sigmas):
    for s, t in pairwise(sigmas):
        d = yield x, s
        x = (t / s) * x + (1 - t / s) * d
    return x

def plain(x, sigmas):
    yield
"""
GUIDANCES = """
from kdiff.guidance import guidance

@guidance("their_guidance", paper="none")
def their_guidance(model):
    return lambda x, sigma, **cond: 0.5 * model(x, sigma, **cond)
"""
EDITINGS = """
from kdiff.editing import edit

@edit("their_edit", paper="none")
def their_edit(start, x, sigmas, *, noise):
    walk = start(x, sigmas)
    while walk.ask:
        d = yield walk.ask
        walk.answer(0.5 * d)
    return walk.result
"""


@pytest.mark.parametrize("points_at", ["theirs", "theirs:their_euler"])
def test_a_sampler_of_another_package(packages, points_at):  # noqa: F811
    packages.install("kdiff.samplers", {"their_euler": points_at}, theirs=SAMPLERS)
    plan = kdiff.plan(sampler="Their E Karras", steps=3)
    assert (plan.sampler.name, plan.schedule, plan.nfe) == ("their_euler", "karras", 3)
    assert set(REGISTRY.all()) >= {"their_euler", "euler"}
    assert all(isinstance(s, kdiff.Sampler) for s in REGISTRY.values())
    assert kdiff.plan(sampler="dpmpp_2m").sampler.name == "dpmpp_2m"  # whatever theirs is called


def test_an_entry_point_may_be_the_sampler_itself(packages):  # noqa: F811
    source = "from kdiff.samplers import REGISTRY\nTHING = REGISTRY['euler']"
    points = {"same_as_euler": "theirs:THING", "heun": "theirs:THING"}
    packages.install("kdiff.samplers", points, theirs=source)
    assert REGISTRY.find("same-as-euler").thing is REGISTRY["euler"]
    assert REGISTRY["heun"].name == "heun"


def test_an_entry_point_that_registers_nothing_is_told_of(packages):  # noqa: F811
    packages.install("kdiff.samplers", {"plain": "theirs:plain"}, theirs=SAMPLERS)
    with pytest.warns(UserWarning, match="plain of kdiff.samplers is left out: it does not"):
        REGISTRY.all()
    assert "plain" not in REGISTRY


@pytest.mark.parametrize("points_at", ["theirs", "theirs:their_guidance"])
def test_a_guidance_of_another_package(packages, points_at):  # noqa: F811
    packages.install("kdiff.guidance", {"g": points_at}, theirs=GUIDANCES)
    model = guide(lambda x, sigma: x + 1, "Their-Guidance")
    assert model(torch.tensor([3.0]), 1.0) == 2.0 and set(GUIDANCE) >= {"cfg", "their_guidance"}


@pytest.mark.parametrize("points_at", ["theirs", "theirs:their_edit"])
def test_an_edit_of_another_package(packages, points_at):  # noqa: F811
    packages.install("kdiff.editing", {"e": points_at}, theirs=EDITINGS)
    arguments = {"sigmas": [4.0, 0.0], "shape": (2,)}
    x = kdiff.sample(lambda x, sigma: x, "euler", edits="their_edit", **arguments)
    assert (x == 0.5 * kdiff.sample(lambda x, sigma: x, "euler", **arguments)).all()
    assert "their_edit" in EDITS


TAKEN = """
from kdiff.samplers import sampler

@sampler("NAME", order=1, paper="none")
def theirs(x, sigmas):
    yield x, sigmas[0]
    return x
"""


@pytest.mark.parametrize("name", ["euler", "Eu-ler"])
def test_another_package_does_not_take_a_name_of_kdiff(name, packages):  # noqa: F811
    euler, names = REGISTRY["euler"], list(REGISTRY)
    packages.install("kdiff.samplers", {"t": "theirs"}, theirs=TAKEN.replace("NAME", name))
    with pytest.warns(UserWarning, match="cannot load theirs .*a sampler named euler already"):
        REGISTRY.all()
    assert REGISTRY.find("euler").thing is euler and list(REGISTRY) == names


NUMBERS = [kind for kind in EAGER if kind != "statistic"]  # others may be anything


@pytest.mark.parametrize("kind", NUMBERS)
def test_what_is_left_out_is_told_of(kind, packages):  # noqa: F811
    registry = EAGER[kind]
    packages.install(registry.group, {"number": "odd_package:FIVE"}, odd_package="FIVE = 5")
    with pytest.warns(UserWarning, match=f"number of {registry.group} is .*left out"):
        registry.all()
    assert "number" not in registry


def test_a_name_that_nobody_could_ask_for():
    registry: Registry[Thing] = Registry("edit", "kdiff.fruit")
    for wrong in ("", " - ", "\N{GREEK SMALL LETTER ALPHA}"):
        with pytest.raises(ValueError, match="the name of an edit needs letters or digits"):
            registry[wrong] = Thing()
    with pytest.raises(TypeError, match="a name must be text, not 5"):
        registry[5] = Thing()
    assert not registry


class SlowThing:
    @property
    def aliases(self):
        time.sleep(0.002)  # another thread's turn
        return (f"other {id(self)}",)


def test_names_are_found_in_several_threads_at_once():
    registry: Registry[Any] = Registry("fruit", "kdiff.fruit")
    for name in "abcdefgh":
        registry[name] = SlowThing()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(registry.find, "hgfedcba" * 4))
    assert [one.name for one in found] == list("hgfedcba" * 4)
    registry["i"] = SlowThing()
    others = [f"other {id(thing)}" for thing in reversed(list(registry.values()))]
    with ThreadPoolExecutor(4) as pool:
        assert [one.name for one in pool.map(registry.find, others)] == list("ihgfedcba")


# --- one by hand ---


@dataclass(frozen=True)
class Thing:
    aliases: tuple = ()
    presets: dict = field(default_factory=dict)


def test_a_registry_by_hand():
    registry: Registry[Thing] = Registry("fruit", "kdiff.fruit")
    apple = registry.register("apple")(Thing(("Malus", "pear"), {"green apple": {"ripe": False}}))
    pear = registry["pear"] = Thing(("MALUS",))
    assert list(registry) == ["apple", "pear"] and len(registry) == 2
    assert registry.other_names("apple") == ["Malus", "pear", "green apple"]
    assert registry.find("pear").thing is pear  # a name goes before an alias
    assert registry.find("malus").thing is apple  # and who came first before others
    assert registry.find("GREEN_apple").options == {"ripe": False}
    del registry["apple"]
    assert registry.find("malus").thing is pear
    with pytest.raises(UnknownName, match="unknown fruit 'apple'; there is pear"):
        registry.find("apple")
