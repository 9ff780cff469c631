//! Whole requests through the engine, as the event loop would drive it: split anywhere, pipelined,
//! late, too large, malformed. The answer never depends on how the bytes arrive.

use std::io::{Read, Write};

use agent_shm::{MetricSpec, Options, Outcome, Segment, Shape};

use super::*;

/// Takes everything but names that begin with `bad`, and notes what it was asked.
#[derive(Default)]
struct Ledger {
    applied: u64,
    rejected: u64,
    charged: u64,
    shed: Option<Reason>,
    refuse_with: Option<Reason>,
}

impl Ingest for Ledger {
    fn sample(&mut self, _: SourceId, sample: &NormalSample<'_>) -> Result<(), Reason> {
        if let (true, Some(reason)) = (sample.name.starts_with(b"bad"), self.refuse_with) {
            self.rejected += 1;
            return Err(reason);
        }
        self.applied += 1;
        Ok(())
    }

    fn explain_conflict(&mut self, sample: &NormalSample<'_>) -> Option<String> {
        Some(format!("{} is another's", String::from_utf8_lossy(sample.name)))
    }

    fn reject(&mut self, _: SourceId, _: Reason, count: u64) {
        self.rejected += count;
    }

    fn admit_request(&mut self, _: &Peer, _: u64) -> Result<(), Shed> {
        match self.shed {
            Some(reason) => Err(Shed { reason, retry_after_s: 3 }),
            None => Ok(()),
        }
    }

    fn charge(&mut self, _: &Peer, samples: u64, _: u64) {
        self.charged += samples;
    }
}

/// Waits until the clock that metrics are dated by has moved.
pub fn tick() {
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel fills in a valid struct.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut time) };
        (time.tv_sec, time.tv_nsec / 1_000_000)
    };
    let before = now();
    while now() == before {
        std::hint::spin_loop();
    }
}

pub fn temporary_folder(name: &str) -> std::path::PathBuf {
    use std::os::unix::fs::DirBuilderExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder =
        std::env::temp_dir().join(format!("agent-net-{name}-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::DirBuilder::new().mode(0o700).create(&folder).expect("temporary folder");
    folder
}

struct Bench {
    service: HttpService,
    ledger: Ledger,
    segment: Segment,
}

const PEER: Peer = Peer { address: None, row: 0 };

impl Bench {
    fn new() -> Bench {
        Bench::with("{}", "")
    }

    fn with(limits: &str, folder: &str) -> Bench {
        let json = format!(
            r#"{{"worker":0,"segment":"","control_fd":0,"apps_dir":"{folder}","limits":{limits},
                "schema_json":"{{\"a\":1}}","version":"9.9"}}"#
        );
        let config = WorkerConfig::from_json(json.as_bytes()).expect("config");
        let segment = Segment::private("agent", &Options::collector());
        let service = HttpService::new(&config, &segment);
        Bench { service, ledger: Ledger::default(), segment }
    }

    /// Sends the parts one after the other; gives what came back and whether the connection was
    /// closed.
    fn exchange(&mut self, parts: &[&[u8]]) -> (String, bool) {
        let (bytes, closed, _) = self.exchange_raw(parts);
        (undated(&bytes), closed)
    }

    fn exchange_raw(&mut self, parts: &[&[u8]]) -> (Vec<u8>, bool, Option<Box<HttpState>>) {
        let mut state = None;
        let mut answer = Vec::new();
        for part in parts {
            let mut rest = *part;
            loop {
                let mut out = Vec::new();
                let (used, next) = self.service.on_bytes(
                    &mut state,
                    rest,
                    &PEER,
                    &mut out,
                    &mut self.ledger,
                    1000,
                );
                rest = &rest[used..];
                let next = self.apply_all(next, &mut out);
                answer.extend_from_slice(&out);
                match next {
                    Next::Read => assert!(out.is_empty()),
                    Next::Write => assert!(!out.is_empty()),
                    Next::WriteThenClose => return (answer, true, state),
                    Next::Apply(_) => unreachable!("all of it is applied"),
                    Next::Stream(stream) => {
                        assert!(state.is_none(), "a stream and a request at once");
                        if drain(stream, &mut answer) {
                            return (answer, true, state);
                        }
                    }
                }
                if rest.is_empty() {
                    break;
                }
                assert!(used > 0, "no progress");
            }
        }
        (answer, false, state)
    }

    /// Applies the body of a push to its end, as many turns of the loop do.
    fn apply_all(&mut self, mut next: Next, out: &mut Vec<u8>) -> Next {
        while let Next::Apply(push) = next {
            let before = self.ledger.applied;
            next = self.service.apply_more(push, &PEER, out, &mut self.ledger, 1000);
            let slice = self.ledger.applied - before;
            // A sample is not split.
            assert!(slice < (push::SLICE_VALUES + 1000) as u64, "{slice} values in one turn");
        }
        next
    }

    fn send(&mut self, request: &str) -> (u16, String) {
        let (answer, _) = self.exchange(&[request.as_bytes()]);
        (status_of(&answer), answer)
    }
}

/// Takes a stream to its end; says whether the connection closes.
fn drain(mut stream: Stream, answer: &mut Vec<u8>) -> bool {
    loop {
        match stream.take() {
            Taken::Chunk(chunk) => answer.extend_from_slice(&chunk),
            Taken::Pending => {
                let mut poll = libc::pollfd { fd: stream.fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one valid pollfd.
                assert_eq!(unsafe { libc::poll(&mut poll, 1, 20_000) }, 1, "nothing came");
            }
            Taken::End { close } => return close,
            Taken::Broken => panic!("the answer broke off"),
        }
    }
}

/// The answer as text, without what changes from second to second.
fn undated(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split("\r\n").filter(|line| !line.starts_with("Date: "));
    lines.collect::<Vec<_>>().join("\r\n")
}

fn status_of(answer: &str) -> u16 {
    answer.get(9..12).and_then(|code| code.parse().ok()).expect("a status line")
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("headers and body").1
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).expect("into memory");
    encoder.finish().expect("into memory")
}

const JSON_TYPE: &str = "Content-Type: application/json\r\n";

#[test]
fn every_request_split_at_every_position_gets_the_same_answer() {
    let sample = r#"{"name":"a","type":"counter","value":1}"#;
    let chunked = "POST /v1/push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;x=y\r\n{\"nam\r\n22\r\ne\":\"a\",\"type\":\"counter\",\"value\":1}\r\n0\r\nT: t\r\n\r\n";
    let zipped = gzip(sample.as_bytes());
    let mut coded = format!(
        "POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        zipped.len()
    )
    .into_bytes();
    coded.extend_from_slice(&zipped);
    let cases: Vec<Vec<u8>> = vec![
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"GET /livez HTTP/1.0\r\n\r\n".to_vec(),
        b"GET /readyz?verbose HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n\r\nGET /ready HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"GET /v1/schema HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /x HTTP/1.1\r\nHost: x\r\n\r\n"
            .to_vec(),
        post("/v1/push", JSON_TYPE, sample).repeat(2).into_bytes(),
        post("/v1/push", JSON_TYPE, "[{},").into_bytes(),
        post("/livez", "", "body").into_bytes(),
        format!("{chunked}GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
        chunked.replace("22\r\n", "23\r\n").into_bytes(),
        coded.clone(),
        coded[..coded.len() - 2].iter().copied().chain(*b"zz").collect(),
        post("/v1/push", "Expect: 100-continue\r\n", sample).into_bytes(),
        post("/v1/push", "Content-Encoding: br\r\n", sample).into_bytes(),
        b"POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".to_vec(),
        b"POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx".to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\nC: d\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x00".to_vec(),
    ];
    for case in cases {
        let whole = Bench::new().exchange(&[&case]);
        for cut in 1..case.len() {
            let split = Bench::new().exchange(&[&case[..cut], &case[cut..]]);
            assert_eq!(split, whole, "cut at {cut}: {}", String::from_utf8_lossy(&case));
        }
        let bytes: Vec<&[u8]> = case.chunks(1).collect();
        assert_eq!(Bench::new().exchange(&bytes), whole, "byte by byte");
    }
}

/// Requests with up to three bytes changed.
fn damaged() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let seeds = prop::sample::select(vec![
        "POST /v1/push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nT: t\r\n\r\n",
        "POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Encoding: identity\r\n\r\n{}",
        "PUT /metrics/job/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "HEAD http://x/livez?verbose HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.0\r\n\r\n",
    ]);
    let change = (any::<prop::sample::Index>(), any::<u8>());
    (seeds, prop::collection::vec(change, 0..4)).prop_map(|(seed, changes)| {
        let mut bytes = seed.as_bytes().to_vec();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(500))]

    #[test]
    fn damaged_requests_get_one_answer_however_they_are_split(
        bytes in damaged(),
        cut in proptest::prelude::any::<proptest::sample::Index>(),
    ) {
        let cut = cut.index(bytes.len());
        let whole = Bench::new().exchange(&[&bytes]);
        let split = Bench::new().exchange(&[&bytes[..cut], &bytes[cut..]]);
        proptest::prop_assert_eq!(split, whole);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_in_portions() {
    let mut bench = Bench::new();
    let many = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
    let mut out = Vec::new();
    let mut state = None;
    let (used, next) =
        bench.service.on_bytes(&mut state, many.as_bytes(), &PEER, &mut out, &mut bench.ledger, 0);
    assert!(matches!(next, Next::Write) && used < many.len());
    assert!(out.len() < conn::OUT_BYTES_MAX + 1024);
    let (answer, closed, state) = bench.exchange_raw(&[many.as_bytes()]);
    assert!(!closed && state.is_none());
    assert_eq!(undated(&answer).matches("\r\n\r\nok\n").count(), 2000);
}

#[test]
fn a_remembered_probe_is_compared_to_its_last_byte() {
    let mut bench = Bench::new();
    let probe = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let mixed = [
        probe,
        probe,
        &probe.replace("livez", "livex"),
        &probe.replace("Host: x", "Host: x\r\nA: b"),
        probe,
    ];
    let (answer, closed) = bench.exchange(&[mixed.concat().as_bytes()]);
    assert!(!closed);
    let codes: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|one| &one[..3]).collect();
    assert_eq!(codes, ["200", "200", "404", "200", "200"]);
}

#[test]
fn an_idle_connection_has_no_state_and_no_deadline() {
    let mut bench = Bench::new();
    let (_, closed, state) = bench.exchange_raw(&[b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"]);
    assert!(!closed && state.is_none());
    assert_eq!(HttpService::deadline_ms(&state), None);
}

#[test]
fn unknown_paths_and_methods_get_their_own_answers() {
    let mut bench = Bench::new();
    assert_eq!(bench.send("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").0, 404);
    let (status, answer) = bench.send("DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, 405);
    assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    let (status, answer) = bench.send("GET /v1/push HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(status == 405 && answer.contains("\r\nAllow: POST\r\n"), "{answer}");
    assert_eq!(bench.send("BREW /livez HTTP/1.1\r\nHost: x\r\n\r\n").0, 405);
}

#[test]
fn a_push_says_how_many_were_accepted_and_which_were_not() {
    let mut bench = Bench::new();
    bench.ledger.refuse_with = Some(Reason::TypeConflict);
    let good = r#"{"name":"a","type":"gauge","value":1}"#;
    let bad = r#"{"name":"bad","type":"gauge","value":1}"#;
    let (status, answer) = bench.send(&post("/v1/push", JSON_TYPE, &format!("[{good},{good}]")));
    assert_eq!(
        (status, body_of(&answer)),
        (200, "{\"accepted\":2,\"rejected\":0,\"errors\":[]}\n")
    );
    let body = format!("[{good},{bad},{{\"name\":1}}]");
    let (status, answer) = bench.send(&post("/v1/push", JSON_TYPE, &body));
    assert_eq!(status, 207);
    let account: serde_json::Value = serde_json::from_str(body_of(&answer)).expect("JSON");
    assert_eq!((&account["accepted"], &account["rejected"]), (&1.into(), &2.into()));
    assert_eq!(account["errors"][0]["index"], 1);
    assert_eq!(account["errors"][0]["reason"], "type_conflict");
    let detail = account["errors"][0]["detail"].as_str().expect("text");
    assert!(detail.contains(" is another's"), "{detail}");
    assert_eq!(account["errors"][1]["index"], 2);
    assert_eq!(bench.send(&post("/v1/push", JSON_TYPE, bad)).0, 400);
    bench.ledger.refuse_with = Some(Reason::Memory);
    let (status, answer) = bench.send(&post("/v1/push", JSON_TYPE, bad));
    assert!(status == 503 && answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    assert_eq!((bench.ledger.applied, bench.ledger.rejected), (3, 4));
    assert_eq!(bench.ledger.charged, 7);
}

#[test]
fn bodies_that_break_a_limit_are_refused_and_nothing_of_them_is_applied() {
    let sample = "{\"name\":\"a\",\"type\":\"counter\",\"value\":1}\n";
    let mut bench = Bench::with(r#"{"body_decompressed_bytes_max": 100000}"#, "");
    let wrong = post("/v1/push", "Content-Type: application/x-www-form-urlencoded\r\n", sample);
    assert_eq!(bench.send(&wrong).0, 415);
    let (status, answer) = bench.send(&post("/v1/push", "Content-Encoding: br\r\n", sample));
    assert!(status == 415 && answer.contains("Accept-Encoding: gzip, deflate, zstd"), "{answer}");
    let huge = sample.repeat(3000);
    assert_eq!(bench.send(&post("/v1/push", "", &huge)).0, 413);
    let zipped = gzip(huge.as_bytes());
    let head = "POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n";
    let head = format!("{head}Content-Length: {}\r\n\r\n", zipped.len());
    let (answer, closed) = bench.exchange(&[head.as_bytes(), &zipped]);
    assert_eq!((status_of(&answer), closed), (413, true));
    assert_eq!(bench.ledger.applied, 0);
    assert_eq!(bench.service.bodies_bytes(), 0);
    let stats = &bench.service.shared.stats;
    assert_eq!(stats.of(Count::Refused, "reason=\"body_too_large\""), 2);
}

#[test]
fn a_chunk_that_cannot_fit_is_refused_when_it_is_announced() {
    let mut bench = Bench::with(r#"{"body_decompressed_bytes_max": 1000}"#, "");
    let head = "POST /v1/push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in ["ffffffffffffffff\r\n", "3e9\r\n", "2\r\n[{\r\n3e7\r\n"] {
        let (status, answer) = bench.send(&format!("{head}{chunks}"));
        assert!(status == 413 && answer.contains("body_too_large"), "{chunks}: {answer}");
    }
    let fits = format!("{head}3e8\r\n{}\r\n0\r\n\r\n", "\n".repeat(1000));
    assert_eq!(bench.send(&fits).0, 400, "an empty body, but not too large");
}

#[test]
fn ten_gigabytes_of_zeros_cost_a_megabyte_and_an_answer() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("encoder");
    let zeros = vec![0u8; 1 << 20];
    for _ in 0..10_240 {
        encoder.write_all(&zeros).expect("into memory");
    }
    let bomb = encoder.finish().expect("into memory");
    let mut bench = Bench::new();
    let head = "POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Encoding: zstd\r\n";
    let head = format!("{head}Content-Length: {}\r\n\r\n", bomb.len());
    let (answer, closed) = bench.exchange(&[head.as_bytes(), &bomb]);
    assert_eq!((status_of(&answer), closed), (413, true));
    assert!(answer.contains("decompression_bomb"), "{answer}");
    assert_eq!(bench.service.bodies_bytes(), 0);
}

#[test]
fn bodies_together_have_a_budget() {
    let mut bench = Bench::with(r#"{"bodies_bytes_max": 50000}"#, "");
    let head = "POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n";
    let (answer, closed) = bench.exchange(&[head.as_bytes(), &[b' '; 30_000], &[b' '; 30_000]]);
    assert_eq!((status_of(&answer), closed), (503, true));
    assert!(answer.contains("Retry-After: 1") && answer.contains("body_memory"), "{answer}");
    assert_eq!(bench.service.bodies_bytes(), 0);
}

#[test]
fn over_the_limit_a_push_is_shed_before_its_body_and_probes_are_not() {
    let mut bench = Bench::with("{}", "");
    bench.ledger.shed = Some(Reason::SourceRate);
    let head = "POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    let (answer, closed) = bench.exchange(&[head.as_bytes()]);
    assert_eq!((status_of(&answer), closed), (503, true));
    assert!(answer.contains("Retry-After: 3") && answer.contains("source_rate"), "{answer}");
    let small = post("/v1/push", "", "{}") + "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let (answer, closed) = bench.exchange(&[small.as_bytes()]);
    assert!(!closed && answer.starts_with("HTTP/1.1 503") && answer.ends_with("ok\n"), "{answer}");
    assert_eq!(bench.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").0, 200);
    assert_eq!(bench.ledger.applied + bench.ledger.rejected, 0);
}

#[test]
fn slow_heads_and_slow_bodies_end_with_408() {
    let mut bench = Bench::new();
    let late = |bench: &mut Bench, bytes: &[u8], expected_ms: u64| {
        let (_, _, mut state) = bench.exchange_raw(&[bytes]);
        assert_eq!(HttpService::deadline_ms(&state), Some(expected_ms));
        let mut out = Vec::new();
        assert!(matches!(bench.service.on_deadline(&mut state, &mut out), Next::WriteThenClose));
        assert!(state.is_none());
        undated(&out)
    };
    let answer = late(&mut bench, b"GET / HTTP/1.1\r\nHost:", 6000);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("slow_head"), "{answer}");
    let body = b"POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{";
    let answer = late(&mut bench, body, 6000);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("slow_body"), "{answer}");
    // An empty line after a request is no request: the connection is closed without a word.
    assert_eq!(late(&mut bench, b"\r\n", 6000), "");
    assert_eq!(bench.service.bodies_bytes(), 0);
}

#[test]
fn a_draining_worker_says_so_and_closes_after_the_answer() {
    let mut bench = Bench::new();
    bench.service.set_state(r#"{"ready":true}"#);
    bench.service.health.set_private_memory(false);
    let ready = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(bench.send(ready).0, 200);
    assert_eq!(bench.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").0, 200);
    bench.service.set_draining();
    let (answer, closed) = bench.exchange(&[ready.as_bytes()]);
    assert_eq!((status_of(&answer), closed), (503, true));
    assert!(body_of(&answer).contains("draining"), "{answer}");
    let live = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let (answer, closed) = bench.exchange(&[live.as_bytes()]);
    assert_eq!((status_of(&answer), closed), (200, true));
}

fn fill(segment: &Segment, series: usize) {
    let writer = segment.writer().expect("a slot");
    let spec = MetricSpec { name: "jobs", help: "Jobs.", unit: "", shape: Shape::Counter };
    let metric = writer.metric(&spec).expect("room");
    for n in 0..series {
        let series = writer.series(metric, &format!("n=\"{n}\"")).expect("room");
        assert_eq!(writer.add(&series, 1), Outcome::Applied);
    }
}

#[test]
fn the_page_is_negotiated_and_compressed_when_asked() {
    let mut bench = Bench::new();
    fill(&bench.segment, 2);
    let get = |headers: &str| format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let (_, answer) = bench.send(&get(""));
    assert!(answer.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(
        body_of(&answer).contains("# TYPE jobs_total counter\njobs_total{n=\"0\"} 1\n"),
        "{answer}"
    );
    let (_, answer) = bench.send(&get("Accept: application/openmetrics-text;version=1.0.0\r\n"));
    assert!(answer.contains("Content-Type: application/openmetrics-text"), "{answer}");
    assert!(body_of(&answer).ends_with("# EOF\n"), "{answer}");
    let (raw, closed, _) = bench.exchange_raw(&[get("Accept-Encoding: gzip\r\n").as_bytes()]);
    assert!(!closed);
    let at = raw.windows(4).position(|window| window == b"\r\n\r\n").expect("headers") + 4;
    assert!(undated(&raw[..at]).contains("Content-Encoding: gzip\r\n"));
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&raw[at..]).read_to_string(&mut plain).expect("gzip");
    assert!(plain.contains("jobs_total{n=\"1\"} 1\n"), "{plain}");
    let (_, answer) = bench.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(body_of(&answer), "");
}

#[test]
fn a_large_page_is_chunked_and_complete() {
    let mut bench = Bench::new();
    fill(&bench.segment, 9000);
    let (raw, closed, _) = bench.exchange_raw(&[
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    ]);
    assert!(!closed);
    let at = raw.windows(4).position(|window| window == b"\r\n\r\n").expect("headers") + 4;
    assert!(undated(&raw[..at]).contains("Transfer-Encoding: chunked\r\n"));
    let mut framer = body::Framer::new(head::Framing::Chunked);
    let (mut page, mut used) = (Vec::new(), at);
    while !framer.is_done() {
        let step = framer.step(&raw[used..]).expect("chunks");
        page.extend_from_slice(&raw[used..][step.data]);
        used += step.consumed;
    }
    let page = String::from_utf8(page).expect("UTF-8");
    assert_eq!(page.lines().filter(|line| line.starts_with("jobs_total{")).count(), 9000);
    assert!(undated(&raw[used..]).ends_with("\r\n\r\nok\n"));
    let old = b"GET /metrics HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let (raw, closed, _) = bench.exchange_raw(&[old]);
    assert!(closed && undated(&raw).ends_with("} 1\n"));
}

#[test]
fn groups_are_pushed_shown_and_deleted() {
    let folder = temporary_folder("groups");
    let mut bench = Bench::with("{}", folder.to_str().expect("UTF-8"));
    let path = "/metrics/job/backup/instance/a";
    let put =
        post(path, "", "# TYPE done counter\ndone{host=\"h\"} 3\n").replacen("POST", "PUT", 1);
    assert_eq!(bench.send(&put).0, 200);
    let page = bench.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").1;
    assert!(page.contains("# TYPE done counter\n"), "{page}");
    assert!(page.contains("done{host=\"h\",instance=\"a\",job=\"backup\"} 3\n"), "{page}");
    let (status, answer) = bench.send(&post(path, "", "done{ 3\n"));
    assert!(status == 400 && answer.contains("line 1"), "{answer}");
    assert_eq!(bench.send(&post("/metrics/job/", "", "a 1\n")).0, 400);
    let protobuf = "Content-Type: application/vnd.google.protobuf\r\n";
    assert_eq!(bench.send(&post(path, protobuf, "a 1\n")).0, 415);
    assert_eq!(bench.send(&format!("DELETE {path} HTTP/1.1\r\nHost: x\r\n\r\n")).0, 202);
    let page = bench.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").1;
    assert!(!page.contains("done"), "{page}");
    let stats = &bench.service.shared.stats;
    let labels = "source=\"pushgateway\",worker=\"0\"";
    assert_eq!(stats.of(Count::Received, labels), 2);
    assert_eq!(stats.of(Count::Applied, labels), 1);
    assert_eq!(stats.of(Count::Requests, "code=\"202\",route=\"gateway\""), 1);
    assert_eq!(stats.of(Count::Requests, "code=\"400\",route=\"gateway\""), 1);
    std::fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_push_that_the_page_would_leave_out_is_refused_with_who_has_the_name() {
    let folder = temporary_folder("conflict");
    let mut bench = Bench::with("{}", folder.to_str().expect("UTF-8"));
    fill(&bench.segment, 1);
    let path = folder.join(format!("shop.v{}.seg", agent_shm::LAYOUT_VERSION));
    let shop = Segment::open_or_create(&path, "shop", &Options::default()).expect("a segment");
    let writer = shop.writer().expect("a slot");
    let shape = Shape::Explicit(&[1.0]);
    let spec = MetricSpec { name: "wait_seconds", help: "", unit: "", shape };
    writer.metric(&spec).expect("room");
    let mut put = |group: &str, body: &str| {
        let put = post(&format!("/metrics/job/{group}"), "", body).replacen("POST", "PUT", 1);
        bench.send(&put)
    };
    let cases = [
        (
            "# TYPE jobs gauge\njobs 1\n",
            "jobs is a gauge here, but the collector has jobs_total as a counter",
        ),
        (
            "wait_seconds_count 1\n",
            "wait_seconds_count is untyped here, but app shop has wait_seconds as a histogram",
        ),
    ];
    for (body, why) in cases {
        let (status, answer) = put("a", body);
        assert!(status == 400 && answer.contains(why), "{answer}");
    }
    assert_eq!(put("a", "# TYPE level gauge\nlevel 1\n").0, 200);
    assert_eq!(
        put("a", "# TYPE level gauge\nlevel 2\n# TYPE jobs_total counter\njobs_total 1\n").0,
        200
    );
    let (status, answer) = put("b", "# TYPE level_total counter\nlevel_total 1\n");
    let why = "level_total is a counter here, but group {job=\"a\"} has level as a gauge";
    assert!(status == 400 && answer.contains(why), "{answer}");
    std::fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn the_status_document_names_what_the_page_leaves_out() {
    let folder = temporary_folder("left_out");
    let mut bench = Bench::with("{}", folder.to_str().expect("UTF-8"));
    let put = post("/metrics/job/a", "", "# TYPE jobs gauge\njobs 1\n");
    assert_eq!(bench.send(&put).0, 200);
    // The clock of segments is a little late.
    tick();
    tick();
    fill(&bench.segment, 1);
    let path = folder.join(format!("shop.v{}.seg", agent_shm::LAYOUT_VERSION));
    let shop = Segment::open_or_create(&path, "shop", &Options::default()).expect("a segment");
    let writer = shop.writer().expect("a slot");
    let spec = MetricSpec { name: "jobs", help: "", unit: "", shape: Shape::Summary(&[]) };
    writer.metric(&spec).expect("room");
    let answer = bench.send("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").1;
    let document: serde_json::Value = serde_json::from_str(body_of(&answer)).expect("JSON");
    let holder = serde_json::json!({"name": "jobs", "type": "gauge", "group": "job=\"a\""});
    let expected = serde_json::json!([
        {"name": "jobs_total", "type": "counter", "holder": holder},
        {"name": "jobs", "type": "summary", "app": "shop", "holder": holder},
    ]);
    assert_eq!(document["conflicts"], expected);
    bench.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let stats = &bench.service.shared.stats;
    assert_eq!(stats.of(Count::FamiliesSkipped, "app=\"shop\",reason=\"type_conflict\""), 1);
    assert_eq!(stats.of(Count::FamiliesSkipped, "reason=\"type_conflict\""), 1);
    std::fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn the_page_and_its_parts_are_served_under_a_strict_policy() {
    let mut bench = Bench::new();
    for path in ["/", "/status.js", "/status.css"] {
        let (status, answer) = bench.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(status, 200);
        assert!(answer.contains("Content-Security-Policy: default-src 'none'; "), "{path}");
        assert!(answer.contains("X-Content-Type-Options: nosniff\r\n"), "{path}");
    }
    let (status, answer) = bench.send("GET /v1/schema HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((status, body_of(&answer)), (200, "{\"a\":1}"));
}

#[test]
fn the_status_document_has_totals_tops_and_events() {
    let mut bench = Bench::new();
    fill(&bench.segment, 3);
    bench.segment.writer().expect("a slot").event(b"\x1e1700000000000 _e{1,1}:a|<b>");
    bench.service.set_state(r#"{"phase":"running"}"#);
    let (status, answer) = bench.send("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, 200);
    let document: serde_json::Value = serde_json::from_str(body_of(&answer)).expect("JSON");
    assert_eq!(document["version"], "9.9");
    assert_eq!(document["supervisor"]["phase"], "running");
    assert_eq!(document["top"][0]["name"], "jobs");
    assert_eq!(document["top"][0]["series"], 3);
    assert_eq!(document["events"][0]["text"], "_e{1,1}:a|<b>");
}

#[test]
fn counts_of_requests_reach_the_segment() {
    let mut bench = Bench::new();
    bench.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    bench.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    bench.send("nonsense");
    let writer = bench.segment.writer().expect("a slot");
    bench.service.publish(&writer);
    bench.service.publish(&writer);
    let page = bench.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").1;
    assert!(page.contains("agent_http_requests_total{code=\"200\",route=\"livez\"} 2\n"), "{page}");
    assert!(page.contains("agent_http_requests_total{code=\"400\",route=\"none\"} 1\n"), "{page}");
    assert!(page.contains("agent_http_refused_total{reason=\"not_http\"} 1\n"), "{page}");
}
