//! The system's `ping`.

use std::net::IpAddr;
use std::process::Command;

/// Whether there is one; if not, the skip of this test is told.
pub(crate) fn is_installed(test: &str) -> bool {
    let is = Command::new("ping").arg("-V").output().is_ok();
    if !is {
        println!("SKIP {test}: not installed: ping (iputils-ping)");
    }
    is
}

/// The same one by one, each longer than a frame: the responder's stack takes one answer apart at a time.
#[track_caller]
pub(crate) fn answers_in_fragments(to: IpAddr, size: u16, count: u16) {
    (0..count).for_each(|_| answers(to, size, 1));
}

/// `count` echo requests with `size` bytes of payload, and an answer to each.
#[track_caller]
pub(crate) fn answers(to: IpAddr, size: u16, count: u16) {
    let out = Command::new("ping")
        .args(["-q", "-i", "0.01", "-W", "30", "-p", "5aa50ff0"])
        .args(["-s", &size.to_string(), "-c", &count.to_string()])
        .arg(to.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    let expected = format!("{count} packets transmitted, {count} received, 0% packet loss");
    assert!(out.status.success() && said.contains(&expected), "{said}");
    // With a pattern given, ping compares what comes back and says what differs.
    assert!(!said.contains("wrong data"), "{said}");
}
