//! Page requests against memory that is not there: a userfaultfd has each page filled when it is first touched, as where
//! a guest runs on while its memory still comes from elsewhere. Nothing is pinned, and no worker ever waits for a page.
#![allow(
    unsafe_code,
    reason = "memory that a userfaultfd watches, and its system calls"
)]

mod rig;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rig::{BASE, Ctrl, HEADER, Lab, Q, REGION, Rig, SOON, soon, until, with};
use vdpa_core::bits::net;
use vdpa_core::*;
use vdpa_mem::{Access, Deadline, DmaMemory, Iova, IovaRange, Mapping, Window};

const PAGE: u64 = 4096;

/// `linux/userfaultfd.h`.
mod uffd {
    pub(super) const API: u64 = 0xaa;
    /// A fault says which thread it is of.
    pub(super) const THREAD_ID: u64 = 1 << 8;
    pub(super) const MISSING: u64 = 1;
    pub(super) const PAGEFAULT: u8 = 0x12;

    #[repr(C)]
    #[derive(Default)]
    pub(super) struct Api {
        pub(super) api: u64,
        pub(super) features: u64,
        pub(super) ioctls: u64,
    }

    #[repr(C)]
    #[derive(Default)]
    pub(super) struct Register {
        pub(super) start: u64,
        pub(super) len: u64,
        pub(super) mode: u64,
        pub(super) ioctls: u64,
    }

    #[repr(C)]
    #[derive(Default)]
    pub(super) struct Copy {
        pub(super) dst: u64,
        pub(super) src: u64,
        pub(super) len: u64,
        pub(super) mode: u64,
        pub(super) copied: i64,
    }

    nix::ioctl_readwrite!(api, 0xaa, 0x3f, Api);
    nix::ioctl_readwrite!(register, 0xaa, 0x00, Register);
    nix::ioctl_readwrite!(copy, 0xaa, 0x03, Copy);
}

/// What a page has before anybody writes it, wherever that is kept until then.
const ELSEWHERE: u8 = 0xa5;

/// Memory whose pages come when they are asked for.
struct Lazy {
    base: NonNull<u8>,
    uffd: OwnedFd,
    filled: AtomicU64,
}

// SAFETY: the memory is used through `Bytes` alone, and filled by the system.
unsafe impl Send for Lazy {}
// SAFETY: as above.
unsafe impl Sync for Lazy {}

// SAFETY: mapped until dropped; nothing makes references into it. A page that is not there yet is filled by whoever
// serves the userfaultfd, which outlasts all who touch it.
unsafe impl DmaMemory for Lazy {
    fn hva(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> u64 {
        REGION
    }
}

impl Lazy {
    fn new() -> nix::Result<Arc<Self>> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

        // SAFETY: a system call that makes a descriptor, and touches nothing.
        let fd =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        let fd = nix::errno::Errno::result(fd)?;
        // SAFETY: new, and nobody else's.
        let uffd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut api = uffd::Api {
            api: uffd::API,
            features: uffd::THREAD_ID,
            ioctls: 0,
        };
        // SAFETY: the structure that this request takes.
        unsafe { uffd::api(uffd.as_raw_fd(), &mut api) }?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let len = (REGION as usize).try_into().unwrap();
        // SAFETY: a new mapping at an address of the kernel's choosing touches nothing that exists.
        let base = unsafe { mmap_anonymous(None, len, prot, MapFlags::MAP_PRIVATE) }?;
        let mut register = uffd::Register {
            start: base.as_ptr() as u64,
            len: REGION,
            mode: uffd::MISSING,
            ioctls: 0,
        };
        // SAFETY: the structure that this request takes.
        unsafe { uffd::register(uffd.as_raw_fd(), &mut register) }?;
        Ok(Arc::new(Self {
            base: base.cast(),
            uffd,
            filled: AtomicU64::new(0),
        }))
    }

    /// Fills the page with the byte at `offset`, if it is not there.
    fn fill(&self, offset: u64) {
        let page = [ELSEWHERE; PAGE as usize];
        let mut copy = uffd::Copy {
            dst: self.base.as_ptr() as u64 + (offset & !(PAGE - 1)),
            src: page.as_ptr() as u64,
            len: PAGE,
            ..uffd::Copy::default()
        };
        // SAFETY: the structure that this request takes; a page of ours is copied to one that is not there.
        match unsafe { uffd::copy(self.uffd.as_raw_fd(), &mut copy) } {
            Ok(_) => drop(self.filled.fetch_add(1, Ordering::Relaxed)),
            Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => panic!("a page cannot be filled: {e}"),
        }
    }

    /// Fills what the driver touches, until told to stop. Nobody else ever waits for a page.
    fn serve(&self, driver: i32, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let mut fds = [PollFd::new(self.uffd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(20_u8)).unwrap() == 0 {
                continue;
            }
            let mut message = [0; 32];
            if nix::unistd::read(&self.uffd, &mut message) != Ok(32) {
                continue;
            }
            assert_eq!(message[0], uffd::PAGEFAULT);
            let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().unwrap());
            let offset = word(16) - self.base.as_ptr() as u64;
            // Filled first: who waits goes on also where this ends the test.
            self.fill(offset);
            assert_eq!(word(24) as i32, driver, "a worker waited for {offset:#x}");
        }
    }
}

impl Drop for Lazy {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; nothing points into it any more.
        let _ = unsafe { nix::sys::mman::munmap(self.base.cast(), REGION as usize) };
    }
}

/// Memory, or the line that says why there is none.
fn lazy(name: &str) -> Option<Arc<Lazy>> {
    match Lazy::new() {
        Ok(memory) => Some(memory),
        Err(e) => {
            println!("SKIP {name}: no userfaultfd: {e}");
            None
        }
    }
}

/// A device with nothing mapped, whose driver is in this memory.
fn rig(memory: &Arc<Lazy>, spec: &str) -> Rig {
    let mut rig = Lab::new().open(spec);
    rig.unmap();
    rig.memory = memory.clone();
    rig.window = Window::new(rig.memory.clone(), 0, REGION).unwrap();
    rig
}

/// Who answers the device's page requests.
struct Owner<'a> {
    rig: &'a Rig,
    memory: &'a Lazy,
    events: Events,
    mapped: BTreeSet<u64>,
    asked: u64,
}

impl Owner<'_> {
    fn page(&self, page: u64) -> Mapping {
        Mapping {
            iova: IovaRange::new(Iova::new(BASE + page * PAGE), PAGE).unwrap(),
            memory: self.rig.memory.clone(),
            offset: page * PAGE,
            access: Access::Both,
            dirty: None,
        }
    }

    /// The pages asked for since the last time.
    fn asked(&mut self) -> Vec<u64> {
        let mut pages = Vec::new();
        while let Some(event) = self.events.try_next() {
            let Event::Miss { asid, at, .. } = event else {
                panic!("{event:?}")
            };
            assert_eq!(asid, Asid::new(0));
            pages.push((at.get() - BASE) / PAGE);
            self.asked += 1;
        }
        pages
    }

    /// Fills and maps a page, and some behind it in one batch.
    fn answer(&mut self, page: u64, more: u64) {
        let batch: Vec<u64> = (page..=page + more)
            .filter(|page| !self.mapped.contains(page))
            .collect();
        batch.iter().for_each(|page| self.memory.fill(page * PAGE));
        let mappings = batch.iter().map(|page| self.page(*page)).collect();
        self.rig.dma.map(mappings).unwrap();
        self.mapped.extend(batch);
    }

    fn take_all(&mut self) {
        self.rig.dma.replace(Vec::new(), soon()).unwrap();
        self.mapped.clear();
    }

    /// Keeps every other page, in a table that replaces the old one.
    fn take_half(&mut self) {
        let kept: BTreeSet<u64> = self.mapped.iter().copied().filter(|p| p % 2 == 0).collect();
        let table = kept.iter().map(|page| self.page(*page)).collect();
        self.rig.dma.replace(table, soon()).unwrap();
        self.mapped = kept;
    }

    fn take_one(&mut self, seed: u64) {
        let place = seed as usize % self.mapped.len().max(1);
        if let Some(page) = self.mapped.iter().copied().nth(place) {
            self.rig.dma.unmap(self.page(page).iova, soon()).unwrap();
            self.mapped.remove(&page);
        }
    }
}

/// A pair's queues and its buffers: two pages for each frame, used in turn.
struct Pair {
    rx: Q,
    tx: Q,
    at: u64,
    slots: u64,
    sent: u64,
    back: u64,
}

impl Pair {
    fn new(rig: &Rig, pair: u16, slots: u64) -> Self {
        let (rx, tx) = (rig.queue(2 * pair, 64), rig.queue(2 * pair + 1, 64));
        let bytes = (slots * 4 + 1) * PAGE;
        let at = rig.alloc(bytes as usize).next_multiple_of(PAGE);
        Self {
            rx,
            tx,
            at,
            slots,
            sent: 0,
            back: 0,
        }
    }

    fn room(&self, number: u64) -> u64 {
        self.at + number % self.slots * 4 * PAGE
    }

    /// Sends the next frame, over a page boundary and by an indirect table, if the last one is back.
    fn send(&mut self, rig: &Rig) {
        if self.sent != self.back {
            return;
        }
        let room = self.room(self.sent);
        self.rx.add(&[], &[(room, 2 * PAGE as u32)]).unwrap();
        self.rx.publish();
        let from = room + 3 * PAGE - 40;
        let frame = [&[0; HEADER][..], &[self.sent as u8; 300]].concat();
        rig.bytes().write(from as usize, &frame);
        let header = HEADER as u32;
        self.tx
            .add(&[(from, header), (from + u64::from(header), 300)], &[])
            .unwrap();
        self.tx.publish();
        self.sent += 1;
    }

    /// Takes the frame back. Answers whether it came.
    fn receive(&mut self, rig: &Rig) -> bool {
        self.tx.used();
        let used = self.rx.used();
        let Some(done) = used.first() else {
            return false;
        };
        assert_eq!(done.len as usize, HEADER + 300);
        let room = self.room(self.back) as usize;
        let mut bytes = [0; HEADER + 310];
        rig.bytes().read(room, &mut bytes);
        assert_eq!(bytes[HEADER..][..300], [self.back as u8; 300]);
        if self.back < self.slots {
            assert_eq!(
                bytes[HEADER + 300..],
                [ELSEWHERE; 10],
                "the page was filled"
            );
        }
        self.back += 1;
        true
    }
}

/// Runs `test` while what the driver touches is filled.
fn with_pages(memory: &Lazy, test: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let driver = nix::unistd::gettid().as_raw();
    std::thread::scope(|s| {
        let server = s.spawn(|| memory.serve(driver, &stop));
        // Also where the test fails: nobody is left waiting.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopped = Stop(&stop);
        test();
        drop(stopped);
        server.join().unwrap();
    });
}

#[test]
fn frames_go_through_memory_that_is_filled_on_demand() {
    let name = "userfault::frames_go_through_memory_that_is_filled_on_demand";
    for packed in [false, true] {
        let Some(memory) = lazy(name) else { return };
        with_pages(&memory, || {
            let spec = "sim:net,page_requests=on,queue_pairs=2,workers=2";
            let rig = rig(&memory, spec);
            rig.negotiate(with(&rig, packed, true, true, false).with(net::MQ));
            let mut pairs = [0, 1].map(|pair| Pair::new(&rig, pair, 40));
            let mut ctrl = rig.queue(4, 16);
            let mut owner = Owner {
                events: rig.device.events().unwrap(),
                rig: &rig,
                memory: &memory,
                mapped: BTreeSet::new(),
                asked: 0,
            };
            rig.run();
            // Both pairs, by a control queue that is not there either.
            let command = rig.alloc(64);
            rig.bytes().write(command as usize, &[4, 0, 2, 0, 0xff]);
            ctrl.add(&[(command, 4)], &[(command + 4, 1)]).unwrap();
            ctrl.publish();
            until("the command", || {
                owner
                    .asked()
                    .into_iter()
                    .for_each(|page| owner.answer(page, 0));
                !ctrl.used().is_empty()
            });
            let by = Deadline::after(2 * SOON);
            let mut turns = 0_u64;
            while pairs.iter().any(|pair| pair.back < 300) {
                assert!(!by.expired(), "it did not end: {:?}", owner.mapped);
                for page in owner.asked() {
                    owner.answer(page, turns % 3);
                }
                for pair in &mut pairs {
                    pair.send(&rig);
                    if pair.receive(&rig) {
                        turns += 1;
                        match turns % 64 {
                            20 => owner.take_all(),
                            40 => owner.take_half(),
                            n if n % 8 == 0 => owner.take_one(turns),
                            _ => {}
                        }
                    }
                }
            }
            assert!(owner.asked > 200, "{}", owner.asked);
            assert!(!rig.status().contains(Status::DEVICE_NEEDS_RESET));
            rig.close();
        });
        assert!(memory.filled.load(Ordering::Relaxed) > 100);
    }
}

#[test]
fn a_queue_whose_page_comes_late_does_not_hold_up_its_siblings() {
    let name = "userfault::a_queue_whose_page_comes_late_does_not_hold_up_its_siblings";
    for workers in [1, 2] {
        let Some(memory) = lazy(name) else { return };
        with_pages(&memory, || {
            let spec = format!("sim:net,page_requests=on,queue_pairs=2,workers={workers}");
            let rig = rig(&memory, &spec);
            rig.negotiate(with(&rig, true, true, true, false).with(net::MQ));
            let mut pairs = [0, 1].map(|pair| Pair::new(&rig, pair, 40));
            let mut ctrl = Ctrl::new(&rig, rig.queue(4, 16));
            let mut owner = Owner {
                events: rig.device.events().unwrap(),
                rig: &rig,
                memory: &memory,
                mapped: BTreeSet::new(),
                asked: 0,
            };
            // All but the first pair's buffers.
            let end = rig.alloc(1) / PAGE;
            let late = |page: u64, pair: &Pair| {
                let first = pair.at / PAGE;
                (first..first + pair.slots * 4).contains(&page)
            };
            (0..=end)
                .filter(|page| !late(*page, &pairs[0]))
                .for_each(|page| owner.answer(page, 0));
            rig.run();
            assert_eq!(ctrl.command(&[4, 0, 2, 0]), 0);
            let mut kept: Vec<u64> = Vec::new();
            let [slow, quick] = &mut pairs;
            for round in 1..=10 {
                slow.send(&rig);
                until("the siblings", || {
                    kept.extend(owner.asked());
                    quick.send(&rig);
                    quick.receive(&rig);
                    assert!(!slow.receive(&rig), "its page is not there");
                    quick.back >= round * 100 && !kept.is_empty()
                });
                assert!(kept.iter().all(|page| late(*page, slow)), "{kept:?}");
                until("the late page", || {
                    kept.extend(owner.asked());
                    kept.drain(..).for_each(|page| owner.answer(page, 0));
                    slow.receive(&rig)
                });
            }
            assert_eq!(slow.back, 10);
            rig.close();
        });
    }
}

#[test]
fn a_page_that_never_comes_leaves_everything_else_to_be_done() {
    let name = "userfault::a_page_that_never_comes_leaves_everything_else_to_be_done";
    for packed in [false, true] {
        let Some(memory) = lazy(name) else { return };
        with_pages(&memory, || {
            let rig = rig(&memory, "sim:net,page_requests=on");
            rig.negotiate(with(&rig, packed, false, true, false));
            // Rings too.
            let mut pair = Pair::new(&rig, 0, 1);
            let events = rig.device.events().unwrap();
            rig.run();
            pair.send(&rig);
            // The other queue has nothing to do.
            let asked = events.wait(soon()).unwrap();
            assert!(matches!(asked, Some(Event::Miss { .. })), "{asked:?}");
            rig.device.suspend(soon()).unwrap();
            rig.device.resume().unwrap();
            let state = rig.device.stop_queue(pair.rx.index, soon()).unwrap();
            rig.device.reset_queue(pair.tx.index, soon()).unwrap();
            // Where it stood, and where it stands: at the beginning.
            pair.rx.start(&rig, Some(state));
            // Unmapping what it waits beside ends, and what it has.
            let page = |page: u64| IovaRange::new(Iova::new(BASE + page * PAGE), PAGE).unwrap();
            let mapping = |number: u64| Mapping {
                iova: page(number),
                memory: rig.memory.clone(),
                offset: number * PAGE,
                access: Access::Both,
                dirty: None,
            };
            let first = pair.rx.areas()[0] / PAGE;
            rig.dma.map(vec![mapping(first)]).unwrap();
            rig.dma.unmap(page(first), soon()).unwrap();
            rig.dma.replace(Vec::new(), soon()).unwrap();
            rig.reset();
            assert!(rig.status().is_empty());
            assert!(pair.rx.used().is_empty() && pair.tx.used().is_empty());
            rig.close();
        });
    }
}
