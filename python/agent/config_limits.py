"""The settings that bound what the collector accepts and keeps: limits of senders, of series, of
windows.

Purpose: one documented default for every dimension of every input. Nothing here is unlimited by
default.

Not promised: limits per source address hold per worker, because the kernel spreads connections over
the workers.
"""

from __future__ import annotations

from typing import Annotated

from .config_doc import GIB, KIB, MIB, Section, doc


class Limits(Section, frozen=True, kw_only=True):
    """What a sender may ask for. Everything above a limit is refused and counted by its reason."""

    source_samples_per_s_max: Annotated[
        int,
        doc(
            "Token bucket per source address: samples a second it may send for long.",
            edge="0 = no limit.",
            who="hosts with senders that are not trusted to behave.",
            ge=0,
        ),
    ] = 5_000_000
    source_samples_burst_max: Annotated[
        int,
        doc(
            "Token bucket per source address: samples it may send at once after a pause.",
            edge="0 = as much as one second of source_samples_per_s_max.",
            who="hosts with senders that flush rarely and much.",
            ge=0,
        ),
    ] = 0
    source_window_samples_max: Annotated[
        int,
        doc(
            "Sliding window per source address: samples within any `rate_window_s` seconds.",
            edge="0 = no limit.",
            who="hosts that want a hard cap over time beside the bucket.",
            ge=0,
        ),
    ] = 40_000_000
    total_samples_per_s_max: Annotated[
        int,
        doc(
            "Token bucket over all sources: samples a second. Each worker gets an equal share.",
            edge="0 = no limit.",
            who="hosts where the collector must not take more than its share of the CPU.",
            ge=0,
        ),
    ] = 20_000_000
    total_samples_burst_max: Annotated[
        int,
        doc(
            "Token bucket over all sources: samples at once after a pause. Each worker gets "
            "an equal share.",
            edge="0 = as much as one second of total_samples_per_s_max.",
            who="rarely anyone.",
            ge=0,
        ),
    ] = 0
    total_window_samples_max: Annotated[
        int,
        doc(
            "Sliding window over all sources: samples within any `rate_window_s` seconds, "
            "shared as above.",
            edge="0 = no limit.",
            who="rarely anyone.",
            ge=0,
        ),
    ] = 160_000_000
    rate_window_s: Annotated[
        int,
        doc("Length of the sliding windows.", who="rarely anyone.", ge=1, le=3600),
    ] = 10
    sources_max: Annotated[
        int,
        doc(
            "Source addresses that have limits of their own, per worker; the rest shares one.",
            who="hosts with more senders than this, and memory to spare (64 bytes each).",
            ge=1,
            le=10_000_000,
        ),
    ] = 65_536
    connections_max: Annotated[
        int,
        doc(
            "Open stream connections of all workers together; the next one is closed at once. HTTP "
            "may exceed it by 64, so that probes and scrapes get through; what they "
            "push is refused.",
            edge="0 = what the file limit (RLIMIT_NOFILE) of the workers allows.",
            who="hosts that keep memory for other things.",
            ge=0,
        ),
    ] = 0
    source_connections_max: Annotated[
        int,
        doc(
            "Open stream connections of one source address, per worker. HTTP may exceed it by "
            "16, so that probes from the address of a busy sender get through.",
            edge="0 = no limit of its own.",
            who="hosts with untrusted senders: lower it.",
            ge=0,
        ),
    ] = 65_536
    line_bytes_max: Annotated[
        int,
        doc(
            "Longest line of a stream or a datagram; a longer one is skipped up to its end.",
            who="senders that pack very many values or tags in a line.",
            ge=64,
            le=MIB,
        ),
    ] = 64 * KIB
    name_bytes_max: Annotated[
        int,
        doc("Longest metric name.", who="rarely anyone.", ge=8, le=4 * KIB),
    ] = 256
    labels_max: Annotated[
        int,
        doc("Most labels of a series.", who="rarely anyone.", ge=0, le=64),
    ] = 40
    label_name_bytes_max: Annotated[
        int,
        doc("Longest label name.", who="rarely anyone.", ge=8, le=4 * KIB),
    ] = 128
    label_value_bytes_max: Annotated[
        int,
        doc("Longest label value.", who="rarely anyone.", ge=8, le=64 * KIB),
    ] = KIB
    values_max: Annotated[
        int,
        doc(
            "Most packed values in one line (`a:1:2:3|ms`).", who="rarely anyone.", ge=1, le=65_536
        ),
    ] = 1000
    set_value_bytes_max: Annotated[
        int,
        doc("Longest member of a set.", who="rarely anyone.", ge=8, le=64 * KIB),
    ] = KIB
    rate_min: Annotated[
        float,
        doc(
            "Smallest sample rate; one sample stands for at most its reciprocal.",
            who="rarely anyone.",
            ge=1e-9,
            le=1,
        ),
    ] = 1e-6
    event_bytes_max: Annotated[
        int,
        doc("Longest event or service check.", who="senders of long events.", ge=64, le=64 * KIB),
    ] = 8 * KIB
    help_bytes_max: Annotated[
        int,
        doc("Longest HELP text; a longer one is cut.", who="rarely anyone.", ge=0, le=64 * KIB),
    ] = KIB
    header_bytes_max: Annotated[
        int,
        doc(
            "Largest head of an HTTP request; above it the answer is 431.",
            who="rarely anyone.",
            ge=512,
            le=MIB,
        ),
    ] = 16 * KIB
    body_bytes_max: Annotated[
        int,
        doc(
            "Largest HTTP body as it comes over the wire; above it the answer is 413.",
            who="senders of large batches.",
            ge=KIB,
            le=GIB,
        ),
    ] = 4 * MIB
    body_decompressed_bytes_max: Annotated[
        int,
        doc(
            "Largest HTTP body after decompression; above it the answer is 413.",
            who="senders of large batches.",
            ge=KIB,
            le=GIB,
        ),
    ] = 16 * MIB
    body_samples_max: Annotated[
        int,
        doc(
            "Most samples in one pushed body; those after it are refused.",
            who="senders of large batches.",
            ge=1,
            le=10_000_000,
        ),
    ] = 100_000
    refusals_listed_max: Annotated[
        int,
        doc(
            "Refused samples explained one by one in the answer to a push; the rest is only "
            "counted.",
            who="whoever debugs a sender.",
            ge=0,
            le=10_000,
        ),
    ] = 100
    body_ratio_max: Annotated[
        int,
        doc(
            "Highest ratio of decompression once a body has grown beyond 1 MiB.",
            who="senders of extremely repetitive batches.",
            ge=2,
            le=10_000,
        ),
    ] = 100
    bodies_bytes_max: Annotated[
        int,
        doc(
            "Bytes of HTTP bodies a worker holds at one time; above it new requests get 503.",
            who="hosts with many large pushes at once.",
            ge=MIB,
        ),
    ] = 64 * MIB
    header_timeout_s: Annotated[
        float,
        doc("Time to send the head of an HTTP request.", who="very slow networks.", ge=0.1, le=600),
    ] = 5.0
    body_bytes_per_s_min: Annotated[
        int,
        doc(
            "Slowest rate of an HTTP body, judged after the first seconds; slower ones get 408.",
            edge="0 = any.",
            who="very slow networks.",
            ge=0,
        ),
    ] = KIB
    http_idle_timeout_s: Annotated[
        float,
        doc(
            "An HTTP connection without a request is closed after this time.",
            who="hosts with very many keep-alive clients: lower it.",
            ge=1,
            le=86_400,
        ),
    ] = 300.0
    stream_idle_timeout_s: Annotated[
        float,
        doc(
            "A StatsD connection without a byte is closed after this time.",
            who="hosts with senders that come and go: lower it.",
            ge=1,
            le=604_800,
        ),
    ] = 3600.0
    memory_used_ratio_max: Annotated[
        float,
        doc(
            "Share of the memory limit (cgroup or `memory_bytes_max`) above which pushes get "
            "503 and "
            "datagrams are dropped. Probes and /metrics are always answered.",
            edge="1 = never shed for memory.",
            who="hosts where the collector shares its cgroup with others.",
            ge=0.1,
            le=1,
        ),
    ] = 0.9
    memory_connections_ratio_max: Annotated[
        float,
        doc(
            "Share of the memory limit above which new connections are refused (a reset, or 503 "
            "over HTTP) and /readyz says no. Below `memory_used_ratio_max`, so that those that are "
            "there go on sending. Idle HTTP connections make room for probes.",
            edge="1 = never refused for memory.",
            who="hosts where the collector shares its cgroup with others.",
            ge=0.1,
            le=1,
        ),
    ] = 0.85
    memory_bytes_max: Annotated[
        int,
        doc(
            "The memory limit that the two ratios are shares of.",
            edge="0 = the cgroup's limit, or the machine's memory where there is none.",
            who="hosts without cgroup limits.",
            ge=0,
        ),
    ] = 0


class Series(Section, frozen=True, kw_only=True):
    """How many series are kept, and for how long. A full table ends in overflow series that keep
    totals right.
    """

    series_max: Annotated[
        int,
        doc(
            "Most series of the collector's own segment.",
            edge="A change needs a restart, and counters begin anew.",
            who="hosts with more series than this, and the memory (160 to 320 bytes each).",
            ge=100,
            le=50_000_000,
        ),
    ] = 1_000_000
    metric_series_max: Annotated[
        int,
        doc(
            "Most series of one metric name; more end in its overflow series.",
            edge="A change needs a restart, and counters begin anew.",
            who="hosts with a metric of honestly high cardinality.",
            ge=1,
            le=50_000_000,
        ),
    ] = 10_000
    metrics_max: Annotated[
        int,
        doc(
            "Most metric names.",
            edge="A change needs a restart, and counters begin anew.",
            who="rarely anyone.",
            ge=100,
            le=1_000_000,
        ),
    ] = 20_000
    segment_bytes_max: Annotated[
        int,
        doc(
            "Largest size of the collector's segment. Address space is reserved, memory is "
            "taken as series come.",
            edge="A change needs a restart, and counters begin anew.",
            who="containers with a small /dev/shm; Docker's default is 64 MiB.",
            ge=16 * MIB,
            le=16 * GIB,
        ),
    ] = 4 * GIB
    idle_expiry_s: Annotated[
        int,
        doc(
            "A series nobody has written to for this time is removed and its memory reused.",
            edge="0 = never.",
            who="hosts with label values that come and go (pods, versions): lower it.",
            ge=0,
        ),
    ] = 86_400


class Histograms(Section, frozen=True, kw_only=True):
    """What timers, histograms and distributions become where no mapping rule says it.

    A histogram keeps the bounds that it was made with for as long as the collector knows it: a
    change is for new names.
    """

    buckets: Annotated[
        tuple[float, ...],
        doc(
            "Upper bounds, ascending, in the unit of the metric: seconds for timers.",
            edge="A last bound of +Inf is implied. The default is that of statsd_exporter.",
            who="senders whose values are not between 5 ms and 10 s.",
        ),
    ] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
    native: Annotated[
        bool,
        doc(
            "Native histograms instead: 8 buckets for each power of two, so that a quantile is at "
            "most 9.1 % off at any magnitude. Scrapers that do not ask for protobuf get powers of "
            "two from 2^-20 to 2^30, which are up to a factor of two off.",
            edge="true makes `buckets` meaningless.",
            who="Prometheus with native histograms enabled.",
        ),
    ] = False


class Windows(Section, frozen=True, kw_only=True):
    """Sliding windows of 1, 10 and 60 seconds: quantiles, rate and error share of distributions."""

    enabled: Annotated[
        bool,
        doc(
            "Whether raw samples go through the rings to the aggregator.",
            edge=(
                "false saves about a tenth of the CPU of a timer; sets and summaries then stay "
                "empty."
            ),
            who="hosts where only the cumulative histograms are read.",
        ),
    ] = True
    series_max: Annotated[
        int,
        doc(
            "Most series that have windows; the rest is counted and only cumulative.",
            who="hosts with more distributions than this, and memory (up to 16 KiB each).",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000
