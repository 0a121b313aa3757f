//! What every bench stands on: arguments, clocks, the interleaved contest, counted allocations, queues in memory.
//!
//! A bench is one `main`: it fills a [`Contest`](contest::Contest) with rows, runs it, and prints one table. Nothing
//! here judges a machine: a target that is missed is printed, and only a wrong payload, or an allocation in a row of
//! ours, makes the process fail.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each bench is a crate of its own, and uses its part"
)]

pub mod allocations;
pub mod clock;
pub mod contest;
pub mod queue;
pub mod sealed;
pub mod traffic;

use std::path::PathBuf;
use std::time::Duration;

/// How long to measure, and where to write it down.
#[derive(Clone, Debug)]
pub struct Run {
    /// Rounds of the contest: each row is measured once in each.
    pub rounds: usize,
    /// Time given to a row in a round.
    pub slice: Duration,
    /// Whether this is only to see that it works: `cargo test --benches`, or `--test`.
    pub smoke: bool,
    /// A file to append one JSON line a row to.
    pub json: Option<PathBuf>,
}

impl Run {
    /// From the command line: `cargo bench -- [--quick | --test] [--json FILE]`.
    pub fn from_args() -> Self {
        let mut args = std::env::args().skip(1);
        let (mut bench, mut quick, mut smoke, mut json) = (false, false, false, None);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // What cargo passes from `cargo bench`, and does not from `cargo test --benches`.
                "--bench" => bench = true,
                "--quick" => quick = true,
                "--test" => smoke = true,
                "--json" => match args.next() {
                    Some(file) => json = Some(PathBuf::from(file)),
                    None => refuse("--json needs a file name"),
                },
                other => refuse(&format!(
                    "unknown argument '{other}'; there are --quick, --test and --json FILE"
                )),
            }
        }
        let smoke = smoke || !bench;
        let (rounds, millis) = match (smoke, quick) {
            (true, _) => (1, 1),
            (_, true) => (5, 4),
            _ => (31, 16),
        };
        Self {
            rounds,
            slice: Duration::from_millis(millis),
            smoke,
            json,
        }
    }
}

fn refuse(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(2)
}

/// Ends the process: a payload was not what was sent, or a ring went wrong.
#[cold]
#[inline(never)]
pub fn wrong(what: &str) -> ! {
    eprintln!("error: {what}");
    std::process::exit(1)
}
