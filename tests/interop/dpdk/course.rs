//! A testpmd that puts captures through two devices, both ways at once, and what must come of it.
//!
//! ```text
//!   in0 ─▶ net_pcap0 ─▶ virtio-user 0 ─▶ device A ═══ device B ─▶ virtio-user 1 ─▶ net_pcap1 ─▶ out1
//!  out0 ◀─ net_pcap0 ◀─ virtio-user 0 ◀─ device A ═══ device B ◀─ virtio-user 1 ◀─ net_pcap1 ◀─ in1
//! ```
//! Each with a file for each queue. Its ports are, in this order, 0 to 3.

use std::path::{Path, PathBuf};

use super::frames;
use super::modes::Mode;
use super::served::{Makes, sockets};
use super::testpmd::{Setup, Testpmd, number};

/// Frames of a queue: some times its size.
const FRAMES: usize = 2000;
/// The ports that read and write captures.
const CAPTURES: [u16; 2] = [0, 3];
/// The ports that drive the devices.
pub(crate) const DRIVERS: [u16; 2] = [1, 2];

/// Two devices, and a testpmd that is to drive both.
pub(crate) struct Course {
    mode: Mode,
    pairs: u16,
    home: PathBuf,
    pub(crate) testpmd: Testpmd,
}

impl Course {
    /// Starts the drivers: they have met their devices, and are in the mode that was asked for.
    #[track_caller]
    pub(crate) fn begin(mode: Mode, pairs: u16, home: &Path, makes: Makes) -> Self {
        for end in 0..2 {
            for queue in 0..pairs {
                frames::write(&file(home, "in", end, queue), &sent(end, queue));
            }
        }
        let mut words = Vec::new();
        if mode.mergeable {
            // The longest frames are spread over four of these.
            words.extend(["--mbuf-size=512", "--disable-device-start"].map(str::to_owned));
        }
        let [a, b] = [0, 1].map(|end| driver(end, mode, pairs, home, makes));
        let [first, last] = [0, 1].map(|end| captures(end, pairs, home));
        let mut testpmd = Testpmd::start(&Setup {
            // A stream each: what is sent may wait for what is received, and the other way round never.
            cores: 4 * usize::from(pairs),
            devices: vec![first, a, b, last],
            pairs,
            words,
        });
        if mode.mergeable {
            for port in DRIVERS {
                testpmd.ask(&format!("port config {port} rx_offload scatter on"));
            }
            testpmd.ask("port start all");
        }
        for port in DRIVERS {
            mode.is_taken(port, &testpmd.log());
            testpmd.link_is(port, "up");
        }
        Self {
            mode,
            pairs,
            home: home.to_owned(),
            testpmd,
        }
    }

    /// Begins to send.
    #[track_caller]
    pub(crate) fn go(&mut self) {
        self.testpmd.forward("io");
    }

    /// Waits until at least so many frames have come out at each end.
    #[track_caller]
    pub(crate) fn comes(&mut self, count: u64) {
        for port in CAPTURES {
            let stats = format!("show port stats {port}");
            self.testpmd
                .ask_until(&stats, |answer| number(answer, "TX-packets:") >= count);
        }
    }

    /// Waits for all of it, and compares: byte for byte, queue by queue, nothing lost, doubled, or out of its order.
    #[track_caller]
    pub(crate) fn arrives(&mut self) {
        self.comes(FRAMES as u64 * u64::from(self.pairs));
        self.testpmd.stop_forwarding();
        for end in 0..2 {
            for queue in 0..self.pairs {
                let path = file(&self.home, "out", end, queue);
                let what = format!("{:?}, {} pairs: {}", self.mode, self.pairs, path.display());
                frames::same(&what, &frames::read(&path), &sent(1 - end, queue));
            }
        }
    }

    /// Stops all ports and starts them: the captures are read and written from their beginning. The devices are told
    /// nothing of it, and are at work meanwhile.
    #[track_caller]
    pub(crate) fn again(&mut self) {
        self.stop();
        self.testpmd.ask("port start all");
    }

    /// The same, with other features: the drivers have their rings stopped, and begin with others.
    ///
    /// * `checksums`: whether they want to be told of them; another choice than the last one, or nothing is negotiated
    #[track_caller]
    pub(crate) fn anew(&mut self, checksums: bool) {
        self.stop();
        let wanted = if checksums { "on" } else { "off" };
        for port in DRIVERS {
            self.testpmd
                .ask(&format!("port config {port} rx_offload udp_cksum {wanted}"));
        }
        self.testpmd.ask("port start all");
    }

    #[track_caller]
    fn stop(&mut self) {
        self.testpmd.stop_forwarding();
        self.testpmd.ask("port stop all");
        self.testpmd.ask("clear port stats all");
    }
}

fn file(home: &Path, what: &str, end: usize, queue: u16) -> PathBuf {
    home.join(format!("{what}{end}.{queue}.pcap"))
}

/// What is put in at this end.
fn sent(end: usize, queue: u16) -> Vec<Vec<u8>> {
    let flow = 1 + queue.to_le_bytes()[0] * 2 + u8::from(end != 0);
    frames::frames(flow, FRAMES)
}

fn driver(end: usize, mode: Mode, pairs: u16, home: &Path, makes: Makes) -> String {
    let path = &sockets(home)[end];
    let server = u8::from(makes == Makes::FrontEnd);
    format!(
        "net_virtio_user{end},path={},server={server},queues={pairs},queue_size=256,{}",
        path.display(),
        mode.options()
    )
}

fn captures(end: usize, pairs: u16, home: &Path) -> String {
    let mut text = format!("net_pcap{end}");
    for queue in 0..pairs {
        for (key, what) in [("rx_pcap", "in"), ("tx_pcap", "out")] {
            let path = file(home, what, end, queue);
            text.push_str(&format!(",{key}={}", path.display()));
        }
    }
    text
}
