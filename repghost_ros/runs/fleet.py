# SPDX-License-Identifier: Apache-2.0
"""Workers of a long run: processes on this machine, or the machines of a Ray cluster.

A fleet calls one function on many tasks and hands results back as they come. A worker that is lost is
replaced and its task repeated; a task that raises affects no other.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from repghost_ros.engine.threads import cores
from repghost_ros.errors import FleetError, need
from repghost_ros.output import uninterrupted
from repghost_ros.version import __version__

RAY = "pip install 'ray[client]'"
_TRIES = 3
"""Times that a task is done whose worker was lost."""

_CONNECT = 10.0  # seconds
_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}

Task = TypeVar("Task")
Value = TypeVar("Value")
Done = tuple[int, Any]
"""Number of a task, and what the function returned or the exception that it raised."""


class Fleet(Protocol):
    """Workers that call a function on tasks."""

    @property
    def workers(self) -> int:
        """Number of tasks done at the same time."""

    def share(self, data: bytes) -> Any:
        """Bring data to every machine once; a task carries what this returns, see `shared`."""

    def run(self, function: Callable[[Task], Value], tasks: Sequence[Task]) -> Iterator[Done]:
        """Yield number and result of each task, in the order in which they are done.

        Raises:
            FleetError: the workers cannot be reached any more.

        """

    def close(self) -> None:
        """End the workers that this fleet started; unfinished tasks are abandoned."""


def open_fleet(on: str = "local", workers: int | None = None) -> Fleet:
    """Open the fleet of that name.

    Args:
        on: `local`, `ray` (a cluster that runs on this machine, else one of this process), or the
            address of a cluster, `ray://HEAD:10001` or `HEAD:6379`.
        workers: processes of a local fleet; default: one per core.

    Raises:
        FleetError: there is no such fleet, or it cannot be reached.
        DependencyError: Ray is missing.

    """
    if on == "local":
        return LocalFleet(workers or cores())
    if on == "ray" or on.startswith("ray://") or on.rpartition(":")[2].isdigit():
        return RayFleet("" if on == "ray" else on)
    raise FleetError(
        f"'{on}' is not a fleet: local, ray, or a Ray cluster's address ray://HEAD:10001"
    )


def shared(data: Any) -> bytes:
    """Return in a worker what `Fleet.share` was given.

    Raises:
        DependencyError: Ray is missing.

    """
    if isinstance(data, Path):
        return data.read_bytes()
    value: bytes = need("ray", RAY).get(data)
    return value


def _quiet_tracker() -> None:
    """Silence Python's resource tracker, which frees an interrupted run's semaphores, but warns."""
    ignored = "ignore:resource_tracker:UserWarning"
    given = list(filter(None, os.environ.get("PYTHONWARNINGS", "").split(",")))
    if ignored not in given:
        os.environ["PYTHONWARNINGS"] = ",".join([ignored, *given])


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Delay interrupts until the end of the block, and keep them from processes started in it.

    The terminal interrupts every process; this one ends the workers, so it must know them all.
    """
    with uninterrupted():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class LocalFleet:
    """Processes of this machine.

    Args:
        workers: how many.

    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._shared = tempfile.TemporaryDirectory(prefix="repghost_fleet_")
        self._pool: ProcessPoolExecutor | None = None

    def share(self, data: bytes) -> Path:
        """Write a file that is removed when the fleet is closed."""
        path = Path(self._shared.name) / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        return path

    def run(self, function: Callable[[Task], Value], tasks: Sequence[Task]) -> Iterator[Done]:
        """See Fleet."""
        left = dict.fromkeys(range(len(tasks)), _TRIES)
        while left:
            try:
                for number, value in self._run(function, tasks, list(left)):
                    del left[number]
                    yield number, value
            except BrokenProcessPool:
                self._end_workers()
                # The lost worker is not named, so every task that it may have had is retried.
                for number in left:
                    left[number] -= 1
                lost = [number for number, tries in left.items() if not tries]
                for number in lost:
                    del left[number]
                    yield number, FleetError(f"its worker was lost {_TRIES} times")

    def _run(
        self, function: Callable[[Task], Value], tasks: Sequence[Task], numbers: list[int]
    ) -> Iterator[Done]:
        if self._pool is None:
            # Not forked: this process has threads.
            context = multiprocessing.get_context("spawn")
            _quiet_tracker()
            with _interrupts_held():
                self._pool = ProcessPoolExecutor(self.workers, context)
        waiting = iter(numbers)
        running: dict[Future[Value], int] = {}
        while True:
            # Few ahead: only tasks that have not begun can be cancelled.
            for number in waiting:
                with _interrupts_held():  # it starts workers
                    running[self._pool.submit(function, tasks[number])] = number
                if len(running) > self.workers:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise error
                yield running.pop(future), future.result() if error is None else error

    def close(self) -> None:
        """See Fleet."""
        self._end_workers()
        self._shared.cleanup()

    def _end_workers(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
            # Its own thread and queues end, too, and release their semaphores.
            pool.shutdown(wait=True)


class RayFleet:
    """The machines of a Ray cluster.

    Args:
        address: of the cluster, or empty for one that runs here, else one of this process.

    Raises:
        FleetError: it cannot be reached, or its machines have another version of this package or of
            Python.
        DependencyError: Ray is missing.

    """

    def __init__(self, address: str = "") -> None:
        # Ray would warn of a coming change that affects no task here.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._ray: Any = need("ray", RAY)
        try:
            if address:
                _knock(address)
                self._ray.init(address, **_QUIET)
            else:
                self._join_or_start()
        except Exception as error:  # Ray raises many types
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise FleetError(
                f"the Ray cluster at '{address or 'this machine'}' cannot be reached: {reason[0]}. Is "
                "it running (ray status there), and is its port open from here?"
            ) from error
        try:
            self._check_versions()
        except BaseException:
            self.close()
            raise
        self.workers = max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _join_or_start(self) -> None:
        try:
            self._ray.init("auto", **_QUIET)
        except ConnectionError:
            self._ray.init(num_cpus=cores(), include_dashboard=False, **_QUIET)

    def _check_versions(self) -> None:
        """Run one task on every machine that reports its versions."""
        strategy = need("ray.util.scheduling_strategies", RAY).NodeAffinitySchedulingStrategy
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        remote = self._ray.remote(_versions)
        addresses = {
            node["NodeManagerHostname"]: remote.options(
                num_cpus=0, scheduling_strategy=strategy(node["NodeID"], soft=False)
            ).remote()
            for node in nodes
        }
        for host, reference in addresses.items():
            try:
                versions = self._ray.get(reference)
            except Exception as error:
                reason = str(error).strip().splitlines()[-1]
                raise FleetError(
                    f"'{host}' of the cluster cannot run this package: {reason}; install "
                    f"repghost_ros {__version__} there"
                ) from error
            if versions != _versions():
                raise FleetError(
                    f"'{host}' of the cluster has repghost_ros {versions[0]} on Python {versions[1]}, "
                    f"here are {' and '.join(_versions())}: install the same everywhere"
                )

    def share(self, data: bytes) -> Any:
        """Put data into the object store, which copies it once to each machine."""
        return self._ray.put(data)

    def run(self, function: Callable[[Task], Value], tasks: Sequence[Task]) -> Iterator[Done]:
        """See Fleet."""
        remote = self._ray.remote(num_cpus=1, max_retries=_TRIES)(function)
        waiting = iter(range(len(tasks)))
        running: dict[Any, int] = {}
        try:
            while True:
                for number in waiting:
                    running[remote.remote(tasks[number])] = number
                    if len(running) >= 2 * self.workers:
                        break
                if not running:
                    return
                (ready, *_), _ = self._ray.wait(list(running), num_returns=1)
                number = running.pop(ready)
                try:
                    value: Any = self._ray.get(ready)
                except self._ray.exceptions.RayTaskError as error:
                    value = error.cause if isinstance(error.cause, Exception) else error
                except self._ray.exceptions.WorkerCrashedError:
                    value = FleetError(f"its worker was lost {_TRIES + 1} times")
                yield number, value
        except self._ray.exceptions.RayError as error:
            raise FleetError(f"the Ray cluster failed: {error}") from error
        except ConnectionError as error:
            raise FleetError(f"the Ray cluster cannot be reached any more: {error}") from error
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """See Fleet."""
        self._ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").partition("/")[0].rpartition(":")
    socket.create_connection((host, int(port)), timeout=_CONNECT).close()


def _versions() -> tuple[str, str]:
    return __version__, ".".join(map(str, sys.version_info[:2]))
