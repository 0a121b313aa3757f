//! `dpdk-testpmd`, as it is installed, driven by its command line: a driver, or a device.

use std::io;

use nix::unistd::Pid;

use super::pages;
use super::program::{self, Program};

/// What testpmd shows when it is done with a command.
const PROMPT: &str = "testpmd> ";

/// MiB of its memory.
const MEMORY: u64 = 256;

/// Huge pages that two of them need.
pub(crate) const HUGE_PAGES: u64 = 2 * MEMORY / 2;

/// What testpmd's port does with packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forward {
    /// Makes packets of so many bytes and sends them.
    Transmit(usize),
    /// Throws away what comes.
    Receive,
    /// Sends back what comes.
    Echo,
}

/// What a port did between start and stop.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Forwarded {
    /// Packets that came.
    pub(crate) received: u64,
    /// Packets that were sent.
    pub(crate) sent: u64,
}

/// One that runs on a CPU of its own.
pub(crate) struct Testpmd(Program);

impl Testpmd {
    /// Starts one, and waits until it takes commands.
    ///
    /// * `cpu`: where both its threads run
    /// * `name`: of its run-time directory; nobody else's
    /// * `simd`: of how many bits its vectors may be
    pub(crate) fn start(
        cpu: usize,
        name: &str,
        vdevs: &[String],
        simd: Option<u32>,
    ) -> io::Result<Self> {
        let mut words = vec!["dpdk-testpmd".to_owned()];
        let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
        add(&["--lcores", &format!("0@{cpu},1@{cpu}")]);
        add(&["--no-pci", "--single-file-segments", "--file-prefix"]);
        add(&[&format!("{name}-{}", std::process::id())]);
        add(&[match pages::are_huge() {
            true => "--in-memory",
            false => "--no-huge",
        }]);
        add(&["-m", &MEMORY.to_string()]);
        if let Some(bits) = simd {
            add(&[&format!("--force-max-simd-bitwidth={bits}")]);
        }
        for vdev in vdevs {
            add(&["--vdev", vdev]);
        }
        add(&["--", "-i", "--no-mlockall", "--total-num-mbufs=16384"]);
        add(&["--txonly-multi-flow", "--no-lsc-interrupt"]);
        add(&["--disable-link-check"]);
        let mut testpmd = Self(Program::start("dpdk-testpmd", cpu, &words, "quit")?);
        testpmd.wait("")?;
        Ok(testpmd)
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        self.0.pid()
    }

    /// Has port `port` forward packets.
    pub(crate) fn begin(&mut self, port: usize, forward: Forward) -> io::Result<()> {
        self.command(&format!("set portlist {port}"))?;
        match forward {
            Forward::Transmit(len) => {
                self.command("set fwd txonly")?;
                self.command(&format!("set txpkts {len}"))?;
            }
            Forward::Receive => drop(self.command("set fwd rxonly")?),
            Forward::Echo => drop(self.command("set fwd io")?),
        }
        self.command("start")?;
        Ok(())
    }

    /// Stops, and says what was done since the beginning.
    pub(crate) fn end(&mut self) -> io::Result<Forwarded> {
        let said = self.command("stop")?;
        let of = |what: &str| number_behind(&said, what);
        Ok(Forwarded {
            received: of("RX-packets:")?,
            sent: of("TX-packets:")?,
        })
    }

    /// What came to a port and left it since it was opened.
    pub(crate) fn counts(&mut self, port: usize) -> io::Result<Forwarded> {
        let said = self.command(&format!("show port stats {port}"))?;
        Ok(Forwarded {
            received: number_behind(&said, "RX-packets:")?,
            sent: number_behind(&said, "TX-packets:")?,
        })
    }

    fn command(&mut self, line: &str) -> io::Result<String> {
        self.0.tell(line)?;
        self.wait(line)
    }

    /// What is printed until the prompt behind `line`.
    fn wait(&mut self, line: &str) -> io::Result<String> {
        let is_whole = |said: &str| {
            let echoed = said.find(line).map(|at| said.split_at(at).1);
            echoed.is_some_and(|rest| rest.len() > line.len() && rest.ends_with(PROMPT))
        };
        self.0.wait(line, is_whole).map(str::to_owned)
    }
}

/// Why there is none, if there is none.
pub(crate) fn missing() -> Option<String> {
    program::missing("dpdk-testpmd")
        .map(|what| format!("not installed: {what} (apt install dpdk-dev util-linux coreutils)"))
}

/// The number behind the first `what`.
fn number_behind(said: &str, what: &str) -> io::Result<u64> {
    let number = said.split_once(what).and_then(|(_, rest)| {
        let digits = rest.split_whitespace().next()?;
        digits.parse().ok()
    });
    number.ok_or_else(|| io::Error::other(format!("testpmd did not say {what} in: {said}")))
}
