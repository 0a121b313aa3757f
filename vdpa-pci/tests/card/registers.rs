//! The registers of the card, and what a driver may do with them, virtio 1.4 §4.1.4.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vdpa_core::{Call, DeviceType, EventSink, Features, config};
use vdpa_mem::IovaRange;
use vdpa_pci::Width;

use super::{BAR, CAPS, COMMON, DEVICE, ISR, NOTIFY, Shape, WINDOW};

/// What was done to a register of the BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Did {
    Read(u64, Width),
    Wrote(u64, Width, u32),
}

#[derive(Clone, Default, Debug)]
pub struct Queue {
    pub size: u16,
    pub vector: u16,
    pub enabled: bool,
    pub resetting: u8,
    pub areas: [u32; 6],
}

pub struct State {
    pub config: Vec<u8>,
    pub status: u8,
    /// Bits that it does not let the driver set.
    pub refused_status: u8,
    /// Its reset never ends.
    pub stuck: bool,
    pub generation: u8,
    pub isr: u8,
    device_select: u32,
    driver_select: u32,
    pub accepted: [u32; 4],
    pub config_vector: u16,
    select: u16,
    pub queues: Vec<Queue>,
    reset_left: u32,
    pub device: Vec<u8>,

    pub vectors: Vec<Call>,
    pub line: Call,
    pub line_masked: bool,
    pub kicks: Arc<Mutex<Vec<(u64, Width, u32)>>>,
    pub revoked: Arc<AtomicBool>,
    pub mapped: Vec<IovaRange>,
    pub sink: Option<Arc<dyn EventSink>>,

    pub accesses: u64,
    pub unplugged_at: Option<u64>,
    /// How long it is silent after a reset.
    pub reset_silence: Duration,
    pub silence: Duration,
    pub silent_until: Duration,
    pub log: Vec<Did>,
    window: (u8, u32, u32),
}

impl State {
    pub fn new(shape: &Shape) -> Self {
        let mut state = Self {
            config: config_space(shape),
            status: 0x8f,
            refused_status: 0,
            stuck: false,
            generation: 7,
            isr: 0,
            device_select: 0,
            driver_select: 0,
            accepted: [0; 4],
            config_vector: 0xffff,
            select: 0,
            queues: Vec::new(),
            reset_left: 0,
            device: shape.config.clone(),
            vectors: Vec::new(),
            line: Call::None,
            line_masked: false,
            kicks: Arc::default(),
            revoked: Arc::default(),
            mapped: Vec::new(),
            sink: None,
            accesses: 0,
            unplugged_at: None,
            reset_silence: Duration::from_millis(shape.reset_silence),
            silence: Duration::ZERO,
            silent_until: Duration::ZERO,
            log: Vec::new(),
            window: (0, 0, 0),
        };
        state.clear(shape);
        state
    }

    /// Counts an access. Whether anybody is there.
    pub fn access(&mut self) -> bool {
        let number = self.accesses;
        self.accesses += 1;
        self.unplugged_at.is_none_or(|at| number < at)
    }

    fn clear(&mut self, shape: &Shape) {
        let queue = Queue {
            size: shape.most,
            vector: 0xffff,
            ..Queue::default()
        };
        let count = shape
            .queues
            .max(shape.admin.0.saturating_add(shape.admin.1));
        self.queues = vec![queue; usize::from(count)];
        self.config_vector = 0xffff;
        self.accepted = [0; 4];
        self.isr = 0;
    }

    pub fn reset(&mut self, shape: &Shape) {
        self.clear(shape);
        self.status = 0;
        self.reset_left = shape.reset_reads;
        self.silence = self.reset_silence;
    }

    pub fn raise_isr(&mut self, bit: u8, always: bool) {
        // With MSI-X queues need not show.
        if always || self.vectors.is_empty() {
            self.isr |= bit;
        }
    }

    /// The call of a vector; of the line where there are none.
    pub fn call(&mut self, vector: u16) -> Call {
        if self.vectors.is_empty() {
            if self.line_masked {
                return Call::None;
            }
            self.line_masked = true;
            return self.line.clone();
        }
        let call = self.vectors.get(usize::from(vector));
        call.cloned().unwrap_or_default()
    }

    fn queue(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.select))
    }

    pub fn read(&mut self, shape: &Shape, at: u64, width: Width, silent: bool) -> u32 {
        self.log.push(Did::Read(at, width));
        check_place(shape, at, width);
        if silent {
            return width.all_ones();
        }
        if at == ISR {
            return u32::from(std::mem::take(&mut self.isr));
        }
        if at >= DEVICE {
            let from = usize::try_from(at - DEVICE).unwrap();
            let mut bytes = [0xff; 4];
            for (to, place) in bytes
                .iter_mut()
                .zip(from..from + usize::from(width.bytes()))
            {
                *to = self.device.get(place).copied().unwrap_or(0xff);
            }
            return u32::from_le_bytes(bytes) & width.all_ones();
        }
        let select = |select: u32| match shape.one_bit_select {
            true => select & 1,
            false => select,
        };
        let queue = self.queues.get(usize::from(self.select)).cloned();
        let queue = queue.unwrap_or_default();
        match at {
            0 => self.device_select,
            4 => shape.features.word(select(self.device_select)),
            8 => self.driver_select,
            12 => {
                let place = usize::try_from(select(self.driver_select)).unwrap();
                self.accepted.get(place).copied().unwrap_or(0)
            }
            16 => self.config_vector.into(),
            18 => shape.queues.into(),
            20 => {
                if self.stuck {
                    return 0x04;
                }
                if self.reset_left > 0 {
                    self.reset_left -= 1;
                    return 0x0f;
                }
                self.status.into()
            }
            21 => self.generation.into(),
            22 => self.select.into(),
            24 => queue.size.into(),
            26 => queue.vector.into(),
            28 => u32::from(queue.enabled),
            30 => (shape.notify_off)(self.select).into(),
            32..=52 => queue.areas[usize::try_from(at - 32).unwrap() / 4],
            56 => (shape.notify_data)(self.select).into(),
            58 => {
                if let Some(queue) = self.queue()
                    && queue.resetting > 0
                {
                    queue.resetting -= 1;
                    if queue.resetting == 0 {
                        *queue = Queue {
                            size: queue.size,
                            vector: 0xffff,
                            ..Queue::default()
                        };
                    }
                    return 1;
                }
                0
            }
            60 => shape.admin.0.into(),
            62 => shape.admin.1.into(),
            _ => panic!("read at {at}"),
        }
    }

    pub fn write(&mut self, shape: &Shape, at: u64, width: Width, value: u32) {
        self.log.push(Did::Wrote(at, width, value));
        check_place(shape, at, width);
        assert!(value <= width.all_ones());
        if at >= NOTIFY {
            self.kicks.lock().unwrap().push((at, width, value));
            return;
        }
        if at >= DEVICE {
            let from = usize::try_from(at - DEVICE).unwrap();
            let bytes = value.to_le_bytes();
            let to = &mut self.device[from..from + usize::from(width.bytes())];
            to.copy_from_slice(&bytes[..to.len()]);
            return;
        }
        let half = u16::try_from(value & 0xffff).unwrap();
        if at != 20 {
            assert!(
                self.reset_left == 0 && !self.stuck,
                "the reset is under way"
            );
        }
        let is_enabled = self.queue().is_some_and(|q| q.enabled);
        if matches!(at, 24..=27 | 32..=55) {
            assert!(!is_enabled, "written at {at} while the queue is enabled");
            assert!(self.status & 8 != 0, "before FEATURES_OK");
        }
        match at {
            0 => self.device_select = value,
            8 => self.driver_select = value,
            12 => {
                assert!(self.status & 8 == 0, "features after FEATURES_OK");
                let bits = u128::from(value) << (32 * self.driver_select);
                let extra = bits & !shape.features.to_u128();
                assert!(extra == 0, "not offered: {extra:#x}");
                let taken = Features::from_u128(bits) - shape.forgets;
                let word = usize::try_from(self.driver_select).unwrap();
                let place = if shape.one_bit_select { word & 1 } else { word };
                self.accepted[place] = taken.word(self.driver_select);
            }
            16 => self.config_vector = self.vector(shape, None, half),
            20 => self.write_status(shape, value),
            22 => self.select = half,
            24 => {
                let packed = self.accepted[1] & 1 << 2 != 0;
                assert!(half != 0 && (packed || half.is_power_of_two()));
                assert!(half <= shape.most);
                self.queue().expect("a queue").size = half;
            }
            26 => {
                let select = self.select;
                let vector = self.vector(shape, Some(select), half);
                self.queue().expect("a queue").vector = vector;
            }
            28 => {
                assert!(half == 1, "{half} in queue_enable");
                let queue = self.queue().expect("a queue");
                assert!(queue.areas[0] != 0, "no descriptor area");
                queue.enabled = true;
            }
            32..=52 => {
                let place = usize::try_from(at - 32).unwrap() / 4;
                self.queue().expect("a queue").areas[place] = value;
            }
            58 => {
                assert!(half == 1 && self.accepted[1] & 1 << 8 != 0, "RING_RESET");
                let queue = self.queue().expect("a queue");
                assert!(queue.enabled);
                queue.resetting = 3;
            }
            _ => panic!("written at {at}, which is read-only"),
        }
    }

    fn vector(&self, shape: &Shape, queue: Option<u16>, vector: u16) -> u16 {
        assert!(
            vector == 0xffff || usize::from(vector) < self.vectors.len(),
            "vector {vector} of {}",
            self.vectors.len()
        );
        match (shape.refuses)(queue, vector) {
            true => 0xffff,
            false => vector,
        }
    }

    fn write_status(&mut self, shape: &Shape, value: u32) {
        let value = value.to_le_bytes()[0];
        if value == 0 {
            return self.reset(shape);
        }
        assert!(
            self.reset_left == 0 && !self.stuck,
            "the reset is under way"
        );
        let lost = self.status & !value;
        assert!(lost == 0, "status bits {lost:#x} are taken back");
        self.status = value & !self.refused_status;
    }

    pub fn read_config(&mut self, shape: &Shape, at: u16, width: Width, silent: bool) -> u32 {
        assert!(at.is_multiple_of(width.bytes().into()));
        if (WINDOW + 16..WINDOW + 20).contains(&at) {
            let (offset, width) = self.aimed(width);
            return self.read(shape, offset, width, silent);
        }
        let from = usize::from(at);
        let mut bytes = [0; 4];
        let part = &self.config[from..from + usize::from(width.bytes())];
        bytes[..part.len()].copy_from_slice(part);
        u32::from_le_bytes(bytes)
    }

    pub fn write_config(&mut self, shape: &Shape, at: u16, width: Width, value: u32) {
        assert!(at >= WINDOW, "configuration space written at {at:#x}");
        match (at - WINDOW, width) {
            (4, Width::U8) => self.window.0 = value.to_le_bytes()[0],
            (8, Width::U32) => {
                assert!(value.is_multiple_of(self.window.2), "offset {value:#x}");
                self.window.1 = value;
            }
            (12, Width::U32) => {
                assert!([1, 2, 4].contains(&value));
                self.window.2 = value;
            }
            (16, width) => {
                let (offset, width) = self.aimed(width);
                self.write(shape, offset, width, value);
            }
            _ => panic!("the window's capability, written at {at:#x}"),
        }
    }

    fn aimed(&self, width: Width) -> (u64, Width) {
        let (bar, offset, len) = self.window;
        assert!(bar == BAR && len == u32::from(width.bytes()));
        (offset.into(), width)
    }
}

/// Every field in its natural width, and nothing but fields.
fn check_place(shape: &Shape, at: u64, width: Width) {
    let natural = match at {
        0 | 4 | 8 | 12 | 32 | 36 | 40 | 44 | 48 | 52 => Width::U32,
        20 | 21 | ISR => Width::U8,
        16 | 18 | 22 | 24 | 26 | 28 | 30 | 56 | 58 | 60 | 62 => Width::U16,
        DEVICE..NOTIFY => return check_device(shape, at - DEVICE, width),
        NOTIFY.. => return,
        _ => panic!("no register at {at:#x}"),
    };
    assert_eq!(width, natural, "at {at:#x}");
    let end = at + u64::from(width.bytes());
    assert!(at == ISR || at < COMMON + u64::from(shape.common_len) && end <= 64);
}

fn check_device(shape: &Shape, at: u64, width: Width) {
    let at = u32::try_from(at).unwrap();
    assert!(at.is_multiple_of(width.bytes().into()));
    let device_type = DeviceType::from_id(u32::from(shape.device) - 0x1040);
    let mut fields = config::fields(device_type).iter();
    if let Some(field) = fields.find(|f| (f.offset()..f.end()).contains(&at)) {
        let natural = match field.width() {
            1 | 6 => 1,
            2 => 2,
            _ => 4,
        };
        assert_eq!(u32::from(width.bytes()), natural, "{}", field.name());
    }
}

/// Configuration space: the header and the virtio capabilities.
pub fn config_space(shape: &Shape) -> Vec<u8> {
    let mut space = vec![0; 4096];
    let mut put = |at: u16, bytes: &[u8]| {
        let at = usize::from(at);
        space[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0x00, &0x1af4_u16.to_le_bytes());
    put(0x02, &shape.device.to_le_bytes());
    put(0x04, &6_u16.to_le_bytes());
    put(0x06, &0x10_u16.to_le_bytes());
    put(0x08, &[1, 0, 0, 2]);
    put(0x20, &0xfe00_000c_u32.to_le_bytes());
    put(0x2c, &0x8086_u16.to_le_bytes());
    put(0x2e, &0x001a_u16.to_le_bytes());
    put(0x34, &[0x40]);
    put(0x3d, &[u8::from(shape.intx)]);
    let len = |len: usize| u32::try_from(len).unwrap();
    let list = [
        (1, COMMON, shape.common_len, 16),
        (3, ISR, 1, 16),
        (4, DEVICE, len(shape.config.len()), 16),
        (2, NOTIFY, shape.notify_len, 20),
        (5, 0, 0, 20),
    ];
    let mut at = CAPS;
    for (cfg_type, offset, length, cap_len) in list {
        if cfg_type == 5 {
            at = WINDOW;
        }
        let next = match cfg_type {
            5 if shape.msix > 0 => 0xd0,
            5 => 0,
            2 => u8::try_from(WINDOW).unwrap(),
            _ => u8::try_from(at + 24).unwrap(),
        };
        put(at, &[9, next, cap_len, cfg_type, BAR, 0, 0, 0]);
        put(at + 8, &u32::try_from(offset).unwrap().to_le_bytes());
        put(at + 12, &length.to_le_bytes());
        if cfg_type == 2 {
            put(at + 16, &shape.multiplier.to_le_bytes());
        }
        at += 24;
    }
    if shape.msix > 0 {
        put(0xd0, &[0x11, 0]);
        put(0xd2, &(shape.msix - 1).to_le_bytes());
        put(0xd4, &1_u32.to_le_bytes());
        put(0xd8, &0x801_u32.to_le_bytes());
    }
    space
}
