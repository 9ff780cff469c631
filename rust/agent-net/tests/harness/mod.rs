//! A worker in a thread on real sockets, driven through its control pipe as the supervisor does.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent_net::worker::run_worker;
use agent_shm::{Segment, Value};
use serde_json::json;

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Worker {
    pub folder: PathBuf,
    pub http: SocketAddr,
    pub tcp: SocketAddr,
    pub udp: SocketAddr,
    pub unix: PathBuf,
    pub unixgram: PathBuf,
    pub lines: BufReader<UnixStream>,
    thread: Option<JoinHandle<i32>>,
    sockets: Sockets,
    config: serde_json::Value,
}

/// A worker that has a successor.
pub struct Old {
    lines: BufReader<UnixStream>,
    thread: JoinHandle<i32>,
    _control: UnixStream,
}

impl Old {
    pub fn retire(&self) {
        self.lines.get_ref().write_all(b"retire\n").expect("room");
    }

    /// Whether it left with 0 in this time.
    pub fn left_within(self, most: Duration) -> bool {
        let began = Instant::now();
        while !self.thread.is_finished() {
            if began.elapsed() > most {
                return false;
            }
            std::thread::yield_now();
        }
        self.thread.join().expect("no panic") == 0
    }
}

struct Sockets {
    http: TcpListener,
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    unixgram: UnixDatagram,
    control: UnixStream,
    /// Where connections go, and where they come from.
    handover: (UnixDatagram, UnixDatagram),
}

impl Worker {
    pub fn start(name: &str, limits: serde_json::Value) -> Worker {
        let mut worker = Worker::prepared(name, limits);
        worker.begin();
        worker
    }

    /// A worker that hands its connections over to its successor.
    pub fn start_generous(name: &str) -> Worker {
        let mut worker = Worker::prepared(name, json!({}));
        worker.config["handover_out_fd"] = json!(worker.sockets.handover.0.as_raw_fd());
        worker.begin();
        worker
    }

    fn prepared(name: &str, limits: serde_json::Value) -> Worker {
        let folder =
            Path::new("/dev/shm").join(format!("agent-test-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&folder, mode).expect("a folder of ours");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let sockets = Sockets {
            http: TcpListener::bind("127.0.0.1:0").expect("a port"),
            tcp: TcpListener::bind("127.0.0.1:0").expect("a port"),
            udp: UdpSocket::bind("127.0.0.1:0").expect("a port"),
            unix: UnixListener::bind(folder.join("stream")).expect("a socket"),
            unixgram: UnixDatagram::bind(folder.join("datagram")).expect("a socket"),
            control: theirs,
            handover: UnixDatagram::pair().expect("a pair"),
        };
        let listener = |fd: i32, source: &str| json!({"fd": fd, "source": source});
        let config = json!({
            "worker": 0,
            "segment": folder.join("agent.v3.seg"),
            "apps_dir": folder,
            "control_fd": sockets.control.as_raw_fd(),
            "limits": limits,
            "series": {"series_max": 10_000, "segment_bytes_max": 64 << 20},
            // A test in which a worker leaves only at this limit fails.
            "drain_timeout_s": 600.0,
            "listeners": [
                listener(sockets.http.as_raw_fd(), "http"),
                listener(sockets.tcp.as_raw_fd(), "statsd_tcp"),
                listener(sockets.udp.as_raw_fd(), "statsd_udp"),
                listener(sockets.unix.as_raw_fd(), "statsd_unix"),
                listener(sockets.unixgram.as_raw_fd(), "statsd_unixgram"),
            ],
        });
        Worker {
            http: sockets.http.local_addr().expect("bound"),
            tcp: sockets.tcp.local_addr().expect("bound"),
            udp: sockets.udp.local_addr().expect("bound"),
            unix: folder.join("stream"),
            unixgram: folder.join("datagram"),
            folder,
            lines: BufReader::new(ours),
            thread: None,
            sockets,
            config,
        }
    }

    /// Starts a worker on the sockets: the first one, or a successor.
    pub fn begin(&mut self) {
        let json = self.config.to_string();
        self.thread = Some(std::thread::spawn(move || run_worker(json.as_bytes())));
        assert_eq!(self.said(), "ready");
    }

    /// Starts a successor on the same sockets, with a control pipe of its own, beside this one.
    pub fn hand_over(&mut self) -> Old {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        self.config["control_fd"] = json!(theirs.as_raw_fd());
        if self.config["handover_out_fd"].is_number() {
            self.config["handover_out_fd"] = json!(-1);
            self.config["handover_in_fd"] = json!(self.sockets.handover.1.as_raw_fd());
        }
        let old = Old {
            lines: std::mem::replace(&mut self.lines, BufReader::new(ours)),
            thread: self.thread.take().expect("a worker"),
            _control: std::mem::replace(&mut self.sockets.control, theirs),
        };
        self.begin();
        old
    }

    /// The next line of the worker that is no log record.
    pub fn said(&mut self) -> String {
        loop {
            let mut line = String::new();
            let count = self.lines.read_line(&mut line).expect("a line in time");
            assert!(count > 0, "the worker closed its end");
            if !line.starts_with("log ") {
                return line.trim_end().to_owned();
            }
        }
    }

    pub fn say(&mut self, line: &str) {
        self.lines.get_ref().write_all(format!("{line}\n").as_bytes()).expect("room");
    }

    /// Drains and gives the exit code.
    pub fn drain(&mut self) -> i32 {
        self.say("drain");
        assert_eq!(self.said(), "drained");
        self.wait()
    }

    /// Asks this worker alone to leave, as a signal to its process does.
    pub fn terminate(&mut self) {
        use std::os::unix::thread::JoinHandleExt;
        let thread = self.thread.as_ref().expect("a worker").as_pthread_t();
        // SAFETY: the thread was not joined, so its handle is one of a thread; there the signal is
        // blocked and read from a descriptor.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGTERM) }, 0);
        assert_eq!(self.said(), "drained");
    }

    pub fn wait(&mut self) -> i32 {
        self.thread.take().expect("a worker").join().expect("no panic")
    }

    /// The config as it was sent, with its listeners.
    pub fn full_config(&self) -> serde_json::Value {
        self.config.clone()
    }

    /// The config without listeners, for a reload.
    pub fn config(&self) -> serde_json::Value {
        let mut config = self.config.clone();
        config["listeners"] = json!([]);
        config
    }

    pub fn segment(&self) -> Segment {
        Segment::attach(&self.folder.join("agent.v3.seg")).expect("a segment")
    }

    pub fn totals(&self) -> BTreeMap<String, f64> {
        let segment = self.segment();
        let mut totals = BTreeMap::new();
        for family in segment.view().families() {
            family.for_each(&mut |series| {
                let labels = String::from_utf8_lossy(series.labels).into_owned();
                let value = match series.value {
                    Value::Counter { whole, fraction } => whole as f64 + fraction,
                    Value::Gauge(value) => value,
                    Value::Histogram { count, .. } | Value::Summary { count, .. } => count as f64,
                    Value::GaugePerProcess(_) => return,
                };
                totals.insert(format!("{}{{{labels}}}", family.meta().name), value);
            });
        }
        totals
    }

    /// Waits until the total has this value.
    pub fn expect(&self, key: &str, value: f64) {
        let began = Instant::now();
        loop {
            let now = self.totals().get(key).copied();
            if now == Some(value) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{key} is {now:?}, not {value}");
            std::thread::yield_now();
        }
    }

    /// received, applied and rejected of a source, summed over reasons.
    pub fn ledger(&self, source: &str) -> (f64, f64, f64) {
        let totals = self.totals();
        let sum = |name: &str| {
            let family = format!("agent_source_samples_{name}{{");
            let of_source = format!("source=\"{source}\"");
            let keys = totals.iter();
            keys.filter(|(key, _)| key.starts_with(&family) && key.contains(&of_source))
                .map(|(_, value)| value)
                .sum()
        };
        (sum("received"), sum("applied"), sum("rejected"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.lines.get_ref().write_all(b"stop\n");
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream
}

/// Everything until the peer closes.
pub fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// Exactly this answer.
pub fn expect_bytes(stream: &mut impl Read, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).expect("an answer");
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(expected));
}

/// Sends a request and reads the whole answer of a connection that closes after it.
pub fn request(address: SocketAddr, text: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(text.as_bytes()).expect("sent");
    String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned()
}

pub fn get(address: SocketAddr, path: &str) -> String {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}
