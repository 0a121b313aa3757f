//! Network namespaces that a test makes for itself.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

/// One at a time: threads of devices are told apart by their names, which are the same in all of these tests.
static ONE: Mutex<()> = Mutex::new(());

/// Runs `test` in a network namespace of its own, which ends with it. `name`: the full name of the test.
pub fn within(name: &str, test: impl FnOnce() + Send + 'static) {
    if !Uid::effective().is_root() {
        println!("SKIP {name}: needs root to make a network namespace");
        return;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        println!("SKIP {name}: not installed: ip (iproute2)");
        return;
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        println!("SKIP {name}: no /dev/net/tun: the kernel has no tun driver loaded");
        return;
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = name.to_owned();
    // The thread's namespace goes with the thread, and with the files that it and its children opened.
    let ran = std::thread::spawn(move || {
        if let Err(e) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("SKIP {name}: no network namespace can be made: {e}");
            return;
        }
        ip("link set lo up");
        test();
    });
    if let Err(panic) = ran.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these words in this thread's namespace, and returns what it says.
pub fn ip(words: &str) -> String {
    let out = Command::new("ip").args(words.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "ip {words}: {said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    said
}
