//! `vdpactl serve` as a child, in this thread's network namespace.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use super::process::Process;

/// A device that is served over a socket, until this is dropped.
pub(crate) struct BackEnd {
    process: Process,
    socket: PathBuf,
}

impl BackEnd {
    /// Serves `spec` at `socket`, and waits until it can be connected to.
    #[track_caller]
    pub(crate) fn start(spec: &str, socket: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vdpactl"));
        command
            .args(["serve", spec, "--json", "--vhost-user"])
            .arg(socket)
            .args(words);
        let mut back_end = Self {
            process: Process::start(&mut command),
            socket: socket.to_owned(),
        };
        let listening = back_end.event("listening");
        assert_eq!(listening["schema"], 1, "{listening}");
        back_end
    }

    /// Reads on until it tells an event of this name.
    #[track_caller]
    pub(crate) fn event(&mut self, name: &str) -> Value {
        let is = |line: &str| object(line)["event"] == name;
        object(&self.process.wait_for(is))
    }

    /// All that it tells until an event of this name, with that.
    #[track_caller]
    pub(crate) fn events_until(&mut self, name: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = object(&self.process.wait_for(|_| true));
            let is = event["event"] == name;
            events.push(event);
            if is {
                return events;
            }
        }
    }

    /// Where it is connected to.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its number.
    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// What it has said on standard error so far.
    pub(crate) fn errors(&self) -> String {
        self.process.errors()
    }

    /// Kills it, and waits until it is gone; the socket stays behind.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.process.signal(Signal::SIGKILL);
        self.process.end();
    }

    /// Ends it as a service manager would: it ends well, and leaves no socket. The events that it tells meanwhile.
    #[track_caller]
    pub(crate) fn stop(self) -> Vec<Value> {
        self.process.signal(Signal::SIGTERM);
        let (status, said) = self.process.end();
        assert!(status.success(), "{status}: {said:#?}");
        assert!(!self.socket.exists(), "{}", self.socket.display());
        said.iter().map(|line| object(line)).collect()
    }
}

#[track_caller]
fn object(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}
