//! A network device on rust-vmm's `vhost-user-backend` and `virtio-queue`, as their documentation has it: the ring by
//! `Queue::iter`, a used entry for each chain. It polls from the first kick on, which spares it what a kick costs.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT as _};
use virtio_queue::{QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddressSpace as _, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use super::stamp::{self, Judge, Seen};
use super::work::{Orders, Work};

/// virtio-net's header with the number of buffers, virtio 1.4 §5.1.6.
const HEADER: usize = 12;

/// How many chains are taken at once.
const BATCH: usize = 32;

/// MRG_RXBUF, PROTOCOL_FEATURES (of vhost-user) and VERSION_1.
const FEATURES: u64 = 1 << 15 | 1 << 30 | 1 << 32;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Both queues, from the first kick on.
#[derive(Default)]
struct Bench {
    vrings: Mutex<Option<Vec<VringRwLock>>>,
    here: Condvar,
}

/// The device, as the daemon has it.
struct Backend(Arc<Bench>);

impl VhostUserBackendMut for Backend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn update_memory(&mut self, _memory: Memory) -> io::Result<()> {
        Ok(())
    }

    fn handle_event(
        &mut self,
        _event: u16,
        _set: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        if let Ok(mut place) = self.0.vrings.lock() {
            *place = Some(vrings.to_vec());
            self.0.here.notify_all();
        }
        Ok(())
    }
}

/// Serves on `socket` until told to end.
pub(crate) fn child(socket: &str) -> Result<(), String> {
    let bench = Arc::new(Bench::default());
    let orders = Arc::new(Orders::default());
    let memory = Memory::new(GuestMemoryMmap::new());
    let backend = Arc::new(Mutex::new(Backend(Arc::clone(&bench))));
    let mut daemon = VhostUserDaemon::new("rust-vmm".to_owned(), backend, memory.clone())
        .map_err(|e| e.to_string())?;
    let mut listener = Listener::new(socket, true).map_err(|e| e.to_string())?;
    std::thread::spawn(move || daemon.start(&mut listener).map(|()| daemon.wait()));
    let told = Arc::clone(&orders);
    let worker = Arc::clone(&bench);
    std::thread::spawn(move || Device::new(told, memory).run(&worker));
    super::child::serve(|words| orders.obey(words, || {}));
    Ok(())
}

/// What the working thread has.
struct Device {
    orders: Arc<Orders>,
    memory: Memory,
    word: u64,
    work: Work,
    sink: Judge,
    sent: u64,
    frame: Vec<u8>,
    /// What is to be sent back.
    taken: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
    used: Vec<(u16, u32)>,
}

impl Device {
    fn new(orders: Arc<Orders>, memory: Memory) -> Self {
        Self {
            orders,
            memory,
            word: 0,
            work: Work::Idle,
            sink: Judge::default(),
            sent: 0,
            frame: Vec::new(),
            taken: VecDeque::new(),
            buffer: vec![0; 2048],
            used: Vec::with_capacity(BATCH),
        }
    }

    fn run(mut self, bench: &Bench) {
        let Ok(place) = bench.vrings.lock() else {
            return;
        };
        let Ok(place) = bench.here.wait_while(place, |vrings| vrings.is_none()) else {
            return;
        };
        let vrings = place.clone().unwrap_or_default();
        drop(place);
        let [receive, transmit] = &*vrings else {
            return;
        };
        for vring in &*vrings {
            // What follows looks by itself.
            let _refused = vring.disable_notification();
        }
        loop {
            self.look_at_orders();
            if self.work == Work::Idle {
                std::thread::sleep(std::time::Duration::from_millis(1));
                continue;
            }
            let taken = self.take(transmit);
            let sent = match self.work {
                Work::Source(_) => self.send(receive, BATCH),
                Work::Reflect => self.send(receive, self.taken.len()),
                _ => 0,
            };
            if sent + taken == 0 {
                std::hint::spin_loop();
            } else {
                self.orders.report(self.sent, self.sink.seen());
            }
        }
    }

    fn look_at_orders(&mut self) {
        let word = self.orders.word();
        if word == self.word {
            return;
        }
        self.word = word;
        self.work = Orders::work(word);
        if self.work == Work::Idle {
            // The counts stay as they are.
            self.orders.acknowledge(word);
            return;
        }
        self.sent = 0;
        self.sink = Judge::default();
        if let Work::Source(len) = self.work {
            self.frame = headed(&stamp::frame(len));
        }
        self.orders.report(0, Seen::default());
        self.orders.acknowledge(word);
    }

    /// Takes a batch of what the driver sends.
    fn take(&mut self, vring: &VringRwLock) -> usize {
        let memory = self.memory.memory();
        let mut state = vring.get_mut();
        if !state.get_queue().ready() {
            return 0;
        }
        let Ok(chains) = state.get_queue_mut().iter(memory.clone()) else {
            return 0;
        };
        self.used.clear();
        for chain in chains.take(BATCH) {
            let head = chain.head_index();
            let mut filled = 0;
            for descriptor in chain.readable() {
                let room = self.buffer.get_mut(filled..).unwrap_or_default();
                let len = (descriptor.len() as usize).min(room.len());
                if memory
                    .read_slice(&mut room[..len], descriptor.addr())
                    .is_ok()
                {
                    filled += len;
                }
            }
            let frame = self.buffer.get(HEADER..filled).unwrap_or_default();
            match self.work {
                Work::Reflect => self.taken.push_back(headed(frame)),
                _ => self.sink.look(frame),
            }
            self.used.push((head, 0));
        }
        for &(head, len) in &self.used {
            let _refused = state.add_used(head, len);
        }
        self.call(&mut state);
        self.used.len()
    }

    /// Sends as many frames as there are buffers, up to so many.
    fn send(&mut self, vring: &VringRwLock, most: usize) -> usize {
        let memory = self.memory.memory();
        let mut state = vring.get_mut();
        if !state.get_queue().ready() {
            return 0;
        }
        let Ok(chains) = state.get_queue_mut().iter(memory.clone()) else {
            return 0;
        };
        self.used.clear();
        for chain in chains.take(most) {
            let head = chain.head_index();
            if let Some(taken) = self.taken.pop_front() {
                self.frame = taken;
            } else {
                stamp::stamp(&mut self.frame[HEADER..], self.sent);
            }
            let mut rest = &*self.frame;
            for descriptor in chain.writable() {
                let len = rest.len().min(descriptor.len() as usize);
                let (now, later) = rest.split_at(len);
                if memory.write_slice(now, descriptor.addr()).is_ok() {
                    rest = later;
                }
                if rest.is_empty() {
                    break;
                }
            }
            self.sent += 1;
            self.used.push((head, self.frame.len() as u32));
        }
        for &(head, len) in &self.used {
            let _refused = state.add_used(head, len);
        }
        self.call(&mut state);
        self.used.len()
    }

    fn call(&self, state: &mut vhost_user_backend::VringState) {
        if !self.used.is_empty() && state.needs_notification().unwrap_or(true) {
            let _full = state.signal_used_queue();
        }
    }
}

/// A frame behind its header.
fn headed(frame: &[u8]) -> Vec<u8> {
    let mut headed = [&[0; HEADER][..], frame].concat();
    // virtio 1.4 §5.1.9.4.1: one buffer for each.
    headed[10] = 1;
    headed
}
