//! The socket: pieces, stalls, ends, and descriptors that nobody asked for.

use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use vdpa_vhost_user::payload::{Config, ConfigSpan, VringState};
use vdpa_vhost_user::{
    Back, BackMessage, Connection, Error, FromBack, Front, FrontMessage, Header, MAX_FDS,
    MAX_PAYLOAD, ProtocolFeatures, Reply, ToFront,
};

fn pair() -> (UnixStream, Connection) {
    let (peer, ours) = UnixStream::pair().unwrap();
    (peer, Connection::new(ours))
}

fn file() -> OwnedFd {
    tempfile::tempfile().unwrap().into()
}

fn bytes(header: Header, payload: &[u8]) -> Vec<u8> {
    [&header.encode()[..], payload].concat()
}

/// Sends bytes with so many descriptors of one file.
fn send_with(peer: &UnixStream, bytes: &[u8], fds: usize) {
    let file = file();
    let numbers: Vec<RawFd> = vec![file.as_raw_fd(); fds];
    let rights = [ControlMessage::ScmRights(&numbers)];
    let parts = [IoSlice::new(bytes)];
    let sent = sendmsg::<()>(peer.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None);
    assert_eq!(sent.unwrap(), bytes.len());
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn message_that_comes_byte_by_byte_is_whole_at_its_last() {
    let (mut peer, mut ours) = pair();
    let message = bytes(Header::request(2, true, 8), &7u64.to_ne_bytes());
    for byte in &message {
        assert!(ours.poll_receive().unwrap().is_none());
        peer.write_all(&[*byte]).unwrap();
    }
    let frame = ours.poll_receive().unwrap().unwrap();
    assert!(frame.header.needs_reply());
    assert_eq!(frame.payload, 7u64.to_ne_bytes());
    assert!(ours.due().is_none());
}

#[test]
fn two_messages_in_one_write_are_two() {
    let (mut peer, mut ours) = pair();
    let one = bytes(Header::request(3, false, 0), &[]);
    let two = bytes(Header::request(2, false, 8), &9u64.to_ne_bytes());
    peer.write_all(&[one, two].concat()).unwrap();
    assert_eq!(ours.poll_receive().unwrap().unwrap().header.request, 3);
    assert_eq!(ours.poll_receive().unwrap().unwrap().header.request, 2);
    assert!(ours.poll_receive().unwrap().is_none());
}

#[test]
fn peer_that_leaves_after_any_byte_is_told_with_how_far_it_came() {
    let message = bytes(Header::request(2, false, 8), &7u64.to_ne_bytes());
    for len in 0..message.len() {
        let (mut peer, mut ours) = pair();
        peer.write_all(&message[..len]).unwrap();
        drop(peer);
        let error = ours.receive(None).unwrap_err();
        assert_eq!(error.is_end(), len == 0, "{error}");
        assert_eq!(error.is_misbehaviour(), len > 0);
        match error {
            Error::Closed { have, want } => {
                assert_eq!(have, len);
                assert_eq!(want, if len < 12 { 12 } else { 20 });
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn peer_that_stalls_after_any_byte_is_not_waited_for() {
    let message = bytes(Header::request(2, false, 8), &7u64.to_ne_bytes());
    for len in 1..message.len() {
        let (mut peer, mut ours) = pair();
        ours.set_patience(Duration::from_millis(1));
        peer.write_all(&message[..len]).unwrap();
        match ours.receive(None).unwrap_err() {
            Error::Stalled { have, .. } => assert_eq!(have, len),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn peer_that_says_nothing_is_waited_for_until_the_deadline() {
    let (_peer, mut ours) = pair();
    let error = ours.receive(Some(Instant::now())).unwrap_err();
    assert!(matches!(error, Error::TimedOut), "{error}");
    assert!(error.in_step());
}

#[test]
fn peer_that_does_not_read_is_not_waited_for() {
    let (_unread, given) = FromBack::pair(false).unwrap();
    let mut channel = ToFront::new(given, false);
    channel
        .connection_mut()
        .set_patience(Duration::from_millis(1));
    let stalled = (0..1_000_000).find_map(|_| channel.tell(&BackMessage::ConfigChange).err());
    match stalled.unwrap() {
        Error::Stalled { want, .. } => assert_eq!(want, 12),
        other => panic!("{other}"),
    }
}

#[test]
fn header_that_announces_too_much_is_not_read_further() {
    for size in [MAX_PAYLOAD as u32 + 1, u32::MAX] {
        let (mut peer, mut ours) = pair();
        let header = Header::request(5, false, size);
        peer.write_all(&header.encode()).unwrap();
        let error = ours.receive(None).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Oversize {
                    most: MAX_PAYLOAD,
                    ..
                }
            ),
            "{error}"
        );
        assert!(!error.in_step());
        // And it stays so.
        assert!(matches!(ours.poll_receive(), Err(Error::Oversize { .. })));
    }
}

#[test]
fn header_of_another_version_is_not_read_further() {
    for version in [0, 2, 3] {
        let (mut peer, mut ours) = pair();
        let header = Header {
            request: 1,
            flags: version,
            size: 0,
        };
        peer.write_all(&header.encode()).unwrap();
        let error = ours.receive(None).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("message 1 has version {version}: 1 is the only one")
        );
    }
}

#[test]
fn descriptors_are_closed_on_exec() {
    let (peer, mut ours) = pair();
    send_with(&peer, &Header::request(7, false, 0).encode(), 2);
    let frame = ours.receive(None).unwrap();
    assert_eq!(frame.fds.len(), 2);
    for fd in &frame.fds {
        let flags = fcntl(fd, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    }
}

#[test]
fn descriptors_come_with_any_byte_of_a_message() {
    let message = bytes(Header::request(37, false, 4), &[1, 2, 3, 4]);
    let (peer, mut ours) = pair();
    for byte in &message[..8] {
        send_with(&peer, &[*byte], 1);
    }
    send_with(&peer, &message[8..], 0);
    assert_eq!(ours.receive(None).unwrap().fds.len(), 8);
}

#[test]
fn descriptors_of_a_message_that_was_not_finished_are_closed() {
    let (watched, given) = UnixStream::pair().unwrap();
    // A process that another test starts may have copies until it runs its program.
    watched
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let (peer, mut ours) = pair();
    let numbers = [given.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&numbers)];
    let parts = [IoSlice::new(&[7])];
    sendmsg::<()>(peer.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
    drop(given);
    assert!(ours.poll_receive().unwrap().is_none());
    drop(ours);
    assert_eq!(std::io::Read::read(&mut &watched, &mut [0]).unwrap(), 0);
}

/// What counts the process's descriptors has to be alone in it.
#[test]
fn descriptors_beyond_the_most_are_closed_whatever_their_count() {
    const NAME: &str = "descriptors_beyond_the_most_are_closed_whatever_their_count";
    if std::env::var_os("ALONE").is_none() {
        return alone(NAME);
    }
    let before = open_files();
    for count in [0, 1, MAX_FDS, MAX_FDS + 1, 253] {
        let (peer, mut ours) = pair();
        send_with(&peer, &Header::request(1, false, 0).encode(), count);
        match ours.receive(None) {
            Ok(frame) => assert_eq!(frame.fds.len(), count),
            Err(Error::TooManyFds { have, most, .. }) => {
                assert_eq!((have, most), (count, 8));
                assert!(count > MAX_FDS);
            }
            Err(other) => panic!("{other}"),
        }
        // The connection is in step: the next message comes.
        send_with(&peer, &Header::request(3, false, 0).encode(), 0);
        assert_eq!(ours.receive(None).unwrap().header.request, 3);
    }
    assert_eq!(open_files(), before);
}

#[test]
fn descriptors_that_this_process_has_no_room_for_leave_none_open() {
    const NAME: &str = "descriptors_that_this_process_has_no_room_for_leave_none_open";
    if std::env::var_os("ALONE").is_none() {
        return alone(NAME);
    }
    let (peer, mut ours) = pair();
    send_with(&peer, &Header::request(5, false, 0).encode(), 8);
    let before = open_files();
    // Three numbers are free at most: some of the eight are installed before the kernel finds no more.
    let lowest = u64::try_from(file().as_raw_fd()).unwrap();
    let what = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let old = nix::sys::resource::getrlimit(what).unwrap();
    let set = |soft| {
        nix::sys::resource::setrlimit(what, soft, old.1).unwrap();
    };
    set(lowest + 3);
    let error = ours.receive(None).unwrap_err();
    set(old.0);
    assert!(matches!(error, Error::FdsLost { request: 5 }), "{error}");
    assert!(error.in_step() && !error.is_misbehaviour());
    assert_eq!(open_files(), before);
}

/// Runs one test in a process of its own.
fn alone(name: &str) {
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1"])
        .env("ALONE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

/// Answers requests until the front end leaves, by its own rules.
fn serve(mut back: Back) -> thread::JoinHandle<Vec<&'static str>> {
    thread::spawn(move || {
        let mut seen = Vec::new();
        loop {
            let received = match back.receive(None) {
                Ok(received) => received,
                Err(error) if error.is_end() => return seen,
                Err(error) => panic!("{error}"),
            };
            seen.push(received.ticket.name());
            let reply = match received.message {
                FrontMessage::GetFeatures => Reply::Value(1 << 30 | 1 << 32),
                FrontMessage::GetVringBase(VringState { index, .. }) => Reply::Vring(VringState {
                    index,
                    num: 0x8001_8001,
                }),
                FrontMessage::GetConfig(ConfigSpan { offset, size, .. }) if size < 100 => {
                    Reply::Config(Config {
                        offset,
                        flags: 0,
                        bytes: vec![0xa5; size as usize],
                    })
                }
                FrontMessage::GetConfig(_) | FrontMessage::NetSetMtu(_) => Reply::Failed,
                _ => Reply::Done,
            };
            back.answer(received.ticket, &reply).unwrap();
        }
    })
}

#[test]
fn halves_understand_one_another() {
    let (a, b) = UnixStream::pair().unwrap();
    let served = serve(Back::new(Connection::new(b)));
    let mut front = Front::new(Connection::new(a));
    let features = front.value(&FrontMessage::GetFeatures).unwrap();
    assert_eq!(features, 1 << 30 | 1 << 32);
    // Not negotiated: nothing comes back, and nothing is waited for.
    assert!(matches!(
        front.ask(&FrontMessage::NetSetMtu(1)).unwrap(),
        Reply::Done
    ));
    let taken = ProtocolFeatures::REPLY_ACK | ProtocolFeatures::CONFIG;
    front
        .ask(&FrontMessage::SetProtocolFeatures(taken))
        .unwrap();
    assert!(front.is_acknowledged());
    // All 32 bits of a packed queue's base.
    assert_eq!(front.vring_base(3).unwrap(), 0x8001_8001);
    assert_eq!(front.config(4, 6).unwrap(), [0xa5; 6]);
    let error = front.config(0, 200).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    let error = front.ask(&FrontMessage::NetSetMtu(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "VHOST_USER_NET_SET_MTU was refused by the peer with 0x1"
    );
    front.ask(&FrontMessage::SetOwner).unwrap();
    drop(front);
    let seen = served.join().unwrap();
    assert_eq!(seen.len(), 8);
    assert_eq!(seen[7], "VHOST_USER_SET_OWNER");
}

#[test]
fn acknowledgement_is_sent_only_where_it_is_negotiated_and_asked_for() {
    for (negotiated, asked) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut peer, ours) = pair();
        let mut back = Back::new(ours);
        let bits = if negotiated {
            ProtocolFeatures::REPLY_ACK
        } else {
            ProtocolFeatures::MQ
        };
        let bits = bits.bits().to_ne_bytes();
        peer.write_all(&bytes(Header::request(16, false, 8), &bits))
            .unwrap();
        let received = back.receive(None).unwrap();
        back.answer(received.ticket, &Reply::Done).unwrap();
        peer.write_all(&Header::request(3, asked, 0).encode())
            .unwrap();
        let received = back.receive(None).unwrap();
        assert_eq!(received.ticket.is_awaited(), negotiated && asked);
        back.answer(received.ticket, &Reply::Failed).unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut got = [0; 64];
        let got = std::io::Read::read(&mut peer, &mut got).map(|len| got[..len].to_vec());
        if negotiated && asked {
            assert_eq!(
                got.unwrap(),
                bytes(Header::reply(3, 8), &1u64.to_ne_bytes())
            );
        } else {
            assert!(got.is_err());
        }
    }
}

#[test]
fn answer_of_the_wrong_kind_is_not_sent() {
    let (mut peer, ours) = pair();
    let mut back = Back::new(ours);
    peer.write_all(&Header::request(1, false, 0).encode())
        .unwrap();
    let received = back.receive(None).unwrap();
    let state = VringState { index: 0, num: 0 };
    let error = back
        .answer(received.ticket, &Reply::Vring(state))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "VHOST_USER_GET_FEATURES is not answered with a state of a queue"
    );
    peer.set_nonblocking(true).unwrap();
    assert!(std::io::Read::read(&mut peer, &mut [0]).is_err());
}

#[test]
fn reply_to_another_request_is_not_taken() {
    let (mut peer, ours) = pair();
    let mut front = Front::new(ours);
    let pending = front.begin(&FrontMessage::GetFeatures).unwrap();
    assert!(front.poll_finish(&pending).unwrap().is_none());
    peer.write_all(&bytes(Header::reply(15, 8), &1u64.to_ne_bytes()))
        .unwrap();
    let error = front.finish(&pending, None).unwrap_err();
    assert!(
        matches!(error, Error::WrongReply { got: 15, .. }),
        "{error}"
    );
}

#[test]
fn channel_of_the_back_end_carries_both_ways() {
    let (mut from_back, given) = FromBack::pair(true).unwrap();
    let served = thread::spawn(move || {
        let mut seen = 0;
        while let Ok(told) = from_back.receive(None) {
            seen += 1;
            let reply = match told.message {
                BackMessage::ConfigChange => Reply::Done,
                BackMessage::SharedObjectLookup(_) => Reply::Fd(Some(file())),
                _ => Reply::Failed,
            };
            from_back.answer(told.ticket, &reply).unwrap();
        }
        seen
    });
    let mut channel = ToFront::new(given, true);
    assert!(matches!(
        channel.ask(&BackMessage::ConfigChange).unwrap(),
        Reply::Done
    ));
    match channel
        .ask(&BackMessage::SharedObjectLookup([1; 16]))
        .unwrap()
    {
        Reply::Fd(Some(fd)) => drop(fd),
        other => panic!("{other:?}"),
    }
    let refused = channel.ask(&BackMessage::VringCall(VringState { index: 0, num: 0 }));
    assert!(matches!(refused, Err(Error::Refused { .. })));
    channel.tell(&BackMessage::ConfigChange).unwrap();
    assert!(channel.as_fd().as_raw_fd() >= 0);
    drop(channel);
    assert_eq!(served.join().unwrap(), 4);
}
