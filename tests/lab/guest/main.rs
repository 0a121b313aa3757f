//! What a guest of the lab does with functions that `vdpactl` does not: `guest WHAT DEVICE...`.
//!
//! One JSON object on standard output; exit code 1 with a line on standard error when something is not as it has to be.

mod disk;
mod dma;
mod ending;
mod looped;
mod owner;
mod pair;
mod shut;
mod slices;
mod storm;
mod uapi;
mod watched;

use std::error::Error;
use std::process::ExitCode;

/// What is left to whoever reads the line.
type Done = Result<(), Box<dyn Error>>;

const USAGE: &str = "guest disk DEVICE RING | dma DEVICE | handed DEVICE | pair DEVICE DEVICE RING FRAMES | \
    traffic DEVICE DEVICE RING | shut DEVICE DEVICE FRAMES | twice DEVICE | deleted DEVICE DEVICE | broken DEVICE | \
    slices DEVICE ROUNDS | loop DEVICE RING FRAMES | held DEVICE RING | watch PARENT | storm DEVICE ROUNDS | bus | spaces";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {}", told(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Done {
    match *words {
        ["disk", device, ring] => {
            let said = disk::compare(vdpa::open(device)?, ring.parse()?)?;
            println!("{said}");
            Ok(())
        }
        ["dma", device] => dma::stray(device),
        ["handed", device] => owner::hand_over(device),
        ["pair", left, right, ring, frames] => {
            let cards = pair::start(left, right, ring.parse()?)?;
            println!("{}", pair::exchange(cards, frames.parse()?)?);
            Ok(())
        }
        ["traffic", left, right, ring] => pair::until_taken_out(left, right, ring.parse()?),
        ["bus"] => uapi::bus(),
        ["spaces"] => uapi::spaces(),
        ["slices", device, rounds] => slices::exchange(device, rounds.parse()?),
        ["loop", device, ring, frames] => looped::exchange(device, ring.parse()?, frames.parse()?),
        ["held", device, ring] => looped::until_removed(device, ring.parse()?),
        ["storm", device, rounds] => storm::rounds(device, rounds.parse()?),
        ["watch", parent] => watched::until_gone(parent),
        ["shut", left, right, frames] => shut::drive(left, right, frames.parse()?),
        ["twice", device] => ending::twice(device),
        ["deleted", left, right] => ending::deleted(left, right),
        ["broken", device] => ending::broken(device),
        _ => Err(USAGE.into()),
    }
}

/// An error with what is behind it.
fn told(error: &dyn Error) -> String {
    vdpa::core::Chain(error).to_string()
}
