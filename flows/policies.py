"""When a task is skipped, tried again, or made to wait: cache keys by content, retries of faults that can pass, and shared slots.

The tasks themselves say nothing of this. The numbers come from `config.settings`; the budget of one process is in `budget.py`.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, time
from enum import Enum
from pathlib import Path
from typing import Any

import httpx
from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import TaskRun
from prefect.concurrency.sync import concurrency
from prefect.context import TaskRunContext
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.settings import get_current_settings
from prefect.states import State
from prefect.task_engine import TaskRunTimeoutError
from pydantic import BaseModel

from config import environment
from config.logging_format import place
from config.settings import Settings
from flows.budget import budget_of
from tasks.errors import BookmillError
from tasks.partitions import SourceFile, digest
from tasks.schemas import CODE_VERSION

CPU_LIMIT, MEMORY_LIMIT = "bookmill-cpu", "bookmill-memory"
# Parameters that say how a task runs and change nothing of what it makes.
NOT_CONTENT = frozenset({"settings", "progress", "run", "label"})
# A slot of a killed run comes back after this time.
LEASE_S = 60

_PASSING = {
    errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH,
}  # fmt: skip

_log = logging.getLogger(__name__)


def _no_timeout_notice(record: logging.LogRecord) -> bool:
    # In a thread a timeout takes effect between two steps of Python, for us between two batches, which is soon enough; Prefect warns of it
    # in each task run, which would be a line a partition.
    return not str(record.msg).startswith("Timeout of %s seconds configured for this task, but the task is running in a worker thread")


def _told_in_a_line(record: logging.LogRecord) -> bool:
    # A known fault says what, where and what to do; thirty lines of Prefect's own frames below it would hide that.
    if record.exc_info and isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], BookmillError):
        record.msg, record.args, record.exc_info, record.exc_text = "%s: %s", (type(record.exc_info[1]).__name__, record.exc_info[1]), None, None
    return True


logging.getLogger("prefect.task_runs").addFilter(_no_timeout_notice)
for _name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_name).addFilter(_told_in_a_line)


@dataclasses.dataclass
class ByContent(CachePolicy):
    """Key of a task run: the task's name, the code version and its inputs by value. The same on every machine and in every run.

    A source file counts by its path and fingerprint; its times and inode do not matter. A lake counts by its absolute path. Inputs must be
    descriptions (plain values, dataclasses, models); anything else raises TypeError, upon which Prefect logs it and runs without a cache.
    A hit says that the task once succeeded, not that its output is still there: see `submit_checked`.
    """

    def compute_key(self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any) -> str:
        content = {name: _plain(Path(value).absolute() if name == "lake" else value) for name, value in inputs.items() if name not in NOT_CONTENT}
        name = task_ctx.task.name
        # Readable at the front: the key is a file name in Prefect's storage, and somebody will look for it there.
        slug = "".join(c if c.isalnum() else "-" for c in name)
        return f"bookmill-{slug}-{CODE_VERSION}-{digest({'task': name, 'code': CODE_VERSION, 'inputs': content})}"


BY_CONTENT = ByContent()


def _plain(value: Any) -> Any:
    """`value` as JSON-able data that is equal exactly when the value is."""
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, SourceFile):
        unstable = ("mtime_ns", "inode")
        return {"SourceFile": {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name not in unstable}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {type(value).__name__: {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    if isinstance(value, BaseModel):
        return {type(value).__name__: {name: _plain(getattr(value, name)) for name in type(value).model_fields}}
    if isinstance(value, dict):
        return {"dict": sorted(([_plain(k), _plain(v)] for k, v in value.items()), key=repr)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((_plain(item) for item in value), key=repr)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be part of a cache key; give the task a description (path, partition, recipe) instead")


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Retry condition: whether the fault in `state` can pass by itself."""
    return can_pass(state.result(raise_on_failure=False))  # type: ignore[arg-type]  # of a failed state it is the exception


def can_pass(fault: BaseException) -> bool:
    """True for busy disks and servers and lost connections; False for bad input, full or forbidden disks, and faults of the code.

    A task that ran into its own timeout is not started again: it would take as long once more.
    """
    if isinstance(fault, BookmillError):
        return fault.transient
    if isinstance(fault, TaskRunTimeoutError):  # a TimeoutError, as is that of a socket
        return False
    if isinstance(fault, httpx.HTTPStatusError):
        return fault.response.status_code == 429 or fault.response.status_code >= 500
    if isinstance(fault, httpx.TransportError | ConnectionError | TimeoutError):
        return True
    return isinstance(fault, OSError) and fault.errno in _PASSING


def equip(task: Task[..., Any], settings: Settings, **options: Any) -> Task[..., Any]:
    """`task` with cache by content, retries, delays and timeout of `settings`; `options` of Task.with_options win."""
    chosen: dict[str, Any] = {
        "cache_policy": BY_CONTENT,
        "persist_result": True,
        "retries": settings.retries,
        "retry_delay_seconds": list(settings.retry_delays_s),
        "retry_condition_fn": is_transient,
        "timeout_seconds": settings.task_timeout_s,
    }
    return task.with_options(**(chosen | options))


def submit_checked(task: Task[..., Any], outputs_done: bool, *args: Any, **kwargs: Any) -> PrefectFuture[Any]:
    """Submit `task`; a cached result counts only when its outputs are there, which the caller has looked up (`tasks.footers.is_done`)."""
    return submit_placed(task.with_options(refresh_cache=not outputs_done), *args, **kwargs)


def submit_placed(task: Task[..., Any], *args: Any, **kwargs: Any) -> PrefectFuture[Any]:
    """Submit `task`; what it logs carries its name as stage and its argument `label` as partition."""
    with place(stage=task.name, partition=str(kwargs.get("label", ""))):  # a thread of the runner inherits them
        return task.submit(*args, **kwargs)


@contextmanager
def slots(settings: Settings, cpu: int = 1, memory_bytes: int = 0) -> Iterator[None]:
    """Hold `cpu` slots and the memory slots that `memory_bytes` needs while the block runs; waits in order of arrival.

    Both are cut to what there is in all, so that the largest task runs alone rather than never. On a server that has the limits of
    `deployments.bootstrap` it also takes them there (0.1 s each: for partitions, not for small work). Not to be nested: RuntimeError.
    """
    memory = -(-memory_bytes // settings.memory_slot_bytes)
    with budget_of(settings.cpu_slots, settings.memory_slots).take(cpu, memory), ExitStack() as shared:
        # CPU first, always: two runs that waited for each other's other half would wait for ever.
        for name, wanted in ((CPU_LIMIT, cpu), (MEMORY_LIMIT, memory)):
            if wanted > 0 and (limit := _server_limit(name)) is not None:
                # A server that is away for a moment must not end hours of work: the slot may then be given twice.
                occupy = min(wanted, limit)
                shared.enter_context(concurrency(name, occupy, lease_duration=LEASE_S, strict=True, raise_on_lease_renewal_failure=False))
        yield


_limits: dict[tuple[str, str], int | None] = {}
_limits_lock = threading.Lock()


def server_url() -> str | None:
    """URL of the user's Prefect server, None on a private or temporary API."""
    url = get_current_settings().api.url
    return None if url is None or url == environment.embedded_api() else url


def _server_limit(name: str) -> int | None:
    """Slots of the server's global limit, looked up once; None (and one warning) where it has none, and on a private API."""
    url = server_url()
    if url is None:
        return None
    with _limits_lock:
        if (url, name) not in _limits:
            _limits[url, name] = _read_limit(url, name)
        return _limits[url, name]


def _read_limit(url: str, name: str) -> int | None:
    try:
        with get_client(sync_client=True) as client:
            limit = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        problem = "does not exist"
    except httpx.HTTPError as fault:
        problem = f"cannot be read ({fault})"
    else:
        if limit.active and limit.limit > 0:
            return limit.limit
        problem = "is switched off"
    _log.warning("The global concurrency limit %s %s at %s: only runs of this process share slots. Run `bookmill bootstrap`.", name, problem, url)
    return None
