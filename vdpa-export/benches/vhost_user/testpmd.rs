//! `dpdk-testpmd`, as it is installed, driven by its command line: the driver of every row, and one of the devices.

use std::io::{self, Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// How long a command may take on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// What testpmd shows when it is done with a command.
const PROMPT: &str = "testpmd> ";

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
    /// Packets that were made, and for which the ring had no room.
    pub(crate) dropped: u64,
}

/// One that runs on a CPU of its own.
pub(crate) struct Testpmd {
    child: Child,
    stdin: ChildStdin,
    output: Receiver<Vec<u8>>,
}

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
        // Line by line: what it prints is waited for.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "dpdk-testpmd"]);
        command.args(["--lcores", &format!("0@{cpu},1@{cpu}")]);
        command.args(["--no-pci", "--single-file-segments", "--file-prefix"]);
        command.arg(format!("{name}-{}", std::process::id()));
        match huge_pages() {
            true => command.args(["--in-memory", "-m", "256"]),
            false => command.args(["--no-huge", "-m", "256"]),
        };
        if let Some(bits) = simd {
            command.arg(format!("--force-max-simd-bitwidth={bits}"));
        }
        for vdev in vdevs {
            command.args(["--vdev", vdev]);
        }
        command.args(["--", "-i", "--no-mlockall", "--total-num-mbufs=16384"]);
        command.args(["--txonly-multi-flow", "--no-lsc-interrupt"]);
        command.arg("--disable-link-check");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(mut stdout)) = (stdin, stdout) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let (send, output) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut chunk) {
                if send
                    .send(chunk.get(..read).unwrap_or_default().to_vec())
                    .is_err()
                {
                    break;
                }
            }
        });
        let mut testpmd = Self {
            child,
            stdin,
            output,
        };
        testpmd.wait("")?;
        Ok(testpmd)
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
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
            dropped: of("TX-dropped:")?,
        })
    }

    /// So many packets came to a port and left it since it was opened.
    pub(crate) fn counts(&mut self, port: usize) -> io::Result<(u64, u64)> {
        let said = self.command(&format!("show port stats {port}"))?;
        Ok((
            number_behind(&said, "RX-packets:")?,
            number_behind(&said, "TX-packets:")?,
        ))
    }

    fn command(&mut self, line: &str) -> io::Result<String> {
        writeln!(self.stdin, "{line}")?;
        self.wait(line)
    }

    /// What is printed until the prompt behind `line`.
    fn wait(&mut self, line: &str) -> io::Result<String> {
        let by = Instant::now() + PATIENCE;
        let mut said = String::new();
        loop {
            let left = by.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(chunk) => said.push_str(&String::from_utf8_lossy(&chunk)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::Error::other(format!(
                        "testpmd: no answer to '{line}' within {PATIENCE:?}: {said}"
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other(format!("testpmd ended: {said}")));
                }
            }
            let echoed = said.find(line).map(|at| said.split_at(at).1);
            if echoed.is_some_and(|rest| rest.len() > line.len() && rest.ends_with(PROMPT)) {
                return Ok(said);
            }
        }
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _closed = writeln!(self.stdin, "quit");
        let by = Instant::now() + Duration::from_secs(10);
        while Instant::now() < by {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Whether it is installed.
pub(crate) fn is_installed() -> bool {
    let asked = Command::new("sh")
        .args(["-c", "command -v dpdk-testpmd && command -v stdbuf"])
        .stdout(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

/// Whether there were huge pages for two processes of 256 MiB when this was asked first: all peers have the same. Without,
/// memory is of small pages, and all rows slower.
pub(crate) fn huge_pages() -> bool {
    static FREE: OnceLock<u64> = OnceLock::new();
    let free = FREE.get_or_init(|| {
        let free =
            std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
        free.ok()
            .and_then(|free| free.trim().parse().ok())
            .unwrap_or(0)
    });
    *free >= 256
}

/// The number behind the first `what`.
fn number_behind(said: &str, what: &str) -> io::Result<u64> {
    let number = said.split_once(what).and_then(|(_, rest)| {
        let digits = rest.split_whitespace().next()?;
        digits.parse().ok()
    });
    number.ok_or_else(|| io::Error::other(format!("testpmd did not say {what} in: {said}")))
}
