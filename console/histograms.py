"""Counts by size in log buckets: small enough to store, exact to add up, and a quantile within `ERROR` of the true one. Pure.

Bucket 0 holds what is below 1 (and what is no number). Bucket k holds [1.15 ** (k - 1), 1.15 ** k). A quantile is told as the
middle of its bucket by ratio, so it is off by half a bucket at most: a factor of sqrt(1.15), 7.24 %.
"""

import math
from collections.abc import Iterable, Mapping

Histogram = dict[str, int]  # {bucket: count}, its keys as JSON has them
RATIO = 1.15
ERROR = math.sqrt(RATIO) - 1
MOST = 640  # 1.15 ** 640 is over 10 ** 38: whatever is larger, infinity too, is as large as this
# The same in SQL, of a number that may be null (null: no bucket).
BUCKET_SQL = f"""case when ({{0}})::float8 >= 1 and ({{0}})::float8 < 'Infinity'
  then least(1 + floor(ln(({{0}})::float8) / ln({RATIO}::float8)), {MOST})::int when ({{0}}) is not null then 0 end"""


def bucket(x: float) -> int:
    """0 for what is below 1 or is no number."""
    if not x >= 1:
        return 0
    return MOST if math.isinf(x) else min(1 + math.floor(math.log(x) / math.log(RATIO)), MOST)


def middle(number: int) -> float:
    """What a bucket's content is told as."""
    return 0.0 if number <= 0 else float(RATIO ** (number - 0.5))


def upper(number: int) -> float:
    """The first value that is too large for the bucket."""
    return float(RATIO**number) if number > 0 else 1.0


def add(histogram: Histogram, x: float, count: int = 1) -> None:
    key = str(bucket(x))
    histogram[key] = histogram.get(key, 0) + count


def merge(*histograms: Mapping[str, int]) -> Histogram:
    """Also adds up any other counts by name."""
    whole: Histogram = {}
    for one in histograms:
        for key, count in one.items():
            whole[key] = whole.get(key, 0) + count
    return whole


def of(values: Iterable[float]) -> Histogram:
    made: Histogram = {}
    for x in values:
        add(made, x)
    return made


def total(histogram: Mapping[str, int]) -> int:
    return sum(histogram.values())


def quantile(histogram: Mapping[str, int], q: float) -> float | None:
    """The least value that a share of `q` is not above (the nearest rank), within `ERROR`. None: nothing was counted."""
    wanted, passed = max(1, math.ceil(q * total(histogram))), 0
    for place, many in ordered(histogram):
        passed += many
        if passed >= wanted:
            return middle(place)
    return None


def ordered(histogram: Mapping[str, int]) -> list[tuple[int, int]]:
    """(bucket, count), the smallest first."""
    return sorted((int(key), count) for key, count in histogram.items())
