//! Against the `vhost` crate, which nobody here wrote: each of two front ends in front of each of two back ends, with
//! somebody between who writes down what goes over the socket. All four say the same, byte for byte.

mod back_end;

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use back_end::Stranger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::fstat;
use vdpa_vhost_user::payload::*;
use vdpa_vhost_user::{
    Back, BackMessage, Connection, Frame, FromBack, Front, FrontMessage, FrontRequest, Header,
    Outgoing, ProtocolFeatures, Reply, ToFront,
};
use vhost::vhost_user::message::*;
use vhost::vhost_user::{
    Backend, BackendReqHandler, Frontend, FrontendReqHandler, GpuBackend, HandlerResult,
    Result as StrangerResult, VhostUserBackendReqHandlerMut, VhostUserFrontend,
    VhostUserFrontendReqHandler,
};
use vhost::{
    VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionBase, VhostUserMemoryRegionInfo,
    VringConfigData,
};
use vm_memory::ByteValued;
use vmm_sys_util::eventfd::EventFd;

const FEATURES: u64 = (1 << 34) | (1 << 32) | (1 << 30) | (1 << 26);
const QUEUES: u64 = 4;
const SLOTS: u64 = 509;
const BASE: u32 = 0x8001_7fff;
const UUID: [u8; 16] = [7; 16];

/// What all agree on. The stranger's back end has no SET_LOG_FD, no IOTLB messages and no status.
fn protocol() -> ProtocolFeatures {
    use ProtocolFeatures as P;

    P::MQ
        | P::LOG_SHMFD
        | P::REPLY_ACK
        | P::BACKEND_REQ
        | P::CONFIG
        | P::INFLIGHT_SHMFD
        | P::RESET_DEVICE
        | P::CONFIGURE_MEM_SLOTS
        | P::DEVICE_STATE
        | P::SHARED_OBJECT
}

fn region(at: u64) -> MemoryRegion {
    MemoryRegion {
        guest: at << 30,
        size: (1 << 30) - (at << 12),
        user: (0x7f << 40) + (at << 30),
        offset: at << 12,
    }
}

fn record() -> Inflight {
    Inflight {
        mmap_size: 0x3000,
        mmap_offset: 0x1000,
        num_queues: 4,
        queue_size: 256,
    }
}

/// What is handed over: the same in all runs, so that it can be known again.
struct Things {
    files: Vec<File>,
    event: EventFd,
    socket: UnixStream,
}

impl Things {
    fn new() -> Self {
        Self {
            files: (0..9).map(|_| tempfile::tempfile().unwrap()).collect(),
            event: EventFd::new(0).unwrap(),
            socket: UnixStream::pair().unwrap().0,
        }
    }

    fn file(&self, at: usize) -> OwnedFd {
        self.files[at].as_fd().try_clone_to_owned().unwrap()
    }
}

/// What went over the socket: from whom, header, payload, and which files.
type Line = (&'static str, Header, Vec<u8>, Vec<(u64, u64)>);

/// Stands between two, and writes down what they say until the front end leaves.
fn between(front: UnixStream, back: UnixStream) -> JoinHandle<Vec<Line>> {
    thread::spawn(move || {
        let (mut front, mut back) = (Connection::new(front), Connection::new(back));
        let mut lines = Vec::new();
        loop {
            let mut asked = [&front, &back].map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN));
            poll(&mut asked, PollTimeout::NONE).unwrap();
            loop {
                match front.poll_receive() {
                    Ok(Some(frame)) => lines.push(passed("front", &frame, &mut back)),
                    Ok(None) => break,
                    Err(error) if error.is_end() => return lines,
                    Err(error) => panic!("{error}"),
                }
            }
            while let Some(frame) = back.poll_receive().unwrap() {
                lines.push(passed("back", &frame, &mut front));
            }
        }
    })
}

fn passed(from: &'static str, frame: &Frame, to: &mut Connection) -> Line {
    let out = Outgoing {
        request: frame.header.request,
        payload: frame.payload.clone(),
        fds: frame.fds.iter().map(AsFd::as_fd).collect(),
    };
    to.send(frame.header, &out).unwrap();
    let file = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).unwrap();
    let files = frame.fds.iter().map(file).collect();
    let mut header = frame.header;
    // The stranger asks for acknowledgements of what is answered anyway, and before they are negotiated.
    let request = FrontRequest::from_number(header.request).unwrap();
    let negotiates = [FrontRequest::SetProtocolFeatures, FrontRequest::SetOwner];
    let answered = request == FrontRequest::SetLogBase || request.form().reply.is_some();
    if from == "front" && (answered || negotiates.contains(&request)) {
        header.flags &= !8;
    }
    // Its padding is what was on its stack.
    let mut payload = frame.payload.clone();
    if [FrontRequest::GetInflightFd, FrontRequest::SetInflightFd].contains(&request) {
        payload.iter_mut().skip(20).for_each(|byte| *byte = 0);
    }
    (from, header, payload, files)
}

/// The requests of a session, from either front end.
fn ours(socket: UnixStream, things: &Things) {
    let mut front = Front::new(Connection::new(socket));
    let state = |index, num| VringState { index, num };
    let vring = |index| VringFd {
        index,
        fd: Some(nix::sys::eventfd::EventFd::from_value(0).unwrap().into()),
    };
    let mut ask = |message: FrontMessage| front.ask(&message).unwrap();
    ask(FrontMessage::SetOwner);
    assert!(matches!(
        ask(FrontMessage::GetFeatures),
        Reply::Value(FEATURES)
    ));
    match ask(FrontMessage::GetProtocolFeatures) {
        Reply::Value(value) => assert_eq!(value, protocol().bits()),
        other => panic!("{other:?}"),
    }
    ask(FrontMessage::SetProtocolFeatures(protocol()));
    assert!(matches!(
        ask(FrontMessage::GetQueueNum),
        Reply::Value(QUEUES)
    ));
    ask(FrontMessage::SetFeatures(FEATURES));
    assert!(matches!(
        ask(FrontMessage::GetMaxMemSlots),
        Reply::Value(SLOTS)
    ));
    let table = (0..8).map(|at| (region(at), things.file(at as usize)));
    ask(FrontMessage::SetMemTable(table.collect()));
    ask(FrontMessage::AddMemReg(region(8), things.file(8)));
    ask(FrontMessage::RemMemReg(region(8)));
    for index in 0..2 {
        ask(FrontMessage::SetVringNum(state(index, 256)));
        ask(FrontMessage::SetVringAddr(VringAddr {
            index,
            flags: VringFlags::LOG,
            descriptor: 0x1000,
            used: 0x3000,
            available: 0x2000,
            log: 0x4000,
        }));
        ask(FrontMessage::SetVringBase(state(index, 0xfffe)));
        ask(FrontMessage::SetVringCall(vring(index as u8)));
        ask(FrontMessage::SetVringErr(vring(index as u8)));
        ask(FrontMessage::SetVringKick(vring(index as u8)));
        ask(FrontMessage::SetVringEnable(state(index, 1)));
        ask(FrontMessage::SetVringEnable(state(index, 0)));
    }
    ask(FrontMessage::SetBackendReqFd(
        things.socket.try_clone().unwrap().into(),
    ));
    ask(FrontMessage::SetLogBase(
        Log {
            size: 0x8000,
            offset: 0x1000,
        },
        things.file(0),
    ));
    let asked = Inflight {
        mmap_size: 0,
        mmap_offset: 0,
        ..record()
    };
    match ask(FrontMessage::GetInflightFd(asked)) {
        Reply::Inflight(got, Some(_)) => assert_eq!(got, record()),
        other => panic!("{other:?}"),
    }
    ask(FrontMessage::SetInflightFd(record(), things.file(2)));
    ask(FrontMessage::SetConfig(Config {
        offset: 3,
        flags: 1,
        bytes: vec![1, 2, 3],
    }));
    let direction = Direction::Save;
    let moved = ask(FrontMessage::SetDeviceStateFd(
        DeviceState { direction },
        things.file(3),
    ));
    assert!(matches!(moved, Reply::Fd(None)));
    let direction = Direction::Load;
    let moved = ask(FrontMessage::SetDeviceStateFd(
        DeviceState { direction },
        things.file(3),
    ));
    assert!(matches!(moved, Reply::Fd(Some(_))));
    assert!(matches!(
        ask(FrontMessage::CheckDeviceState),
        Reply::Value(0)
    ));
    assert!(matches!(
        ask(FrontMessage::GetSharedObject(UUID)),
        Reply::Fd(Some(_))
    ));
    ask(FrontMessage::ResetDevice);
    assert_eq!(front.config(3, 250).unwrap(), vec![0xa5; 250]);
    assert_eq!(front.vring_base(1).unwrap(), BASE);
}

/// The same from the stranger's.
fn strangers(socket: UnixStream, things: &Things) {
    let mut front = Frontend::from_stream(socket, QUEUES);
    let fd = |at: usize| things.files[at].as_raw_fd();
    let info = |at: u64| {
        let MemoryRegion {
            guest,
            size,
            user,
            offset,
        } = region(at);
        VhostUserMemoryRegionInfo {
            guest_phys_addr: guest,
            memory_size: size,
            userspace_addr: user,
            mmap_offset: offset,
            mmap_handle: fd(at as usize),
        }
    };
    let inflight = |of: Inflight| {
        VhostUserInflight::new(of.mmap_size, of.mmap_offset, of.num_queues, of.queue_size)
    };
    front.set_owner().unwrap();
    assert_eq!(front.get_features().unwrap(), FEATURES);
    let got = front.get_protocol_features().unwrap();
    assert_eq!(got.bits(), protocol().bits());
    front.set_protocol_features(got).unwrap();
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(front.get_queue_num().unwrap(), QUEUES);
    front.set_features(FEATURES).unwrap();
    assert_eq!(front.get_max_mem_slots().unwrap(), SLOTS);
    let table: Vec<_> = (0..8).map(info).collect();
    front.set_mem_table(&table).unwrap();
    front.add_mem_region(&info(8)).unwrap();
    front.remove_mem_region(&info(8)).unwrap();
    for index in 0..2 {
        front.set_vring_num(index, 256).unwrap();
        let data = VringConfigData {
            queue_max_size: 256,
            queue_size: 256,
            flags: 1,
            desc_table_addr: 0x1000,
            used_ring_addr: 0x3000,
            avail_ring_addr: 0x2000,
            log_addr: Some(0x4000),
        };
        front.set_vring_addr(index, &data).unwrap();
        front.set_vring_base(index, 0xfffe).unwrap();
        front.set_vring_call(index, &things.event).unwrap();
        front.set_vring_err(index, &things.event).unwrap();
        front.set_vring_kick(index, &things.event).unwrap();
        front.set_vring_enable(index, true).unwrap();
        front.set_vring_enable(index, false).unwrap();
    }
    front.set_backend_request_fd(&things.socket).unwrap();
    let log = VhostUserDirtyLogRegion {
        mmap_size: 0x8000,
        mmap_offset: 0x1000,
        mmap_handle: fd(0),
    };
    front.set_log_base(0, Some(log)).unwrap();
    let asked = Inflight {
        mmap_size: 0,
        mmap_offset: 0,
        ..record()
    };
    let (got, _) = front.get_inflight_fd(&inflight(asked)).unwrap();
    assert_eq!(got.as_slice()[..20], inflight(record()).as_slice()[..20]);
    front.set_inflight_fd(&inflight(record()), fd(2)).unwrap();
    let flags = VhostUserConfigFlags::WRITABLE;
    front.set_config(3, flags, &[1, 2, 3]).unwrap();
    let phase = VhostTransferStatePhase::STOPPED;
    for (direction, given) in [
        (VhostTransferStateDirection::SAVE, false),
        (VhostTransferStateDirection::LOAD, true),
    ] {
        let got = front.set_device_state_fd(direction, phase, things.file(3));
        assert_eq!(got.unwrap().is_some(), given);
    }
    front.check_device_state().unwrap();
    let uuid = VhostUserSharedMsg::from_slice(&UUID).unwrap();
    front.get_shared_object(uuid).unwrap();
    front.reset_device().unwrap();
    let flags = VhostUserConfigFlags::empty();
    let (_, bytes) = front.get_config(3, 250, flags, &[0; 250]).unwrap();
    assert_eq!(bytes, vec![0xa5; 250]);
    assert_eq!(front.get_vring_base(1).unwrap(), BASE);
}

/// A back end of ours that answers what [`Stranger`] does.
fn our_back_end(socket: UnixStream, things: Arc<Things>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut back = Back::new(Connection::new(socket));
        loop {
            let received = match back.receive(None) {
                Ok(received) => received,
                Err(error) if error.is_end() => return,
                Err(error) => panic!("{error}"),
            };
            let reply = match received.message {
                FrontMessage::GetFeatures => Reply::Value(FEATURES),
                FrontMessage::GetProtocolFeatures => Reply::Value(protocol().bits()),
                FrontMessage::GetQueueNum => Reply::Value(QUEUES),
                FrontMessage::GetMaxMemSlots => Reply::Value(SLOTS),
                FrontMessage::GetVringBase(VringState { index, .. }) => {
                    Reply::Vring(VringState { index, num: BASE })
                }
                FrontMessage::GetConfig(span) => Reply::Config(Config {
                    offset: span.offset,
                    flags: span.flags,
                    bytes: vec![0xa5; span.size as usize],
                }),
                FrontMessage::GetInflightFd(_) => Reply::Inflight(record(), Some(things.file(4))),
                FrontMessage::SetDeviceStateFd(state, _) => {
                    Reply::Fd((state.direction == Direction::Load).then(|| things.file(5)))
                }
                FrontMessage::GetSharedObject(_) => Reply::Fd(Some(things.file(6))),
                _ => Reply::Done,
            };
            back.answer(received.ticket, &reply).unwrap();
        }
    })
}

fn strangers_back_end(socket: UnixStream, things: Arc<Things>) -> JoinHandle<()> {
    thread::spawn(move || {
        let device = Arc::new(Mutex::new(Stranger(things)));
        let mut handler = BackendReqHandler::from_stream(socket, device);
        loop {
            match handler.handle_request() {
                Ok(()) => {}
                Err(vhost::vhost_user::Error::Disconnected) => return,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

#[test]
fn front_ends_and_back_ends_of_both_say_the_same() {
    let things = Arc::new(Things::new());
    type FrontEnd = fn(UnixStream, &Things);
    type BackEnd = fn(UnixStream, Arc<Things>) -> JoinHandle<()>;
    let fronts: [FrontEnd; 2] = [ours, strangers];
    let backs: [BackEnd; 2] = [our_back_end, strangers_back_end];
    let mut said = Vec::new();
    for front in fronts {
        for back in backs {
            let (front_end, front_side) = UnixStream::pair().unwrap();
            let (back_side, back_end) = UnixStream::pair().unwrap();
            let lines = between(front_side, back_side);
            let served = back(back_end, things.clone());
            front(front_end, &things);
            said.push(lines.join().unwrap());
            served.join().unwrap();
        }
    }
    let [first, others @ ..] = &said[..] else {
        panic!("nobody spoke");
    };
    assert!(first.len() > 70, "{}", first.len());
    for other in others {
        for (at, (a, b)) in first.iter().zip(other).enumerate() {
            assert_eq!(a, b, "line {at}");
        }
        assert_eq!(first.len(), other.len());
    }
}

#[test]
fn log_of_the_strangers_front_end_has_its_eventfd() {
    let (front, back) = UnixStream::pair().unwrap();
    let front = Frontend::from_stream(front, QUEUES);
    let things = Things::new();
    front.set_log_fd(things.event.as_raw_fd()).unwrap();
    front.set_log_base(0x1000, None).unwrap();
    let mut back = Back::new(Connection::new(back));
    let received = back.receive(None).unwrap();
    assert!(matches!(received.message, FrontMessage::SetLogFd(_)));
    assert!(!received.ticket.is_awaited());
    let received = back.receive(None).unwrap();
    assert!(matches!(
        received.message,
        FrontMessage::SetLogAddress(0x1000)
    ));
    assert!(!received.ticket.is_awaited());
}

/// One of this process's own, which the stranger tells by its number.
fn descriptor(number: RawFd) -> OwnedFd {
    let (theirs, ours) = UnixStream::pair().unwrap();
    let rights = [ControlMessage::ScmRights(&[number])];
    let header = Header::request(21, false, 0).encode();
    let parts = [IoSlice::new(&header)];
    sendmsg::<()>(theirs.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
    let mut frame = Connection::new(ours).receive(None).unwrap();
    frame.fds.pop().unwrap()
}

/// The stranger's front end on the back-end channel: it counts.
struct Counts(Mutex<Vec<&'static str>>);

impl VhostUserFrontendReqHandler for Counts {
    fn handle_config_change(&self) -> HandlerResult<u64> {
        self.0.lock().unwrap().push("config");
        Ok(0)
    }

    fn shared_object_add(&self, uuid: &VhostUserSharedMsg) -> HandlerResult<u64> {
        assert_eq!(uuid.as_slice(), UUID);
        self.0.lock().unwrap().push("add");
        Ok(0)
    }
}

#[test]
fn channel_of_our_back_end_is_heard_by_the_strangers_front_end() {
    let counts = Arc::new(Counts(Mutex::new(Vec::new())));
    let mut handler = FrontendReqHandler::new(counts.clone()).unwrap();
    handler.set_reply_ack_flag(true);
    let given = descriptor(handler.get_tx_raw_fd());
    let heard = thread::spawn(move || {
        for _ in 0..2 {
            handler.handle_request().unwrap();
        }
        handler.handle_request().unwrap_err();
    });
    let mut channel = ToFront::new(given, true);
    assert!(matches!(
        channel.ask(&BackMessage::ConfigChange).unwrap(),
        Reply::Done
    ));
    assert!(matches!(
        channel.ask(&BackMessage::SharedObjectAdd(UUID)).unwrap(),
        Reply::Done
    ));
    // What it does not do, it refuses.
    assert!(channel.ask(&BackMessage::SharedObjectRemove(UUID)).is_err());
    heard.join().unwrap();
    assert_eq!(*counts.0.lock().unwrap(), ["config", "add"]);
}

#[test]
fn channel_of_the_strangers_back_end_is_heard_by_our_front_end() {
    let (mut ours, given) = FromBack::pair(true).unwrap();
    let backend = Backend::from_stream(UnixStream::from(given));
    backend.set_reply_ack_flag(true);
    backend.set_shared_object_flag(true);
    let heard = thread::spawn(move || {
        let told = ours.receive(None).unwrap();
        assert!(matches!(told.message, BackMessage::SharedObjectAdd(UUID)));
        ours.answer(told.ticket, &Reply::Done).unwrap();
        let told = ours.receive(None).unwrap();
        assert!(matches!(
            told.message,
            BackMessage::SharedObjectRemove(UUID)
        ));
        ours.answer(told.ticket, &Reply::Failed).unwrap();
    });
    let uuid = VhostUserSharedMsg::from_slice(&UUID).unwrap();
    backend.shared_object_add(uuid).unwrap();
    backend.shared_object_remove(uuid).unwrap_err();
    heard.join().unwrap();
}
