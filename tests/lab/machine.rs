//! A guest, from `tests/lab/boot` to what it has printed.
#![allow(dead_code, reason = "the lab and interop each use a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::monitor::Monitor;
use crate::transcript::Transcript;

/// How long a guest may run: a check takes a minute or two on a machine at rest, and ten times that on a busy one.
const DEADLINE: Duration = Duration::from_secs(900);

/// Which kernel runs in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kernel {
    /// Debian's, as it comes.
    Stock,
    /// Ours, with what Debian leaves out: iommufd, VFIO by cdev, no-IOMMU.
    Second,
}

/// A guest that is described and not started.
pub(crate) struct Machine {
    kernel: Kernel,
    parts: Vec<String>,
    /// Files for the guest, as `boot` takes them: beside the script, or each at its path.
    files: Vec<String>,
    /// More for QEMU.
    words: Vec<String>,
    deadline: Duration,
    home: TempDir,
}

/// A guest that runs. It ends when this is dropped.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    errors: Option<JoinHandle<String>>,
    said: String,
    home: TempDir,
}

impl Kernel {
    /// Whether it was made; if not, the skip of this test is told.
    pub(crate) fn is_there(self, test: &str) -> bool {
        let made = cache().join(self.name()).join("vmlinux").exists();
        if !made {
            let script = match self {
                Self::Stock => "setup",
                Self::Second => "kernel",
            };
            println!("SKIP {test}: not installed: what guests start from (tests/lab/{script})");
        }
        made
    }

    /// How its functions are opened, as a key of a device string; Debian's has one way only.
    pub(crate) fn way(self) -> &'static str {
        match self {
            Self::Stock => "",
            Self::Second => ",via=cdev",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Second => "second",
        }
    }
}

/// Where the scripts keep what they made.
pub(crate) fn cache() -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    set("LAB_CACHE").unwrap_or_else(|| {
        let home = || set("HOME").unwrap_or_default().join(".cache");
        set("XDG_CACHE_HOME").unwrap_or_else(home).join("vdpa-lab")
    })
}

impl Machine {
    /// With these parts of `tests/lab/topology`; its script finds `vdpactl` and `guest` beside it.
    #[track_caller]
    pub(crate) fn new(kernel: Kernel, parts: &[&str]) -> Self {
        let plain = Self::plain(kernel, parts);
        ["vdpactl", "examples/guest"]
            .iter()
            .fold(plain, |machine, name| machine.with(program(name)))
    }

    /// With these parts of `tests/lab/topology`, and no program of ours.
    pub(crate) fn plain(kernel: Kernel, parts: &[&str]) -> Self {
        Self {
            kernel,
            parts: parts.iter().map(|part| (*part).to_owned()).collect(),
            files: Vec::new(),
            words: Vec::new(),
            deadline: DEADLINE,
            home: TempDir::with_prefix("lab.").unwrap(),
        }
    }

    /// With one part more.
    pub(crate) fn part(mut self, part: String) -> Self {
        self.parts.push(part);
        self
    }

    /// With a file that its script finds beside it.
    #[track_caller]
    pub(crate) fn with(mut self, file: PathBuf) -> Self {
        assert!(file.exists(), "{}: tests/run --only lab", file.display());
        self.files
            .push(file.into_os_string().into_string().unwrap());
        self
    }

    /// With a file that stands at `path` in it.
    pub(crate) fn with_at(mut self, file: &Path, path: &Path) -> Self {
        self.files
            .push(format!("{}:{}", file.display(), path.display()));
        self
    }

    /// With these words more for QEMU.
    pub(crate) fn words(mut self, words: &[&str]) -> Self {
        self.words
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// With another deadline for all that it does.
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// A file of the test's own, which goes with the guest.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs this script in it, to the end.
    #[track_caller]
    pub(crate) fn run(self, script: &str) -> Transcript {
        self.start(script).finish()
    }

    /// Starts it with this script, which has what `steps.sh` has.
    #[track_caller]
    pub(crate) fn start(self, script: &str) -> Running {
        let run = self.file("run");
        std::fs::write(&run, format!("#!/bin/sh\n. ./steps.sh\n{script}\n")).unwrap();
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab");
        let mut boot = Command::new(lab.join("boot"));
        boot.arg("-t").arg(self.deadline.as_secs().to_string());
        boot.arg("-k").arg(self.kernel.name());
        for part in &self.parts {
            boot.args(["-m", part]);
        }
        boot.arg("-q").arg(self.file("monitor"));
        boot.arg("-f").arg(lab.join("guest/steps.sh"));
        for file in &self.files {
            boot.arg("-f").arg(file);
        }
        let mut child = boot
            .arg("-i")
            .arg(run)
            .args(["--", "-pidfile"])
            .arg(self.file("pid"))
            .args(&self.words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let errors = child.stderr.take().unwrap();
        Running {
            child,
            lines,
            errors: Some(thread::spawn(move || whole(errors))),
            said: String::new(),
            home: self.home,
        }
    }
}

impl Running {
    /// Reads on until the script has told this.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str) {
        let told = format!("@tell {what}");
        while self.line().trim_end() != told {}
    }

    /// Says a line to the script, which waits for it.
    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line of the script that is an object.
    #[track_caller]
    pub(crate) fn object(&mut self) -> Value {
        loop {
            let line = self.line();
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }

    /// The next line, with its end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let len = self.lines.read_until(b'\n', &mut line).unwrap();
        let line = String::from_utf8_lossy(&line).into_owned();
        self.said.push_str(&line);
        if len == 0 {
            let errors = self.errors.take().unwrap().join().unwrap();
            panic!("the guest has ended:\n{errors}\n{}", self.said);
        }
        line
    }

    /// Its monitor.
    #[track_caller]
    pub(crate) fn monitor(&self) -> Monitor {
        Monitor::connect(&self.home.path().join("monitor"))
    }

    /// Kills QEMU, and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        let text = std::fs::read_to_string(self.home.path().join("pid")).unwrap();
        let qemu = Pid::from_raw(text.trim().parse().unwrap());
        kill(qemu, Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the guest has ended, by itself, and its script with 0.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Transcript {
        let mut rest = Vec::new();
        self.lines.read_to_end(&mut rest).unwrap();
        self.said.push_str(&String::from_utf8_lossy(&rest));
        let status = self.child.wait().unwrap();
        let errors = self.errors.take().unwrap().join().unwrap();
        let said = std::mem::take(&mut self.said);
        assert!(status.success(), "{status}\n{errors}\n{said}");
        Transcript::parse(said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failure. `boot` takes QEMU with it, and its files, when it is asked to end.
        if let Ok(None) = self.child.try_wait() {
            let pid = Pid::from_raw(self.child.id().cast_signed());
            let _gone = kill(pid, Signal::SIGTERM);
        }
        let _gone = self.child.wait();
    }
}

/// A program that was built for guests: static, release.
fn program(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("x86_64-unknown-linux-gnu/release").join(name)
}

fn whole(mut errors: ChildStderr) -> String {
    let mut bytes = Vec::new();
    let _length = errors.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
