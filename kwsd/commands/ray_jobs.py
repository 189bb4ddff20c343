"""Jobs on Ray: `kwsd label --ray` hands the jobs of `kwsd.commands.jobs` to actors of a cluster.

Law: results come back to this process, which alone writes the ledger, so each clip's result is recorded
once, whatever is lost on the way and however often its job runs. The jobs of a worker or node that is
lost are run again by others; a job that no worker survives is given up.

Every machine of the cluster needs kwsd, and reaches the recordings by the same addresses. The model's
file is sent along.
"""

import logging
import os
import pickle
import socket
import warnings
from collections.abc import Generator, Iterable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kwsd.commands.jobs import Done, Worker
from kwsd.core.model import load_model
from kwsd.corpus.source import Clip
from kwsd.errors import OutputError

_JOBS_AT_ONCE = 4096
"""Jobs of one Ray data set, all in memory."""

_ACTORS_PER_GPU = 4
_TRIES = 3


def check_cluster(address: str) -> None:
    """Whether Ray is installed, and something listens at `HOST:PORT`: Ray would try to connect for minutes.

    Raises:
        OutputError: it is not so.
    """
    if find_spec("ray") is None:
        raise OutputError("--ray: needs pip install 'kwsd[ray]'")
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "://" not in address:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise OutputError(f"--ray {address}: no cluster there ({error})") from None


def run_on_ray(worker: Worker, jobs: Iterable[list[Clip]], address: str) -> Generator[Done, None, None]:
    """Run jobs on all CPUs of a cluster, or on its GPUs if this machine and the cluster have some.

    Args:
        address: of the cluster (`auto`, `HOST:PORT`), or `local` for one that this process starts and ends.

    Raises:
        OutputError: there is no cluster, or it fails.
    """
    ray = _connected(address)
    try:
        waiting = iter(jobs)
        while left := list(islice(waiting, _JOBS_AT_ONCE)):
            for _ in range(_TRIES):
                left = yield from _run(ray, worker, left)
                if not left:
                    break
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # or its threads start a cluster again after an interruption
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its log has the rest; nothing of it is for the user
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what is lost is reported at the end
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0].removesuffix(".")
        raise OutputError(f"--ray {address}: {reason}; is it running, and has RAY_AUTH_MODE its value?") from None
    return ray


def _run(ray: Any, worker: Worker, jobs: list[list[Clip]]) -> Generator[Done, None, list[list[Clip]]]:
    """Run each job once.

    Returns:
        the jobs whose workers were lost.

    Raises:
        OutputError: no worker can be started, or the cluster fails.
    """
    left = dict(enumerate(jobs))
    try:
        for batch in _results(ray, worker, jobs).iter_batches(batch_size=None):
            for n, done in zip(batch["n"], batch["done"], strict=True):
                del left[int(n)]
                result = pickle.loads(done)  # noqa: S301  (from _Actor)
                if isinstance(result, Exception):
                    raise result
                yield result
    except ray.exceptions.RayError as error:
        reason = str(error).strip().split("\n")[-1]
        is_start = isinstance(error, ray.exceptions.ActorDiedError)
        what = "no worker can be started" if is_start else "the cluster failed"
        advice = "each machine needs this kwsd" if is_start else "the same command continues from here"
        raise OutputError(f"--ray: {what} ({reason}); {advice}") from None
    return list(left.values())


def _results(ray: Any, worker: Worker, jobs: list[list[Clip]]) -> Any:
    """A Ray data set with the number and the result of each job, computed as it is read."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what is missing at the end is reported
    resources = ray.cluster_resources()
    use_gpus = worker.model.provider.startswith("CUDA") and resources.get("GPU", 0) > 0
    most = max(1, min(len(jobs), int(resources["GPU"] * _ACTORS_PER_GPU if use_gpus else resources.get("CPU", 1))))
    actors = ray.data.ActorPoolStrategy(size=most, max_tasks_in_flight_per_actor=1)
    items = [{"n": n, "job": pickle.dumps(job)} for n, job in enumerate(jobs)]
    rows = ray.data.from_items(items, override_num_blocks=len(jobs))
    with warnings.catch_warnings(action="ignore"):  # of a new name for max_task_retries, which 2.60 does not have yet
        return rows.map_batches(
            _Actor,
            fn_constructor_args=(type(worker), worker.model.path.read_bytes(), worker.corpus, worker.n_views, use_gpus),
            batch_size=None,
            compute=actors,
            num_cpus=1,
            num_gpus=1 / _ACTORS_PER_GPU if use_gpus else 0,
            max_task_retries=0,  # without it Ray never gives up
        )


class _Actor:
    """A worker on some machine of the cluster."""

    def __init__(self, kind: type[Worker], model: bytes, corpus: Any, n_views: int, use_gpus: bool) -> None:
        with TemporaryDirectory(prefix="kwsd-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model)
            self._work = kind(load_model(path, "cuda" if use_gpus else "cpu"), corpus, n_views)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = [pickle.dumps(self._result(pickle.loads(job))) for job in batch["job"]]  # noqa: S301  (from _run)
        return {"n": batch["n"], "done": np.array(done, object)}

    def _result(self, job: list[Clip]) -> Done | Exception:
        """An exception comes back, and ends the run there: Ray would only count it."""
        try:
            return self._work(job)
        except Exception as error:
            return error
