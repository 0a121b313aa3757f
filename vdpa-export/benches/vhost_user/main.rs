//! How fast is the vhost-user end, beside DPDK's, rust-vmm's and QEMU's, under drivers that nobody here wrote; and our
//! driver on a device that nobody here wrote?
//!
//! ```text
//!   CPU 0: dpdk-testpmd, one virtio-user port a peer        CPU 1
//!          port 0 ───────── socket ───────────▶  ours: vdpa-export over vdpa-sim       (a child of this program)
//!          port 1 ───────── socket ───────────▶  DPDK's net_vhost in another testpmd
//!          port 2 ───────── socket ───────────▶  rust-vmm's vhost-user-backend         (a child of this program)
//! ```
//! The driver forwards on one port at a time, and the others' devices sleep or are stopped, so that A B C A B C is a matter
//! of milliseconds and one driver process does it all. Ratios are taken within a round. This is table `net`; `mirror`,
//! `block` and `latency` are drawn in the modules of these names. In all of them drivers are on CPU 0, devices on CPU 1.
//!
//! ```sh
//! cargo bench -p vdpa-export --bench vhost_user -- --json rows.jsonl --rounds 5 --seconds 3 --plot rows.svg
//! cargo bench -p vdpa-export --bench vhost_user -- --only mirror+block
//! cargo bench -p vdpa-export --bench vhost_user -- --rows "packed mrg, 64 bytes"
//! cargo bench -p vdpa-export --bench vhost_user -- --plot-from rows.jsonl rows.svg
//! cargo bench -p vdpa-export --bench vhost_user -- --test    # does it work? seconds
//! ```
//! It needs `dpdk-testpmd` (Debian: dpdk-dev) and `qemu-storage-daemon` (qemu-utils), and two CPUs with nothing else
//! to do. As root it reserves 264 huge pages of 2 MiB for as long as it runs; where it cannot, memory is of small pages for
//! all peers. What is missing is skipped by name, and the exit code is 0; 1: a row was not verified, or a peer failed; 2:
//! wrong arguments.
//!
//! # A row of `--json`
//! A line is an object: `schema` (1), `bench`, `table`; `mode`, `size` (bytes), `direction`, `depth` of requests;
//! `rounds`, `seconds`, `huge_pages`, `verified`. `mpps` {ours, dpdk, rustvmm} and `packets_per_cpu_second` of the device, or
//! `iops` {ours, qsd} and `requests_per_cpu_second`: medians; null of one that was not measured. `ratio` {median, min, max}
//! is ours times the peer that `against` names: of packets a second, of requests a CPU second; `floor` and `goal` are its
//! targets. `ratio_rustvmm`, and `ratio_per_cpu_second` or `ratio_iops`, likewise. Of latencies: `p50_ns`, `p99_ns` {median,
//! min, max} over the rounds, `idle_cpu_ms_per_second`. What was skipped has `skipped`, `why`, and `rows` null.

mod args;
mod block;
mod blocks;
mod child;
mod clock;
mod disk;
mod driver;
mod ends;
mod forecast;
mod home;
mod latency;
mod mirror;
mod net;
mod ours;
mod pages;
mod plot;
mod program;
mod report;
mod rustvmm;
mod served;
mod stamp;
mod testpmd;
mod work;

use std::process::ExitCode;

use args::{Asked, Run};
use home::Home;
use pages::Pages;
use report::Report;

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
    let done = match Asked::from_args(std::env::args().skip(1)) {
        Ok(Asked::Nothing) => {
            println!("SKIP bench vhost_user: nothing is measured by `cargo test`");
            Ok(())
        }
        Ok(Asked::Measure(run)) if forecast(&run).samples == 0 => {
            eprintln!("error: --rows: no row of the tables wanted has that in its name");
            return ExitCode::from(2);
        }
        // What cannot be written is told before it is measured for minutes.
        Ok(Asked::Measure(run)) => match Report::new(&run) {
            Ok(report) => measure(&run, report),
            Err(why) => {
                eprintln!("error: {why}");
                return ExitCode::from(2);
            }
        },
        Ok(Asked::Draw { from, to }) => plot::draw_file(&from, &to),
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A child.
fn play(role: &str, words: &[String]) -> Result<(), String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (role, &*words) {
        ("ours", &[socket]) => ours::child(socket),
        ("rustvmm", &[socket]) => rustvmm::child(socket),
        ("served", &[socket, spec]) => served::child(socket, spec),
        ("driver", &[socket, ring]) => driver::child(socket, ring),
        ("disk", &[socket]) => disk::child(socket),
        ("blocks", &[socket, ring, pages]) => blocks::child(socket, ring, pages),
        _ => Err(format!("there is no such child, with {words:?}")),
    }
}

/// What a table takes, and how it is made.
type Table = (
    &'static str,
    fn(&Run) -> forecast::Cost,
    fn(&Run, &Home, &mut Report) -> Result<(), String>,
);

const TABLES: [Table; 4] = [
    ("net", net::cost, net::measure),
    ("mirror", mirror::cost, mirror::measure),
    ("block", block::cost, block::measure),
    ("latency", latency::cost, latency::measure),
];

/// What the tables wanted take.
fn forecast(run: &Run) -> forecast::Cost {
    let wanted = TABLES.iter().filter(|(name, ..)| run.wants(name));
    wanted.fold(forecast::Cost::NONE, |cost, (_, more, _)| {
        cost.plus(more(run))
    })
}

fn measure(run: &Run, mut report: Report) -> Result<(), String> {
    let wanted = || TABLES.iter().filter(|(name, ..)| run.wants(name));
    let names: Vec<&str> = wanted().map(|(name, ..)| *name).collect();
    let home = Home::new().map_err(|e| e.to_string())?;
    let _pages = Pages::reserve();
    println!(
        "vhost_user: {}; {} rounds of {} s; about {}; {} pages",
        names.join(", "),
        run.rounds,
        run.slice.as_secs_f64(),
        spoken(forecast(run).time(run)),
        pages::word(),
    );
    // What one table cannot do says nothing of the others.
    let mut failed = Vec::new();
    for (name, _, measure) in wanted() {
        if let Err(why) = measure(run, &home, &mut report) {
            eprintln!("error: {why}");
            failed.push(*name);
        }
    }
    if let Some(plot) = &run.plot {
        plot::draw(report.rows(), plot)?;
    }
    match (report.wrong(), &*failed) {
        (0, []) => Ok(()),
        (rows, []) => Err(format!("{rows} rows were not verified")),
        (_, tables) => Err(format!("not measured to the end: {}", tables.join(", "))),
    }
}

fn spoken(time: std::time::Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{} s", seconds + 1),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}
