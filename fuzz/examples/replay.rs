//! Runs a target on files, without a fuzzer: `cargo run --example replay -- TARGET FILE...`, or on so many random
//! inputs: `... TARGET random COUNT [SEED]`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vdpa_fuzz::{TARGETS, Target};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(name), rest) = (args.first(), args.get(1..).unwrap_or_default()) else {
        eprintln!("usage: replay TARGET FILE... | replay TARGET random COUNT [SEED]");
        return ExitCode::from(2);
    };
    let Some((_, target)) = TARGETS.iter().find(|(known, _)| known == name) else {
        eprintln!("no target {name}");
        return ExitCode::from(2);
    };
    if rest.first().is_some_and(|first| first == "random") {
        let number = |at: usize, or| {
            rest.get(at)
                .and_then(|text| text.parse().ok())
                .unwrap_or(or)
        };
        random(*target, number(1, 1000), number(2, 1));
        return ExitCode::SUCCESS;
    }
    for path in rest.iter().flat_map(|path| files(Path::new(path))) {
        let bytes = std::fs::read(&path).expect("a file that can be read");
        eprintln!("{}: {} bytes", path.display(), bytes.len());
        target(&bytes);
    }
    ExitCode::SUCCESS
}

/// A file, or those of a folder.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(folder) = std::fs::read_dir(path) else {
        return vec![path.to_owned()];
    };
    let mut files: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Inputs of up to 400 bytes, small numbers more often than not.
fn random(target: Target, count: u64, seed: u64) {
    let mut state = seed;
    let mut next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let mut bytes = Vec::new();
    let last = std::env::temp_dir().join("vdpa-fuzz-replay");
    for i in 0..count {
        bytes.clear();
        let small = next() >> 62;
        for _ in 0..next() >> 32 & 255 {
            let byte = (next() >> 40) as u8;
            bytes.push(if small != 0 { byte & 0x3f } else { byte });
        }
        let run = std::panic::catch_unwind(|| target(&bytes));
        if run.is_err() {
            std::fs::write(&last, &bytes).expect("a folder for temporary files");
            panic!("input {i}, in {}", last.display());
        }
    }
}
