//! Back ends in processes of their own: this program, started anew.
//!
//! ```text
//!   bench                         child
//!     a line on its stdin ──────▶   sink | source LEN | idle | counts | ...
//!     ◀──────────────────────────   one line for each on its stdout
//! ```
//! A child ends with its stdin.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The variable that says which child a process is.
const ROLE: &str = "VDPA_BENCH_CHILD";

/// How long one may take to end after its stdin did.
const FAREWELL: Duration = Duration::from_secs(5);

/// A child that has said that it is ready.
pub(crate) struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the child that plays `role`, on a CPU of its own.
    ///
    /// * `words`: what it is told by its arguments
    pub(crate) fn start(role: &str, cpu: usize, words: &[&str]) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, format!("{role}@{cpu}"))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut peer = Self {
            child,
            stdin: Some(stdin),
            stdout: BufReader::new(stdout),
        };
        peer.answer(role)?;
        Ok(peer)
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Tells the child something. Answers with its line.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<String> {
        if let Some(stdin) = &mut self.stdin {
            writeln!(stdin, "{line}")?;
        }
        self.answer(line)
    }

    /// The same, of an order that it just carries out.
    pub(crate) fn told(&mut self, line: &str) -> io::Result<()> {
        match &*self.tell(line)? {
            "done" => Ok(()),
            other => Err(io::Error::other(format!("the child at '{line}': {other}"))),
        }
    }

    /// The same, of a question whose answer is so many numbers.
    pub(crate) fn numbers<const N: usize>(&mut self, line: &str) -> io::Result<[u64; N]> {
        let answer = self.tell(line)?;
        let numbers: Vec<u64> = answer
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        numbers
            .try_into()
            .map_err(|_| io::Error::other(format!("the child at '{line}': {answer}")))
    }

    fn answer(&mut self, to: &str) -> io::Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(io::Error::other(format!("the child ended at '{to}'")));
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let by = Instant::now() + FAREWELL;
        while Instant::now() < by {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The child that this process is to be, if it is one; it runs on its CPU from here on.
pub(crate) fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    let (role, cpu) = role.split_once('@')?;
    let mut set = CpuSet::new();
    if let Ok(cpu) = cpu.parse()
        && set.set(cpu).is_ok()
        && let Err(e) = sched_setaffinity(Pid::from_raw(0), &set)
    {
        eprintln!("CPU {cpu}: {e}");
    }
    Some(role.to_owned())
}

/// Says that the child is ready, and answers each line with what `answer` makes of it, until there are no more.
pub(crate) fn serve(mut answer: impl FnMut(&[&str]) -> String) {
    // Whoever does not listen any more has ended, and stdin ends with him.
    let say = |line: &str| writeln!(io::stdout(), "{line}").is_ok();
    let mut heard = say("ready");
    let mut lines = io::stdin().lock().lines().map_while(Result::ok);
    while let Some(line) = lines.next().filter(|_| heard) {
        let words: Vec<&str> = line.split_whitespace().collect();
        heard = say(&answer(&words));
    }
}
