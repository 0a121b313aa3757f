//! A front end that says anything over its socket, with any descriptors, to a device that is served.
//!
//! The server has a thread, as has the device: here an input is not one order of things, and what is looked at holds in all
//! of them. The front end is cut off or leaves, once, and is told to be; the device writes to no byte of a file but those
//! that a table gave; nothing of a file stays mapped or open; and the next front end is served.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vdpa_hostile::exchange::Exchange;
use vdpa_hostile::socket::{Caller, Come, GUEST, Socket, USER};
use vdpa_hostile::table::Target;
use vdpa_ring::Format;
use vdpa_vhost_user::payload::{Iotlb, IotlbKind, Log, MemoryRegion, VringState};
use vdpa_vhost_user::{FrontMessage, FrontRequest, Header};

use crate::Input;

/// How many steps an input has at most.
const STEPS: usize = 24;
const PAGE: u64 = 4096;
/// Pages of each file of which a front end gives parts.
const PAGES: u64 = 6;
/// Where the guest has what it gives of them: behind the memory that its rings are in.
const AT: u64 = GUEST + (1 << 24);
/// How long an answer is waited for that may not come.
const MOMENT: Duration = Duration::from_millis(20);
/// What they are filled with.
const FILL: u8 = 0xa7;

thread_local! {
    static SOCKETS: RefCell<Vec<Socket>> = RefCell::new(
        [Target::Tx, Target::Blk]
            .into_iter()
            .flat_map(|target| {
                [Format::Split, Format::Packed].map(|format| Socket::new(target, format))
            })
            .collect(),
    );
}

/// The target `vhost_user`.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    SOCKETS.with_borrow_mut(|sockets| {
        let which = input.below(sockets.len());
        let socket = &mut sockets[which];
        let mut files = [Given::new(), Given::new()];
        socket.parts(Come::Either, |caller| {
            let mut talk = Talk {
                caller,
                files: &mut files,
                exchange: None,
            };
            for _ in 0..STEPS {
                if input.is_empty() {
                    break;
                }
                talk.step(&mut input);
            }
            talk.caller.leave();
        });
        // The front end has gone, and so has all that it gave.
        files.iter().for_each(Given::check);
        socket.next_is_served();
    });
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

    fn check(&self) {
        let inode = self.file.metadata().expect("it is open").ino().to_string();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let mapped = maps
            .lines()
            .find(|line| line.split_whitespace().nth(4) == Some(&inode));
        assert_eq!(
            mapped, None,
            "a file of a front end that has gone is mapped"
        );
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
struct Talk<'t> {
    caller: &'t mut Caller,
    files: &'t mut [Given; 2],
    /// What is to be done with its queues, if they were set up.
    exchange: Option<Exchange>,
}

impl Talk<'_> {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 12 {
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
                // The server has done what it was asked by then, or the answer would be to go into nothing.
                self.heard();
                if let Some(exchange) = &mut self.exchange {
                    exchange.post_to(at, len);
                }
                self.caller.kick();
                self.heard();
            }
            9 => {
                let given = &mut self.files[input.below(2)];
                given.cut = true;
                let _uncut = given.file.set_len(u64::from(input.u8()) % (PAGES * PAGE));
            }
            10 => self.log(input),
            _ => self.state(input),
        }
    }

    /// Waits for the answer to a question that nothing else asks, or a moment if there is none: the server may wait for the rest of a message.
    fn heard(&mut self) {
        self.caller.send(&FrontMessage::CheckDeviceState);
        let moment = Instant::now() + MOMENT;
        let connection = self.caller.front.connection_mut();
        while let Ok(frame) = connection.receive(Some(moment)) {
            if frame.header.request == FrontRequest::CheckDeviceState.form().number {
                return;
            }
        }
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
        let (socket, _other) = UnixStream::pair().expect("sockets");
        let other = vdpa_hostile::socket::file(PAGE);
        let choice = [socket.as_raw_fd(), other.as_raw_fd()];
        let count = match input.u8() {
            wild @ 200.. => usize::from(wild % 12),
            _ => known.form().least_fds,
        };
        let count = if gives { 0 } else { count };
        let fds: Vec<RawFd> = (0..count).map(|_| input.pick(&choice)).collect();
        self.caller
            .bytes(&[&header.encode()[..], &payload].concat(), &fds);
    }

    /// Memory comes and goes.
    fn give(&mut self, input: &mut Input<'_>) {
        let mut part = |input: &mut Input<'_>| {
            let given = &mut self.files[input.below(2)];
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
