# SPDX-License-Identifier: Apache-2.0
"""The open model follows the parameters: opened at first, then exchanged when they change."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait

from rcl_interfaces.msg import SetParametersResult

from repghost_ros.engine.host import ModelHost
from repghost_ros.engine.model import Model
from repghost_ros.errors import StoreError
from repghost_ros.ros.lifecycle import LifecycleNode
from repghost_ros.ros.parameters import Parameters

_POLL = 0.05  # seconds until an interrupt is seen while a model is opened
_PATIENCE = 2.0  # seconds that a parameter request waits for a model, which may take longer


class ModelSwitch:
    """Opens the models that the parameters select.

    Args:
        node: its log is used; opening ends early when the node does.
        host: holds the model.
        revert: called with the parameters of the model that answers, if the one that was to replace
            it cannot be opened.

    """

    def __init__(
        self, node: LifecycleNode, host: ModelHost, revert: Callable[[Parameters], None]
    ) -> None:
        self._node = node
        self._host = host
        self._revert = revert
        self._answering = Parameters()
        """Those with which the open model was opened."""
        self._pending: Future[Model] | None = None
        """A model that takes longer to open than a parameter request waits."""

    def open(self, current: Callable[[], Parameters]) -> None:
        """Open the first model, whatever time it takes.

        Args:
            current: returns the parameters, which may be set meanwhile.

        Raises:
            RepghostError: the model cannot be opened, or the node is ending.
            OSError: a file cannot be read or written.

        """
        wanted = None
        while wanted is None or wanted.spec != current().spec:
            wanted = current()
            opening = self._begin(wanted, longest_s=None)
            while not opening.done() and not self._node.is_ending:
                wait([opening], _POLL)
            if not opening.done():
                raise StoreError("interrupted while the model was being opened")
            opening.result()

    def check(self, before: Parameters, after: Parameters) -> None:
        """Check that a model can answer with these parameters; nothing is opened or changed.

        Raises:
            RepghostError: it cannot.

        """
        if self._host.model is None:
            return
        if after.spec != before.spec:
            after.spec.check()
        elif after.reporting != before.reporting:
            after.reporting.check(self._host.model.labels)

    def follow(self, before: Parameters, after: Parameters) -> SetParametersResult:
        """Open another model if the parameters select one; the old one answers until then.

        The request waits for that model for a moment, to tell whether it works. What takes longer, such
        as a download, goes on; `poll` notices its end.
        """
        if self._host.model is None or after.spec == before.spec:
            return SetParametersResult(successful=True)
        opening = self._begin(after, after.watchdog)
        wait([opening], _PATIENCE)
        self._pending = opening
        error = self.poll()
        if self._pending is not None:
            return SetParametersResult(
                successful=True, reason="the model is being opened: see the log and /diagnostics"
            )
        return SetParametersResult(
            successful=error is None, reason="" if error is None else str(error)
        )

    def poll(self) -> BaseException | None:
        """Revert the parameters if the latest model could not be opened; returns the reason."""
        pending = self._pending
        if pending is None or not pending.done():
            return None
        self._pending = None
        error = pending.exception()
        if error is not None:
            self._revert(self._answering)
        return error

    def _begin(self, parameters: Parameters, longest_s: float | None) -> Future[Model]:
        opening = self._host.open(parameters.spec, longest_s)

        def note(done: Future[Model]) -> None:
            if done.exception() is None:
                self._answering = parameters

        opening.add_done_callback(note)
        return opening
