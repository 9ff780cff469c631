//! A child that runs one instruction at a time (x86-64 Linux, ptrace).
//!
//! The child is a fork of a process of one thread, so that it finds no lock taken; it runs what it was given, leaves by
//! `_exit` and never comes back. It prepares at full speed, stops, and from there each [`Victim::step`] is one instruction;
//! a system call is one, too. It blocks every signal that can be blocked: a Ctrl-C in the terminal is for its parent. When
//! the parent dies, the kernel kills it.
//!
//! Not promised: that two walks of one operation have the same number of instructions. Hash maps of the standard library
//! are keyed at random in each process.

use crate::board::Board;
use crate::decode::{effect, Effect};
use crate::error::Error;
use std::io;

/// What the child does once it is stepped.
pub type Act = Box<dyn FnOnce()>;

/// A child under ptrace; killed and reaped when dropped.
pub struct Victim {
    pid: libc::pid_t,
    board: Board,
}

/// What one step of a child was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Ran(Effect),
    /// The operation is over.
    Done,
}

/// How a child ended that should not have.
#[derive(Debug)]
pub struct Ended(pub String);

/// Exit codes of a child that did not get to its operation, or panicked.
const EXIT_NOT_TRACED: i32 = 98;
const EXIT_PANICKED: i32 = 99;

/// Whether this process can step children.
///
/// # Errors
/// [`Error::NotSupported`], [`Error::Threads`], and [`Error::Forbidden`] after a try.
pub fn check() -> Result<(), Error> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let reason = format!("it needs Linux on x86-64 and this is {os} on {arch}");
        return Err(Error::NotSupported { reason });
    }
    let tasks = std::fs::read_dir("/proc/self/task").map_err(Error::io("read /proc/self/task"))?;
    match tasks.count() {
        1 => {}
        found => return Err(Error::Threads { found }),
    }
    let ended = |Ended(reason)| Error::NotSupported { reason };
    let mut victim = Victim::start(|| Box::new(|| ()))?.map_err(ended)?;
    victim.step()?.map(drop).map_err(ended)
}

impl Victim {
    /// Forks a child that prepares itself and stops before its act. `Ended` when it did not get that far.
    pub fn start(prepare: impl FnOnce() -> Act) -> Result<Result<Victim, Ended>, Error> {
        let board = Board::new().map_err(Error::io("map a page to share with a child"))?;
        // SAFETY: this process has one thread (checked by `check`), so the child may do anything; it leaves by `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            be_stepped(&board, prepare);
        }
        if pid < 0 {
            return Err(Error::io("fork")(io::Error::last_os_error()));
        }
        let victim = Victim { pid, board };
        let status = victim.wait()?;
        if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP {
            return Ok(Ok(victim));
        }
        match victim.board.errno() {
            Some(errno) => {
                let source = io::Error::from_raw_os_error(errno);
                Err(Error::Forbidden { source, hint: hint() })
            }
            None => Ok(Err(victim.ended(status))),
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// Runs one instruction.
    pub fn step(&mut self) -> Result<Result<Step, Ended>, Error> {
        let effect = self.next_effect();
        ptrace::single_step(self.pid).map_err(Error::io("step a child"))?;
        let status = self.wait()?;
        if !libc::WIFSTOPPED(status) || libc::WSTOPSIG(status) != libc::SIGTRAP {
            return Ok(Err(self.ended(status)));
        }
        Ok(Ok(if self.board.is_done() { Step::Done } else { Step::Ran(effect) }))
    }

    /// What the next instruction may change; anything, where it cannot be read.
    fn next_effect(&self) -> Effect {
        ptrace::next_instruction(self.pid).map_or(Effect::SystemCall, effect)
    }

    fn wait(&self) -> Result<i32, Error> {
        let mut status = 0;
        loop {
            // SAFETY: the kernel fills in the status.
            if unsafe { libc::waitpid(self.pid, &mut status, libc::__WALL) } == self.pid {
                return Ok(status);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(Error::io("wait for a child")(error));
            }
        }
    }

    fn ended(&self, status: i32) -> Ended {
        if let Some(text) = self.board.text() {
            return Ended(format!("the operation failed: {text}"));
        }
        Ended(if libc::WIFEXITED(status) {
            format!("the operation ended with exit code {}", libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            format!("the operation was killed by signal {}", libc::WTERMSIG(status))
        } else {
            format!("the operation got signal {}", libc::WSTOPSIG(status))
        })
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // SAFETY: our child, which nobody else waits for: its id is still its own, or it is reaped and neither call does
        // anything, since no other child is made in between.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL);
        }
    }
}

fn be_stepped(board: &Board, prepare: impl FnOnce() -> Act) -> ! {
    // SAFETY: system calls on this process; the set is filled in before it is used.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        for own in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE] {
            libc::sigdelset(&mut all, own);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
    // The text of a panic goes to the board: the terminal is the parent's.
    std::panic::set_hook(Box::new(|_| ()));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let act = prepare();
        if let Err(error) = ptrace::let_parent_trace() {
            board.set_errno(error.raw_os_error().unwrap_or(libc::EPERM));
            // SAFETY: ends this process.
            unsafe { libc::_exit(EXIT_NOT_TRACED) };
        }
        // SAFETY: stops this process until its parent lets it go on.
        unsafe { libc::raise(libc::SIGSTOP) };
        act();
        board.set_done();
    }));
    if let Err(panic) = done {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        board.set_text(text.unwrap_or("it panicked"));
    }
    // SAFETY: ends this process.
    unsafe { libc::_exit(EXIT_PANICKED) }
}

/// What may be the reason when the kernel says no.
fn hint() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) if !matches!(scope.trim(), "0" | "1") => {
            format!("; kernel.yama.ptrace_scope is {}, at most 1 allows it", scope.trim())
        }
        _ => {
            "; a filter of system calls (seccomp), or somebody who traces this process, may be why"
                .into()
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod ptrace {
    use std::io;

    fn result(value: libc::c_long) -> io::Result<()> {
        if value == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    pub fn let_parent_trace() -> io::Result<()> {
        // SAFETY: a system call without pointers that are followed.
        result(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })
    }

    pub fn single_step(pid: libc::pid_t) -> io::Result<()> {
        // SAFETY: as above; the child is ours and stopped.
        result(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0) })
    }

    /// The first eight bytes at the instruction pointer.
    pub fn next_instruction(pid: libc::pid_t) -> Option<[u8; 8]> {
        let at = peek(libc::PTRACE_PEEKUSER, pid, libc::c_long::from(libc::RIP) * 8)?;
        peek(libc::PTRACE_PEEKTEXT, pid, at).map(libc::c_long::to_ne_bytes)
    }

    fn peek(request: libc::c_uint, pid: libc::pid_t, at: libc::c_long) -> Option<libc::c_long> {
        // SAFETY: the child is ours and stopped; the address is one of the child and read by the kernel. Any value may
        // come back, so only errno tells of a failure.
        unsafe {
            *libc::__errno_location() = 0;
            let value = libc::ptrace(request, pid, at, 0);
            (*libc::__errno_location() == 0).then_some(value)
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod ptrace {
    use std::io;

    pub fn let_parent_trace() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn single_step(_pid: libc::pid_t) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn next_instruction(_pid: libc::pid_t) -> Option<[u8; 8]> {
        None
    }
}
