# SPDX-License-Identifier: Apache-2.0
"""The parameters and the file that documents them."""

from __future__ import annotations

import runpy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from rclpy.parameter import Parameter

from repghost_ros.errors import ParameterError
from repghost_ros.ros.parameters import DECLARATIONS, Parameters

YAML = Path(__file__).parent.parent / "config" / "classify.yaml"


def test_the_yaml_file_documents_every_parameter_with_its_default() -> None:
    documented = yaml.safe_load(YAML.read_text())["/**"]["ros__parameters"]
    defaults = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in fields(Parameters)
    }
    assert documented == defaults


def test_the_docs_have_the_table_of_the_parameters_as_declared() -> None:
    """If this fails, run python tools/parameter_table.py."""
    tool = runpy.run_path(str(YAML.parent.parent / "tools" / "parameter_table.py"))
    _, documented, _ = tool["split"](tool["PAGE"].read_text(encoding="utf-8"))
    assert documented == tool["table"]()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("resize", "squash", "choose one of auto, stretch, crop, letterbox"),
        ("model", "RepViT-m0.9", "did you mean 'repvit_m0_9'"),
        ("roi", [1, 2, 3], "x, y, width, height"),
        ("roi", [0, 0, 5, 0], "x, y, width, height"),
        ("roi", [-1, 0, 5, 5], "x, y, width, height"),
        ("cameras", ["a b"], "relative topic prefix"),
        ("cameras", ["/front"], "relative topic prefix"),
        ("cameras", ["front", "front"], "of its own"),
    ],
)
def test_values_out_of_bounds_are_refused(name: str, value: object, reason: str) -> None:
    with pytest.raises(ParameterError, match=reason):
        Parameters().changed([Parameter(name, value=value)])


def test_an_empty_array_of_a_yaml_file_is_the_default() -> None:
    nothing = [Parameter(name, Parameter.Type.NOT_SET) for name in ("roi", "cameras")]
    assert Parameters().changed(nothing) == Parameters()


@pytest.mark.parametrize("kind", [Parameter.Type.BOOL_ARRAY, Parameter.Type.STRING_ARRAY])
def test_an_empty_array_of_a_request_is_the_default(kind: Parameter.Type) -> None:
    some = Parameters(class_allow=("stop",))
    assert some.changed([Parameter("class_allow", kind, [])]) == Parameters()


def test_a_size_may_be_a_number() -> None:
    assert Parameters().changed([Parameter("model", value=200)]).model == "200"


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("max_rate", 10, 10.0),
        ("score_threshold", 0, 0.0),
        ("top_k", 3.0, 3),
        ("model", 111, "111"),
        ("cameras", "front", ("front",)),
        ("cameras", "front, rear", ("front", "rear")),
        ("roi", [0.0, 2.0, 30.0, 40.0], (0, 2, 30, 40)),
    ],
)
def test_values_come_in_other_types_that_mean_the_same(
    name: str, given: object, value: object
) -> None:
    changed = getattr(Parameters().changed([Parameter(name, value=given)]), name)
    assert changed == value
    assert type(changed) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("max_rate", "fast", "give a number"),
        ("max_rate", True, "give a number"),
        ("top_k", 2.5, "give a whole number"),
        ("autostart", 1, "give true or false"),
        ("roi", 5, "give a list"),
        ("roi", ["a"], "give a whole number"),
        ("resize", True, "give a text"),
    ],
)
def test_values_of_other_types_are_refused(name: str, given: object, reason: str) -> None:
    with pytest.raises(ParameterError, match=f"'{name}' cannot be .*{reason}"):
        Parameters().changed([Parameter(name, value=given)])


@pytest.mark.parametrize("name", DECLARATIONS)
def test_what_changes_the_model_is_set_back_with_it(name: str) -> None:
    declared = DECLARATIONS[name]
    if declared.read_only:
        return
    by_type: dict[type, list[Any]] = {
        bool: [not declared.default],
        int: [1, 2],
        float: [0.5, 0.9],
        str: [*declared.choices[1:], "other"],
        tuple: [("0", "1", "2"), (0.1, 0.2, 0.3), (1, 2, 3, 4)],
    }
    before = replace(Parameters(), scale=(1.0, 1.0, 1.0))
    for value in by_type[type(declared.default)]:
        try:
            after = replace(before, **{name: value})
        except (ParameterError, TypeError, ValueError):
            continue
        if after.spec != before.spec:
            assert declared.of_model
            assert replace(after, **before.of_model()).spec == before.spec
