//! `dpdk-testpmd` as a child: started with a home of its own, spoken to line by line, ended by its id.
//!
//! Without huge pages its memory is one memfd, which it can hand to a back end as well as any other; so nothing of the
//! machine is changed for it.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::process::Process;

/// The program, and where it comes from.
pub(crate) const PROGRAM: &str = "dpdk-testpmd";
const HOW: &str = "Debian: apt-get install dpdk-dev";

/// Whether it is installed; prints the skip of the test `name` if not.
pub(crate) fn is_installed(name: &str) -> bool {
    for (program, how) in [
        (PROGRAM, HOW),
        ("stdbuf", "Debian: apt-get install coreutils"),
    ] {
        let probe = Command::new(program).arg("--help").output();
        if probe.is_err() {
            println!("SKIP {name}: not installed: {program} ({how})");
            return false;
        }
    }
    true
}

/// Whether this processor has what DPDK's packed vectorised path wants at run time.
pub(crate) fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// A port's number beyond those that it has.
const NO_PORT: u16 = 1000;

/// What it is started with.
pub(crate) struct Setup {
    /// Threads that forward: with one for each stream, none waits for another.
    pub(crate) cores: usize,
    /// Its devices, one string each, as `--vdev` takes them.
    pub(crate) devices: Vec<String>,
    /// Queue pairs of every port.
    pub(crate) pairs: u16,
    /// Further words for the program itself, after `--`.
    pub(crate) words: Vec<String>,
}

/// A running one.
pub(crate) struct Testpmd {
    process: Process,
    /// All that it has said, in its order.
    said: Vec<String>,
    /// The last port that it was asked for and has not, to tell where an answer ends.
    mark: u16,
    /// Where it keeps its run-time files.
    _home: TempDir,
}

impl Testpmd {
    /// Starts it, and waits until it takes commands.
    #[track_caller]
    pub(crate) fn start(setup: &Setup) -> Self {
        let home = tempfile::tempdir().unwrap();
        let cores = setup.cores;
        // One stream of lines: what its log says stands where it was said.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$@" 2>&1"#, "sh", "stdbuf", "-oL", PROGRAM])
            .args([
                "--no-pci",
                "--no-huge",
                "-m",
                "192",
                "--iova-mode=va",
                "--no-telemetry",
            ])
            .args([
                "--file-prefix=testpmd",
                "--log-level=pmd.net.virtio.init:debug",
            ])
            // Packed rings are vectorised only where 512 bits are allowed.
            .arg("--force-max-simd-bitwidth=512")
            // Its first core waits for commands; all of them share all processors.
            .arg(format!("--lcores=(0-{cores})@(0-{})", processors() - 1));
        for device in &setup.devices {
            command.arg(format!("--vdev={device}"));
        }
        command
            .args([
                "--",
                "--interactive",
                "--no-flush-rx",
                "--total-num-mbufs=16384",
            ])
            .arg(format!("--nb-cores={cores}"))
            .arg(format!("--rxq={}", setup.pairs))
            .arg(format!("--txq={}", setup.pairs))
            .args(&setup.words)
            .env("RUNTIME_DIRECTORY", home.path());
        let mut new = Self {
            process: Process::start(&mut command),
            said: Vec::new(),
            mark: NO_PORT,
            _home: home,
        };
        new.ask("show config fwd");
        new
    }

    /// Gives it a command, and returns what it says to that.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> String {
        let from = self.said.len();
        self.mark += 1;
        let mark = self.mark;
        // What it repeats of its input it writes letter by letter, and its log may come between two of them. The
        // complaint is a line that it writes as one, once all before it is done.
        self.process
            .say(&format!("{command}\nshow port stats {mark}"));
        self.wait_for(&format!("Invalid port {mark}"));
        self.said[from..].join("\n")
    }

    /// Asks again and again until `wanted` is true of the answer.
    #[track_caller]
    pub(crate) fn ask_until(&mut self, command: &str, wanted: impl Fn(&str) -> bool) -> String {
        let by = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(command);
            if wanted(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < by,
                "`{command}` comes to nothing:\n{}",
                self.log()
            );
            // It looks at its own words meanwhile, and at nothing else that is waited for.
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a line with this in it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, word: &str) {
        let said = &mut self.said;
        while let Some(line) = self.process.line_or(|| said.join("\n")) {
            let found = line.contains(word);
            said.push(line);
            if found {
                return;
            }
        }
        panic!("{PROGRAM} has ended without {word:?}:\n{}", self.log());
    }

    /// Begins to forward in this mode. What does not fit is tried again, for longer than anything here may take.
    #[track_caller]
    pub(crate) fn forward(&mut self, mode: &str) {
        self.ask(&format!("set fwd {mode} retry"));
        self.ask("set burst tx delay 10 retry 30000000");
        self.ask("start");
    }

    /// Ends that.
    #[track_caller]
    pub(crate) fn stop_forwarding(&mut self) {
        self.let_go();
        self.ask("stop");
    }

    /// What waits for room waits no longer: of threads that end, those that would make room may be the first.
    #[track_caller]
    fn let_go(&mut self) {
        self.ask("set burst tx delay 1 retry 1");
    }

    /// Waits until this port's link is up or down.
    #[track_caller]
    pub(crate) fn link_is(&mut self, port: u16, state: &str) {
        let wanted = format!("Link status: {state}");
        self.ask_until(&format!("show port info {port}"), |info| {
            info.contains(&wanted)
        });
    }

    /// All that it has said so far.
    pub(crate) fn log(&self) -> String {
        self.said.join("\n")
    }

    /// Kills it as a crash would.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.process.signal(Signal::SIGKILL);
        self.process.end();
    }

    /// Has it close its ports and end, whether it forwards or not.
    #[track_caller]
    pub(crate) fn quit(mut self) {
        self.let_go();
        self.process.say("quit");
        self.wait_for("Bye...");
        let (status, _) = self.process.end();
        assert!(status.success(), "{status}: {}", self.said.join("\n"));
    }
}

/// Processors that there are.
fn processors() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get())
}

/// A number behind a name in what `show port stats` or `show port info` says.
pub(crate) fn number(answer: &str, name: &str) -> u64 {
    let (_, rest) = answer
        .split_once(name)
        .unwrap_or_else(|| panic!("no {name:?} in {answer}"));
    let digits: String = rest
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number behind {name:?} in {answer}"))
}
