//! What a guest of `tests/interop` runs beside the system's programs: `talker WHAT ...`.
//!
//! ```text
//!   talker echo PORT                    gives back what it is sent, by TCP and UDP, until it is killed
//!   talker send ADDRESS:PORT GAP FILE   numbered datagrams, GAP milliseconds apart, until FILE is there; {"sent":N}
//!   talker hear PORT                    what became of such datagrams, once their last one is there; an object
//!   talker blocks WHAT DISK ...         writes and reads a disk past the kernel's cache; an object
//! ```

mod blocks;
mod content;
mod echo;
mod numbered;

use std::error::Error;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// What is left to whoever reads the line.
type Done = Result<(), Box<dyn Error>>;

const USAGE: &str =
    "talker echo PORT | send ADDRESS:PORT GAP FILE | hear PORT | blocks WHAT DISK ...";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("talker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Done {
    match *words {
        ["echo", port] => echo::give_back(port.parse()?),
        ["send", to, gap, file] => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(to)?;
            let gap = Duration::from_millis(gap.parse()?);
            let sent = numbered::send(&socket, gap, || Path::new(file).exists())?;
            println!(r#"{{"sent":{sent}}}"#);
            Ok(())
        }
        ["blocks", ..] => blocks::run(&words[1..]),
        ["hear", port] => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port.parse()?))?;
            println!("{}", numbered::hear(&socket, || {})?);
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}
