//! The cases, made from the table: one for each row, level, target and ring format.
//!
//! A row of the table that has no function for a level fails as a case of its own, with its number; so does a function
//! that the table knows nothing of. The cases take turns in the thread that runs them.
//!
//! A row is a short function in `tests/rows/`, named in the list at the top of its file:
//!
//! ```ignore
//! code(7).ring(ring_readable_after_writable).device(readable_after_writable),
//!
//! fn readable_after_writable(s: &mut Stage) -> Expect {
//!     let (from, to) = (s.buffer(0), s.open_buffer(2, 64));    // the device may write 64 bytes there
//!     s.send(&[Piece::write(to, 64), Piece::read(from, 64)]);  // chain, show, kick
//!     Expect::Lost("readable after a writable")                // the oracle looks at the rest
//! }
//! ```
//!
//! `cargo test -p vdpa-hostile --test rows -- a::007` runs one; the format and the target are in `s`.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use vdpa_ring::Format;

use crate::socket::{self, Socket};
use crate::stage::{Expect, Setup, Stage};
use crate::table::{Place, ROWS, Row, Target};
use crate::{oracle, watch};

/// The functions of a row.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    number: u16,
    ring: Option<fn(Format)>,
    driver: Option<fn(Format)>,
    device: Option<Device>,
    served: Option<fn(&mut Socket)>,
}

/// The function of a row at device level.
#[derive(Clone, Copy, Debug)]
struct Device {
    setups: Setups,
    attack: fn(&mut Stage) -> Expect,
}

/// How the device is set up, or one after the other.
#[derive(Clone, Copy, Debug)]
enum Setups {
    One(fn(Target, Format) -> Setup),
    Each(fn(Target, Format) -> Vec<Setup>),
}

/// The functions of row `number`.
pub const fn code(number: u16) -> Code {
    Code {
        number,
        ring: None,
        driver: None,
        device: None,
        served: None,
    }
}

impl Code {
    /// Against the device half of a ring.
    pub const fn ring(self, attack: fn(Format)) -> Self {
        Self {
            ring: Some(attack),
            ..self
        }
    }

    /// Against a driver half, or a session.
    pub const fn driver(self, attack: fn(Format)) -> Self {
        Self {
            driver: Some(attack),
            ..self
        }
    }

    /// Against a device with a queue of size 8, and tables.
    pub const fn device(self, attack: fn(&mut Stage) -> Expect) -> Self {
        self.device_with(|_, _| Setup::PLAIN, attack)
    }

    /// Against a device that is served over a socket.
    pub const fn served(self, attack: fn(&mut Socket)) -> Self {
        Self {
            served: Some(attack),
            ..self
        }
    }

    /// Against a device that is set up so.
    pub const fn device_with(
        self,
        setup: fn(Target, Format) -> Setup,
        attack: fn(&mut Stage) -> Expect,
    ) -> Self {
        let setups = Setups::One(setup);
        Self {
            device: Some(Device { setups, attack }),
            ..self
        }
    }

    /// Against one device after the other, set up so.
    pub const fn device_each(
        self,
        setups: fn(Target, Format) -> Vec<Setup>,
        attack: fn(&mut Stage) -> Expect,
    ) -> Self {
        let setups = Setups::Each(setups);
        Self {
            device: Some(Device { setups, attack }),
            ..self
        }
    }
}

/// Runs the cases of the whole table that the command line asks for.
pub fn run(all: &[&[Code]]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // What is left behind is measured for the process.
    arguments.test_threads = Some(1);
    watch::count_panics();
    if !arguments.list {
        warm_up();
    }
    libtest_mimic::run(&arguments, trials(all)).exit_code()
}

/// What is made once in a process is made before anything is measured.
fn warm_up() {
    // For row 150, and for good: a thread, a pipe, and what happens on a bad access to a file that was cut.
    vdpa_mem::survive_shrinking().expect("a handler");
    for target in [Target::Tx, Target::Blk] {
        for _ in 0..2 {
            Stage::new(target, Format::Split, Setup::PLAIN).close();
        }
    }
}

/// One trial for each case.
fn trials(all: &[&[Code]]) -> Vec<Trial> {
    let codes: Vec<Code> = all.iter().flat_map(|codes| codes.iter().copied()).collect();
    let mut trials = Vec::new();
    for row in ROWS {
        let mine: Vec<&Code> = codes
            .iter()
            .filter(|code| code.number == row.number)
            .collect();
        let code = match mine[..] {
            [] => self::code(row.number),
            [one] => *one,
            _ => {
                trials.push(wrong(row.number, "has its functions in several places"));
                continue;
            }
        };
        cases(row, code, &mut trials);
    }
    let known = |code: &&Code| !ROWS.iter().any(|row| row.number == code.number);
    trials.extend(
        codes
            .iter()
            .filter(known)
            .map(|code| wrong(code.number, "is not in the table")),
    );
    trials
}

/// The trials of a row.
fn cases(row: &'static Row, code: Code, trials: &mut Vec<Trial>) {
    let Place::Here(runs) = row.place else {
        let none = code.ring.is_none() && code.driver.is_none();
        if !none || code.device.is_some() || code.served.is_some() {
            trials.push(wrong(row.number, "is to come later, and has a function"));
        }
        return;
    };
    let levels = [
        ("ring", code.ring, runs.ring),
        ("driver", code.driver, runs.driver),
    ];
    for (level, attack, formats) in levels {
        if attack.is_some() && formats.is_empty() {
            trials.push(wrong(
                row.number,
                &format!("has a function at {level} level, and the table no place for it"),
            ));
        }
        for &format in formats {
            let name = name(row, &format!("{level}::{format}"));
            trials.push(Trial::test(name, move || match attack {
                Some(attack) => {
                    attack(format);
                    Ok(())
                }
                None => Err(missing(row, level)),
            }));
        }
    }
    if code.device.is_some() && runs.device.is_empty() {
        trials.push(wrong(
            row.number,
            "has a function at device level, and the table no place for it",
        ));
    }
    if code.served.is_some() && runs.served.is_empty() {
        trials.push(wrong(
            row.number,
            "has a function over a socket, and the table no place for it",
        ));
    }
    for &target in runs.targets {
        for &format in runs.device {
            let name = name(row, &format!("{}::{format}", target.word()));
            trials.push(Trial::test(name, move || match code.device {
                Some(Device { setups, attack }) => {
                    let all = match setups {
                        Setups::One(setup) => vec![setup(target, format)],
                        Setups::Each(setups) => setups(target, format),
                    };
                    for setup in all {
                        oracle::judge(target, format, setup, attack);
                    }
                    Ok(())
                }
                None => Err(missing(row, "device")),
            }));
        }
        for &format in runs.served {
            let name = name(row, &format!("socket::{}::{format}", target.word()));
            trials.push(Trial::test(name, move || match code.served {
                Some(attack) => {
                    socket::judge(target, format, attack);
                    Ok(())
                }
                None => Err(missing(row, "socket")),
            }));
        }
    }
}

fn missing(row: &Row, level: &str) -> libtest_mimic::Failed {
    format!("{row} has no function at {level} level").into()
}

fn wrong(number: u16, what: &str) -> Trial {
    let what = format!("row {number} {what}");
    Trial::test(format!("table::{number:03}"), move || Err(what.into()))
}

/// As in `a::007_readable_after_writable::blk::split`.
fn name(row: &Row, end: &str) -> String {
    let section = format!("{:?}", row.section).to_lowercase();
    let words = row.name.to_lowercase();
    let words: Vec<&str> = words
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    format!("{section}::{:03}_{}::{end}", row.number, words.join("_"))
}
