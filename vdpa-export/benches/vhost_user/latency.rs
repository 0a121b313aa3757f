//! One packet at a time: how long it takes to a device and back, and what a device costs that has nothing to do.
//!
//! ```text
//!   CPU 0: our driver, which polls, one process a device      CPU 1
//!          ───────── socket ─────────▶  ours, whose worker polls for a while before it sleeps, or sleeps at once
//!          ───────── socket ─────────▶  DPDK's net_vhost in testpmd: `io`, which polls, always
//!          ───────── socket ─────────▶  rust-vmm's: it polls as well
//! ```

use std::io;
use std::time::Duration;

use serde_json::json;

use super::args::Run;
use super::child::Peer;
use super::clock::Stretch;
use super::ends::{DEVICE_CPU, DRIVER_CPU};
use super::forecast::Cost;
use super::home::Home;
use super::report::{Report, Spread};
use super::testpmd::{self, Forward, Testpmd};

/// Bytes of a frame.
const LEN: usize = 64;

/// The ring that all devices have.
const RING: &str = "split";

/// How long a device has to come to rest before it is watched.
const REST: Duration = Duration::from_millis(100);

/// The devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Polls,
    Sleeps,
    Dpdk,
    Rustvmm,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Polls, Self::Sleeps, Self::Dpdk, Self::Rustvmm];

    fn name(self) -> &'static str {
        match self {
            Self::Polls => "ours, polls for 50 us",
            Self::Sleeps => "ours, sleeps at once",
            Self::Dpdk => "dpdk, polls",
            Self::Rustvmm => "rustvmm, polls",
        }
    }

    /// A word for files.
    fn key(self) -> &'static str {
        match self {
            Self::Polls => "polls",
            Self::Sleeps => "sleeps",
            Self::Dpdk => "dpdk",
            Self::Rustvmm => "rustvmm",
        }
    }

    fn is_wanted(self, run: &Run) -> bool {
        run.wants_row(self.name()) && (self != Self::Dpdk || testpmd::missing().is_none())
    }
}

enum Device {
    Child(Peer),
    Dpdk(Testpmd),
}

impl Device {
    fn start(kind: Kind, socket: &str) -> io::Result<Self> {
        let ours = |us: &str| {
            let spec = format!("sim:net,port=loopback,queue_size=1024,poll_us={us}");
            Peer::start("served", DEVICE_CPU, &[socket, &spec]).map(Self::Child)
        };
        match kind {
            Kind::Polls => ours("50"),
            Kind::Sleeps => ours("0"),
            Kind::Dpdk => {
                let vdev = format!("net_vhost0,iface={socket},queues=1");
                Testpmd::start(DEVICE_CPU, "device", &[vdev], None).map(Self::Dpdk)
            }
            Kind::Rustvmm => Peer::start("rustvmm", DEVICE_CPU, &[socket]).map(Self::Child),
        }
    }

    fn pid(&self) -> nix::unistd::Pid {
        match self {
            Self::Child(peer) => peer.pid(),
            Self::Dpdk(testpmd) => testpmd.pid(),
        }
    }

    /// Sends back what comes, until [`rest`](Self::rest).
    fn reflect(&mut self, kind: Kind) -> io::Result<()> {
        match self {
            // Its port does, always.
            Self::Child(_) if kind != Kind::Rustvmm => Ok(()),
            Self::Child(peer) => peer.told("reflect"),
            Self::Dpdk(testpmd) => testpmd.begin(0, Forward::Echo),
        }
    }

    fn rest(&mut self, kind: Kind) -> io::Result<()> {
        match self {
            Self::Child(_) if kind != Kind::Rustvmm => Ok(()),
            Self::Child(peer) => peer.told("idle"),
            Self::Dpdk(testpmd) => testpmd.end().map(drop),
        }
    }
}

/// One of the table, and what was measured of it.
struct Line {
    kind: Kind,
    device: Device,
    driver: Peer,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Milliseconds of CPU in a second of nothing to do.
    idle: Vec<f64>,
    trips: u64,
    verified: bool,
}

/// How long an idle device is watched.
fn idle(slice: Duration) -> Duration {
    slice.min(Duration::from_secs(1))
}

/// How long it takes.
pub(crate) fn cost(run: &Run) -> Cost {
    let lines = Kind::ALL.iter().filter(|kind| kind.is_wanted(run)).count();
    let watches = u32::try_from(lines).unwrap_or(u32::MAX);
    Cost {
        samples: lines * run.rounds,
        starts: 1,
        waits: (idle(run.slice) + REST) * watches,
    }
}

/// The table.
pub(crate) fn measure(run: &Run, home: &Home, report: &mut Report) -> Result<(), String> {
    if let Some(why) = testpmd::missing() {
        report.skip("latency", "latency, dpdk", &why);
    }
    report.title(
        "one frame of 64 bytes from our driver, which polls, to a device and back; then none at all",
    );
    measure_all(run, home, report).map_err(|e| format!("latency: {e}"))
}

fn measure_all(run: &Run, home: &Home, report: &mut Report) -> io::Result<()> {
    let mut lines = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_wanted(run)) {
        let socket = home.socket(kind.key());
        let device = Device::start(kind, &socket)?;
        lines.push(Line {
            kind,
            device,
            driver: Peer::start("driver", DRIVER_CPU, &[&socket, RING])?,
            p50: Vec::new(),
            p99: Vec::new(),
            idle: Vec::new(),
            trips: 0,
            verified: true,
        });
    }
    for round in 0..run.rounds {
        for line in &mut lines {
            line.measure(run.slice, round == 0)
                .map_err(|e| io::Error::other(format!("{}: {e}", line.kind.name())))?;
        }
    }
    for line in &lines {
        line.tell(report);
    }
    Ok(())
}

impl Line {
    fn measure(&mut self, slice: Duration, is_first: bool) -> io::Result<()> {
        self.device.reflect(self.kind)?;
        self.driver.told(&format!("ping {LEN}"))?;
        std::thread::sleep(slice);
        self.driver.told("idle")?;
        if is_first {
            // Whatever it polled for is over.
            std::thread::sleep(REST);
            let watched = Stretch::begin(self.device.pid());
            std::thread::sleep(idle(slice));
            let (seconds, cpu) = watched.end();
            self.idle.push(cpu / seconds * 1e3);
        }
        self.device.rest(self.kind)?;
        let [sent, received, bad, missing] = self.driver.numbers("counts")?;
        let [trips, p50, p99] = self.driver.numbers("trips")?;
        self.verified &= sent == received && bad == 0 && missing == 0 && trips != 0;
        self.trips += trips;
        self.p50.push(p50 as f64);
        self.p99.push(p99 as f64);
        Ok(())
    }

    fn tell(&self, report: &mut Report) {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        let (Some(p50), Some(p99), Some(idle)) =
            (spread(&self.p50), spread(&self.p99), spread(&self.idle))
        else {
            return;
        };
        let idle = (idle.median * 10.0).round() / 10.0;
        report.line(
            "latency",
            &format!(
                "{:<22} p50 {} ns ({}..{}), p99 {} ns ({}..{}) of {} round trips; idle {idle:.1} ms of CPU in a second{}",
                self.kind.name(),
                p50.median,
                p50.min,
                p50.max,
                p99.median,
                p99.min,
                p99.max,
                self.trips,
                if self.verified { "" } else { " NOT VERIFIED" }
            ),
            json!({
                "mode": self.kind.name(), "ring": RING, "size": LEN, "round_trips": self.trips,
                "p50_ns": p50.json(), "p99_ns": p99.json(), "idle_cpu_ms_per_second": idle,
            }),
            self.verified,
        );
    }
}
