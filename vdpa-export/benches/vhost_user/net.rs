//! Packets: one virtio-user driver, three devices.

use std::io;
use std::time::Duration;

use super::args::Run;
use super::child::Peer;
use super::clock::Stretch;
use super::report::{Report, Row, Sample};
use super::testpmd::{self, Forward, Forwarded, Testpmd};

/// Where the driver and the devices run.
pub(super) const DRIVER_CPU: usize = 0;
pub(super) const DEVICE_CPU: usize = 1;

/// How long traffic runs before it is looked at.
const WARM: Duration = Duration::from_millis(60);

/// How the ring is laid out and used: the words of DPDK's virtio-user.
struct Mode {
    name: &'static str,
    words: &'static str,
    /// Bits of the driver's vectors.
    simd: Option<u32>,
}

const MODES: [Mode; 4] = [
    Mode {
        name: "split mrg",
        words: "packed_vq=0,mrg_rxbuf=1,in_order=0",
        simd: None,
    },
    Mode {
        name: "packed mrg",
        words: "packed_vq=1,mrg_rxbuf=1,in_order=0",
        simd: None,
    },
    Mode {
        name: "packed in-order mrg",
        words: "packed_vq=1,mrg_rxbuf=1,in_order=1",
        simd: None,
    },
    Mode {
        name: "packed vectorised",
        words: "packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1",
        simd: Some(512),
    },
];

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    ToHost,
    ToGuest,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ToHost => "guest to host",
            Self::ToGuest => "host to guest",
        }
    }
}

/// In this order: what the driver sends has nothing behind its headers as long as nothing came before.
const WAYS: [Way; 2] = [Way::ToHost, Way::ToGuest];

/// Bytes of a frame.
const SIZES: [usize; 2] = [64, 1500];

/// A row, as `--rows` picks it.
fn name(mode: &Mode, len: usize, way: Way) -> String {
    format!("{}, {len} bytes, {}", mode.name, way.name())
}

/// What a device did between two orders, and what it thinks of it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Done {
    sent: u64,
    received: u64,
    bad: u64,
    /// How many are missing; `None`: it does not look.
    missing: Option<u64>,
}

/// A device.
pub(super) enum Device {
    Child(Peer),
    Dpdk(Testpmd),
}

impl Device {
    pub(super) fn pid(&self) -> nix::unistd::Pid {
        match self {
            Self::Child(peer) => peer.pid(),
            Self::Dpdk(testpmd) => testpmd.pid(),
        }
    }

    /// Begins to take packets, or to send them.
    fn begin(&mut self, way: Way, len: usize) -> io::Result<()> {
        match self {
            Self::Child(peer) => {
                let order = match way {
                    Way::ToHost => "sink".to_owned(),
                    Way::ToGuest => format!("source {len}"),
                };
                peer.tell(&order)?;
            }
            Self::Dpdk(testpmd) => testpmd.begin(
                0,
                match way {
                    Way::ToHost => Forward::Receive,
                    Way::ToGuest => Forward::Transmit(len),
                },
            )?,
        }
        Ok(())
    }

    /// Stops.
    fn end(&mut self) -> io::Result<Done> {
        match self {
            Self::Child(peer) => {
                peer.tell("idle")?;
                let counts = peer.tell("counts")?;
                let counts: Vec<u64> = counts
                    .split(' ')
                    .filter_map(|count| count.parse().ok())
                    .collect();
                let [sent, received, bad, missing] = *counts else {
                    return Err(io::Error::other(format!("the child counts {counts:?}")));
                };
                Ok(Done {
                    sent,
                    received,
                    bad,
                    missing: Some(missing),
                })
            }
            Self::Dpdk(testpmd) => {
                let Forwarded { received, sent, .. } = testpmd.end()?;
                Ok(Done {
                    sent,
                    received,
                    ..Done::default()
                })
            }
        }
    }
}

/// All modes, sizes and directions.
pub(super) fn measure(run: &Run, report: &mut Report) -> Result<(), String> {
    if !testpmd::is_installed() {
        report.skip(
            "net",
            "not installed: dpdk-testpmd (apt install dpdk-dev) or stdbuf",
        );
        return Ok(());
    }
    report.title(
        "packets under one dpdk-testpmd virtio-user driver: Mpps (Mpps a CPU second of the device) = ours times theirs",
    );
    for mode in &MODES {
        if !WAYS.iter().any(|way| {
            SIZES
                .iter()
                .any(|len| run.wants_row(&name(mode, *len, *way)))
        }) {
            continue;
        }
        if mode.simd == Some(512) && !has_avx512() {
            report.skip(
                &format!("net, {}", mode.name),
                "this CPU has no AVX-512 (f, bw, vl)",
            );
            continue;
        }
        measure_mode(run, report, mode).map_err(|e| format!("{}: {e}", mode.name))?;
    }
    Ok(())
}

fn has_avx512() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    ["avx512f", "avx512bw", "avx512vl"]
        .iter()
        .all(|flag| flags.contains(flag))
}

fn measure_mode(run: &Run, report: &mut Report, mode: &Mode) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
    let socket = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let fail = |e: io::Error| e.to_string();
    let dpdk = format!("net_vhost0,iface={},queues=1", socket("dpdk"));
    let mut devices = [
        (
            "ours",
            Device::Child(Peer::start("ours", DEVICE_CPU, &[&socket("ours")]).map_err(fail)?),
        ),
        (
            "dpdk",
            Device::Dpdk(Testpmd::start(DEVICE_CPU, "device", &[dpdk], None).map_err(fail)?),
        ),
        (
            "rustvmm",
            Device::Child(Peer::start("rustvmm", DEVICE_CPU, &[&socket("rustvmm")]).map_err(fail)?),
        ),
    ];
    let ports: Vec<String> = devices
        .iter()
        .zip(0..)
        .map(|((name, _), number)| {
            let (socket, words) = (socket(name), mode.words);
            format!("net_virtio_user{number},path={socket},queues=1,queue_size=1024,{words}")
        })
        .collect();
    let mut driver = Testpmd::start(DRIVER_CPU, "driver", &ports, mode.simd).map_err(fail)?;
    for way in WAYS {
        for len in SIZES {
            if !run.wants_row(&name(mode, len, way)) {
                continue;
            }
            let mut row = Row {
                table: "net",
                facts: vec![
                    ("mode", mode.name.into()),
                    ("bytes", len.into()),
                    ("direction", way.name().into()),
                ],
                unit: "packets",
                peers: devices
                    .iter()
                    .map(|(name, _)| (*name, Vec::new()))
                    .collect(),
                wrong: Vec::new(),
            };
            for _ in 0..run.rounds {
                for (port, (name, device)) in devices.iter_mut().enumerate() {
                    let (sample, wrong) =
                        measure_once(&mut driver, port, device, way, len, run.slice)
                            .map_err(|e| format!("{name}: {e}"))?;
                    row.peers[port].1.push(sample);
                    row.wrong
                        .extend(wrong.map(|wrong| format!("{name}: {wrong}")));
                }
            }
            report.row(&row);
        }
    }
    Ok(())
}

/// One peer in one round. Answers with what was wrong, too.
pub(super) fn measure_once(
    driver: &mut Testpmd,
    port: usize,
    device: &mut Device,
    way: Way,
    len: usize,
    slice: Duration,
) -> io::Result<(Sample, Option<String>)> {
    let forward = match way {
        Way::ToHost => Forward::Transmit(len),
        Way::ToGuest => Forward::Receive,
    };
    // Whoever receives begins.
    if way == Way::ToHost {
        device.begin(way, len)?;
        driver.begin(port, forward)?;
    } else {
        driver.begin(port, forward)?;
        device.begin(way, len)?;
    }
    std::thread::sleep(WARM);
    let pick = |(received, sent): (u64, u64)| match way {
        Way::ToHost => sent,
        Way::ToGuest => received,
    };
    let before = pick(driver.counts(port)?);
    let stretch = Stretch::begin(device.pid());
    std::thread::sleep(slice);
    let after = pick(driver.counts(port)?);
    let (seconds, cpu) = stretch.end();
    // Whoever sends ends, and the other one takes what is left.
    let (forwarded, done) = if way == Way::ToHost {
        let forwarded = driver.end()?;
        std::thread::sleep(WARM);
        (forwarded, device.end()?)
    } else {
        let done = device.end()?;
        std::thread::sleep(WARM);
        (driver.end()?, done)
    };
    let sample = Sample {
        count: after - before,
        seconds,
        cpu,
    };
    Ok((sample, wrong(way, forwarded, done)))
}

/// What is wrong with what went over.
fn wrong(way: Way, driver: Forwarded, device: Done) -> Option<String> {
    if device.bad != 0 {
        return Some(format!("{} packets altered", device.bad));
    }
    let (sent, received) = match way {
        Way::ToHost => (driver.sent, device.received),
        Way::ToGuest => (device.sent, driver.received),
    };
    if sent != received || sent == 0 {
        return Some(format!("{sent} packets sent, {received} received"));
    }
    // Of those that it has no room for the driver takes the count back.
    device
        .missing
        .filter(|missing| *missing != 0)
        .map(|missing| format!("{missing} packets missing in the order"))
}
