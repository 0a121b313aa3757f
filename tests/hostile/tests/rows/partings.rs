//! Section M: front ends that leave, stall, or come again and again.

use std::os::fd::{AsRawFd, RawFd};

use vdpa_hostile::socket::{Caller, Come, Socket, Stage, event, file};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;
use vdpa_hostile::until;
use vdpa_hostile::watch::Holdings;
use vdpa_ring::Format;
use vdpa_vhost_user::payload::{Inflight, Log, VringFd, VringState};
use vdpa_vhost_user::{FrontMessage, FrontRequest, Header, Outgoing, Reply};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(139).served(short_header),
    code(145).served(after_every_byte),
    code(148).served(repeats),
];

fn short_header(s: &mut Socket) {
    let header = Header::request(FrontRequest::GetFeatures.form().number, false, 0);
    for len in 1..12 {
        for stage in [Stage::Fresh, Stage::Running] {
            s.attack(stage, Come::CutOff("in a message: "), |caller| {
                caller.bytes(&header.encode()[..len], &[]);
                caller.leave();
            });
        }
    }
    // One that stays, and says no more, is not waited for for ever. It takes the patience of a connection, so once.
    if (s.target, s.format) == (Target::Blk, Format::Split) {
        let stalled = Come::CutOff("stalled in a message: 5 of 12");
        s.attack(Stage::Running, stalled, |caller| {
            caller.bytes(&header.encode()[..5], &[]);
        });
    }
}

/// Sends the first bytes of a message, with its descriptors.
fn begin(caller: &mut Caller, message: &FrontMessage, len: usize) {
    let Outgoing {
        request,
        payload,
        fds,
    } = message.encode();
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let header = Header::request(request, false, payload.len() as u32);
    let bytes = [&header.encode()[..], &payload].concat();
    if let Some(some) = bytes.get(..len).filter(|some| !some.is_empty()) {
        caller.bytes(some, &numbers);
    }
}

fn after_every_byte(s: &mut Socket) {
    let mut lengths = Vec::new();
    s.attack(Stage::Fresh, Come::Left, |caller| {
        let session = caller.session();
        lengths.extend(session.iter().map(|m| 12 + m.encode().payload.len()));
    });
    for (at, len) in lengths.iter().enumerate() {
        for cut in 0..*len {
            let come = match cut {
                0 => Come::Left,
                _ => Come::CutOff("in a message: "),
            };
            s.parts(come, |caller| {
                let session = caller.session();
                for message in &session[..at] {
                    caller.ask(message);
                }
                begin(caller, &session[at], cut);
                caller.leave();
            });
        }
        s.next_is_served();
    }
}

/// How many there are in each of four cases, of all kinds together.
const REPEATS: usize = 25_000;
/// Of these, front ends that connect and go.
const CALLERS: usize = 500;
/// KiB that may stay: less than 200 bytes a repeat.
const SLACK: usize = 4 << 10;

fn repeats(s: &mut Socket) {
    // What the allocator and the kernel keep for good is there before it is counted.
    let one = |s: &mut Socket, at: usize| {
        let caller = &mut s.caller();
        come_and_go(caller, at);
    };
    (0..CALLERS / 10).for_each(|at| one(s, at));
    s.next_is_served();
    let before = Holdings::now();
    (0..CALLERS).for_each(|at| one(s, at));
    let mut caller = s.caller();
    let _exchange = caller.set_up();
    for at in CALLERS..REPEATS {
        again(&mut caller, at);
    }
    drop((_exchange, caller));
    s.next_is_served();
    // A thread that has ended may be listed a moment longer.
    until("the ends of threads", || {
        Holdings::now().threads <= before.threads
    });
    let now = Holdings::now();
    // AddressSanitizer keeps what was freed in a quarantine: there memory tells nothing.
    let quarantine = std::env::var_os("ASAN_OPTIONS").is_some();
    assert!(
        (quarantine || now.resident <= before.resident + SLACK)
            && now.descriptors == before.descriptors,
        "{before:?} before, {now:?} now"
    );
}

/// Connects, does something that is wrong or nothing, and is gone.
fn come_and_go(caller: &mut Caller, at: usize) {
    match at % 8 {
        0 => {}
        1 => caller.message(0, &[0; 64], 8),
        2 => caller.message(FrontRequest::SetMemTable.form().number, &[0; 8], 253),
        3 => {
            let session = caller.session();
            for message in &session[..at % session.len()] {
                caller.send(message);
            }
        }
        4 => caller.bytes(&[1; 7], &[file(1).as_raw_fd()]),
        5 => {
            caller.negotiate();
            let (region, fd) = caller.spare();
            caller.send(&FrontMessage::AddMemReg(region, fd));
        }
        6 => {
            let _exchange = caller.set_up();
            caller.kick();
        }
        _ => caller.bytes(&Header::request(5, true, u32::MAX).encode(), &[]),
    }
}

/// One of the things that a front end may do as often as it likes.
fn again(caller: &mut Caller, at: usize) {
    let vring = || VringFd {
        index: 0,
        fd: Some(event()),
    };
    match at % 10 {
        0 => {
            caller.ask(&FrontMessage::SetVringCall(vring()));
        }
        1 => {
            caller.ask(&FrontMessage::SetVringErr(vring()));
        }
        2 => {
            let (region, fd) = caller.spare();
            caller.ask(&FrontMessage::AddMemReg(region, fd));
            caller.ask(&FrontMessage::RemMemReg(region));
        }
        3 => {
            let whole = caller.region();
            caller.ask(&FrontMessage::SetMemTable(vec![whole]));
        }
        4 => {
            let log = Log {
                size: 1 << 20,
                offset: 0,
            };
            caller.ask(&FrontMessage::SetLogBase(log, file(1 << 20)));
        }
        5 => {
            let asked = Inflight {
                mmap_size: 0,
                mmap_offset: 0,
                num_queues: 2,
                queue_size: 16,
            };
            match caller.ask(&FrontMessage::GetInflightFd(asked)) {
                Reply::Inflight(made, Some(fd)) => {
                    caller.ask(&FrontMessage::SetInflightFd(made, fd));
                }
                other => panic!("{other:?}"),
            }
        }
        6 => {
            caller.ask(&FrontMessage::SetVringEnable(VringState {
                index: 0,
                num: at as u32 / 10 % 2,
            }));
        }
        7 => {
            caller.ask(&FrontMessage::SetBackendReqFd(file(1)));
        }
        8 => {
            caller.ask(&FrontMessage::SetLogFd(file(8)));
        }
        _ => {
            let bytes = caller.front.config(0, 8);
            assert_eq!(bytes.expect("configuration").len(), 8);
        }
    }
}
