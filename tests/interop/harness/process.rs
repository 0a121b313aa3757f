//! A process that a test starts, reads, and ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PATIENCE;

/// It ends when this is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
}

impl Process {
    /// Starts it. Its standard input is [`Process::say`]'s.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (give, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            // Until it has ended, or nobody listens.
            for line in out.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if give.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let mut from = child.stderr.take().unwrap();
        let to = Arc::clone(&errors);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = from.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..len]);
                to.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        Self {
            name,
            child,
            lines,
            errors,
        }
    }

    /// Its next line of standard output; `None` when there will be none.
    #[track_caller]
    pub(crate) fn line(&mut self) -> Option<String> {
        self.line_or(String::new)
    }

    /// The same. What was heard of it before is told when it says nothing.
    #[track_caller]
    pub(crate) fn line_or(&mut self, heard: impl FnOnce() -> String) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!(
                "{} says nothing; it has said:\n{}\n{}",
                self.name,
                heard(),
                self.errors()
            ),
        }
    }

    /// Reads on until a line is so, and answers that line.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, is: impl Fn(&str) -> bool) -> String {
        let mut said = String::new();
        loop {
            let Some(line) = self.line() else {
                let errors = self.errors();
                panic!("{} has ended:\n{said}{errors}", self.name);
            };
            if is(&line) {
                return line;
            }
            said.push_str(&line);
            said.push('\n');
        }
    }

    /// Says a line to it.
    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Sends it a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits until it has ended by itself, or by a signal that it was sent; the lines that it has said meanwhile.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>) {
        let mut said = Vec::new();
        while let Some(line) = self.line() {
            said.push(line);
        }
        (self.child.wait().unwrap(), said)
    }

    /// Its number.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// What it has said on standard error so far.
    pub(crate) fn errors(&self) -> String {
        let errors = self.errors.lock();
        errors.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `end` there is nobody any more.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        if thread::panicking() {
            let unread: Vec<String> = self.lines.try_iter().collect();
            eprintln!(
                "{} has said:\n{}\n{}",
                self.name,
                unread.join("\n"),
                self.errors()
            );
        }
    }
}
