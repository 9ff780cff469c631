//! Workers killed at any moment, in processes of their own: nothing acknowledged is lost, and the
//! ledger shows exactly what was in work.

mod harness;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use harness::{connect, Worker};
use serde_json::json;

const CONFIG: &str = "AGENT_TEST_WORKER_CONFIG";

/// The body of the child processes; on its own it has nothing to do.
#[test]
fn child() {
    if let Ok(json) = std::env::var(CONFIG) {
        std::process::exit(agent_net::worker::run_worker(json.as_bytes()));
    }
}

/// Lets a child have the descriptor.
fn inherit(fd: i32) {
    // SAFETY: a system call without pointers.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
}

fn spawn(worker: &Worker, control: &UnixStream) -> Child {
    let mut config = worker.full_config();
    config["control_fd"] = json!(control.as_raw_fd());
    for listener in config["listeners"].as_array().expect("listeners") {
        inherit(listener["fd"].as_i64().expect("a number") as i32);
    }
    inherit(control.as_raw_fd());
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "child", "--nocapture"]).env(CONFIG, config.to_string());
    command.stdout(std::process::Stdio::null()).spawn().expect("a child")
}

/// Sends batches with acknowledgements until the connection breaks; gives (sent, acknowledged).
fn send_until_broken(worker: &Worker, until: Instant, kill: &mut dyn FnMut()) -> (u64, u64) {
    let mut stream = connect(worker.tcp);
    let batch = [&b"hits:1|c\n".repeat(500)[..], b"_ack|x\n"].concat();
    let (mut sent, mut acked) = (0, 0);
    let mut answer = [0; 7];
    loop {
        if Instant::now() >= until {
            // In the middle of a batch: it is written, and not yet answered.
            let _ = stream.write_all(&batch);
            kill();
            return (sent + 500, acked);
        }
        if stream.write_all(&batch).is_err() {
            return (sent, acked);
        }
        sent += 500;
        match stream.read_exact(&mut answer) {
            Ok(()) => acked += 500,
            Err(_) => return (sent, acked),
        }
    }
}

#[test]
fn a_killed_worker_loses_nothing_acknowledged_and_leaves_only_what_was_in_work() {
    const KILLS: u64 = 12;
    let mut worker = Worker::start("kill", json!({}));
    // The sockets are what we need of it; children do the work.
    worker.terminate();
    assert_eq!(worker.wait(), 0);
    let (mut sent, mut acked) = (0, 0);
    for round in 0..KILLS {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_read_timeout(Some(harness::PATIENCE)).expect("a time limit");
        let mut child = spawn(&worker, &theirs);
        drop(theirs);
        let mut ready = [0; 6];
        (&ours).read_exact(&mut ready).expect("a worker");
        assert_eq!(&ready, b"ready\n");
        let until = Instant::now() + Duration::from_millis(7 + round * 3);
        let mut kill = || child.kill().expect("killed");
        let (more, answered) = send_until_broken(&worker, until, &mut kill);
        child.wait().expect("dead");
        (sent, acked) = (sent + more, acked + answered);
        let total = worker.totals()["hits{}"] as u64;
        let (received, applied, rejected) = worker.ledger("statsd_tcp");
        let (received, applied) = (received as u64, applied as u64);
        assert_eq!(rejected, 0.0);
        assert!(acked <= applied, "{acked} acknowledged, {applied} applied");
        assert!(applied <= total && total <= received, "{applied}, {total}, {received}");
        assert!(received <= sent, "{received} received of {sent}");
        assert!(received - applied <= round + 1, "one sample in work a kill at most");
    }
    assert!(acked > 0);
}
