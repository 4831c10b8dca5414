"""What is switched on of a chart's values, against charts that are a function from values to images."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_airgap.charts.inventory import ImageUse
from sie_airgap.charts.switches import Found, Refusal, named_in, overlaid, search

Chart = Callable[[dict[str, Any]], set[str] | str]
"""Values to references; a text is what helm refuses with."""


def found(chart: Chart, values: Mapping[str, Any], **more: Any) -> Found:
    known = chart(dict(values))
    assert isinstance(known, set)
    asking = search(values, known=known, **more)
    try:
        overrides = next(asking)
        while True:
            rendered = chart(overlaid(values, overrides))
            uses = tuple(ImageUse(one, ("Pod/p",)) for one in sorted(rendered))
            overrides = asking.send(Refusal(rendered) if isinstance(rendered, str) else uses)
    except StopIteration as end:
        told: Found = end.value
        return told


def brought(found: Found) -> dict[str, tuple[str, ...]]:
    return {image.use.reference: image.switches for image in found.images}


def test_a_switch_that_is_off_brings_its_image():
    got = found(lambda v: {"x:1"} if v["a"]["enabled"] else set(), {"a": {"enabled": False}, "b": {"enabled": False}})

    assert brought(got) == {"x:1": ("a.enabled",)}
    assert got.not_tried == ()


def test_a_switch_inside_of_one_that_is_off_has_both_on():
    values = {"a": {"enabled": False, "metrics": {"enabled": False}}}

    got = found(lambda v: {"x:1"} if v["a"]["enabled"] and v["a"]["metrics"]["enabled"] else set(), values, most=2)
    assert brought(got) == {"x:1": ("a.enabled", "a.metrics.enabled")}


def test_two_switches_far_apart_that_need_each_other_are_both_on():
    values = {name: {"on": False} for name in "abcdefgh"}

    got = found(lambda v: {"x:1"} if v["b"]["on"] and v["g"]["on"] else set(), values)
    assert {"b.on", "g.on"} <= set(brought(got)["x:1"])


@pytest.mark.parametrize("empty", [None, "", 0, [], {}])
def test_a_value_that_is_empty_is_filled(empty):
    values = {"quiet": "", "backup": {"schedule": empty}, "other": []}

    got = found(lambda v: {"x:1"} if v["backup"].get("schedule") else set(), values)
    assert brought(got) == {"x:1": ("backup.schedule",)}


@pytest.mark.parametrize(
    "said",
    [
        "values don't meet the schema: - at '/cache/url': minLength: got 0, want 1",
        "execution error at (x/templates/a.yaml:3:4): cache.url is required",
        "error calling include: .Values.cache.url: nil pointer",
    ],
)
def test_a_switch_that_is_refused_gets_the_value_that_the_message_names(said):
    def chart(values):
        cache = values["cache"]
        if cache["enabled"] and not str(cache["url"]).startswith("s3://"):
            return said
        return {"x:1"} if cache["enabled"] else set()

    got = found(chart, {"cache": {"enabled": False, "url": ""}, "else": {"url": ""}})
    assert brought(got) == {"x:1": ("cache.enabled", "cache.url")}
    assert got.not_tried == ()


def test_a_switch_that_is_refused_without_a_name_gets_the_values_beside_it():
    def chart(values):
        tls = values["tls"]
        return "it needs a secret" if tls["on"] and not tls["secret"] else {"x:1"} if tls["on"] else set()

    got = found(chart, {"tls": {"on": False, "secret": ""}})
    assert brought(got) == {"x:1": ("tls.on", "tls.secret")}


def test_two_switches_that_exclude_each_other_are_each_seen():
    def chart(values):
        if values["a"]["on"] and values["b"]["on"]:
            return "one of both"
        return {f"{name}:1" for name in "ab" if values[name]["on"]}

    got = found(chart, {"a": {"on": False}, "b": {"on": False}})
    assert set(brought(got)) == {"a:1", "b:1"}
    assert got.not_tried == ()


def test_a_value_that_a_part_of_an_images_name_is_made_of_brings_none():
    values = {"image": {"registry": "", "tag": "", "repository": "a"}, "extra": ""}

    got = found(lambda v: {f"{v['image']['registry']}a:{v['extra'] or 1}"}, values)
    assert brought(got) == {}


def test_what_is_refused_however_is_named():
    def chart(values):
        return "no" if values["a"]["on"] or values["list"] else set()

    got = found(chart, {"a": {"on": False}, "list": [], "fine": ""})
    assert got.not_tried == ("a.on", "list")


def test_what_there_was_no_render_left_for_is_named():
    got = found(lambda v: set(), dict.fromkeys("abcde", False) | {"rest": ""}, most=3)

    assert got.renders == 3
    assert got.not_tried == ("d", "e", "rest")


def test_a_value_of_a_chart_inside_is_known_by_its_whole_name():
    values = {"db": {"auth": {"password": ""}}, "auth": {"user": ""}}
    said = "template: x/charts/db/templates/a.yaml:1:2: at <.Values.auth.password>: required"

    assert named_in(said, values) == [("db", "auth", "password")]


def test_null_takes_away_and_mappings_are_merged():
    assert overlaid({"a": {"b": 1, "c": 2}, "d": [1], "e": 1}, {"a": {"b": None, "f": 3}, "d": []}) == {
        "a": {"c": 2, "f": 3},
        "d": [],
        "e": 1,
    }


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_image_behind_one_switch_is_found_whatever_is_refused_together(data):
    names = [f"v{number}" for number in range(data.draw(st.integers(1, 12)))]
    values = {name: data.draw(st.sampled_from([False, "", 0, None])) for name in names}
    bringing = set(data.draw(st.lists(st.sampled_from(names), unique=True)))
    excluding = data.draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(names)), max_size=3))

    def chart(now):
        clash = any(one != other and now[one] and now[other] for one, other in excluding)
        return "not together" if clash else {f"{name}:1" for name in bringing if now[name]}

    got = found(chart, values)
    assert set(brought(got)) == {f"{name}:1" for name in bringing}
    assert got.not_tried == ()
