"""What every registered metric promises, and what other people's metrics may do."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

import kdiff.plugins
from kdiff.eval import FeatureNetwork, Features, Metric, Statistic, evaluate, make_reference
from kdiff.eval.evaluation import METRICS, Collector, reference_for
from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.metrics import all_metrics, check_metrics, needs_logits
from kdiff.eval.statistics import STATISTICS
from kdiff.names import normalise
from kdiff.samplers import UnknownName

NAMES = list(METRICS)
DIM, N = 6, 40


def images(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


MADE, REAL = images(N, 0), images(50, 1)


def look(batch):
    """Six means, five logits, and four numbers that stand for spatial features."""
    means = batch.reshape(len(batch), 4, 2, 8, 3).mean((2, 3)).reshape(len(batch), -1) / 64
    return Features(
        np.float32(means[:, :DIM]), np.float32(means[:, 7:12]), np.float32(means[:, 2:6] ** 2)
    )


NETWORK = FeatureNetwork("toy", None, "", look)


@pytest.fixture(scope="module")
def reference():
    return make_reference("real", open_pictures(REAL), NETWORK, spatial=True, rows=True)


def figure(name, reference, portions):
    """Of portions of the images, each a list of numbers, in collectors of their own."""
    collectors = []
    for portion in portions:
        collectors.append(Collector([name], N, NETWORK, reference))
        for start in range(0, len(portion), 7):
            numbers = portion[start : start + 7]
            collectors[-1].update(MADE[numbers], numbers)
    first, *others = collectors
    for other in others:
        first = first + pickle.loads(pickle.dumps(other))  # as between processes
    (found,) = first.figures().values()
    return found


def at_once(name, reference):
    """Without collectors: the whole set goes into the statistic, and that into the metric."""
    metric = METRICS[name]
    rows = getattr(look(MADE), metric.statistic.takes)
    sums = metric.statistic.start(N, rows.shape[1])
    sums.update(rows, range(N))
    return metric.compute(sums, reference.part(metric.needs) if metric.needs else None)[
        metric.index
    ]


def same(found, expected):
    value, error = expected
    assert found.value == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert (found.error is None) == (error is None)
    assert (found.error or 0) == pytest.approx(error or 0, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_it_declares_what_it_is_and_needs(name):
    metric = METRICS[name]
    assert metric.label and metric.help and normalise(metric.label) == normalise(name)
    assert metric.statistic.takes in Features._fields
    assert metric.reference_statistic is None or STATISTICS[metric.needs].finish
    assert needs_logits([name]) is (metric.statistic.takes == "logits")
    assert isinstance(metric.higher_is_better, bool)
    assert metric.higher_is_better is not (name in ("fid", "fid-inf", "sfid", "kid"))
    assert check_metrics([metric.label, *metric.aliases, name.upper()]) == [name]


@pytest.mark.parametrize("name", NAMES)
def test_streaming_in_any_portions_and_order_is_all_at_once(name, reference):
    expected = at_once(name, reference)
    order = np.random.default_rng(0).permutation(N)
    same(figure(name, reference, [np.arange(N)]), expected)
    same(figure(name, reference, [order]), expected)
    same(figure(name, reference, [order[:13], order[13:]]), expected)
    same(figure(name, reference, [[], order[:30], order[30:]]), expected)


@pytest.mark.parametrize("name", NAMES)
def test_its_least_number_of_images_is_enforced(name, reference):
    metric = METRICS[name]
    part = metric.part_of(reference)
    least = metric.least if isinstance(metric.least, int) else metric.least(part)
    with pytest.raises(ValueError, match=f"^{name} needs at least {least} images, not {least - 1}"):
        Collector([name], least - 1, NETWORK, reference)
    found = evaluate(MADE[:least], reference, name, network=NETWORK)
    assert [f.n for f in found.values()] == [least]


@pytest.mark.parametrize("name", [name for name in NAMES if METRICS[name].least_reference])
def test_the_references_least_number_is_enforced(name):
    least = METRICS[name].least_reference
    few, enough = (
        make_reference("r", open_pictures(REAL[:n]), NETWORK, rows=True) for n in (least - 1, least)
    )
    with pytest.raises(ValueError, match=f"{name} needs at least {least} images in the reference"):
        Collector([name], N, NETWORK, few)
    assert evaluate(MADE, enough, name, network=NETWORK)


@pytest.mark.parametrize("name", [name for name in NAMES if METRICS[name].needs])
def test_what_the_reference_must_have_is_checked_first(name, reference):
    with pytest.raises(ValueError, match="a reference is needed"):
        Collector([name], N, NETWORK)
    needed = METRICS[name].needs
    others = {k: v for k, v in reference.statistics.items() if k != needed}
    lacking = replace(reference, statistics=others)
    with pytest.raises(ValueError, match=r"^reference real has "):
        Collector([name], N, NETWORK, lacking)
    wider = FeatureNetwork("wide", None, "", lambda x: Features(*(a.repeat(2, 1) for a in look(x))))
    with pytest.raises(ValueError, match="the features have"):
        Collector([name], N, wider, reference).update(MADE[:3], [0, 1, 2])


@pytest.mark.parametrize("name", NAMES)
def test_images_as_reference_are_the_reference(name, tmp_path, reference):
    np.save(tmp_path / "real.npy", REAL)
    made = reference_for(tmp_path / "real.npy", NETWORK, [name])
    whole = evaluate(MADE, replace(reference, features="toy"), name, network=NETWORK)
    assert evaluate(MADE, made, name, network=NETWORK) == whole
    assert set(made.statistics) == {"gaussian", METRICS[name].needs} - {""}


# Other people's


@pytest.fixture
def theirs(monkeypatch):
    """Their metrics by name, as entry points of an installed package."""
    own = dict(METRICS)
    points = {}
    real = kdiff.plugins.plugins
    monkeypatch.setattr(
        "kdiff.names.plugins", lambda group: points if group == "kdiff.metrics" else real(group)
    )
    yield points
    for name in [name for name in METRICS if name not in own]:
        del METRICS[name]


def test_their_metrics_with_todays_arguments(theirs, reference):
    mean = Metric("MEAN", "a mean", "pool", "gaussian", lambda g, r: [(g.whole.mean[0], None)])
    theirs["mean"] = mean
    theirs["far"] = Metric(
        *("FAR", "of rows", "rows", "rows", lambda kept, r: [(0, None), (len(kept.rows), len(r))]),
        *(1, 3, True),
    )
    theirs["old"] = Metric(
        label="OLD", help="", stream="is", needs="mean", compute=lambda s, m: [(s.mean, m[0])]
    )
    found = evaluate(MADE, reference, "mean,FAR,old", network=NETWORK)
    assert found["MEAN (toy)"].value == pytest.approx(look(MADE).pool[:, 0].mean(), rel=1e-6)
    assert found["FAR (toy)"][:2] == (N, 50)
    score = evaluate(MADE, reference, "is", network=NETWORK)["IS (toy)"].value
    assert found["OLD (toy)"][:2] == (score, reference.mean[0])
    assert all_metrics()["far"].higher_is_better and all_metrics()["far"].least == 3
    assert {"mean", "far", "old"} <= set(all_metrics())


def test_their_metrics_share_a_computation_only_for_the_same_part(theirs, reference):
    def size(sums, part):
        calls.append(len(part))
        return [(len(part), None), (-len(part), None)]

    calls = []
    for name, needs, index in [("a1", "mean", 0), ("a2", "mean", 1), ("a3", "rows", 0)]:
        theirs[name] = Metric(name.upper(), "", "pool", needs, size, index)
    found = evaluate(MADE, reference, "a1,a2,a3", network=NETWORK)
    assert [f.value for f in found.values()] == [DIM, -DIM, 50] and calls == [DIM, 50]


def test_their_label_does_not_take_a_name_of_kdiffs(theirs):
    theirs["my-fid"] = Metric("FID", "", "pool", "", lambda *_: [(0.0, None)])
    assert check_metrics("my-fid,FID") == ["my-fid", "fid"]


def test_their_metric_on_logits_gets_logits(theirs, reference):
    theirs["entropy"] = Metric("H", "", "is", "", lambda sums, _: [(np.log(sums.mean), None)])
    assert check_metrics("H") == ["entropy"] and needs_logits(["entropy"])
    (found,) = evaluate(MADE, reference, "entropy", network=NETWORK).values()
    score = evaluate(MADE, reference, "is", network=NETWORK)["IS (toy)"].value
    assert found.value == np.log(score)
    bare = FeatureNetwork("bare", None, "", lambda x: Features(look(x).pool))
    with pytest.raises(ValueError, match="bare has no logits, which entropy needs"):
        Collector(["entropy"], N, bare).update(MADE, range(N))


class Largest:
    """A statistic in four lines: the largest logit of each class."""

    def __init__(self, n, dim):
        self.values = np.full(dim, -np.inf)

    def update(self, rows, indices):
        self.values = np.maximum(self.values, rows.max(0))

    def __add__(self, other):
        both = Largest(0, len(self.values))
        both.values = np.maximum(self.values, other.values)
        return both


LARGEST = Statistic("largest", "logits", Largest, finish=lambda sums: sums.values)


def test_their_statistic_is_collected_of_images_and_of_references(theirs, tmp_path, reference):
    theirs["gap"] = Metric(
        *("GAP", "", LARGEST, LARGEST, lambda sums, part: [((sums.values - part).max(), None)])
    )
    assert needs_logits(check_metrics("gap"))
    np.save(tmp_path / "real.npy", REAL)
    (found,) = evaluate(MADE, tmp_path / "real.npy", "gap", network=NETWORK).values()
    assert found.value == (look(MADE).logits.max(0) - look(REAL).logits.max(0)).max()
    with pytest.raises(ValueError, match=r"reference real lacks .*: give its images as --ref"):
        evaluate(MADE, reference, "gap", network=NETWORK)


def test_what_is_not_a_metric_is_left_out_with_a_warning(theirs):
    theirs["wrong"] = lambda images: 1.0
    with pytest.warns(UserWarning, match=r"entry point wrong .* is function, not a"):
        assert "wrong" not in all_metrics()


def test_an_unknown_statistic_suggests():
    with pytest.raises(UnknownName, match="unknown statistic 'pol'; did you mean pool"):
        _ = Metric("X", "", "pol", "", lambda *_: []).statistic
