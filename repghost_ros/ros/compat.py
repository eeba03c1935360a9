"""What overrides or stands in for parts of rclpy, each with the versions that it is for."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy import lifecycle
from rclpy.parameter import Parameter

from repghost_ros.errors import ParameterError


class LifecycleNode(lifecycle.LifecycleNode):
    """rclpy's lifecycle node without the faults below."""

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802
        """Answer a change_state request; Humble to Kilted: rclpy raises at an impossible one."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except Exception as error:
            self.get_logger().error(f"the transition is refused: {error}")
            response.success = False
            return response

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set them all or none, then apply them.

        Humble has no callback for what was set (Iron's add_post_set_parameters_callback), and none of
        the versions lets one refuse. Parameter services and `set_parameters` both end up here.
        """
        try:
            parameter_list = self.coerce_parameters(parameter_list)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        result = super().set_parameters_atomically(parameter_list)
        return self.apply_parameters(parameter_list) if result.successful else result

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set one after the other, each by itself."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def restore_parameters(self, parameter_list: list[Parameter]) -> None:
        """Set what `apply_parameters` could not apply back, without applying it."""
        super().set_parameters_atomically(parameter_list)

    def coerce_parameters(self, parameter_list: list[Parameter]) -> list[Parameter]:
        """What was set, in the types that the parameters have: rclpy refuses 10 for 10.0.

        Raises:
            ParameterError: a value cannot be one of that type.

        """
        return parameter_list

    def apply_parameters(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Act on parameters that were set; every callback has agreed to them."""
        return SetParametersResult(successful=True)
