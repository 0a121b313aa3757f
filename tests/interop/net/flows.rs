//! Numbered datagrams both ways, while something is done to what is between.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use serde_json::Value;

use crate::harness::{Guest, PATIENCE};
use crate::numbered;

/// Ports: the host's, and the guest's.
const HOST: u16 = 9000;
const GUEST: u16 = 9001;

/// Milliseconds between two datagrams: with as few as this, buffers everywhere hold what comes in some seconds, in which a
/// busy machine may let a guest wait.
const GAP: u64 = 10;

/// Bytes that the host's socket holds at most, with what the kernel adds to each datagram.
const ROOM: usize = 64 << 20;

/// By how many datagrams it is seen that they come.
const GOES_ON: usize = 20;

/// What is under way. The host's side is in this thread's namespace.
pub(crate) struct Flows {
    enough: Arc<AtomicBool>,
    sending: JoinHandle<u64>,
    hearing: JoinHandle<String>,
    /// One for each that the host has heard.
    came: Receiver<()>,
}

/// What became of one direction.
pub(crate) struct Outcome {
    /// How many were sent.
    pub(crate) sent: u64,
    /// How many came, as they were sent.
    pub(crate) heard: u64,
    /// How many of them had come before.
    pub(crate) doubled: u64,
    /// What was lost between the first that came and the last: the first of it, and how many.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// The numbers of the first and of the last that came.
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Flows {
    /// Begins both, and waits until some have come.
    #[track_caller]
    pub(crate) fn begin(guest: &mut Guest) -> Self {
        let socket = UdpSocket::bind(("10.78.0.1", HOST)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // As much as comes while this process does not get its turn.
        setsockopt(&socket, RcvBufForce, &ROOM).unwrap();
        let (each, came) = mpsc::channel();
        let hearing = thread::spawn(move || {
            // The test may be over.
            let came = || each.send(()).unwrap_or_default();
            let heard = numbered::hear(&socket, came);
            heard.unwrap().to_string()
        });
        guest.does(&format!("talker hear {GUEST} >/run/heard & hear=$!"));
        guest.does(&format!(
            "talker send 10.78.0.1:{HOST} {GAP} /run/enough >/run/sent & send=$!"
        ));
        let enough = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&enough);
        let sending = thread::spawn(move || {
            let socket = UdpSocket::bind(("10.78.0.1", 0)).unwrap();
            socket.connect(("10.78.0.2", GUEST)).unwrap();
            let gap = Duration::from_millis(GAP);
            numbered::send(&socket, gap, || until.load(Ordering::Relaxed)).unwrap()
        });
        let flows = Self {
            enough,
            sending,
            hearing,
            came,
        };
        flows.go_on();
        flows
    }

    /// Waits until some more have come from the guest.
    #[track_caller]
    pub(crate) fn go_on(&self) {
        while self.came.try_recv().is_ok() {}
        for _ in 0..GOES_ON {
            self.came
                .recv_timeout(PATIENCE)
                .expect("the guest is heard");
        }
    }

    /// Ends both: what came to the guest, and what came to the host. None came twice.
    #[track_caller]
    pub(crate) fn end(self, guest: &mut Guest) -> [Outcome; 2] {
        let ways = self.end_after_deaths(guest);
        assert!(ways.iter().all(|way| way.doubled == 0));
        ways
    }

    /// The same after what was between was killed: what it had sent and not told of may have been sent again.
    #[track_caller]
    pub(crate) fn end_after_deaths(self, guest: &mut Guest) -> [Outcome; 2] {
        self.enough.store(true, Ordering::Relaxed);
        let sent = self.sending.join().unwrap();
        guest.does("touch /run/enough; wait $hear && wait $send; rm /run/enough");
        let there = Outcome::read(sent, &guest.does("cat /run/heard"));
        let said: Value = serde_json::from_str(&guest.does("cat /run/sent")).unwrap();
        let sent = said["sent"].as_u64().unwrap();
        let back = Outcome::read(sent, &self.hearing.join().unwrap());
        [there, back]
    }
}

impl Outcome {
    /// * `heard`: as `talker hear` says it
    #[track_caller]
    fn read(sent: u64, heard: &str) -> Self {
        let said: Value = serde_json::from_str(heard).unwrap();
        assert_eq!(said["altered"], 0, "{said}");
        let gaps: Vec<(u64, u64)> = serde_json::from_value(said["gaps"].clone()).unwrap();
        println!("of {sent}: {said}");
        Self {
            sent,
            heard: said["heard"].as_u64().unwrap(),
            doubled: said["doubled"].as_u64().unwrap(),
            gaps,
            first: said["first"].as_u64().unwrap(),
            last: said["last"].as_u64().unwrap(),
        }
    }

    /// How many never came.
    pub(crate) fn lost(&self) -> u64 {
        let between: u64 = self.gaps.iter().map(|(_, count)| count).sum();
        self.first + between + (self.sent - 1 - self.last)
    }
}
