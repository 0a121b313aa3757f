//! Back ends that mean it: they leave in the middle, or answer what was not asked.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vdpa_core::session::QueueSetup;
use vdpa_core::{Device, ErrorKind, QueueIndex, Registry, Session, bits};
use vdpa_mem::Deadline;
use vdpa_vhost::VhostUserMgmt;
use vdpa_vhost_user::payload::VringState;
use vdpa_vhost_user::{
    Back, Connection, F_PROTOCOL_FEATURES, FrontMessage, FrontRequest, Header, ProtocolFeatures,
    Reply,
};

const Q: QueueIndex = QueueIndex::new(0);

/// Seconds that a back end may be silent that means to answer, on a machine that does other things.
const LONG: u32 = 60;

/// The features that a back end offers here. It refuses others.
const OFFERED: u64 = 1 << 32 | F_PROTOCOL_FEATURES;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// What a back end does instead of what it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Serve,
    /// It closes the connection, with the request unanswered.
    Leave,
    /// It answers another request.
    Mistake,
    /// It answers with bytes that no answer has.
    Babble,
    /// It reads on, and never answers again.
    Hush,
    /// It answers twice, first with a 0.
    Twice,
}

/// A back end of a device that does nothing, until dropped.
struct Script {
    path: PathBuf,
    home: tempfile::TempDir,
    /// What it was asked, by name, with a number where there is one.
    heard: Arc<Mutex<Vec<(&'static str, u32)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Script {
    /// * `deed`: what it does with its request of this number
    fn new(deed: impl Fn(usize) -> Deed + Send + 'static) -> Self {
        Self::with(
            ProtocolFeatures::BACKEND_REQ | ProtocolFeatures::CONFIG,
            deed,
        )
    }

    /// * `more`: what it offers beside what all offer
    fn with(more: ProtocolFeatures, deed: impl Fn(usize) -> Deed + Send + 'static) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("back.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let heard = Arc::default();
        let thread = std::thread::spawn({
            let heard = Arc::clone(&heard);
            move || {
                let (stream, _) = listener.accept().unwrap();
                drop(listener);
                play(stream, more, deed, &heard);
            }
        });
        Self {
            path,
            home,
            heard,
            thread: Some(thread),
        }
    }

    /// * `timeout`: seconds that it may be silent
    fn open(&self, timeout: u32) -> vdpa_core::Result<Device> {
        open(&self.path, "type=rng", timeout)
    }

    fn asked(&self, request: &str) -> Vec<u32> {
        let heard = self.heard.lock().unwrap();
        let of = heard.iter().filter(|(name, _)| *name == request);
        of.map(|(_, number)| *number).collect()
    }

    /// Waits until it has left.
    fn end(mut self) -> usize {
        // Nobody may have come.
        let _refused = UnixStream::connect(&self.path);
        self.thread.take().unwrap().join().unwrap();
        drop(self.home);
        self.heard.lock().unwrap().len()
    }
}

/// * `keys`: of the device string
/// * `timeout`: seconds that the back end may be silent
fn open(path: &Path, keys: &str, timeout: u32) -> vdpa_core::Result<Device> {
    let mut registry = Registry::new();
    registry.add(Arc::new(VhostUserMgmt::new()));
    let path = path.display();
    registry.open(&format!("vhost-user:{path},{keys},timeout={timeout}"))
}

fn play(
    stream: UnixStream,
    more: ProtocolFeatures,
    deed: impl Fn(usize) -> Deed,
    heard: &Mutex<Vec<(&'static str, u32)>>,
) {
    let mut babble = stream.try_clone().unwrap();
    let mut back = Back::new(Connection::new(stream));
    let (mut status, mut hushed) = (0, false);
    for number in 0.. {
        let until = Instant::now() + Duration::from_secs(30);
        let Ok(asked) = back.receive(Some(until)) else {
            return;
        };
        let request = asked.message.request();
        let (reply, what) = match asked.message {
            FrontMessage::GetFeatures => (Reply::Value(OFFERED), 0),
            FrontMessage::SetFeatures(all) if all & !OFFERED != 0 => (Reply::Failed, 0),
            FrontMessage::GetProtocolFeatures => {
                let offered =
                    ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK | ProtocolFeatures::STATUS;
                (Reply::Value((offered | more).bits()), 0)
            }
            FrontMessage::GetQueueNum => (Reply::Value(1), 0),
            FrontMessage::GetConfig(_) => (Reply::Failed, 0),
            FrontMessage::GetStatus => (Reply::Value(status), 0),
            FrontMessage::SetStatus(new) => {
                status = new.into();
                (Reply::Done, 0)
            }
            FrontMessage::GetVringBase(VringState { index, .. }) => {
                (Reply::Vring(VringState { index, num: 0 }), index)
            }
            FrontMessage::SetVringEnable(VringState { num, .. }) => (Reply::Done, num),
            _ => (Reply::Done, 0),
        };
        heard.lock().unwrap().push((request.form().name, what));
        let mut say = |request: FrontRequest, bytes: &[u8]| {
            let size = u32::try_from(bytes.len()).unwrap();
            let header = Header::reply(request.form().number, size);
            // It may be alone by now.
            let _gone = babble.write_all(&[&header.encode()[..], bytes].concat());
        };
        match deed(number) {
            _ if hushed => continue,
            Deed::Serve => {}
            Deed::Leave => return,
            Deed::Hush => {
                hushed = true;
                continue;
            }
            Deed::Mistake => {
                say(FrontRequest::SetLogBase, &[0; 8]);
                continue;
            }
            Deed::Babble => {
                say(request, &[0xff; 300]);
                continue;
            }
            Deed::Twice => say(request, &[0; 8]),
        }
        if back.answer(asked.ticket, &reply).is_err() {
            return;
        }
    }
}

/// Everything that an owner does with a device, from its connection to its close.
fn live(script: &Script, timeout: u32) -> vdpa_core::Result<()> {
    let device = script.open(timeout)?;
    let session = Session::open(device, soon()).map_err(|(_, e)| e)?;
    let mut session = session
        .negotiate(bits::VERSION_1.mask())
        .map_err(|(_, e)| e)?;
    session.queue(Q, QueueSetup::default())?;
    let (control, mut queues) = session.run().map_err(|(_, e)| e)?.split();
    control.suspend(soon())?;
    control.resume(soon())?;
    let mut queue = queues.remove(0);
    control.stop_queue(&mut queue, soon())?;
    control.start_queue(&mut queue)?;
    drop(queue);
    control.close(soon()).map_err(|(_, e)| e)?;
    Ok(())
}

#[test]
fn a_back_end_that_leaves_or_lies_at_any_request_is_an_error_and_no_more() {
    let script = Script::new(|_| Deed::Serve);
    live(&script, LONG).unwrap();
    let requests = script.end();
    assert!(requests > 30, "{requests}");
    for bad in [Deed::Leave, Deed::Mistake, Deed::Babble, Deed::Twice] {
        for at in 0..requests {
            let script = Script::new(move |number| match number == at {
                true => bad,
                false => Deed::Serve,
            });
            match live(&script, LONG) {
                // The last things said of a device need not be looked at.
                Ok(()) => assert!(at + 8 > requests, "{bad:?} at {at} of {requests}"),
                Err(e) => {
                    assert_ne!(e.kind(), ErrorKind::Misuse, "{bad:?} at {at}: {e}");
                    assert!(!e.to_string().is_empty());
                }
            }
            script.end();
        }
    }
}

#[test]
fn a_back_end_that_falls_silent_at_any_request_is_given_up() {
    let script = Script::new(|_| Deed::Serve);
    live(&script, LONG).unwrap();
    let requests = script.end();
    // All at once: each is waited for.
    std::thread::scope(|all| {
        for at in 0..requests {
            all.spawn(move || {
                let script = Script::new(move |number| match number == at {
                    true => Deed::Hush,
                    false => Deed::Serve,
                });
                match live(&script, 1) {
                    Ok(()) => assert!(at + 8 > requests, "at {at} of {requests}"),
                    Err(e) => assert_ne!(e.kind(), ErrorKind::Misuse, "at {at}: {e}"),
                }
                script.end();
            });
        }
    });
}

#[test]
fn a_queue_that_is_switched_off_while_the_device_rests_is_off_when_it_goes_on() {
    let script = Script::new(|_| Deed::Serve);
    let session = Session::open(script.open(LONG).unwrap(), soon());
    let session = session.map_err(|(_, e)| e).unwrap();
    let negotiated = session.negotiate(bits::VERSION_1.mask());
    let mut session = negotiated.map_err(|(_, e)| e).unwrap();
    session.queue(Q, QueueSetup::default()).unwrap();
    let session = session.run().map_err(|(_, e)| e).unwrap();
    let session = session.suspend(soon()).map_err(|(_, e)| e).unwrap();
    session.device().enable_queue(Q, false).unwrap();
    let session = session.resume(soon()).map_err(|(_, e)| e).unwrap();
    assert_eq!(script.asked("VHOST_USER_SET_VRING_ENABLE"), [1, 0]);
    drop(session);
    script.end();
}

/// As DPDK's, which has no configuration.
#[test]
fn a_card_with_an_address_of_ours_is_not_told_to_a_back_end_that_offered_none() {
    let script = Script::with(ProtocolFeatures::empty(), |_| Deed::Serve);
    let device = open(&script.path, "type=net,mac=52:54:00:00:00:01", LONG).unwrap();
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let wanted = bits::VERSION_1 | bits::net::MAC;
    let session = session.negotiate(wanted).map_err(|(_, e)| e).unwrap();
    assert!(session.features().contains(bits::net::MAC));
    drop(session);
    script.end();
}

#[test]
fn a_back_end_that_answers_for_no_configuration_is_said_to_have_none() {
    let script = Script::new(|_| Deed::Serve);
    let error = open(&script.path, "type=blk", LONG).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("has no such configuration"), "{text}");
    script.end();
}
