//! How fast is the vhost-user back end, beside DPDK's and rust-vmm's, under a driver that nobody here wrote?
//!
//! ```text
//!   CPU 0: dpdk-testpmd, one virtio-user port a peer        CPU 1
//!          port 0 ───────── socket ───────────▶  ours: vdpa-export over vdpa-sim       (a child of this program)
//!          port 1 ───────── socket ───────────▶  DPDK's net_vhost in another testpmd
//!          port 2 ───────── socket ───────────▶  rust-vmm's vhost-user-backend         (a child of this program)
//! ```
//! The driver forwards on one port at a time, and the others' devices sleep or are stopped, so that A B C A B C is a matter
//! of milliseconds and one driver process does it all. Ratios are taken within a round.
//!
//! ```sh
//! cargo bench -p vdpa-export --bench vhost_user -- --json rows.jsonl
//! cargo bench -p vdpa-export --bench vhost_user -- --only net --rounds 5 --seconds 3
//! cargo bench -p vdpa-export --bench vhost_user -- --rows "packed mrg, 64 bytes"
//! ```
//! It needs `dpdk-testpmd` (Debian: dpdk-dev), two CPUs with nothing else to do, and
//! 256 huge pages of 2 MiB; without these, memory is of small pages for all peers, and the rows say so. What is missing is
//! skipped by name.

mod args;
mod child;
mod clock;
mod latency;
mod net;
mod ours;
mod report;
mod rustvmm;
mod stamp;
mod testpmd;
mod work;

use std::process::ExitCode;

use args::Run;

fn main() -> ExitCode {
    if let Some(role) = child::role() {
        let words: Vec<String> = std::env::args().skip(1).collect();
        return match play(&role, &words) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{role}: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let Some(run) = Run::from_args() else {
        println!("SKIP bench vhost_user: nothing is measured by `cargo test`");
        return ExitCode::SUCCESS;
    };
    match measure(&run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A child.
fn play(role: &str, words: &[String]) -> Result<(), String> {
    let socket = words.first().ok_or("no socket")?;
    match role {
        "ours" => ours::child(socket, words.get(1).map(String::as_str)),
        "rustvmm" => rustvmm::child(socket),
        other => Err(format!("there is no such child: {other}")),
    }
}

fn measure(run: &Run) -> Result<(), String> {
    let mut report = report::Report::new(run);
    if run.wants("net") {
        net::measure(run, &mut report)?;
    }
    if run.wants("latency") {
        latency::measure(run, &mut report)?;
    }
    match report.wrong() {
        0 => Ok(()),
        rows => Err(format!("{rows} rows were not verified")),
    }
}
