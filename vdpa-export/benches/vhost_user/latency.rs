//! One packet at a time: how long it takes to the driver and back, and what a device costs that has nothing to do.

use std::io;
use std::time::Duration;

use serde_json::json;

use super::args::Run;
use super::child::Peer;
use super::clock::Stretch;
use super::net::{DEVICE_CPU, DRIVER_CPU};
use super::report::Report;
use super::testpmd::{self, Forward, Testpmd};

/// Bytes of a frame.
const LEN: usize = 64;

/// How long a worker polls what is quiet before it sleeps, and what that is called.
const POLLS: [(&str, &str); 2] = [("50", "polls for 50 us"), ("0", "sleeps at once")];

/// Both tables.
pub(super) fn measure(run: &Run, report: &mut Report) -> Result<(), String> {
    if !testpmd::is_installed() {
        report.skip(
            "latency",
            "not installed: dpdk-testpmd (apt install dpdk-dev) or stdbuf",
        );
        return Ok(());
    }
    report.title(
        "one frame of 64 bytes from our device to dpdk-testpmd's driver, which polls, and back; then none at all",
    );
    for (poll, name) in POLLS {
        measure_one(run, report, poll, name).map_err(|e| format!("latency, {name}: {e}"))?;
    }
    Ok(())
}

fn measure_one(run: &Run, report: &mut Report, poll: &str, name: &str) -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("ours").to_string_lossy().into_owned();
    let mut device = Peer::start("ours", DEVICE_CPU, &[&socket, poll])?;
    let port = format!("net_virtio_user0,path={socket},queues=1,queue_size=256,packed_vq=1");
    let mut driver = Testpmd::start(DRIVER_CPU, "driver", &[port], None)?;
    driver.begin(0, Forward::Echo)?;
    device.tell(&format!("ping {LEN}"))?;
    std::thread::sleep(run.slice);
    device.tell("idle")?;
    let counts = numbers(&device.tell("counts")?);
    let trips = numbers(&device.tell("trips")?);
    driver.end()?;
    // Whatever it polled for is over.
    std::thread::sleep(Duration::from_millis(100));
    let idle = Stretch::begin(device.pid());
    std::thread::sleep(Duration::from_secs(1));
    let (_, cpu) = idle.end();
    let ([_, _, bad, missing], [trips, p50, p99]) = (&*counts, &*trips) else {
        return Err(io::Error::other(
            "the child does not say what it has counted",
        ));
    };
    let verified = *bad == 0 && *missing == 0 && *trips != 0;
    report.line(
        &format!(
            "{name:<22} {trips} round trips: p50 {p50} ns, p99 {p99} ns; idle {:.1} ms of CPU in a second{}",
            cpu * 1e3,
            if verified { "" } else { " NOT VERIFIED" }
        ),
        &json!({
            "bench": "vhost_user", "table": "latency", "mode": name, "bytes": LEN, "round_trips": trips,
            "p50_ns": p50, "p99_ns": p99, "idle_cpu_ms_per_second": cpu * 1e3, "verified": verified,
        }),
        verified,
    );
    Ok(())
}

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ')
        .filter_map(|word| word.parse().ok())
        .collect()
}
