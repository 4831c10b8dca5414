"""tools/schema.py: what it makes of comments, and what it refuses to guess."""

import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def tool(chart):
    spec = importlib.util.spec_from_file_location("schema_tool", chart.parents[1] / "tools" / "schema.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    sys.path.insert(0, str(chart.parents[1] / "tools"))  # where a script finds the modules beside it
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(chart.parents[1] / "tools"))
    del sys.modules[spec.name]


def test_comment_default_and_directive_become_the_property(tool):
    root = tool.read_values("# How many.\n# @schema {minimum: 1}\nreplicas: 2\n")

    assert tool.schema(root, {})["properties"]["replicas"] == {
        "description": "How many.",
        "type": "integer",
        "default": 2,
        "minimum": 1,
    }


def test_removed_value_takes_anything_so_that_the_template_can_refuse_it(tool):
    root = tool.read_values("a:\n  # B.\n  b: 1\n")

    found = tool.schema(root, {"a.old": "use `a.b`"})

    assert found["properties"]["a"]["properties"]["old"] == {"description": "Not part of this chart: use `a.b`"}
    assert found["properties"]["a"]["additionalProperties"] is False


def test_value_without_a_comment_is_found(tool):
    root = tool.read_values("# A.\na: 1\nb:\n  c: 2\n")

    assert [(value.shown, value.line) for value in tool.undocumented(root)] == [("b.c", 4)]


def test_list_that_does_not_say_its_type_is_refused_with_its_line(tool):
    root = tool.read_values("# A.\na: []\n")

    with pytest.raises(tool.ChartError, match=r"values\.yaml:2: the default of `a`"):
        tool.schema(root, {})


def test_value_cannot_be_both_there_and_removed(tool):
    with pytest.raises(tool.ChartError, match="`a` is a value of the chart"):
        tool.schema(tool.read_values("# A.\na: 1\n"), {"a": "gone"})
