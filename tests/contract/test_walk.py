"""A walk by hand: asks, answers and the result of a coroutine."""

import torch

from kdiff.samplers import Ask, Walk


def test_a_walk_by_hand():
    def talk():
        a = yield "x", 1.0
        b, c = yield [("y", 2.0), Ask("z", 3.0, step=4)]
        empty = yield []
        return a + b + c, empty

    walk = Walk(talk())
    assert walk.ask == Ask("x", 1.0) and list(walk.asks) == [walk.ask]
    walk.answer("a")
    assert [ask.x for ask in walk.asks] == ["y", "z"] and walk.ask.x == "y"
    walk.answer("b")
    assert walk.ask == Ask("z", 3.0, step=4) and walk.result is None
    walk.answer("c")
    assert walk.ask is None and not walk.asks and walk.result == ("abc", [])


def test_a_list_of_one_ask_is_answered_with_a_list_of_one():
    def talk():
        return (yield [("x", 1.0)])

    walk = Walk(talk())
    walk.answer("a")
    assert walk.result == ["a"]


def test_answers_have_no_graph_unless_it_is_asked_for():
    def talk(graph):
        return (yield Ask("x", 1.0, graph=graph))

    answer = torch.ones(1, requires_grad=True) * 2
    for asked in (False, True):
        for everywhere in (False, True):
            walk = Walk(talk(asked), graph=everywhere)
            walk.answer(answer)
            assert walk.result.requires_grad == (asked or everywhere)
