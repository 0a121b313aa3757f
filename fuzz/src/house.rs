//! A device that is served for as long as the process lives, one input after the other.
//!
//! ```text
//!   an input ─▶ a front end connects ─▶ a step each time the server waits ─▶ it is cut off, or leaves ─▶ what is left?
//!                                                   the next one connects ─▶ is served ─▶ leaves ─▶ the next input
//! ```
//! All of it is on the server's thread: see [`waits`](crate::waits).

use std::fs;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use vdpa_core::DeviceType;
use vdpa_export::vhost_user::{Listen, Notice, Options, Server, Stop};
use vdpa_hostile::exchange::Exchange;
use vdpa_hostile::socket::Caller;
use vdpa_hostile::table::Target;
use vdpa_ring::Format;
use vdpa_vhost_user::{Frame, FrontMessage, FrontRequest, Header};

use crate::hand::ByHand;
use crate::socket::{Passes, Talk};
use crate::waits::{self, Peer};

/// An input that takes longer hangs.
const HANGS: Duration = Duration::from_secs(30);

/// Between whoever has an input and the thread that it is for.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
enum State {
    #[default]
    Free,
    Asked(Format, Vec<u8>),
    Taken,
    Failed,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.lock() = state;
        self.changed.notify_all();
    }

    /// Waits for an input.
    fn take(&self) -> (Format, Vec<u8>) {
        let mut state = self.lock();
        loop {
            if let State::Asked(..) = *state
                && let State::Asked(format, data) = std::mem::replace(&mut *state, State::Taken)
            {
                return (format, data);
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Says that the thread has ended, however it does.
struct Ends(Arc<Desk>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.set(State::Failed);
    }
}

/// A server, in a thread.
pub struct House(Arc<Desk>);

impl House {
    /// A device that is served by hand.
    ///
    /// * `page_requests`: whether it asks for what is not mapped
    pub fn open(target: Target, page_requests: bool) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let device_type = match target.is_net() {
            true => DeviceType::Net,
            false => DeviceType::Block,
        };
        let (device, hand) = ByHand::new(device_type, page_requests);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vdpa-fuzz-{}-{number}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("a socket");
        let said = Arc::new(Mutex::new(Vec::new()));
        let options = {
            let said = Arc::clone(&said);
            Options::default().observe(move |notice| {
                if matches!(notice, Notice::CutOff { .. } | Notice::Disconnected) {
                    lock(&said).push(notice.to_string());
                }
            })
        };
        let serving = Server::new(device, options)
            .listen(Listen::Listener(listener.into()))
            .expect("a server");
        let desk = Arc::<Desk>::default();
        let guests = Guests {
            desk: Arc::clone(&desk),
            hand,
            said,
            address,
            target,
            who: Who::Nobody,
        };
        let stop = Stop::new().expect("an eventfd");
        let ends = Ends(Arc::clone(&desk));
        let thread = std::thread::Builder::new().name("server".into());
        let spawned = thread.spawn(move || {
            let _ends = ends;
            waits::attend(Box::new(guests));
            let ended = serving.run(&stop).map(|ended| ended.by);
            panic!("the server ended: {ended:?}");
        });
        spawned.expect("a thread");
        Self(desk)
    }

    /// Has a front end do what the data says.
    ///
    /// # Panics
    /// When that does not end.
    pub fn serve(&self, format: Format, data: Vec<u8>) {
        self.0.set(State::Asked(format, data));
        let state = self.0.lock();
        let under_way = |state: &mut State| matches!(state, State::Asked(..) | State::Taken);
        let waited = self.0.changed.wait_timeout_while(state, HANGS, under_way);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Free => {}
            State::Failed => panic!("the server's thread has ended"),
            _ => panic!("it did not end within {HANGS:?}"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The front ends that come, one after the other.
struct Guests {
    desk: Arc<Desk>,
    hand: Arc<ByHand>,
    /// How front ends have ended, since the input began.
    said: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
    target: Target,
    who: Who,
}

/// Who is there.
enum Who {
    Nobody,
    /// The one that says anything.
    Talks(Box<Talk>, Format),
    /// It has said that it leaves.
    Leaves(Box<Talk>, Format),
    /// The next one.
    Good(Box<Good>),
    /// It has left.
    GoodLeft,
}

impl Peer for Guests {
    fn turn(&mut self) -> bool {
        let ended = lock(&self.said).len();
        match std::mem::replace(&mut self.who, Who::Nobody) {
            Who::Nobody => {
                let (format, data) = self.desk.take();
                holdings();
                let talk = Talk::new(self.caller(format), data);
                self.who = Who::Talks(Box::new(talk), format);
            }
            Who::Talks(talk, format) | Who::Leaves(talk, format) if ended != 0 => {
                self.check_gone(talk);
                let good = Good::new(self.caller(format));
                self.who = Who::Good(Box::new(good));
            }
            Who::Talks(mut talk, format) => match talk.go_on() {
                Some(passes) => {
                    match passes {
                        Passes::All => self.hand.rest(),
                        Passes::One => drop(self.hand.pass()),
                        Passes::None => {}
                    }
                    self.who = Who::Talks(talk, format);
                }
                None => self.who = Who::Leaves(talk, format),
            },
            Who::Leaves(mut talk, format) => {
                // The server may wait for what it says to be heard.
                talk.listen();
                self.who = Who::Leaves(talk, format);
                return false;
            }
            Who::Good(_) if ended > 1 => panic!("the next front end is gone: {:?}", self.said),
            Who::Good(mut good) => {
                let over = good.next(&self.hand);
                self.who = match over {
                    true => Who::GoodLeft,
                    false => Who::Good(good),
                };
            }
            Who::GoodLeft => {
                let said = std::mem::take(&mut *lock(&self.said));
                match said.get(1).map(String::as_str) {
                    None => {
                        *lock(&self.said) = said;
                        self.who = Who::GoodLeft;
                        return false;
                    }
                    Some("front end left") if said.len() == 2 => {}
                    _ => panic!("the next front end did not just leave: {said:?}"),
                }
                self.desk.set(State::Free);
                return self.turn();
            }
        }
        true
    }
}

impl Guests {
    fn caller(&self, format: Format) -> Caller {
        let stream = UnixStream::connect_addr(&self.address).expect("a connection");
        Caller::over(stream, self.target, format)
    }

    /// The server has told that it is gone.
    fn check_gone(&self, mut talk: Box<Talk>) {
        assert!(!talk.listen(), "it is gone, and its connection has no end");
        talk.end();
        let said = lock(&self.said);
        let how = said.first().map_or("", String::as_str);
        let right = how.starts_with("front end cut off: ") || how == "front end left";
        assert!(right && said.len() == 1, "it ended so: {said:?}");
        // What looks after eventfds, on its own thread, may have one in hand still.
        let mut now = None;
        let gone = vdpa_hostile::wait("the end of all that it gave", || {
            now = Some(Holdings::now());
            now.as_ref() == Some(holdings())
        });
        gone.unwrap_or_else(|why| panic!("{why}: {now:?}, and {:?} before", holdings()));
    }
}

/// What of files the process has.
#[derive(PartialEq, Eq, Debug)]
struct Holdings {
    /// Descriptors that a program started from here would not get, as are all of the server's. The others are of a
    /// sanitizer, which starts a program to name functions with.
    descriptors: usize,
    /// Mappings of files in memory, which is what front ends give.
    mappings: usize,
}

impl Holdings {
    fn now() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").expect("maps");
        let files = maps.lines().filter(|line| line.contains("/memfd:"));
        let entries = fs::read_dir("/proc/self/fd").expect("descriptors");
        let names = entries.flatten().map(|entry| entry.file_name());
        let descriptors = names.filter(|name| name.to_str().is_some_and(closes_on_exec));
        Self {
            descriptors: descriptors.count(),
            mappings: files.count(),
        }
    }
}

/// Whether a descriptor is closed where a program is started.
fn closes_on_exec(number: &str) -> bool {
    let flags = fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
    // It may have gone since.
    flags.is_ok_and(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = line.and_then(|text| i32::from_str_radix(text.trim(), 8).ok());
        flags.is_some_and(|flags| flags & libc::O_CLOEXEC != 0)
    })
}

/// As it was before the first front end.
fn holdings() -> &'static Holdings {
    static BEFORE: OnceLock<Holdings> = OnceLock::new();
    BEFORE.get_or_init(Holdings::now)
}

/// A front end that behaves well: it sets all up, exchanges something, and leaves.
struct Good {
    caller: Caller,
    /// What it still says.
    rest: std::vec::IntoIter<FrontMessage>,
    record: Option<Frame>,
}

impl Good {
    fn new(mut caller: Caller) -> Self {
        let session = caller.session();
        Self {
            caller,
            rest: session.into_iter(),
            record: None,
        }
    }

    /// The next step. `true`: it was the last one.
    fn next(&mut self, hand: &Arc<ByHand>) -> bool {
        self.listen();
        if let Some(record) = self.record.take() {
            let request = FrontRequest::SetInflightFd.form().number;
            let header = Header::request(request, false, record.payload.len() as u32);
            let message = [&header.encode()[..], &record.payload].concat();
            let fds: Vec<_> = record.fds.iter().map(AsRawFd::as_raw_fd).collect();
            self.caller.bytes(&message, &fds);
        }
        let mut said = false;
        for message in self.rest.by_ref() {
            said = true;
            say(&mut self.caller, &message);
            if message.request() == FrontRequest::GetInflightFd {
                break;
            }
        }
        if said {
            return false;
        }
        let hand = Arc::clone(hand);
        self.caller.after_kicks(move || hand.rest());
        let mut exchange: Exchange = self.caller.exchange();
        let done = exchange.once().and_then(|()| self.caller.check_memory());
        done.unwrap_or_else(|why| panic!("the next front end: {why}"));
        self.caller.leave();
        true
    }

    /// Takes the answers.
    fn listen(&mut self) {
        loop {
            let frame = match self.caller.front.connection_mut().poll_receive() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(why) => panic!("the next front end: {why}"),
            };
            if frame.header.request == FrontRequest::GetInflightFd.form().number {
                self.record = Some(frame);
            }
        }
    }
}

/// Says it without asking for an acknowledgement: who is refused something is cut off then.
fn say(caller: &mut Caller, message: &FrontMessage) {
    let out = message.encode();
    let header = Header::request(out.request, false, out.payload.len() as u32);
    let fds: Vec<_> = out.fds.iter().map(AsRawFd::as_raw_fd).collect();
    let bytes = [&header.encode()[..], &out.payload].concat();
    caller.bytes(&bytes, &fds);
}
