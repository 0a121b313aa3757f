//! A driver that sends numbered packets, and a device that copies them out and checks the numbers.

use std::hint::black_box;

use vdpa_mem::{Access, Bytes, Cursor, Fault, Hint, Iova, Reader, Section, Spots};
use vdpa_ring::{Areas, Batch, Completion, DeviceMem, DriverMem, Segment, Used};

use super::queue::{Arena, BATCH, DeviceHalf, DriverHalf, Place, SLOTS, STRIDE, Shape};
use super::wrong;

/// The driver's side: owns the packets' buffers, which it fills once and then numbers before each sending, as an
/// application that produces its packets in place.
pub struct Sender<'m, D> {
    ring: D,
    mem: DriverMem<Bytes<'m>>,
    memory: Bytes<'m>,
    /// Where each buffer is: guest address, and offset in `memory`.
    buffers: Vec<(Iova, usize)>,
    /// Buffers not in flight, those that came back last on top.
    free: Vec<u16>,
    /// The buffer of each chain in flight.
    owner: Vec<u16>,
    done: [Completion; BATCH],
    len: u32,
    next: u64,
}

impl<'m, D: DriverHalf> Sender<'m, D> {
    /// Sends packets of `len` bytes through the queue at `place`, from buffers in `arena`.
    pub fn new(arena: &'m Arena, place: Place, shape: Shape, len: u32) -> Self {
        Self::with_buffers(arena, place, shape, len, arena.buffers())
    }

    /// The same, from buffers given: the device's address of each, and its offset in the arena. The queue's areas are
    /// made fresh.
    pub fn with_buffers(
        arena: &'m Arena,
        place: Place,
        shape: Shape,
        len: u32,
        buffers: Vec<(Iova, usize)>,
    ) -> Self {
        let memory = arena.window.bytes();
        for &(_, at) in &buffers {
            memory.write(at, &[0xa5; 2048][..len as usize]);
        }
        let mut ring = D::fresh(SLOTS, shape.features());
        let mem = DriverMem::new(place.areas(|at, bytes| {
            let area = arena.span(at, bytes);
            area.zero(0, area.len());
            area
        }));
        ring.disarm(&mem);
        Self {
            ring,
            mem,
            memory,
            free: (0..buffers.len() as u16).rev().collect(),
            owner: vec![0; usize::from(SLOTS)],
            buffers,
            done: [Completion::default(); BATCH],
            len,
            next: 0,
        }
    }

    /// Numbers, adds and shows up to `limit` packets; how many there were buffers for.
    #[inline]
    pub fn send(&mut self, limit: usize) -> usize {
        let mut sent = 0;
        while sent < limit {
            let Some(buffer) = self.free.pop() else { break };
            let (addr, at) = self.buffers[usize::from(buffer)];
            self.memory.store_u64(at as u32, self.next);
            let segment = Segment {
                addr,
                len: self.len,
            };
            match self.ring.add(&self.mem, &[segment], &[]) {
                Ok(id) => self.owner[usize::from(id)] = buffer,
                Err(e) => wrong(&e.to_string()),
            }
            self.next += 1;
            sent += 1;
        }
        black_box(self.ring.publish(&self.mem));
        sent
    }

    /// Takes back what was used, up to a batch; how many packets.
    #[inline]
    pub fn reclaim(&mut self) -> usize {
        let taken = self.ring.take_used(&self.mem, &mut self.done);
        let taken = taken.unwrap_or_else(|e| wrong(&e.to_string()));
        for done in &self.done[..taken] {
            self.free.push(self.owner[usize::from(done.id)]);
        }
        taken
    }

    /// Takes back all there is.
    pub fn reclaim_all(&mut self) {
        while self.reclaim() != 0 {}
    }

    /// Buffers that are not on their way.
    pub fn ready(&self) -> usize {
        self.free.len()
    }

    /// Whether no packet is on its way.
    pub fn is_idle(&self) -> bool {
        self.free.len() == self.buffers.len()
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.next
    }
}

/// How a device reaches memory: its queue's areas, and what chains point to.
pub trait Reach: DeviceMem {
    /// The part of memory that a loop keeps at hand.
    type View<'v>: View<'v>
    where
        Self: 'v;
    /// The one used last.
    fn view(&self, near: &Hint) -> Self::View<'_>;
}

/// Memory that a loop keeps at hand.
pub trait View<'v>: Sized {
    /// The `len` bytes at `at`, if they are in view.
    fn span(&mut self, at: Iova, len: u32) -> Option<Bytes<'v>>;
    /// The same for what is not.
    fn turn(&mut self, at: Iova, len: u32, near: &mut Hint) -> Result<Bytes<'v>, Fault>;
}

impl<'v> View<'v> for Bytes<'v> {
    #[inline(always)]
    fn span(&mut self, at: Iova, len: u32) -> Option<Bytes<'v>> {
        self.slice(at.get() as usize, len as usize)
    }

    fn turn(&mut self, _: Iova, _: u32, _: &mut Hint) -> Result<Bytes<'v>, Fault> {
        Err(Fault::Miss)
    }
}

impl<'v> View<'v> for Cursor<'v> {
    #[inline(always)]
    fn span(&mut self, at: Iova, len: u32) -> Option<Bytes<'v>> {
        Cursor::span(self, at, len)
    }

    fn turn(&mut self, at: Iova, len: u32, near: &mut Hint) -> Result<Bytes<'v>, Fault> {
        self.translate(at, len, near)
    }
}

/// Memory that needs no translation.
pub struct Direct<'m> {
    areas: Areas<Bytes<'m>>,
    memory: Bytes<'m>,
}

impl<'m> Direct<'m> {
    /// The queue at `place`, and all of `arena`.
    pub fn new(arena: &'m Arena, place: Place) -> Self {
        Self {
            areas: place.areas(|at, bytes| arena.span(at, bytes)),
            memory: arena.window.bytes(),
        }
    }
}

impl<'m> DeviceMem for Direct<'m> {
    type Ring = Bytes<'m>;

    #[inline(always)]
    fn areas(&self) -> &Areas<Bytes<'m>> {
        &self.areas
    }

    fn table(&self, _: Iova, _: &mut [[u64; 2]]) -> Result<(), Fault> {
        Err(Fault::Denied)
    }
}

impl Reach for Direct<'_> {
    type View<'v>
        = Bytes<'v>
    where
        Self: 'v;

    #[inline(always)]
    fn view(&self, _: &Hint) -> Bytes<'_> {
        self.memory
    }
}

/// Memory behind an address space, in one read section: what a device does for each batch.
pub struct Translated<'s> {
    areas: Areas<Bytes<'s>>,
    section: &'s Section<'s>,
}

impl<'s> Translated<'s> {
    /// The queue at `place`.
    #[inline]
    pub fn new(section: &'s Section<'s>, spots: &mut Spots<3>) -> Self {
        let spans = spots.find(section);
        let spans = spans.unwrap_or_else(|e| wrong(&format!("an area of the ring: {e:?}")));
        let [descriptor, driver, device] = spans;
        let areas = Areas {
            descriptor,
            driver,
            device,
        };
        Self { areas, section }
    }
}

impl<'s> DeviceMem for Translated<'s> {
    type Ring = Bytes<'s>;

    #[inline(always)]
    fn areas(&self) -> &Areas<Bytes<'s>> {
        &self.areas
    }

    fn table(&self, _: Iova, _: &mut [[u64; 2]]) -> Result<(), Fault> {
        Err(Fault::Denied)
    }
}

impl Reach for Translated<'_> {
    type View<'v>
        = Cursor<'v>
    where
        Self: 'v;

    #[inline(always)]
    fn view(&self, near: &Hint) -> Cursor<'_> {
        self.section.cursor(Access::DeviceReads, near)
    }
}

/// The device's side: copies each packet into a packet of its own and looks at its number there.
pub struct Receiver<D> {
    ring: D,
    in_order: bool,
    batch: Batch,
    used: [Used; BATCH],
    packets: Vec<[u8; STRIDE]>,
    near: Hint,
    ahead: bool,
    len: u32,
    next: u64,
}

impl<D: DeviceHalf> Receiver<D> {
    /// Expects packets of `len` bytes.
    pub fn new(shape: Shape, len: u32) -> Self {
        let token = vdpa_ring::ChainToken::new(0, 1);
        Self {
            ring: D::fresh(SLOTS, shape.features()),
            in_order: shape.in_order,
            batch: Batch::new(BATCH, usize::from(SLOTS)),
            used: [Used { token, len: 0 }; BATCH],
            packets: vec![[0; STRIDE]; BATCH],
            near: Hint::default(),
            ahead: false,
            len,
            next: 0,
        }
    }

    /// Asks for a whole batch of packets to be brought near before the first is copied: what a device does whose
    /// driver is on another core.
    pub fn look_ahead(mut self) -> Self {
        self.ahead = true;
        self
    }

    /// Asks for no kicks.
    pub fn disarm(&mut self, mem: &impl DeviceMem) {
        self.ring.disarm(mem);
    }

    /// Takes, copies, checks and gives back up to a batch; how many packets.
    #[inline]
    pub fn receive(&mut self, mem: &impl Reach) -> usize {
        let taken = self.ring.take(mem, &mut self.batch);
        let taken = taken.unwrap_or_else(|e| wrong(&e.to_string()));
        if taken == 0 {
            return 0;
        }
        if self.ahead {
            self.prefetch(mem.view(&self.near));
        }
        self.copy_all(mem.view(&self.near), taken);
        let called = self.ring.commit(mem, &self.used[..taken], self.in_order);
        black_box(called.unwrap_or_else(|e| wrong(&e.to_string())));
        taken
    }

    /// Copies and checks what was taken: run after run of packets that are in view, and between the runs those that
    /// are not.
    #[inline]
    fn copy_all<'m>(&mut self, mut view: impl View<'m>, taken: usize) {
        let mut done = 0;
        loop {
            done = self.copy_run(&mut view, done);
            if done == taken {
                break;
            }
            self.copy_next(&mut view, done);
            done += 1;
        }
    }

    /// Copies packets from number `from` of the batch on, as long as they are in view. Answers with the number of the
    /// first that is not.
    #[inline]
    fn copy_run<'m>(&mut self, view: &mut impl View<'m>, from: usize) -> usize {
        let mut done = from;
        let places = self.packets.iter_mut().zip(&mut self.used);
        'packets: for (chain, (packet, used)) in self.batch.iter().zip(places).skip(from) {
            let mut at = 0;
            for segment in chain.readable() {
                let Some(span) = view.span(segment.addr, segment.len) else {
                    break 'packets;
                };
                at += span.read(0, &mut packet[at..]);
            }
            check(packet, at, self.len, self.next);
            self.next += 1;
            used.token = chain.token();
            done += 1;
        }
        done
    }

    /// Copies packet number `i` of the batch, wherever it is.
    #[inline(never)]
    fn copy_next<'m>(&mut self, view: &mut impl View<'m>, i: usize) {
        let Some(chain) = self.batch.chain(i) else {
            wrong("a chain is missing")
        };
        let packet = &mut self.packets[i];
        let mut at = 0;
        for segment in chain.readable() {
            let span = view.turn(segment.addr, segment.len, &mut self.near);
            let span = span.unwrap_or_else(|e| wrong(&e.to_string()));
            at += span.read(0, &mut packet[at..]);
        }
        check(packet, at, self.len, self.next);
        self.next += 1;
        self.used[i].token = chain.token();
    }

    #[inline]
    fn prefetch<'m>(&mut self, mut view: impl View<'m>) {
        for segment in self.batch.iter().flat_map(|chain| chain.readable()) {
            let span = view.span(segment.addr, segment.len);
            let span = span.or_else(|| view.turn(segment.addr, segment.len, &mut self.near).ok());
            if let Some(span) = span {
                span.prefetch();
            }
        }
    }

    /// The same, in a read section of `reader`.
    #[inline]
    pub fn receive_translated(&mut self, reader: &mut Reader, spots: &mut Spots<3>) -> usize {
        let section = reader.enter();
        let mem = Translated::new(&section, spots);
        self.receive(&mem)
    }

    /// Packets received so far.
    pub fn received(&self) -> u64 {
        self.next
    }
}

/// The copy is all there and carries the number that was next.
#[inline(always)]
pub fn check(packet: &[u8; STRIDE], got: usize, len: u32, next: u64) {
    // The copy is looked at, as far as the compiler knows: it can't be left out.
    let packet = black_box(packet);
    let number = packet
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if got != len as usize || number != next {
        wrong(&format!(
            "packet {next} came as {number}, {got} bytes of {len}"
        ));
    }
}
