//! Programs of the system's: whether they are there, and taken along into a guest.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{Kernel, Machine};

/// Whether the programs are there, each a name and the package that has it, and what guests start from; if not, the skip
/// of this test is told.
pub(crate) fn are_installed(test: &str, programs: &[(&str, &str)]) -> bool {
    let missing = programs.iter().find(|(name, _)| found(name).is_none());
    if let Some((name, package)) = missing {
        println!("SKIP {test}: not installed: {name} ({package})");
        return false;
    }
    Kernel::Stock.is_there(test)
}

/// With a program of this system's, which is found by its name.
#[track_caller]
pub(crate) fn packed(machine: Machine, name: &str) -> Machine {
    let program = found(name).unwrap_or_else(|| panic!("{name} is not installed"));
    with_libraries(machine, &program)
}

/// With `talker`, of `tests/interop/guest`.
#[track_caller]
pub(crate) fn talker(machine: Machine) -> Machine {
    let built = Path::new(env!("CARGO_BIN_EXE_vdpactl")).with_file_name("examples");
    let program = built.join("talker");
    assert!(program.exists(), "cargo build -p vdpa --example talker");
    with_libraries(machine, &program)
}

/// With a program, and the libraries that it needs.
#[track_caller]
fn with_libraries(machine: Machine, program: &Path) -> Machine {
    let name = program.file_name().unwrap();
    let machine = machine.with_at(program, &Path::new("/bin").join(name));
    let said = Command::new("ldd").arg(program).output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    // `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x0000)`, or the loader, by its path alone.
    let libraries = said.split_whitespace().filter(|word| word.starts_with('/'));
    libraries.fold(machine, |machine, library| {
        machine.with_at(Path::new(library), Path::new(library))
    })
}

/// Where it stands; root's programs too, whoever asks.
fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places
        .iter()
        .map(|place| place.join(name))
        .find(|at| at.is_file())
}
