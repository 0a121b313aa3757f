//! A front end: one that behaves well until a row has it do otherwise.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use vdpa_core::{Doorbell, Status, bits};
use vdpa_mem::{Access, DmaMemory, Region};
use vdpa_ring::Format;
use vdpa_vhost_user::payload::{
    Inflight, MemoryRegion, VringAddr, VringFd, VringFlags, VringState,
};
use vdpa_vhost_user::{
    Connection, Error, F_PROTOCOL_FEATURES, Front, FrontMessage, Header, Outgoing,
    ProtocolFeatures, Reply,
};

use crate::SOON;
use crate::exchange::Exchange;
use crate::guard::Arena;
use crate::raw::RawQueue;
use crate::table::Target;

/// Where the guest has its memory.
pub const GUEST: u64 = 0x1_0000_0000;
/// Where the front end has what the guest has at [`GUEST`].
pub const USER: u64 = 0x7f00_0000_0000;
/// Bytes of the guest's memory.
pub const MEMORY: usize = 64 << 10;
/// Where the guest has memory that comes and goes by itself.
pub const SPARE: u64 = GUEST + (1 << 30);
/// Bytes of that.
pub const SPARE_BYTES: u64 = 8 << 10;

const FIRST_RING: usize = 4 << 10;
const SECOND_RING: usize = 8 << 10;
const BUFFERS: usize = 16 << 10;
const SIZE: u16 = 16;
/// The sector that is read and written.
const SECTOR: u64 = 7;

/// A front end, connected.
pub struct Caller {
    /// Its half of the connection.
    pub front: Front,
    /// Its guest's memory, which is shared.
    pub arena: Arc<Arena>,
    memory: Arc<dyn DmaMemory>,
    target: Target,
    format: Format,
    kicks: [Arc<OwnedFd>; 2],
    queues: Vec<RawQueue>,
    /// The other end of the channel that it gave, kept open.
    channel: Option<UnixStream>,
}

impl Caller {
    /// One that connects, and says nothing.
    pub(super) fn connect(path: &Path, target: Target, format: Format) -> Self {
        let stream = UnixStream::connect(path).expect("a connection");
        Self::over(stream, target, format)
    }

    /// One that is connected, and says nothing.
    pub fn over(stream: UnixStream, target: Target, format: Format) -> Self {
        let memory: Arc<dyn DmaMemory> =
            Arc::new(Region::memfd(MEMORY as u64).expect("shared memory"));
        let mut front = Front::new(Connection::new(stream));
        front.set_wait(SOON);
        Self {
            front,
            arena: Arena::over(GUEST, Arc::clone(&memory), Access::Both),
            memory,
            target,
            format,
            kicks: [event(), event()].map(Arc::new),
            queues: Vec::new(),
            channel: None,
        }
    }

    /// The whole guest's memory as a region, and its file.
    pub fn region(&self) -> (MemoryRegion, OwnedFd) {
        let region = MemoryRegion {
            guest: GUEST,
            size: MEMORY as u64,
            user: USER,
            offset: 0,
        };
        let (file, _) = self.memory.file().expect("it has a file");
        (region, file.try_clone_to_owned().expect("a descriptor"))
    }

    /// A region beside it, and a file of its own.
    pub fn spare(&self) -> (MemoryRegion, OwnedFd) {
        let region = MemoryRegion {
            guest: SPARE,
            size: SPARE_BYTES,
            user: USER + (1 << 30),
            offset: 0,
        };
        (region, file(SPARE_BYTES))
    }

    /// The protocol features, as far as anybody takes them.
    pub fn negotiate(&mut self) {
        for message in self.greeting() {
            self.ask(&message);
        }
    }

    fn greeting(&self) -> Vec<FrontMessage> {
        use ProtocolFeatures as P;

        let mut taken = P::MQ
            | P::REPLY_ACK
            | P::BACKEND_REQ
            | P::RESET_DEVICE
            | P::CONFIGURE_MEM_SLOTS
            | P::STATUS
            | P::CONFIG
            | P::LOG_SHMFD
            | P::INFLIGHT_SHMFD
            | P::DEVICE_STATE;
        if self.target.is_net() {
            taken |= P::MTU;
        }
        vec![
            FrontMessage::GetFeatures,
            FrontMessage::GetProtocolFeatures,
            FrontMessage::SetProtocolFeatures(taken),
            FrontMessage::GetQueueNum,
            FrontMessage::SetOwner,
        ]
    }

    /// All that a front end says until its queues run, in order.
    pub fn session(&mut self) -> Vec<FrontMessage> {
        let mut all = self.greeting();
        let status = |bits: Status| FrontMessage::SetStatus(bits.bits());
        let known = Status::ACKNOWLEDGE | Status::DRIVER;
        let (channel, given) = UnixStream::pair().expect("a channel");
        self.channel = Some(channel);
        let (spare, spare_file) = self.spare();
        all.extend([
            FrontMessage::SetBackendReqFd(given.into()),
            FrontMessage::GetMaxMemSlots,
            status(known),
            FrontMessage::SetFeatures(self.features()),
            status(known | Status::FEATURES_OK),
            FrontMessage::GetStatus,
            FrontMessage::SetMemTable(vec![self.region()]),
            FrontMessage::AddMemReg(spare, spare_file),
            FrontMessage::RemMemReg(spare),
            FrontMessage::GetInflightFd(Inflight {
                mmap_size: 0,
                mmap_offset: 0,
                num_queues: 2,
                queue_size: SIZE,
            }),
        ]);
        let rings = [FIRST_RING, SECOND_RING];
        let count = if self.target.is_net() { 2 } else { 1 };
        self.queues = (0..count)
            .map(|index| {
                let ring = (&self.arena, rings[usize::from(index)]);
                let mut q = RawQueue::new(index, self.format, SIZE, ring, None);
                q.doorbell = Doorbell::from(Arc::clone(&self.kicks[usize::from(index)]));
                q
            })
            .collect();
        for at in 0..count {
            all.extend(self.start(at));
        }
        all.push(status(known | Status::FEATURES_OK | Status::DRIVER_OK));
        all
    }

    /// What starts a queue.
    fn start(&self, at: u16) -> Vec<FrontMessage> {
        let index = u32::from(at);
        let place = usize::from(at);
        let q = &self.queues[place];
        let config = q.config(None);
        let user = |iova: vdpa_mem::Iova| iova.get() - GUEST + USER;
        let vring = |fd: Option<OwnedFd>| VringFd {
            index: at as u8,
            fd,
        };
        let kick = self.kicks[place].try_clone().expect("a descriptor");
        // Both wrap counters of a packed queue begin as ones.
        let base = match self.format {
            Format::Split => 0,
            Format::Packed => 0x8000_8000,
        };
        let state = |num| VringState { index, num };
        vec![
            FrontMessage::SetVringNum(state(SIZE.into())),
            FrontMessage::SetVringBase(state(base)),
            FrontMessage::SetVringAddr(VringAddr {
                index,
                flags: VringFlags::empty(),
                descriptor: user(config.descriptor),
                available: user(config.driver),
                used: user(config.device),
                log: 0,
            }),
            FrontMessage::SetVringCall(vring(Some(event()))),
            FrontMessage::SetVringErr(vring(Some(event()))),
            FrontMessage::SetVringKick(vring(Some(kick))),
            FrontMessage::SetVringEnable(state(1)),
        ]
    }

    /// What it takes of the device's features.
    pub fn features(&self) -> u64 {
        let packed = match self.format {
            Format::Split => 0,
            Format::Packed => 1 << bits::RING_PACKED.number(),
        };
        (1 << bits::VERSION_1.number()) | packed | F_PROTOCOL_FEATURES
    }

    /// All of it: what is to be done with the queues that run.
    pub fn set_up(&mut self) -> Exchange {
        for message in self.session() {
            let reply = self.ask(&message);
            if let Reply::Inflight(record, Some(fd)) = reply {
                self.ask(&FrontMessage::SetInflightFd(record, fd));
            }
        }
        self.exchange()
    }

    /// Does so too whenever a queue of the last [`session`](Self::session) is kicked: for a device that nobody else serves.
    pub fn after_kicks(&mut self, then: impl Fn() + Clone + Send + Sync + 'static) {
        for q in &mut self.queues {
            let (doorbell, then) = (q.doorbell.clone(), then.clone());
            q.doorbell = Doorbell::from_fn(move |data| {
                doorbell.ring(data);
                then();
            });
        }
    }

    /// A well-behaved driver of the queues of the last [`session`](Self::session).
    pub fn exchange(&mut self) -> Exchange {
        let mut queues = std::mem::take(&mut self.queues).into_iter();
        let mut next = || queues.next().expect("it was set up");
        match self.target.is_net() {
            true => Exchange::net(next(), next(), &self.arena, BUFFERS),
            false => Exchange::block(next(), SECTOR, true, &self.arena, BUFFERS),
        }
    }

    /// Asks for something, which has to succeed.
    pub fn ask(&mut self, message: &FrontMessage) -> Reply {
        match self.front.ask(message) {
            Ok(reply) => reply,
            Err(why) => panic!("{}: {why}", message.request().name()),
        }
    }

    /// Sends a message, and does not look at what comes of it.
    pub fn send(&mut self, message: &FrontMessage) {
        let Outgoing {
            request,
            payload,
            fds,
        } = message.encode();
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let header = Header::request(request, true, payload.len() as u32);
        self.bytes(&[&header.encode()[..], &payload].concat(), &numbers);
    }

    /// Sends a message of these bytes, with so many descriptors of a file.
    pub fn message(&mut self, request: u32, payload: &[u8], fds: usize) {
        let file = file(4096);
        let header = Header::request(request, true, payload.len() as u32);
        let bytes = [&header.encode()[..], payload].concat();
        self.bytes(&bytes, &vec![file.as_raw_fd(); fds]);
    }

    /// Sends bytes, which fit. A server that has gone already is none to complain about.
    pub fn bytes(&mut self, bytes: &[u8], fds: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[] } else { &rights[..] };
        let parts = [IoSlice::new(bytes)];
        let socket = self.front.connection().socket().as_raw_fd();
        // What does not fit is not waited for: some rows fill the socket.
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let _gone_or_full = sendmsg::<()>(socket, &parts, control, flags, None);
    }

    /// Rings both doorbells, whatever is behind them.
    pub fn kick(&self) {
        for kick in &self.kicks {
            let _full = nix::unistd::write(kick, &1_u64.to_ne_bytes());
        }
    }

    /// Says no more: the server sees the end of the connection.
    pub fn leave(&self) {
        let socket = self.front.connection().socket();
        // The server may have closed its end.
        let _gone = socket.shutdown(std::net::Shutdown::Write);
    }

    /// Its guest's memory is in a file that can be cut, from here on.
    pub fn use_a_file_that_can_be_cut(&mut self) -> File {
        let file = file(MEMORY as u64);
        let kept = File::from(file.try_clone().expect("a descriptor"));
        let memory = Region::shared(file, 0, MEMORY as u64).expect("shared memory");
        self.memory = Arc::new(memory);
        self.arena = Arena::over(GUEST, Arc::clone(&self.memory), Access::Both);
        kept
    }

    /// Waits until the server has closed the connection, and takes what it has said before.
    pub fn wait_for_the_end(&mut self) {
        let deadline = Instant::now() + SOON;
        loop {
            match self.front.connection_mut().receive(Some(deadline)) {
                Ok(_) => {}
                Err(Error::Closed { .. }) => return,
                Err(why) => panic!("the connection did not end: {why}"),
            }
        }
    }

    /// Whether what nobody was allowed to write is as it was.
    ///
    /// # Errors
    /// With the first byte that is not.
    pub fn check_memory(&self) -> Result<(), String> {
        self.arena.check()
    }
}

/// A file of so many bytes, in memory, as front ends have it.
pub fn file(len: u64) -> OwnedFd {
    let file = memfd_create("given", MFdFlags::MFD_CLOEXEC).expect("a file");
    let file = File::from(file);
    file.set_len(len).expect("its length");
    file.into()
}

/// An eventfd.
pub fn event() -> OwnedFd {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = EventFd::from_value_and_flags(0, flags);
    event.expect("an eventfd").into()
}
