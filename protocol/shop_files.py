"""Shops from text: the job-shop form of JSPLIB, the flexible form of Brandimarte, and our own JSON. Times in the two public
forms have no unit and are read as milliseconds. Every reader raises Refused with the place of the fault."""

from __future__ import annotations

import msgspec

from protocol.errors import Reason, Refused
from protocol.schedules import MAX_JOBS, MAX_MACHINES, MAX_OPERATIONS, Choice, Operation, Shop, ShopJob
from protocol.unreadable import UNREADABLE


def read_job_shop(text: str) -> Shop:
    """JSPLIB: comments "#", "jobs machines", then a line for each job: pairs of machine (from 0) and duration."""
    jobs, _, lines = _lines(text)
    made = []
    for j, numbers in enumerate(lines):
        if len(numbers) % 2 or not numbers:
            raise _wrong(f"job {j}: {len(numbers)} numbers are no pairs of machine and duration")
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        made.append(_job(j, [Operation(choices=[Choice(f"M{m}", d)]) for m, d in pairs]))
    return _checked(made, jobs)


def read_flexible(text: str) -> Shop:
    """Brandimarte: "jobs machines [mean number of choices]", then for each job the number of its operations and for each of
    those the number of choices and that many pairs of machine and duration. Machines count from 0, or from 1 if machine 0 is
    never named and the highest number is the number of machines."""
    jobs, machines, lines = _lines(text)
    named: list[list[list[tuple[int, int]]]] = [_flexible_job(j, numbers) for j, numbers in enumerate(lines)]
    numbers = [m for job in named for choices in job for m, _ in choices]
    shift = 1 if numbers and min(numbers) == 1 and max(numbers) == machines else 0
    return _checked(
        [
            _job(j, [Operation(choices=[Choice(f"M{m - shift}", d) for m, d in choices]) for choices in job])
            for j, job in enumerate(named)
        ],
        jobs,
    )


def shop_from_json(data: bytes) -> Shop:
    """Our own form, the fields of protocol.schedules.Shop."""
    try:
        return msgspec.json.decode(data, type=Shop, strict=True)
    except msgspec.ValidationError as error:
        raise Refused(Reason.WRONG_TYPE, f"not a shop: {error}; the fields are in docs/wire") from error
    except UNREADABLE as error:
        raise Refused(Reason.MALFORMED_JSON, f"not JSON: {error}") from error


def guess_format(text: str) -> str:
    """ "json", "jobshop" or "flexible", by the first character and by which of the two forms fits the numbers."""
    if text.lstrip()[:1] in ("{", "["):
        return "json"
    _, machines, lines = _lines(text)
    pairs = all(len(numbers) % 2 == 0 and numbers for numbers in lines)
    return "jobshop" if pairs and all(m < machines for numbers in lines for m in numbers[::2]) else "flexible"


def _lines(text: str) -> tuple[int, int, list[list[int]]]:
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not rows or len(rows[0]) < 2:
        raise _wrong("the first line must say how many jobs and machines there are")
    try:
        jobs, machines = int(rows[0][0]), int(rows[0][1])
        numbers = [[int(word) for word in row] for row in rows[1 : 1 + jobs]]
    except ValueError as error:
        raise _wrong(f"{error}: only whole numbers can stand here") from error
    if not 1 <= jobs <= MAX_JOBS or not 1 <= machines <= MAX_MACHINES:
        raise _wrong(f"{jobs} jobs on {machines} machines: 1 to {MAX_JOBS} jobs, 1 to {MAX_MACHINES} machines")
    if len(numbers) < jobs:
        raise _wrong(f"{jobs} jobs are announced, {len(numbers)} lines follow")
    if any(n < 0 for row in numbers for n in row):
        raise _wrong("a negative machine or duration")
    return jobs, machines, numbers


def _flexible_job(j: int, numbers: list[int]) -> list[list[tuple[int, int]]]:
    rest = iter(numbers)
    try:
        job = []
        for _ in range(next(rest)):
            job.append([(next(rest), next(rest)) for _ in range(_some(next(rest), j))])  # noqa: PERF401 - reads on
    except (StopIteration, RuntimeError) as error:
        raise _wrong(f"job {j}: the line ends too early") from error
    if list(rest):
        raise _wrong(f"job {j}: numbers are left over at the end of the line")
    return job


def _some(count: int, j: int) -> int:
    if count < 1:
        raise _wrong(f"job {j}: an operation without a machine")
    return count


def _job(j: int, operations: list[Operation]) -> ShopJob:
    if not 1 <= len(operations) <= MAX_OPERATIONS:
        raise _wrong(f"job {j}: {len(operations)} operations, 1 to {MAX_OPERATIONS} can be read")
    return ShopJob(job=f"J{j}", operations=operations)


def _checked(jobs: list[ShopJob], count: int) -> Shop:
    try:
        return msgspec.convert(msgspec.to_builtins(Shop(jobs=jobs[:count])), type=Shop)
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from error


def _wrong(fact: str) -> Refused:
    return Refused(Reason.WRONG_TYPE, f"not a shop's text: {fact}")
