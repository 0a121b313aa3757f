//! Runs the built `vdpactl` as a script would: no terminal, standard input closed.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code.
    pub(crate) code: i32,
    /// All of standard output.
    pub(crate) stdout: String,
    /// All of standard error.
    pub(crate) stderr: String,
}

/// A command line that is ready to be run.
pub(crate) fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vdpactl"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end. A panic or a signal fails the test, whatever else was asked.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    ended(&mut command(args))
}

/// The same for a command line that was changed further.
pub(crate) fn ended(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let run = Run {
        code: output.status.code().expect("killed by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!run.stderr.contains("panicked"), "{run:?}");
    assert!(!run.stderr.contains("RUST_BACKTRACE"), "{run:?}");
    run
}

impl Run {
    /// The one object on standard output, its schema checked and taken out.
    #[track_caller]
    pub(crate) fn object(&self) -> Map<String, Value> {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        let mut object: Map<String, Value> = serde_json::from_str(&self.stdout).unwrap();
        assert_eq!(object.remove("schema"), Some(Value::from(1)));
        object
    }

    /// Bad input: exit 2, nothing on standard output, and a first line on standard error with all of these in it.
    #[track_caller]
    pub(crate) fn is_refused_with(&self, words: &[&str]) {
        assert_eq!(self.code, 2, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let line = self.stderr.lines().next().unwrap_or_default();
        for word in words {
            assert!(
                line.contains(word),
                "{word:?} is not in the first line of {self:?}"
            );
        }
    }
}

/// The names of an object's keys, sorted.
pub(crate) fn keys(object: &Map<String, Value>) -> Vec<&str> {
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
