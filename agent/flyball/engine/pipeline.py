"""Requests through a rung: prepared each by itself, run together where the rung takes batches, finished each.

Work -> task.before -> [stacked] -> session.run -> task.after -> Result, or what was wrong with it

Several lanes (lanes.py) are in here at once; the session itself runs for one of them at a time. What a task does is
tasks.py's. Runs on Python 3.8.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from flyball.engine.slots import SlotTensor
from flyball.engine.tasks import Array, BadRequest, ImageTask, Outputs, Plan, PlanError, TensorTask
from flyball_backends.contract import InputError, Session, Signature


class TooLate(Exception):
    """The deadline passed before the run began."""


class Failure(Exception):
    """The rung failed on this request; the text names the error."""


class Work(NamedTuple):
    """One request as it lies in its slot. The deadline is in monotonic seconds."""

    generation: int
    slot: int
    deadline_s: float
    inputs: Sequence[SlotTensor]


class Result(NamedTuple):
    outputs: Outputs
    durations_ns: Tuple[int, int, int]  # pre, run, post; those of a batch count for each request in it


Outcome = Union[Result, BadRequest, TooLate, Failure]
_LATE = TooLate("the deadline had passed before the run began")


class Pipeline:
    """One rung's whole way. `task` is ImageTask or TensorTask."""

    def __init__(self, plan: Plan, session: Session) -> None:
        self._task: Union[ImageTask, TensorTask]
        if plan["task"] == "tensor":
            self._task = TensorTask(plan, session)
        else:
            self._task = ImageTask(plan, session)
        self._session = session
        self._running = threading.Lock()
        self._said = False
        if plan["batch"] > 1:
            _check_batchable(session.signature)

    def answer(self, batch: Sequence[Work]) -> List[Outcome]:
        """An outcome for each, in order. What is wrong with one request spoils no other's answer."""
        if len(batch) == 1:
            return [self.alone(batch[0].inputs, batch[0].deadline_s)]
        outcomes: Dict[int, Outcome] = {}
        ready: List[_Prepared] = []
        for index, work in enumerate(batch):
            prepared = self._prepare(index, work)
            if isinstance(prepared, _Prepared):
                ready.append(prepared)
            else:
                outcomes[index] = prepared
        for part in _alike(ready):
            outcomes.update(self._run(part))
        return [outcomes[index] for index in range(len(batch))]

    def run(self, inputs: Sequence[SlotTensor]) -> Result:
        """One request without a deadline. Raises BadRequest, Failure."""
        outcome = self.alone(inputs, float("inf"))
        if isinstance(outcome, Result):
            return outcome
        raise outcome

    def canary(self) -> List[SlotTensor]:
        """A fixed input of the public interface, for warming up and for seeing that the rung answers."""
        return self._task.canary()

    def close(self) -> None:
        with self._running:
            self._session.close()

    def alone(self, inputs: Sequence[SlotTensor], deadline_s: float) -> Outcome:
        """The straight way of nearly every request: what `answer` does for batches costs a fifth of a round trip."""
        started_ns = time.monotonic_ns()
        try:
            tensors = self._task.before(inputs)
            ready_ns = time.monotonic_ns()
            with self._running:
                running_ns = time.monotonic_ns()
                if running_ns > deadline_s * 1e9:
                    return _LATE
                answer = self._session.run(tensors)
                done_ns = time.monotonic_ns()
            outputs = self._task.after(answer)
        except BadRequest as error:
            return error
        except Exception as error:
            # The boundary of one request: a fault in a kernel, a plan or a plug-in is its answer, not the worker's end.
            return _fault(error)
        finished_ns = time.monotonic_ns()
        return Result(outputs, (ready_ns - started_ns, done_ns - running_ns, finished_ns - done_ns))

    def _prepare(self, index: int, work: Work) -> Union[_Prepared, Outcome]:
        started_ns = time.monotonic_ns()
        try:
            tensors = self._task.before(work.inputs)
        except BadRequest as error:
            return error
        except Exception as error:
            # The boundary of one request: a fault in a kernel or a plan is its answer, not the end of the worker.
            return Failure(_named_error(error))
        return _Prepared(index, work.deadline_s, tensors, time.monotonic_ns() - started_ns)

    def _run(self, part: List[_Prepared]) -> Dict[int, Outcome]:
        with self._running:
            now_s = time.monotonic()
            late = [p for p in part if now_s > p.deadline_s]
            part = [p for p in part if now_s <= p.deadline_s]
            outcomes: Dict[int, Outcome] = {p.number: _LATE for p in late}
            if not part:
                return outcomes
            failure: Optional[Union[Failure, BadRequest]] = None
            started_ns = time.monotonic_ns()
            try:
                answer = self._session.run(_stacked(part))
                if len(part) > 1:
                    answer = _with_rows(answer, sum(p.rows for p in part))
            except Exception as error:
                # In a batch nobody knows whose fault it is: each is tried by itself, once the lock is free.
                failure = _fault(error)
                self._say_once(error)
            run_ns = time.monotonic_ns() - started_ns
        if failure is None:
            outcomes.update(self._finish(part, answer, run_ns))
        elif len(part) == 1:
            outcomes[part[0].number] = failure
        else:
            for prepared in part:
                outcomes.update(self._run([prepared]))
        return outcomes

    def _say_once(self, error: Exception) -> None:
        """A rung that spoils its batches costs a run more each time: somebody should know."""
        if isinstance(error, _WrongRows) and not self._said:
            self._said = True
            sys.stderr.write("a batch is answered one by one: {}: leave `batch` out\n".format(error))
            sys.stderr.flush()

    def _finish(self, part: List[_Prepared], answer: Mapping[str, Array], run_ns: int) -> Dict[int, Outcome]:
        outcomes: Dict[int, Outcome] = {}
        at = 0
        for prepared in part:
            started_ns = time.monotonic_ns()
            rows = prepared.rows
            mine = answer if len(part) == 1 else {name: value[at : at + rows] for name, value in answer.items()}
            at += rows
            try:
                outputs = self._task.after(mine)
                post_ns = time.monotonic_ns() - started_ns
                outcomes[prepared.number] = Result(outputs, (prepared.pre_ns, run_ns, post_ns))
            except Exception as error:
                outcomes[prepared.number] = Failure(_named_error(error))
        return outcomes


class _Prepared(NamedTuple):
    number: int  # of the request in its batch
    deadline_s: float
    tensors: Dict[str, Array]
    pre_ns: int

    @property
    def rows(self) -> int:
        """The first size that its tensors agree in; 0 when there is none, and it can only run alone."""
        sizes = {value.shape[:1] for value in self.tensors.values()}
        first = sizes.pop()
        return int(first[0]) if first and not sizes else 0


class _WrongRows(Exception):
    """The outputs of a batch cannot be shared out among its requests."""


def _alike(ready: List[_Prepared]) -> List[List[_Prepared]]:
    """Those whose tensors agree but for the first size can run together; order is kept. A request whose own tensors
    differ in it runs alone: nobody could tell which row of one belongs to which of another."""
    parts: List[List[_Prepared]] = []
    for prepared in ready:
        if parts and prepared.rows and parts[-1][0].rows and _form(parts[-1][0]) == _form(prepared):
            parts[-1].append(prepared)
        else:
            parts.append([prepared])
    return parts


def _form(prepared: _Prepared) -> List[Tuple[str, Any]]:
    return [(name, value.shape[1:]) for name, value in prepared.tensors.items()]


def _with_rows(answer: Mapping[str, Any], rows: int) -> Dict[str, Array]:
    """As arrays, each with a row for every one that went in. Raises _WrongRows."""
    if not isinstance(answer, Mapping):
        raise _WrongRows("the session answered {} rows with {}".format(rows, type(answer).__name__))
    arrays = {name: np.asarray(value) for name, value in answer.items()}
    for name, value in arrays.items():
        if value.shape[:1] != (rows,):
            raise _WrongRows("{} rows went in, but output {!r} has the shape {}".format(rows, name, list(value.shape)))
    return arrays


def _stacked(part: List[_Prepared]) -> Dict[str, Array]:
    if len(part) == 1:
        return part[0].tensors
    return {name: np.concatenate([p.tensors[name] for p in part]) for name in part[0].tensors}


def _check_batchable(signature: Signature) -> None:
    """Raises PlanError."""
    for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            if not tensor.shape or tensor.shape[0] >= 0:
                raise PlanError(
                    "`batch` needs an artifact whose first size is free, but its {} {!r} has the shape {}: export it "
                    "with a free first size, or leave `batch` out".format(side, tensor.name, list(tensor.shape))
                )


def _fault(error: Exception) -> Union[Failure, BadRequest]:
    """Of a session's run: the caller's, where he chose sizes that only the model can judge, else the rung's."""
    return BadRequest(str(error)) if isinstance(error, InputError) else Failure(_named_error(error))


def _named_error(error: Exception) -> str:
    return "{}: {}".format(type(error).__name__, error)
