//! Programs that somebody else wrote, on a CPU of their own: what they print is kept, and none of them outlives this one.

use std::io::{self, Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// How long one may take for what it is told, on a machine that does other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long one may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long what it said last may be on its way.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How many of its last bytes are told when it has ended.
const TAIL: usize = 1000;

/// One that runs.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What it printed since it was last told something, and the end of what it printed before.
    said: String,
    before: String,
    /// What it complained of: apart, since it may do so in the middle of a line.
    complaints: Receiver<Vec<u8>>,
    /// What makes it end.
    farewell: &'static str,
}

impl Program {
    /// Starts one.
    ///
    /// * `cpu`: where all its threads run
    /// * `words`: its name and its arguments
    /// * `farewell`: the line that makes it end; empty: it is killed
    pub(crate) fn start(
        name: &'static str,
        cpu: usize,
        words: &[String],
        farewell: &'static str,
    ) -> io::Result<Self> {
        // It is killed when this process ends, however that comes about.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "taskset", "-c", &cpu.to_string()]);
        // Line by line: what it prints is waited for.
        command.args(["stdbuf", "-oL"]).args(words);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("setpriv {name}: {e}")))?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let (send, output) = channel();
        read(stdout, send);
        let (send, complaints) = channel();
        read(stderr, send);
        Ok(Self {
            name,
            child,
            stdin,
            output,
            said: String::new(),
            before: String::new(),
            complaints,
            farewell,
        })
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Tells it a line.
    ///
    /// # Errors
    /// When it has ended, with what it said last.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        self.before.push_str(&std::mem::take(&mut self.said));
        self.before = tail(&self.before).to_owned();
        match writeln!(self.stdin, "{line}") {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended(&format!("at '{line}'"))),
        }
    }

    /// Waits until what it said is `enough`, and gives it.
    ///
    /// # Errors
    /// When it ends, or says nothing of the kind within a minute: with what it said last.
    pub(crate) fn wait(&mut self, what: &str, enough: impl Fn(&str) -> bool) -> io::Result<&str> {
        let by = Instant::now() + PATIENCE;
        while !enough(&self.said) {
            let left = by.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(chunk) => self.said.push_str(&String::from_utf8_lossy(&chunk)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::Error::other(format!(
                        "{}: no answer to '{what}' within {PATIENCE:?}; it said: {}",
                        self.name,
                        tail(&self.said)
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.ended(&format!("at '{what}'")));
                }
            }
        }
        Ok(&self.said)
    }

    /// Waits until there is a file.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub(crate) fn wait_for_file(&mut self, path: &str) -> io::Result<()> {
        let by = Instant::now() + PATIENCE;
        while !std::path::Path::new(path).exists() {
            if self.child.try_wait()?.is_some() {
                return Err(self.ended("at its start"));
            }
            if Instant::now() > by {
                return Err(io::Error::other(format!(
                    "{}: no {path} within {PATIENCE:?}",
                    self.name
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn ended(&mut self, when: &str) -> io::Error {
        // Its readers end with it.
        while let Ok(chunk) = self.output.recv_timeout(LAST_WORDS) {
            self.said.push_str(&String::from_utf8_lossy(&chunk));
        }
        let how = match self.child.try_wait() {
            Ok(Some(status)) => status.to_string(),
            _ => "its output is closed".to_owned(),
        };
        self.before.push_str(&self.said);
        while let Ok(chunk) = self.complaints.recv_timeout(LAST_WORDS) {
            self.before.push_str(&String::from_utf8_lossy(&chunk));
        }
        io::Error::other(format!(
            "{} ended {when} ({how}); it said last: {}",
            self.name,
            tail(&self.before)
        ))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.farewell.is_empty() && writeln!(self.stdin, "{}", self.farewell).is_ok() {
            let by = Instant::now() + FAREWELL;
            while Instant::now() < by {
                if let Ok(Some(_)) = self.child.try_wait() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Passes on what is read, until there is no more.
fn read(mut from: impl Read + Send + 'static, to: Sender<Vec<u8>>) {
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            if to
                .send(chunk.get(..read).unwrap_or_default().to_vec())
                .is_err()
            {
                break;
            }
        }
    });
}

/// The end of it, from a whole character on.
fn tail(said: &str) -> &str {
    let mut from = said.len().saturating_sub(TAIL);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    said.split_at(from).1
}

/// The first of these programs, and of those that start them, that is not installed.
pub(crate) fn missing(program: &'static str) -> Option<&'static str> {
    ["setpriv", "taskset", "stdbuf", program]
        .into_iter()
        .find(|name| !is_installed(name))
}

fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}
