//! What is printed: a line when it can be asked, one now and then, and one at the end.

use std::collections::BTreeMap;

use serde::Serialize;
use vdpa::core::DeviceType;
use vdpa::net::OFFLOADS;
use vdpa::net::smoltcp::Traffic;

use super::service::{Answered, Service};
use crate::failure::Failure;
use crate::number::{count, grouped};
use crate::options::Echo;
use crate::output::Output;

/// Who answers, and how it can be asked.
#[derive(Serialize)]
pub(super) struct Ready {
    event: &'static str,
    spec: String,
    mac: Option<String>,
    addresses: Vec<String>,
    port: u16,
    mtu: u16,
    ring: &'static str,
    pairs: u16,
    offloads: Vec<String>,
}

/// What was received, answered and sent so far.
#[derive(Serialize)]
pub(super) struct Totals {
    event: &'static str,
    received: Counted,
    sent: Counted,
    pairs: Vec<Pair>,
    datagrams: u64,
    datagram_bytes: u64,
    connections: u64,
    stream_bytes: u64,
    /// How often all connections ended over what a peer had sent.
    broken: u64,
    malformed: u64,
    wrong_checksums: u64,
    /// What the device itself has counted, where it counts.
    device: BTreeMap<String, u64>,
}

#[derive(Serialize, Clone, Copy, Default)]
struct Counted {
    frames: u64,
    bytes: u64,
    large: u64,
    partial: u64,
}

#[derive(Serialize)]
struct Pair {
    received: Counted,
    sent: Counted,
}

impl Ready {
    pub(super) fn of(options: &Echo, service: &Service) -> Self {
        let driver = service.phy().driver();
        let offloads = driver.features() & OFFLOADS;
        Self {
            event: "ready",
            spec: options.spec.clone(),
            mac: driver.ethernet().mac.map(|mac| mac.to_string()),
            addresses: service
                .addresses()
                .iter()
                .map(ToString::to_string)
                .collect(),
            port: options.port,
            mtu: driver.ethernet().mtu,
            ring: options.ring.name(),
            pairs: driver.pairs(),
            offloads: offloads
                .names(DeviceType::Net)
                .map(|name| name.to_string())
                .collect(),
        }
    }

    pub(super) fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        let paint = output.paint();
        let offloads = match self.offloads.is_empty() {
            true => "no offloads".to_owned(),
            false => self.offloads.join(" "),
        };
        output.say(&format!(
            "{} {} at {}: ping, UDP and TCP port {}",
            paint.good("answering"),
            self.spec,
            self.addresses.join(", "),
            self.port
        ))?;
        output.say(&format!(
            "{} {} rings, {}, MTU {}, {offloads}",
            paint.name("with     "),
            self.ring,
            count(self.pairs.into(), "pair"),
            self.mtu
        ))?;
        Ok(())
    }
}

impl Totals {
    pub(super) fn of(event: &'static str, service: &Service) -> Self {
        let phy = service.phy();
        let driver = phy.driver();
        let pairs: Vec<Pair> = (0..driver.pairs())
            .map(|pair| Pair {
                received: phy.received(pair).into(),
                sent: phy.sent(pair).into(),
            })
            .collect();
        let mut device = BTreeMap::new();
        // A device that does not count has nothing to add.
        let _counts = driver.control().device().stats(&mut |name, value| {
            device.insert(name.to_owned(), value);
        });
        let Answered {
            datagrams,
            datagram_bytes,
            connections,
            stream_bytes,
            broken,
        } = service.answered();
        Self {
            event,
            received: sum(pairs.iter().map(|pair| pair.received)),
            sent: sum(pairs.iter().map(|pair| pair.sent)),
            pairs,
            datagrams,
            datagram_bytes,
            connections,
            stream_bytes,
            broken,
            malformed: driver.malformed(),
            wrong_checksums: phy.wrong_checksums(),
            device,
        }
    }

    pub(super) fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        let paint = output.paint();
        output.say(&format!(
            "{} received {} ({} large), sent {} ({} large); {}, {}, {} bytes of streams",
            paint.name(format!("{:<10}", self.event)),
            count(self.received.frames, "frame"),
            grouped(self.received.large),
            count(self.sent.frames, "frame"),
            grouped(self.sent.large),
            count(self.datagrams, "datagram"),
            count(self.connections, "connection"),
            grouped(self.stream_bytes),
        ))?;
        for (what, dropped) in [
            ("header that cannot be", self.malformed),
            ("wrong checksum", self.wrong_checksums),
        ] {
            if dropped > 0 {
                let dropped = count(dropped, "frame");
                output.say(&format!("{} {dropped}: {what}", paint.bad("dropped")))?;
            }
        }
        Ok(())
    }
}

impl From<Traffic> for Counted {
    fn from(traffic: Traffic) -> Self {
        Self {
            frames: traffic.frames,
            bytes: traffic.bytes,
            large: traffic.large,
            partial: traffic.partial,
        }
    }
}

fn sum(all: impl Iterator<Item = Counted>) -> Counted {
    all.fold(Counted::default(), |sum, one| Counted {
        frames: sum.frames + one.frames,
        bytes: sum.bytes + one.bytes,
        large: sum.large + one.large,
        partial: sum.partial + one.partial,
    })
}
