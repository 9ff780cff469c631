//! The aggregator over real segments: what writers record is what the gauges say.

use super::*;
use crate::admission::Admission;
use crate::apply::Applier;
use crate::config::WorkerConfig;
use crate::events::recent_events;
use crate::scrape;
use crate::telemetry::tests::totals;
use crate::telemetry::SourceId;
use crate::window::pack;
use agent_shm::{
    GaugeMode, MetricSpec, Options, Outcome, RecordKind, Series, Shape, Writer, OVERFLOW_LABELS,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn config(more: &str) -> AggregatorConfig {
    let json = format!("{{\"segment\": \"\", \"control_fd\": -1{more}}}");
    AggregatorConfig::from_json(json.as_bytes()).expect("valid")
}

/// The collector's segment, a writer in it, and an aggregator whose clock the test moves.
struct Bench {
    segment: Segment,
    writer: Writer,
    aggregator: Aggregator,
    now: Now,
}

impl Bench {
    fn new(more: &str) -> Bench {
        Bench::sized(more, &Options { ring_records: 4096, ..Options::default() })
    }

    fn sized(more: &str, options: &Options) -> Bench {
        let segment = Segment::private("agent", options);
        let writer = segment.writer().expect("a slot");
        let now = Now::read();
        let aggregator = Aggregator::new(&segment, &config(more), now).expect("room");
        let mut bench = Bench { segment, writer, aggregator, now };
        bench.aggregator.step(now);
        bench
    }

    fn series(&self, name: &str, labels: &str) -> Series {
        series(&self.writer, name, labels)
    }

    fn sample(&self, series: &Series, value: f64, weight: u64) {
        self.writer.record(series, RecordKind::Sample, pack(value, weight));
    }

    /// One pass now and one after each of `seconds`: what was recorded until now is in the windows.
    fn pass(&mut self, seconds: u64) {
        // Records have the time of the machine, and a second may just have begun.
        self.now.unix_ms = self.now.unix_ms.max(Now::read().unix_ms);
        self.aggregator.step(self.now);
        for _ in 0..seconds {
            self.now.unix_ms += 1000;
            self.now.monotonic_ms += 1000;
            self.aggregator.step(self.now);
        }
    }

    fn totals(&self) -> BTreeMap<String, f64> {
        totals(&self.segment)
    }

    fn windows(&self) -> usize {
        self.totals().keys().filter(|key| key.starts_with("agent_window_quantile{")).count()
    }
}

fn series(writer: &Writer, name: &str, labels: &str) -> Series {
    let spec = MetricSpec { name, help: "", unit: "", shape: Shape::Exponential { schema: 3 } };
    let metric = writer.metric(&spec).expect("room");
    writer.series(metric, labels).expect("room")
}

fn set_of(writer: &Writer, name: &str, labels: &str) -> Series {
    let spec = MetricSpec { name, help: "", unit: "", shape: Shape::Gauge(GaugeMode::MostRecent) };
    let metric = writer.metric(&spec).expect("room");
    writer.series(metric, labels).expect("room")
}

fn close(value: f64, wanted: f64) -> bool {
    (value - wanted).abs() <= wanted.abs() * 0.022
}

#[test]
fn quantiles_rate_and_error_share_are_those_of_the_records() {
    let mut bench = Bench::new("");
    let ok = bench.series("t_seconds", "code=\"200\"");
    let bad = bench.series("t_seconds", "code=\"503\"");
    for value in 1..=90 {
        bench.sample(&ok, f64::from(value), 1);
    }
    bench.sample(&bad, 7.0, 10);
    bench.pass(2);
    let totals = bench.totals();
    let of = |code: &str, q: &str| {
        let labels = format!("code=\"{code}\",metric=\"t_seconds\",q=\"{q}\",window=\"10s\"");
        totals[&format!("agent_window_quantile{{{labels}}}")]
    };
    assert!(close(of("200", "0.5"), 45.0) && close(of("200", "0.99"), 90.0));
    assert!(close(of("503", "0.95"), 7.0));
    let labels = "code=\"503\",metric=\"t_seconds\",window=\"10s\"";
    assert_eq!(totals[&format!("agent_window_samples_per_second{{{labels}}}")], 1.0);
    let share = totals["agent_window_error_ratio{metric=\"t_seconds\",window=\"10s\"}"];
    assert_eq!(share, 0.1);
    assert_eq!(totals["agent_ring_records_read{app=\"agent\"}"], 91.0);
    assert_eq!(totals["agent_ring_records_lost{app=\"agent\"}"], 0.0);
    assert_eq!(totals["agent_window_series{kind=\"distribution\"}"], 2.0);
}

#[test]
fn an_idle_distribution_shows_nothing_after_a_minute() {
    let mut bench = Bench::new("");
    let series = bench.series("t", "");
    bench.sample(&series, 1.0, 1);
    bench.pass(12);
    let median = |window: &str| {
        let labels = format!("metric=\"t\",q=\"0.5\",window=\"{window}\"");
        bench.totals()[&format!("agent_window_quantile{{{labels}}}")]
    };
    assert!(median("10s").is_nan() && close(median("60s"), 1.0));
    bench.pass(50);
    assert_eq!(bench.windows(), 0);
    let totals = bench.totals();
    assert_eq!(totals["agent_window_series{kind=\"distribution\"}"], 0.0);
    let left = |key: &&String| key.starts_with("agent_window_") && key.contains("metric=");
    assert_eq!(totals.keys().find(left), None);
    // And it comes back.
    let series = bench.series("t", "");
    bench.sample(&series, 1.0, 1);
    bench.pass(2);
    assert_eq!(bench.windows(), 9);
}

#[test]
fn the_number_of_distributions_is_bounded_and_the_rest_is_counted() {
    let mut bench = Bench::new(", \"windows_series_max\": 3");
    for n in 0..10 {
        let series = bench.series("t", &format!("n=\"{n}\""));
        bench.sample(&series, 1.0, 1);
    }
    bench.pass(2);
    assert_eq!(bench.windows(), 3 * 9);
    let totals = bench.totals();
    assert_eq!(totals["agent_window_samples_refused{reason=\"distributions_max\"}"], 7.0);
    assert_eq!(totals["agent_window_series{kind=\"distribution\"}"], 3.0);
}

#[test]
fn windows_never_fill_the_overflow_series() {
    let options = Options { metric_series_max: 40, ring_records: 4096, ..Options::default() };
    let mut bench = Bench::sized("", &options);
    for n in 0..10 {
        let series = bench.series("t", &format!("n=\"{n}\""));
        bench.sample(&series, 1.0, 1);
    }
    bench.pass(2);
    assert_eq!(bench.windows(), 4 * 9);
    assert!(!bench.totals().keys().any(|key| key.contains(OVERFLOW_LABELS)));
}

#[test]
fn a_set_is_estimated_under_its_own_name_and_forgotten_in_time() {
    let mut bench = Bench::new("");
    let series = set_of(&bench.writer, "users_unique", "page=\"a\"");
    for n in 0..1000u64 {
        // Each three times; any odd factor spreads them over the registers.
        let hash = (n / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bench.writer.record(&series, RecordKind::Unique, hash);
    }
    bench.pass(1);
    assert_eq!(bench.totals()["users_unique{page=\"a\"}"], 334.0);
    assert_eq!(bench.totals()["agent_window_series{kind=\"set\"}"], 1.0);
    bench.pass(75);
    assert_eq!(bench.totals()["users_unique{page=\"a\"}"], 0.0);
    assert_eq!(bench.totals()["agent_window_series{kind=\"set\"}"], 0.0);
}

#[test]
fn the_gauge_of_a_set_with_members_comes_back_when_it_was_removed() {
    let mut bench = Bench::new("");
    let series = set_of(&bench.writer, "users_unique", "");
    bench.writer.record(&series, RecordKind::Unique, 1);
    bench.pass(1);
    assert!(bench.writer.remove(series.metric(), ""));
    bench.writer.record(&series, RecordKind::Unique, 2);
    bench.pass(1);
    assert_eq!(bench.totals()["users_unique{}"], 2.0);
}

#[test]
fn records_of_removed_series_and_nonsense_are_counted() {
    let mut bench = Bench::new("");
    let series = bench.series("t", "");
    bench.sample(&series, 1.0, 1);
    assert!(bench.writer.remove(series.metric(), ""));
    let known = bench.series("t", "a=\"b\"");
    bench.writer.record(&known, RecordKind::Sample, f64::INFINITY.to_bits());
    bench.writer.record(&known, RecordKind::Unique, 1);
    let counter = MetricSpec { name: "c", help: "", unit: "", shape: Shape::Counter };
    let counter = bench.writer.metric(&counter).expect("room");
    let counter = bench.writer.series(counter, "").expect("room");
    bench.sample(&counter, 1.0, 1);
    bench.pass(1);
    let totals = bench.totals();
    assert_eq!(totals["agent_window_samples_refused{reason=\"unknown\"}"], 3.0);
    assert_eq!(totals["agent_window_samples_refused{reason=\"not_finite\"}"], 1.0);
    assert_eq!(bench.windows(), 0);
}

#[test]
fn what_a_ring_lost_is_counted_exactly() {
    let mut bench = Bench::new("");
    let series = bench.series("t", "");
    bench.sample(&series, 1.0, 1);
    bench.pass(0);
    let cells = u64::from(bench.segment.header().options.ring_records);
    (0..cells + 123).for_each(|_| bench.sample(&series, 1.0, 1));
    let pass = bench.aggregator.step(bench.now);
    assert_eq!((pass.read, pass.lost), (cells, 123));
    assert!(pass.fill > 1.0);
    assert_eq!(bench.aggregator.pause_ms(pass, Now { unix_ms: 0, ..bench.now }), PAUSE_FAST_MS);
    bench.pass(1);
    assert_eq!(bench.totals()["agent_ring_records_lost{app=\"agent\"}"], 123.0);
}

#[test]
fn a_successor_does_not_count_what_was_there_before_it() {
    let mut bench = Bench::new("");
    let series = bench.series("t", "");
    let users = set_of(&bench.writer, "users_unique", "");
    bench.sample(&series, 1.0, 1);
    bench.writer.record(&users, RecordKind::Unique, 7);
    bench.writer.event(b"_e{1,1}:a|b");
    bench.pass(1);
    let later = Now { unix_ms: Now::read().unix_ms + 3000, ..bench.now };
    bench.aggregator = Aggregator::new(&bench.segment, &config(""), later).expect("room");
    bench.now = later;
    bench.writer.event(b"_sc|db|0");
    bench.pass(2);
    assert_eq!(bench.totals()["users_unique{}"], 1.0, "sets are learnt again");
    assert_eq!(bench.aggregator.common.distributions.used, 0);
    let texts: Vec<String> = recent_events(&bench.segment).into_iter().map(|e| e.1).collect();
    assert_eq!(texts, ["_e{1,1}:a|b", "_sc|db|0"]);
}

#[test]
fn a_clock_that_jumps_stops_nothing() {
    let mut bench = Bench::new("");
    let series = bench.series("t", "");
    for jump_ms in [-3_600_000i64, 7_200_000, -50, 0] {
        bench.now.unix_ms = bench.now.unix_ms.wrapping_add_signed(jump_ms);
        bench.aggregator.step(bench.now);
        bench.sample(&series, 1.0, 1);
        bench.aggregator.step(bench.now);
        for _ in 0..2 {
            bench.now.unix_ms += 1000;
            bench.aggregator.step(bench.now);
        }
        let labels = "metric=\"t\",window=\"60s\"";
        let rate = bench.totals()[&format!("agent_window_samples_per_second{{{labels}}}")];
        assert!(rate > 0.0, "after {jump_ms} ms");
    }
}

#[test]
fn an_idle_collector_wakes_once_a_second_and_a_record_ends_that() {
    let mut bench = Bench::new("");
    let start = Now { unix_ms: 1_000_000, ..bench.now };
    assert_eq!(bench.aggregator.pause_ms(Pass::default(), start), PAUSE_MS);
    (0..QUIET_PASSES).for_each(|_| assert_eq!(bench.aggregator.step(bench.now), Pass::default()));
    assert_eq!(bench.aggregator.pause_ms(Pass::default(), start), 1000);
    let late = Now { unix_ms: 1_000_900, ..start };
    assert_eq!(bench.aggregator.pause_ms(Pass::default(), late), 100 + GRAIN_MS);
    bench.sample(&bench.series("t", ""), 1.0, 1);
    let pass = bench.aggregator.step(bench.now);
    assert_eq!(bench.aggregator.pause_ms(pass, start), PAUSE_MS);
}

#[test]
fn idle_series_expire_and_their_memory_comes_back() {
    let mut bench = Bench::new(", \"series\": {\"idle_expiry_s\": 20}");
    let counter = MetricSpec { name: "idle", help: "", unit: "", shape: Shape::Counter };
    let counter = bench.writer.metric(&counter).expect("room");
    let idle = bench.writer.series(counter, "").expect("room");
    assert_eq!(bench.writer.add(&idle, 1), Outcome::Applied);
    bench.pass(15);
    assert!(bench.totals().contains_key("idle{}"));
    bench.pass(40);
    let totals = bench.totals();
    assert!(!totals.contains_key("idle{}"));
    assert!(totals["agent_series_expired{}"] >= 1.0 && totals["agent_series_freed{}"] >= 1.0);
}

#[test]
fn lines_become_windows_and_the_page_is_clean() {
    let segment = Segment::private("agent", &Options::collector());
    let json = br#"{"worker": 0, "segment": "", "control_fd": -1}"#;
    let worker = WorkerConfig::from_json(json).expect("valid");
    let admission = Admission::new(&worker.limits, 1, 10, 0);
    let mut applier = Applier::new(&segment, &worker, admission).expect("a slot");
    let now = Now::read();
    let mut aggregator = Aggregator::new(&segment, &config(""), now).expect("room");
    aggregator.step(now);
    for n in 0..200 {
        let line = format!("t:{n}|ms|#status:200,quantile:x\nusers:{}|s\n", n % 50);
        for line in line.lines() {
            let _ = applier.batch().line(SourceId::StatsdUdp, line.as_bytes());
        }
    }
    aggregator.step(Now { unix_ms: now.unix_ms + 1000, ..now });
    aggregator.step(Now { unix_ms: now.unix_ms + 2000, ..now });
    let mut page = Vec::new();
    let format = agent_wire::Format::Text004;
    scrape::render(&[scrape::Source::own(&segment)], format, &mut page);
    let page = String::from_utf8(page).expect("text");
    let wanted = "agent_window_quantile{exported_quantile=\"x\",metric=\"t_seconds\",\
                  q=\"0.5\",status=\"200\",window=\"60s\"} ";
    let line = page.lines().find(|line| line.starts_with(wanted)).expect(&page);
    assert!(close(line[wanted.len()..].parse().expect("a number"), 0.099), "{line}");
    assert!(page.contains("\nusers_unique 50\n"), "{page}");
}

/// A folder of our own for segments of apps.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("agent-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&path, private).expect("permissions");
        Folder(path)
    }

    fn segment(&self, app: &str) -> Segment {
        let path = self.0.join(format!("{app}.v{}.seg", agent_shm::LAYOUT_VERSION));
        let options = if app == "agent" { Options::collector() } else { Options::default() };
        Segment::open_or_create(&path, app, &options).expect("a segment")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn summaries_of_apps_have_windows_as_long_as_the_app_is_there() {
    let folder = Folder::new("windows-of-apps");
    let shop = folder.segment("shop");
    let writer = shop.writer().expect("a slot");
    let mut bench = Bench::new(&format!(", \"apps_dir\": {:?}", folder.0));
    let spec = MetricSpec { name: "wait", help: "", unit: "", shape: Shape::Summary(&[0.5]) };
    let metric = writer.metric(&spec).expect("room");
    // Enough series for the file to grow after it was attached.
    let all: Vec<Series> =
        (0..500).map(|n| writer.series(metric, &format!("n=\"{n}\"")).expect("room")).collect();
    for value in 1..=9 {
        assert_eq!(writer.observe(&all[499], f64::from(value), 1), Outcome::Applied);
    }
    bench.pass(2);
    let totals = bench.totals();
    let labels = "app=\"shop\",metric=\"wait\",n=\"499\",q=\"0.5\",window=\"10s\"";
    assert!(close(totals[&format!("agent_window_quantile{{{labels}}}")], 5.0));
    assert_eq!(totals["agent_ring_records_read{app=\"shop\"}"], 9.0);
    assert_eq!(
        totals["agent_window_error_ratio{app=\"shop\",metric=\"wait\",window=\"10s\"}"],
        0.0
    );
    std::fs::remove_file(shop.path()).expect("removable");
    bench.pass(1);
    assert!(!bench.totals().keys().any(|key| key.contains("shop")), "{:?}", bench.totals());
}

/// The aggregator's loop in a thread, and the supervisor's end of its pipe.
struct Child {
    lines: std::io::Lines<std::io::BufReader<std::os::unix::net::UnixStream>>,
    pipe: std::os::unix::net::UnixStream,
    thread: std::thread::JoinHandle<i32>,
}

impl Child {
    fn new(segment: &Segment) -> Child {
        use std::io::BufRead;
        let (pipe, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let path = segment.path().to_str().expect("text").to_owned();
        let thread = std::thread::spawn(move || {
            let fd = theirs.as_raw_fd();
            run_aggregator(format!("{{\"segment\": {path:?}, \"control_fd\": {fd}}}").as_bytes())
        });
        let lines = std::io::BufReader::new(pipe.try_clone().expect("a descriptor")).lines();
        Child { lines, pipe, thread }
    }

    fn say(&mut self, line: &str) {
        use std::io::Write;
        self.pipe.write_all(line.as_bytes()).expect("room");
    }

    fn hear(&mut self) -> String {
        self.lines.next().expect("a line").expect("readable")
    }
}

#[test]
fn the_loop_obeys_the_supervisor_and_shows_the_last_records_before_it_leaves() {
    let folder = Folder::new("aggregator-loop");
    let segment = folder.segment("agent");
    let writer = segment.writer().expect("a slot");
    let mut child = Child::new(&segment);
    assert_eq!(child.hear(), "ready");
    child.say("state {}\nreload {\"segment\": \"\", \"control_fd\": 0}\nreload {\"x\": 1}\n");
    assert_eq!(child.hear(), "reloaded");
    assert!(child.hear().starts_with("refused "));
    let series = series(&writer, "t", "");
    writer.record(&series, RecordKind::Sample, pack(4.0, 1));
    child.say("drain\n");
    assert_eq!(child.hear(), "drained");
    assert_eq!(child.thread.join().expect("no panic"), EXIT_DONE);
    let labels = "metric=\"t\",q=\"0.99\",window=\"60s\"";
    assert!(close(totals(&segment)[&format!("agent_window_quantile{{{labels}}}")], 4.0));
}

#[test]
fn the_loop_ends_with_its_supervisor() {
    let folder = Folder::new("aggregator-orphan");
    let segment = folder.segment("agent");
    let mut child = Child::new(&segment);
    assert_eq!(child.hear(), "ready");
    child.pipe.shutdown(std::net::Shutdown::Write).expect("open");
    assert!(child.lines.next().is_none(), "nobody is there to hear");
    assert_eq!(child.thread.join().expect("no panic"), EXIT_DONE);
}

#[test]
fn a_config_that_makes_no_sense_has_its_exit_code() {
    assert_eq!(run_aggregator(b"{"), EXIT_CONFIG);
}
