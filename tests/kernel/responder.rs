//! `vdpactl echo` as a child, in this thread's namespace.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// It runs until this is dropped.
pub(crate) struct Responder {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// What it has counted.
pub(crate) struct Totals(Value);

impl Responder {
    /// Starts it on this device, and waits until it can be asked.
    #[track_caller]
    pub(crate) fn start(spec: &str, words: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vdpactl"))
            .args(["echo", spec, "--json", "--every", "0"])
            .args(["--ip", "10.78.0.2/24", "--ip", "fd78::2/64"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut responder = Self { child, lines };
        let ready = responder.line();
        assert_eq!(ready["event"], "ready", "{ready}");
        assert_eq!(ready["schema"], 1, "{ready}");
        responder
    }

    /// Ends it as a service manager would. It ends well, and tells what it has counted.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Totals {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let totals = self.line();
        assert_eq!(totals["event"], "stopped", "{totals}");
        assert!(self.child.wait().unwrap().success());
        Totals(totals)
    }

    #[track_caller]
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // After a failure; after `stop` there is nobody any more.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Totals {
    /// A count of all pairs.
    pub(crate) fn number(&self, way: &str, kind: &str) -> u64 {
        self.0[way][kind].as_u64().unwrap()
    }

    /// The frames of one pair.
    pub(crate) fn frames(&self, pair: u16, way: &str) -> u64 {
        let pair = &self.0["pairs"][usize::from(pair)];
        pair[way]["frames"].as_u64().unwrap()
    }

    /// Neither driver nor device has dropped anything.
    #[track_caller]
    pub(crate) fn are_without_loss(&self) {
        assert_eq!(self.0["malformed"], 0);
        assert_eq!(self.0["wrong_checksums"], 0);
        let device = self.0["device"].as_object().unwrap();
        assert!(!device.is_empty());
        let dropped = device.iter().filter(|(name, _)| name.contains("dropped"));
        for (name, count) in dropped {
            assert_eq!(*count, 0, "{name}");
        }
    }
}
