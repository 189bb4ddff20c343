"""Jobs on Ray: `kwsd label --ray` hands the jobs of `kwsd.commands.jobs` to actors of a cluster.

Law: results come back to this process, which alone writes the ledger, so a clip is labelled once,
whatever is lost on the way. The jobs of a worker or node that is lost are run again by others; a job
that no worker survives is given up.

Every machine of the cluster needs kwsd, and reaches the recordings by the same addresses. The model's
file is sent along.
"""

import logging
import os
import pickle
import socket
import warnings
from collections.abc import Generator, Iterable, Iterator
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
"""Jobs of one Ray data set; about a million clips, whose paths must fit in memory."""

_ACTORS_PER_GPU = 4
_TRIES = 3


def run_on_ray(worker: Worker, jobs: Iterable[list[Clip]], address: str) -> Iterator[Done]:
    """Run jobs on all CPUs of a cluster, or on its GPUs if it has any and the model's device allows it.

    Args:
        address: of the cluster (`auto`, `HOST:PORT`, `ray://HOST:PORT`), or `local` for one that
            this process starts and ends.

    Raises:
        OutputError: Ray is not installed, or there is no cluster.
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
    try:
        import ray
        import ray.data
    except ImportError:
        raise OutputError("--ray: needs pip install 'kwsd[ray]'") from None
    _refuse_closed(address)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what is lost is reported at the end
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0].removesuffix(".")
        raise OutputError(f"--ray {address}: {reason}; is it running, and has RAY_AUTH_MODE its value?") from None
    return ray


def _refuse_closed(address: str) -> None:
    """Ray itself would try to connect for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "://" not in address:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise OutputError(f"--ray {address}: no cluster there ({error.strerror or error})") from None


def _run(ray: Any, worker: Worker, jobs: list[list[Clip]]) -> Generator[Done, None, list[list[Clip]]]:
    """Run each job once.

    Returns:
        the jobs whose workers were lost.

    Raises:
        OutputError: no worker can be started.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what is missing at the end is reported
    resources = ray.cluster_resources()
    use_gpus = worker.model.provider.startswith("CUDA") and resources.get("GPU", 0) > 0
    most = int(resources["GPU"] * _ACTORS_PER_GPU if use_gpus else resources["CPU"])
    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(most, len(jobs))))
    items = [{"n": n, "job": pickle.dumps(job)} for n, job in enumerate(jobs)]
    rows = ray.data.from_items(items, override_num_blocks=len(jobs))
    with warnings.catch_warnings(action="ignore"):  # of a new name for max_task_retries, which 2.60 does not have yet
        results = rows.map_batches(
            _Actor,
            fn_constructor_args=(type(worker), worker.model.path.read_bytes(), worker.corpus, worker.n_views, use_gpus),
            batch_size=None,
            compute=actors,
            num_cpus=1,
            num_gpus=1 / _ACTORS_PER_GPU if use_gpus else 0,
            max_task_retries=0,  # without it Ray never gives up
        )
    left = dict(enumerate(jobs))
    try:
        for batch in results.iter_batches(batch_size=None):
            for n, done in zip(batch["n"], batch["done"], strict=True):
                del left[int(n)]
                yield pickle.loads(done)  # noqa: S301  (from _Actor)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().split("\n")[-1]
        raise OutputError(f"--ray: no worker can be started ({reason}); each machine needs this kwsd") from None
    return list(left.values())


class _Actor:
    """A worker on some machine of the cluster."""

    def __init__(self, kind: type[Worker], model: bytes, corpus: Any, n_views: int, use_gpus: bool) -> None:
        self._folder = TemporaryDirectory(prefix="kwsd-")
        path = Path(self._folder.name) / "model.onnx"
        path.write_bytes(model)
        self._work = kind(load_model(path, "cuda" if use_gpus else "cpu"), corpus, n_views)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = [pickle.dumps(self._work(pickle.loads(job))) for job in batch["job"]]  # noqa: S301  (from run_on_ray)
        return {"n": batch["n"], "done": np.array(done, object)}
