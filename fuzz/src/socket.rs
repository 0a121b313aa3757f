//! A front end that says anything over its socket, with any descriptors, to a device that is served.
//!
//! Its steps are taken when the server waits, on the server's thread, and so is the device's work: an input is one order of
//! things. The front end is cut off or leaves, once, and is told to be; the device writes to no byte of a file but those
//! that a table gave; nothing of a file stays mapped or open; and the next front end is served.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock, PoisonError};

use vdpa_hostile::exchange::Exchange;
use vdpa_hostile::socket::{Caller, GUEST, USER, event};
use vdpa_hostile::table::Target;
use vdpa_ring::Format;
use vdpa_vhost_user::payload::{Iotlb, IotlbKind, Log, MemoryRegion, VringState};
use vdpa_vhost_user::{Frame, FrontMessage, FrontRequest, Header};

use crate::Input;
use crate::house::House;

/// How many steps an input has at most.
const STEPS: usize = 24;
const PAGE: u64 = 4096;
/// Pages of each file of which a front end gives parts.
const PAGES: u64 = 6;
/// Where the guest has what it gives of them: behind the memory that its rings are in.
const AT: u64 = GUEST + (1 << 24);
/// What they are filled with.
const FILL: u8 = 0xa7;

/// The target `vhost_user`.
pub fn run(data: &[u8]) {
    static HOUSES: OnceLock<Vec<Mutex<House>>> = OnceLock::new();
    // A page that is missing is asked for, or fails what needs it.
    let houses = HOUSES.get_or_init(|| {
        let kinds = [
            (Target::Tx, false),
            (Target::Blk, false),
            (Target::Tx, true),
            (Target::Blk, true),
        ];
        let houses = kinds.map(|(target, page_requests)| House::open(target, page_requests));
        houses.into_iter().map(Mutex::new).collect()
    });
    let mut input = Input::new(data);
    let which = input.below(houses.len() * 2);
    let format = [Format::Split, Format::Packed][which % 2];
    let house = &houses[which / 2];
    let house = house.lock().unwrap_or_else(PoisonError::into_inner);
    house.serve(format, input.rest().to_vec());
}

/// A file, and what of it was given.
struct Given {
    file: File,
    /// Pages that the device may write to.
    open: [bool; PAGES as usize],
    /// Whether it was cut, which leaves nothing to compare.
    cut: bool,
}

impl Given {
    fn new() -> Self {
        let file = File::from(vdpa_hostile::socket::file(PAGES * PAGE));
        let fill = [FILL; (PAGES * PAGE) as usize];
        file.write_all_at(&fill, 0).expect("room");
        Self {
            file,
            open: [false; PAGES as usize],
            cut: false,
        }
    }

    fn fd(&self) -> OwnedFd {
        self.file
            .as_fd()
            .try_clone_to_owned()
            .expect("a descriptor")
    }

    /// A part of it, in pages, and where the front end and its guest have it.
    fn region(&mut self, first: u64, pages: u64, at: u64) -> (MemoryRegion, OwnedFd) {
        let (from, upto) = (
            first.min(PAGES) as usize,
            (first + pages).min(PAGES) as usize,
        );
        self.open[from..upto].fill(true);
        let region = MemoryRegion {
            guest: AT + at * PAGE,
            size: pages * PAGE,
            user: USER + (1 << 24) + at * PAGE,
            offset: first * PAGE,
        };
        (region, self.fd())
    }

    /// Whether only what was given was written to.
    fn check(&self) {
        if self.cut {
            return;
        }
        let mut page = [0; PAGE as usize];
        for (at, open) in (0..).zip(self.open) {
            self.file
                .read_exact_at(&mut page, at * PAGE)
                .expect("a page");
            let written = page.iter().position(|byte| *byte != FILL);
            assert!(
                open || written.is_none(),
                "page {at} was not given, and is written to"
            );
        }
    }
}

/// A front end that talks.
pub struct Talk {
    caller: Caller,
    /// Made when the first of them is given.
    files: [Option<Given>; 2],
    /// What is to be done with its queues, if they were set up.
    exchange: Option<Exchange>,
    /// A record of what is in flight that it was given.
    record: Option<Frame>,
    data: Vec<u8>,
    /// How much of the data was read.
    at: usize,
    steps: usize,
    passes: Passes,
}

/// How much the device does after a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// All that there is to do.
    All,
    /// Each unit that is hot is served once.
    One,
    /// Nothing: it is held up.
    None,
}

impl Talk {
    /// One that has connected, and will say this.
    pub fn new(caller: Caller, data: Vec<u8>) -> Self {
        Self {
            caller,
            files: [None, None],
            exchange: None,
            record: None,
            data,
            at: 0,
            steps: 0,
            passes: Passes::All,
        }
    }

    /// The next step, and what the device does after it. `None`: there was none any more, and it leaves.
    pub fn go_on(&mut self) -> Option<Passes> {
        self.listen();
        let data = std::mem::take(&mut self.data);
        let mut input = Input::new(data.get(self.at..).unwrap_or_default());
        let over = self.steps == STEPS || input.is_empty();
        if !over {
            self.steps += 1;
            self.step(&mut input);
        }
        self.at = data.len() - input.rest().len();
        self.data = data;
        if over {
            self.caller.leave();
            return None;
        }
        Some(self.passes)
    }

    /// Takes what the server says. `false`: the connection has ended.
    pub fn listen(&mut self) -> bool {
        loop {
            match self.caller.front.connection_mut().poll_receive() {
                Ok(Some(frame)) => {
                    let record = FrontRequest::GetInflightFd.form().number;
                    if frame.header.request == record && !frame.fds.is_empty() {
                        self.record = Some(frame);
                    }
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// It has gone, and so has all that it gave.
    ///
    /// # Panics
    /// When something was written that was not given.
    pub fn end(self) {
        self.files.iter().flatten().for_each(Given::check);
    }

    fn file(&mut self, input: &mut Input<'_>) -> &mut Given {
        self.files[input.below(2)].get_or_insert_with(Given::new)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.u8();
        self.passes = match kind / 14 {
            1 => Passes::One,
            2 => Passes::None,
            _ => Passes::All,
        };
        match kind % 14 {
            0 | 1 => self.set_up(input),
            2 | 3 => self.any(input),
            4 => {
                let len = input.below(40);
                self.caller.bytes(input.bytes(len), &[]);
            }
            5 | 6 => self.give(input),
            7 => self.translate(input),
            8 => {
                // A request whose answer is to be written somewhere.
                let at = AT + u64::from(input.u16()) % (16 * PAGE);
                let len = u32::from(input.u16()) % 8192;
                if let Some(exchange) = &mut self.exchange {
                    exchange.post_to(at, len);
                }
                self.caller.kick();
            }
            9 => {
                let len = u64::from(input.u8()) * PAGE / 32;
                let given = self.file(input);
                given.cut = true;
                let _uncut = given.file.set_len(len);
            }
            10 => self.log(input),
            11 => self.state(input),
            12 => self.give_record(input),
            _ => self.transfer(input),
        }
    }

    /// The record that it was given comes back, perhaps with a few bytes changed.
    fn give_record(&mut self, input: &mut Input<'_>) {
        let Some(mut frame) = self.record.take() else {
            return;
        };
        let Some(fd) = frame.fds.pop() else { return };
        let file = File::from(fd);
        for _ in 0..input.below(4) {
            let _beyond = file.write_all_at(&[input.u8()], input.u16().into());
        }
        for _ in 0..input.below(2) {
            let place = input.below(frame.payload.len());
            if let Some(byte) = frame.payload.get_mut(place) {
                *byte ^= input.u8();
            }
        }
        let request = FrontRequest::SetInflightFd.form().number;
        let header = Header::request(request, true, frame.payload.len() as u32);
        let message = [&header.encode()[..], &frame.payload].concat();
        self.caller.bytes(&message, &[file.as_raw_fd()]);
    }

    /// The state of the device goes, or one comes, and is asked for. It goes into a socket, with an end to it.
    fn transfer(&mut self, input: &mut Input<'_>) {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let load = input.flag();
        if load {
            let len = input.below(64);
            let sent = (&ours).write(input.bytes(len));
            sent.expect("there is room");
        }
        // Phase 0: stopped.
        let payload = [u32::from(load).to_le_bytes(), 0_u32.to_le_bytes()].concat();
        let request = FrontRequest::SetDeviceStateFd.form().number;
        let header = Header::request(request, true, payload.len() as u32);
        let message = [&header.encode()[..], &payload].concat();
        self.caller.bytes(&message, &[theirs.as_raw_fd()]);
        drop(ours);
        self.caller.send(&FrontMessage::CheckDeviceState);
    }

    /// What a good front end says, up to somewhere.
    fn set_up(&mut self, input: &mut Input<'_>) {
        let session = self.caller.session();
        let upto = usize::from(input.u8());
        for message in session.iter().take(upto) {
            self.caller.send(message);
        }
        self.exchange = Some(self.caller.exchange());
    }

    /// Any request, with a payload as long as it has or not, and any descriptors.
    fn any(&mut self, input: &mut Input<'_>) {
        let known = input.pick(FrontRequest::ALL);
        // What gives memory says which, in `give`.
        let gives = [FrontRequest::SetMemTable, FrontRequest::AddMemReg].contains(&known);
        let number = match input.u8() {
            255 => input.u32(),
            _ => known.form().number,
        };
        let flags = match input.u8() {
            255 => input.u32(),
            other => 1 | u32::from(other & 8),
        };
        let lens = [0, 8, 12, 16, 20, 24, 32, 40, 44];
        let right = lens
            .into_iter()
            .find(|len| known.form().payload.takes(*len));
        let len = match input.u8() {
            wild @ 240.. => usize::from(wild) * 4,
            _ => right.unwrap_or(0),
        };
        let mut payload = input.bytes(len.min(40)).to_vec();
        payload.resize(len, 0);
        let header = Header {
            request: number,
            flags,
            size: len as u32,
        };
        let count = match input.u8() {
            wild @ 200.. => usize::from(wild % 12),
            _ => known.form().least_fds,
        };
        let count = if gives { 0 } else { count };
        let (socket, _other) = UnixStream::pair().expect("sockets");
        let (file, event) = (vdpa_hostile::socket::file(PAGE), event());
        let choice = [&socket.into(), &file, &event].map(|fd: &OwnedFd| fd.as_raw_fd());
        let fds: Vec<RawFd> = (0..count).map(|_| input.pick(&choice)).collect();
        self.caller
            .bytes(&[&header.encode()[..], &payload].concat(), &fds);
    }

    /// Memory comes and goes.
    fn give(&mut self, input: &mut Input<'_>) {
        let files = &mut self.files;
        let mut part = |input: &mut Input<'_>| {
            let given = files[input.below(2)].get_or_insert_with(Given::new);
            let (first, pages) = (input.below(7) as u64, 1 + input.below(7) as u64);
            given.region(first, pages, input.below(16) as u64)
        };
        let message = match input.u8() % 4 {
            0 => {
                let count = input.below(4);
                let mut table: Vec<_> = (0..count).map(|_| part(input)).collect();
                if input.flag() {
                    table.push(self.caller.region());
                }
                FrontMessage::SetMemTable(table)
            }
            1 => FrontMessage::RemMemReg(part(input).0),
            _ => {
                let (region, fd) = part(input);
                FrontMessage::AddMemReg(region, fd)
            }
        };
        self.caller.send(&message);
    }

    fn translate(&mut self, input: &mut Input<'_>) {
        let size = 1 + u64::from(input.u16());
        let entry = Iotlb {
            iova: AT + u64::from(input.u8()) * PAGE,
            size: if input.flag() { size * PAGE } else { size },
            user: USER + (1 << 24) + u64::from(input.u8()) * PAGE,
            access: vdpa_vhost_user::payload::Access::from_bits_retain(input.u8() & 3),
            kind: input.pick(&[IotlbKind::Update, IotlbKind::Invalidate, IotlbKind::Miss]),
        };
        self.caller.send(&FrontMessage::IotlbMsg(entry));
    }

    /// A log, or a choice of features.
    fn log(&mut self, input: &mut Input<'_>) {
        let message = match input.u8() % 3 {
            0 => FrontMessage::SetFeatures(self.caller.features() | u64::from(input.u8()) << 26),
            1 => FrontMessage::SetFeatures(input.u64()),
            _ => {
                let size = u64::from(input.u16()) * 64;
                let offset = u64::from(input.u8()) * 512;
                let file = vdpa_hostile::socket::file(1 << 20);
                FrontMessage::SetLogBase(Log { size, offset }, file)
            }
        };
        self.caller.send(&message);
    }

    /// A queue stops, goes on, or is another one.
    fn state(&mut self, input: &mut Input<'_>) {
        let state = VringState {
            index: u32::from(input.u8() % 7),
            num: match input.u8() {
                255 => input.u32(),
                small => u32::from(small),
            },
        };
        self.caller.send(&match input.u8() % 7 {
            0 => FrontMessage::GetVringBase(state),
            1 => FrontMessage::SetVringBase(state),
            2 => FrontMessage::SetVringNum(state),
            3 => FrontMessage::SetVringEnable(state),
            4 => FrontMessage::SetStatus(state.num as u8),
            5 => FrontMessage::ResetDevice,
            _ => FrontMessage::GetStatus,
        });
    }
}
