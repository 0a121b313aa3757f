//! The system's `ping`.

use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use vdpa::Deadline;

use crate::host::{PATIENCE, counter, counter6};

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
    // No other request goes out meanwhile.
    (0..count).for_each(|_| ask(to, size, 1, "60"));
}

/// Answers to `count` echo requests with `size` bytes of payload.
///
/// On a busy machine an answer may come after the next request has gone, so `ping` sends more than it has to. Whether each
/// of them was answered is for [`all_answered`].
#[track_caller]
pub(crate) fn answers(to: IpAddr, size: u16, count: u16) {
    ask(to, size, count, "0.01");
}

#[track_caller]
fn ask(to: IpAddr, size: u16, count: u16, interval: &str) {
    let out = Command::new("ping")
        .args(["-q", "-i", interval, "-w", "60", "-p", "5aa50ff0"])
        .args(["-s", &size.to_string(), "-c", &count.to_string()])
        .arg(to.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    // More of them, where answers take longer than the interval.
    let received = said.split_once(" received, ").and_then(|(before, _)| {
        let (_, number) = before.rsplit_once(' ')?;
        number.parse::<u16>().ok()
    });
    assert!(out.status.success() && received >= Some(count), "{said}");
    // With a pattern given, ping compares what comes back and says what differs.
    for wrong in ["wrong data", "duplicates", "errors", "corrupted"] {
        assert!(!said.contains(wrong), "{said}");
    }
}

/// Every echo request of this thread's namespace was answered, once.
#[track_caller]
pub(crate) fn all_answered() {
    let by = Deadline::after(PATIENCE);
    loop {
        let v4 = [
            counter("IcmpMsg:", "OutType8"),
            counter("IcmpMsg:", "InType0"),
        ];
        let v6 = [counter6("Icmp6OutEchos"), counter6("Icmp6InEchoReplies")];
        if v4[0] == v4[1] && v6[0] == v6[1] {
            assert!(v4[0] > 0 && v6[0] > 0);
            return;
        }
        assert!(!by.expired(), "requests and answers: {v4:?}, IPv6 {v6:?}");
        thread::sleep(Duration::from_millis(10));
    }
}
